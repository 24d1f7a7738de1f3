"""Exports are what each engine's own reading rule makes of them, and import reads them back.

The engines' rules are written here anew, from their sources (named at each), independently of `wingspan.interop`.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from wingspan.errors import InputError, RunError
from wingspan.interop.export import ENGINES, completed, export
from wingspan.interop.importing import import_all_said, import_from
from wingspan.interop.physical import ImportOptions, fill_empty
from wingspan.placement.simple import linear, random
from wingspan.specs.placement import EMPTY, Placement
from wingspan.specs.stored_placement import StoredPlacement


@st.composite
def placements(draw) -> Placement:
    """Any valid placement without empty slots: experts somewhere, the rest replicas, none twice on a rank."""
    experts = draw(st.integers(1, 9))
    slots = draw(st.integers(1, min(3, experts)))
    ranks = draw(st.integers(-(-experts // slots), -(-experts // slots) + 4))
    return fill_empty(random(draw(st.integers(1, 3)), experts, ranks, slots, seed=draw(st.integers(0, 99))))


def experts_by_slot(placement: Placement) -> list[list[list[int]]]:
    return placement.slots_LRS.tolist()


def sglang_loads(path, ep_size: int, redundant: int, hidden_layers: int, logical: int):
    """compute_initial_expert_location_metadata, init_by_mapping(**data), _compute_gpu_id_of_physical_expert."""
    data = json.loads(path.read_text())

    def init_by_mapping(*, physical_to_logical_map):
        return physical_to_logical_map

    rows = init_by_mapping(**data)
    physical = logical + redundant
    assert physical % ep_size == 0
    assert len(rows) == hidden_layers
    per_gpu = physical // ep_size
    held = [[[None] * per_gpu for _ in range(ep_size)] for _ in rows]
    for layer, row in enumerate(rows):
        assert len(row) == physical
        all_physical = [[] for _ in range(logical)]
        for number, expert in enumerate(row):
            all_physical[expert].append(number)
            held[layer][number // per_gpu][number % per_gpu] = expert
        assert all(all_physical), "an expert without a physical one cannot be dispatched"
    return held


def vllm_loads(path, ep_size: int, redundant: int, moe_layers: int, logical: int):
    """Pull request 49572 (.json) or 41141 (.jsonl): EplbState.physical_to_logical_map, contiguous per rank."""
    if path.suffix == ".jsonl":
        record = json.loads(path.read_text().splitlines()[0])
        assert record["record_type"] == "eplb_initial_mapping"
        assert record["version"] == 1
        assert record["num_redundant_experts"] == redundant
        assert record["num_slots"] == logical + redundant
        rows = [record["initial_global_assignments"][str(n)] for n in range(moe_layers)]
    else:
        rows = json.loads(path.read_text())
    assert np.array(rows).shape == (moe_layers, logical + redundant)
    assert all(set(row) == set(range(logical)) for row in rows)
    return np.array(rows).reshape(moe_layers, ep_size, -1).tolist()


def vllm_ascend_loads(path):
    """ExpertLoadBalancer._expert_file_to_tensor."""
    data = json.loads(path.read_text())
    tensor = np.array(
        [[device["device_expert"] for device in layer["device_list"]] for layer in data["layer_list"]]
    )
    assert tensor.shape[:2] == (data["moe_layer_count"], data["layer_list"][0]["device_count"])
    return tensor.tolist()


def tensorrt_llm_loads(path, ep_size: int, moe_layers, logical: int):
    """MoeLoadBalancerConfig: setup, slot_start, slot_end, get_layer_initial_global_assignments."""
    config = yaml.safe_load(path.read_text())
    assert set(config) == {"num_slots", "initial_global_assignments", "layer_updates_per_iter"}
    assert config["num_slots"] >= logical
    assert config["num_slots"] % ep_size == 0
    local = config["num_slots"] // ep_size
    held = []
    for layer in moe_layers:
        row = config["initial_global_assignments"][layer]
        assert len(row) == config["num_slots"]
        assert set(row) == set(range(logical))
        held.append([row[rank * local : (rank + 1) * local] for rank in range(ep_size)])
    return held


@settings(max_examples=30, deadline=None)
@given(placement=placements(), first=st.integers(0, 3), after=st.integers(0, 2))
def test_each_engine_loads_the_placement(tmp_path_factory, placement, first, after):
    folder = tmp_path_factory.mktemp("export")
    layers, ranks, experts = placement.num_layers, placement.num_ranks, placement.num_experts
    moe_layers = tuple(range(first, first + layers))
    hidden = first + layers + after
    redundant = ranks * placement.slots_per_rank - experts
    stored = StoredPlacement(placement, moe_layers, hidden, ranks)
    wanted = experts_by_slot(placement)

    export(stored, "sglang", folder / "s.json")
    loaded = sglang_loads(folder / "s.json", ranks, redundant, hidden, experts)
    assert [loaded[n] for n in moe_layers] == wanted
    for name in ("v.json", "v.jsonl"):
        export(stored, "vllm", folder / name)
        assert vllm_loads(folder / name, ranks, redundant, layers, experts) == wanted
    export(stored, "vllm-ascend", folder / "a.json")
    assert vllm_ascend_loads(folder / "a.json") == wanted
    export(stored, "tensorrt-llm", folder / "t.yaml")
    assert tensorrt_llm_loads(folder / "t.yaml", ranks, moe_layers, experts) == wanted

    options = ImportOptions(ranks, experts, moe_layers, hidden, ranks)
    for engine, name in (("sglang", "s.json"), ("vllm", "v.json"), ("vllm", "v.jsonl"), ("vllm", "a.json"),
                         ("tensorrt-llm", "t.yaml")):  # fmt: skip
        assert import_from(engine, folder / name, options) == stored


@settings(max_examples=40, deadline=None)
@given(experts=st.integers(1, 9), slots=st.integers(1, 3), spare=st.integers(0, 5), layers=st.integers(1, 3))
def test_filling_keeps_what_is_there(experts, slots, spare, layers):
    slots = min(slots, experts)
    before = linear(layers, experts, -(-experts // slots) + spare, slots)
    after = fill_empty(before)
    held = before.slots_LRS != EMPTY
    assert (after.slots_LRS != EMPTY).all()
    assert (after.slots_LRS[held] == before.slots_LRS[held]).all()
    assert (np.ptp(after.replicas_LE, axis=1) <= 1 + slots).all()


def test_filling_shares_the_replicas_out():
    assert fill_empty(linear(1, 4, 8)).replicas_LE.tolist() == [[2, 2, 2, 2]]
    with pytest.raises(InputError, match="use fewer slots"):
        fill_empty(linear(1, 2, 2, 3))


DEEPSEEK = StoredPlacement(linear(2, 4, 4), (3, 4), 5, 2)


@pytest.mark.parametrize("engine", ENGINES)
def test_empty_slots_are_refused(engine, tmp_path):
    with pytest.raises(InputError, match="fill them with replicas"):
        export(replace(DEEPSEEK, placement=linear(2, 4, 5)), engine, tmp_path / "x.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("engine", "name", "stored", "message"),
    [
        ("sglang", "x.yaml", DEEPSEEK, "use .json"),
        ("sglang", "x.json", replace(DEEPSEEK, moe_layers=None), "moe_layers is not known"),
        ("sglang", "x.json", replace(DEEPSEEK, hidden_layers=None), "hidden_layers is not known"),
        ("vllm", "x.json", replace(DEEPSEEK, ranks_per_node=None), "ranks_per_node is not known"),
        ("vllm", "x.txt", DEEPSEEK, "use .json"),
        ("triton", "x.json", DEEPSEEK, "use one of sglang, vllm"),
        ("vllm", "no/x.json", DEEPSEEK, "cannot be written"),
    ],
)
def test_what_cannot_be_exported_is_named(engine, name, stored, message, tmp_path):
    with pytest.raises(InputError, match=message):
        export(stored, engine, tmp_path / name)


def test_an_export_that_reads_back_wrong_is_caught(tmp_path, monkeypatch):
    other = StoredPlacement(linear(2, 4, 2, 2))
    monkeypatch.setitem(ENGINES, "vllm", replace(ENGINES["vllm"], read=lambda *_: other))
    with pytest.raises(RunError, match="reads back as another placement"):
        export(DEEPSEEK, "vllm", tmp_path / "x.json")


def test_what_an_engine_needs_comes_from_the_file_or_is_asked_for():
    bare = StoredPlacement(DEEPSEEK.placement)
    said = {"moe_layers": (3, 4), "hidden_layers": 5, "ranks_per_node": 2}
    assert completed(bare, "sglang", said) == DEEPSEEK == completed(DEEPSEEK, "sglang", {})
    with pytest.raises(InputError, match="add `hidden_layers`"):
        completed(bare, "sglang", {"moe_layers": (3, 4)})
    with pytest.raises(InputError, match=r"`moe_layers` 0-1: the file says 3-4"):
        completed(DEEPSEEK, "sglang", {"moe_layers": (0, 1)})
    with pytest.raises(InputError, match="`hidden_layers`: vllm does not need"):
        completed(bare, "vllm", {"hidden_layers": 5})


@pytest.mark.parametrize(
    ("said", "unused"), [({"num_logical_experts": 2}, "model_class"), ({}, None)], ids=["alone", "of a model"]
)
def test_a_value_that_an_engines_file_has_no_use_for_is_refused(tmp_path, said, unused):
    """Also where the file says some of what was asked for itself."""
    path, options = tmp_path / "x.json", ImportOptions(2, model_class="Target")
    data = {"physical_to_logical_map": [[0, 1]], **said}
    path.write_text(json.dumps(data if unused else {"model_maps": {"Target": data}}))
    if unused:
        with pytest.raises(InputError, match=f"`{unused}`: what .* no use for it"):
            import_all_said("vllm", path, options)
    else:
        assert import_all_said("vllm", path, options) == import_from("vllm", path, options)


OPTIONS = ImportOptions(2)
FIRST, BOTH = ImportOptions(2, moe_layers=(0,)), ImportOptions(2, moe_layers=(0, 1))


@pytest.mark.parametrize(
    ("engine", "name", "text", "options", "message"),
    [
        ("sglang", "x.json", "{", OPTIONS, "not JSON"),
        ("sglang", "x.json", "{}", OPTIONS, "no physical_to_logical_map"),
        ("sglang", "x.json", '{"physical_to_logical_map": [[0, 1]]}', ImportOptions(moe_layers=(0,)),
         "over how many ranks"),
        ("sglang", "x.json", '{"physical_to_logical_map": [[0, 1, 2]]}', FIRST, "do not divide"),
        ("sglang", "x.json", '{"physical_to_logical_map": [[0, 1], [0]]}', BOTH, "different numbers"),
        ("sglang", "x.json", '{"physical_to_logical_map": [[0, 0.5]]}', FIRST, "list of expert numbers"),
        ("sglang", "x.json", '{"physical_to_logical_map": [[0, -1]]}', FIRST, "expert number -1"),
        ("sglang", "x.json", '{"physical_to_logical_map": [[0, 2]]}', FIRST, "expert 1 of MoE layer 0 has no"),
        ("sglang", "x.json", '{"physical_to_logical_map": [[0, 1]]}', ImportOptions(2, moe_layers=(1,)), "1 rows"),
        ("sglang", "x.json", '{"physical_to_logical_map": [[0, 1], [1, 0]]}', OPTIONS,
         "does not say which are MoE layers"),
        ("sglang", "x.json", '{"physical_to_logical_map": [[0, 1]]}', replace(FIRST, hidden_layers=2), "not 2"),
        ("vllm", "x.json", "[0, 1]", OPTIONS, "one list for all layers"),
        ("vllm", "x.json", '{"a": 1}', OPTIONS, "nor vLLM Ascend"),
        ("vllm", "x.jsonl", '{"record_type": "other"}', OPTIONS, "no eplb_initial_mapping"),
        ("vllm", "x.jsonl", "[1]", OPTIONS, "line 1 is not a JSON object"),
        ("vllm", "x.jsonl", '{"record_type": "eplb_initial_mapping", "version": 2}', OPTIONS, "version 2"),
        ("tensorrt-llm", "x.yaml", "a: [", OPTIONS, "not YAML"),
        ("tensorrt-llm", "x.yaml", "num_slots: 2", OPTIONS, "no initial_global_assignments"),
        ("tensorrt-llm", "x.yaml", "num_slots: 3\ninitial_global_assignments: {3: [0, 1]}", OPTIONS, "has 2 slots"),
        ("tensorrt-llm", "x.yaml", "num_slots: 2\ninitial_global_assignments: {3: [0, 1]}",
         ImportOptions(2, moe_layers=(4,)), "layer 4 is asked for"),
        ("other", "x.json", "[]", OPTIONS, "use one of sglang"),
    ],
)  # fmt: skip
def test_a_bad_file_is_named(engine, name, text, options, message, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        import_from(engine, tmp_path / name, options)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        import_from("vllm", tmp_path / "x.json", OPTIONS)
