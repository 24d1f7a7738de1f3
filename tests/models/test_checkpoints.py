import hashlib
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.models.conftest import SMALL
from wingspan.errors import InputError
from wingspan.models import WingspanMoeConfig, seed_small, write_random_checkpoint


def _hash_of_weights(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_the_same_seed_writes_the_same_bytes(tmp_path):
    config = WingspanMoeConfig(**SMALL)
    first, again, other = (
        write_random_checkpoint(config, tmp_path / n, s) for n, s in [("a", 1), ("b", 1), ("c", 2)]
    )
    assert _hash_of_weights(first) == _hash_of_weights(again) != _hash_of_weights(other)


def test_writing_leaves_the_callers_random_state_alone(tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    write_random_checkpoint(WingspanMoeConfig(**SMALL), tmp_path, 1)
    assert torch.equal(torch.rand(1), expected)


def test_the_scaled_down_seed_loads_and_generates(tmp_path):
    folder = write_random_checkpoint(seed_small(), tmp_path, 0)
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert model.dtype == torch.bfloat16
    assert len(model.model.layers) == 61
    ids = tokenizer("def main():", return_tensors="pt").input_ids
    assert model.generate(ids, max_new_tokens=3, do_sample=False).shape == (1, 14)


def test_a_vocabulary_without_room_for_the_bytes_is_refused_and_nothing_written(tmp_path):
    with pytest.raises(InputError, match="vocab_size 100"):
        write_random_checkpoint(WingspanMoeConfig(**{**SMALL, "vocab_size": 100}), tmp_path / "x", 0)
    assert not (tmp_path / "x").exists()
