"""One rank of a deployment, ready to generate: the model with its experts spread over the group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from wingspan.errors import InputError
from wingspan.placement.placement import Placement
from wingspan.placement.simple import linear
from wingspan.runtime.buffers import Buffers
from wingspan.runtime.dispatch import Dispatcher, FlatDispatcher
from wingspan.runtime.dispatch_deduplicated import DeduplicatingDispatcher
from wingspan.runtime.experts import LocalExperts
from wingspan.runtime.instrument import instrument
from wingspan.runtime.layer import ExpertParallelLayer, Step, install
from wingspan.runtime.loading import MoeShape, build_on_meta, load_config, load_for_rank, moe_shape
from wingspan.runtime.monitor import LoadMonitor
from wingspan.runtime.recorder import Recorder
from wingspan.runtime.slots import SlotMap
from wingspan.runtime.transport import Transport


@dataclass(frozen=True)
class Model:
    """A model that is described but not loaded: what all ranks agree on before they read any weight."""

    folder: Path
    config: PreTrainedConfig
    structure: PreTrainedModel
    shape: MoeShape
    dtype: torch.dtype


@dataclass(frozen=True)
class Engine:
    """A loaded rank."""

    model: PreTrainedModel
    config: PreTrainedConfig
    shape: MoeShape
    placement: Placement
    layers: dict[str, ExpertParallelLayer]
    recorder: Recorder
    monitor: LoadMonitor
    buffers: Buffers
    step: Step
    transport: Transport

    def dispatcher_for(self, placement: Placement, layer: int) -> Dispatcher[Any]:
        """The dispatcher of MoE layer `layer` under another placement than the one loaded."""
        device = next(self.model.parameters()).device
        return make_dispatcher(placement, layer, self.transport, self.buffers, device)

    @property
    def expert_bytes(self) -> int:
        """Weights of this rank's experts."""
        return sum(layer.experts.weight_bytes for layer in self.layers.values())

    @property
    def shared_bytes(self) -> int:
        """All other weights."""
        inside = {id(p) for path in self.layers for p in self.model.get_submodule(path).parameters()}
        return sum(p.nbytes for p in self.model.parameters() if id(p) not in inside)


def describe(
    folder: Path, dtype: torch.dtype | None = None, changes: Mapping[str, Any] | None = None
) -> Model:
    """Read a model's configuration and structure.

    Args:
        folder: a checkpoint in the Hugging Face format, or a configuration file alone.
        dtype: of the weights in memory; None keeps the checkpoint's.
        changes: values that replace the configuration's.

    Raises:
        InputError: not a model, one without experts, or a change to something it does not have.
    """
    config = load_config(folder)
    for key, value in (changes or {}).items():
        if not hasattr(config, key):
            raise InputError(f"{folder}: model type {config.model_type!r} has no {key} to change")
        setattr(config, key, value)
    kept = dtype or (config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32)
    structure = build_on_meta(config, kept)
    return Model(folder, config, structure, moe_shape(structure, config), kept)


def default_placement(shape: MoeShape, ranks: int, experts_per_rank: int) -> Placement:
    """Experts in order over the ranks; raises `InputError` where they do not fit."""
    return linear(len(shape.paths), shape.num_experts, ranks, experts_per_rank)


def load(
    model: Model,
    placement: Placement,
    transport: Transport,
    device: torch.device,
    *,
    keep_spans: bool = False,
    training: bool = False,
) -> Engine:
    """Load this rank's share of the weights and spread the experts over the group.

    Args:
        model: from `describe`.
        placement: over exactly the transport's ranks.
        transport: the group.
        device: where the weights and tokens live.
        keep_spans: record every operation for a timeline.
        training: leave the expert weights as parameters that gradients reach, not packed for inference.
    """
    world = transport.world
    loaded = load_for_rank(model.folder, model.structure, model.shape, placement, world.rank, model.dtype)
    nn.Module.to(loaded, device)
    recorder = Recorder(world.rank, world.size, keep_spans=keep_spans)
    monitor = LoadMonitor(placement.num_layers, placement.num_experts, device)
    buffers, step = Buffers(), Step()
    layers = {}
    for index, path in enumerate(model.shape.paths):
        experts = LocalExperts(loaded.get_submodule(path))
        if not training:
            experts.pack()
        dispatcher = make_dispatcher(placement, index, transport, buffers, device)
        layers[path] = ExpertParallelLayer(index, experts, dispatcher, monitor, recorder, step)
    install(loaded, layers)
    instrument(loaded, layers, recorder)
    return Engine(
        loaded, model.config, model.shape, placement, layers, recorder, monitor, buffers, step, transport
    )


def make_dispatcher(
    placement: Placement, layer: int, transport: Transport, buffers: Buffers, device: torch.device
) -> Dispatcher[Any]:
    """The dispatcher that sends least: per (token, rank) where ranks hold several experts, else per expert."""
    slots = SlotMap(placement, layer, transport.world, device)
    held_R = [len(placement.experts_on(layer, r)) for r in range(placement.num_ranks)]
    if max(held_R) > 1:
        return DeduplicatingDispatcher(transport, slots, held_R, buffers)
    return FlatDispatcher(transport, slots, held_R, buffers)


def parameters_of_experts(engine: Engine) -> list[nn.Parameter]:
    """This rank's expert weights: gradients of all other parameters are summed over ranks, these are not."""
    return [p for path in engine.layers for p in engine.model.get_submodule(path).parameters()]
