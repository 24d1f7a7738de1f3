"""Rows as FP8 with one scale per 128 values, packed into bytes that any transport carries.

The numbers are torch's float8_e4m3fn, the scales float32, as in DeepSeek-V3's dispatch (arXiv 2412.19437, section
3.3: activations in tiles of 1 x 128). A row of D values becomes D + 4 ceil(D / 128) bytes.

Shapes: N rows, D values per row, B blocks of 128 per row, W bytes per packed row.
"""

from __future__ import annotations

import torch

BLOCK = 128
"""Values that share a scale."""

LARGEST = torch.finfo(torch.float8_e4m3fn).max
"""448: each block's largest magnitude becomes this."""

RELATIVE_ERROR = 2.0**-4
"""Largest error of a value, relative to it: half a step of 3 mantissa bits."""

ABSOLUTE_ERROR = 2.0**-10 / LARGEST
"""Largest error of a value, in units of its block's largest magnitude, where it is too small for full precision: half
the smallest step, 2**-9."""


def encode(x_ND: torch.Tensor) -> torch.Tensor:
    """Floating-point rows as bytes (N, W). Every value comes back within `RELATIVE_ERROR` of itself or
    `ABSOLUTE_ERROR` of its block's largest, whichever is more."""
    N, D = x_ND.shape
    blocks_NBV = torch.nn.functional.pad(x_ND.float(), (0, -D % BLOCK)).view(N, -(-D // BLOCK), BLOCK)
    # At least the smallest normal number: a block of zeros divides by something too.
    scale_NB = (blocks_NBV.abs().amax(-1) / LARGEST).clamp_min(torch.finfo(torch.float32).tiny)
    values = (blocks_NBV / scale_NB[..., None]).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn)
    values_ND = values.view(torch.uint8).flatten(1)[:, :D]
    scale_bytes = scale_NB.reshape(-1).view(torch.uint8).view(N, 4 * scale_NB.shape[1])
    return torch.cat((values_ND, scale_bytes), dim=1)


def decode(packed_NW: torch.Tensor, width: int, dtype: torch.dtype) -> torch.Tensor:
    """The rows (N, width) that `encode` packed, in `dtype`."""
    values_ND = packed_NW[:, :width].contiguous().view(torch.float8_e4m3fn).float()
    # A copy in any case: where the scales begin, between bytes, no float32 may lie.
    scale_NB = packed_NW[:, width:].flatten().clone().view(torch.float32).view(-1, -(-width // BLOCK))
    blocks_NBV = torch.nn.functional.pad(values_ND, (0, -width % BLOCK)).view(*scale_NB.shape, BLOCK)
    return (blocks_NBV * scale_NB[..., None]).flatten(1)[:, :width].to(dtype)


def packed_bytes(width: int) -> int:
    """Bytes of one packed row of `width` values."""
    return width + 4 * -(-width // BLOCK)
