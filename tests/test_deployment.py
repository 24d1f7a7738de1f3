import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.simulate.builders import cluster, deployment
from wingspan.deployment import Deployment, differences, load_deployment, save_deployment
from wingspan.errors import InputError
from wingspan.placement.simple import random
from wingspan.placement.spec import PlacementSpec
from wingspan.specs.execution import DispatcherKind
from wingspan.specs.placement import EMPTY


def test_a_file_gives_the_deployment_back(tmp_path: Path) -> None:
    explicit = PlacementSpec.explicit(random(4, 64, 32, 2, seed=1))
    made = deployment().model_copy(update={"placement": explicit})
    path = tmp_path / "plan.json"
    save_deployment(made, path)
    assert load_deployment(path) == made
    assert load_deployment(path).build_placement() == random(4, 64, 32, 2, seed=1)


def test_a_layer_of_slots_is_a_line(tmp_path: Path) -> None:
    made = deployment().model_copy(update={"placement": PlacementSpec.explicit(random(4, 64, 32, 2, seed=1))})
    path = tmp_path / "plan.json"
    save_deployment(made, path)
    lines = path.read_text().splitlines()
    assert max(len(line) for line in lines) < 2000
    assert len(lines) < 500


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", ["not JSON"]),
        ("[1]", ["object"]),
        ("{}", ["schema_version"]),
        ('{"schema_version": 1}', ["schema_version", "1"]),
        ('{"schema_version": 2}', ["missing"]),
    ],
)
def test_what_is_not_a_deployment_is_named(tmp_path: Path, text: str, words: list[str]) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_deployment(path)
    for word in ["bad.json", *words]:
        assert word in str(caught.value)


def test_an_unknown_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    save_deployment(deployment(), path)
    data = json.loads(path.read_text())
    data["workload"]["tokens_per_gpus"] = 3
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match=r"tokens_per_gpus.*tokens_per_gpu"):
        load_deployment(path)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(InputError, match=r"nowhere\.json"):
        load_deployment(Path("nowhere.json"))


