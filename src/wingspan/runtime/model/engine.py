"""One rank of a deployment, ready to generate: the model with its experts spread over the group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from wingspan.errors import InputError
from wingspan.placement.simple import linear
from wingspan.runtime.dispatch.buffers import Buffers
from wingspan.runtime.dispatch.choice import DEFAULT_DISPATCH, Dispatchers, DispatchOptions
from wingspan.runtime.dispatch.dispatcher import Dispatcher
from wingspan.runtime.dispatch.streamed import CommunicationStream
from wingspan.runtime.measuring.monitor import LoadMonitor
from wingspan.runtime.measuring.recorder import KEPT_STEPS, Recorder
from wingspan.runtime.model.architecture import (
    MoeShape,
    build_on_meta,
    dtype_said,
    load_config,
    moe_shape,
)
from wingspan.runtime.model.dequantised import DequantisedCheckpoint
from wingspan.runtime.model.experts import LocalExperts
from wingspan.runtime.model.experts_table import experts_parameters
from wingspan.runtime.model.generation_config import load_generation_config, not_applied
from wingspan.runtime.model.instrument import decoder_layers, instrument
from wingspan.runtime.model.inventory import Inventory, take_inventory
from wingspan.runtime.model.layer import ExpertParallelLayer, install
from wingspan.runtime.model.loading import ModelReader
from wingspan.runtime.model.step import Step
from wingspan.runtime.model.weight_parts import weight_bytes
from wingspan.runtime.ranks.clock import clock_of
from wingspan.runtime.ranks.memory import keep_freed_memory, return_freed_memory, return_large_memory
from wingspan.runtime.transport.transport import Transport
from wingspan.specs.execution import DispatcherKind
from wingspan.specs.memory import MemoryPart
from wingspan.specs.placement import Placement


@dataclass(frozen=True)
class Model:
    """A model that is described but not loaded: what all ranks agree on before they read any weight."""

    folder: Path
    config: PreTrainedConfig
    structure: PreTrainedModel
    shape: MoeShape
    dtype: torch.dtype

    @property
    def not_applied(self) -> list[str]:
        """The checkpoint's settings for generating that change a text and that a run does not follow."""
        return not_applied(self.structure.generation_config)


def rank_bytes(model: Model, experts_per_rank: int) -> int:
    """Weights that a rank with so many experts of each layer holds."""
    experts = sum(
        model.structure.get_parameter(name).nbytes
        for name in experts_parameters(model.structure, model.shape.paths)
    )
    shared = sum(parameter.nbytes for parameter in model.structure.parameters()) - experts
    return shared + experts * min(experts_per_rank, model.shape.num_experts) // model.shape.num_experts


@dataclass(frozen=True)
class Engine:
    """A loaded rank."""

    model: PreTrainedModel
    config: PreTrainedConfig
    shape: MoeShape
    placement: Placement
    layers: dict[str, ExpertParallelLayer]
    dispatchers: Dispatchers
    recorder: Recorder
    monitor: LoadMonitor
    buffers: Buffers
    step: Step
    transport: Transport

    @property
    def weight_bytes(self) -> dict[MemoryPart, int]:
        """This rank's weights by part."""
        return weight_bytes(self.model, self.layers)


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
    kept = dtype or dtype_said(config)
    structure = build_on_meta(config, kept)
    structure.generation_config = load_generation_config(folder, config)
    return Model(folder, config, structure, moe_shape(structure, config), kept)


def check_weights(model: Model) -> Inventory:
    """See from the files' headers that a model can run from its checkpoint, before any rank starts.

    Raises:
        InputError: weights are missing, quantised, damaged, without a place in the model, or of another shape.
    """
    inventory = take_inventory(
        DequantisedCheckpoint(model.folder), model.structure, model.config, model.shape
    )
    inventory.check()
    return inventory


def default_placement(shape: MoeShape, ranks: int, experts_per_rank: int) -> Placement:
    """Experts in order over the ranks; raises `InputError` where they do not fit."""
    return linear(len(shape.paths), shape.num_experts, ranks, experts_per_rank)


def load(
    model: Model,
    placement: Placement,
    transport: Transport,
    device: torch.device,
    *,
    dispatch: DispatchOptions = DEFAULT_DISPATCH,
    keep_spans: bool = False,
    keep_steps: int = KEPT_STEPS,
    training: bool = False,
) -> Engine:
    """Load this rank's share of the weights and spread the experts over the group.

    Args:
        model: from `describe`.
        placement: over exactly the transport's ranks.
        transport: the group.
        device: where the weights and tokens live.
        dispatch: how tokens travel.
        keep_spans: record every operation for a timeline, and keep all steps.
        keep_steps: else the most steps of each phase that are kept.
        training: leave the expert weights as parameters that gradients reach, not packed for inference.
    """
    world = transport.world
    return_large_memory()
    reader = ModelReader(model.folder, model.structure, model.config, model.shape)
    loaded = reader.shared_model(model.dtype)
    nn.Module.to(loaded, device)
    return_freed_memory()
    recorder = Recorder(
        world.rank,
        world.size,
        keep_spans=keep_spans,
        keep_steps=None if keep_spans else keep_steps,
        clock=clock_of(device),
    )
    monitor = LoadMonitor(placement.num_layers, placement.num_experts, device)
    buffers = Buffers()
    step = Step(communication=CommunicationStream(device) if transport.holds_host else None)
    numbers = [f"{path}." for path, _ in decoder_layers(loaded, model.shape.paths)]
    dispatchers = Dispatchers(placement, transport, buffers, device, dispatch, training=training)
    layers = {}
    for index, path in enumerate(model.shape.paths):
        experts = LocalExperts(loaded.get_submodule(path))
        if not training:
            experts.pack()
        experts.fill(placement.experts_on(index, world.rank), partial(reader.expert, path))
        dispatcher = dispatchers.for_layer(index)
        number = next(n for n, inside in enumerate(numbers) if path.startswith(inside))
        layers[path] = ExpertParallelLayer(index, number, experts, dispatcher, monitor, recorder, step)
    return_freed_memory()
    keep_freed_memory()
    install(loaded, layers)
    instrument(loaded, layers, recorder, step)
    return Engine(
        loaded,
        model.config,
        model.shape,
        placement,
        layers,
        dispatchers,
        recorder,
        monitor,
        buffers,
        step,
        transport,
    )


def make_dispatcher(
    placement: Placement, layer: int, transport: Transport, buffers: Buffers, device: torch.device
) -> Dispatcher[Any, Any]:
    """One layer's flat dispatcher, on its own."""
    return Dispatchers(placement, transport, buffers, device, DispatchOptions(DispatcherKind.FLAT)).for_layer(
        layer
    )


def parameters_of_experts(engine: Engine) -> list[nn.Parameter]:
    """This rank's expert weights: gradients of all other parameters are summed over ranks, these are not."""
    return [parameter for layer in engine.layers.values() for parameter in layer.experts.parameters()]
