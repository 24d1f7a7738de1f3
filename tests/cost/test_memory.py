import numpy as np
import pytest

from tests.simulate.builders import model
from wingspan.cost.memory import Holding, buffer_bytes, kv_cache_bytes, memory_bytes, weight_bytes
from wingspan.specs.execution import DispatcherKind
from wingspan.specs.memory import MemoryPart
from wingspan.specs.model import ModelSpec
from wingspan.specs.models import load_model
from wingspan.specs.part_precision import WEIGHTS, Precisions
from wingspan.specs.precision import Precision
from wingspan.specs.workload import Context, Workload


def _precisions(of: ModelSpec, **asked: Precision) -> Precisions:
    work = Workload(tokens_per_gpu=1, context=Context(mean_tokens=1))
    return work.with_precision(**asked).precisions(of)


def _holding(**changes: object) -> Holding:
    values: dict[str, object] = {
        "experts_R": 58.0,
        "slots_per_layer": 1,
        "ranks": 64,
        "attention_ranks": 1,
        "tokens": 1.0,
        "sequences": 1.0,
        "context": 1.0,
        "rows_R": 8.0,
        "dispatcher": DispatcherKind.FLAT,
        "parts": 1,
    }
    return Holding(**{**values, **changes})  # type: ignore[arg-type]


def test_seed_weights_are_those_of_the_design() -> None:
    seed = load_model("seed")
    sizes = weight_bytes(seed, _precisions(seed), _holding())
    named = sum(float(sizes[part]) for part in ("attention", "experts", "dense"))
    assert named / 64e9 == pytest.approx(0.9515, abs=1e-4)
    assert float(sizes["attention"]) == 57_310_969_856


def test_weights_add_up_to_the_model() -> None:
    for name in ("deepseek-v3", "mixtral-8x7b", "gpt-oss-120b"):
        of = load_model(name)
        every = _holding(experts_R=float(of.experts.count * len(of.moe_layers)))
        in_bf16 = _precisions(of, **dict.fromkeys(WEIGHTS, Precision.BF16))
        total = sum(float(size) for size in weight_bytes(of, in_bf16, every).values())
        assert total == pytest.approx(2 * of.parameters.total)


@pytest.mark.parametrize(
    ("name", "published_bytes", "mtp_layers"),
    [
        # "Checkpoint size" in arXiv:2508.10925, table 1: experts in MXFP4 with scales, the rest in BF16.
        ("gpt-oss-120b", 60.8 * 2**30, 0),
        ("gpt-oss-20b", 12.8 * 2**30, 0),
        # Weight files of the publishers' repositories: moonshotai/Kimi-K2-Instruct at fd1984e2b7a3, FP8 in blocks;
        ("kimi-k2", 1_029_190_981_272, 0),
        # moonshotai/Kimi-K3 at 9f62e4e9fffb, experts in MXFP4, the part that sees among them;
        ("kimi-k3", 1_560_936_091_448, 0),
        # deepseek-ai/DeepSeek-V3 at afb92e1fa402, FP8 in blocks; its MTP layer has copies of embedding and head.
        ("deepseek-v3", 688_586_727_753, 1),
    ],
)
def test_quantised_checkpoints_are_as_large_as_published(
    name: str, published_bytes: float, mtp_layers: int
) -> None:
    of = load_model(name)
    experts = of.experts.count
    every = _holding(
        experts_R=float(experts * len(of.moe_layers)), slots_per_layer=experts, mtp_layers=mtp_layers
    )
    total = sum(float(size) for size in weight_bytes(of, _precisions(of), every).values())
    assert total == pytest.approx(published_bytes, rel=0.01)


def test_cache_of_seed_is_four_megabytes_a_token() -> None:
    seed = load_model("seed")
    assert kv_cache_bytes(seed, _precisions(seed), _holding(context=1)) == 2 * 16384 * 2 * 61


def test_windowed_layers_keep_their_window() -> None:
    of = load_model("gpt-oss-120b")
    each = of.mixers[0][0].values_per_token * 2
    got = kv_cache_bytes(of, _precisions(of), _holding(context=1000))
    assert got == each * (18 * 1000 + 18 * 128)


def test_heads_divide_over_a_group_and_a_latent_row_does_not() -> None:
    heads, latent = load_model("qwen3-235b-a22b"), load_model("deepseek-v3")
    alone, shared = _holding(context=100), _holding(context=100, attention_ranks=4)
    assert kv_cache_bytes(heads, _precisions(heads), shared) == kv_cache_bytes(
        heads, _precisions(heads), alone
    )
    assert kv_cache_bytes(latent, _precisions(latent), shared) == 4 * kv_cache_bytes(
        latent, _precisions(latent), alone
    )


def test_low_latency_buffers_have_room_for_everybody() -> None:
    of = model()
    got = buffer_bytes(of, _precisions(of), _holding(slots_per_layer=2, ranks=32, tokens=10, sequences=10))
    row = of.hidden * 2
    assert float(got) == 2 * (2 * 32 * 10 + 10 * 4) * row


def test_chunks_shrink_buffers() -> None:
    of = model()
    whole = _holding(dispatcher=DispatcherKind.HIERARCHICAL, tokens=1000.0, rows_R=np.array([4000.0, 9000.0]))
    parts = _holding(
        dispatcher=DispatcherKind.HIERARCHICAL, tokens=1000.0, rows_R=np.array([4000.0, 9000.0]), parts=4
    )
    one, four = (buffer_bytes(of, _precisions(of), holding) for holding in (whole, parts))
    assert one[1] > one[0]
    assert (four < one).all()


def test_every_part_is_there_once() -> None:
    of = model()
    sizes = memory_bytes(of, _precisions(of), _holding(), reserve_bytes=5.0)
    assert [*sizes][-4:] == ["kv cache", "activations", "buffers", "other"]
    assert float(sizes[MemoryPart.OTHER]) == 5.0
    assert all(float(np.min(size)) >= 0 for size in sizes.values())
