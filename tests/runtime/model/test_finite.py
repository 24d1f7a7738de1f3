"""A run whose logits or routers are not finite ends with the prompt and the first part of the model that is not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from benchmarks.architectures import tiny_configuration, write_checkpoint
from safetensors.torch import load_file, save_file

from tests.cli.command import Command
from wingspan.runtime.model.finite import rows_finite

PROMPTS = ("--prompt-ids", "5,9,17", "--prompt-ids", "90,91", "--max-new-tokens", "3")


@pytest.fixture
def wingspan(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capfd)


def damaged(folder: Path, name: str, weights: str, value: float, rows: slice = slice(None)) -> Path:
    """A checkpoint of which some rows of one tensor are this value."""
    write_checkpoint(tiny_configuration(name), folder, seed=1)
    tensors = load_file(folder / "model.safetensors")
    tensors[weights][rows] = value
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize(
    ("weights", "value", "rows", "words"),
    [
        ("model.layers.2.mlp.gate.weight", float("nan"), slice(1, 2), "prompt 0: .*layer 2: .*mlp.gate"),
        ("model.layers.1.mlp.gate.e_score_correction_bias", float("nan"), slice(0, 1), "layer 1: .*mlp.gate"),
        ("model.layers.3.mlp.gate.weight", float("inf"), slice(0, 1), "layer 3: .*mlp.gate"),
        ("model.layers.0.mlp.down_proj.weight", float("inf"), slice(0, 1), "layer 0: .*mlp.down_proj"),
        ("model.layers.2.mlp.experts.4.up_proj.weight", float("nan"), slice(None), "layer 2: .*mlp.experts"),
        ("model.embed_tokens.weight", float("nan"), slice(91, 92), "prompt 1: .*model.embed_tokens"),
        ("lm_head.weight", float("nan"), slice(7, 8), "prompt 0: .*lm_head"),
    ],
)  # fmt: skip
def test_the_first_part_that_is_not_finite_is_named(wingspan, tmp_path, weights, value, rows, words):
    folder = damaged(tmp_path / "model", "deepseek_v3", weights, value, rows)
    done = wingspan("run", str(folder), "--ranks", "2", "--experts-per-rank", "3", *PROMPTS, "--check")
    assert done.code == 1
    (line,) = done.err.strip().splitlines()
    assert "not finite" in line
    assert all(part in line for part in words.split(".*")), line
    assert "Traceback" not in done.out + done.err


def test_a_token_that_the_model_rules_out_is_no_failure(tmp_path):

    logits_PV = torch.zeros(5, 4)
    logits_PV[0, 1] = -torch.inf
    logits_PV[1, 1] = torch.inf
    logits_PV[2, 1] = torch.nan
    logits_PV[3] = -torch.inf
    assert rows_finite(logits_PV).tolist() == [True, False, False, False, True]
