"""Wrong command lines, drawn: spoiled files, wrong values of every option there is, options that do not go together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer.main
from hypothesis import strategies as st

from tests.cli import fuzz_files as files
from tests.cli.command import TINY
from tests.cli.forking import Case
from wingspan.cli.main import application

BASES = {
    "plan": ["plan", "mixtral-8x7b", "--gpus", "8"],
    "simulate": ["simulate", "mixtral-8x7b"],
    "sweep": ["sweep", "mixtral-8x7b", "--ranks", "8"],
    "simulate-serving": [
        "simulate-serving",
        "mixtral-8x7b",
        "--ranks",
        "8",
        "--rate",
        "1",
        "--num-requests",
        "20",
    ],
    "claims": ["claims", "--brief"],
    "diff": ["diff", "d.json", "small.json"],
    "validate": ["validate", "--data", "nowhere"],
    "run": ["run", TINY, "--ranks", "8", "--prompt", "a"],
    "compare": ["compare", "small.json"],
    "inspect": ["inspect", "deepseek-v3"],
    "create": ["create", "seed-small", "out"],
    "doctor": ["doctor"],
    "presets": ["presets"],
    "atlas": ["atlas", "cloudmatrix-ep320-decode"],
    "models": ["models"],
    "calibrate": ["calibrate"],
    "record": ["record", TINY, "--text", "text.txt", "--out", "out.parquet"],
    "routing": ["routing", "t.parquet"],
    "synthesize": ["synthesize", "uniform", "--tokens", "100", "--out", "out.parquet"],
    "place": ["place", "t.parquet", "--model", "mixtral-8x7b", "--cluster", "h100-sxm"],
    "export": ["export", "p.json", "--to", "vllm", "--out", "out.json"],
    "import": ["import", "p.json", "--from", "sglang", "--ranks", "8", "--out", "out.json"],
    "testbed run": ["testbed", "run", "--name", "none-such", "--", "true"],
    "testbed down": ["testbed", "down", "--name", "none-such"],
    "testbed status": ["testbed", "status"],
}
"""A quick command line of each command; the runtime's end where torch would be imported."""

