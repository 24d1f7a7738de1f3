"""Every quantised format and its plain twin on 1, 3 and 4 ranks: `python -m benchmarks.loading`.

Their tokens must be the same, and no rank may hold more while it loads than its share of the weights and one expert.
Ranks are processes of their own; counted is their anonymous memory: without pages of the mapped checkpoint, which the
kernel drops as it likes.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch
from tests.runtime.anonymous import anonymous_bytes, peak
from tests.runtime.forked import on_ranks
from tests.runtime.model.twins import FORMATS, Sizes, twins
from tests.runtime.test_run import execute
from transformers.utils.logging import disable_progress_bar

from wingspan.runtime.model.engine import default_placement, describe, load
from wingspan.runtime.ranks.memory import return_freed_memory
from wingspan.runtime.transport.transport import Transport

SMALL, LARGE = Sizes(), Sizes(hidden=768, inner=1024, experts=12, layers=1)
"""For the tokens; for the memory: an expert is 4.7 MB in BF16, and a rank's layer at least three of them."""
_OBJECTS_BYTES = 1 << 20
"""For what is no weight: names, slices, modules that come and go while a rank loads."""


@dataclass(frozen=True)
class Loaded:
    """A rank's memory as it loaded."""

    share_bytes: int
    """What it held when it was done."""
    above_bytes: int
    """What it held more than that at its most."""
    expert_bytes: int
    """One expert as it lies in memory."""

    @property
    def holds(self) -> bool:
        """Never more than the share and one expert, beside Python's own objects."""
        return self.above_bytes <= self.expert_bytes + _OBJECTS_BYTES


def worst_loaded(folder: Path, ranks: int, dtype: torch.dtype) -> Loaded:
    """Load a checkpoint on ranks that share its experts evenly; the rank that held most above its share.

    Args:
        folder: the checkpoint.
        ranks: how many.
        dtype: of the weights in memory.
    """
    model = describe(folder, dtype)
    placement = default_placement(model.shape, ranks, -(-model.shape.num_experts // ranks))

    def work(transport: Transport) -> Loaded:
        return_freed_memory()
        before = anonymous_bytes()
        with peak() as most:
            engine = load(model, placement, transport, torch.device("cpu"))
        return_freed_memory()
        after = anonymous_bytes()
        expert_bytes = next(iter(engine.layers.values())).experts.slot_bytes
        return Loaded(after - before, most[0] - after, expert_bytes)

    with tempfile.TemporaryDirectory() as scratch:
        loaded: list[Loaded] = on_ranks(work, ranks, Path(scratch))
    return max(loaded, key=lambda of: of.above_bytes)


def written(folder: Path, name: str, sizes: Sizes) -> dict[str, Path]:
    """A format's checkpoint and its twin, from a process of their own.

    Ranks are forked from this one: they would use memory that it had freed, and not seem to grow.
    """
    with get_context("fork").Pool(1) as pool:
        folders = pool.apply(twins, (folder, name, sizes), {"alike": sizes == LARGE})
    return dict(zip((name, "its twin"), folders, strict=True))


def main() -> None:
    """Print a line for each format, its twin and number of ranks; fail where one does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--ranks", nargs="+", type=int, default=(1, 3, 4))
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    asked = parser.parse_args()
    print(f"memory in MB, {asked.dtype}")
    print("format        ranks   share  above it  one expert  tokens")
    wrong = 0
    for name in asked.formats:
        with tempfile.TemporaryDirectory() as folder:
            small = written(Path(folder) / "small", name, SMALL)
            large = written(Path(folder) / "large", name, LARGE)
            for ranks in asked.ranks:
                wrong += _try(small, large, ranks, getattr(torch, asked.dtype), Path(folder))
    raise SystemExit(f"{wrong} do not hold" if wrong else 0)


def _try(
    small: dict[str, Path], large: dict[str, Path], ranks: int, dtype: torch.dtype, scratch: Path
) -> int:
    """Print what one gives; how often it is wrong."""
    slots = -(-SMALL.experts // ranks)
    runs = [execute(folder, ranks, slots, scratch) for folder in small.values()]
    got, wanted = ([output.token_ids for output in run.outputs] for run in runs)
    wrong = int(got != wanted)
    for name, folder in large.items():
        of = worst_loaded(folder, ranks, dtype)
        megabytes = [of.share_bytes / 1e6, of.above_bytes / 1e6, of.expert_bytes / 1e6]
        tokens = "DIFFER" if got != wanted else "same"
        print(
            f"{name:<12}  {ranks:>5}  {'{:>6.1f}  {:>8.1f}  {:>10.1f}'.format(*megabytes)}  {tokens}",
            flush=True,
        )
        wrong += not of.holds
    return wrong


if __name__ == "__main__":
    disable_progress_bar()  # type: ignore[no-untyped-call]
    main()
