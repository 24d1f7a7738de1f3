import json
from pathlib import Path

import pytest

from wingspan.errors import InputError
from wingspan.specs.models import load_model, model_presets
from wingspan.specs.precision import Precision


@pytest.mark.parametrize(
    ("name", "total"),
    [
        # Published: 671B (arXiv:2412.19437); the checkpoint adds 14,848 values that steer the router's balance.
        ("deepseek-v3", 671_026_404_352),
        ("mixtral-8x7b", 46_702_792_704),  # 46.7B (mistral.ai/news/mixtral-of-experts)
        ("qwen3-235b-a22b", 235_093_634_560),  # 235B (model card)
        ("gpt-oss-120b", 116_829_156_672),  # 116.83B (arXiv:2508.10925, table 1)
    ],
)
def test_published_totals(name: str, total: int) -> None:
    assert load_model(name).parameters.total == total


def test_active_parameters_of_deepseek_v3() -> None:
    parameters = load_model("deepseek-v3").parameters
    # 37B (arXiv:2412.19437) leave out the embedding, of which a token reads one row.
    assert (parameters.active - parameters.embedding) / 1e9 == pytest.approx(37, abs=0.5)


def test_seed_expert_bytes() -> None:
    for name, size in (("seed", 58_720_256), ("seed-gated", 88_080_384)):
        assert load_model(name).parameters.expert * Precision.BF16.bytes == size


def test_seed_attention_and_cache() -> None:
    seed = load_model("seed")
    assert seed.parameters.attention * 2 / 61 == 939_524_096
    assert seed.kv_values_per_token * 2 == 2 * 16384 * 2 * 61


def test_latent_cache_is_one_row_per_token() -> None:
    assert load_model("deepseek-v3").kv_values_per_token == 61 * (512 + 64)


def test_the_shipped_checkpoint_is_read_by_its_folder() -> None:
    model = load_model(str(Path(__file__).parents[2] / "models" / "tiny"))
    assert model.name == "tiny"
    assert model.experts.count == 8


def test_published_precision_of_parts() -> None:
    oss = load_model("gpt-oss-120b")
    said = oss.precision
    assert (said.attention.weights, said.experts.weights) == (Precision.BF16, Precision.MXFP4)
    windows = [kind.mixers[0].window_tokens for kind in map(oss.kind_of, range(oss.layers))]
    assert windows == [128, None] * 18


def test_what_is_not_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere.*presets: .*deepseek-v3"):
        load_model("nowhere")
    broken = tmp_path / "config.json"
    broken.write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        load_model(str(tmp_path))
    broken.write_text(json.dumps([1]))
    with pytest.raises(InputError, match="object"):
        load_model(str(broken))


def test_presets_load() -> None:
    assert len(model_presets()) >= 30
    for name in model_presets():
        assert load_model(name).name == name


@pytest.mark.parametrize("name", model_presets())
@pytest.mark.parametrize("absorbed", [False, True])
def test_products_of_a_rank_alone_hold_the_weights_of_its_projections(name: str, absorbed: bool) -> None:
    model = load_model(name)
    for mixer, _ in model.mixers:
        whole = sum(inputs * outputs for inputs, outputs in mixer.projections(model.hidden))
        products = mixer.products(model.hidden, 1, absorbed=absorbed)
        absorbing = mixer.absorbing(1) if absorbed else ()
        assert sum(inputs * outputs for inputs, outputs in (*products, *absorbing)) == whole


def test_what_tensor_parallel_ranks_multiply_of_latent_attention() -> None:
    """Down to compressed rows whole, in one product; heads' outputs and the last one's inputs an eighth."""
    model = load_model("deepseek-v3")
    mixer, _ = model.mixers[0]
    assert mixer.products(7168, 8, absorbed=False) == (
        (7168, 1536 + 512 + 64),
        (1536, 16 * 192),
        (512, 16 * 256),
        (16 * 128, 7168),
    )
    assert mixer.products(7168, 8, absorbed=True) == ((7168, 2112), (1536, 3072), (2048, 7168))
    assert mixer.absorbing(8) == ((128, 16 * 512), (512, 16 * 128))
