"""A run from quantised weights equals the run from their plain twin, in every format and on any ranks.

`python -m benchmarks.loading` tries every format on 1, 3 and 4 ranks.
"""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.runtime.model.twins import FORMATS, twins
from tests.runtime.test_run import execute
from wingspan.errors import InputError
from wingspan.runtime.model import dequantised
from wingspan.runtime.model.dequantised import DequantisedCheckpoint
from wingspan.runtime.run import RunResult


def _tokens(result: RunResult) -> list[list[int]]:
    return [output.token_ids for output in result.outputs]


@pytest.mark.parametrize(
    ("name", "ranks", "slots"),
    [
        *((name, 3, 2) for name in FORMATS),
        ("int4", 1, 6),
        ("mxfp4", 1, 6),
        ("int4", 4, 2),
        ("fp8-blocks", 4, 2),
    ],
)
def test_a_run_equals_that_of_the_plain_twin(tmp_path, name, ranks, slots):
    small, plain = twins(tmp_path, name)
    got, wanted = (execute(folder, ranks, slots, tmp_path) for folder in (small, plain))
    assert got.check is not None
    assert got.check.passed
    assert _tokens(got) == _tokens(wanted)


@pytest.mark.parametrize("name", FORMATS)
def test_some_outputs_at_a_time_are_the_twins(tmp_path, monkeypatch, name):
    """As few as a format lets be read alone; the last block of a matrix is cut off."""
    monkeypatch.setattr(dequantised, "_VALUES_AT_ONCE", 1)
    small, plain = twins(tmp_path, name)
    checkpoint, wanted = DequantisedCheckpoint(small), load_file(plain / "model.safetensors")
    assert checkpoint.widened
    assert set(checkpoint) == set(wanted)
    for key, tensor in wanted.items():
        assert torch.equal(checkpoint[key][...], tensor), key


@pytest.mark.parametrize("block", [[16, 48], [0, 48], [48, 0], [-48, 48]])
def test_blocks_of_another_size_are_refused(tmp_path, block):
    small, _ = twins(tmp_path, "fp8-blocks")
    config = json.loads((small / "config.json").read_text())
    config["quantization_config"]["weight_block_size"] = block
    (small / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=f"blocks of {block[0]} x {block[1]}"):
        DequantisedCheckpoint(small)


def test_of_a_fused_tensor_only_the_asked_experts_are_read(tmp_path):
    blocks = torch.randint(0, 256, (6, 4, 2, 16), generator=torch.Generator().manual_seed(2))
    tensors = {
        "x_blocks": blocks.to(torch.uint8),
        "x_scales": torch.full((6, 4, 2), 127, dtype=torch.uint8),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt_oss"}))
    read = DequantisedCheckpoint(tmp_path)["x"]
    assert tuple(read.get_shape()) == (6, 64, 4)
    assert torch.equal(read[2:3], read[...][2:3])
