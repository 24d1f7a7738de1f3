"""How large a prefill step is worth while: most tokens/s come with the largest batch, and every prompt waits for it."""

from __future__ import annotations

from wingspan.simulate.group_search import Wanted
from wingspan.simulate.search import DeploymentChoice, whole, with_workload
from wingspan.specs.execution import ScheduleKind

ENOUGH = 0.9
"""A batch that gives so much of the most tokens/s is taken rather than one of twice the tokens."""


def halved(most: DeploymentChoice) -> list[DeploymentChoice]:
    """The choice at its batch, a half of it, a quarter and so on, each predicted whole.

    The first with less than `ENOUGH` of its tokens/s is the last, and none holds less than one prompt.
    """
    curve, exactly = [most], Wanted(fixed_batch=True, longest_step_seconds=None)
    least = _least(most)
    while (
        _is_enough(curve[-1], most) and (batch := curve[-1].deployment.workload.tokens_per_gpu // 2) >= least
    ):
        smaller = whole(with_workload(most.deployment, tokens_per_gpu=batch), most.gpus, exactly)
        if smaller is None:
            break
        curve.append(smaller)
    return curve


def knee(curve: list[DeploymentChoice]) -> DeploymentChoice:
    """The smallest batch of these that gives enough of the first one's tokens/s."""
    return [choice for choice in curve if _is_enough(choice, curve[0])][-1]


def _is_enough(choice: DeploymentChoice, most: DeploymentChoice) -> bool:
    return choice.tokens_per_second_per_gpu >= ENOUGH * most.tokens_per_second_per_gpu


def _least(choice: DeploymentChoice) -> int:
    """Tokens of a prompt; of two, where two micro-batches take turns."""
    prompt = choice.deployment.workload.tokens_per_sequence
    return 2 * prompt if choice.deployment.options.schedule == ScheduleKind.TWO_BATCH else prompt
