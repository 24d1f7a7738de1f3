"""What this machine spends on a layer however little work it has: a very small model's decode steps, op by op.

On a CPU, and wherever ranks take turns on cores, a small step is mostly this: Python, many small operators, ranks
that wait for each other. Products and messages alone (`measuring/calibrate.py`) do not show it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median
from tempfile import TemporaryDirectory
from typing import cast

import torch

from wingspan.models.checkpoints import write_random_checkpoint
from wingspan.models.configuration import WingspanMoeConfig
from wingspan.runtime.dispatch.choice import DispatchOptions
from wingspan.runtime.generation.generate import Generator
from wingspan.runtime.generation.requests import Length, Request
from wingspan.runtime.generation.sampling import Sampling
from wingspan.runtime.measuring.calibrate import Overheads
from wingspan.runtime.measuring.report import RankMeasurement, peak_memory_bytes, step_report
from wingspan.runtime.model.engine import Engine, default_placement, describe, load
from wingspan.runtime.transport.transport import Transport
from wingspan.schedule.result import Operation, StepReport
from wingspan.specs.execution import DispatcherKind
from wingspan.writing import OutputFile

_LAYERS, _DENSE = 5, 1
_HEADS, _HEAD_DIM = 2, 32
_SEQUENCES = 16
"""Each rank has so many, enough that in nearly every layer its expert has a row."""
_SHORT, _LONG = 8, 248
"""Tokens of a prompt: what decode takes longer with the longer one, the cache costs."""
_STEPS, _WARM_UP = 14, 4


def measure_overheads(transport: Transport, device: torch.device) -> Overheads:
    """Run a very small random model with each dispatcher; the same result on all ranks. Collective."""
    ranks = transport.world.size
    config = WingspanMoeConfig(
        vocab_size=260,
        hidden_size=64,
        intermediate_size=64,
        moe_intermediate_size=64,
        num_hidden_layers=_LAYERS,
        first_k_dense_replace=_DENSE,
        num_attention_heads=_HEADS,
        head_dim=_HEAD_DIM,
        num_experts=max(2, ranks),
        num_experts_per_tok=2,
        max_position_embeddings=_LONG + _STEPS + 1,
    )
    kinds = [DispatcherKind.FLAT]
    if ranks > transport.world.ranks_per_node > 1:
        kinds.append(DispatcherKind.HIERARCHICAL)
    with TemporaryDirectory(prefix="wingspan-overheads-") as folder:
        path = _written(transport, config, Path(folder) / "model")
        of_kinds = {kind: _steps(transport, device, path, kind, _SHORT) for kind in kinds}
        process_bytes = transport.share(torch.tensor([float(peak_memory_bytes())])).mean()
        long = _steps(transport, device, path, DispatcherKind.FLAT, _LONG)
    found = None
    if long is not None:
        short = cast("dict[DispatcherKind, list[StepReport]]", of_kinds)
        found = _overheads(short, long, float(process_bytes))
    return cast("Overheads", transport.broadcast(found))


def _written(transport: Transport, config: WingspanMoeConfig, folder: Path) -> Path:
    """The model in a folder of this rank's own: rank 0 makes it, as transformers writes on that rank alone."""
    files = None
    if transport.world.rank == 0:
        write_random_checkpoint(config, folder, seed=0)
        files = {file.name: file.read_bytes() for file in folder.iterdir()}
    files = cast("dict[str, bytes]", transport.broadcast(files))
    if transport.world.rank > 0:
        folder.mkdir()
        for name, content in files.items():
            with OutputFile(folder / name) as file:
                file.write(content)
    return folder


def _steps(
    transport: Transport, device: torch.device, folder: Path, kind: DispatcherKind, prompt_tokens: int
) -> list[StepReport] | None:
    """The decode steps, one report each, on rank 0; None elsewhere."""
    world = transport.world
    model = describe(folder)
    placement = default_placement(model.shape, world.size, max(1, 2 // world.size))
    engine = load(model, placement, transport, device, dispatch=DispatchOptions(kind))
    generator = Generator(engine)
    for number in range(_SEQUENCES * world.size):
        length = Length(_STEPS + 1, ignore_eos=True)
        generator.submit(
            Request(number, [1] * prompt_tokens, Sampling(), length, number, number % world.size)
        )
    while generator.unfinished:
        generator.step()
    gathered = cast("list[RankMeasurement] | None", transport.gather(_measurement(engine, generator)))
    if gathered is None:
        return None
    reports = []
    for step in range(_WARM_UP, _STEPS):
        ranks = [replace(rank, steps=[rank.steps[step]]) for rank in gathered]
        report = step_report(ranks, "decode", placement, world, "sequential")
        if report is not None:
            reports.append(report)
    return reports


def _measurement(engine: Engine, generator: Generator) -> RankMeasurement:
    return RankMeasurement(
        rank=engine.transport.world.rank,
        steps=[step for step in engine.recorder.steps if step.phase == "decode"],
        load_LE={phase: load.cpu().numpy() for phase, load in generator.load_LE.items()},
        memory_bytes={},
        peak_memory_bytes=0,
        spans=[],
    )


def _overheads(
    of_kinds: dict[DispatcherKind, list[StepReport]], long: list[StepReport], process_bytes: float
) -> Overheads:
    flat, moe = of_kinds[DispatcherKind.FLAT], _LAYERS - _DENSE

    def seconds(reports: Sequence[StepReport], operation: Operation) -> float:
        """The mean rank's in the median step."""
        return median(fmean(r.operation_seconds.get(operation, [0.0])) for r in reports)

    def exchange(reports: Sequence[StepReport], operation: Operation) -> float:
        waiting = seconds(reports, Operation.WAIT) / 2
        return (seconds(reports, operation) + waiting) / moe

    between = seconds(flat, Operation.OTHER) / _LAYERS
    # All that the step takes longer: who takes turns on cores waits for the others' caches as well.
    longer = median(r.step_seconds for r in long) - median(r.step_seconds for r in flat)
    pairs = _SEQUENCES * (_LONG - _SHORT)
    return Overheads(
        attention_seconds=seconds(flat, Operation.ATTENTION) / _LAYERS + between,
        gate_seconds=seconds(flat, Operation.GATE) / moe,
        experts_seconds=seconds(flat, Operation.EXPERT) / moe,
        dispatch_seconds={kind: exchange(reports, Operation.DISPATCH) for kind, reports in of_kinds.items()},
        combine_seconds={kind: exchange(reports, Operation.COMBINE) for kind, reports in of_kinds.items()},
        cache=(4.0 * _HEADS * _HEAD_DIM * pairs, max(0.0, longer) / _LAYERS),
        process_bytes=process_bytes,
    )
