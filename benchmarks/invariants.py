"""What must hold of any prediction, over random deployments: `python -m benchmarks.invariants [--count 1000]`.

Each deployment (a model cut to few layers, a cluster, a layout, work) is predicted again with one thing changed, and
the two steps are compared: more work, skew or tokens tried never shorten a step; a faster GPU or link never lengthens
it; more ranks in a domain never move a byte cheaper. Lines must add up to the step on every rank. Prints how many
deployments each rule was checked on, with those that break it; exits 1 if there are any.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from wingspan.cost.exchange import Collective, collective_seconds, exchange_seconds
from wingspan.deployment import Deployment, Options
from wingspan.errors import InputError
from wingspan.placement.spec import PlacementSpec
from wingspan.schedule.result import Operation
from wingspan.simulate.prediction import Prediction
from wingspan.simulate.step import predict, simulate
from wingspan.simulate.summary import step_report
from wingspan.specs.cluster import Cluster, load_cluster
from wingspan.specs.engines import EngineKind
from wingspan.specs.execution import DispatcherKind
from wingspan.specs.model import ModelSpec
from wingspan.specs.models import load_model
from wingspan.specs.workload import RecordedRouting, Workload
from wingspan.traffic.links import uniform_traffic
from wingspan.traffic.shares import expert_shares

_MODELS = (
    "deepseek-v3",
    "qwen3-30b-a3b",
    "gpt-oss-120b",
    "qwen3-next-80b-a3b",
    "mixtral-8x7b",
    "glm-4.5-air",
)
_CLUSTERS = (
    "h100-sxm",
    "h100-sxm+roce+gpus-per-network-card=2",
    "h200+efa",
    "h20",
    "h800",
    "b200",
    "gb200-nvl72",
    "mi300x",
    "cloudmatrix384",
    "seed-ideal",
)
_SHAPES = (1, 2, 4, 8, 16, 32, 64, 72, 128)
_LAYERS = 4
_CLOSE = 2e-3
"""Contention is settled in passes that stop when ends move by less than 3e-4 of the step."""
_EXACT = 1e-9

Broken = str | None
"""What is wrong, in words; None where the rule holds."""


class SilentRuleError(Exception):
    """The rule says nothing of such a deployment."""


def random_deployment(rng: np.random.Generator) -> Deployment:
    """Anything that may be asked for; drawn again where what was drawn does not fit together."""
    while True:
        try:
            return _drawn(rng)
        except (InputError, ValidationError, ValueError):
            continue


def _drawn(rng: np.random.Generator) -> Deployment:
    def one(*values: Any) -> Any:
        return values[int(rng.integers(len(values)))]

    whole = load_model(one(*_MODELS))
    firsts = {whole.order.index(kind) for kind in set(whole.order)}
    model = whole.with_layers(sorted({*firsts, *whole.moe_layers[:_LAYERS]}))
    cluster, ranks = load_cluster(one(*_CLUSTERS)), one(*_SHAPES)
    phase = one("decode", "decode", "prefill")
    experts_tensor_parallel = one(1, 1, 1, 2)
    groups = max(1, ranks // experts_tensor_parallel)
    slots = -(-model.experts.count // groups) + one(0, 0, 1, 2)
    decode = phase == "decode"
    tokens = int(2 ** rng.uniform(0, 9)) if decode else int(2 ** rng.uniform(6, 14))
    work = {
        "phase": phase,
        "tokens_per_gpu": tokens,
        "context": int(2 ** rng.uniform(6, 14)),
        "fluctuating": False,
        "routing": one(
            {"kind": "uniform"},
            {"kind": "log_normal", "sigma": float(rng.uniform(0, 1)), "group_sigma": one(0.0, 0.3)},
            {"kind": "power_law", "exponent": float(rng.uniform(0, 1))},
        ),
        "seed": int(rng.integers(4)),
        "mtp_tokens": one(0, 0, 0, 1, 2) if decode and model.mtp_layers else 0,
    }
    if decode and one(*range(4)) == 0:
        in_all = int(rng.integers(1, 2 * ranks + 1))
        work |= {"total_sequences": in_all, "tokens_per_gpu": -(-in_all // ranks)}
    options = {
        "schedule": one("sequential", "sequential", "chunks:2", "two-batch", "single-batch", "fused"),
        "dispatcher": one(None, *DispatcherKind),
        "engine": one(*EngineKind),
        "attention_ranks": one(1, 1, 1, 2, 8),
        "expert_tensor_parallel": experts_tensor_parallel,
    }
    return Deployment(
        model=model,
        cluster=cluster.with_nodes(
            max(1, -(-ranks // cluster.gpus_per_node)), min(cluster.gpus_per_node, ranks)
        ),
        workload=Workload.model_validate(work),
        placement=PlacementSpec.model_validate(
            {"ranks": groups, "experts_per_rank": slots, "strategy": one("linear", "balanced")}
        ),
        options=Options.model_validate(options),
    )


def _seconds(made: Deployment) -> float:
    return simulate(made).step_seconds


def _longer(before: float, after: float, close: float = _CLOSE) -> Broken:
    return None if after >= before * (1 - close) else f"{before * 1e6:,.2f} us, then {after * 1e6:,.2f}"


def _with_work(made: Deployment, **changes: object) -> Deployment:
    work = made.workload.model_dump() | changes
    try:
        return made.model_copy(update={"workload": Workload.model_validate(work)})
    except ValidationError:
        raise SilentRuleError from None


def _fixed(made: Deployment) -> Deployment:
    """The same with its experts where they are, whatever the loads become."""
    slots = PlacementSpec.explicit(made.build_placement())
    return made.model_copy(update={"placement": slots})


def more_tokens(made: Deployment, rng: np.random.Generator) -> Broken:
    """A sequence more, or many."""
    work = made.workload
    more = int(2 ** rng.uniform(0, 8))
    if work.phase == "prefill":
        # Whole prompts: a batch that ends within one has fewer pairs than its tokens say.
        prompt = min(work.context.mean_tokens, work.tokens_per_gpu)
        one, two = (_with_work(made, tokens_per_gpu=prompt * n, context=prompt) for n in (1, 1 + more))
        if two.workload.tokens_per_gpu > 2**20:
            raise SilentRuleError
        return _longer(_seconds(_fixed(one)), _seconds(_fixed(two)))
    if work.total_sequences is None:
        after = _with_work(made, tokens_per_gpu=work.tokens_per_gpu + more)
    else:
        in_all = work.total_sequences + more
        after = _with_work(made, total_sequences=in_all, tokens_per_gpu=-(-in_all // made.ranks))
    return _longer(_seconds(_fixed(made)), _seconds(_fixed(after)))


def longer_context(made: Deployment, rng: np.random.Generator) -> Broken:
    """Of every sequence that decodes."""
    if made.workload.phase == "prefill":
        raise SilentRuleError
    more = made.workload.context.mean_tokens + int(2 ** rng.uniform(0, 12))
    return _longer(_seconds(made), _seconds(_with_work(made, context=more)))


def more_tried(made: Deployment, _: np.random.Generator) -> Broken:
    """A token more that each sequence tries ahead."""
    if made.workload.phase == "prefill" or not made.model.mtp_layers:
        raise SilentRuleError
    return _longer(_seconds(made), _seconds(_with_work(made, mtp_tokens=made.workload.mtp_tokens + 1)))


def faster_link(made: Deployment, rng: np.random.Generator) -> Broken:
    """Inside a domain or between them, in bandwidth and latency."""
    level = ("scale_up", "scale_out")[int(rng.integers(2))]
    link = getattr(made.cluster, level)
    faster = link.model_copy(
        update={
            "bandwidth_bytes_per_second": link.bandwidth_bytes_per_second * float(rng.uniform(1, 8)),
            "latency_seconds": link.latency_seconds * float(rng.uniform(0, 1)),
        }
    )
    return _longer(_seconds(_on(made, made.cluster.model_copy(update={level: faster}))), _seconds(made))


def faster_gpu(made: Deployment, rng: np.random.Generator) -> Broken:
    """In arithmetic or memory."""
    gpu, factor = made.cluster.gpu, float(rng.uniform(1, 8))
    faster = (
        {"peak_flops": {name: rate * factor for name, rate in gpu.peak_flops.items()}}
        if rng.integers(2)
        else {"memory_bandwidth_bytes_per_second": gpu.memory_bandwidth_bytes_per_second * factor}
    )
    cluster = made.cluster.model_copy(update={"gpu": gpu.model_copy(update=faster)})
    return _longer(_seconds(_on(made, cluster)), _seconds(made))


def an_engine_adds(made: Deployment, _: np.random.Generator) -> Broken:
    """Whatever is sent as without one."""
    if made.options.engine is EngineKind.NONE or made.options.attention_ranks == made.ranks:
        raise SilentRuleError
    bare = made.model_copy(update={"options": made.options.model_copy(update={"engine": EngineKind.NONE})})
    return _longer(_seconds(bare), _seconds(made))


def more_skew(made: Deployment, rng: np.random.Generator) -> Broken:
    """One rank's experts get more of every layer's load; where weights are left unread, the output says so."""
    fixed = _fixed(made)
    shares_LE = expert_shares(made.model, made.workload)
    slots_LX = fixed.build_placement().slots_LRS.reshape(len(shares_LE), fixed.placement.ranks, -1)
    hot = int(rng.integers(fixed.placement.ranks))
    weight_LE = np.ones_like(shares_LE)
    for layer, slots in enumerate(slots_LX[:, hot]):
        weight_LE[layer, slots[slots >= 0]] = 1 + rng.uniform(0.2, 3)
    before, after = (
        predict(_with_work(fixed, routing=_loads(loads_LE)))
        for loads_LE in (np.full_like(shares_LE, shares_LE.mean()), weight_LE)
    )
    reports = [step_report(each) for each in (before, after)]
    if any("are not read" in note for report in reports for note in report.notes):
        raise SilentRuleError
    # With replicas placed for other loads, the rank may have had less than the mean before.
    if (_fullest_L(after) < _fullest_L(before) * (1 - _EXACT)).any():
        raise SilentRuleError
    return _longer(reports[0].step_seconds, reports[1].step_seconds)


def _fullest_L(prediction: Prediction) -> NDArray[np.float64]:
    """Rows of each layer's fullest rank."""
    return np.asarray(prediction.rows_LRS.sum(axis=2).max(axis=1))


