"""What a run is made from: a checkpoint alone, with a placement, or a deployment with all that it says.

Read before torch is imported; options given beside a deployment change what its file says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from wingspan.cli.config_facts import ConfigFacts, config_facts
from wingspan.cli.model_argument import find_checkpoint
from wingspan.cli.run_precision import run_precision
from wingspan.cli.values import dispatcher_or_auto, plugin_names
from wingspan.deployment import Deployment, load_deployment
from wingspan.errors import InputError
from wingspan.host import usable_cores
from wingspan.placement.spec import PlacementSpec, Strategy
from wingspan.placement_file import read_placement
from wingspan.reading import json_value
from wingspan.runtime.ranks.nodes import nodes_from_environment
from wingspan.runtime.ranks.world import launch_from_environment
from wingspan.specs.execution import DispatcherKind, parse_schedule
from wingspan.specs.models import load_model
from wingspan.specs.placement import Placement
from wingspan.specs.reading import parse
from wingspan.specs.running import RowPrecision, WeightType
from wingspan.traffic.shares import expert_shares

_PUBLISHED = {"name", "source", "weights", "expert_weights", "max_context"}
"""What may differ between a model as planned and a checkpoint of it: its names, and what it is stored in."""


@dataclass(frozen=True)
class Asked:
    """What the command line says; None = the deployment's value, or the default."""

    source: str
    checkpoint: Path | None = None
    ranks: int | None = None
    ranks_per_node: int | None = None
    experts_per_rank: int | None = None
    placement: str | None = None
    schedule: str | None = None
    dispatcher: str | None = None
    dtype: str | None = None
    row_precision: str | None = None


@dataclass(frozen=True)
class Setup:
    """How a run is set up.

    Args:
        folder: the checkpoint's.
        facts: what its configuration says.
        ranks, ranks_per_node: to start; None = as the launcher or testbed says.
        placement: where experts go; its `ranks` are the group's where a rule places them.
        deployment: where the run is made from one.
        schedule: the text of a schedule, or auto.
        dispatcher: None = auto, or a plug-in.
        notes: what is run otherwise than the deployment says, or was chosen for this machine: a line each.
        plugin: a dispatcher of another package.
    """

    folder: Path
    facts: ConfigFacts
    ranks: int | None
    ranks_per_node: int | None
    placement: PlacementSpec
    deployment: Deployment | None
    schedule: str
    dispatcher: DispatcherKind | None
    dtype: WeightType
    row_precision: RowPrecision
    notes: tuple[str, ...] = field(default=())
    plugin: str | None = None

    @property
    def shared_beside_dispatch(self) -> bool:
        """Whether shared experts compute while rows travel."""
        return self.deployment is None or self.deployment.options.shared_beside_dispatch

    def build_placement(self, layers: int, experts: int, ranks: int) -> Placement:
        """The placement of a model with so many MoE layers and experts over a group.

        Raises:
            InputError: the slots are of another model or number of ranks, or the experts do not fit.
        """
        explicit = self.placement.strategy is Strategy.EXPLICIT
        spec = self.placement if explicit else self.placement.model_copy(update={"ranks": ranks})
        if spec.ranks != ranks:
            raise InputError(f"the placement is for {spec.ranks} ranks, and {ranks} run; start {spec.ranks}")
        if self.deployment is None:
            shares_LE = np.full((layers, experts), 1 / experts)
        else:
            shares_LE = expert_shares(self.deployment.model, self.deployment.workload)
        placement = spec.build(shares_LE)
        if (placement.num_layers, placement.num_experts) != (layers, experts):
            raise InputError(
                f"the placement is of {placement.num_layers} MoE layers of {placement.num_experts} experts; "
                f"{self.folder} has {layers} of {experts}"
            )
        return placement


