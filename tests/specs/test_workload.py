import pytest
from pydantic import ValidationError

from wingspan.specs.models import load_model
from wingspan.specs.part_precision import PartPrecision
from wingspan.specs.precision import Precision
from wingspan.specs.workload import Workload


def test_precisions_follow_the_model_as_published() -> None:
    work = Workload.model_validate({"tokens_per_gpu": 1, "context": 10})
    got = work.precisions(load_model("deepseek-v3"))
    assert got.parts == dict.fromkeys(got.parts, PartPrecision(weights="fp8", activations="fp8"))
    assert (got.dispatch, got.combine, got.kv, got.core) == ("fp8", "bf16", "bf16", "bf16")
    got = work.precisions(load_model("gpt-oss-120b"))
    assert (got.attention.weights, got.experts.weights, got.experts.activations) == ("bf16", "mxfp4", "bf16")


def test_asked_for_precisions_win() -> None:
    work = Workload.model_validate({"tokens_per_gpu": 1, "context": 10, "weights": "bf16", "dispatch": "fp8"})
    got = work.precisions(load_model("deepseek-v3"))
    assert got.parts == dict.fromkeys(got.parts, PartPrecision(weights="bf16", activations="bf16"))
    assert got.dispatch is Precision.FP8


def test_sequences_of_a_prefill() -> None:
    assert (
        Workload.model_validate(
            {"phase": "prefill", "tokens_per_gpu": 4096, "context": 1024}
        ).sequences_per_gpu
        == 4
    )
    assert (
        Workload.model_validate(
            {"phase": "prefill", "tokens_per_gpu": 512, "context": 1024}
        ).sequences_per_gpu
        == 1
    )
    assert Workload.model_validate({"tokens_per_gpu": 7, "context": 1024}).sequences_per_gpu == 7


@pytest.mark.parametrize(
    "bad",
    [
        {"tokens_per_gpu": 0},
        {"context": 0},
        {"phase": "training"},
        {"routing": {"kind": "zipf"}},
        {"routing": {"kind": "power_law"}},
        {"routing": {"kind": "recorded", "loads": [[1, 2], [1]]}},
        {"tokens": 3},
        {"kv": "int3"},
    ],
)
def test_bad_work_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Workload.model_validate({"tokens_per_gpu": 1, "context": 10, **bad})


@pytest.mark.parametrize("name", ["activations", "dispatch", "combine", "kv"])
def test_a_format_of_weights_alone_is_refused_elsewhere(name: str) -> None:
    with pytest.raises(ValidationError, match=f"{name} int4 is a format of weights alone"):
        Workload.model_validate({"tokens_per_gpu": 1, "context": 1, name: "int4"})
