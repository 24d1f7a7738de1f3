"""Training under expert parallelism follows the single process, step by step."""

import pytest
from training.corpus import Document, streams
from training.train_parallel import batches, train_alone, train_on_ranks
from training.train_tiny import Recipe, build_model, tiny_config

RECIPE = Recipe(steps=4, sequences=8, length=32, warmup_steps=2)


@pytest.mark.parametrize("ranks", [4, 8])
def test_the_loss_follows_the_single_process(ranks, tmp_path):
    """With 4 ranks of 2 experts and with one expert per rank."""
    text = streams(
        [
            Document(kind, "n", f"{kind}: some text to learn from. " * 30)
            for kind in ("code", "prose", "table")
        ]
    )
    steps = batches(text, RECIPE)
    build_model(tiny_config(), RECIPE.seed).save_pretrained(tmp_path)
    alone = train_alone(tmp_path, steps, RECIPE)
    seen = train_on_ranks(tmp_path, steps, RECIPE, ranks, on_step=lambda number, loss: None)
    assert alone[-1] < alone[0] - 0.1
    assert seen == pytest.approx(alone, abs=1e-5)
