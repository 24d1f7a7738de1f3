"""Nothing that a person is given can run code: no checkpoint, tokenizer, pickle, YAML or name, by any command.

Every text and path of every command gets every payload, so a new command or option is tried without a line here.
"""

from __future__ import annotations

import io
import json
import pickle
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import typer
import yaml

from tests.cli.canary import AUTO_MAP, CODE_FILES, names, write_all, write_code
from tests.cli.command import TINY, Command
from tests.runtime.checkpoints import configurations, write
from wingspan.cli.main import application
from wingspan.specs.models import MODEL_PRESETS

_TYPES = (str, Path, list[str], list[Path])
_OUTPUTS = {"--out", "--html", "--trace"}
_TEXTS = {"--prompt", "--name"}
"""Options that take any text and start work with it: they get the names alone."""

_RUN = ("--ranks", "1", "--experts-per-rank", "8", "--max-new-tokens", "1", "--prompt-ids", "1")
_BASES: dict[str, list[tuple[str, ...]]] = {
    "plan": [("mixtral-8x7b",)],
    "simulate": [("mixtral-8x7b",)],
    "sweep": [("mixtral-8x7b", "--ranks", "8")],
    "simulate-serving": [("mixtral-8x7b", "--ranks", "8")],
    "diff": [("nothing", "nothing")],
    "run": [(TINY, *_RUN)],
    "compare": [("nothing",)],
    "inspect": [(TINY, "--runtime")],
    "create": [("nothing", "OUT/made")],
    "record": [(TINY, "--ranks", "1", "--text", "nothing", "--out", "OUT/trace.parquet")],
    "routing": [("nothing",)],
    "synthesize": [("uniform", "--tokens", "8", "--out", "OUT/trace.parquet")],
    "place": [("--synthetic", "uniform", "--model", "mixtral-8x7b", "--ranks", "8"), ("nothing",)],
    "export": [("nothing", "--to", e, "--out", "OUT/x") for e in ("sglang", "vllm", "tensorrt-llm")],
    "import": [("nothing", "--from", e, "--ranks", "4", "--out", "OUT/x") for e in ("sglang", "vllm", "tensorrt-llm")],
    "calibrate": [("--transport", "none such")],
}  # fmt: skip
"""For each command arguments that get it to the reading of the one that is replaced."""


def _commands(command: typer.core.TyperGroup | None = None, path: tuple[str, ...] = ()) -> Iterator[tuple]:
    command = command or typer.main.get_command(application())
    for name, inner in command.commands.items():
        if hasattr(inner, "commands"):
            yield from _commands(inner, (*path, name))
        elif (*path, name) != ("testbed", "run"):  # It runs a command that the user types: its purpose.
            yield (*path, name), inner


def _places(command: typer.core.TyperCommand) -> Iterator[tuple[str, int]]:
    """Names of a command's texts and paths; for an argument its position, for an option -1."""
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    for parameter in command.params:
        if parameter.type_descriptor.annotation in _TYPES and parameter.opts[0] not in _OUTPUTS:
            yield parameter.opts[0], arguments.index(parameter) if parameter in arguments else -1


def _with(base: tuple[str, ...], option: str, position: int, value: str) -> list[str]:
    if position < 0:
        return [*base, option, value]
    given = list(base)
    given[position : position + 1] = [value]
    return given


@pytest.mark.parametrize("path", [path for path, _ in _commands()], ids=" ".join)
def test_no_command_runs_code_of_a_file_or_a_name(wingspan, monkeypatch, tmp_path, path):
    command = dict(_commands())[path]
    canary = tmp_path / "canary"
    payloads = [str(file) for file in write_all(tmp_path / "given", canary)]
    for option, position in _places(command):
        given = list(names(canary)) if option in _TEXTS else [next(names(canary)), *payloads]
        for base in _BASES.get(path[0], [()]):
            ready = tuple(part.replace("OUT", str(tmp_path)) for part in base)
            for value in given:
                _call(wingspan, monkeypatch, *path, *_with(ready, option, position, value))
                assert not canary.exists(), (path, option, value)


def _call(wingspan: Command, monkeypatch: pytest.MonkeyPatch, *arguments: str):
    """The command, with a yes for every question on standard input; none may be asked."""
    answers = io.StringIO("y\n" * 9)
    monkeypatch.setattr(sys, "stdin", answers)
    done = wingspan(*arguments)
    assert answers.tell() == 0 or "--prompt-ids" not in arguments, arguments
    assert "Traceback" not in done.err, arguments
    assert "y/N" not in done.out + done.err, arguments
    return done


@pytest.fixture(scope="module")
def olmoe(tmp_path_factory) -> Path:
    return write(configurations()["olmoe"], tmp_path_factory.mktemp("olmoe"))


