"""Attention cores by hand on ideal kernels, and what must hold on any."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wingspan.cost.attention import (
    decode_attention_seconds,
    prefill_attention_seconds,
    prefill_layer_seconds,
)
from wingspan.specs.cluster import load_cluster
from wingspan.specs.mixers import HeadAttention, LatentAttention
from wingspan.specs.precision import Precision

SEED, H100 = load_cluster("seed-ideal"), load_cluster("h100-sxm")
BF16 = Precision.BF16
HEADS = HeadAttention(heads=128, kv_heads=128, head_dim=128)
LATENT = LatentAttention(heads=128, query_rank=1536, kv_rank=512, nope_dim=128, rope_dim=64, value_dim=128)
(MHA,), (MLA,) = HEADS.cores(1, absorbed=True), LATENT.cores(1, absorbed=True)


def test_what_is_kept_per_token():
    assert MHA.cached_values == 2 * 128 * 128
    (few,) = HeadAttention(heads=128, kv_heads=8, head_dim=128).cores(1, absorbed=True)
    assert few.cached_values == 2 * 8 * 128
    assert MLA.cached_values == 576
    assert LATENT.cores(1, absorbed=False)[0].query_width == 192


def test_decode_of_the_seeds_attention_reads_its_cache():
    # 16 sequences of 1000 tokens, 65,536 B of keys and values each, and as much of each one's query and result
    seconds = decode_attention_seconds(SEED, MHA, 16, 1000, BF16, BF16)
    assert seconds == pytest.approx(16 * 1001 * 65536 / 1.44e12)


def test_latent_attention_of_all_heads_is_bound_by_arithmetic():
    pairs = 64 * 4096
    seconds = decode_attention_seconds(SEED, MLA, 64, 4096, BF16, BF16)
    assert seconds == pytest.approx(pairs * 2 * 128 * (576 + 512) / 240e12)


def test_prefill_counts_each_pair_once():
    # 3 new tokens after 2: 3 + 4 + 5 pairs
    seconds = prefill_attention_seconds(SEED, MHA, 3, 2, BF16)
    assert seconds == pytest.approx(12 * 2 * 128 * 256 / 240e12)


def test_a_batch_of_prompts_costs_its_sequences():
    one, four = (prefill_attention_seconds(H100, MHA, 512, 0, BF16, n) for n in (1, 4))
    assert one < four < 4 * one


def test_a_layer_is_never_faster_than_its_host():
    assert prefill_layer_seconds(H100, 1e-6) == H100.kernels.attention.host_seconds
    assert prefill_layer_seconds(H100, 1.0) == pytest.approx(1.0 + H100.kernels.attention.layer_seconds)
    assert prefill_layer_seconds(H100, 0.0) == 0
    assert prefill_layer_seconds(SEED, 0.25) == 0.25


def test_nothing_to_do_takes_no_time():
    assert decode_attention_seconds(H100, MHA, 0, 1000, BF16, BF16) == 0
    assert prefill_attention_seconds(H100, MHA, 0, 1000, BF16) == 0


@given(st.integers(1, 512), st.integers(1, 10**5), st.integers(0, 512), st.integers(0, 10**5))
def test_more_context_or_sequences_never_take_less_time(batch: int, context: int, more: int, longer: int):
    before = decode_attention_seconds(H100, MHA, batch, context, BF16, BF16)
    assert decode_attention_seconds(H100, MHA, batch + more, context + longer, BF16, BF16) >= before
    before = prefill_attention_seconds(H100, MHA, context, 0, BF16)
    assert prefill_attention_seconds(H100, MHA, context + more, longer, BF16) >= before


def test_shapes_broadcast():
    assert decode_attention_seconds(H100, MLA, np.ones((3, 1)), np.ones(4), BF16, BF16).shape == (3, 4)
