"""Good files of every kind that a command reads, and ways to spoil them."""

from __future__ import annotations

import copy
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from hypothesis import strategies as st

from tests.cli.command import TINY
from tests.cli.without_torch import run_without_torch
from wingspan.specs.cluster import cluster_yaml, load_cluster
from wingspan.specs.models import MODEL_PRESETS

CONFIGS = ("mixtral-8x7b", "deepseek-v3", "seed-small", "qwen3-235b-a22b")
_LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"
_PHYSICAL = [[0, 1, 2, 3, 4, 5, 6, 7], [7, 6, 5, 4, 3, 2, 1, 0]]


def make_folder(folder: Path) -> None:
    """Put good files of every kind there."""
    (folder / "folder").mkdir()
    (folder / "text.txt").write_text("Some text to record.\n")
    (folder / "binary").write_bytes(bytes(range(256)))
    (folder / "nothing").touch()
    (folder / "p.json").write_bytes(good("placement"))
    (folder / "t.parquet").write_bytes(_trace())
    for arguments in (
        ["simulate", "mixtral-8x7b", "--out", "d.json"],
        ["simulate", "seed-small", "--ranks", "64", "--out", "small.json"],
    ):
        ended = run_without_torch(*arguments[:-1], str(folder / arguments[-1]))
        assert ended.returncode == 0, ended.stderr


def good(kind: str) -> bytes:
    """A file of a kind, as its bytes."""
    return json.dumps(_VALUES[kind]()).encode()


def _config(name: str) -> Any:
    return json.loads((MODEL_PRESETS / f"{name}.json").read_text())


_VALUES: dict[str, Any] = {
    "placement": lambda: {"num_experts": 8, "slots": [[[e] for e in range(8)]] * 2},
    "loads": lambda: [[5] * 8] * 32,
    "sglang": lambda: {"physical_to_logical_map": _PHYSICAL},
    "sglang load": lambda: {"logical_count": [[[1, 2], [3, 4]], [[0, 1], [2, 3]]]},
    "vllm": lambda: _PHYSICAL,
    "ascend": lambda: {
        "moe_layer_count": 1,
        "layer_list": [
            {
                "layer_id": 0,
                "device_count": 2,
                "device_list": [{"device_id": d, "device_expert": [2 * d, 2 * d + 1]} for d in range(2)],
            }
        ],
    },
    "vllm record": lambda: {
        "record_type": "eplb_initial_mapping",
        "version": 1,
        "num_redundant_experts": 0,
        "num_slots": 8,
        "initial_global_assignments": {"0": _PHYSICAL[0]},
    },
    "tensorrt-llm": lambda: {
        "num_slots": 8,
        "initial_global_assignments": {3: _PHYSICAL[0]},
        "layer_updates_per_iter": 0,
    },
    "load": lambda: {
        "schema": "wingspan.recorded_load",
        "version": 1,
        "source": "x",
        "moe_layers": [0],
        "load": [[[1, 2, 3]]],
    },
    "request": lambda: {"arrival_seconds": 0.5, "prompt_tokens": 100, "output_tokens": 10},
    "cluster": lambda: yaml.safe_load(cluster_yaml(load_cluster("h100-sxm"))),
    "tiny": lambda: json.loads((Path(TINY) / "config.json").read_text()),
    **{name: lambda name=name: _config(name) for name in CONFIGS},
}

_JUNK: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3, 7, 10**6, 10**9, 10**18, 10**30, -(10**30), 0.5, -0.0, 1e-300, 1e300,
    float("nan"), float("inf"), float("-inf"), "", "x", "64", "nan", "\ud800", "ü" * 50, "a\nb", [], {}, [[]], [{}],
    {"": None}, [None], [1, "x"], list(range(100)), {"model_type": "llama"}, [0] * 3, [[1, 2], [3]],
]  # fmt: skip


_OTHER = [
    b"", b"\n", b"null", b"NaN", b"[]", b"{}", b"0", b'"x"', b"[" * 100_000, b'{"a":' * 5000, _LFS, bytes(range(256)),
    b"!!python/object/apply:os.system [false]", b"&a [*a]", b"{? [1]: 2}", b"1" * 5000, b"PK\x03\x04",
    b"PAR1" * 4, b"a: 2020-13-45", b"- [" * 3000,
]  # fmt: skip

_COLUMNS = "arrival_seconds,prompt_tokens,output_tokens"
_HEADINGS = [
    _COLUMNS,
    "arrival_seconds,prompt_tokens",
    "",
    "a,b,c",
    f"{_COLUMNS},x",
    f"{_COLUMNS},prompt_tokens",
]


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for number, (key, below) in enumerate(inner):
        if number < 80:
            found += _places(below, (*path, key))
    return found


