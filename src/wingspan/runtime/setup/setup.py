"""What an engine is made from: a checkpoint alone, with a placement, or a deployment with all that it says.

Read before torch is imported; what is asked for beside a deployment changes what it says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wingspan.balance.settings import Rebalance, parse_rebalance
from wingspan.deployment import Deployment, is_deployment, load_deployment
from wingspan.errors import InputError
from wingspan.runtime.launch.group import Group
from wingspan.runtime.ranks.nodes import nodes_from_environment
from wingspan.runtime.ranks.world import launch_from_environment
from wingspan.runtime.setup.config_facts import ConfigFacts, config_facts
from wingspan.runtime.setup.model_folder import checkpoint_of, find_checkpoint
from wingspan.runtime.setup.placing import Placing, placing
from wingspan.runtime.setup.precision import run_precision
from wingspan.specs.execution import DispatcherKind, parse_runnable_schedule, plugin_names
from wingspan.specs.placement import Placement
from wingspan.specs.reading import choice
from wingspan.specs.running import Device, RowPrecision, TransportKind, WeightType
from wingspan.traffic.shares import expert_shares

AUTO = "auto"
"""A schedule that prediction is to choose, or a dispatcher that is chosen by what it sends."""


@dataclass(frozen=True)
class Asked:
    """What somebody asks for; None = the deployment's value, or the default.

    Args:
        source: a deployment, its file, or a checkpoint's folder.
        checkpoint: folder of a deployment's weights, where it names none or another.
        ranks, ranks_per_node: to start.
        experts_per_rank: slots of a rank in each layer.
        placement: which expert lives in which slot, a file of that, or a strategy's name.
        schedule, dispatcher, dtype, row_precision, device, transport: by their names.
        rebalance: off, auto, `every N`, or what these stand for.
    """

    source: Deployment | Path | str
    checkpoint: Path | str | None = None
    ranks: int | None = None
    ranks_per_node: int | None = None
    experts_per_rank: int | None = None
    placement: Placement | Path | str | None = None
    schedule: str | None = None
    dispatcher: str | None = None
    dtype: str | None = None
    row_precision: str | None = None
    rebalance: Rebalance | str = "off"
    device: str = Device.CPU
    transport: str = TransportKind.AUTO


@dataclass(frozen=True)
class Setup:
    """How an engine is set up.

    Args:
        folder: the checkpoint's.
        facts: what its configuration says.
        placing: where experts go.
        ranks_per_node: to start; None = as the launcher or testbed says, or all.
        deployment: where it is made from one.
        schedule: the text of a schedule, or auto.
        dispatcher: None = auto, or a plug-in.
        plugin: a dispatcher of another package.
        dtype: of the weights in memory.
        row_precision: of rows on their way to experts.
        rebalance: how experts move meanwhile; None: they stay.
        device: where ranks compute.
        transport: how rows move between them.
        notes: what is done otherwise than the deployment says, or was chosen for this machine: a line each.
        planned_step: the line that says what a deployment describes of its step alone, and not of prompts.
    """

    folder: Path
    facts: ConfigFacts
    placing: Placing
    ranks_per_node: int | None
    deployment: Deployment | None
    schedule: str
    dispatcher: DispatcherKind | None
    plugin: str | None
    dtype: WeightType
    row_precision: RowPrecision
    rebalance: Rebalance | None
    device: Device
    transport: TransportKind
    notes: tuple[str, ...]
    planned_step: str | None

    @property
    def shared_beside_dispatch(self) -> bool:
        """Whether shared experts compute while rows travel."""
        return self.deployment is None or self.deployment.options.shared_beside_dispatch

    def group(self, environment: Mapping[str, str]) -> Group:
        """The ranks that are there, or will be forked.

        Args:
            environment: usually `os.environ`.

        Raises:
            InputError: see `Group.find`; the experts do not fit them, or they cannot move.
        """
        group = Group.find(environment, self.placing.ranks, self.ranks_per_node, self.transport)
        if group.size == 1 and self.rebalance is not None:
            raise InputError("`rebalance`: one rank has nowhere to move experts to; use `ranks` 2 or more")
        self.facts.check_placement(group.size, self.placing.experts_per_rank)
        return group

    def serving_group(self, environment: Mapping[str, str]) -> Group:
        """The ranks of an engine that answers requests as they come.

        Raises:
            InputError: see `group`; or the schedule is to be predicted from prompts that are not known yet.
        """
        if self.schedule == AUTO:
            raise InputError("`schedule` auto: predicts by prompts that are known before; name a schedule")
        return self.group(environment)

    def own_group(self, environment: Mapping[str, str]) -> Group:
        """Those to fork.

        Raises:
            InputError: see `serving_group`; or a launcher started this process, and each would start ranks of its own.
        """
        group = self.serving_group(environment)
        if group.launch is not None and group.size > 1:
            raise InputError(
                f"{group.launch.launcher} started {group.size} processes, but this one starts its ranks itself; start "
                "it without a launcher"
            )
        return group

    def build_placement(self, layers: int, experts: int, ranks: int) -> Placement:
        """The placement of a model with so many MoE layers and experts over a group.

        Raises:
            InputError: the slots are of another model or number of ranks, or the experts do not fit.
        """
        if self.deployment is None:
            shares_LE = np.full((layers, experts), 1 / experts)
        else:
            shares_LE = expert_shares(self.deployment.model, self.deployment.workload)
        placement = self.placing.on(ranks, experts).build(shares_LE)
        if (placement.num_layers, placement.num_experts) != (layers, experts):
            raise InputError(
                f"the placement is of {placement.num_layers} MoE layers of {placement.num_experts} experts; "
                f"{self.folder} has {layers} of {experts}"
            )
        return placement


def read_setup(asked: Asked, environment: Mapping[str, str]) -> Setup:
    """Everything that decides an engine but its ranks' own machine.

    Raises:
        InputError: a value that does not fit the others, the deployment, or what ranks can do.
    """
    device = choice(asked.device, "`device`", Device)
    transport = choice(asked.transport, "`transport`", TransportKind)
    if device is Device.CUDA and nodes_from_environment(environment) is not None:
        raise InputError(
            "`device` cuda: the ranks of a testbed compute on the CPU; run on cuda outside of it"
        )
    rebalance = parse_rebalance(asked.rebalance) if isinstance(asked.rebalance, str) else asked.rebalance
    deployment, source = _deployment(asked)
    folder = (
        find_checkpoint(source) if deployment is None else checkpoint_of(deployment, source, asked.checkpoint)
    )
    facts = config_facts(folder)
    started = (
        launch_from_environment(environment) is not None or nodes_from_environment(environment) is not None
    )
    planned = None if deployment is None else (deployment.placement, source)
    placed = placing(asked.ranks, asked.experts_per_rank, asked.placement, planned, facts, started=started)
    if deployment is not None:
        _check_whole(deployment, source)
    precision = run_precision(deployment, source, asked.dtype, asked.row_precision)
    dispatcher, plugin = _dispatcher(asked, deployment)
    return Setup(
        folder,
        facts,
        placed,
        _ranks_per_node(asked, deployment, placed, started=started),
        deployment,
        _schedule(asked, deployment, plugin),
        dispatcher,
        plugin,
        precision.dtype,
        precision.rows,
        rebalance,
        device,
        transport,
        (*((placed.note,) if placed.note else ()), *precision.notes),
        None if deployment is None else _planned_step(deployment, source),
    )


def _deployment(asked: Asked) -> tuple[Deployment | None, str]:
    """The deployment, if it is one, and what to call what is asked for."""
    if isinstance(asked.source, Deployment):
        return asked.source, "the deployment"
    source = str(asked.source)
    if is_deployment(source):
        return load_deployment(Path(source)), source
    if asked.checkpoint is not None:
        raise InputError(
            f"`checkpoint` {asked.checkpoint}: does nothing here: {source} is no deployment; leave it out"
        )
    return None, source


def _ranks_per_node(
    asked: Asked, deployment: Deployment | None, placed: Placing, *, started: bool
) -> int | None:
    """As asked, or the deployment's where its nodes are filled."""
    if asked.ranks_per_node is not None or deployment is None or started or placed.ranks is None:
        return asked.ranks_per_node
    own = deployment.cluster.gpus_per_node
    return own if placed.ranks % own == 0 else None


