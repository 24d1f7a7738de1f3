import pytest

from wingspan.errors import InputError
from wingspan.specs.cluster import load_cluster
from wingspan.specs.engines import EngineKind, engine_named
from wingspan.specs.reading import choice

H100 = load_cluster("h100-sxm")


@pytest.mark.parametrize("kind", EngineKind)
def test_every_engine_has_constants_with_a_source(kind: EngineKind) -> None:
    engine = engine_named(kind)
    assert engine.name == kind
    assert engine.source
    assert engine.on(H100).gpus == H100.gpus


def test_no_engine_changes_nothing() -> None:
    assert engine_named(EngineKind.NONE).on(H100) == H100


def test_an_engine_makes_every_part_of_an_exchange_as_much_longer() -> None:
    engine = engine_named(EngineKind.VLLM)
    plain, inside = H100.kernels.normal.dispatch, engine.on(H100).kernels.normal.dispatch
    factor = engine.normal_dispatch
    assert inside.launch_seconds == pytest.approx(plain.launch_seconds * factor)
    assert inside.scale_out_share == pytest.approx(plain.scale_out_share / factor)
    assert engine.on(H100).kernels.engine.layer_seconds == engine.layer_seconds


def test_an_unknown_engine_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="use one of none, sglang, vllm, trtllm"):
        choice("tgi", "`engine`", EngineKind)