@st.composite
def spoiled_value(draw: st.DrawFn, value: Any) -> Any:
    """A value with one to three places changed: gone, doubled, of another type, or out of all bounds."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        places = _places(value)
        if not places:
            return copy.deepcopy(draw(st.sampled_from(_JUNK)))
        *way, last = draw(st.sampled_from(places))
        inner = value
        for key in way:
            inner = inner[key]
        change = draw(st.sampled_from(["junk", "junk", "junk", "gone", "wrap", "rename", "scale"]))
        if change == "gone":
            del inner[last]
        elif change == "wrap":
            inner[last] = [inner[last]]
        elif change == "rename" and isinstance(inner, dict):
            inner[str(last) + "_"] = inner.pop(last)
        elif change == "scale" and type(inner[last]) in (int, float):
            inner[last] = draw(st.sampled_from([-1, 0, 2, 3, 1000, 10**9, 0.5])) * inner[last]
        else:
            inner[last] = copy.deepcopy(draw(st.sampled_from(_JUNK)))
    return value


def _encoded(value: Any, form: str) -> bytes:
    if form == "yaml":
        return yaml.safe_dump(value, sort_keys=False, allow_unicode=True).encode("utf-8", "replace")
    if form == "jsonl":
        return (json.dumps(value) + "\n").encode() * 2
    return json.dumps(value).encode()


@st.composite
def spoiled_file(draw: st.DrawFn, kind: str, form: str = "json") -> bytes:
    """The bytes of a file of this kind with something wrong in its values, or in its bytes."""
    value = _VALUES[kind]()
    way = draw(st.sampled_from(["value"] * 6 + ["bytes"]))
    if way == "value":
        return _encoded(draw(spoiled_value(value)), form)
    return draw(spoiled_bytes(_encoded(value, form)))


@st.composite
def spoiled_bytes(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes cut, flipped, in another encoding, or of something else altogether."""
    way = draw(st.sampled_from(["cut", "flip", "tail", "other", "recoded"]))
    if way == "cut":
        return data[: draw(st.integers(0, len(data)))]
    if way == "flip":
        spoiled = bytearray(data)
        for _ in range(draw(st.integers(1, 8))):
            spoiled[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
        return bytes(spoiled)
    if way == "tail":
        return data + draw(st.sampled_from([b"x", b"}", b"\x00", b"{}", data]))
    if way == "recoded":
        text = data.decode("latin-1")
        return draw(
            st.sampled_from(
                [b"\xef\xbb\xbf" + data, text.encode("utf-16"), b"\xff" + data, b"\xfe\xff" + data]
            )
        )
    return draw(st.sampled_from(_OTHER))


@st.composite
def spoiled_requests(draw: st.DrawFn) -> bytes:
    """A CSV file of requests with odd cells, columns and lines."""
    cell = st.sampled_from(
        ["0", "1", "0.5", "-1", "nan", "inf", "1e30", "", "x", '"', '"a', "9" * 30, "\x00", "ü"]
    )
    heading = draw(st.sampled_from(_HEADINGS))
    rows = draw(st.lists(st.lists(cell, min_size=1, max_size=5), max_size=4))
    return "\n".join([heading, *(",".join(row) for row in rows)]).encode()


def _trace(layers: int = 2, experts: int = 8, **about: Any) -> bytes:
    tokens, top_k = 40, 2
    told = {"version": 1, "num_experts": experts, "num_ranks": 4, "origin": "x"} | about
    column = pa.list_(pa.field("element", pa.int16(), nullable=False), top_k)
    flat = [n % experts for t in range(tokens) for n in (t, t + 1)]
    arrays = {
        "step": pa.array([t // 8 for t in range(tokens)], pa.int32()),
        "request": pa.array([t // 4 for t in range(tokens)], pa.int32()),
        "home_rank": pa.array([t % 4 for t in range(tokens)], pa.int32()),
    } | {
        f"layer_{n}": pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.int16()), type=column)
        for n in range(layers)
    }
    schema = pa.schema(
        [pa.field(name, array.type, nullable=False) for name, array in arrays.items()],
        {"wingspan.routing_trace": json.dumps(told)},
    )
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(list(arrays.values()), schema=schema), buffer)
    return buffer.getvalue()


@st.composite
def spoiled_trace(draw: st.DrawFn) -> bytes:
    """A routing trace with damaged bytes, odd metadata, or another shape than it says."""
    if draw(st.booleans()):
        return draw(spoiled_bytes(_trace()))
    key = draw(st.sampled_from(["version", "num_experts", "num_ranks", "origin"]))
    return _trace(**{key: draw(st.sampled_from([j for j in _JUNK if j != "\ud800"]))})


@st.composite
def spoiled_text(draw: st.DrawFn, data: bytes) -> bytes:
    """Some JSON file with something wrong in its values, or in its bytes."""
    if draw(st.integers(0, 5)):
        return _encoded(draw(spoiled_value(json.loads(data))), "json")
    return draw(spoiled_bytes(data))
