"""What each tensor of a checkpoint is for: a parameter of the model, left out by right, or a mistake that is named."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from transformers import PreTrainedConfig, PreTrainedModel

from wingspan.errors import InputError
from wingspan.runtime.model import unused as unused_tensors
from wingspan.runtime.model.architecture import MoeShape, read_config
from wingspan.runtime.model.dequantised import DequantisedCheckpoint
from wingspan.runtime.model.experts_table import experts_parameters
from wingspan.runtime.model.places import TensorPlace, TensorPlaces
from wingspan.runtime.model.quantised import format_of_dtype, format_of_names, format_said

EXPERT_NUMBER = re.compile(r"(?<=experts\.)(\d+)(?=\.)")
"""The logical expert in the name of a tensor that is of one expert alone."""

_PLAIN_ON_DISK = ("F16", "BF16", "F32", "F64")
_NAMES_SHOWN = 3


@dataclass(frozen=True)
class Inventory:
    """A checkpoint's tensors by what they are for; tensors by their names on disk, parameters by the model's."""

    folder: str
    targets: dict[str, TensorPlace]
    """Where each used tensor belongs."""
    dtypes: dict[str, int]
    """Number of tensors of each dtype on disk."""
    quantised: str | None
    """The format of quantised weights; None where the weights are plain floating point."""
    widened: int
    """Tensors that are quantised on disk and plain in memory."""
    unused: dict[str, list[str]]
    """Tensors that a run leaves out by right, by the reason."""
    unexpected: list[str]
    """Tensors without a place in the model."""
    missing: list[str]
    """Parameters, and single experts' tensors, that the checkpoint lacks."""
    misshapen: list[str]
    """Tensors of another shape than the configuration says, with both shapes."""

    @property
    def problem(self) -> str | None:
        """Why the model cannot run from this checkpoint, with the mend; None where it can."""
        if self.quantised and not self.widened:
            return (
                f"the weights are quantised ({self.quantised}) in a form that is not read; FP8, MXFP4, NVFP4, GPTQ, "
                "AWQ and compressed-tensors are: give this model so, or in bfloat16, with no quantization_config"
            )
        wrong = []
        if self.unexpected:
            wrong.append(
                f"{len(self.unexpected)} tensors have no place in the model: {_some(self.unexpected)}"
            )
        if self.missing:
            wrong.append(f"{len(self.missing)} weights are missing: {_some(self.missing)}")
        if self.misshapen:
            wrong.append(f"{len(self.misshapen)} tensors have another shape: {_some(self.misshapen)}")
        if not wrong:
            return None
        return (
            "; ".join(wrong) + "; the weights must be complete, and of the model that config.json describes"
        )

    def check(self) -> None:
        """Raise `InputError` where the model cannot run from this checkpoint."""
        if self.problem:
            raise InputError(f"{self.folder}: {self.problem}")


def take_inventory(
    checkpoint: DequantisedCheckpoint, model: PreTrainedModel, config: PreTrainedConfig, shape: MoeShape
) -> Inventory:
    """Find what each tensor is for, from the files' headers alone.

    Args:
        checkpoint: open.
        model: from `build_on_meta`, its experts not yet cut to a rank's slots.
        config: the checkpoint's; of a model with more parts than text (vision ...) the whole of it.
        shape: from `moe_shape`.
    """
    places = TensorPlaces(model)
    of_key = places.of_all(checkpoint)
    left = {key: place.parameters[0] for key, place in of_key.items() if not _taken(place, places)}
    used = {key: place for key, place in of_key.items() if key not in left}
    unused, unexpected = unused_tensors.judge(left, model, config)
    beside = shape.idle + shape.num_experts * places.splits_experts
    few, many = _expert_numbers(
        used, set(experts_parameters(model, shape.paths)), shape.num_experts, shape.num_experts + beside
    )
    # Only what is not read as plain weights tells.
    told = _told(checkpoint, used, places, unexpected)
    return Inventory(
        folder=str(checkpoint.folder),
        targets=used,
        dtypes=dict(Counter(checkpoint.stored_dtypes())),
        quantised=format_said(checkpoint.folder, read_config(checkpoint.folder)) or told,
        widened=0 if told else len(checkpoint.widened),
        unused=unused,
        unexpected=[*unexpected, *many, *_doubled(used)],
        missing=[*_missing(used, places, model), *few],
        misshapen=_misshapen(checkpoint, used, places),
    )