SPOILABLE: dict[str, tuple[list[list[str]], Any]] = {
    **{
        name: (
            [
                ["plan", "@.json", "--gpus", "16"],
                ["simulate", "@.json"],
                ["simulate", "@.json", "--json"],
                ["sweep", "@.json", "--ranks", "8"],
                ["simulate-serving", "@.json", "--ranks", "8", "--num-requests", "20", "--rate", "1"],
                ["place", "t.parquet", "--model", "@.json"],
                ["inspect", "@.json"],
                ["run", "@/config.json", "--ranks", "8", "--prompt-ids", "1,2"],
            ],
            files.spoiled_file(name),
        )
        for name in files.CONFIGS
    },
    "deployment": (
        [
            ["simulate", "@.json"],
            ["simulate", "@.json", "--json"],
            ["plan", "@.json"],
            ["diff", "d.json", "@.json"],
            ["compare", "@.json"],
            ["export", "@.json", "--to", "vllm", "--out", "out.json"],
            ["simulate", "mixtral-8x7b", "--placement", "@.json"],
        ],
        None,
    ),
    "cluster": (
        [
            ["simulate", "mixtral-8x7b", "--cluster", "@.yaml"],
            ["simulate", "mixtral-8x7b", "--cluster", "@.yaml", "--json"],
            ["plan", "mixtral-8x7b", "--cluster", "@.yaml", "--gpus", "8"],
            ["claims", "--cluster", "@.yaml"],
            ["sweep", "mixtral-8x7b", "--cluster", "@.yaml", "--ranks", "8", "--json"],
            ["compare", "small.json", "--cluster", "@.yaml"],
            ["place", "t.parquet", "--model", "mixtral-8x7b", "--cluster", "@.yaml"],
        ],
        files.spoiled_file("cluster", "yaml"),
    ),
    "placement": (
        [
            ["export", "@.json", "--to", "vllm", "--out", "out.json"],
            [
                "export",
                "@.json",
                "--to",
                "sglang",
                "--moe-layers",
                "0-1",
                "--hidden-layers",
                "2",
                "--out",
                "out.json",
            ],
            ["routing", "t.parquet", "--placement", "@.json", "--json"],
            ["place", "t.parquet", "--current", "@.json"],
            ["simulate", "mixtral-8x7b", "--placement", "@.json"],
        ],
        files.spoiled_file("placement"),
    ),
    "trace": (
        [
            ["routing", "@.parquet"],
            ["routing", "@.parquet", "--json"],
            ["place", "@.parquet", "--model", "mixtral-8x7b"],
            ["simulate", "mixtral-8x7b", "--routing", "@.parquet"],
        ],
        files.spoiled_trace(),
    ),
    "loads": ([["simulate", "mixtral-8x7b", "--routing", "@.json"]], files.spoiled_file("loads")),
    "csv": (
        [["simulate-serving", "mixtral-8x7b", "--ranks", "8", "--requests", "@.csv"]],
        files.spoiled_requests(),
    ),
    "requests": (
        [["simulate-serving", "mixtral-8x7b", "--ranks", "8", "--requests", "@.jsonl"]],
        files.spoiled_file("request", "jsonl"),
    ),
    "sglang": (
        [
            [
                "import",
                "@.json",
                "--from",
                "sglang",
                "--ranks",
                "8",
                "--moe-layers",
                "0-1",
                "--out",
                "out.json",
            ]
        ],
        files.spoiled_file("sglang") | files.spoiled_file("sglang load"),
    ),
    "vllm": (
        [["import", "@.json", "--from", "vllm", "--ranks", "8", "--out", "out.json"]],
        files.spoiled_file("vllm") | files.spoiled_file("ascend"),
    ),
    "vllm record": (
        [["import", "@.jsonl", "--from", "vllm", "--ranks", "8", "--out", "out.json"]],
        files.spoiled_file("vllm record", "jsonl"),
    ),
    "tensorrt-llm": (
        [["import", "@.yaml", "--from", "tensorrt-llm", "--ranks", "8", "--out", "out.json"]],
        files.spoiled_file("tensorrt-llm", "yaml"),
    ),
    "binary dump": (
        [
            ["import", "@.pt", "--from", "sglang", "--out", "out.parquet"],
            ["import", "@.safetensors", "--from", "tensorrt-llm", "--out", "out.json"],
            ["import", "@", "--from", "vllm", "--out", "out.json"],
            ["run", TINY, "--ranks", "8", "--prompts-file", "@"],
            ["record", TINY, "--text", "@", "--out", "out.parquet"],
        ],
        files.spoiled_bytes(b"PK\x03\x04" + bytes(range(200))) | st.binary(max_size=200),
    ),
}

_NUMBERS = [
    "x", "", "0", "-1", "1.5", "nan", "inf", "-inf", "1e400", "9" * 30, "-" + "9" * 30, "٣", " 1", "1_0",
    "0x10", "1e3",
]  # fmt: skip
_PATHS = [
    "", "nowhere", "no/such/file", "folder", "binary", "nothing", "/dev/null", "text.txt", "t.parquet",
    "d.json", "x" * 300, "a/\udcff", "text.txt/x", ".",
]  # fmt: skip
_TEXTS = [
    "", "x", "auto", "nonsense", "1", "1,2", "16..4", "1..99999999999999999999", "a,,b", ",", "nan",
    "fp4", "fp8", "-", "ü", "\udcff", "a b", "power-law:x", "log-normal:nan", "power-law:1e400",
    "chunks:-1", "every 0", "../x", "x" * 5000, "--json", "3-1", "0-99999999999", "%s{}", "[red]",
    "d.json", "folder",
]  # fmt: skip

