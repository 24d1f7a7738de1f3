"""What a model is: its layers, experts and sizes, and its files, without any weight in memory."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from wingspan.errors import InputError
from wingspan.runtime.model.architecture import read_config
from wingspan.runtime.model.dequantised import DequantisedCheckpoint
from wingspan.runtime.model.engine import Model
from wingspan.runtime.model.experts_table import need_row, rows_per_expert
from wingspan.runtime.model.inventory import take_inventory
from wingspan.runtime.model.padding import padding_is_neutral, why_no_prefix_caching
from wingspan.runtime.model.quantised import format_said


@dataclass(frozen=True)
class ModelSummary:
    """Counts and sizes of a Mixture-of-Experts model; bytes are those of the weights in `dtype`."""

    model_type: str
    dtype: str
    layers: int
    moe_layers: int
    experts_per_layer: int
    experts_per_token: int
    hidden_size: int
    expert_layout: str
    expert_matrices: dict[str, list[int]]
    """Shape of each parameter of one expert, as the model stores it."""
    expert_parameters: int
    expert_bytes: int
    all_experts_parameters: int
    shared_parameters: int
    """Everything that each rank holds: attention, dense layers, shared experts, routers, embeddings."""
    total_parameters: int
    active_parameters: int
    """Used by one token: the shared ones and top-k experts of every MoE layer."""
    total_bytes: int
    padding_is_neutral: bool
    """Prompts of different lengths go through it together; else each forward takes prompts of one length."""
    no_prefix_caching: str | None
    """Why the beginning that prompts share is computed for each; None where it is computed once."""

    @property
    def dense_layers(self) -> int:
        """Layers without experts."""
        return self.layers - self.moe_layers

    @property
    def shared_bytes(self) -> int:
        """Bytes of `shared_parameters`."""
        return self.total_bytes - self.all_experts_parameters * (self.expert_bytes // self.expert_parameters)

    def rank_bytes(self, experts_per_rank: int) -> int:
        """Weights of a rank that holds `experts_per_rank` experts of every MoE layer."""
        return self.shared_bytes + self.moe_layers * experts_per_rank * self.expert_bytes


def summarize(model: Model) -> ModelSummary:
    """Read the figures off the model's structure."""
    modules = [model.structure.get_submodule(path) for path in model.shape.paths]
    first = modules[0]
    one_expert = _per_expert(first)
    expert_parameters = sum(_count(shape) for shape in one_expert.values())
    in_experts = len(modules) * model.shape.num_experts * expert_parameters
    total = sum(p.numel() for p in model.structure.parameters())
    text = model.config.get_text_config()
    return ModelSummary(
        model_type=model.config.model_type,
        dtype=str(model.dtype).removeprefix("torch."),
        layers=text.num_hidden_layers,
        moe_layers=len(modules),
        experts_per_layer=model.shape.num_experts,
        experts_per_token=model.shape.top_k,
        hidden_size=text.hidden_size,
        expert_layout=layout_of(first),
        expert_matrices=one_expert,
        expert_parameters=expert_parameters,
        expert_bytes=expert_parameters * model.dtype.itemsize,
        all_experts_parameters=in_experts,
        shared_parameters=total - in_experts,
        total_parameters=total,
        active_parameters=total - in_experts + in_experts * model.shape.top_k // model.shape.num_experts,
        total_bytes=total * model.dtype.itemsize,
        padding_is_neutral=padding_is_neutral(model.structure),
        no_prefix_caching=why_no_prefix_caching(model.structure),
    )


@dataclass(frozen=True)
class WeightFiles:
    """The weights on disk of a model, as they are, whether they can run or not."""

    format: str
    """The dtypes of the tensors, or the format of quantised weights by its name."""
    files: int
    tensors: int
    bytes: int
    """Bytes of the files."""
    unused: dict[str, int]
    """Tensors that a run leaves out by right, by the reason."""
    problem: str | None
    """Why the model cannot run from them; None where it can."""


def weight_files(model: Model) -> WeightFiles | None:
    """Describe the files beside a model's configuration from their headers; None where there is no such folder."""
    if not model.folder.is_dir():
        return None
    said = format_said(model.folder, read_config(model.folder))
    try:
        checkpoint = DequantisedCheckpoint(model.folder)
    except InputError as error:
        present = list(model.folder.glob("*.safetensors"))
        size_bytes = sum(file.stat().st_size for file in present)
        return WeightFiles(said or "unknown", len(present), 0, size_bytes, {}, str(error))
    inventory = take_inventory(checkpoint, model.structure, model.config, model.shape)
    return WeightFiles(
        inventory.quantised or ", ".join(sorted(inventory.dtypes)),
        len(checkpoint.files),
        len(checkpoint),
        checkpoint.size_bytes,
        {reason: len(names) for reason, names in inventory.unused.items()},
        inventory.problem,
    )


def layout_of(experts: nn.Module) -> str:
    """In words, how this module stores and computes its experts."""
    row = need_row(experts)
    words = ["gated (three matrices)" if row.gated else "plain (two matrices)"]
    if row.gated and len(row.ups) == 1:
        words.append(
            "gate and up fused" + ("" if getattr(experts, "is_concatenated", True) else ", interleaved")
        )
    if all(matrices.transposed for matrices in row.matrices):
        words.append("transposed")
    if row.down.bias is not None:
        words.append("with biases")
    if row.finish is not None:
        words.append("with a norm after each expert")
    return ", ".join(words)


def _per_expert(experts: nn.Module) -> dict[str, list[int]]:
    return {
        name: [*([] if rows == 1 else [rows]), *experts.get_parameter(name).shape[1:]]
        for name, rows in rows_per_expert(experts).items()
    }


def _count(shape: list[int]) -> int:
    count = 1
    for extent in shape:
        count *= extent
    return count
