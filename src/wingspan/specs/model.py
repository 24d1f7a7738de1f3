"""The model as the planner sees it: sizes of every part, no weights and no code.

A model is a list of layers, each with its mixers, its dense MLP and its experts, of which any may be missing.
Parameter counts are exact for the families of `families`. "Parameters" are values, not bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cached_property
from math import gcd
from typing import Any, Self

from pydantic import Field, model_validator

from wingspan.errors import InputError
from wingspan.limits import MOST_EXPERTS, MOST_LAYERS, MOST_SLOTS, MOST_WIDTH, ExpertCount, Width
from wingspan.limits import Parameters as ParameterCount
from wingspan.specs.mixers import Mixer
from wingspan.specs.parameters import Parameters
from wingspan.specs.part_precision import WEIGHTS, PublishedPrecision, of_earlier_files
from wingspan.specs.reading import Spec


class DenseMlp(Spec):
    """An MLP that every token passes."""

    intermediate: Width = Field(description="inner width, of all that a layer has together")
    gated: bool = Field(description="three matrices, down(act(gate) x up), instead of two")
    extra_parameters: ParameterCount = Field(default=0, description="biases")

    @property
    def matrices(self) -> int:
        """Weight matrices."""
        return 3 if self.gated else 2

    def parameters(self, hidden: int) -> int:
        """All values of the MLP."""
        return self.matrices * hidden * self.intermediate + self.extra_parameters


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
    router_width: Width | None = Field(
        default=None, description="inner width of a router of four matrices; None: it is one matrix"
    )
    row_width: Width | None = Field(
        default=None,
        description="values of a row that experts take, after a projection; None: the hidden state",
    )
    router_choices: Width | None = Field(
        default=None, description="outputs of the router where they are not one per choice (product keys)"
    )
    twin_intermediate: int = Field(
        default=0,
        ge=0,
        le=MOST_WIDTH,
        description="inner width of the expert for images that lies beside each expert for text",
    )
    zero: int = Field(default=0, ge=0, le=MOST_EXPERTS, description="choices that compute nothing")
    shared_slots: int = Field(
        default=0,
        ge=0,
        le=MOST_EXPERTS,
        description="of `count` and `per_token`, the last so many are shared experts that lie in slots as the others "
        "do: every token sends a row to each",
    )
    groups: int = Field(default=1, ge=1, description="groups of routed experts of node-limited routing")
    groups_per_token: int = Field(default=1, ge=1, description="groups that one token may use")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.per_token > self.count:
            raise ValueError(f"per_token {self.per_token} exceeds count {self.count}")
        if self.shared_slots >= self.per_token:
            raise ValueError(
                f"shared_slots {self.shared_slots} leave none of per_token {self.per_token} to choose"
            )
        if self.routed % self.groups:
            raise ValueError(f"count {self.routed} must be a multiple of groups {self.groups}")
        if self.groups_per_token > self.groups:
            raise ValueError(f"groups_per_token {self.groups_per_token} exceeds groups {self.groups}")
        if self.chosen > self.routed // self.groups * self.groups_per_token:
            raise ValueError(
                f"per_token {self.chosen} exceeds the experts of groups_per_token {self.groups_per_token}"
            )
        return self

    @property
    def routed(self) -> int:
        """Experts that the router chooses among."""
        return self.count - self.shared_slots

    @property
    def chosen(self) -> int:
        """How many of these a token goes to."""
        return self.per_token - self.shared_slots

    @property
    def matrices(self) -> int:
        """Weight matrices of one expert."""
        return 3 if self.gated else 2

    def router(self, hidden: int) -> tuple[tuple[int, int], ...]:
        """(inputs, outputs) of the router's matrices."""
        choices = self.router_choices or self.routed + self.zero
        if self.router_width is None:
            return ((hidden, choices),)
        inner = self.router_width
        return ((hidden, inner), (inner, inner), (inner, inner), (inner, choices))

    @property
    def rows_per_token(self) -> float:
        """Experts that compute for a token, where it chooses evenly among them and what computes nothing."""
        return self.chosen * self.routed / (self.routed + self.zero) + self.shared_slots


class LayerKind(Spec):
    """One kind of layer: what mixes tokens in it, and what each token passes."""

    mixers: tuple[Mixer, ...] = Field(default=(), max_length=4)
    dense: DenseMlp | None = None
    experts: Experts | None = None
    norm_parameters: ParameterCount = Field(description="norms, scales and streams outside mixers and MLPs")

    @model_validator(mode="after")
    def _has_something(self) -> Self:
        if not (self.mixers or self.dense or self.experts):
            raise ValueError("a layer needs a mixer, a dense MLP or experts")
        return self


