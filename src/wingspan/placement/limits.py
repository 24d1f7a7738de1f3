"""What no placement can change, and what would.

Shapes: L layers, E experts.
"""

from __future__ import annotations

from dataclasses import dataclass

from numpy.typing import ArrayLike

from wingspan.errors import InputError
from wingspan.placement.balanced import hottest_replica_bound
from wingspan.placement.replicate import checked_load
from wingspan.placement.score import PlacementScore
from wingspan.placement.topology import Topology
from wingspan.routing.load import imbalance

ANEW = "ours anew"
"""Name of the score of ours as if moving cost nothing."""
WITH_REQUESTS = "ours + requests"
"""Name of the score of ours with requests routed to the nodes of their experts."""
_WHY = {
    True: "beyond their loads, experts are picked together no more than by chance, and by tokens of all nodes alike. "
    "What would: fewer, larger nodes, or fewer experts per token.",
    False: "a row crosses for every expert off its own node, and tokens of all nodes pick alike. What would: "
    "once per node (without --flat), or fewer, larger nodes.",
}
_HELPS = 0.02
"""Least share by which a figure must fall to be called a gain."""


def check_memory(num_layers: int, slots_per_rank: int, expert_bytes: int, budget_bytes: float) -> None:
    """Raise `InputError`, naming the way out, where a rank's slots exceed its memory for experts."""
    needed = num_layers * slots_per_rank * expert_bytes
    if needed > budget_bytes:
        fits = int(budget_bytes // (num_layers * expert_bytes)) if expert_bytes else slots_per_rank
        mend = (
            f"use --slots-per-rank {fits} on more ranks" if fits else "one slot per layer needs more memory"
        )
        raise InputError(
            f"{num_layers} layers x {slots_per_rank} slots x {expert_bytes / 1e6:.2f} MB = {needed / 1e9:.2f} GB of "
            f"experts per rank exceed the {budget_bytes / 1e9:.2f} GB given; {mend}"
        )


@dataclass(frozen=True)
class Limits:
    """Least possible rank imbalance (max / mean, mean over layers), here and with other means.

    Attributes:
        hottest_expert: tokens of the hottest expert over the mean expert's.
        reading: the mean expert's time to read its weights over that to compute its tokens.
        floor: with these ranks and slots.
        spare_ranks: number of further ranks of `floor_with_spare`: a node's, or an eighth of all if more.
        floor_with_spare: with that many further ranks.
        floor_with_two: with two slots per rank on the same ranks; equals `floor` where there are two already.
    """

    hottest_expert: float
    reading: float
    floor: float
    spare_ranks: int
    floor_with_spare: float
    floor_with_two: float


def limits(load_LE: ArrayLike, topology: Topology, slots_per_rank: int) -> Limits:
    """See `Limits`; loads as tokens per step of each (layer, expert)."""
    load = checked_load(load_LE)
    computing_seconds = float(load.mean()) * topology.seconds_per_token
    nodes_more = max(1, round(topology.nodes / 8))
    spare = nodes_more * topology.ranks_per_node

    def floor(ranks: int, slots: int) -> float:
        return float(hottest_replica_bound(load, ranks, slots).mean())

    return Limits(
        hottest_expert=imbalance(load),
        reading=topology.seconds_per_expert / computing_seconds if computing_seconds else 0.0,
        floor=floor(topology.ranks, slots_per_rank),
        spare_ranks=spare,
        floor_with_spare=floor(topology.ranks + spare, slots_per_rank),
        floor_with_two=floor(topology.ranks, max(2, slots_per_rank)),
    )


def advice(
    limit: Limits, scores: dict[str, PlacementScore], topology: Topology, slots_per_rank: int
) -> list[str]:
    """In words: what placement does and cannot do here, and what would help.

    Args:
        limit: of these loads.
        scores: by strategy; must hold "linear" and "ours", may hold `WITH_REQUESTS`, and
            "present" with `ANEW`.
        topology: of the cluster.
        slots_per_rank: slots per (layer, rank).
    """
    linear, ours = scores["linear"], scores.get(ANEW, scores["ours"])
    verdict = _about_moving(scores) if "present" in scores else _verdict(linear, ours)
    return [
        verdict,
        *_about_compute(limit, linear, ours, slots_per_rank),
        *_about_network(scores, ours, topology),
    ]


def _verdict(linear: PlacementScore, ours: PlacementScore) -> str:
    gain = _fall(linear.step_seconds, ours.step_seconds)
    if gain < _HELPS:
        return "No placement helps here: ours is predicted no faster than linear."
    return f"Ours is predicted {gain:.0%} faster than linear."


def _about_moving(scores: dict[str, PlacementScore]) -> str:
    present, ours, anew = scores["present"], scores["ours"], scores[ANEW]
    gain, at_most = (_fall(present.step_seconds, score.step_seconds) for score in (ours, anew))
    if ours.experts_moved:
        return (
            f"Ours moves {ours.experts_moved:,} experts and is predicted {gain:.0%} faster than the present."
        )
    if at_most < _HELPS:
        return "Ours stays: no other placement is predicted faster than the present."
    return (
        f"Ours stays: no move pays for itself within the horizon. Anew it would be {at_most:.0%} faster, for "
        f"{anew.experts_moved:,} experts moved."
    )


def _about_compute(
    limit: Limits, linear: PlacementScore, ours: PlacementScore, slots_per_rank: int
) -> list[str]:
    if limit.reading > linear.imbalance:
        return [
            f"Compute: at this batch reading the mean expert's weights takes {limit.reading:.1f} x as long as its "
            "tokens, so even ranks gain nothing and replicas cost reads. Larger steps (--step-tokens) make balance "
            "count."
        ]
    if limit.floor < 1 + _HELPS:
        if linear.imbalance < 1 + 5 * _HELPS:
            return ["Compute: the ranks are even already."]
        return [
            f"Compute: the ranks can be evened out: linear {linear.imbalance:.2f}, ours {ours.imbalance:.2f}."
        ]
    where = "at one slot per rank" if slots_per_rank == 1 else f"with {slots_per_rank} slots per rank"
    text = (
        f"Compute: the hottest expert takes {limit.hottest_expert:.2f} x the mean one; {where} no placement brings "
        f"the fullest rank below {limit.floor:.2f} x the mean."
    )
    mends = []
    if limit.floor_with_spare < limit.floor * (1 - _HELPS):
        mends.append(f"{limit.spare_ranks} more spare ranks ({limit.floor_with_spare:.2f} x)")
    if slots_per_rank < 2 and limit.floor_with_two < limit.floor * (1 - _HELPS):
        mends.append(f"two slots per rank ({limit.floor_with_two:.2f} x)")
    return [text + (f" What would: {' or '.join(mends)}." if mends else "")]


def _about_network(scores: dict[str, PlacementScore], ours: PlacementScore, topology: Topology) -> list[str]:
    if topology.nodes == 1:
        return ["Network: all ranks share one node; nothing crosses nodes."]
    linear = scores["linear"]

    def fall(before: PlacementScore, after: PlacementScore) -> float:
        name = "across_deduplicated_bytes" if topology.once_per_node else "across_flat_bytes"
        return _fall(getattr(before, name), getattr(after, name))

    total, busiest = fall(linear, ours), _fall(linear.busiest_card_bytes, ours.busiest_card_bytes)
    if max(total, busiest) < _HELPS:
        lines = [f"Network: no placement lowers what crosses nodes: {_WHY[topology.once_per_node]}"]
    else:
        where = "Network (anew)" if ANEW in scores else "Network"
        lines = [
            f"{where}: {_change(total)} bytes cross nodes than under linear; the busiest card carries "
            f"{_change(busiest)}."
        ]
    if WITH_REQUESTS in scores:
        further = fall(scores["ours"], scores[WITH_REQUESTS])
        found = (
            f"{_change(further)} bytes cross"
            if abs(further) >= _HELPS
            else "gains nothing: requests pick alike"
        )
        lines.append(f"Request routing on top of ours: {found}.")
    elif total < 0.5:
        lines.append("To try: --request-routing, where requests keep to few experts.")
    return lines


def _fall(before: float, after: float) -> float:
    return 1 - after / before if before else 0.0


def _change(fall: float) -> str:
    return f"{abs(fall):.0%} {'fewer' if fall >= 0 else 'more'}"