@pytest.mark.parametrize(
    ("old", "today"),
    [
        ({"schedule": "chunks", "chunks": 4}, "chunks:4"),
        ({"schedule": "chunks"}, "chunks:2"),
        ({"schedule": "two-batch", "chunks": 2}, "two-batch"),
        ({"schedule": "sequential", "chunks": 7}, "sequential"),
        ({"chunks": 2}, "sequential"),
    ],
)
def test_a_schedule_in_two_keys_is_read(old: dict[str, Any], today: str, tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    save_deployment(deployment(), path)
    data = json.loads(path.read_text())
    data["options"] = {**{k: v for k, v in data["options"].items() if k != "schedule"}, **old}
    path.write_text(json.dumps(data))
    read = load_deployment(path)
    assert read.options.schedule == today
    save_deployment(read, path)
    assert json.loads(path.read_text())["options"]["schedule"] == today
    assert "chunks" not in json.loads(path.read_text())["options"]


@pytest.mark.parametrize(
    ("ranks", "options", "words"),
    [
        (32, {"attention_ranks": 3}, "attention_ranks 3"),
        (32, {"attention_ranks": 16}, "attention_ranks 16"),
        (32, {"schedule": "chunks:0"}, "use sequential, chunks:N"),
        (32, {"schedule": "chunks", "chunks": 0}, "use sequential, chunks:N"),
        (32, {"schedule": "chunks:4", "chunks": 3}, "leave the key chunks out"),
        (1, {"expert_tensor_parallel": 3}, "expert_tensor_parallel 3"),
        (1, {"expert_tensor_parallel": 64}, "64 ranks exceed"),
    ],
)
def test_options_that_do_not_fit_are_refused(ranks: int, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        deployment(ranks=ranks, options=options)


def test_more_ranks_than_gpus_are_refused() -> None:
    with pytest.raises(ValidationError, match="64 ranks exceed"):
        deployment(ranks=64, on=cluster(gpus=32))


def test_experts_that_find_no_slot_are_refused_when_built() -> None:
    made = deployment(placement={"experts_per_rank": 1})
    with pytest.raises(InputError, match="do not fit"):
        made.build_placement()


def test_spare_slots_hold_replicas() -> None:
    routing = {"kind": "recorded", "loads": [[5.0] * 8 + [1.0] * 56]}
    made = deployment(ranks=48, on=cluster(gpus=48), routing=routing, placement={"strategy": "balanced"})
    placement = made.build_placement()
    assert (placement.slots_LRS != EMPTY).all()
    assert placement.replicas_LE.sum() == 4 * 96
    # Each further slot goes to the most load per slot: 8 experts with 5 slots each.
    assert (placement.replicas_LE[:, :8] == 5).all()


def test_slots_of_another_shape_are_refused() -> None:
    made = deployment().model_copy(update={"placement": PlacementSpec.explicit(random(3, 64, 32, 2, seed=1))})
    with pytest.raises(InputError, match=r"\(3, 32, 2\)"):
        made.build_placement()


def test_dispatcher_follows_the_phase() -> None:
    assert deployment(phase="decode").dispatcher is DispatcherKind.FLAT
    assert deployment(phase="prefill").dispatcher is DispatcherKind.HIERARCHICAL
    assert (
        deployment(phase="decode", options={"dispatcher": "hierarchical"}).dispatcher
        is DispatcherKind.HIERARCHICAL
    )


def test_differences_name_the_key() -> None:
    one = deployment(tokens_per_gpu=64)
    two = deployment(tokens_per_gpu=128, routing={"kind": "power_law", "exponent": 0.5})
    found = {key: values for key, *values in differences(one, two)}
    assert found == {
        "workload.tokens_per_gpu": [64, 128],
        "workload.routing.kind": ["uniform", "power_law"],
        "workload.routing.exponent": [None, 0.5],
    }
    assert differences(one, Deployment.model_validate(one.model_dump())) == []


def test_a_folder_with_all_that_a_deployment_names_can_be_moved(tmp_path: Path) -> None:
    from wingspan.routing.statistics import expert_load
    from wingspan.routing.synthetic import TraceShape, generate
    from wingspan.routing.trace import concatenate
    from wingspan.routing.trace_file import write_trace
    from wingspan.routing.workloads import workload
    from wingspan.specs.workload import RecordedRouting

    made = deployment()
    before, after = tmp_path / "before", tmp_path / "after"
    (before / "plans").mkdir(parents=True)
    (before / "weights").mkdir()
    shape = TraceShape(
        200, len(made.model.moe_layers), made.model.experts.count, made.model.experts.per_token, 4, 8
    )
    trace = concatenate([*generate(shape, workload("communities", shape, 0), 0)])
    write_trace(before / "t.parquet", [trace], "a test")
    routing = RecordedRouting(
        trace=str(before / "t.parquet"), loads=tuple(map(tuple, expert_load(trace).tolist()))
    )
    made = made.model_copy(
        update={
            "checkpoint": str(before / "weights"),
            "workload": made.workload.model_copy(update={"routing": routing}),
        }
    )
    save_deployment(made, before / "plans" / "d.json")
    data = json.loads((before / "plans" / "d.json").read_text())
    assert data["checkpoint"] == "../weights"
    assert data["workload"]["routing"]["trace"] == "../t.parquet"
    before.rename(after)
    read = load_deployment(after / "plans" / "d.json")
    assert read.checkpoint == str((after / "weights").resolve())
    assert isinstance(read.workload.routing, RecordedRouting)
    assert read.workload.routing.tokens is not None
    save_deployment(read, tmp_path / "d.json")
    assert json.loads((tmp_path / "d.json").read_text())["checkpoint"] == "after/weights"
    assert load_deployment(tmp_path / "d.json").checkpoint == read.checkpoint


@pytest.mark.parametrize("schedule", ["single-batch", "fused"])
@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"dispatcher": "hierarchical"}, "a hierarchical dispatcher sums a token's rows before they return"),
        ({"expert_tensor_parallel": 2}, "experts cut over 2 ranks are summed before their rows return"),
    ],
)
def test_rows_that_are_summed_first_do_not_return_expert_by_expert(
    schedule: str, options: dict[str, Any], named: str
) -> None:
    with pytest.raises(ValidationError, match=named):
        deployment(16, cluster(gpus=32), phase="decode", options={"schedule": schedule, **options})
