"""The page of `place --html`: which two placements it compares, and what its reader must know."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wingspan.cli.step_html import conditions
from wingspan.deployment import Deployment
from wingspan.placement.difference import difference
from wingspan.placement.objective import Objective
from wingspan.report.page import write_page
from wingspan.report.place_page import Moved, place_page
from wingspan.simulate.placing import Comparison


def write_place(
    result: Comparison,
    placement: str,
    about: str,
    remarks: Sequence[str],
    deployment: Deployment,
    objective: Objective,
    path: Path,
) -> None:
    """Write the page of `placement` beside the present one, or beside linear."""
    before = "present" if "present" in result.placements else "linear"
    moves = difference(
        result.placements[before], result.placements[placement], round(objective.shape.expert_bytes)
    )
    said = {
        name: text for name, text in conditions(deployment).items() if name not in ("Routing", "Placement")
    }
    some = result.placements[placement]
    size = f"{some.num_experts} experts on {some.num_ranks} ranks x {some.slots_per_rank} slots"
    page = place_page(
        result.scores,
        before,
        placement,
        Moved(moves, moves.experts * objective.move_seconds_per_expert),
        {"Planned from": about, "Slots": size, **said},
        result.judged_on,
        result.advice,
        remarks,
    )
    write_page(page, path)
