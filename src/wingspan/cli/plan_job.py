"""What `wingspan plan` does: the plan of a step, or of requests, and what is shown and written of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from wingspan.cli import plan_view, service_view
from wingspan.cli.counting import Counting
from wingspan.cli.outputs import check_outputs
from wingspan.cli.service_commands import commands, prefill_path
from wingspan.deployment import save_deployment
from wingspan.describe import Description
from wingspan.errors import InputError
from wingspan.front import plan, plan_requests, planned_requests
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


def goal_of(
    said: Description,
    tokens: tuple[int | None, int | None],
    limits: tuple[float | None, float | None],
    longest_step_ms: float | None,
) -> ServiceGoal | None:
    """The requests to plan for: those of the file's plan, as the options change them; None: plan steps.

    Args:
        said: what was asked for.
        tokens: of a prompt and of an output, where they are given.
        limits: on TTFT and TPOT in seconds, where they are given.
        longest_step_ms: the limit on a step, which requests have none of.

    Raises:
        InputError: a limit of requests where there are none, or an option of steps where the file is for requests.
    """
    given = dict(
        zip(
            ("prompt_tokens", "output_tokens", "ttft_seconds", "tpot_seconds"),
            (*tokens, *limits),
            strict=True,
        )
    )
    given = {name: value for name, value in given.items() if value is not None}
    before = planned_requests(said)
    if before is not None:
        _check_of_requests(said, longest_step_ms)
        return replace(before, **given)  # type: ignore[arg-type]
    prompt, output = tokens
    if prompt is not None and output is not None:
        return ServiceGoal(prompt, output, *limits)
    if given:
        name = next(iter(given)).removesuffix("_seconds")
        raise InputError(
            f"`{name}`: is of requests, and {said.source} was not planned for any; add `prompt_tokens` and "
            "`output_tokens`, or leave it out"
        )
    return None


def _check_of_requests(said: Description, longest_step_ms: float | None) -> None:
    """Raise `InputError` for what says of a step what the file's requests say."""
    steps = {
        "phase": said.phase,
        "tokens_per_gpu": said.tokens_per_gpu,
        "total_sequences": said.total_sequences,
        "context": said.context,
        "expert_tensor_parallel": said.expert_tensor_parallel,
        "longest_step_ms": longest_step_ms,
    }
    for name, value in steps.items():
        if value is not None:
            raise InputError(
                f"`{name}` {value}: does nothing here: {said.source} was planned for requests, which say it; leave "
                "it out, or plan steps of the model itself"
            )


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
    goal: ServiceGoal,
    shown: Shown,
) -> None:
    """Plan groups for requests."""
    if shown.out is not None:
        check_outputs(prefill_path(shown.out))
    with Counting("planning") as counting:
        made = plan_requests(said, goal, gpus, watch=counting.show)
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
    groups = [(out, made.best.decode)]
    groups += [(prefill_path(out), made.best.prefill)] if made.best.prefill else []
    for path, group in groups:
        # Either file repeats the plan of both: what it was to keep is of all groups.
        save_deployment(
            group.deployment.model_copy(update={"planned": made.template.planned}),
            path,
        )


def _say_page(shown: Shown) -> None:
    if shown.html is not None and shown.for_people:
        print(f"page: {shown.html} (open in a browser)")
