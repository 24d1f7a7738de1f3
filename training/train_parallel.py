"""Train under expert parallelism and show that the loss follows the single-process run.

`python -m training.train_parallel --ranks 4 --steps 20`: the same fresh model, text and recipe twice: in one process,
and with the experts spread over ranks that each see their share of every batch. Gradients flow through dispatch and
combine. Prints both losses step by step.

Shapes: B sequences of a batch, T tokens of each, R ranks.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import transformers
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LRScheduler

from training.corpus import sample_batch, standard_library, streams
from training.train_tiny import (
    Recipe,
    build_model,
    build_optimizer,
    build_schedule,
    optimizer_step,
    tiny_config,
    training_losses,
)
from wingspan.cli.main import end_as_command
from wingspan.models.balancing import balancing_loss, expert_load
from wingspan.runtime.launch.start import run_ranks
from wingspan.runtime.model.engine import Engine, default_placement, describe, load, parameters_of_experts
from wingspan.runtime.transport.transport import Transport

Batches = list[Tensor]


def batches(text: dict[str, Tensor], recipe: Recipe) -> Batches:
    """Every step's batch (B, T), the same for both runs."""
    generator = torch.Generator().manual_seed(recipe.seed)
    return [sample_batch(text, recipe.sequences, recipe.length, generator) for _ in range(recipe.steps)]


def train_alone(start: Path, steps: Batches, recipe: Recipe) -> list[float]:
    """Loss of every step in one process, in nats per byte."""
    model = transformers.AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32).train()
    optimizer = build_optimizer(model, recipe)
    schedule = build_schedule(optimizer, recipe)
    losses = []
    for batch_BT in steps:
        byte_loss, balance = training_losses(model, batch_BT)
        (byte_loss + recipe.balancing_weight * balance).backward()
        optimizer_step(model, optimizer, schedule, recipe.clip_norm)
        losses.append(byte_loss.item())
    return losses


def train_on_ranks(
    start: Path, steps: Batches, recipe: Recipe, ranks: int, on_step: Callable[[int, float], None]
) -> list[float]:
    """The same with experts over `ranks` ranks; each takes `sequences / ranks` sequences of every batch."""
    model = describe(start, torch.float32)
    placement = default_placement(model.shape, ranks, -(-model.shape.num_experts // ranks))

    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "losses.json"

        def work(transport: Transport) -> None:
            engine = load(model, placement, transport, torch.device("cpu"), training=True)
            losses = list(_steps_of_a_rank(engine, steps, recipe, on_step))
            if transport.world.rank == 0:
                result.write_text(json.dumps(losses))

        run_ranks(work, ranks, ranks, torch.device("cpu"))
        return list(json.loads(result.read_text()))


def _steps_of_a_rank(
    engine: Engine, steps: Batches, recipe: Recipe, on_step: Callable[[int, float], None]
) -> Iterator[float]:
    model, transport = engine.model.train(), engine.transport
    optimizer = build_optimizer(model, recipe)
    schedule = build_schedule(optimizer, recipe)
    for number, batch_BT in enumerate(steps):
        own_BT = batch_BT.chunk(transport.world.size)[transport.world.rank]
        output = model(input_ids=own_BT, output_router_logits=True, use_cache=False)
        byte_loss = model.loss_function(output.logits, own_BT, model.config.vocab_size)
        load_LE = transport.share(expert_load(output.router_logits, engine.shape.top_k)).sum(0)
        balance = balancing_loss(output.router_logits, load_LE)
        (byte_loss + recipe.balancing_weight * balance).backward()
        average_gradients(engine)
        _step(engine, optimizer, schedule, recipe.clip_norm)
        loss = float(transport.share(byte_loss.detach()).mean())
        if transport.world.rank == 0:
            on_step(number, loss)
        yield loss


def average_gradients(engine: Engine) -> None:
    """Make every gradient that of the mean loss over ranks.

    An expert's gradient arrives whole, summed over all ranks' tokens, through the exchanges; it is only divided. The
    other parameters are replicas that each saw their rank's tokens only; they are summed over ranks first.
    """
    ranks = engine.transport.world.size
    inside = {id(p) for p in parameters_of_experts(engine)}
    shared = [p for p in engine.model.parameters() if p.grad is not None and id(p) not in inside]
    flat = torch.cat([_gradient(p).flatten() for p in shared])
    summed = engine.transport.share(flat).sum(0)
    for parameter, total in zip(shared, summed.split([p.numel() for p in shared]), strict=True):
        _gradient(parameter).copy_(total.view_as(parameter) / ranks)
    for parameter in parameters_of_experts(engine):
        if parameter.grad is not None:
            parameter.grad /= ranks


def _step(engine: Engine, optimizer: AdamW, schedule: LRScheduler, clip_norm: float) -> None:
    """Clip by the norm of the whole model's gradient, of which each rank holds a part, and step."""
    experts = parameters_of_experts(engine)
    inside = {id(p) for p in experts}
    here = _square(experts)
    norm = float(
        (
            engine.transport.share(here).sum()
            + _square([p for p in engine.model.parameters() if id(p) not in inside])
        ).sqrt()
    )
    for parameter in engine.model.parameters():
        if parameter.grad is not None:
            parameter.grad *= min(1.0, clip_norm / (norm + 1e-6))
    optimizer.step()
    schedule.step()
    optimizer.zero_grad()


def _square(parameters: list[nn.Parameter]) -> Tensor:
    return sum((p.grad.square().sum() for p in parameters if p.grad is not None), torch.zeros(()))


def _gradient(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        raise RuntimeError("a parameter without a gradient")
    return parameter.grad


def main() -> None:
    """Run both and print their losses side by side."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, default=4, help="ranks over which the experts are spread")
    parser.add_argument("--steps", type=int, default=20, help="optimizer steps")
    parser.add_argument("--sequences", type=int, default=8, help="windows of text per step, over all ranks")
    parser.add_argument("--length", type=int, default=128, help="bytes per window")
    arguments = parser.parse_args()
    if arguments.sequences % arguments.ranks:
        parser.error(
            f"--sequences {arguments.sequences} does not divide over --ranks {arguments.ranks}; use a multiple"
        )
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    recipe = Recipe(steps=arguments.steps, sequences=arguments.sequences, length=arguments.length)
    steps = batches(streams(standard_library(held_out=True)), recipe)
    with tempfile.TemporaryDirectory() as folder:
        start = Path(folder) / "start"
        build_model(tiny_config(), recipe.seed).save_pretrained(start)
        alone = train_alone(start, steps, recipe)
        print(f"step   alone   {arguments.ranks} ranks")

        def show(number: int, loss: float) -> None:
            print(f"{number + 1:>4}  {alone[number]:.4f}  {loss:.4f}", flush=True)

        parallel = train_on_ranks(start, steps, recipe, arguments.ranks, show)
    worst = max(abs(a - b) for a, b in zip(alone, parallel, strict=True))
    print(f"largest difference: {worst:.1e} nats per byte")


if __name__ == "__main__":
    end_as_command(main)
