"""How many tokens of KV cache a rank has room for: as somebody says, or a share of the memory that is free."""

from __future__ import annotations

from dataclasses import dataclass

from wingspan.errors import InputError
from wingspan.runtime.ranks.capacity import kv_bytes
from wingspan.runtime.setup.setup import Setup
from wingspan.schedule.batching import UNLIMITED
from wingspan.specs.model import ModelSpec
from wingspan.specs.models import load_model
from wingspan.specs.running import WeightType

_STORAGE_FACTOR = 2
"""Rows of caches are written in place: there is room for more columns and rows, up to as much again."""

_LONGEST_COUNTED = 4096
"""Tokens of a sequence at which a token's cache is counted: layers with a window hold no more than that."""


@dataclass(frozen=True)
class KVRoom:
    """What each rank has room for; `remark` says how that was found, where nobody asked for it."""

    tokens: int
    remark: str | None = None


def kv_room(setup: Setup, ranks: int, model_bytes: int, asked_tokens: int | None) -> KVRoom:
    """The room of each rank.

    Args:
        setup: says the model and its number format.
        ranks: that are to be forked on this machine.
        model_bytes: weights that each holds.
        asked_tokens: the room that is asked for; None: a share of the free memory.

    Raises:
        InputError: beside the weights no memory is left for a token.
    """
    if asked_tokens is not None:
        return KVRoom(asked_tokens)
    try:
        model = load_model(str(setup.folder / "config.json"))
    except InputError as error:
        return KVRoom(
            UNLIMITED.kv_tokens_per_home, f"KV cache without a limit: its size is not known ({error})"
        )
    of_token = bytes_per_token(model, setup.dtype)
    if not of_token:
        return KVRoom(UNLIMITED.kv_tokens_per_home)
    room_bytes = kv_bytes(ranks, model_bytes)
    tokens = int(room_bytes / (of_token * _STORAGE_FACTOR))
    if tokens < 1:
        raise InputError(
            f"{ranks} ranks with {model_bytes / 1e9:.2f} GB of weights each leave no memory for KV cache here; start "
            "fewer, or use a machine with more"
        )
    return KVRoom(
        tokens,
        f"room for {tokens:,} tokens of KV cache on each rank: {room_bytes / 1e9:.2f} GB, a share of the free memory",
    )


def bytes_per_token(model: ModelSpec, dtype: WeightType) -> float:
    """KV cache of a token of a sequence, in the mean; 0 where layers keep states alone."""
    context = min(model.max_context or _LONGEST_COUNTED, _LONGEST_COUNTED)
    values = sum(layers * float(mixer.cached_values(context)) for mixer, layers in model.mixers)
    return values * (4 if dtype is WeightType.FLOAT32 else 2) / context
