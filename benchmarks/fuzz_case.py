"""One random case: a checkpoint of some architecture, a deployment of it, and prompts."""

from __future__ import annotations

import random
from dataclasses import dataclass

from benchmarks.architectures import VOCABULARY, Sizes
from wingspan.runtime.model.known import architectures
from wingspan.specs.execution import DispatcherKind


@dataclass(frozen=True)
class Case:
    """What is drawn.

    Args:
        stored: the checkpoint's dtype on disk; `sharded`: in several files.
        flows: the schedules of prefill and decode.
        dtype: in memory.
        ends: an end-of-text token, or none.
    """

    number: int
    architecture: str
    sizes: Sizes
    weights_seed: int
    stored: str
    sharded: bool
    ranks: int
    ranks_per_node: int
    slots: int
    transport: str
    dispatch: DispatcherKind | None
    flows: tuple[str, str]
    dtype: str
    rebalance: str
    prompts: tuple[tuple[int, ...], ...]
    new_tokens: int
    ends: int | None

    def __str__(self) -> str:
        nodes = f"/{self.ranks_per_node}" if self.ranks_per_node != self.ranks else ""
        flow = self.flows[0] if self.flows[0] == self.flows[1] else "+".join(self.flows)
        lengths = ",".join(str(len(p)) for p in self.prompts)
        return (
            f"{self.number:4d} {self.architecture:22s} {self.sizes.top_k} of {self.sizes.experts} "
            f"{self.stored}{' in shards' if self.sharded else ''}: "
            f"{self.ranks}{nodes} ranks x {self.slots} {self.transport:5s} {self.dispatch or 'auto':12s} {flow:21s} "
            f"{self.dtype:8s} rebalance {self.rebalance:7s} prompts {lengths} + {self.new_tokens}"
        )


def draw(seed: int, number: int) -> Case:
    """The case of this number: always the same for a seed. Each round of cases visits every architecture once."""
    names = architectures()
    in_round = random.Random(f"{seed} round {number // len(names)}").sample(names, len(names))
    rng = random.Random(f"{seed} case {number}")
    experts = rng.choice((4, 6, 8))
    ranks = rng.choice((1, 2, 2, 3, 4, 4, 6))
    slots = -(-experts // ranks) + rng.choice((0, 0, 1))
    flows = [rng.choice(("sequential", "chunks:2", "chunks:3", "two-batch")) for _ in range(2)]
    vocabulary = range(1, VOCABULARY - 1)
    return Case(
        number=number,
        architecture=in_round[number % len(names)],
        sizes=Sizes(experts, rng.choice((1, 2, 3))),
        weights_seed=rng.randrange(1 << 30),
        stored=rng.choice(("float32", "bfloat16")),
        sharded=rng.random() < 0.3,
        ranks=ranks,
        ranks_per_node=2 if ranks in (4, 6) and rng.random() < 0.5 else ranks,
        slots=slots,
        transport=rng.choice(("auto", "torch", "shm")),
        dispatch=rng.choice((None, *DispatcherKind)),
        flows=(flows[0], rng.choice(flows)),
        dtype=rng.choice(("float32", "float32", "bfloat16")),
        rebalance=rng.choice(("off", "every 1", "every 3", "auto")) if ranks > 1 else "off",
        prompts=tuple(tuple(rng.choices(vocabulary, k=_length(rng))) for _ in range(rng.randint(1, 7))),
        new_tokens=rng.randint(1, 9),
        ends=rng.choice((None, None, rng.choice(vocabulary))),
    )


def _length(rng: random.Random) -> int:
    """Mostly beyond the sliding windows and index sizes of the architectures, often within, sometimes one token."""
    return rng.choice((1, rng.randint(2, 6), rng.randint(7, 14), rng.randint(15, 40)))