def is_deployment(text: str) -> bool:
    """Whether this names a deployment file, and no model."""
    try:
        data = json_value(Path(text).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(data, dict) and {"model", "cluster", "workload"} <= data.keys()


def read_setup(asked: Asked, environment: Mapping[str, str]) -> Setup:
    """Everything that decides a run but its prompts.

    Raises:
        InputError: a value that does not fit the others, the file, or what ranks can do.
    """
    deployment = load_deployment(Path(asked.source)) if is_deployment(asked.source) else None
    if deployment is None and asked.checkpoint is not None:
        raise InputError(
            f"--checkpoint {asked.checkpoint}: does nothing here: {asked.source} is no deployment; leave it out"
        )
    folder = find_checkpoint(asked.source) if deployment is None else _folder(deployment, asked)
    facts = config_facts(folder)
    started = (
        launch_from_environment(environment) is not None or nodes_from_environment(environment) is not None
    )
    placement, ranks, notes = _placement(asked, deployment, facts, started=started)
    per_node = asked.ranks_per_node
    if deployment is not None:
        _check_whole(deployment, asked.source)
        if not started and per_node is None and ranks is not None:
            own = deployment.cluster.gpus_per_node
            per_node = own if ranks % own == 0 else None
    precision = run_precision(deployment, asked.source, asked.dtype, asked.row_precision)
    schedule, plugin = _schedule(asked, deployment), _plugin(asked)
    if plugin and schedule == "auto":
        raise InputError(
            f"--schedule auto: predicts Wingspan's own dispatchers; name a schedule beside --dispatcher {plugin}"
        )
    return Setup(
        folder,
        facts,
        ranks,
        per_node,
        placement,
        deployment,
        schedule,
        None if plugin else _dispatcher(asked, deployment),
        precision.dtype,
        precision.rows,
        (*notes, *precision.notes),
        plugin,
    )


def _folder(deployment: Deployment, asked: Asked) -> Path:
    """The checkpoint of a deployment's model, checked to be of it."""
    given = asked.checkpoint or deployment.checkpoint
    if given is None:
        raise InputError(
            f"{asked.source}: names no folder of weights (its model is {deployment.model.name}); give one as "
            "--checkpoint FOLDER"
        )
    try:
        folder = find_checkpoint(str(given))
    except InputError as error:
        where = "--checkpoint " if asked.checkpoint else f"{asked.source}: its checkpoint "
        raise InputError(f"{where}{error}; give another folder as --checkpoint") from None
    own, planned = (
        m.model_dump(mode="json", exclude=_PUBLISHED) for m in (load_model(str(folder)), deployment.model)
    )
    for key, value in planned.items():
        if own[key] != value:
            raise InputError(
                f"{folder}: {key} is {_short(own[key])}, and {_short(value)} in {asked.source}; give a checkpoint of "
                f"{deployment.model.name} as --checkpoint FOLDER"
            )
    return folder


def _placement(
    asked: Asked, deployment: Deployment | None, facts: ConfigFacts, *, started: bool
) -> tuple[PlacementSpec, int | None, tuple[str, ...]]:
    """Where experts go, how many ranks to start (None: they are started), and what was chosen for this machine."""
    for option, value in (("--ranks", asked.ranks), ("--experts-per-rank", asked.experts_per_rank)):
        if value is not None and value < 1:
            raise InputError(f"{option} {value}: use 1 or more")
    if asked.placement is not None and Path(asked.placement).is_file():
        spec = _of_file(asked, facts)
        return spec, spec.ranks, ()
    start = None if deployment is None else deployment.placement
    sized = asked.ranks is not None or asked.experts_per_rank is not None
    strategy = _strategy(asked.placement)
    if start is not None and start.slots is not None:
        if sized or strategy is not None:
            raise InputError(
                f"{asked.source}: its placement says every slot; leave --ranks, --experts-per-rank and --placement "
                "out, or name a placement's file"
            )
        return start, start.ranks, ()
    strategy = strategy or (Strategy.LINEAR if start is None else start.strategy)
    seed = 0 if start is None else start.seed
    notes: tuple[str, ...] = ()
    ranks, slots = asked.ranks, asked.experts_per_rank
    if start is not None:
        ranks = ranks or start.ranks
        slots = slots or start.experts_per_rank
    elif ranks is None and not started:
        ranks, chosen = _usual(facts.experts, slots)
        if slots is None and chosen > 1:
            notes = (
                f"{ranks} ranks with {chosen} experts each, for {usable_cores()} cores; --ranks {facts.experts} puts "
                "one on each",
            )
        slots = chosen
    if ranks is not None:
        facts.check_placement(ranks, slots or 1)
    wanted = {"strategy": strategy, "ranks": ranks or 1, "experts_per_rank": slots or 1, "seed": seed}
    return parse(PlacementSpec, wanted, "placement"), ranks, notes


def _usual(experts: int | None, slots: int | None) -> tuple[int, int]:
    """Ranks and slots for this machine: as many ranks as it has cores, and no more than the experts fill."""
    if experts is None:
        return 1, slots or 1
    each = max(1, slots or -(-experts // min(experts, usable_cores())))
    return -(-experts // each), each


def _of_file(asked: Asked, facts: ConfigFacts) -> PlacementSpec:
    """The placement in a file, slot by slot."""
    path = Path(str(asked.placement))
    if asked.experts_per_rank is not None:
        raise InputError(f"--placement {path}: its slots say how many; leave --experts-per-rank out")
    stored = read_placement(path)
    placement = stored.placement
    if asked.ranks not in (None, placement.num_ranks):
        raise InputError(f"--placement {path}: is for {placement.num_ranks} ranks; leave --ranks out")
    if facts.experts not in (None, placement.num_experts):
        raise InputError(
            f"--placement {path}: is of {placement.num_experts} experts per layer; the model has {facts.experts}"
        )
    if facts.spec is not None:
        try:
            stored.check_model(facts.spec.moe_layers, facts.spec.layers, facts.spec.name)
        except InputError as error:
            raise InputError(f"--placement {path}: {error}") from None
    return PlacementSpec.explicit(placement)


def _strategy(name: str | None) -> Strategy | None:
    if name is None:
        return None
    rules = [rule for rule in Strategy if rule is not Strategy.EXPLICIT]
    for rule in rules:
        if name.replace("-", "_") == rule.value:
            return rule
    shown = ", ".join(rules).replace("_", "-")
    raise InputError(f"--placement {name}: neither one of {shown}, nor an existing file")


def _schedule(asked: Asked, deployment: Deployment | None) -> str:
    if asked.schedule is not None:
        if asked.schedule != "auto":
            parse_schedule(asked.schedule)
        return asked.schedule
    if deployment is None:
        return "sequential"
    return deployment.options.schedule


def _plugin(asked: Asked) -> str | None:
    """The dispatcher asked for, where it is another package's."""
    name = asked.dispatcher
    return name if name not in (None, "auto", *DispatcherKind) and name in plugin_names() else None


def _dispatcher(asked: Asked, deployment: Deployment | None) -> DispatcherKind | None:
    if asked.dispatcher is not None:
        return dispatcher_or_auto(asked.dispatcher, "--dispatcher")
    return None if deployment is None else deployment.dispatcher


def planned_step(deployment: Deployment, source: str) -> str:
    """The line that says what of a deployment describes its step alone, and not a run of prompts."""
    work = deployment.workload
    spread = f" +- {work.context.spread:.0%}" if work.context.spread else ""
    routing = work.routing.kind.replace("_", "-")
    return (
        f"{source} plans {work.phase} of {work.tokens_per_gpu} tokens per GPU in a context of "
        f"{work.context.mean_tokens}{spread}, {routing} routing, on {deployment.cluster.name}; "
        "prompts run instead, on this machine, routed by the model (compare runs the step)"
    )


def _check_whole(deployment: Deployment, source: str) -> None:
    ranks = deployment.options.attention_ranks
    if ranks > 1:
        raise InputError(
            f"{source}: attention_ranks {ranks}: ranks have data-parallel attention; set it to 1 (wingspan simulate "
            f"{source} --attention-ranks 1 --out FILE)"
        )
    shared = deployment.options.expert_tensor_parallel
    if shared > 1:
        raise InputError(
            f"{source}: expert_tensor_parallel {shared}: ranks hold whole experts; set it to 1 (wingspan simulate "
            f"{source} --expert-tp 1 --out FILE)"
        )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
