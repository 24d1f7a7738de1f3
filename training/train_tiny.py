"""Train the small model that ships in `models/tiny`: `python -m training.train_tiny --out models/tiny`.

FP32 on one CPU thread, deterministic: the same interpreter, libraries and arguments give the same weights. Writes
the checkpoint in BF16, the tokenizer, `loss.csv` (the curve) and `result.json` (loss and routing by kind of text).
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import math
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from training.corpus import SHARES, fingerprint, fixed_batch, sample_batch, standard_library, streams
from training.evaluate import imbalance, loss_by_kind, weighted_loss
from wingspan.cli.main import end_as_command
from wingspan.models import WingspanMoeConfig, WingspanMoeForCausalLM, build_byte_tokenizer
from wingspan.models.balancing import balancing_loss, expert_load
from wingspan.models.tokenizer import END_ID, PAD_ID, VOCAB_SIZE

log = logging.getLogger("train_tiny")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the result, beside the text."""

    steps: int = 2200
    sequences: int = 8
    length: int = 256
    learning_rate: float = 3e-3
    warmup_steps: int = 100
    weight_decay: float = 0.05
    clip_norm: float = 1.0
    balancing_weight: float = 0.004  # enough that every expert learns, too little to flatten the routing
    seed: int = 0


def tiny_config() -> WingspanMoeConfig:
    """10 layers, 3 of them dense; 8 plain experts, top-2; 4.25 million parameters, 8.5 MB in BF16."""
    return WingspanMoeConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=160,
        num_hidden_layers=10,
        first_k_dense_replace=3,
        num_attention_heads=5,
        head_dim=32,
        intermediate_size=320,
        moe_intermediate_size=160,
        num_experts=8,
        num_experts_per_tok=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        initializer_range=0.08,  # about 1 / sqrt(hidden size): the tied head's first logits are of order 1
        eos_token_id=END_ID,
        pad_token_id=PAD_ID,
    )


def build_model(config: WingspanMoeConfig, seed: int) -> WingspanMoeForCausalLM:
    """Draw fresh FP32 weights from `seed`."""
    torch.manual_seed(seed)
    return WingspanMoeForCausalLM(config).train()


def build_optimizer(model: WingspanMoeForCausalLM, recipe: Recipe) -> AdamW:
    """AdamW that decays matrices and leaves norms alone."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.95))


def build_schedule(optimizer: Optimizer, recipe: Recipe) -> LambdaLR:
    """Linear warm-up, then a cosine down to a twentieth."""

    def factor(step: int) -> float:
        if step < recipe.warmup_steps:
            return (step + 1) / recipe.warmup_steps
        progress = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
        return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress))

    return LambdaLR(optimizer, factor)


def training_losses(model: WingspanMoeForCausalLM, batch_BS: Tensor) -> tuple[Tensor, Tensor]:
    """Mean next-byte loss in nats, and the load-balancing loss, of one batch."""
    output = model(input_ids=batch_BS, output_router_logits=True, use_cache=False)
    byte_loss = model.loss_function(output.logits, batch_BS, model.vocab_size)
    load_LE = expert_load(output.router_logits, model.num_experts_per_tok)
    return byte_loss, balancing_loss(output.router_logits, load_LE)


def optimizer_step(
    model: WingspanMoeForCausalLM, optimizer: Optimizer, schedule: LambdaLR, clip_norm: float
) -> None:
    """Apply the gradients that `backward` left, then clear them."""
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()
    schedule.step()
    optimizer.zero_grad()


def train(
    model: WingspanMoeForCausalLM,
    text: dict[str, Tensor],
    held_out: dict[str, Tensor],
    recipe: Recipe,
    report_every: int,
) -> list[dict[str, float]]:
    """Run the recipe; returns the curve: rows of step, train_loss, val_loss (nats per byte) and seconds."""
    optimizer = build_optimizer(model, recipe)
    schedule = build_schedule(optimizer, recipe)
    generator = torch.Generator().manual_seed(recipe.seed)
    curve: list[dict[str, float]] = []
    losses: list[float] = []
    start = time.perf_counter()
    for step in range(1, recipe.steps + 1):
        batch_BS = sample_batch(text, recipe.sequences, recipe.length, generator)
        byte_loss, balance = training_losses(model, batch_BS)
        (byte_loss + recipe.balancing_weight * balance).backward()
        optimizer_step(model, optimizer, schedule, recipe.clip_norm)
        losses.append(byte_loss.item())
        if step % report_every == 0 or step == recipe.steps:
            row = {
                "step": step,
                "train_loss": round(sum(losses) / len(losses), 4),
                "val_loss": round(weighted_loss(loss_by_kind(model, held_out)), 4),
                "seconds": round(time.perf_counter() - start, 1),
            }
            log.info("%s", row)
            curve.append(row)
            losses.clear()
    return curve


def save(model: WingspanMoeForCausalLM, curve: list[dict[str, float]], folder: Path) -> None:
    """Write the BF16 checkpoint, the tokenizer and the curve."""
    model.bfloat16().save_pretrained(folder)
    build_byte_tokenizer().save_pretrained(folder)
    with (folder / "loss.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(curve[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(curve)


def main() -> None:
    """Train by the command line's arguments and write the folder."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description="Train the small model that ships in models/tiny.")
    parser.add_argument("--steps", type=int, default=Recipe.steps, help="optimizer steps")
    parser.add_argument("--sequences", type=int, default=Recipe.sequences, help="windows of text per step")
    parser.add_argument("--length", type=int, default=Recipe.length, help="bytes per window")
    parser.add_argument("--seed", type=int, default=Recipe.seed, help="weights and order of the text")
    parser.add_argument("--report-every", type=int, default=25, help="steps between rows of loss.csv")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    recipe = Recipe(
        steps=arguments.steps, sequences=arguments.sequences, length=arguments.length, seed=arguments.seed
    )
    text, held_out = streams(standard_library(held_out=False)), streams(standard_library(held_out=True))
    validation = {kind: fixed_batch(held_out[kind], 4, recipe.length) for kind in SHARES}
    model = build_model(tiny_config(), recipe.seed)
    curve = train(model, text, validation, recipe, arguments.report_every)

    save(model, curve, arguments.out)
    final = {kind: fixed_batch(held_out[kind], 32, recipe.length) for kind in SHARES}
    shipped = WingspanMoeForCausalLM.from_pretrained(arguments.out, dtype=torch.float32)
    result = {
        "python": platform.python_version(),
        "text": fingerprint(text),
        "text_bytes": {kind: len(stream) for kind, stream in text.items()},
        "recipe": vars(recipe),
        "val_loss": {kind: round(loss, 4) for kind, loss in loss_by_kind(shipped, final).items()},
        "imbalance": {kind: round(imbalance(shipped, batch), 3) for kind, batch in final.items()},
    }
    (arguments.out / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    log.info("%s", json.dumps(result, indent=2))


if __name__ == "__main__":
    end_as_command(main)