def _armed(source: Path, folder: Path, canary: Path, config: dict, tokenizer: dict) -> Path:
    """A copy with code beside it, and what is to name it in its two configurations."""
    folder.mkdir()
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    write_code(folder, canary)
    for name, more in (("config.json", config), ("tokenizer_config.json", tokenizer)):
        said = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
        (folder / name).write_text(json.dumps(said | more))
    return folder


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"model_type": "evil", "auto_map": AUTO_MAP}, "auto_map"),
        ({"model_type": None, "auto_map": AUTO_MAP}, "config.json"),
        ({"auto_map": AUTO_MAP}, None),
        ({"auto_map": {"AutoConfig": "someone/elses--configuration_evil.EvilConfig"}}, None),
        ({"attn_implementation": "someone/kernel", "experts_implementation": "someone/kernel"}, None),
        ({"_attn_implementation": "flash_attention_2", "use_kernels": True}, None),
        (
            {"custom_generate": "custom_generate", "custom_pipelines": {"a": {"impl": "modeling_evil.E"}}},
            None,
        ),
    ],
)
def test_a_configuration_is_transformers_own_or_refused(wingspan, monkeypatch, olmoe, tmp_path, config, word):
    canary = tmp_path / "canary"
    folder = _armed(olmoe, tmp_path / "armed", canary, config, {})
    run = ("run", str(folder), "--ranks", "2", "--experts-per-rank", "3", "--max-new-tokens", "2", "--check")
    for arguments in [
        (*run, "--prompt-ids", "1"),
        ("inspect", str(folder), "--runtime"),
        ("create", str(folder), str(tmp_path / "o")),
    ]:
        done = _call(wingspan, monkeypatch, *arguments)
        assert not canary.exists()
        assert done.code == (2 if word else 0), done.err
        assert (word or "") in done.err
        assert done.err.count("\n") == (1 if word else 0), done.err


@pytest.mark.parametrize(
    "tokenizer",
    [
        {"auto_map": AUTO_MAP, "tokenizer_class": "EvilTokenizer"},
        {"auto_map": AUTO_MAP},
        {"auto_map": AUTO_MAP["AutoTokenizer"], "tokenizer_class": None},
        {"tokenizer_class": "AutoModelForCausalLM"},
        {"tokenizer_class": "AutoTokenizer"},
    ],
)
def test_a_tokenizer_is_transformers_own_or_refused(wingspan, monkeypatch, olmoe, tmp_path, tokenizer):
    canary = tmp_path / "canary"
    config = {"auto_map": AUTO_MAP}
    folder = _armed(olmoe, tmp_path / "armed", canary, config, tokenizer)
    run = ("run", str(folder), "--ranks", "2", "--experts-per-rank", "3", "--max-new-tokens", "2")
    refused = _call(wingspan, monkeypatch, *run, "--prompt", "a")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert _call(wingspan, monkeypatch, *run, "--prompt-ids", "1").code == 0
    assert not canary.exists()


def test_a_chat_template_is_not_rendered(wingspan, monkeypatch, tmp_path):
    canary = tmp_path / "canary"
    template = list(names(canary))[-1]
    folder = _armed(
        Path(TINY), tmp_path / "armed", canary, {"auto_map": AUTO_MAP}, {"chat_template": template}
    )
    (folder / "chat_template.jinja").write_text(template)
    done = _call(wingspan, monkeypatch, "run", str(folder), *_RUN, "--prompt", "a")
    assert done.code == 0, done.err
    assert not canary.exists()


def test_the_payloads_are_live(tmp_path):
    """What the other tests give would touch the canary where it is read carelessly."""
    canary = tmp_path / "canary"
    write_all(tmp_path, canary)

    def touched() -> bool:
        found = canary.exists()
        canary.unlink(missing_ok=True)
        return found

    pickle.loads((tmp_path / "evil.pkl").read_bytes())
    assert touched()
    pickle.loads((tmp_path / "checkpoint" / "pytorch_model.bin").read_bytes())
    assert touched()
    yaml.unsafe_load((tmp_path / "evil.yaml").read_text())
    assert touched()
    np.load(tmp_path / "evil.npy", allow_pickle=True)
    assert touched()
    for name in CODE_FILES:
        runpy.run_path(str(tmp_path / "checkpoint" / name))
        assert touched()
    assert not touched()


def test_a_name_is_text_in_tables_and_pages(wingspan, tmp_path):
    config = json.loads((MODEL_PRESETS / "mixtral-8x7b.json").read_text())
    file, page = tmp_path / "config.json", tmp_path / "page.html"
    file.write_text(json.dumps(config | {"name": "[/red]</script><script>alert(1)</script><img src=x>"}))
    for command in (
        ("simulate",),
        ("plan",),
        ("sweep", "--ranks", "8,16"),
        ("simulate-serving", "--ranks", "8"),
    ):
        done = wingspan(command[0], str(file), *command[1:], "--html", str(page))
        assert done.code == 0, done.err
        assert "[/red]</script>" in done.out
        assert "<script>alert" not in page.read_text()
        assert "<img src" not in page.read_text()
