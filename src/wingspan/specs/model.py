"""The model as the planner sees it: sizes of every part, no weights and no code.

Parameter counts are exact for the families of `families.py`. "Parameters" are values, not bytes.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from wingspan.limits import (
    MOST_SLOTS,
    MOST_WIDTH,
    ContextTokens,
    ExpertCount,
    Heads,
    Layers,
    Width,
)
from wingspan.limits import Parameters as ParameterCount
from wingspan.specs.precision import Precision
from wingspan.specs.reading import Spec


class HeadAttention(Spec):
    """Multi-head attention (MHA), or with fewer key and value heads (GQA, MQA).

    The cache keeps one key and one value per key-value head: `2 x kv_heads x head_dim` values a token.
    """

    kind: Literal["heads"] = "heads"
    heads: Heads
    kv_heads: Heads
    head_dim: Heads
    extra_parameters: ParameterCount = Field(
        default=0, description="biases, norms of queries and keys, sinks"
    )
    window_tokens: ContextTokens | None = Field(default=None, description="context that windowed layers see")
    windowed_layers: tuple[int, ...] = Field(default=(), description="layers with a sliding window")

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} must be a multiple of kv_heads {self.kv_heads}")
        if self.windowed_layers and self.window_tokens is None:
            raise ValueError("windowed_layers need window_tokens")
        return self

    def projections(self, hidden: int) -> tuple[tuple[int, int], ...]:
        """(inputs, outputs) of every matrix of one layer; queries, keys and values are one product."""
        width, kv_width = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return ((hidden, width + 2 * kv_width), (width, hidden))

    @property
    def kv_values_per_token(self) -> int:
        """Cached values per token and layer."""
        return 2 * self.kv_heads * self.head_dim


class LatentAttention(Spec):
    """Multi-head latent attention (MLA, arXiv:2405.04434 section 2.1): the cache keeps one compressed row a token.

    The cached row has `kv_rank + rope_dim` values, whatever the number of heads.
    """

    kind: Literal["latent"] = "latent"
    heads: Heads
    query_rank: Width | None = Field(default=None, description="None: queries are not compressed")
    kv_rank: Width
    nope_dim: Heads
    rope_dim: Heads
    value_dim: Heads
    extra_parameters: ParameterCount = Field(default=0, description="biases, norms of the compressed rows")

    def projections(self, hidden: int) -> tuple[tuple[int, int], ...]:
        """(inputs, outputs) of every matrix of one layer."""
        queries = self.heads * (self.nope_dim + self.rope_dim)
        to_queries: tuple[tuple[int, int], ...] = ((hidden, queries),)
        if self.query_rank is not None:
            to_queries = ((hidden, self.query_rank), (self.query_rank, queries))
        return (
            *to_queries,
            (hidden, self.kv_rank + self.rope_dim),
            (self.kv_rank, self.heads * (self.nope_dim + self.value_dim)),
            (self.heads * self.value_dim, hidden),
        )

    @property
    def kv_values_per_token(self) -> int:
        """Cached values per token and layer."""
        return self.kv_rank + self.rope_dim


Attention = Annotated[HeadAttention | LatentAttention, Field(discriminator="kind")]


class Experts(Spec):
    """The experts of one MoE layer, and how many each token goes to."""

    count: ExpertCount = Field(description="logical experts per layer")
    per_token: ExpertCount = Field(description="top-k")
    intermediate: Width = Field(description="inner width of one expert")
    gated: bool = Field(description="three matrices, down(act(gate) x up), instead of two")
    bias: bool = False
    shared_intermediate: int = Field(
        default=0, ge=0, le=MOST_WIDTH, description="inner width of all shared experts together"
    )
    shared_extra_parameters: ParameterCount = Field(default=0, description="the shared expert's own gate")
    router_extra_parameters: ParameterCount = Field(default=0, description="the router's bias and norms")
    groups: int = Field(default=1, ge=1, description="groups of experts of node-limited routing")
    groups_per_token: int = Field(default=1, ge=1, description="groups that one token may use")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.per_token > self.count:
            raise ValueError(f"per_token {self.per_token} exceeds count {self.count}")
        if self.count % self.groups:
            raise ValueError(f"count {self.count} must be a multiple of groups {self.groups}")
        if self.groups_per_token > self.groups:
            raise ValueError(f"groups_per_token {self.groups_per_token} exceeds groups {self.groups}")
        if self.per_token > self.count // self.groups * self.groups_per_token:
            raise ValueError(
                f"per_token {self.per_token} exceeds the experts of groups_per_token {self.groups_per_token}"
            )
        return self

    @property
    def matrices(self) -> int:
        """Weight matrices of one expert."""
        return 3 if self.gated else 2


class ModelSpec(Spec):
    """A Mixture-of-Experts decoder.

    Raises (through `parse`):
        InputError: a layer number out of range, or no MoE layer.
    """

    name: str
    source: str = Field(default="", description="where the figures were found")
    hidden: Width
    vocabulary: Width
    layers: Layers
    dense_layers: tuple[int, ...] = Field(default=(), description="numbers of the layers without experts")
    dense_intermediate: int = Field(
        default=0, ge=0, le=MOST_WIDTH, description="inner width of a dense layer's MLP"
    )
    attention: Attention
    experts: Experts
    tied_embeddings: bool = False
    norm_parameters: ParameterCount = Field(description="all norms outside attention, whole model")
    dense_extra_parameters: ParameterCount = Field(default=0, description="biases of one dense MLP")
    head_extra_parameters: ParameterCount = Field(default=0, description="the head's bias")
    weights: Precision = Field(default=Precision.BF16, description="as published, all but experts")
    expert_weights: Precision = Field(default=Precision.BF16, description="as published, routed experts")
    max_context: int | None = Field(
        default=None, ge=1, le=1 << 40, description="longest context it was made for"
    )

    @model_validator(mode="after")
    def _check_layers(self) -> Self:
        outside = [layer for layer in self.dense_layers if not 0 <= layer < self.layers]
        if outside:
            raise ValueError(f"dense layer {outside[0]} is not among layers 0..{self.layers - 1}")
        if len(set(self.dense_layers)) == self.layers:
            raise ValueError("every layer is dense: no experts to place")
        if self.dense_layers and not self.dense_intermediate:
            raise ValueError("dense_layers need dense_intermediate")
        experts = self.experts.count * (self.layers - len(set(self.dense_layers)))
        if experts > MOST_SLOTS:
            raise ValueError(f"{experts:,} experts over all layers are more than {MOST_SLOTS:,}")
        return self

    @property
    def moe_layers(self) -> tuple[int, ...]:
        """Numbers of the layers with experts."""
        dense = set(self.dense_layers)
        return tuple(layer for layer in range(self.layers) if layer not in dense)

    @property
    def kv_values_per_token(self) -> int:
        """Cached values per token over all layers, as long as no window ends."""
        return self.layers * self.attention.kv_values_per_token

    def mlp_parameters(self, intermediate: int) -> int:
        """Matrices of a dense MLP or of shared experts of that inner width, gated like the experts."""
        return self.experts.matrices * self.hidden * intermediate

    @property
    def parameters(self) -> Parameters:
        """Parameters of every part."""
        experts = self.experts
        moe = len(self.moe_layers)
        bias = ((experts.matrices - 1) * experts.intermediate + self.hidden) if experts.bias else 0
        shared = self.mlp_parameters(experts.shared_intermediate) + experts.shared_extra_parameters
        matrices = sum(a * b for a, b in self.attention.projections(self.hidden))
        embedding = self.vocabulary * self.hidden
        return Parameters(
            embedding=embedding,
            head=(0 if self.tied_embeddings else embedding) + self.head_extra_parameters,
            attention=self.layers * (matrices + self.attention.extra_parameters),
            dense=len(self.dense_layers)
            * (self.mlp_parameters(self.dense_intermediate) + self.dense_extra_parameters),
            router=moe * (experts.count * self.hidden + experts.router_extra_parameters),
            shared_experts=moe * shared,
            norms=self.norm_parameters,
            expert=self.mlp_parameters(experts.intermediate) + bias,
            experts_per_layer=experts.count,
            experts_per_token=experts.per_token,
            moe_layers=moe,
        )


class Parameters(Spec):
    """Parameters of each part, over all layers; `expert` is one routed expert of one layer."""

    embedding: int
    head: int
    attention: int
    dense: int
    router: int
    shared_experts: int
    norms: int
    expert: int
    experts_per_layer: int
    experts_per_token: int
    moe_layers: int

    @property
    def routed_experts(self) -> int:
        """All routed experts."""
        return self.expert * self.experts_per_layer * self.moe_layers

    @property
    def beside_experts(self) -> int:
        """Everything but routed experts."""
        parts = (self.embedding, self.head, self.attention, self.dense, self.router, self.shared_experts)
        return sum(parts) + self.norms

    @property
    def total(self) -> int:
        """The whole model."""
        return self.beside_experts + self.routed_experts

    @property
    def active(self) -> int:
        """What one token uses."""
        return self.beside_experts + self.expert * self.experts_per_token * self.moe_layers
