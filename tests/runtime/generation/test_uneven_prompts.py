"""A prompt's tokens depend on nothing but the prompt: prompts of different lengths that share a rank, each against
transformers' own `generate` on that prompt alone; over caches of every kind.

Of the models here the windows are 6 columns, the indices 5 keys, the blocks 2 to 4 tokens: shorter than a prompt.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from benchmarks.architectures import tiny_configuration
from benchmarks.fuzz_judge import Verdict, judge

from tests.runtime.model.test_architectures import a_case
from tests.runtime.versions import same_version
from wingspan.runtime.generation.batches import columns_of
from wingspan.runtime.model.architecture import SAME_MODULES, build_on_meta
from wingspan.runtime.model.padding import padding_is_neutral
from wingspan.runtime.setup.model_types import type_table

UNEVEN = ((5, 9, 17, 3), (1, 2), (7,), tuple(range(30, 43)))
MORE = (*UNEVEN, (8, 9, 10), (3, 1))
CPU = torch.device("cpu")

BATCHED_TOGETHER = ["mixtral", "gpt_oss", "deepseek_v3", "qwen3_next", "nemotron_h", "jamba", "zaya"]
ONE_LENGTH = ["deepseek_v4", "deepseek_v32", "glm_moe_dsa", "minimax", "minimax_m3_vl_text"]


@pytest.mark.parametrize("name", [*BATCHED_TOGETHER, *ONE_LENGTH])
def test_uneven_prompts_that_share_a_rank(name: str, tmp_path: Path) -> None:
    assert judge(a_case(name, ranks=1, slots=6, prompts=UNEVEN, new_tokens=6), tmp_path) == Verdict("equal")


@pytest.mark.parametrize("name", ["deepseek_v4", "minimax", "qwen3_next"])
def test_ranks_with_different_numbers_of_lengths_meet(name: str, tmp_path: Path) -> None:
    """Three ranks with two lengths, one and none; a sequence that ends early goes on as padding."""
    case = a_case(
        name, ranks=3, ranks_per_node=3, slots=2, prompts=((5, 9, 17), (1, 2), (7,), (4, 4, 4, 4, 4)), ends=20
    )
    assert judge(case, tmp_path) == Verdict("equal")
    few = a_case(name, ranks=3, ranks_per_node=3, slots=2, prompts=((5, 9, 17), (1, 2)))
    assert judge(few, tmp_path) == Verdict("equal")


@pytest.mark.parametrize("name", ["deepseek_v4", "minimax", "qwen3_next", "lfm2_moe"])
@pytest.mark.parametrize("flows", [("two-batch", "sequential"), ("sequential", "two-batch")])
def test_states_of_every_kind_follow_a_change_of_the_schedule(
    name: str, flows: tuple[str, str], tmp_path: Path
):
    """Recurrent, compressed and convolution states are cut and joined as keys and values are."""
    assert judge(a_case(name, prompts=MORE, flows=flows), tmp_path) == Verdict("equal")


@same_version
def test_the_property_tells_caches_that_count_columns() -> None:
    """Without a list of names: of all architectures that run, these keep such a cache or count in another way."""
    assert _one_length() == {
        "axk2", "deepseek_v32", "deepseek_v4", "doge", "dots3_note", "dots3_note_text", "glm5_next", "glm_moe_dsa",
        "hy_v4", "llama4", "llama4_text", "minimax", "minimax_m3_vl", "minimax_m3_vl_text", "mistral_large4",
        "qwen4_exp", "qwen4_exp_text", "unlimited_ocr",
    }  # fmt: skip


def _one_length() -> set[str]:
    found = set()
    for name, said in type_table().types.items():
        if not said.runs or name in SAME_MODULES:
            continue
        model = build_on_meta(tiny_configuration(name), torch.float32)
        if not padding_is_neutral(model):
            found.add(name)
    return found


def test_columns_of_padded_rows() -> None:
    """Positions, mask and validity of prompts that begin together, and of the steps after them."""
    now = columns_of([[1, 2, 3], [4]], CPU)
    assert now.ids_PN.tolist() == [[1, 2, 3], [0, 0, 4]]
    assert now.positions_PN.tolist() == [[0, 1, 2], [0, 0, 0]]
    assert now.mask_PC is not None
    assert now.mask_PC.tolist() == [[1, 1, 1], [0, 0, 1]]
    assert now.tokens is not None
    assert now.tokens.at_M.tolist() == [0, 1, 2, 5]
    later = columns_of([[8], [9]], CPU, [602, 600])
    assert later.ids_PN.tolist() == [[8], [9]]
    assert later.positions_PN.tolist() == [[602], [600]]
    assert later.mask_PC is not None
    assert later.mask_PC.shape == (2, 603)
    assert (1 - later.mask_PC).nonzero().tolist() == [[1, 0], [1, 1]]
    assert later.tokens is None


def test_columns_of_some_rows_and_of_none() -> None:
    whole = columns_of([[1, 2, 3], [4]], CPU)
    second = whole.rows(slice(1, 2))
    assert (second.ids_PN.tolist(), second.positions_PN.tolist()) == ([[0, 0, 4]], [[0, 0, 0]])
    assert second.tokens is not None
    assert second.tokens.at_M.tolist() == [2]
    for nothing in (whole.rows(slice(2, 2)), columns_of([], CPU)):
        assert nothing.ids_PN.shape == (1, 1)
        assert nothing.tokens is not None
        assert nothing.tokens.at_M.tolist() == []


def test_columns_of_a_prompt_that_is_computed_in_pieces() -> None:
    now = columns_of([[7, 8]], CPU, [5])
    assert now.positions_PN.tolist() == [[5, 6]]
    assert (now.mask_PC, now.tokens) == (None, None)
