"""The number formats of weights, activations and messages, and what one value of each takes."""

from enum import StrEnum

_BYTES = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "fp4": 0.5}


class Precision(StrEnum):
    """A number format: its name in files, and `bytes` per value."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"
    FP8 = "fp8"
    FP4 = "fp4"

    @property
    def bytes(self) -> float:
        """Bytes of one value, without block scales."""
        return _BYTES[self.value]
