"""What `wingspan models` says of a type is what a run gives: a sample of every kind, and the whole table by names.

`python -m benchmarks.registry` tries all of them, and writes the table.
"""

from __future__ import annotations

import pytest
from benchmarks.registry import every_type, reason, text_part, tried

from tests.runtime.versions import same_version
from wingspan.runtime.setup.model_types import TypeTable, type_table, write_type_table

SAMPLE = [
    ("mixtral", "bfloat16"),
    ("gpt_oss", "float32"),
    ("deepseek_v32", "float32"),
    ("qwen3_next", "bfloat16"),
    ("nemotron_h", "float32"),
    ("llama4", "bfloat16"),
    ("longcat_flash", "bfloat16"),
    ("jetmoe", "bfloat16"),
    ("dbrx", "float32"),
    ("step3p7", "float32"),
    ("qwen3_vl_moe", "float32"),
    ("qwen3_omni_moe", "float32"),
    ("ernie4_5_vl_moe", "float32"),
    ("kimi_k25", "float32"),
    ("kimi_k2", "bfloat16"),
    ("diffusion_gemma", "float32"),
    ("openai_privacy_filter", "float32"),
]
"""Fused and interleaved experts, sparse and linear attention, states, experts outside the registry, text parts of
wrappers (of their own modules, of another type's, under a part's name, beside experts of pictures), other names for
known modules, and what is refused."""


@pytest.mark.parametrize(("kind", "dtype"), SAMPLE)
def test_the_table_says_what_a_run_gives(kind: str, dtype: str) -> None:
    said, verdict = type_table().types[kind], tried(kind, dtype)
    if said.runs:
        assert verdict.outcome == "equal", verdict.why
        assert dtype in said.checked
    else:
        assert verdict.outcome == "refused"
        assert reason(kind, verdict) == said.why


@same_version
def test_the_table_has_every_type_of_the_installed_transformers() -> None:
    assert sorted(type_table().types) == every_type()
    assert {kind: text_part(kind) for kind in type_table().types} == {
        kind: said.text for kind, said in type_table().types.items()
    }


def test_what_runs_is_checked_in_both_dtypes() -> None:
    for kind, said in type_table().types.items():
        assert said.checked == (("float32", "bfloat16") if said.runs else ()), kind


def test_a_table_that_is_written_is_read(tmp_path, monkeypatch) -> None:
    file = tmp_path / "table.json"
    write_type_table(type_table(), file)
    monkeypatch.setattr("wingspan.runtime.setup.model_types.TABLE", file)
    read: TypeTable = type_table.__wrapped__()
    assert read == type_table()
