"""What engines record, from small samples made by hand in each engine's own form."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from wingspan.errors import InputError
from wingspan.interop.importing import import_from
from wingspan.interop.physical import ImportOptions
from wingspan.interop.torch_file import read_torch_file
from wingspan.routing.load_file import read_load
from wingspan.routing.recorded_load import RecordedLoad, write_load
from wingspan.routing.trace import RoutingTrace

NONE = ImportOptions()
# Two hidden layers, the first dense; three logical experts on four physical ones; expert 1 twice.
MAP = torch.tensor([[0, 1, 2, 0], [1, 0, 2, 1]])


def test_sglang_stat(tmp_path):
    count = torch.zeros((4, 3, 5), dtype=torch.int32)
    count[1, 1:] = torch.tensor([[1, 0, 2, 0, 3], [0, 1, 0, 2, 0]])
    count[3, 1:] += 1
    torch.save(
        {"rank": 0, "logical_count": count, "average_utilization_rate_over_window": None}, tmp_path / "d.pt"
    )
    load = import_from("sglang", tmp_path / "d.pt", NONE)
    assert isinstance(load, RecordedLoad)
    assert load.moe_layers == (1, 2)  # the dense layer 0 counted nothing
    assert load.load_WLE.shape == (2, 2, 5)  # steps without a token are left out
    assert load.load_LE.tolist() == [[2, 1, 3, 1, 4], [1, 2, 1, 3, 1]]
    (tmp_path / "d.json").write_text(json.dumps({"logical_count": count.sum(0).tolist()}))
    assert import_from("sglang", tmp_path / "d.json", NONE).load_LE.tolist() == load.load_LE.tolist()


def per_token_dump(path, rank, topk_ids, inputs, lengths, forward_pass=7):
    ids = torch.tensor(topk_ids, dtype=torch.int32)
    record = {
        "forward_pass_id": forward_pass, "rank": rank, "gatherer_key": "primary", "input_ids": inputs,
        "positions": list(range(len(inputs))), "extend_seq_lens": lengths, "forward_mode": 1,
        "topk_ids_of_layer": ids, "misc_objects": [], "global_physical_count": torch.zeros((2, 4), dtype=torch.int32),
    }  # fmt: skip
    torch.save({"records": [record], "last_physical_to_logical_map": MAP}, path)


def test_sglang_per_token(tmp_path):
    """Physical experts become logical ones, columns beyond top-k and padded tokens go, sequences are requests."""
    none = [[-1] * 3] * 3
    layer = [[0, 1, -1], [3, 2, -1], [-1, -1, -1]]
    per_token_dump(tmp_path / "a.pt", 0, [none, layer], [5, 6, 0], [1, 2])
    per_token_dump(tmp_path / "b.pt", 1, [none[:1], [[2, 3, -1]]], [9], None)
    trace = import_from("sglang", tmp_path, ImportOptions(ranks=4))
    assert isinstance(trace, RoutingTrace)
    assert trace.experts_TLK.tolist() == [[[1, 0]], [[1, 2]], [[2, 1]]]
    assert trace.home_rank_T.tolist() == [0, 0, 1]
    assert trace.request_T.tolist() == [0, 1, 2]
    assert set(trace.step_T.tolist()) == {7}
    assert (trace.num_experts, trace.num_ranks) == (3, 4)


def test_sglang_copies_of_the_same_tokens_count_once(tmp_path):
    """Without attention data parallelism all ranks record the same tokens."""
    for rank, name in enumerate(("a.pt", "b.pt")):
        per_token_dump(tmp_path / name, rank, [[[-1, -1]], [[0, 1]]], [5], [1])
    assert import_from("sglang", tmp_path, NONE).num_tokens == 1


def test_sglang_per_pass(tmp_path):
    for rank in range(2):
        records = [
            {"forward_pass_id": number, "rank": rank, "gatherer_key": "primary",
             "global_physical_count": torch.tensor([[0] * 4, [1, 2, 3, 4]], dtype=torch.int32) * (number + rank)}
            for number in (1, 2)
        ]  # fmt: skip
        torch.save({"records": records, "last_physical_to_logical_map": MAP}, tmp_path / f"{rank}.pt")
    load = import_from("sglang", tmp_path, NONE)
    assert load.moe_layers == (1,)
    # Physical 1 2 3 4 on logical 1 0 2 1: expert 0 has 2, 1 has 5, 2 has 3; passes weigh 1 + 2 and 2 + 3.
    assert load.load_WLE.tolist() == [[[6, 15, 9]], [[10, 25, 15]]]


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


def test_a_torch_file_cannot_run_code(tmp_path, capsys):
    torch.save({"records": Evil()}, tmp_path / "x.pt")
    with pytest.raises(InputError, match=r"it wants to build __builtin__\.print"):
        read_torch_file(tmp_path / "x.pt")
    assert capsys.readouterr().out == ""


def test_a_torch_file_cannot_unpack_to_more_than_it_holds(tmp_path):
    torch.save(torch.zeros(1).expand(10**12), tmp_path / "wide.pt")
    with pytest.raises(InputError, match="more numbers than its data"):
        read_torch_file(tmp_path / "wide.pt")
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**7))
    with pytest.raises(InputError, match=r"data.pkl is compressed"):
        read_torch_file(tmp_path / "bomb.pt")


@pytest.mark.parametrize(
    "dtype", [torch.int8, torch.int16, torch.int32, torch.int64, torch.float32, torch.bool]
)
def test_torch_files_hold_their_arrays(tmp_path, dtype):
    whole = torch.arange(24).reshape(2, 3, 4).to(dtype)
    torch.save(
        {"a": [whole[1, :, ::2], whole.permute(2, 1, 0).contiguous()], "b": {"c": whole[:0]}},
        tmp_path / "x.pt",
    )
    data = read_torch_file(tmp_path / "x.pt")
    assert np.array_equal(data["a"][0], whole[1, :, ::2].numpy())
    assert np.array_equal(data["a"][1], whole.numpy().T)
    assert data["b"]["c"].shape == (0, 3, 4)


def test_vllm_load_statistics(tmp_path):
    records = [
        {"record_type": "session_metadata"},
        {"record_type": "eplb_load_stats", "version": 1, "step": 7, "num_ranks": 2,
         "expert_load": [[10, 1, 5, 2], [2, 8, 1, 3]], "p2l_map": [[0, 1, 2, 0], [2, 1, 0, 1]]},
        {"record_type": "eplb_load_stats", "version": 1, "step": 8, "num_ranks": 2,
         "expert_load": [[0] * 4] * 2, "p2l_map": [[0, 1, 2, 0], [2, 1, 0, 1]]},
    ]  # fmt: skip
    (tmp_path / "s.jsonl").write_text("\n".join(map(json.dumps, records)))
    load = import_from("vllm", tmp_path / "s.jsonl", NONE)
    assert load.load_WLE.tolist() == [[[12, 1, 5], [1, 11, 2]]]


def test_vllm_routed_experts(tmp_path):
    """Hidden layers 0 (dense: zeros) and 1, top-2; two requests on two ranks."""
    one = np.array([[[0, 0], [2, 1]], [[0, 0], [0, 3]]], dtype=np.int32)
    two = np.array([[[0, 0], [1, 0]]], dtype=np.int32)
    np.savez(tmp_path / "r.npz", one=one, two=two)
    trace = import_from("vllm", tmp_path / "r.npz", ImportOptions(ranks=2, experts=6))
    assert trace.experts_TLK.tolist() == [[[2, 1]], [[0, 3]], [[1, 0]]]
    assert trace.request_T.tolist() == [0, 0, 1]
    assert trace.home_rank_T.tolist() == [0, 0, 1]
    assert (trace.num_experts, trace.num_ranks) == (6, 2)
    np.save(tmp_path / "r.npy", one)
    assert import_from("vllm", tmp_path / "r.npy", NONE).num_tokens == 2
    assert import_from("vllm", tmp_path, NONE).num_tokens == 5


def tensorrt_folder(tmp_path, **tensors_of_rank):
    (tmp_path / "meta_info.json").write_text('{"num_experts": 4, "num_experts_per_token": 2}')
    for name, tensors in tensors_of_rank.items():
        save_file(
            {key: torch.tensor(value) for key, value in tensors.items()}, tmp_path / f"{name}.safetensors"
        )
    return tmp_path


def test_tensorrt_llm_counts(tmp_path):
    folder = tensorrt_folder(
        tmp_path,
        rank0={"100_3": [1, 2, 3, 4], "100_4": [4, 3, 2, 1], "101_3": [1, 0, 0, 0], "101_4": [0, 0, 0, 1]},
        rank1={"100_3": [1, 1, 1, 1], "100_4": [0, 0, 0, 0], "101_3": [0, 1, 0, 0], "101_4": [0, 0, 1, 0]},
    )
    load = import_from("tensorrt-llm", folder, NONE)
    assert load.moe_layers == (3, 4)
    assert load.load_WLE.tolist() == [[[2, 3, 4, 5], [4, 3, 2, 1]], [[1, 1, 0, 0], [0, 0, 1, 1]]]
    chosen = import_from("tensorrt-llm", folder, ImportOptions(moe_layers=(4,)))
    assert chosen.load_LE.tolist() == [[4, 3, 3, 2]]


def test_tensorrt_llm_raw(tmp_path):
    folder = tensorrt_folder(
        tmp_path,
        rank0_raw={"5_3": [[0, 1], [2, 3]], "5_4": [[1, 0], [3, 1]]},
        rank1_raw={"5_3": [[3, 0]], "5_4": [[2, 0]], "6_3": [[1, 2]], "6_4": [[1, 3]]},
        rank0={"5_3": [9, 9, 9, 9]},
    )
    trace = import_from("tensorrt-llm", folder, NONE)
    assert trace.experts_TLK.tolist() == [
        [[0, 1], [1, 0]],
        [[2, 3], [3, 1]],
        [[3, 0], [2, 0]],
        [[1, 2], [1, 3]],
    ]
    assert trace.home_rank_T.tolist() == [0, 0, 1, 1]
    assert trace.step_T.tolist() == [5, 5, 5, 6]


def test_recorded_load_round_trip(tmp_path):
    load = RecordedLoad(np.arange(40).reshape(5, 2, 4), (3, 4), "test")
    pooled = load.pooled(2)
    assert len(pooled.load_WLE) == 2
    assert (pooled.load_LE == load.load_LE).all()
    write_load(pooled, tmp_path / "load.json")
    back = read_load(tmp_path / "load.json")
    assert (back.load_WLE == pooled.load_WLE).all()
    assert (back.moe_layers, back.source) == ((3, 4), "test")
    for text, message in (("{}", "nor a recorded load"), ("[", "no matrix of loads")):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(InputError, match=message):
            read_load(tmp_path / "bad.json")
    for change, message in (
        ({"version": 9}, "version 9"),
        ({"load": [[[1]]]}, "numbers of 2"),
        ({"load": "x"}, "garbles"),
    ):
        (tmp_path / "bad.json").write_text(json.dumps(pooled.to_dict() | change))
        with pytest.raises(InputError, match=message):
            read_load(tmp_path / "bad.json")


def spoiled(engine, name, write, message):
    return pytest.param(engine, name, write, message, id=f"{engine}-{message[:20]}")


@pytest.mark.parametrize(
    ("engine", "name", "write", "message"),
    [
        spoiled("sglang", "x.pt", lambda p: p.write_bytes(b"PK"), "not a file of torch.save"),
        spoiled("sglang", "x.pt", lambda p: torch.save({"records": []}, p), "not a per_pass or per_token dump"),
        spoiled("sglang", "x.pt", lambda p: torch.save({"records": [], "last_physical_to_logical_map": MAP}, p),
                "no forward pass"),
        spoiled("sglang", "x.pt", lambda p: torch.save({"logical_count": torch.zeros((2, 2, 2))}, p),
                "no layer counted any token"),
        spoiled("sglang", "x.json", lambda p: p.write_text('{"logical_count": [1]}'), r"has shape \(1,\)"),
        spoiled("sglang", "folder", lambda p: p.mkdir(), "no .pt or .csv dump"),
        spoiled("vllm", "x.npy", lambda p: np.save(p, np.zeros((2, 2))), r"expected whole numbers as \(tokens"),
        spoiled("vllm", "x.npz", lambda p: p.write_bytes(b"?"), "not a numpy file"),
        spoiled("vllm", "x.npy", lambda p: np.save(p, np.zeros((2, 2, 2), int)), "which of its 2 layers are MoE"),
        spoiled("vllm", "folder", lambda p: p.mkdir(), "no array of routed experts"),
        spoiled("vllm", "x.jsonl", lambda p: p.write_text('{"record_type": "eplb_load_stats"}'), "lacks or garbles"),
        spoiled("tensorrt-llm", "folder", lambda p: p.mkdir(), "meta_info.json: no such file"),
    ],
)  # fmt: skip
def test_a_bad_dump_is_named(engine, name, write, message, tmp_path):
    write(tmp_path / name)
    with pytest.raises(InputError, match=message) as caught:
        import_from(engine, tmp_path / name, NONE)
    assert str(tmp_path / name) in str(caught.value)


def test_bad_tensorrt_folders_are_named(tmp_path):
    folder = tensorrt_folder(tmp_path)
    with pytest.raises(InputError, match=r"no rank<r>\.safetensors"):
        import_from("tensorrt-llm", folder, NONE)
    tensorrt_folder(tmp_path, rank0={"100": [1, 2, 3, 4]})
    with pytest.raises(InputError, match="expected <iteration>_<layer>"):
        import_from("tensorrt-llm", folder, NONE)
    tensorrt_folder(tmp_path, rank0={"1_3": [1, 2, 3]})
    with pytest.raises(InputError, match=r"counts of shape \(3,\), meta_info says 4"):
        import_from("tensorrt-llm", folder, NONE)
    (tmp_path / "rank0.safetensors").write_bytes(b"12345678{")
    with pytest.raises(InputError, match="not a safetensors file"):
        import_from("tensorrt-llm", folder, NONE)
