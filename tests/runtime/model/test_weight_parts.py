"""What the runtime counts as attention, experts and so on is what the planner counts, for every family it knows."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
import transformers

import wingspan.models  # noqa: F401 - transformers knows the reference architecture from here on
from tests.specs.test_families import CASES, SMALL
from wingspan.runtime.model.experts_table import experts_modules
from wingspan.runtime.model.weight_parts import weight_parts
from wingspan.specs.families import model_from_config
from wingspan.specs.memory import MemoryPart


@pytest.mark.parametrize(("kind", "fields"), CASES, ids=[f"{k}-{n}" for n, (k, _) in enumerate(CASES)])
def test_parts_are_those_that_are_planned_with(kind: str, fields: dict[str, object]) -> None:
    values = {**SMALL, **fields, "model_type": kind}
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**values))
    parts = weight_parts(model, [path for path, _ in experts_modules(model)])
    counted: Counter[MemoryPart] = Counter()
    for name, parameter in model.named_parameters():
        counted[parts[name]] += parameter.numel()
    planned = model_from_config(values, kind).parameters
    assert counted == {
        part: count
        for part, count in {
            MemoryPart.ATTENTION: planned.attention,
            MemoryPart.DENSE: planned.dense,
            MemoryPart.SHARED_EXPERTS: planned.shared_experts,
            MemoryPart.ROUTERS_AND_NORMS: planned.router + planned.norms,
            MemoryPart.EMBEDDING_AND_HEAD: planned.embedding + planned.head,
            MemoryPart.EXPERTS: planned.routed_experts,
        }.items()
        if count
    }
