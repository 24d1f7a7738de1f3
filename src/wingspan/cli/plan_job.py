"""What `wingspan plan` does: the plan of a step, or of requests, and what is shown and written of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wingspan.cli import plan_view, service_view
from wingspan.cli.counting import Counting
from wingspan.cli.outputs import check_outputs
from wingspan.cli.service_commands import commands, prefill_path
from wingspan.deployment import save_deployment
from wingspan.describe import Description
from wingspan.front import plan, plan_requests
from wingspan.simulate.service import ServiceGoal
from wingspan.simulate.service_plan import ServicePlan


@dataclass(frozen=True)
class Shown:
    """Where results go, and as what."""

    out: Path | None
    html: Path | None
    price: float | None
    as_json: bool
    as_csv: bool

    @property
    def for_people(self) -> bool:
        """Whether the terminal shows tables."""
        return not (self.as_json or self.as_csv)


def for_steps(said: Description, gpus: int | None, longest_step_ms: float | None, shown: Shown) -> None:
    """Plan the step of one phase."""
    longest = None if longest_step_ms is None else longest_step_ms / 1e3
    with Counting("planning") as counting:
        made = plan(said, gpus, longest_step_seconds=longest, watch=counting.show)
    if shown.out is not None:
        save_deployment(made.shown.deployment, shown.out)
    if shown.html is not None:
        from wingspan.cli.step_html import write_plan

        write_plan(made, shown.html, shown.price)
    if shown.as_json:
        print(plan_view.to_json(made, shown.price))
    elif shown.as_csv:
        plan_view.print_csv(made, shown.price)
    else:
        plan_view.show(made, shown.out, shown.price)
    _say_page(shown)


def for_requests(
    said: Description,
    gpus: int | None,
    tokens: tuple[int, int],
    limits: tuple[float | None, float | None],
    shown: Shown,
) -> None:
    """Plan groups for requests of (prompt, output) tokens within (TTFT, TPOT) seconds."""
    if shown.out is not None:
        check_outputs(prefill_path(shown.out))
    with Counting("planning") as counting:
        made = plan_requests(said, ServiceGoal(*tokens, *limits), gpus, watch=counting.show)
    if shown.out is not None:
        _save(made, shown.out)
    if shown.html is not None:
        from wingspan.cli.step_html import write_service

        write_service(made, shown.html, shown.price)
    then = commands(made, said, shown.out)
    if shown.as_json:
        print(service_view.to_json(made, shown.price, then))
    elif shown.as_csv:
        service_view.print_csv(made, shown.price)
    else:
        service_view.show(made, shown.price, then)
        if made.best is None and shown.out is not None:
            print(f"nothing is written to {shown.out}: there is no best")
    _say_page(shown)


def _save(made: ServicePlan, out: Path) -> None:
    """Write the groups that decode, and beside them those that prefill."""
    if made.best is None:
        return
    save_deployment(made.best.decode.deployment, out)
    if made.best.prefill is not None:
        save_deployment(made.best.prefill.deployment, prefill_path(out))


def _say_page(shown: Shown) -> None:
    if shown.html is not None and shown.for_people:
        print(f"page: {shown.html} (open in a browser)")
