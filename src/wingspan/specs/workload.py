"""The work of one step: phase, tokens per GPU, context lengths, precisions, and how tokens choose experts."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PrivateAttr, model_validator

from wingspan.errors import InputError
from wingspan.limits import MOST_TOKENS, ContextTokens, Tokens
from wingspan.routing.statistics import expert_load
from wingspan.routing.trace import RoutingTrace
from wingspan.specs.cluster import Gpu
from wingspan.specs.model import ModelSpec
from wingspan.specs.part_precision import WEIGHTS, AskedPrecision, Precisions, of_earlier_files, resolved
from wingspan.specs.precision import Precision
from wingspan.specs.reading import Spec

Phase = Literal["prefill", "decode"]

USUAL_ACCEPTANCE = 0.85
"""DeepSeek-V3's second tokens: 85 to 90 % over the topics of its text (arXiv:2412.19437, section 5.4.3)."""
MOST_TRIED = 16


def phase_named(text: str, name: str) -> str:
    """A phase as it is; raises `InputError`, saying what `name` is, for what is none."""
    if text not in get_args(Phase):
        raise InputError(f"{name} {text}: use {' or '.join(get_args(Phase))}")
    return text


class Context(Spec):
    """Context lengths of the sequences: their mean, and the relative spread (log-normal) around it.

    Decode: tokens already cached. Prefill: tokens of a prompt.
    """

    mean_tokens: ContextTokens
    spread: float = Field(default=0.0, ge=0, le=3, description="standard deviation / mean; 0 = all alike")


class UniformRouting(Spec):
    """Every expert as likely as any other."""

    kind: Literal["uniform"] = "uniform"


class PowerLawRouting(Spec):
    """The n-th most loaded expert of a layer gets a share proportional to n^-exponent."""

    kind: Literal["power_law"] = "power_law"
    exponent: float = Field(ge=0, le=4)


class LogNormalRouting(Spec):
    """Shares proportional to exp(sigma x standard normal), and so once more for each 32 neighbouring experts."""

    kind: Literal["log_normal"] = "log_normal"
    sigma: float = Field(ge=0, le=4)
    group_sigma: float = Field(default=0.0, ge=0, le=4)


class RecordedRouting(Spec):
    """Recorded loads, of a trace or alone: tokens per (MoE layer, expert); layers repeat where there are fewer."""

    kind: Literal["recorded"] = "recorded"
    source: str = Field(default="", description="what they were counted from, in words")
    trace: str | None = Field(
        default=None,
        description="file of the trace they were counted from, for what links carry; from the deployment file's folder",
    )
    loads: tuple[tuple[Annotated[float, Field(ge=0, le=1e18)], ...], ...] = Field(min_length=1)
    moe_layers: tuple[int, ...] | None = Field(
        default=None, description="numbers of the loads' layers in the model, where their file says them"
    )
    remarks: tuple[str, ...] = Field(
        default=(), description="what the loads leave undecided, or had to leave out, in sentences"
    )
    _tokens: RoutingTrace | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        if len({len(layer) for layer in self.loads}) != 1:
            raise ValueError("every layer of loads must have as many experts")
        return self

    @property
    def tokens(self) -> RoutingTrace | None:
        """The trace, where it was read."""
        return self._tokens

    def with_tokens(self, trace: RoutingTrace) -> RecordedRouting:
        """Attach the trace that the loads were counted from.

        Raises:
            InputError: the loads were not counted from this trace.
        """
        if not np.array_equal(expert_load(trace), np.array(self.loads)):
            raise InputError(f"{self.trace}: not the trace that the loads were counted from; name it anew")
        same = self.model_copy()
        same._tokens = trace
        return same


Routing = Annotated[
    UniformRouting | PowerLawRouting | LogNormalRouting | RecordedRouting, Field(discriminator="kind")
]


def routing_remarks(routing: Routing) -> tuple[str, ...]:
    """What whoever reads a figure of this routing must know: sentences, none where the routing says all."""
    return routing.remarks if isinstance(routing, RecordedRouting) else ()


