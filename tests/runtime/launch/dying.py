"""What ranks do when one of them is killed in the middle of it: works of `run_ranks` in which rank `VICTIM` dies.

`mpirun -n 4 python -m tests.runtime.launch.dying NAME FOLDER` does one of them over MPI.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from wingspan.placement.simple import linear
from wingspan.runtime.dispatch.buffers import Buffers
from wingspan.runtime.dispatch.choice import DEFAULT_DISPATCH, Dispatchers
from wingspan.runtime.generation.prompts import Prompt, Tokenizer
from wingspan.runtime.generation.sampling import Sampling
from wingspan.runtime.launch.group import Group
from wingspan.runtime.model.engine import default_placement, describe
from wingspan.runtime.model.step import flow_named
from wingspan.runtime.paced import PacedStep, run_paced
from wingspan.runtime.run import Listener, RunRequest, run
from wingspan.runtime.start import EngineSetup
from wingspan.runtime.transport.transport import Transport
from wingspan.schedule.result import Operation

CPU = torch.device("cpu")
RANKS = 4
VICTIM = 2


@dataclass(frozen=True)
class Death:
    """The victim's end, which leaves its time in a folder."""

    folder: Path

    def __call__(self) -> None:
        """Kill this process."""
        self._note.write_text(repr(time.monotonic()))
        os.kill(os.getpid(), signal.SIGKILL)

    @property
    def seconds(self) -> float:
        """When it was, on the clock of `time.monotonic`; raises `OSError` where nobody died."""
        return float(self._note.read_text())

    @property
    def _note(self) -> Path:
        return self.folder / "death"


@torch.inference_mode()
def with_rows_under_way(transport: Transport, death: Death, *, on_the_way_back: bool) -> None:
    """Dispatch and combine of 16 MB a rank, more than sockets hold; the third never ends."""
    placement = linear(1, RANKS, RANKS)
    dispatcher = Dispatchers(placement, transport, Buffers(), CPU, DEFAULT_DISPATCH).for_layer(0)
    x_TD = torch.ones(4096, 1024)
    experts_TK = torch.arange(len(x_TD))[:, None] % RANKS
    dying = transport.world.rank == VICTIM
    for number in itertools.count():
        (route,) = dispatcher.route(x_TD, experts_TK, torch.ones(len(x_TD), 1), chunks=1, lane=0)
        coming = dispatcher.send(route)
        if dying and number == 2 and not on_the_way_back:
            death()
        received = coming.wait()
        going = dispatcher.send_back(received.rows_ND, received.handle)
        if dying and number == 2:
            death()
        going.wait()


class _Pace:
    """Hardly computes; as the victim's it dies when its experts are called for the `last`-th time."""

    def __init__(self, last: int, death: Death) -> None:
        self._last = last
        self._death = death
        self._calls = 0

    def seconds(self, operation: Operation, layer: int | None) -> float:
        return 1e-4

    def experts_seconds(self, layer: int, rows_S: Sequence[int]) -> float:
        self._calls += 1
        if self._calls == self._last:
            self._death()
        return 1e-3


def between_chunks(transport: Transport, death: Death) -> None:
    """Steps of two MoE layers in four chunks; in the third step, the last layer stays between its first two chunks."""
    layers, chunks = 2, 4
    step = PacedStep(
        layers=layers, moe_layers=tuple(range(layers)), hidden=1024, dtype=torch.float32,
        placement=linear(layers, RANKS, RANKS), flow=flow_named(f"chunks:{chunks}"), steps=1000,
    )  # fmt: skip
    rank = transport.world.rank
    last = 3 * layers * chunks - chunks + 2 if rank == VICTIM else 0
    experts_LTK = np.random.default_rng(rank).integers(0, RANKS, (layers, 512, 1))
    run_paced(transport, step, _Pace(last, death), experts_LTK, "prefill")


def in_a_forward(transport: Transport, death: Death, model: Path, overlap: str) -> None:
    """The main job; in the third step's last forward the last attention never ends.

    Args:
        model: a checkpoint of two layers whose experts fit two to a rank.
        overlap: in two batches the first one's rows are under way then.
    """
    flow = flow_named(overlap)
    if transport.world.rank == VICTIM:
        _die_in_attention(3 * flow.micro_batches, death)
    described = describe(model)
    request = RunRequest(
        EngineSetup(
            described,
            default_placement(described.shape, RANKS, 2),
            CPU,
            flows={"prefill": flow, "decode": flow},
        ),
        prompts=[Prompt(n, [n + 1, n + 2, n + 3], None, n % RANKS) for n in range(2 * RANKS)],
        max_new_tokens=50,
        sampling=Sampling(),
    )
    run(transport, request, Tokenizer(model), Listener(lambda seconds: None, lambda tokens: None))


def _die_in_attention(last: int, death: Death) -> None:
    calls = itertools.count(1)

    def hook(module: torch.nn.Module, _: Any) -> None:
        # Of an attention module; its parts have no layer of their own.
        if getattr(module, "layer_idx", None) == 1 and next(calls) == last:
            death()

    register_module_forward_pre_hook(hook)


def scenario(name: str, model: Path | None = None) -> Callable[[Transport, Death], None]:
    """The work of that name."""
    if name in ("sequential", "two-batch") and model is not None:
        return lambda transport, death: in_a_forward(transport, death, model, name)
    return {
        "dispatch": lambda transport, death: with_rows_under_way(transport, death, on_the_way_back=False),
        "combine": lambda transport, death: with_rows_under_way(transport, death, on_the_way_back=True),
        "chunks": between_chunks,
    }[name]


def main() -> None:
    """One of mpirun's ranks."""
    name, folder = sys.argv[1:]
    group = Group.find(os.environ, RANKS, RANKS, "mpi").meet(os.environ, torch.device("cpu"))
    (Path(folder) / f"pid{os.environ['OMPI_COMM_WORLD_RANK']}").write_text(str(os.getpid()))
    group.run(lambda transport: scenario(name)(transport, Death(Path(folder))))


if __name__ == "__main__":
    main()
