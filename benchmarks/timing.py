"""Compare things by the clock: rounds interleaved, medians, ratios."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def interleaved(
    contestants: dict[str, Callable[[], object]], seconds: float, most_rounds: int = 50
) -> dict[str, float]:
    """Median seconds of each contestant, all called once per round until `seconds` have gone, three rounds at least.

    A round's order turns, so that nobody always follows the same neighbour; one round warms up.
    """
    times: dict[str, list[float]] = {name: [] for name in contestants}
    names = list(contestants)
    for call in contestants.values():
        call()
    end = time.perf_counter() + seconds
    for number in range(most_rounds):
        if number >= 3 and time.perf_counter() > end:
            break
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            start = time.perf_counter()
            contestants[name]()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}
