"""The number formats of quantised weights: how each becomes plain values again.

Every function takes a matrix's parts as they lie on disk and gives BF16, what a plain twin of the checkpoint would
hold. Shapes: O outputs, I inputs of a matrix, `...` experts before them.
"""

from __future__ import annotations

import torch

Tensor = torch.Tensor
_PLAIN = torch.bfloat16

_FP4 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0])
"""Values of E2M1 (OCP Microscaling Formats v1.0, section 5.3.3), by their four bits."""
_MX_SCALE_BIAS = 127
"""The bias of E8M0, the exponent that is an MX block's scale (the same, section 5.4.1)."""


def block_scaled(weight: Tensor, scale: Tensor, block: tuple[int, int]) -> Tensor:
    """A matrix times one scale per block of a known size, whatever the size of the matrix.

    Args:
        weight: (..., O, I), in FP8 or INT8.
        scale: (..., blocks of O, blocks of I); whole numbers are exponents, as MXFP8 has them.
        block: outputs and inputs of one.
    """
    scale = _powers(scale) if scale.dtype == torch.uint8 else scale.float()
    for axis, size in zip((-2, -1), block, strict=True):
        scale = scale.repeat_interleave(size, axis).narrow(axis, 0, weight.shape[axis])
    return (weight.float() * scale).to(_PLAIN)


def from_mxfp4(blocks: Tensor, scales: Tensor) -> Tensor:
    """Values of FP4 with one exponent per 32: (..., I, O), as gpt-oss multiplies.

    Args:
        blocks: (..., O, I / 32, 16), two values a byte, the lower four bits first.
        scales: (..., O, I / 32).
    """
    values = torch.ldexp(_fp4(blocks), (scales.int() - _MX_SCALE_BIAS)[..., None])
    return values.flatten(-2).transpose(-1, -2).to(_PLAIN).contiguous()


def from_nvfp4(packed: Tensor, scale: Tensor, whole: Tensor) -> Tensor:
    """Values of FP4 with one FP8 scale per 16 and one for all, (..., O, I).

    Args:
        packed: (..., O, I / 2), two values a byte, the lower four bits first.
        scale: (..., O, I / 16).
        whole: multiplies all.
    """
    values = _fp4(packed)
    groups = scale.float() * whole.float().reshape(*whole.shape, *[1] * (scale.ndim - whole.ndim))
    each = values.shape[-1] // groups.shape[-1]
    return (values * groups.repeat_interleave(each, -1)).to(_PLAIN)


def from_packed(packed: Tensor, scale: Tensor, zero: Tensor | None, bits: int, inputs: int) -> Tensor:
    """Integers packed along the inputs in 32 bits each, as compressed-tensors writes them: (O, I).

    Args:
        packed: (O, I x bits / 32).
        scale: (O, groups), or (O, 1).
        zero: (O x bits / 32, groups), packed along the outputs; None: symmetric.
        bits: of a value, which is stored from 0 up.
        inputs: I.
    """
    offset = 1 << (bits - 1)
    values = _unpacked(packed, bits, -1)[:, :inputs] - offset
    if zero is not None:
        zeros = _unpacked(zero, bits, 0)[: scale.shape[0]] - offset
        values = values - _over(zeros, inputs)
    return (values.float() * _over(scale.float(), inputs)).to(_PLAIN)


def from_gptq(
    weight: Tensor, zeros: Tensor, scales: Tensor, group_I: Tensor | None, *, bits: int, zero_offset: int
) -> Tensor:
    """GPTQ's integers: (O, I).

    Args:
        weight: (I x bits / 32, O), packed along the inputs.
        zeros: (groups, O x bits / 32).
        scales: (groups, O).
        group_I: the group of each input; None: in turn.
        bits: of a value.
        zero_offset: by how much stored zeros are too small: 1 in the usual form.
    """
    values = _unpacked(weight, bits, 0)
    zero = _unpacked(zeros, bits, 1) + zero_offset
    groups, inputs = scales.shape[0], values.shape[0]
    of_I = torch.arange(inputs) // -(-inputs // groups) if group_I is None else group_I.long()
    return ((values - zero[of_I]).float() * scales.float()[of_I]).T.to(_PLAIN).contiguous()


def from_awq(weight: Tensor, zeros: Tensor, scales: Tensor, *, bits: int) -> Tensor:
    """AWQ's integers: (O, I).

    Args:
        weight: (I, O x bits / 32), packed along the outputs in AWQ's order.
        zeros: (groups, O x bits / 32), in the same order.
        scales: (groups, O).
        bits: of a value; 4.
    """
    values, zero = (_in_order(_unpacked(packed, bits, 1)) for packed in (weight, zeros))
    each = values.shape[0] // scales.shape[0]
    off = values - zero.repeat_interleave(each, 0)
    return (off.float() * scales.float().repeat_interleave(each, 0)).T.to(_PLAIN).contiguous()


def _powers(exponents: Tensor) -> Tensor:
    """The powers of two that E8M0 says."""
    return torch.ldexp(torch.ones(exponents.shape), exponents.int() - _MX_SCALE_BIAS)


def _fp4(packed: Tensor) -> Tensor:
    """The values of two halves of each byte: the last axis twice as long."""
    both = torch.stack((packed & 0xF, packed >> 4), -1).flatten(-2)
    return _FP4[both.long()]


def _unpacked(packed: Tensor, bits: int, axis: int) -> Tensor:
    """Unsigned values of `bits` each from integers of 32: `axis` is as many times longer."""
    shifts = torch.arange(0, 32, bits, dtype=torch.int32)
    moved = packed.movedim(axis, -1)
    values = (moved[..., None] >> shifts) & ((1 << bits) - 1)
    return values.flatten(-2).movedim(-1, axis)


def _in_order(values: Tensor) -> Tensor:
    """Eight values of an integer as they were before AWQ put even places first."""
    places = torch.argsort(torch.tensor([0, 2, 4, 6, 1, 3, 5, 7]))
    return values.reshape(values.shape[0], -1, 8)[..., places].flatten(1)


def _over(groups: Tensor, inputs: int) -> Tensor:
    """One value per group, for each input."""
    return groups.repeat_interleave(-(-inputs // groups.shape[-1]), -1)[..., :inputs]
