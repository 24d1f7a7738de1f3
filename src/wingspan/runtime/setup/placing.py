"""Over how many ranks experts lie, and where: as the deployment says, as asked, or as this machine has cores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wingspan.errors import InputError
from wingspan.host import usable_cores
from wingspan.placement.spec import PlacementSpec, Strategy
from wingspan.placement_file import read_placement
from wingspan.runtime.setup.config_facts import ConfigFacts
from wingspan.specs.placement import Placement
from wingspan.specs.reading import parse


@dataclass(frozen=True)
class Placing:
    """Where experts go, before their number is known for sure.

    Args:
        strategy: how they are put into slots.
        ranks: to start; None = as many as a launcher or testbed has.
        experts_per_rank: slots; None = as few as hold all experts.
        seed: of a strategy that draws.
        explicit: every slot, with strategy explicit.
        note: what was chosen for this machine, as a line.
    """

    strategy: Strategy
    ranks: int | None
    experts_per_rank: int | None = None
    seed: int = 0
    explicit: PlacementSpec | None = None
    note: str | None = None

    @classmethod
    def of_slots(cls, spec: PlacementSpec) -> Placing:
        """A placement that says every slot."""
        return cls(Strategy.EXPLICIT, spec.ranks, spec.experts_per_rank, explicit=spec)

    def on(self, ranks: int, experts: int) -> PlacementSpec:
        """The rule for so many ranks and experts.

        Raises:
            InputError: the slots are of another number of ranks.
        """
        if self.explicit is not None:
            if self.explicit.ranks != ranks:
                raise InputError(
                    f"the placement is for {self.explicit.ranks} ranks, and {ranks} run; start {self.explicit.ranks}"
                )
            return self.explicit
        slots = self.experts_per_rank or -(-experts // ranks)
        wanted = {"strategy": self.strategy, "ranks": ranks, "experts_per_rank": slots, "seed": self.seed}
        return parse(PlacementSpec, wanted, "placement")


def placing(
    ranks: int | None,
    experts_per_rank: int | None,
    placement: Placement | Path | str | None,
    planned: tuple[PlacementSpec, str] | None,
    facts: ConfigFacts,
    *,
    started: bool,
) -> Placing:
    """Where experts go.

    Args:
        ranks, experts_per_rank: as asked; None = as planned, or for this machine.
        placement: slots, a file of them, or a strategy's name.
        planned: a deployment's placement, and the deployment's name.
        facts: of the model.
        started: a launcher or a testbed says how many ranks there are.

    Raises:
        InputError: values that do not fit each other or the model.
    """
    for name, value in (("ranks", ranks), ("experts_per_rank", experts_per_rank)):
        if value is not None and value < 1:
            raise InputError(f"`{name}` {value}: use 1 or more")
    if isinstance(placement, Placement):
        return _of_slots(placement, "the placement", ranks, experts_per_rank)
    if placement is not None and Path(placement).is_file():
        return _of_file(Path(placement), ranks, experts_per_rank, facts)
    strategy = None if placement is None else _strategy(str(placement))
    if planned is None:
        return _for_machine(strategy or Strategy.LINEAR, ranks, experts_per_rank, facts, started=started)
    start, source = planned
    if start.slots is not None:
        if (ranks, experts_per_rank, strategy) != (None, None, None):
            raise InputError(
                f"{source}: its placement says every slot; leave `ranks`, `experts_per_rank` and `placement` out, or "
                "name a placement's file"
            )
        return Placing.of_slots(start)
    found = Placing(
        strategy or start.strategy,
        ranks or start.ranks,
        experts_per_rank or start.experts_per_rank,
        start.seed,
    )
    facts.check_placement(found.ranks or 1, found.experts_per_rank)
    return found


def _for_machine(
    strategy: Strategy, ranks: int | None, slots: int | None, facts: ConfigFacts, *, started: bool
) -> Placing:
    """A checkpoint alone takes as many ranks as there are cores, and no more than its experts fill."""
    note = None
    if ranks is None and not started:
        ranks = 1
        if facts.experts is not None:
            chosen = max(1, slots or -(-facts.experts // min(facts.experts, usable_cores())))
            ranks = -(-facts.experts // chosen)
            if slots is None and chosen > 1:
                note = (
                    f"{ranks} ranks with {chosen} experts each, for {usable_cores()} cores; {facts.experts} ranks have "
                    "one each"
                )
    if ranks is not None:
        facts.check_placement(ranks, slots)
    return Placing(strategy, ranks, slots, note=note)


def _of_file(path: Path, ranks: int | None, slots: int | None, facts: ConfigFacts) -> Placing:
    """The placement in a file, slot by slot."""
    stored = read_placement(path)
    found = _of_slots(stored.placement, f"`placement` {path}", ranks, slots)
    if facts.experts not in (None, stored.placement.num_experts):
        raise InputError(
            f"`placement` {path}: is of {stored.placement.num_experts} experts per layer; the model has {facts.experts}"
        )
    if facts.spec is not None:
        try:
            stored.check_model(facts.spec.moe_layers, facts.spec.layers, facts.spec.name)
        except InputError as error:
            raise InputError(f"`placement` {path}: {error}") from None
    return found


def _of_slots(placement: Placement, name: str, ranks: int | None, slots: int | None) -> Placing:
    if slots is not None:
        raise InputError(f"{name}: its slots say how many; leave `experts_per_rank` out")
    if ranks not in (None, placement.num_ranks):
        raise InputError(f"{name}: is for {placement.num_ranks} ranks; leave `ranks` out")
    return Placing.of_slots(PlacementSpec.explicit(placement))


def _strategy(name: str) -> Strategy:
    rules = [rule for rule in Strategy if rule is not Strategy.EXPLICIT]
    for rule in rules:
        if name.replace("-", "_") == rule.value:
            return rule
    shown = ", ".join(rules).replace("_", "-")
    raise InputError(f"`placement` {name}: neither one of {shown}, nor an existing file")