def _taken(place: TensorPlace, places: TensorPlaces) -> bool:
    return place.parameters[0] in places.parameters


def _expert_numbers(
    used: Mapping[str, TensorPlace], of_experts: Collection[str], needed: int, known: int
) -> tuple[list[str], list[str]]:
    """Tensors of single experts: those that are missing, and those of experts that the model does not know."""
    found: dict[str, set[int]] = {}
    for key, place in used.items():
        number = EXPERT_NUMBER.search(key)
        if number and place.parameters[0] in of_experts:
            found.setdefault(EXPERT_NUMBER.sub("0", key, count=1), set()).add(int(number[0]))
    few = [_numbered(key, n) for key, has in found.items() for n in sorted({*range(needed)} - has)]
    many = [_numbered(key, n) for key, has in found.items() for n in sorted(has - {*range(known)})]
    return few, many


def _numbered(key: str, expert: int) -> str:
    return EXPERT_NUMBER.sub(str(expert), key, count=1)


def _doubled(used: Mapping[str, TensorPlace]) -> list[str]:
    """Tensors that would be a parameter which another tensor is already: the same name in two spellings."""
    plain = [(place.parameters[0], key) for key, place in used.items() if place.pattern is None]
    times = Counter(parameter for parameter, _ in plain)
    return [key for parameter, key in plain if times[parameter] > 1]


def _missing(used: Mapping[str, TensorPlace], places: TensorPlaces, model: PreTrainedModel) -> list[str]:
    """Parameters without any tensor, and those with a part only of what a conversion makes them of."""
    have: dict[str, set[str]] = {}
    for place in used.values():
        for parameter in place.parameters:
            have.setdefault(parameter, set()).add(place.pattern or "")
    tied = dict(model.all_tied_weights_keys or {})
    partner = tied | {source: target for target, source in tied.items()}
    missing = [name for name in places.parameters if name not in have and partner.get(name) not in have]
    for parameter, patterns in have.items():
        wanted = {source for pattern in patterns if pattern for source in places.sources(pattern)}
        missing += [f"{parameter} (its {pattern})" for pattern in sorted(wanted - patterns)]
    return missing


def _told(
    checkpoint: DequantisedCheckpoint,
    used: Mapping[str, TensorPlace],
    places: TensorPlaces,
    unexpected: Iterable[str],
) -> str | None:
    """The format that tensors give away which are not read as plain ones."""
    narrow = {
        checkpoint.dtype_of(key)
        for key, place in used.items()
        if checkpoint.dtype_of(key) not in _PLAIN_ON_DISK
        and places.parameters[place.parameters[0]].is_floating_point()
    }
    told = [format_of_dtype(min(narrow))] if narrow else []
    by_name = format_of_names(unexpected)
    if by_name is None:
        return ", ".join(told) or None
    # Names that many formats share ("scaled weights") say less than what the weights are stored as.
    return ", ".join([*told, by_name]) if by_name.startswith("scaled") else by_name


def _misshapen(
    checkpoint: DequantisedCheckpoint, used: Mapping[str, TensorPlace], places: TensorPlaces
) -> list[str]:
    """Tensors that are a whole parameter, but not of its shape; conversions are judged when they are made."""
    found = []
    for key, place in used.items():
        on_disk, expected = checkpoint.shape_of(key), tuple(places.parameters[place.parameters[0]].shape)
        if place.pattern is None and on_disk != expected:
            found.append(f"{key} {list(on_disk)} instead of {list(expected)}")
    return found


def _some(names: list[str]) -> str:
    shown = sorted(names)[:_NAMES_SHOWN]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
