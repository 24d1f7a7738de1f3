"""The room for KV cache: a share of the free memory, what is asked for, or nothing that could hold a token."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from tests.cli.command import REPOSITORY
from wingspan.errors import InputError
from wingspan.runtime.ranks import capacity
from wingspan.runtime.setup import kv_room
from wingspan.runtime.setup.setup import Asked, read_setup
from wingspan.specs.models import load_model
from wingspan.specs.running import WeightType

TINY = REPOSITORY / "models" / "tiny"


@pytest.fixture
def setup():
    return read_setup(Asked(TINY), os.environ)


def test_a_token_has_keys_and_values_of_every_layer():
    model = load_model(str(TINY))
    assert kv_room.bytes_per_token(model, WeightType.BFLOAT16) == 2 * 10 * 5 * 32 * 2
    assert kv_room.bytes_per_token(model, WeightType.FLOAT32) == 2 * kv_room.bytes_per_token(
        model, WeightType.BFLOAT16
    )


def test_ranks_share_a_quarter_of_what_weights_leave(setup, monkeypatch):
    monkeypatch.setattr(capacity, "free_memory_bytes", lambda: 1_000_000_000)
    setup = replace(setup, dtype=WeightType.BFLOAT16)
    room = kv_room.kv_room(setup, 4, 50_000_000, None)
    assert room.tokens == (1_000_000_000 - 200_000_000) // 16 // (2 * 6400)
    assert f"{room.tokens:,} tokens" in str(room.remark)
    assert "0.05 GB" in str(room.remark)
    assert kv_room.kv_room(setup, 4, 50_000_000, 77) == kv_room.KVRoom(77)
    with pytest.raises(InputError, match="leave no memory for KV cache"):
        kv_room.kv_room(setup, 4, 250_000_000, None)
