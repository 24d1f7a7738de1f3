"""Quantised weights, number by number: each format written and read by the letter of its description."""

from __future__ import annotations

import torch

from wingspan.runtime.model import formats

E2M1 = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0]


def _drawn(*shape: int, below: int = 16) -> torch.Tensor:
    return torch.randint(0, below, shape, generator=torch.Generator().manual_seed(3))


def nibbles(values_ON: torch.Tensor) -> torch.Tensor:
    """Two values a byte, the first in the lower half."""
    return (values_ON[:, 0::2] | values_ON[:, 1::2] << 4).to(torch.uint8)


def words(values_ON: torch.Tensor, bits: int) -> torch.Tensor:
    """Values of each row in integers of 32 bits, the first lowest."""
    each = 32 // bits
    rows = values_ON.tolist()
    packed = [
        [sum(row[at + i] << bits * i for i in range(each)) for at in range(0, len(row), each)] for row in rows
    ]
    return torch.tensor(packed, dtype=torch.int64).to(torch.int32)


def test_a_scale_per_block():
    weight = torch.randn(5, 7).to(torch.float8_e4m3fn)
    blocks = torch.tensor([[1.0, 2.0], [4.0, 8.0]])
    got = formats.block_scaled(weight, blocks, (3, 4)).float()
    for row in range(5):
        for column in range(7):
            factor = float(blocks[row // 3, column // 4])
            assert got[row, column] == (weight.float() * factor).bfloat16()[row, column].float()


def test_mxfp4_has_an_exponent_per_32_values():
    codes, exponents = _drawn(3, 64), _drawn(3, 2) + 120
    blocks = nibbles(codes).reshape(3, 2, 16)
    got = formats.from_mxfp4(blocks, exponents.to(torch.uint8))
    assert got.shape == (64, 3)
    for row in range(3):
        for column in range(64):
            assert got[column, row] == E2M1[codes[row, column]] * 2.0 ** (
                int(exponents[row, column // 32]) - 127
            )


def test_nvfp4_has_two_scales():
    codes, scale = _drawn(3, 32), (_drawn(3, 2) / 4 + 1).to(torch.float8_e4m3fn)
    got = formats.from_nvfp4(nibbles(codes), scale, torch.tensor(0.25))
    for row in range(3):
        for column in range(32):
            assert got[row, column] == E2M1[codes[row, column]] * float(scale[row, column // 16]) * 0.25


def test_packed_integers_with_and_without_zeros():
    values, scale, zeros = _drawn(8, 16), torch.rand(8, 2), _drawn(8, 2)
    packed = words(values, 4)
    plain = formats.from_packed(packed, scale, None, 4, 16)
    shifted = formats.from_packed(packed, scale, words(zeros.T, 4).T.contiguous(), 4, 16)
    for row in range(8):
        for column in range(16):
            group, value = column // 8, int(values[row, column])
            each = scale[row, group]
            assert plain[row, column] == ((value - 8) * each).bfloat16()
            assert shifted[row, column] == ((value - int(zeros[row, group])) * each).bfloat16()


def test_gptq_counts_zeros_from_one_and_may_order_its_groups():
    values_IO, scales, zeros = _drawn(16, 8), torch.rand(2, 8), _drawn(2, 8, below=15)
    group_I = torch.tensor([0, 1] * 8)
    packed = words(values_IO.T, 4).T.contiguous()
    got = formats.from_gptq(packed, words(zeros, 4), scales, group_I, bits=4, zero_offset=1)
    for row in range(8):
        for column in range(16):
            group = int(group_I[column])
            off = int(values_IO[column, row]) - int(zeros[group, row]) - 1
            assert got[row, column] == (off * scales[group, row]).bfloat16()


def test_awq_packs_even_places_first():
    values_IO, scales, zeros = _drawn(4, 8), torch.rand(2, 8), _drawn(2, 8)
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    got = formats.from_awq(words(values_IO[:, order], 4), words(zeros[:, order], 4), scales, bits=4)
    for row in range(8):
        for column in range(4):
            off = int(values_IO[column, row]) - int(zeros[column // 2, row])
            assert got[row, column] == (off * scales[column // 2, row]).bfloat16()
