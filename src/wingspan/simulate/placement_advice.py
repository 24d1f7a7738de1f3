"""In words: what placement does and cannot do here, and what would help."""

from __future__ import annotations

from wingspan.placement.limits import Limits
from wingspan.placement.objective import Objective
from wingspan.simulate.placement_score import PlacementScore

ANEW = "ours anew"
"""Name of the score of ours as if moving cost nothing."""
WITH_REQUESTS = "ours + requests"
"""Name of the score of ours with requests routed to the nodes of their experts."""
_WHY = {
    True: "beyond their loads, experts are picked together no more than by chance, and by tokens of all nodes alike. "
    "What would: fewer, larger nodes, or fewer experts per token.",
    False: "a row crosses for every expert off its own node, and tokens of all nodes pick alike. What would: "
    "the hierarchical dispatcher, or fewer, larger nodes.",
}
_HELPS = 0.02
"""Least share by which a figure must fall to be called a gain."""


def advice(
    limit: Limits, scores: dict[str, PlacementScore], objective: Objective, slots_per_rank: int
) -> list[str]:
    """In words: what placement does and cannot do here, and what would help.

    Args:
        limit: of these loads.
        scores: by strategy; must hold "linear" and "ours", may hold `WITH_REQUESTS`, and
            "present" with `ANEW`.
        objective: what placements are judged by.
        slots_per_rank: slots per (layer, rank).
    """
    linear, ours = scores["linear"], scores.get(ANEW, scores["ours"])
    verdict = _about_moving(scores) if "present" in scores else _verdict(linear, ours)
    return [
        verdict,
        *_about_compute(limit, linear, ours, slots_per_rank),
        *_about_network(scores, ours, objective),
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
            "tokens, so even ranks gain nothing and replicas cost reads. Larger steps make balance "
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


def _about_network(
    scores: dict[str, PlacementScore], ours: PlacementScore, objective: Objective
) -> list[str]:
    if objective.nodes == 1:
        return ["Network: all ranks share one node; nothing crosses nodes."]
    linear = scores["linear"]

    def fall(before: PlacementScore, after: PlacementScore) -> float:
        return _fall(before.across_bytes, after.across_bytes)

    total, busiest = fall(linear, ours), _fall(linear.busiest_card_bytes, ours.busiest_card_bytes)
    if max(total, busiest) < _HELPS:
        lines = [f"Network: no placement lowers what crosses nodes: {_WHY[objective.once_per_node]}"]
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
        lines.append("To try: requests routed to the nodes of their experts, where they keep to few experts.")
    return lines


def _fall(before: float, after: float) -> float:
    return 1 - after / before if before else 0.0


def _change(fall: float) -> str:
    return f"{abs(fall):.0%} {'fewer' if fall >= 0 else 'more'}"
