"""The number format of every part of a model and of a step: as published, as asked for, and what comes of both.

Parts with weights are attention, dense MLPs, shared experts and (routed) experts. Router, norms, embedding and head
keep 16 bits or more, as quantised checkpoints keep them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from wingspan.specs.precision import Precision, wider
from wingspan.specs.reading import Spec

if TYPE_CHECKING:
    from wingspan.specs.cluster import Gpu

WEIGHTS = ("attention", "dense", "shared", "experts")
"""Parts of a model that have weights in a format of their own."""

_CORE = (Precision.FP32, Precision.BF16, Precision.FP16, Precision.FP8)
"""Formats that attention kernels compute in."""
_OWN_ACTIVATIONS = {
    Precision.FP8: Precision.FP8,
    Precision.INT8: Precision.INT8,
    Precision.NVFP4: Precision.NVFP4,
}
"""What weights are multiplied with where the GPU computes in it. MXFP4's: see `_usual`."""


class PublishedPart(Spec):
    """How a part was published; a format alone stands for its weights."""

    weights: Precision
    activations: Precision | None = Field(
        default=None,
        description="what the checkpoint says they are multiplied with; None: the format's usual",
    )

    @model_validator(mode="before")
    @classmethod
    def _weights_alone(cls, data: Any) -> Any:
        return {"weights": data} if isinstance(data, str) else data

    @model_serializer(mode="wrap")
    def _in_a_word(self, whole: SerializerFunctionWrapHandler) -> Any:
        return whole(self) if self.activations else self.weights.value


_PLAIN = PublishedPart(weights=Precision.BF16)


class PublishedPrecision(Spec):
    """How a checkpoint was published."""

    attention: PublishedPart = _PLAIN
    dense: PublishedPart = _PLAIN
    shared: PublishedPart = _PLAIN
    experts: PublishedPart = _PLAIN
    kv: Precision | None = Field(default=None, description="of the KV cache, where the config says it")

    @property
    def weights(self) -> dict[str, Precision]:
        """The formats of all parts with weights, by name."""
        return {name: getattr(self, name).weights for name in WEIGHTS}

    @property
    def weights_described(self) -> str:
        """Say those of the weights: `bf16 weights (mxfp4 experts)`."""
        return _by_part({name: kind.value for name, kind in self.weights.items()}, "weights")

    @property
    def unquantised(self) -> Precision:
        """The format of embedding, head, routers and norms."""
        return wider(self.attention.weights, Precision.BF16)


class AskedPrecision(Spec):
    """Formats that are asked for; None: as published, or what follows from the rest."""

    attention: Precision | None = None
    dense: Precision | None = None
    shared: Precision | None = None
    experts: Precision | None = None
    activations: Precision | None = Field(
        default=None,
        description="inputs of matrix products; default: what the weights' kernels take on this GPU",
    )
    dispatch: Precision | None = Field(default=None, description="default: as the experts' activations")
    combine: Precision | None = Field(default=None, description="default: BF16")
    kv: Precision | None = Field(default=None, description="default: as published, else BF16")
    core: Precision | None = Field(
        default=None, description="queries against keys and values; default: BF16, or wider activations"
    )

    @model_validator(mode="after")
    def _formats_fit_their_use(self) -> Self:
        for name in ("activations", "dispatch", "combine", "kv", "core"):
            precision = getattr(self, name)
            if precision is not None and precision.of_weights_alone:
                raise ValueError(f"{name} {precision} is a format of weights alone; use fp8 or bf16")
        if self.core is not None and self.core not in _CORE:
            raise ValueError(f"core {self.core}: attention computes in one of {', '.join(_CORE)}")
        return self


class PartPrecision(Spec):
    """A part's weights, and what they are multiplied with."""

    weights: Precision
    activations: Precision

    @property
    def weight_only(self) -> bool:
        """Whether the weights are widened in the kernel, which computes in 16 bits or more."""
        return self.weights.bytes < 2 <= self.activations.bytes


class Precisions(Spec):
    """Formats with nothing left open; a part that the model lacks is as its attention."""

    attention: PartPrecision
    dense: PartPrecision
    shared: PartPrecision
    experts: PartPrecision
    dispatch: Precision
    combine: Precision
    kv: Precision
    core: Precision
    remarks: tuple[str, ...] = ()
    """Why weights are widened, in sentences."""

    @property
    def parts(self) -> dict[str, PartPrecision]:
        """Those with weights, by name."""
        return {name: getattr(self, name) for name in WEIGHTS}

    @property
    def unquantised(self) -> Precision:
        """The format of embedding, head, routers and norms."""
        return wider(self.attention.weights, Precision.BF16)

    @property
    def weights_described(self) -> str:
        """Say those of the weights: `bf16 weights (mxfp4 weight-only experts)`."""
        formats = {
            name: f"{part.weights}{' weight-only' if part.weight_only else ''}"
            for name, part in self.parts.items()
        }
        return _by_part(formats, "weights")

    @property
    def described(self) -> str:
        """Say the precisions in words: `fp8 weights, fp8 activations, bf16 KV cache`."""
        activations = {name: part.activations.value for name, part in self.parts.items()}
        words = [self.weights_described, _by_part(activations, "activations"), f"{self.kv} KV cache"]
        if self.core is not wider(self.attention.activations, Precision.BF16):
            words.append(f"{self.core} attention core")
        return ", ".join(words)