def _loads(loads_LE: NDArray[np.float64]) -> RecordedRouting:
    return RecordedRouting(loads=tuple(map(tuple, (loads_LE / loads_LE.max()).tolist())))


def more_ranks_in_a_domain(made: Deployment, rng: np.random.Generator) -> Broken:
    """An exchange or a collective of as many bytes a rank."""
    cluster = load_cluster("gb200-nvl72").model_copy(update={"kernels": made.cluster.kernels})
    few = int(2 ** rng.integers(1, 6))
    kind = list(DispatcherKind)[int(rng.integers(len(DispatcherKind)))]
    found = []
    for ranks in (few, 2 * few):
        part = cluster.part(ranks)
        traffic = uniform_traffic(part, ranks, float(2 ** rng.integers(0, 3)), 7392.0, 256, 8, kind)
        found.append(
            float(exchange_seconds(part, traffic, kind).scale_up_seconds) / float(traffic.scale_up_sent[0])
        )
    total = float(2 ** rng.uniform(10, 30))
    for collective in Collective:
        one, two = (float(collective_seconds(cluster, collective, total, n)) for n in (few, 2 * few))
        if two < one:
            return f"{collective} of {total:.0f} B: {one * 1e6:.2f} us on {few}, {two * 1e6:.2f} on {2 * few}"
    return _longer(found[0], found[1], _EXACT)