_WORDS = ["", "nowhere", "folder", "binary", "nothing", "x" * 300, "d.json", "\udcff", "-1"]


@dataclass(frozen=True)
class _Option:
    names: tuple[str, ...]
    values: list[str]
    flag: bool


def commands() -> Iterator[tuple[str, list[_Option]]]:
    """Every command and its options, as the command line declares them."""

    def walk(command: Any, path: list[str]) -> Iterator[tuple[str, list[_Option]]]:
        inner = getattr(command, "commands", None)
        if inner is None:
            yield " ".join(path), [_option(p) for p in command.params if p.opts[0].startswith("-")]
            return
        for name, below in inner.items():
            yield from walk(below, [*path, name])

    yield from walk(typer.main.get_command(application()), [])


def _option(parameter: Any) -> _Option:
    kind = str(parameter.type_descriptor.annotation)
    values = _NUMBERS if "int" in kind or "float" in kind else _PATHS if "Path" in kind else _TEXTS
    return _Option(tuple(parameter.opts), values, "bool" in kind)


@st.composite
def wrong_options(draw: st.DrawFn) -> Case:
    """A quick command line with one to three options of any value, or one that does not exist."""
    name, options = draw(st.sampled_from([c for c in commands() if c[0] in BASES]))
    base = list(BASES[name])
    rest = base[base.index("--") :] if "--" in base else []
    line = base[: len(base) - len(rest)]
    for _ in range(draw(st.sampled_from([1, 1, 2, 3]))):
        option = draw(st.sampled_from(options)) if options else _Option(("--json",), [], True)
        line.append(draw(st.sampled_from(option.names)))
        if not option.flag:
            line.append(draw(st.sampled_from(option.values)))
    extra = draw(st.sampled_from(["", "", "", "--no-such-option", "surplus", "--json=1", "-z"]))
    return Case([*line, *([extra] if extra else []), *rest])


@st.composite
def wrong_arguments(draw: st.DrawFn) -> Case:
    """A quick command line with one of its words replaced or gone."""
    line = list(draw(st.sampled_from(sorted(BASES.values()))))
    place = draw(st.integers(0, len(line) - 1))
    line[place : place + 1] = draw(st.sampled_from([[], *([word] for word in _WORDS)]))
    return Case(line)


@st.composite
def spoiled_inputs(draw: st.DrawFn, folder: Path) -> Case:
    """A command on a file with something wrong in it."""
    kind = draw(st.sampled_from(sorted(SPOILABLE)))
    lines, content = SPOILABLE[kind]
    if content is None:
        content = files.spoiled_text((folder / "d.json").read_bytes())
    line = draw(st.sampled_from(lines))
    marked = next(word for word in line if "@" in word)
    name = marked.replace("@", "given")
    written = {name: draw(content)}
    return Case([name.removesuffix("/config.json") if word == marked else word for word in line], written)


def light_cases(folder: Path) -> st.SearchStrategy[Case]:
    """Wrong command lines that need no torch to be refused; `folder` is from `make_folder`."""
    return wrong_options() | wrong_arguments() | spoiled_inputs(folder) | spoiled_inputs(folder)


@st.composite
def runtime_cases(draw: st.DrawFn) -> Case:
    """A model's configuration with something wrong in it, for the commands that hand it to transformers."""
    name = draw(st.sampled_from(["tiny", *files.CONFIGS]))
    config = draw(files.spoiled_file(name))
    line = draw(
        st.sampled_from(
            [
                ["inspect", "given"],
                ["inspect", "given", "--json"],
                ["create", "given", "out"],
                ["run", "given", "--ranks", "8", "--prompt-ids", "1,2", "--max-new-tokens", "1"],
                ["record", "given", "--ranks", "8", "--text", "text.txt", "--out", "out.parquet"],
            ]
        )
    )
    return Case(list(line), {"given/config.json": config})
