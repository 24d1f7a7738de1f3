"""The pages of `simulate --html` and `plan --html`: what the report needs to know of a deployment, in words."""

from __future__ import annotations

from pathlib import Path

from wingspan.deployment import Deployment
from wingspan.report.page import write_page
from wingspan.report.plan_page import Alternative, plan_page
from wingspan.report.ranks import representative
from wingspan.report.step_page import step_page
from wingspan.schedule.result import StepReport
from wingspan.simulate.planning import Plan
from wingspan.simulate.prediction import Prediction
from wingspan.simulate.step import predict
from wingspan.specs.model import HeadAttention


def write_step(prediction: Prediction, report: StepReport, path: Path) -> None:
    """One step's page, with the timeline of its slowest, median and fastest rank."""
    deployment = prediction.deployment
    page = step_page(
        report,
        conditions(deployment),
        spans=prediction.timeline.spans(list(representative(report))),
        capacity_bytes=deployment.cluster.gpu.memory_bytes,
    )
    write_page(page, path)


def write_plan(plan: Plan, path: Path) -> None:
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
        )
        for choice in plan.choices
    ]
    page = plan_page(
        choices,
        plan.shown.report,
        conditions(plan.shown.deployment),
        gpus=plan.shown.gpus,
        layout=plan.shown.deployment.layout,
        spans=prediction.timeline.spans(list(representative(plan.shown.report))),
        capacity_bytes=plan.shown.deployment.cluster.gpu.memory_bytes,
        breaking_part=plan.breaking_part,
        ways_out=[
            (way.text, way.changes, way.peak_bytes, way.tokens_per_second_per_gpu) for way in plan.ways
        ],
    )
    write_page(page, path)


def conditions(deployment: Deployment) -> dict[str, str]:
    """What a reader must know of a deployment to trust its figures."""
    model, cluster, work = deployment.model, deployment.used_cluster, deployment.workload
    precisions, gpu = work.precisions(model), cluster.gpu
    heads = isinstance(model.attention, HeadAttention)
    kind = "sequences" if work.phase == "decode" else "tokens"
    routing = {k: v for k, v in work.routing.model_dump().items() if k not in ("kind", "loads")}
    detail = ", ".join(f"{name} {value}" for name, value in routing.items())
    group = deployment.options.attention_ranks
    beyond, sharing = cluster.scale_out.bandwidth_bytes_per_second, cluster.gpus_per_network_card
    shared = f" on a card that {sharing} share" if sharing > 1 else ""
    return {
        "Model": f"{model.name}: {model.layers} layers, {len(model.moe_layers)} with {model.experts.count} experts, "
        f"top-{model.experts.per_token}; {'heads' if heads else 'latent'} attention",
        "Cluster": f"{cluster.name}: {cluster.nodes} nodes of {cluster.gpus_per_node} {gpu.name}",
        "GPU": f"{gpu.memory_bytes / 1e9:.0f} GB at {gpu.memory_bandwidth_bytes_per_second / 1e12:.2f} TB/s",
        "Links, per GPU and direction": f"{cluster.scale_up.bandwidth_bytes_per_second / 1e9:.0f} GB/s within "
        f"{cluster.scale_up_domain_gpus} GPUs, {beyond / 1e9:.4g} GB/s beyond{shared}",
        "Work": f"{work.phase}, {work.tokens_per_gpu} {kind} per GPU, context {work.context.mean_tokens}",
        "Routing": work.routing.kind.replace("_", "-") + (f", {detail}" if detail else ""),
        "Attention": "data-parallel" if group == 1 else f"tensor-parallel over {group} GPUs",
        "Rows travel": f"{deployment.dispatcher.value}, "
        f"{precisions.dispatch.value} out, {precisions.combine.value} back",
        "Precision": f"experts {precisions.expert_weights.value}, other weights {precisions.weights.value}, "
        f"KV cache {precisions.kv.value}",
        "Placement": f"{deployment.placement.strategy.value}, "
        f"{deployment.placement.experts_per_rank} per GPU and layer",
    }
