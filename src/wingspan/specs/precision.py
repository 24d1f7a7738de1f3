"""The number formats of weights, activations and messages, and what one value of each takes."""

from __future__ import annotations

from enum import StrEnum

_BYTES = {
    "fp32": 4.0,
    "bf16": 2.0,
    "fp16": 2.0,
    "fp8": 1.0,
    "int8": 1.0,
    "mxfp4": 0.5,
    "nvfp4": 0.5,
    "int4": 0.5,
    "int4-g32": 0.5,
}
# Scales that lie beside the weights, bytes per weight. MXFP4: one byte per 32 values (OCP Microscaling
# Formats v1.0, section 5.2). FP8: one FP32 per 128 x 128 block (DeepSeek-V3, arXiv:2412.19437, section 3.3.2).
# NVFP4: one byte per 16 values (NVIDIA, "Introducing NVFP4", 2025). INT4: 16 bits per group of 128 values, the usual
# of AWQ (arXiv:2306.00978, section 5.1) and GPTQ (arXiv:2210.17323), or of 32 (Kimi-K2-Thinking, config.json).
_WEIGHT_SCALE_BYTES = {
    "fp8": 4 / 128**2,
    "mxfp4": 1 / 32,
    "nvfp4": 1 / 16,
    "int4": 2 / 128,
    "int4-g32": 2 / 32,
}
# Scales that travel with a row. FP8: one FP32 per 128 values (same paper, section 3.3.2; DeepEP sends the same).
_ROW_SCALE_BYTES = {"fp8": 4 / 128, "mxfp4": 1 / 32, "nvfp4": 1 / 16}


class Precision(StrEnum):
    """A number format: its name in files, and what a value takes.

    Attributes:
        bytes: of one value, without block scales.
        weight_bytes: of one weight in memory, its share of the block's scale included.
        row_bytes: of one value of a hidden state in a message, its share of the block's scale included.
    """

    bytes: float
    weight_bytes: float
    row_bytes: float

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"
    FP8 = "fp8"
    INT8 = "int8"
    MXFP4 = "mxfp4"
    NVFP4 = "nvfp4"
    INT4 = "int4"
    INT4_G32 = "int4-g32"

    def __init__(self, name: str) -> None:
        self.bytes = _BYTES[name]
        self.weight_bytes = self.bytes + _WEIGHT_SCALE_BYTES.get(name, 0.0)
        self.row_bytes = self.bytes + _ROW_SCALE_BYTES.get(name, 0.0)

    @classmethod
    def _missing_(cls, value: object) -> Precision | None:
        """`fp4` is MXFP4 where weights are meant, and the arithmetic of both formats where a GPU's rate is."""
        return cls.MXFP4 if value == "fp4" else None

    @property
    def of_weights_alone(self) -> bool:
        """Whether no kernel computes, sends or caches in it: weights are widened as they are read."""
        return self in (Precision.INT4, Precision.INT4_G32)

    @property
    def arithmetic(self) -> Precision:
        """The format whose arithmetic it uses: NVFP4 and MXFP4 are FP4 with other scales."""
        return Precision.MXFP4 if self is Precision.NVFP4 else self


def wider(one: Precision, other: Precision) -> Precision:
    """The precision in which a product of the two is computed: that with more bytes."""
    return one if one.bytes >= other.bytes else other
