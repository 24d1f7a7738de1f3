"""The comparison with plain transformers: right runs pass in either dtype, wrong ones and NaN never."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from benchmarks.architectures import tiny_configuration, write_checkpoint
from transformers import AutoModelForCausalLM

from tests.runtime.test_run import SILENT
from tests.runtime.versions import same_version
from wingspan.runtime.generation.prompts import Prompt, Tokenizer
from wingspan.runtime.generation.sampling import Sampling
from wingspan.runtime.model.engine import default_placement, describe
from wingspan.runtime.model.reference import check
from wingspan.runtime.run import RunRequest, RunResult, checked, run
from wingspan.runtime.start import EngineSetup
from wingspan.runtime.transport.transport import LocalTransport
from wingspan.writing import json_text

PROMPTS = ((5, 9, 17, 3), (1, 2), tuple(range(30, 43)))


def checkpoint(folder: Path, name: str, seed: int = 1) -> Path:
    return write_checkpoint(tiny_configuration(name), folder, seed)


def a_run(folder: Path, dtype: torch.dtype) -> RunResult:
    """On one rank, in this process."""
    model = describe(folder, dtype)
    prompts = [Prompt(n, list(ids), None, 0) for n, ids in enumerate(PROMPTS)]
    placement = default_placement(model.shape, 1, 6)
    request = RunRequest(
        EngineSetup(model, placement, torch.device("cpu")), prompts, 4, Sampling(), keep_logits=True
    )
    result = run(LocalTransport(), request, Tokenizer(folder), SILENT)
    assert result is not None
    return checked(result, request)


@pytest.mark.parametrize(
    "name",
    [
        "nemotron_h",
        pytest.param("deepseek_v4", marks=same_version),
        "glm_moe_dsa",
        "cohere2_moe",
        "solar_open",
        "hy_v3",
    ],
)
def test_a_right_run_passes_in_bfloat16(name, tmp_path):
    """Also where rounding flips experts, or the cached logits are not the uncached ones."""
    found = a_run(checkpoint(tmp_path / name, name), torch.bfloat16).check
    assert found is not None
    assert found.passed, found


@pytest.mark.parametrize("name", ["nemotron_h", "deepseek_v32", "minimax"])
def test_a_right_run_passes_in_float32_by_a_small_tolerance(name, tmp_path):
    found = a_run(checkpoint(tmp_path / name, name), torch.float32).check
    assert found is not None
    assert found.passed, found
    assert found.allowed_difference <= 3e-3 * found.largest_logit


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_weights_never_pass(dtype, tmp_path):
    folder = checkpoint(tmp_path / "model", "qwen3_moe")
    tokens, logits = plain(folder)
    assert check(folder, dtype, PROMPTS, tokens, logits, greedy=True).passed
    _, others = plain(checkpoint(tmp_path / "other", "qwen3_moe", seed=2), tokens)
    assert not check(folder, dtype, PROMPTS, tokens, others, greedy=False).passed


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_never_passes_whichever_prompt_it_is(value, tmp_path):
    folder = checkpoint(tmp_path / "model", "mixtral")
    tokens, logits = plain(folder)
    for prompt in range(len(PROMPTS)):
        spoiled = [[row.clone() for row in of_prompt] for of_prompt in logits]
        spoiled[prompt][1][5] = value
        found = check(folder, torch.float32, PROMPTS, tokens, spoiled, greedy=False)
        assert not found.passed
        assert found.not_finite == 1
        told = json.loads(
            json_text(asdict(found)), parse_constant=lambda word: pytest.fail(f"{word} in JSON")
        )
        assert (told["not_finite"], told["largest_logit"]) == (1, found.largest_logit)


def plain(
    folder: Path, tokens: list[list[int]] | None = None
) -> tuple[list[list[int]], list[list[torch.Tensor]]]:
    """Three tokens for each prompt, or those given, and the logits that plain transformers chooses each from."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    if tokens is None:
        tokens = [
            model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=3)[0, len(ids) :].tolist()
            for ids in PROMPTS
        ]
    with torch.no_grad():
        sequences = [torch.tensor([[*p, *new[:-1]]]) for p, new in zip(PROMPTS, tokens, strict=True)]
        logits = [list(model(s).logits[0, len(p) - 1 :]) for s, p in zip(sequences, PROMPTS, strict=True)]
    return tokens, logits
