"""Run a deployment's own step with real weights and real compute, and say which deployment that was.

Shapes: R ranks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from wingspan.deployment import Deployment
from wingspan.errors import InputError
from wingspan.routing.statistics import expert_load
from wingspan.routing.trace import RoutingTrace
from wingspan.runtime.generation.prompts import Prompt
from wingspan.runtime.generation.tokenizer import Tokenizer
from wingspan.runtime.run import Listener, RunRequest, run
from wingspan.runtime.transport.transport import Transport
from wingspan.schedule.result import StepReport
from wingspan.schedule.run_timeline import RunTimeline
from wingspan.simulate.work import contexts
from wingspan.specs.cluster import Cluster
from wingspan.specs.workload import RecordedRouting


def check_even(deployment: Deployment) -> None:
    """Raise `InputError` where ranks have unlike numbers of sequences: a compared step has as many on each."""
    if spread := deployment.workload.tokens_spread:
        raise InputError(
            f"workload.tokens_spread {spread:g}: a compared step has as many tokens on each rank; set it to 0"
        )
    if deployment.workload.total_sequences is not None:
        raise InputError(
            f"workload.total_sequences {deployment.workload.total_sequences}: a compared step has as many sequences on "
            "each rank; leave it out, tokens_per_gpu says how many"
        )


@dataclass(frozen=True)
class StepWork:
    """What a deployment's step needs of prompts.

    Args:
        prompts: drawn ids, in prompt order.
        new_tokens: of each; in decode all but the first are measured steps.
    """

    prompts: list[Prompt]
    new_tokens: int


def work_of(deployment: Deployment, steps: int) -> StepWork:
    """Prompts whose steps are the deployment's: so many sequences on every rank, of its context in the mean.

    Args:
        deployment: its workload's seed draws the ids.
        steps: decode steps to measure; a prefill is one step.
    """
    check_even(deployment)
    workload, model = deployment.workload, deployment.model
    decode = workload.phase == "decode"
    new_tokens = steps + 1 if decode else 1
    longest = np.inf if model.max_context is None else model.max_context - new_tokens
    each, ranks = max(1, round(workload.sequences_per_gpu)), deployment.ranks
    before = steps // 2 if decode else 0
    # The lengths that the prediction draws: those of a rank's sequences, or one for all.
    tokens_RB = np.clip(np.rint(contexts(deployment)) - before, 1, max(1, longest)).astype(int)
    tokens_RB = np.broadcast_to(tokens_RB, (ranks, each))
    rng = np.random.default_rng(workload.seed)
    prompts = []
    for number in range(each * ranks):
        rank, place = number % ranks, number // ranks
        ids = rng.integers(1, model.vocabulary - 1, tokens_RB[rank, place]).tolist()
        prompts.append(Prompt(number, ids, None, rank))
    return StepWork(prompts, new_tokens)


def run_step(
    transport: Transport, request: RunRequest, tokenizer: Tokenizer, phase: str
) -> tuple[StepReport, RunTimeline, RoutingTrace] | None:
    """Collective: the step, measured; on rank 0 its report, the run's timeline and its tokens' choices.

    A prefill runs once before, to warm up.
    """
    quiet = Listener(on_loaded=lambda _seconds: None, on_tokens=lambda _tokens: None)
    if phase == "prefill":
        run(transport, replace(request, keep_spans=False), tokenizer, quiet)
    result = run(transport, replace(request, keep_choices=True), tokenizer, quiet)
    if result is None:
        return None
    report = result.prefill if phase == "prefill" else result.decode
    if report is None:
        raise RuntimeError("no step was measured")
    return report, result.timeline, result.choices[phase]


def as_run(given: Deployment, machine: Cluster, ranks_per_node: int, choices: RoutingTrace) -> Deployment:
    """The deployment that ran: on this machine, with what its tokens chose, so that what links carry is counted."""
    cluster = machine.model_copy(
        update={
            "nodes": given.ranks // ranks_per_node,
            "gpus_per_node": ranks_per_node,
            "scale_up_domain_gpus": ranks_per_node,
        }
    )
    loads = tuple(tuple(map(float, layer)) for layer in expert_load(choices).tolist())
    routing = RecordedRouting(source="the run's own choices", loads=loads).with_tokens(choices)
    workload = given.workload.model_copy(update={"routing": routing, "fluctuating": False})
    return given.model_copy(update={"cluster": cluster, "workload": workload})
