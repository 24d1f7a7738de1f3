"""Decode steps of plain transformers under `torch.profiler`, one trace of each batch and round.

`python -m benchmarks.profiled_decode models/tiny FOLDER --sequences 1 --sequences 8 --rounds 3`; the traces are
`FOLDER/SEQUENCES-ROUND.json.gz`. Batches are interleaved, so that a machine that slows down slows all of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch.profiler import ProfilerActivity, profile, schedule
from transformers import AutoModelForCausalLM, PreTrainedModel

import wingspan.models  # noqa: F401  registers the architecture of models/tiny

PROMPT_TOKENS, WARM_STEPS, STEPS = 64, 6, 12
MEAN_CONTEXT = PROMPT_TOKENS + WARM_STEPS + STEPS // 2


@torch.inference_mode()
def trace_decode(model: PreTrainedModel, sequences: int, path: Path) -> None:
    """Prompts of random tokens, a few steps that warm up, and the traced ones."""
    drawn = torch.Generator().manual_seed(sequences)
    ids = torch.randint(32, 126, (sequences, PROMPT_TOKENS), generator=drawn)
    out = model(input_ids=ids, use_cache=True)
    # Without a schedule a trace has no marks of its steps.
    steps = schedule(wait=0, warmup=WARM_STEPS, active=STEPS, repeat=1)
    with profile(activities=[ProfilerActivity.CPU], schedule=steps, record_shapes=True) as profiler:
        for _ in range(WARM_STEPS + STEPS):
            out = _next(model, out)
            profiler.step()
    profiler.export_chrome_trace(str(path))


def _next(model: PreTrainedModel, out: Any) -> Any:
    newest = out.logits[:, -1].argmax(-1, keepdim=True)
    return model(input_ids=newest, past_key_values=out.past_key_values, use_cache=True)


def main(
    source: Annotated[Path, typer.Argument(help="Folder of a checkpoint.")],
    folder: Annotated[Path, typer.Argument(help="Where the traces go.")],
    sequences: Annotated[list[int], typer.Option(help="Of a batch; may be repeated.")],
    rounds: Annotated[int, typer.Option(min=1, help="Traces of each batch.")] = 3,
) -> None:
    """Write the traces."""
    model = AutoModelForCausalLM.from_pretrained(source).eval()
    for number in range(rounds):
        turn = number % len(sequences)
        for count in sequences[turn:] + sequences[:turn]:
            trace_decode(model, count, folder / f"{count}-{number}.json.gz")


if __name__ == "__main__":
    typer.run(main)