def _by_part(formats: dict[str, str], what: str) -> str:
    """`bf16 weights (mxfp4 experts)`: attention's first, then the parts that differ."""
    base = formats["attention"]
    others: dict[str, list[str]] = {}
    for name, text in formats.items():
        if text != base:
            others.setdefault(text, []).append(name)
    differing = "; ".join(f"{text} {_listed(names)}" for text, names in others.items())
    return f"{base} {what}" + (f" ({differing})" if differing else "")


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def resolved(
    published: PublishedPrecision, asked: AskedPrecision, present: frozenset[str], gpu: Gpu | None
) -> Precisions:
    """What a step computes, keeps and sends in.

    Weights are as asked for, else as published. They are multiplied with activations as engines do it: in the
    weights' own format where the GPU computes in that, else the kernel widens them to BF16 (weight-only). Source:
    vLLM, docs, "FP8 W8A8" (FP8 on Ampere), and its Marlin kernels for FP4 (before Blackwell).

    Args:
        published: the model's.
        asked: the workload's.
        present: parts that the model has.
        gpu: what computes; None: one that computes in every format but FP4 with FP8.
    """
    parts: dict[str, PartPrecision] = {}
    remarks: dict[tuple[Precision, str], list[str]] = {}
    for name in WEIGHTS:
        source = name if name in present else "attention"
        asked_weights = getattr(asked, source)
        own: PublishedPart = getattr(published, source)
        weights = asked_weights or own.weights
        said = own.activations if asked_weights is None else None
        activations = asked.activations or _usual(weights, said, gpu)
        parts[name] = PartPrecision(weights=weights, activations=activations)
        if parts[name].weight_only and source == name:
            remarks.setdefault((weights, _why(weights, asked.activations, said, gpu)), []).append(name)
    attention, experts = parts["attention"], parts["experts"]
    return Precisions(
        **parts,
        dispatch=asked.dispatch or experts.activations,
        combine=asked.combine or Precision.BF16,
        kv=asked.kv or published.kv or Precision.BF16,
        core=asked.core or wider(attention.activations, Precision.BF16),
        remarks=tuple(
            f"{weights} weights of {_listed(names)} are widened to {parts[names[0]].activations} in the kernel "
            f"(weight-only): {why}"
            for (weights, why), names in remarks.items()
        ),
    )


def _usual(weights: Precision, said: Precision | None, gpu: Gpu | None) -> Precision:
    """What the kernels of such weights take, where nobody asks for another."""
    if weights.bytes >= 2:
        return Precision.BF16
    # gpt-oss on Blackwell: MXFP8, SGLang's `--flashinfer-mxfp4-moe-precision default`; BF16 before it.
    if weights is Precision.MXFP4 and said is None:
        said = Precision.FP8 if gpu is not None and Precision.MXFP4 in gpu.peak_flops else Precision.BF16
    wanted = said or _OWN_ACTIVATIONS.get(weights, Precision.BF16)
    return wanted if gpu is None or wanted.arithmetic in gpu.peak_flops else Precision.BF16


def _why(weights: Precision, asked: Precision | None, said: Precision | None, gpu: Gpu | None) -> str:
    if asked is not None:
        return f"{asked} activations are asked for"
    if weights.of_weights_alone:
        return "no GPU computes in this format"
    if gpu is not None and weights.arithmetic not in gpu.peak_flops:
        return f"{gpu.name} computes in {_listed(list(gpu.peak_flops))}"
    return "the checkpoint was quantised for that" if said else "as engines do it"


def of_earlier_files(data: Any, names: dict[str, tuple[str, ...]]) -> Any:
    """What files before this block existed say in keys of their own, as it says it.

    Args:
        data: a spec's values as they are read; anything but a mapping is left to the reader.
        names: for each such key the parts that it meant; a later one wins.
    """
    if not isinstance(data, dict) or not any(name in data for name in names):
        return data
    block: dict[str, Any] = {}
    for name, parts in names.items():
        if data.get(name) is not None:
            block.update(dict.fromkeys(parts, data[name]))
    given = data.get("precision")
    if given is not None:
        raise ValueError(
            f"{next(name for name in names if name in data)} and precision say the same; leave one out"
        )
    return {**{key: value for key, value in data.items() if key not in names}, "precision": block}
