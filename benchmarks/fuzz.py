"""Random checkpoints of every architecture in random deployments, each compared with plain transformers.

Architectures x experts and top-k x ranks, nodes and slots x dispatcher x transport x schedule x precision x
rebalancing x prompts of uneven lengths, with and without an end-of-text token. A line per case; exit code 1 if any
run differs or fails. A case that wingspan refuses is named with the reason.

    python -m benchmarks.fuzz --draws 300 --seed 0
    python -m benchmarks.fuzz --seed 0 --only deepseek_v4      # the same cases, those of one architecture
"""

from __future__ import annotations

import os

# Before torch is imported: a process whose OpenMP threads have run must not fork ranks that use OpenMP.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import transformers

from benchmarks.fuzz_case import Case, draw
from benchmarks.fuzz_judge import Verdict, judge

Results = list[tuple[Case, Verdict]]


def fuzz(cases: list[Case]) -> Results:
    """Judge the cases one after another, and print a line for each."""
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    results = []
    for case in cases:
        begun = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            verdict = judge(case, Path(folder))
        results.append((case, verdict))
        why = f": {verdict.why}" if verdict.why else ""
        print(f"{case} {time.monotonic() - begun:5.1f} s {verdict.outcome}{why}", flush=True)
    return results


def summary(results: Results) -> str:
    """Counts by outcome, and each reason once with its architectures."""
    counts = Counter(verdict.outcome for _, verdict in results)
    lines = [f"{len(results)} cases of {len({c.architecture for c, _ in results})} architectures"]
    lines += [f"{count:5d} {outcome}" for outcome, count in sorted(counts.items())]
    reasons: dict[str, set[str]] = {}
    for case, verdict in results:
        if verdict.outcome == "refused":
            reasons.setdefault(verdict.why.replace(case.architecture, "..."), set()).add(case.architecture)
    lines += [f"refused: {why} ({', '.join(sorted(types))})" for why, types in reasons.items()]
    lines += [
        f"DIFFERENT: case {c.number} {c.architecture}: {v.why}"
        for c, v in results
        if v.outcome == "DIFFERENT"
    ]
    return "\n".join(lines)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=300, help="cases to draw")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument(
        "--only", nargs="*", help="architectures; the other cases of the draw are passed over"
    )
    parser.add_argument(
        "--case", type=int, nargs="*", help="numbers of the draw's cases; the others are passed over"
    )
    chosen = parser.parse_args()
    cases = [draw(chosen.seed, number) for number in chosen.case or range(chosen.draws)]
    begun = time.monotonic()
    results = fuzz([case for case in cases if not chosen.only or case.architecture in chosen.only])
    print(f"\nseed {chosen.seed}, {time.monotonic() - begun:.0f} s\n{summary(results)}")
    return int(any(verdict.outcome == "DIFFERENT" for _, verdict in results))


if __name__ == "__main__":
    sys.exit(main())
