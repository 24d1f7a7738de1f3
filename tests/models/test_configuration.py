import pytest

from wingspan.errors import InputError
from wingspan.models import WingspanMoeConfig, load_preset, seed, seed_small


def test_seed_has_the_seeds_dimensions():
    config = seed()
    assert (config.hidden_size, config.num_attention_heads, config.head_dim) == (7168, 128, 128)
    assert (config.intermediate_size, config.moe_intermediate_size) == (2048, 2048)
    assert (config.num_hidden_layers, config.num_experts, config.num_experts_per_tok) == (61, 64, 8)
    assert [config.is_dense(layer) for layer in range(61)] == [True] * 3 + [False] * 58
    assert not config.gated_experts
    assert config.num_key_value_heads == 128


def test_seed_small_keeps_the_layers_and_shrinks_the_rest():
    config = seed_small()
    assert (config.num_hidden_layers, config.first_k_dense_replace) == (61, 3)
    assert (config.hidden_size, config.num_attention_heads, config.head_dim) == (64, 4, 16)
    assert (config.num_experts, config.num_experts_per_tok) == (16, 2)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"num_experts": 4, "num_experts_per_tok": 5}, "num_experts_per_tok 5"),
        ({"num_hidden_layers": 2, "first_k_dense_replace": 3}, "first_k_dense_replace 3"),
        ({"num_attention_heads": 8, "num_key_value_heads": 3}, "num_attention_heads 8"),
    ],
)
def test_dimensions_that_cannot_be_are_refused(options, named):
    with pytest.raises(InputError, match=named):
        WingspanMoeConfig(**options)


def test_unknown_preset_names_the_known_ones():
    with pytest.raises(InputError, match="seed, seed-gated, seed-small"):
        load_preset("seeds")


def test_key_value_heads_follow_the_query_heads_unless_given():
    assert WingspanMoeConfig(num_attention_heads=6).num_key_value_heads == 6
    assert WingspanMoeConfig(num_attention_heads=6, num_key_value_heads=2).num_key_value_heads == 2
