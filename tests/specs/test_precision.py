import pytest

from wingspan.specs.precision import Precision


@pytest.mark.parametrize(
    ("name", "size"), [("fp32", 4), ("bf16", 2), ("fp16", 2), ("fp8", 1), ("mxfp4", 0.5)]
)
def test_bytes_per_value(name: str, size: float) -> None:
    assert Precision(name).bytes == size


def test_unknown_format_is_refused() -> None:
    with pytest.raises(ValueError, match="int3"):
        Precision("int3")
