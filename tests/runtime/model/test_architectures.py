"""Every architecture of transformers' experts registry, tiny, in deployments like those of `benchmarks.fuzz`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.architectures import Sizes, tiny_configuration, write_checkpoint
from benchmarks.fuzz_case import Case, draw
from benchmarks.fuzz_judge import Verdict, judge
from benchmarks.registry import reason

from tests.runtime.versions import same_version
from wingspan.runtime.model.architecture import build_on_meta
from wingspan.runtime.model.engine import check_weights, describe
from wingspan.runtime.model.experts_table import experts_modules
from wingspan.runtime.model.known import architectures
from wingspan.runtime.model.layer import ExpertParallelLayer
from wingspan.runtime.setup.model_types import type_table

RUNS = sorted(kind for kind in architectures() if type_table().types[kind].runs)


@same_version
def test_many_architectures_are_known() -> None:
    assert len(architectures()) >= 80
    assert len(RUNS) >= 75


@same_version
@pytest.mark.parametrize("name", RUNS)
def test_tiny_configurations_have_several_layers_of_experts(name: str) -> None:
    model = build_on_meta(tiny_configuration(name), torch.float32)
    assert len(list(experts_modules(model))) >= 2
    assert sum(p.numel() for p in model.parameters()) < 300_000


@pytest.mark.parametrize(
    ("whole", "text", "kept"),
    [
        (None, "bfloat16", torch.bfloat16),
        ("float32", "bfloat16", torch.bfloat16),
        ("bfloat16", None, torch.bfloat16),
        (None, None, torch.float32),
    ],
)
def test_weights_are_kept_as_the_text_part_says(
    whole: str | None, text: str | None, kept: torch.dtype, tmp_path: Path
) -> None:
    said = json.loads(json.dumps(tiny_configuration("qwen3_5_moe").to_dict(), default=str))
    for part, dtype in ((said, whole), (said["text_config"], text)):
        part.pop("dtype", None)
        part |= {"dtype": dtype} if dtype else {}
    (tmp_path / "config.json").write_text(json.dumps(said))
    assert describe(tmp_path).dtype is kept


def a_case(architecture: str, **changes: Any) -> Case:
    """A plain deployment on two ranks, with changes."""
    plain = Case(
        number=0,
        architecture=architecture,
        sizes=Sizes(),
        weights_seed=1,
        stored="float32",
        sharded=False,
        ranks=2,
        ranks_per_node=2,
        slots=3,
        transport="auto",
        dispatch="auto",
        flows=("sequential", "sequential"),
        dtype="float32",
        rebalance="off",
        prompts=((5, 9, 17, 3), (1, 2, 3, 4)),
        new_tokens=3,
        ends=None,
    )
    return replace(plain, **changes)


@same_version
@pytest.mark.parametrize("name", sorted(set(architectures()) - set(RUNS)))
def test_an_architecture_without_a_text_model_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    verdict = judge(a_case(name), tmp_path)
    assert verdict.outcome == "refused"
    assert reason(name, verdict) == type_table().types[name].why


def test_other_parts_than_text_are_neither_built_nor_read(tmp_path: Path) -> None:
    folder = write_checkpoint(tiny_configuration("qwen3_vl_moe"), tmp_path / "model", seed=1)
    model = describe(folder)
    assert not [name for name, _ in model.structure.named_parameters() if "visual" in name]
    unused = check_weights(model).unused["other parts than the text model"]
    assert unused
    assert all("visual" in name for name in unused)


def test_a_shared_expert_that_needs_more_than_hidden_states_is_not_computed_ahead(tmp_path: Path) -> None:
    case = a_case("inkling_text", flows=("two-batch", "two-batch"))
    assert judge(case, tmp_path) == Verdict("equal")


@pytest.mark.parametrize(
    "name", ["dbrx", pytest.param("doge", marks=same_version), "jetmoe", "llama4_text", "longcat_flash"]
)
def test_experts_outside_the_registry_run_and_move(name: str, tmp_path: Path) -> None:
    prompts = ((5, 9, 17, 3), tuple(range(1, 14)), (7,), (2, 4, 6, 8, 10))
    case = a_case(name, ranks=3, ranks_per_node=3, slots=3, rebalance="every 1", prompts=prompts)
    assert judge(case, tmp_path) == Verdict("equal")


def test_the_judge_sees_a_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ExpertParallelLayer, "__call__", lambda self, hidden, *_: torch.zeros_like(hidden))
    assert judge(a_case("mixtral"), tmp_path).outcome == "DIFFERENT"


@pytest.mark.parametrize("number", range(12))
def test_a_short_draw_equals_plain_transformers(number: int, tmp_path: Path) -> None:
    case = draw(seed=3, number=number)
    assert judge(case, tmp_path).outcome != "DIFFERENT", str(case)