class ModelSpec(Spec):
    """A Mixture-of-Experts decoder.

    Raises (through `parse`):
        InputError: a layer of no kind, no MoE layer, or MoE layers whose experts differ.
    """

    name: str
    source: str = Field(default="", description="where the figures were found")
    hidden: Width
    vocabulary: Width
    kinds: tuple[LayerKind, ...] = Field(min_length=1, description="kinds of layer")
    order: tuple[int, ...] = Field(
        min_length=1,
        max_length=MOST_LAYERS,
        description="of each layer, from the first, the number of its kind",
    )
    tied_embeddings: bool = False
    embedding_extra_parameters: ParameterCount = Field(
        default=0, description="further tables that tokens look up"
    )
    norm_parameters: ParameterCount = Field(default=0, description="norms outside the layers")
    head_extra_parameters: ParameterCount = Field(default=0, description="the head's bias")
    mtp_layers: int = Field(
        default=0, ge=0, le=MOST_LAYERS, description="layers behind the others that predict further tokens"
    )
    precision: PublishedPrecision = PublishedPrecision()
    remarks: tuple[str, ...] = Field(
        default=(), description="what whoever reads its figures must know, in sentences"
    )
    max_context: int | None = Field(
        default=None, ge=1, le=1 << 40, description="longest context it was made for"
    )

    @model_validator(mode="before")
    @classmethod
    def _one_block_of_precisions(cls, data: Any) -> Any:
        """Files of earlier versions say the experts' weights and all others' in two keys."""
        return of_earlier_files(data, {"weights": WEIGHTS, "expert_weights": ("experts",)})

    @model_validator(mode="after")
    def _check_layers(self) -> Self:
        unknown = [kind for kind in self.order if not 0 <= kind < len(self.kinds)]
        if unknown:
            raise ValueError(f"order names kind {unknown[0]}, and there are kinds 0..{len(self.kinds) - 1}")
        if not self.moe_layers:
            raise ValueError("every layer is dense: no experts to place")
        different = {kind.experts for kind in self.kinds if kind.experts is not None}
        if len(different) > 1:
            raise ValueError("experts of MoE layers differ; all must have the same count, top-k and widths")
        if not any(kind.mixers for kind in self.kinds):
            raise ValueError("no layer has a mixer")
        experts = self.experts.count * len(self.moe_layers)
        if experts > MOST_SLOTS:
            raise ValueError(f"{experts:,} experts over all layers are more than {MOST_SLOTS:,}")
        return self

    @property
    def layers(self) -> int:
        """How many there are."""
        return len(self.order)

    def kind_of(self, layer: int) -> LayerKind:
        """What a layer is."""
        return self.kinds[self.order[layer]]

    def layers_of(self, kind: int) -> int:
        """How many layers are of a kind, by its number."""
        return self._counts[kind]

    @cached_property
    def _counts(self) -> Counter[int]:
        return Counter(self.order)

    def layers_with(self, having: Callable[[LayerKind], bool]) -> frozenset[int]:
        """Numbers of the layers whose kind has something."""
        kinds = {number for number, kind in enumerate(self.kinds) if having(kind)}
        return frozenset(layer for layer, kind in enumerate(self.order) if kind in kinds)

    @cached_property
    def moe_layers(self) -> tuple[int, ...]:
        """Numbers of the layers with experts."""
        return tuple(sorted(self.layers_with(lambda kind: kind.experts is not None)))

    @cached_property
    def dense_layers(self) -> tuple[int, ...]:
        """Numbers of the layers without experts."""
        return tuple(sorted(self.layers_with(lambda kind: kind.experts is None)))

    @property
    def row_width(self) -> int:
        """Values of a row that travels to experts."""
        return self.experts.row_width or self.hidden

    @property
    def experts(self) -> Experts:
        """Those of each MoE layer."""
        return next(kind.experts for kind in self.kinds if kind.experts is not None)

    @cached_property
    def weighted_parts(self) -> frozenset[str]:
        """Its parts whose weights have a format of their own, by the names of `WEIGHTS`."""
        dense = {"dense"} if any(kind.dense for kind in self.kinds) else set()
        beside = self.experts.shared_intermediate or self.experts.row_width
        return frozenset({"attention", "experts"} | dense | ({"shared"} if beside else set()))

    @cached_property
    def mixers(self) -> tuple[tuple[Mixer, int], ...]:
        """Every mixer of the model, and in how many layers it is."""
        found: Counter[Mixer] = Counter()
        for number, kind in enumerate(self.kinds):
            for mixer in kind.mixers:
                found[mixer] += self.layers_of(number)
        return tuple(found.items())

    @cached_property
    def heads(self) -> int:
        """Parts into which every mixer can be cut: the greatest common divisor of their heads."""
        return gcd(*(mixer.heads for mixer, _ in self.mixers))

    @cached_property
    def mtp_kind(self) -> LayerKind:
        """A layer that predicts further tokens: like the last with experts.

        So they are in DeepSeek-V3 (arXiv:2412.19437, section 2.2) and its kin. Where layers are one part each, it has
        the last attention before the experts (Nemotron 3, `mtp_hybrid_override_pattern` "*E"); of others it is an
        assumption.
        """
        kind = self.kind_of(self.moe_layers[-1])
        if kind.mixers:
            return kind
        attention = self.layers_with(lambda other: any(mixer.values_per_token for mixer in other.mixers))
        before = self.kind_of(max(attention or self.layers_with(lambda other: bool(other.mixers))))
        norms = kind.norm_parameters + before.norm_parameters
        return kind.model_copy(update={"mixers": before.mixers, "norm_parameters": norms})

    @cached_property
    def mtp_parameters(self) -> Parameters:
        """Those of one layer that predicts further tokens; embedding and head are the model's.

        `dense` has the matrix that joins a hidden state and an embedding, `norms` three norms more than a layer.
        """
        one = self.kind_parameters(self.mtp_kind)
        more = {"dense": one.dense + 2 * self.hidden**2, "norms": one.norms + 3 * self.hidden}
        return one.model_copy(update=more)

    def with_experts(self, experts: Experts) -> ModelSpec:
        """The model with other experts in its MoE layers."""
        kinds = (
            kind if kind.experts is None else kind.model_copy(update={"experts": experts})
            for kind in self.kinds
        )
        return self._with(kinds=tuple(kinds))

    def with_shared_in_slots(self) -> ModelSpec:
        """The model with its shared experts among those that lie in slots: rows of every token travel to their copies.

        Raises:
            InputError: it has none, or they are not of the size and format of its routed experts.
        """
        experts, precision = self.experts, self.precision
        shared, over = divmod(experts.shared_intermediate, experts.intermediate)
        if not shared:
            raise InputError(f"{self.name}: has no shared expert as large as a routed one to lay into slots")
        if (
            over
            or experts.shared_extra_parameters
            or experts.row_width
            or precision.shared != precision.experts
        ):
            raise InputError(
                f"{self.name}: its shared experts differ from its routed ones in size, gate or format, so they cannot "
                "lie in the same slots"
            )
        return self.with_experts(
            experts.model_copy(
                update={
                    "count": experts.count + shared,
                    "per_token": experts.per_token + shared,
                    "shared_slots": shared,
                    "shared_intermediate": 0,
                }
            )
        )

    def mtp_layer_alone(self) -> ModelSpec:
        """The model as one layer that predicts further tokens, embedding and head."""
        return self._with(kinds=(self.mtp_kind,), order=(0,), mtp_layers=0)

    def with_layers(self, kept: list[int]) -> ModelSpec:
        """The model with only these layers, in this order."""
        return self._with(order=tuple(self.order[layer] for layer in kept))

    def _with(self, **changes: object) -> ModelSpec:
        """A new one, checked: a copy would keep what was counted of this one."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return ModelSpec(**{**fields, **changes})

    @property
    def kv_values_per_token(self) -> int:
        """Cached values per token over all layers, as long as no window ends."""
        return sum(count * mixer.values_per_token for mixer, count in self.mixers)

    def kind_parameters(self, kind: LayerKind) -> Parameters:
        """Parameters of one layer; its experts are those of one layer."""
        hidden, experts = self.hidden, kind.experts
        matrices = sum(a * b for mixer in kind.mixers for a, b in mixer.projections(hidden))
        counted = Parameters(
            attention=matrices + sum(m.extra_parameters + m.idle_parameters for m in kind.mixers),
            idle=sum(mixer.idle_parameters for mixer in kind.mixers),
            dense=kind.dense.parameters(hidden) if kind.dense else 0,
            norms=kind.norm_parameters,
        )
        if experts is None:
            return counted
        width = experts.row_width or hidden
        bias = ((experts.matrices - 1) * experts.intermediate + width) if experts.bias else 0
        projected = 2 * hidden * width if experts.row_width else 0
        shared = experts.matrices * hidden * experts.shared_intermediate
        twin = experts.matrices * width * experts.twin_intermediate
        return counted.model_copy(
            update={
                "router": sum(a * b for a, b in experts.router(hidden)) + experts.router_extra_parameters,
                "shared_experts": shared + experts.shared_extra_parameters + projected,
                "expert": experts.matrices * width * experts.intermediate + bias + twin,
                "twin": twin,
                "experts_per_layer": experts.count,
                "experts_per_token": experts.per_token,
                "rows_per_token": experts.rows_per_token,
                "moe_layers": 1,
            }
        )

    @cached_property
    def parameters(self) -> Parameters:
        """Parameters of every part."""
        embedding = self.vocabulary * self.hidden
        each = [(self.kind_parameters(kind), self.layers_of(n)) for n, kind in enumerate(self.kinds)]
        moe = next(one for one, _ in each if one.moe_layers)
        return Parameters(
            embedding=embedding + self.embedding_extra_parameters,
            looked_up=self.embedding_extra_parameters,
            head=(0 if self.tied_embeddings else embedding) + self.head_extra_parameters,
            attention=sum(one.attention * count for one, count in each),
            idle=sum(one.idle * count for one, count in each),
            dense=sum(one.dense * count for one, count in each),
            router=sum(one.router * count for one, count in each),
            shared_experts=sum(one.shared_experts * count for one, count in each),
            norms=sum(one.norms * count for one, count in each) + self.norm_parameters,
            expert=moe.expert,
            twin=moe.twin,
            experts_per_layer=moe.experts_per_layer,
            experts_per_token=moe.experts_per_token,
            rows_per_token=moe.rows_per_token,
            moe_layers=len(self.moe_layers),
        )
