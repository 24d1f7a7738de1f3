"""The checkpoint in `models/tiny`: what a fresh clone completes text with."""

import csv
from pathlib import Path

import pytest
import torch
from training.corpus import SHARES, fixed_batch, standard_library, streams
from training.evaluate import imbalance, loss_by_kind, measure_load
from transformers import AutoModelForCausalLM, AutoTokenizer

from wingspan.models import WingspanMoeForCausalLM

FOLDER = Path(__file__).parents[2] / "models" / "tiny"
UNIFORM_LOSS = 5.55
"""ln 258: the loss, in nats per byte, of a model that has learnt nothing."""


@pytest.fixture(scope="module")
def shipped() -> WingspanMoeForCausalLM:
    return AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def held_out() -> dict[str, torch.Tensor]:
    found = streams(standard_library(held_out=True))
    return {kind: fixed_batch(found[kind], 4, 256) for kind in SHARES}


def test_it_is_small_and_in_bf16():
    assert (FOLDER / "model.safetensors").stat().st_size < 9_000_000
    assert AutoModelForCausalLM.from_pretrained(FOLDER).dtype == torch.bfloat16


def test_greedy_continuation_is_deterministic_text(shipped):
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    ids = tokenizer("def main():", return_tensors="pt").input_ids
    first, second = (shipped.generate(ids, max_new_tokens=24, do_sample=False) for _ in range(2))
    assert torch.equal(first, second)
    continuation = tokenizer.decode(first[0, ids.shape[1] :])
    assert continuation.startswith("\n    ")  # it has learnt that a body follows, indented


def test_it_predicts_text_it_never_saw(shipped, held_out):
    losses = loss_by_kind(shipped, held_out)
    assert all(loss < UNIFORM_LOSS / 2 for loss in losses.values()), losses


def test_routing_is_skewed_and_differs_between_kinds(shipped, held_out):
    share_LE = {kind: measure_load(shipped, batch) / (2 * batch.numel()) for kind, batch in held_out.items()}
    moved = (share_LE["code"] - share_LE["table"]).abs().sum(1).mean() / 2
    assert moved > 0.05  # of the tokens go to other experts
    assert all(imbalance(shipped, batch) > 1.1 for batch in held_out.values())


def test_its_loss_curve_falls():
    with (FOLDER / "loss.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["val_loss"]) < float(rows[0]["val_loss"])
    assert int(rows[-1]["step"]) > int(rows[0]["step"])
