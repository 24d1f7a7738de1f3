"""Our strategy: of the candidates take, layer by layer, the one with the least predicted time.

    cost of a candidate = predicted step time x steps until the next plan + time to move there from the present

Staying where one is costs no move, and wins unless another is better by more than the noise of the loads. Because
the layers' times add up, each layer decides for itself.

Shapes: L layers, E experts, G nodes, R ranks, S slots per rank, C candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wingspan.errors import InputError
from wingspan.placement import candidates
from wingspan.placement.difference import fetched
from wingspan.placement.objective import Objective
from wingspan.placement.replicate import replica_counts
from wingspan.placement.simple import check_fits, linear
from wingspan.placement.sticky import name_nodes, name_ranks
from wingspan.specs.placement import EMPTY, Placement
from wingspan.traffic.demand import Demand, Floats

Ints = NDArray[np.int64]
_SPREADS = (1.0, 4.0)
_CHANGES = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class Moving:
    """When it pays to move.

    Args:
        steps: steps until the next plan, over which a gain adds up.
        noise: share of a layer's predicted time below which a gain is taken for noise of the loads.
    """

    steps: int = 1000
    noise: float = 0.02


@dataclass(frozen=True, eq=False)
class PlannedPlacement:
    """The chosen placement and what was expected of it.

    Attributes:
        placement: the choice.
        seconds_L: predicted time per layer and step.
        moved_L: experts to fetch per layer; all of them where there was no present placement.
        chosen_L: per layer the name of the candidate.
    """

    placement: Placement
    seconds_L: Floats
    moved_L: Ints
    chosen_L: tuple[str, ...]


def plan(
    demand: Demand,
    objective: Objective,
    slots_per_rank: int = 1,
    present: Placement | None = None,
    moving: Moving | None = None,
) -> PlannedPlacement:
    """Place experts so that the predicted step time is least, the move from `present` included.

    Args:
        demand: of a mean step.
        objective: what placements are judged by; its dispatcher decides what crosses nodes.
        slots_per_rank: slots per (layer, rank).
        present: the placement in use; same ranks and slots. Without it, moving costs nothing.
        moving: when it pays to move.

    Raises:
        InputError: the experts do not fit, or `present` is of another shape.
    """
    check_fits(demand.num_experts, objective.ranks, slots_per_rank)
    moving = moving or Moving()
    if present is None:
        options = _fresh(demand, objective, slots_per_rank, demand.sources(objective.nodes))
        return _choose(options, demand, objective, None, moving)
    _check_present(present, demand, objective, slots_per_rank)
    held_LEG = objective.on_node(present.slots_LRS, present.num_experts)
    worth_LEG = demand.sources(objective.nodes) + _stay_rows(objective, moving) * held_LEG
    options = {"present": present.slots_LRS}
    options |= _near_present(present.slots_LRS, demand, objective, worth_LEG)
    for name, slots_LRS in _fresh(demand, objective, slots_per_rank, worth_LEG).items():
        options[name] = name_ranks(
            name_nodes(slots_LRS, worth_LEG), present.slots_LRS, objective.ranks_per_node
        )
    return _choose(options, demand, objective, present.slots_LRS, moving)


def _fresh(demand: Demand, objective: Objective, slots_per_rank: int, worth_LEG: Floats) -> dict[str, Ints]:
    """Candidates that start from nothing."""
    shape = (demand.num_layers, demand.num_experts, objective.ranks, slots_per_rank)
    options = {
        "linear": linear(*shape).slots_LRS,
        "by load": candidates.by_load(demand, objective, slots_per_rank, worth_LEG),
    }
    if objective.nodes > 1:
        num_slots = objective.ranks * slots_per_rank
        counts_LE = replica_counts(demand.load_LE, num_slots, objective.ranks, objective.nodes)
        spread_out = candidates.gathered(demand, objective, counts_LE, slots_per_rank, worth_LEG, _SPREADS)
        options |= {f"gathered, spread {spread:g}": slots for spread, slots in spread_out.items()}
        if counts_LE.sum() > counts_LE.size:
            # A replica is one more expert whose weights a rank reads: at small batches they cost more than they give.
            options["gathered, no replicas"] = candidates.without_replicas(
                demand, objective, slots_per_rank, worth_LEG, _SPREADS[0]
            )
    return options


def _near_present(
    present_LRS: Ints, demand: Demand, objective: Objective, worth_LEG: Floats
) -> dict[str, Ints]:
    """Candidates that change the present a little."""
    options, slots_LRS, before = {}, present_LRS, 0
    for changes in _CHANGES:
        slots_LRS = candidates.changed_replicas(slots_LRS, demand.load_LE, worth_LEG, changes - before)
        options[f"{changes} replicas changed"], before = slots_LRS, changes
    if objective.nodes > 1:
        options["experts exchanged"] = candidates.exchanged(
            present_LRS, demand, objective, worth_LEG, least_gain=0.0, spread=_SPREADS[0]
        )
    return options


def _choose(
    options: dict[str, Ints], demand: Demand, objective: Objective, present_LRS: Ints | None, moving: Moving
) -> PlannedPlacement:
    """The cheapest valid option of each layer; the first of equal ones."""
    names = list(options)
    slots_CLRS = np.stack(list(options.values()))
    seconds_CL = np.stack([objective.seconds_L(slots, demand) for slots in slots_CLRS])
    if present_LRS is None:
        moved_CL = (slots_CLRS != EMPTY).sum(axis=(2, 3))
        cost_CL = seconds_CL.copy()
    else:
        moved_CL = np.stack([fetched(present_LRS, slots).sum(axis=1) for slots in slots_CLRS])
        cost_CL = seconds_CL * moving.steps + moved_CL * objective.move_seconds_per_expert
        cost_CL[0] -= seconds_CL[0] * moving.steps * moving.noise
    cost_CL[~_valid(slots_CLRS)] = np.inf
    best_L = cost_CL.argmin(axis=0)
    layer = np.arange(len(best_L))
    return PlannedPlacement(
        Placement(slots_CLRS[best_L, layer], demand.num_experts),
        seconds_CL[best_L, layer],
        moved_CL[best_L, layer],
        tuple(names[c] for c in best_L.tolist()),
    )


def _valid(slots_CLRS: Ints) -> NDArray[np.bool_]:
    """No expert twice on a rank: (candidates, layers). Gathering only discourages it."""
    ordered = np.sort(slots_CLRS, axis=3)
    twice = (ordered[..., 1:] == ordered[..., :-1]) & (ordered[..., 1:] != EMPTY)
    valid: NDArray[np.bool_] = ~twice.any(axis=(2, 3))
    return valid


def _stay_rows(objective: Objective, moving: Moving) -> float:
    """Rows per step, over all nodes, that take as long as fetching one expert does over the horizon."""
    seconds_per_row = objective.across_seconds_per_row / objective.ranks
    return objective.move_seconds_per_expert / moving.steps / seconds_per_row


def _check_present(present: Placement, demand: Demand, objective: Objective, slots_per_rank: int) -> None:
    has = (present.num_layers, present.num_experts, present.num_ranks, present.slots_per_rank)
    wanted = (demand.num_layers, demand.num_experts, objective.ranks, slots_per_rank)
    if has != wanted:
        raise InputError(
            "present placement: {} layers of {} experts on {} ranks x {} slots; ".format(*has)
            + "the plan is for {} of {} on {} x {}".format(*wanted)
        )
