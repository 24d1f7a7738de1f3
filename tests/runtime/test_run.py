"""A run over ranks equals plain transformers, for every architecture, number of ranks and slots."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.runtime.checkpoints import configurations, write
from tests.runtime.forked import on_ranks
from wingspan.errors import InputError
from wingspan.routing.load import imbalance
from wingspan.runtime.generation.prompts import Prompt, Tokenizer
from wingspan.runtime.generation.sampling import Sampling
from wingspan.runtime.model.engine import default_placement, describe
from wingspan.runtime.model.step import flow_named
from wingspan.runtime.run import Listener, RunRequest, RunResult, checked, run
from wingspan.runtime.start import EngineSetup
from wingspan.schedule.result import Operation
from wingspan.specs.families import model_from_config
from wingspan.specs.memory import WEIGHTS, MemoryPart

CPU = torch.device("cpu")
SILENT = Listener(on_loaded=lambda seconds: None, on_tokens=lambda tokens: None)
PROMPTS = ([5, 9, 17, 3], [1, 2], [7], [100, 101, 102, 103, 104])


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    return {name: write(config, folder / name) for name, config in configurations().items()}


def request(folder: Path, ranks: int, slots: int, prompts: Any = PROMPTS, **options: Any) -> RunRequest:
    model = describe(folder)
    engine = {key: options.pop(key) for key in ("dispatch", "flows", "rebalance") if key in options}
    return RunRequest(
        EngineSetup(model, default_placement(model.shape, ranks, slots), CPU, **engine),
        prompts=[Prompt(n, list(ids), None, n % ranks) for n, ids in enumerate(prompts)],
        max_new_tokens=options.pop("max_new_tokens", 4),
        sampling=options.pop("sampling", Sampling()),
        keep_logits=True,
        **options,
    )


def execute(folder: Path, ranks: int, slots: int, scratch: Path, **options: Any) -> RunResult:
    job = request(folder, ranks, slots, **options)
    results = on_ranks(lambda t: run(t, job, Tokenizer(folder), SILENT), ranks, scratch)
    assert results[1:] == [None] * (ranks - 1)
    return checked(results[0], job)


@pytest.mark.parametrize("name", list(configurations()))
@pytest.mark.parametrize(("ranks", "slots"), [(1, 6), (2, 3), (3, 2), (4, 2), (6, 1)])
def test_equals_plain_transformers(checkpoints, name, ranks, slots, tmp_path):
    """Four prompts: with 6 ranks two have none; with 3 they are uneven."""
    result = execute(checkpoints[name], ranks, slots, tmp_path)
    assert result.check is not None
    assert result.check.tokens_equal
    assert result.check.tokens_compared == 16
    assert result.check.max_logit_difference <= 1e-5 * max(1.0, result.check.largest_logit)


def test_kimi_k2_has_the_modules_of_deepseek_v3(checkpoints, tmp_path):
    """Its published configuration names code of its own, which is never run."""
    folder = tmp_path / "kimi"
    shutil.copytree(checkpoints["deepseek_v3"], folder)
    said = json.loads((folder / "config.json").read_text())
    own = {"model_type": "kimi_k2", "auto_map": {"AutoConfig": "configuration_deepseek.DeepseekV3Config"}}
    (folder / "config.json").write_text(json.dumps(said | own))
    result = execute(folder, 2, 3, tmp_path)
    assert result.check is not None
    assert result.check.passed
    same = execute(checkpoints["deepseek_v3"], 2, 3, tmp_path)
    assert [o.token_ids for o in result.outputs] == [o.token_ids for o in same.outputs]


def test_spare_ranks_serve_sequences(checkpoints, tmp_path):
    result = execute(checkpoints["qwen3_moe"], 8, 1, tmp_path, prompts=[[n + 1, n + 2] for n in range(8)])
    assert result.check is not None
    assert result.check.passed
    assert result.report.memory_bytes[MemoryPart.EXPERTS][6:] == [0, 0]


def test_tokens_are_conserved_in_the_report(checkpoints, tmp_path):
    """Every prompt token and every later one chose top-k experts in every MoE layer, padding none."""
    result = execute(checkpoints["olmoe"], 3, 2, tmp_path, max_new_tokens=3)
    prompt_tokens = sum(len(p) for p in PROMPTS)
    assert [sum(layer) for layer in result.prefill.load_tokens] == [prompt_tokens * 2] * 2
    assert result.decode is not None
    assert (result.decode.steps, result.decode.tokens) == (2, len(PROMPTS))
    assert [sum(layer) for layer in result.decode.load_tokens] == pytest.approx([len(PROMPTS) * 2] * 2)
    report = result.prefill
    assert sum(report.sent_within_node_bytes) == sum(report.received_within_node_bytes) > 0
    assert sum(report.sent_across_nodes_bytes) == 0


def test_sampling_does_not_depend_on_the_number_of_ranks(checkpoints, tmp_path):
    sampling = Sampling(temperature=1.0, top_p=0.95, seed=7)
    runs = []
    for ranks, slots in ((1, 6), (3, 2)):
        scratch = tmp_path / str(ranks)
        scratch.mkdir()
        result = execute(checkpoints["mixtral"], ranks, slots, scratch, sampling=sampling)
        runs.append([o.token_ids for o in result.outputs])
    assert runs[0] == runs[1]


def test_sharded_bfloat16_checkpoint(tmp_path):
    folder = write(configurations()["mixtral"], tmp_path / "sharded", max_shard_size="40KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    result = execute(folder, 3, 2, scratch)
    assert result.check is not None
    assert result.check.passed


def test_a_missing_shard_is_named(tmp_path):
    folder = write(configurations()["mixtral"], tmp_path / "sharded", max_shard_size="40KB")
    gone = sorted(folder.glob("*.safetensors"))[1]
    gone.unlink()
    with pytest.raises(InputError, match=gone.name):
        execute(folder, 2, 3, tmp_path)


def test_a_truncated_file_is_named(tmp_path):
    folder = write(configurations()["olmoe"], tmp_path / "cut")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"model\.safetensors: damaged or truncated"):
        execute(folder, 2, 3, tmp_path)


def test_weights_of_another_model_are_refused(tmp_path):
    folder = write(configurations()["olmoe"], tmp_path / "mixed")
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"intermediate_size": 48', '"intermediate_size": 52'))
    with pytest.raises(InputError, match="different models"):
        execute(folder, 2, 3, tmp_path)


def test_too_few_ranks_names_both_ways_out(checkpoints):
    with pytest.raises(InputError, match=r"`ranks` 6 or `experts_per_rank` 3"):
        request(checkpoints["olmoe"], 2, 1)


@pytest.mark.parametrize("schedule", ["sequential", "chunks:2", "two-batch"])
def test_every_figure_of_a_measured_step_adds_up(checkpoints, schedule, tmp_path):
    """Times to the step on every rank, parts of memory to the peak, loads to the tokens; weights as planned."""
    flows = dict.fromkeys(("prefill", "decode"), flow_named(schedule))
    folder = checkpoints["deepseek_v3"]
    model = describe(folder)
    result = execute(folder, 3, 2, tmp_path, flows=flows)
    for report in (result.prefill, result.report):
        spent = report.spent_seconds
        assert np.sum([*spent.values()], axis=0) == pytest.approx(report.step_seconds, rel=1e-3)
        assert min(min(seconds) for seconds in spent.values()) >= -1e-9
        exposed = [spent[op] for op in (Operation.DISPATCH, Operation.COMBINE, Operation.WAIT)]
        assert np.sum(exposed, axis=0) == pytest.approx(report.exposed_communication_seconds)
        assert np.sum([*report.memory_bytes.values()], axis=0).tolist() == report.peak_memory_bytes
        loads = [sum(layer) for layer in report.load_tokens]
        assert loads == pytest.approx([report.tokens * model.shape.top_k] * len(model.shape.paths))
        assert report.imbalance == pytest.approx(imbalance(report.load_tokens))
    # 2 steps of one token, after a prefill of all prompts: its larger buffers are not decode's.
    prefill, decode = (np.array(r.memory_bytes[MemoryPart.BUFFERS]) for r in (result.prefill, result.report))
    assert (decode > 0).all()
    assert (decode < prefill).all()
    assert set(WEIGHTS) < set(result.report.memory_bytes)
    config = json.loads((folder / "config.json").read_text())
    planned = model_from_config(config, "config.json").parameters
    size = model.dtype.itemsize
    for part, count in (
        (MemoryPart.ATTENTION, planned.attention),
        (MemoryPart.EXPERTS, planned.routed_experts // 3),
        (MemoryPart.EMBEDDING_AND_HEAD, planned.embedding + planned.head),
    ):
        assert result.report.memory_bytes[part] == [count * size] * 3


@pytest.mark.parametrize("name", ["deepseek_v3", "gpt_oss"])
def test_a_description_serves_any_number_of_runs(checkpoints, name, tmp_path):
    job = request(checkpoints[name], 2, 3)
    tokenizer = Tokenizer(checkpoints[name])

    def twice(transport: Any) -> list[RunResult | None]:
        return [run(transport, job, tokenizer, SILENT) for _ in range(2)]

    (first, second), _ = on_ranks(twice, 2, tmp_path)
    assert checked(first, job).check.passed
    assert checked(second, job).check.passed
    assert [o.token_ids for o in first.outputs] == [o.token_ids for o in second.outputs]
    assert next(job.engine.model.structure.parameters()).is_meta
