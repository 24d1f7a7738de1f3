"""The pages of `simulate --html` and `plan --html`: what the report needs to know of a deployment, in words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wingspan.cli.service_view import ESTIMATED, counted, groups_lines, left_out, limits_text
from wingspan.deployment import Deployment
from wingspan.report.page import write_page
from wingspan.report.plan_page import Alternative, plan_page
from wingspan.report.ranks import representative
from wingspan.report.service_page import ArrangementPoint, service_page
from wingspan.report.step_page import step_page
from wingspan.report.unfit import Mend, unfit
from wingspan.report.units import bytes_text
from wingspan.schedule.price import price_per_million_tokens
from wingspan.schedule.result import StepReport
from wingspan.simulate.memory import memory_use
from wingspan.simulate.planning import Plan
from wingspan.simulate.predicted_timeline import predicted_timeline
from wingspan.simulate.prediction import Prediction
from wingspan.simulate.service import Offer
from wingspan.simulate.service_plan import ServicePlan
from wingspan.simulate.step import predict
from wingspan.simulate.ways_out import WayOut, ways_out


def write_step(prediction: Prediction, report: StepReport, path: Path) -> None:
    """One step's page, with the timeline of its slowest, median and fastest rank."""
    deployment = prediction.deployment
    page = step_page(
        report,
        conditions(deployment),
        spans=predicted_timeline(prediction, list(representative(report))).spans,
        capacity_bytes=deployment.cluster.gpu.memory_bytes,
    )
    part = memory_use(deployment).breaking_part
    if part is not None:
        page = unfit(page, report, deployment.cluster.gpu.memory_bytes, part, _mends(ways_out(deployment)))
    write_page(page, path)


def _mends(ways: Sequence[WayOut]) -> list[Mend]:
    return [Mend(way.text, way.changes, way.peak_bytes, way.tokens_per_second_per_gpu) for way in ways]


def write_service(plan: ServicePlan, path: Path, price: float | None) -> None:
    """The page of a plan for requests."""
    goal, best = plan.goal, plan.best
    judged = [one for one in plan.considered if one.offer is not None and one.kind != "prefill"]
    page = service_page(
        f"Plan for requests on {plan.gpus} GPUs: {plan.template.model.name}",
        None if best is None else _point(best, "", price),
        [
            _point(offer, "" if offer is best else " " if offer.meets else "over the TPOT", price)
            for offer in plan.frontier
        ],
        [_point(one.offer, one.reason, price) for one in judged if one.offer],
        {
            "Requests": f"{goal.prompt_tokens:,} prompt and {goal.output_tokens:,} output tokens",
            "Limits": limits_text(goal),
            "Figures": ESTIMATED,
            **conditions(best.decode.deployment if best else plan.template),
        },
        groups_lines(best) if best else [],
        left_out(plan),
        slowest_user=None if goal.tpot_seconds is None else 1 / goal.tpot_seconds,
    )
    write_page(page, path)


def _point(offer: Offer, why: str, price: float | None) -> ArrangementPoint:
    rate = offer.tokens_per_second_per_gpu
    return ArrangementPoint(
        decode=counted(offer.decode.ranks, offer.decode_groups),
        prefill=counted(offer.prefill.ranks, offer.prefill_groups) if offer.prefill else "together",
        per_user=offer.tokens_per_second_per_user,
        per_gpu=rate,
        ttft_seconds=offer.ttft_seconds,
        tpot_seconds=offer.tpot_seconds,
        within=offer.meets,
        why=why,
        price=None if price is None else price_per_million_tokens(price, rate),
        estimated=offer.estimated,
    )


def write_plan(plan: Plan, path: Path, price: float | None = None) -> None:
    """The page of a plan: its choices, then the step of the one shown."""
    prediction = predict(plan.shown.deployment)
    choices = [
        Alternative(
            report=choice.report,
            layout=choice.deployment.layout,
            tokens_per_gpu=choice.deployment.workload.tokens_per_gpu,
            attention_ranks=choice.deployment.options.attention_ranks,
            dispatcher=choice.deployment.dispatcher.value,
            shown=choice is plan.shown,
            price=None
            if price is None
            else price_per_million_tokens(price, choice.tokens_per_second_per_gpu),
        )
        for choice in plan.choices
    ]
    page = plan_page(
        choices,
        plan.shown.report,
        conditions(plan.shown.deployment),
        gpus=plan.shown.gpus,
        layout=plan.shown.deployment.layout,
        spans=predicted_timeline(prediction, list(representative(plan.shown.report))).spans,
        capacity_bytes=plan.shown.deployment.cluster.gpu.memory_bytes,
        breaking_part=plan.breaking_part,
        mends=_mends(plan.ways),
    )
    write_page(page, path)


def conditions(deployment: Deployment) -> dict[str, str]:
    """What a reader must know of a deployment to trust its figures."""
    model, cluster, work = deployment.model, deployment.used_cluster, deployment.workload
    precisions, gpu = deployment.precisions, cluster.gpu
    kind = "sequences" if work.phase == "decode" else "tokens"
    routing = {k: v for k, v in work.routing.model_dump().items() if k not in ("kind", "loads")}
    detail = ", ".join(f"{name} {value}" for name, value in routing.items() if value not in (None, (), []))
    group = deployment.options.attention_ranks
    beyond, sharing = cluster.scale_out.bandwidth_bytes_per_second, cluster.gpus_per_network_card
    shared = f" on a card that {sharing} share" if sharing > 1 else ""
    return {
        "Model": f"{model.name}: {model.layers} layers, {len(model.moe_layers)} with {model.experts.count} experts, "
        f"top-{model.experts.per_token}; mixers: {', '.join(sorted({mixer.kind for mixer, _ in model.mixers}))}",
        "Cluster": f"{cluster.name}: {cluster.nodes} node{'s' if cluster.nodes > 1 else ''} of "
        f"{cluster.gpus_per_node} {gpu.name}",
        "GPU": f"{gpu.memory_bytes / 1e9:.0f} GB at {bytes_text(gpu.memory_bandwidth_bytes_per_second)}/s",
        "Links, per GPU and direction": f"{cluster.scale_up.bandwidth_bytes_per_second / 1e9:.0f} GB/s within "
        f"{cluster.scale_up_domain_gpus} GPUs, {beyond / 1e9:.4g} GB/s beyond{shared}",
        "Work": f"{work.phase}, {work.tokens_per_gpu} {kind} per GPU, context {work.context.mean_tokens}",
        "Routing": work.routing.kind.replace("_", "-") + (f", {detail}" if detail else ""),
        "Attention": "data-parallel" if group == 1 else f"tensor-parallel over {group} GPUs",
        "Rows travel": f"{deployment.dispatcher.value}, "
        f"{precisions.dispatch.value} out, {precisions.combine.value} back",
        "Precision": precisions.described,
        "Placement": f"{deployment.placement.strategy.value}, "
        f"{deployment.placement.experts_per_rank} per GPU and layer",
    }
