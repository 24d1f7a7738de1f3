"""What `benchmarks.calibration` calibrates on: files that this machine gives, in a folder, each made once.

A file that is there already is kept: so a folder can be looked at, and calibrated on again.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from benchmarks.serving import Server, started

MODEL = Path("models/tiny")
CONCURRENCIES = (1, 2, 4, 8, 16)
SEQUENCES = (1, 2, 4, 8, 16, 32)
PROMPT_TOKENS, OUTPUT_TOKENS = 64, 48
_RUN_TOKENS = 40
TRACE_CONTEXT = PROMPT_TOKENS + _RUN_TOKENS // 2
_WINGSPAN = (sys.executable, "-m", "wingspan.cli.main")
_COMPUTES, _HANDS_ON = 2, 3
"""Real-time priorities, if asked for: who wakes up to send a token has a core at once, as with ordinary ones."""


class OutOfTimeError(Exception):
    """The time limit came before all was measured."""


@dataclass(frozen=True)
class Making:
    """Where files go, until when, and who is told of each.

    Args:
        folder: of the files.
        rounds: how often each is measured; the kinds of one part are interleaved.
        end: of `time.monotonic()`.
        say: told of each file.
        real_time: whether all of it comes before whatever else wants the cores.
    """

    folder: Path
    rounds: int
    end: float
    say: Callable[[str], None]
    real_time: bool = False

    @property
    def computes(self) -> Sequence[str]:
        """What a command that computes begins with."""
        return ("chrt", "-r", str(_COMPUTES)) if self.real_time else ()

    @property
    def hands_on(self) -> Sequence[str]:
        """What one that sends and receives begins with."""
        return ("chrt", "-r", str(_HANDS_ON)) if self.real_time else ()

    def run(self, file: Path, command: Sequence[str | Path]) -> Path:
        """Let a command make a file, unless it is there."""
        if not file.exists():
            self.say(f"making {file.relative_to(self.folder)}")
            self.do(command)
        return file

    def do(self, command: Sequence[str | Path]) -> str:
        """What a command prints.

        Raises:
            OutOfTimeError: it did not end in time.
            SystemExit: it failed.
        """
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=self.left_seconds)
        except subprocess.TimeoutExpired:
            raise OutOfTimeError from None
        if done.returncode:
            raise SystemExit(f"{' '.join(map(str, command))}:\n{done.stderr[-2000:]}")
        return done.stdout

    @property
    def left_seconds(self) -> float:
        """Until the limit.

        Raises:
            OutOfTimeError: nothing is left.
        """
        left = self.end - time.monotonic()
        if left <= 0:
            raise OutOfTimeError
        return left

    def of_rounds(self, part: str, numbers: Sequence[int], ending: str) -> list[tuple[int, int, Path]]:
        """Round, number and file of all that a part makes, in the order in which it does."""
        turned = [(r, numbers[r % len(numbers) :] + numbers[: r % len(numbers)]) for r in range(self.rounds)]
        return [(r, n, self.folder / part / f"{n}-{r}.{ending}") for r, turn in turned for n in turn]


def base(making: Making) -> Path:
    """The cluster that `wingspan calibrate` finds here: of three, the middle one.

    By what it says of decode's reading of a cache, which is a difference of two measurements and varies most.
    """
    found = [making.folder / f"base-{number}.yaml" for number in range(3)]
    for file in found:
        making.run(file, [*making.computes, *_WINGSPAN, "calibrate", "--ranks", "1", "--out", file])
    return sorted(found, key=_decode_share)[1]


def _decode_share(file: Path) -> float:
    return float(yaml.safe_load(file.read_text())["kernels"]["attention"]["decode_share"])


def served(making: Making) -> list[Path]:
    """`wingspan serve` on one rank, loaded by `wingspan bench serve` with so many requests at a time."""
    found = making.of_rounds("served", CONCURRENCIES, "json")
    if all(file.exists() for _, _, file in found):
        return [file for _, _, file in found]
    (making.folder / "served").mkdir(exist_ok=True)
    command = [*making.computes, *_WINGSPAN, "serve", "{folder}", "--ranks", "1", "--port", "{port}"]
    with started(Server("wingspan serve", command), MODEL, making.folder / "served" / "log") as (front, url):
        if making.real_time:
            for thread in front.threads():
                os.sched_setscheduler(thread.id, os.SCHED_RR, os.sched_param(_HANDS_ON))
        making.do(_load(making, url, making.folder / "served" / "warm", 16, 32, 0))
        for _, concurrency, file in found:
            # The same requests in every round, so that rounds are one load.
            making.run(file, _load(making, url, file, concurrency, max(32, 8 * concurrency), concurrency))
    return [file for _, _, file in found]


def _load(
    making: Making, url: str, file: Path, concurrency: int, requests: int, seed: int
) -> list[str | Path]:
    return [
        *(*making.hands_on, *_WINGSPAN, "bench", "serve", url, "--concurrency", str(concurrency)),
        *("--num-requests", str(requests), "--prompt-tokens", str(PROMPT_TOKENS)),
        *("--output-tokens", str(OUTPUT_TOKENS), "--seed", str(seed), "--out", file),
    ]


def profiled(making: Making) -> list[Path]:
    """`torch.profiler`'s traces of decode steps of the model in transformers, all by one process."""
    found = making.of_rounds("profiler", SEQUENCES, "json.gz")
    if not all(file.exists() for _, _, file in found):
        (making.folder / "profiler").mkdir(exist_ok=True)
        making.say(f"making profiler/*: {len(found)} traces")
        numbers = [part for n in SEQUENCES for part in ("--sequences", str(n))]
        command = [
            *making.computes,
            sys.executable,
            "-m",
            "benchmarks.profiled_decode",
            MODEL,
            making.folder / "profiler",
        ]
        making.do([*command, *numbers, "--rounds", str(making.rounds)])
    return [file for _, _, file in found]


def traced(making: Making) -> list[Path]:
    """Traces of `wingspan run` on one rank with so many prompts."""
    (making.folder / "traces").mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    prompts = making.folder / "traces" / "prompts"
    found = making.of_rounds("traces", SEQUENCES, "json")
    for _, sequences, file in found:
        letters = rng.choice(list("abcdefghij klmnop"), (sequences, PROMPT_TOKENS - 2))
        prompts.write_text("\n".join("x" + "".join(row) + "x" for row in letters) + "\n")
        command = [*making.computes, *_WINGSPAN, "run", MODEL, "--ranks", "1", "--prompts-file", prompts]
        making.run(file, [*command, "--max-new-tokens", str(_RUN_TOKENS), "--trace", file])
    return [file for _, _, file in found]