def _schedule(asked: Asked, deployment: Deployment | None, plugin: str | None) -> str:
    schedule = asked.schedule
    if schedule is None:
        schedule = "sequential" if deployment is None else deployment.options.schedule
    if schedule != AUTO:
        parse_runnable_schedule(schedule)
    elif plugin:
        raise InputError(
            f"`schedule` auto: predicts Wingspan's own dispatchers; name a schedule beside `dispatcher` {plugin}"
        )
    return schedule


def _dispatcher(asked: Asked, deployment: Deployment | None) -> tuple[DispatcherKind | None, str | None]:
    """The dispatcher (None: auto), or else the name of another package's."""
    name = asked.dispatcher
    if name is None:
        return None if deployment is None else deployment.dispatcher, None
    if name == AUTO:
        return None, None
    if name in [*DispatcherKind]:
        return DispatcherKind(name), None
    if name in plugin_names():
        return None, name
    known = ", ".join([*DispatcherKind, *plugin_names()])
    raise InputError(f"`dispatcher` {name}: use one of auto, {known}")


def _planned_step(deployment: Deployment, source: str) -> str:
    work = deployment.workload
    unlike, spread = (f" +- {of:.0%}" if of else "" for of in (work.tokens_spread, work.context.spread))
    routing = work.routing.kind.replace("_", "-")
    return (
        f"{source} plans {work.phase} of {work.tokens_per_gpu}{unlike} tokens per GPU in a context of "
        f"{work.context.mean_tokens}{spread}, {routing} routing, on {deployment.cluster.name}; "
        "prompts run instead, on this machine, routed by the model (compare runs the step)"
    )


def _check_whole(deployment: Deployment, source: str) -> None:
    for name, does in (
        ("attention_ranks", "ranks have data-parallel attention"),
        ("expert_tensor_parallel", "ranks hold whole experts"),
    ):
        value = getattr(deployment.options, name)
        if value > 1:
            raise InputError(f"{source}: {name} {value}: {does}; plan it with {name} 1")
    if (shared := deployment.model.experts.shared_slots) > 0:
        raise InputError(
            f"{source}: shared_slots {shared}: each rank computes shared experts for its own tokens; plan it without"
        )
    if (tried := deployment.workload.mtp_tokens) > 0:
        raise InputError(
            f"{source}: mtp_tokens {tried}: ranks try no tokens ahead; plan it with mtp_tokens 0"
        )