class Workload(Spec):
    """One step's work."""

    phase: Phase = "decode"
    tokens_per_gpu: Tokens = Field(description="new tokens; in decode one per sequence")
    total_sequences: int | None = Field(
        default=None,
        ge=1,
        le=MOST_TOKENS,
        description="over all ranks, where they are counted so: some ranks may have one fewer, or none; "
        "tokens_per_gpu is then the fullest rank's",
    )
    tokens_spread: float = Field(
        default=0.0,
        ge=0,
        le=3,
        description="standard deviation / mean of the ranks' tokens, in decode of their sequences (log-normal, drawn; "
        "tokens_per_gpu is their mean); 0 = as many on each",
    )
    context: Context
    routing: Routing = UniformRouting()
    fluctuating: bool = Field(
        default=True, description="draw each step's loads from the shares; False: exactly the shares"
    )
    seed: int = Field(default=0, ge=0, description="of all draws")
    mtp_tokens: int = Field(
        default=0, ge=0, le=MOST_TRIED, description="tokens that each sequence tries ahead in a decode step"
    )
    acceptance: float = Field(
        default=USUAL_ACCEPTANCE,
        gt=0,
        le=1,
        description="share of the tried tokens that are right, where all before are",
    )
    precision: AskedPrecision = AskedPrecision()

    @model_validator(mode="before")
    @classmethod
    def _one_block_of_precisions(cls, data: Any) -> Any:
        """Files of earlier versions say every precision in a key of its own."""
        return of_earlier_files(data, _EARLIER)

    @model_validator(mode="before")
    @classmethod
    def _plain_context(cls, data: Any) -> Any:
        """`context: 4096` stands for that mean without spread."""
        if isinstance(data, dict) and isinstance(data.get("context"), int):
            return {**data, "context": {"mean_tokens": data["context"]}}
        return data

    @model_validator(mode="after")
    def _one_way_of_spreading(self) -> Self:
        if self.tokens_spread and self.total_sequences is not None:
            raise ValueError(
                f"tokens_spread {self.tokens_spread:g}: total_sequences {self.total_sequences} are spread evenly; "
                "leave one out"
            )
        return self

    def rank_shares(self, ranks: int) -> NDArray[np.float64]:
        """Each rank's tokens as a share of the mean rank's: (ranks,), their mean 1."""
        sigma = np.sqrt(np.log1p(self.tokens_spread**2))
        drawn_R = np.exp(sigma * np.random.default_rng((self.seed, 2)).standard_normal(ranks))
        return np.asarray(drawn_R / drawn_R.mean())

    @property
    def sequences_per_gpu(self) -> float:
        """Sequences that a GPU has in the step."""
        if self.phase == "decode":
            return float(self.tokens_per_gpu)
        return self.tokens_per_gpu / min(self.tokens_per_gpu, self.context.mean_tokens)

    @property
    def tokens_per_sequence(self) -> int:
        """New tokens of a whole sequence in one step: one, or its prompt."""
        return 1 if self.phase == "decode" else self.context.mean_tokens

    @property
    def tried_per_sequence(self) -> int:
        """Tokens of a sequence in a decode step: its next one, and those that it tries ahead."""
        return 1 + self.mtp_tokens if self.phase == "decode" else 1

    @property
    def gained_per_sequence(self) -> float:
        """Tokens that a decode step gives a sequence in the mean: a tried one counts where all before are right."""
        return sum(self.acceptance**n for n in range(self.tried_per_sequence))

    def spread_over(self, ranks: int) -> Workload:
        """The work with `tokens_per_gpu` of the fullest of so many ranks, where its sequences are counted in all."""
        if self.total_sequences is None:
            return self
        fullest = -(-self.total_sequences // ranks) * self.tokens_per_sequence
        return self.model_copy(update={"tokens_per_gpu": fullest})

    def precisions(self, model: ModelSpec, gpu: Gpu | None = None) -> Precisions:
        """What the step computes, keeps and sends in, on such a GPU (see `resolved`)."""
        return resolved(model.precision, self.precision, model.weighted_parts, gpu)

    def with_precision(self, **formats: Precision) -> Workload:
        """The work in other formats, by the fields of `AskedPrecision`."""
        return self.model_copy(update={"precision": self.precision.model_copy(update=formats)})


_EARLIER = {
    "weights": WEIGHTS,
    "expert_weights": ("experts",),
    **{name: (name,) for name in ("activations", "dispatch", "combine", "kv")},
}