def lines_add_up(made: Deployment, _: np.random.Generator) -> Broken:
    """On every rank, less what is hidden; and the bar is around the step."""
    report = simulate(made)
    spent_R = sum(np.array(v) for v in report.operation_seconds.values())
    spent_R = spent_R - sum((np.array(v) for v in report.hidden_seconds.values()), np.zeros(made.ranks))
    off = float(np.abs(spent_R / report.step_seconds - 1).max())
    if off > 1e-6:
        return f"lines are {off:.2e} of the step beside it"
    least = min(min(values) for values in report.operation_seconds.values())
    if least < -_EXACT:
        return f"a line of {least} s"
    waits = np.array(report.operation_seconds[Operation.WAIT])
    return None if waits.min() <= 0.5 * report.step_seconds or made.ranks == 1 else "every rank waits"


def _on(made: Deployment, cluster: Cluster) -> Deployment:
    return made.model_copy(update={"cluster": cluster})


RULES: tuple[Callable[[Deployment, np.random.Generator], Broken], ...] = (
    more_tokens,
    longer_context,
    more_tried,
    faster_link,
    faster_gpu,
    an_engine_adds,
    more_skew,
    more_ranks_in_a_domain,
    lines_add_up,
)


def broken_rules(seed: int) -> Iterator[tuple[str, Deployment, Broken]]:
    """Each rule on one random deployment: its name, the deployment, what breaks it; left out where it says nothing."""
    rng = np.random.default_rng(seed)
    made = random_deployment(rng)
    for rule in RULES:
        try:
            yield rule.__name__, made, rule(made, rng)
        except (SilentRuleError, InputError):
            continue


def in_words(made: Deployment) -> str:
    """One line that says which deployment it is."""
    model: ModelSpec = made.model
    work, options = made.workload, made.options
    sequences = f"{work.total_sequences} in all" if work.total_sequences else f"{work.tokens_per_gpu}"
    return (
        f"{model.name} on {made.ranks} x {made.cluster.name}, {made.layout}, {made.placement.experts_per_rank} slots, "
        f"{work.phase} {sequences} x {work.context.mean_tokens}, mtp {work.mtp_tokens}, {work.routing.kind}, "
        f"{options.schedule}, {made.dispatcher}, {options.engine}, attention {options.attention_ranks}"
    )


def main() -> int:
    """Check all rules and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    checked: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    for seed in range(asked.seed, asked.seed + asked.count):
        for name, made, broken in broken_rules(seed):
            checked[name] += 1
            if broken is not None:
                failed[name] += 1
                print(f"{name}, seed {seed}: {broken}: {in_words(made)}", flush=True)
    for rule in RULES:
        name = rule.__name__
        print(f"{name:24} {checked[name]:6,} checked {failed[name]:4,} broken")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
