"""Every command that README.md and docs/*.md show is one that the command line knows, with options that it has."""

import re
import shlex
from functools import cache
from pathlib import Path

import pytest
import typer.core
import typer.main

from tests.cli.tree import COMMANDS
from wingspan.cli.main import application

REPOSITORY = Path(__file__).parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(wingspan [^`]+)`")
STARTS = {"wingspan", "wingspan.cli.main"}


def _block_lines(text: str) -> list[str]:
    """Commands in fenced blocks, a line each; where they go over several, joined."""
    lines = "\n".join(BLOCK.findall(text)).replace("\\\n", " ").splitlines()
    begins = re.compile(r"\$ |(?:\w+=\S* )*(?:wingspan(?= [a-z-]+(?: |$))|(?:mpirun|torchrun|srun)\s)")
    return [line.removeprefix("$ ") for line in lines if begins.match(line)]


def _words(line: str) -> list[str]:
    return shlex.split(line, comments=True)


def _of_wingspan(words: list[str]) -> list[str]:
    """What follows the program's name, first in the line or behind a launcher."""
    return next((words[i + 1 :] for i, word in enumerate(words) if word in STARTS), [])


@cache
def _tree() -> typer.core.TyperGroup:
    tree = typer.main.get_command(application())
    assert isinstance(tree, typer.core.TyperGroup)
    return tree


def _parse(words: list[str]) -> None:
    """Raise unless the command exists, its options too, and what needs a value has one."""
    command, path = _tree(), ["wingspan"]
    while isinstance(command, typer.core.TyperGroup) and words and not words[0].startswith("-"):
        path, (name, *words) = [*path, words[0]], words
        found = command.commands.get(name)
        assert found is not None, f"{' '.join(path)}: no such command"
        command = found
    rest = words[words.index("--") + 1 :] if "--" in words else []
    command.make_parser(command.context_class(command)).parse_args(list(words))
    if _of_wingspan(rest):
        _parse(_of_wingspan(rest))


def _shown() -> list[tuple[str, str]]:
    return [(page.name, line) for page in PAGES for line in _block_lines(page.read_text())]


@pytest.mark.parametrize(("page", "line"), _shown())
def test_a_shown_command_parses(page: str, line: str) -> None:
    words = _of_wingspan(_words(line))
    if words:
        _parse(words)


EXAMPLE = re.compile(r"\s*(?:\w+=\S* )*(?:wingspan|mpirun|torchrun) ")


def _examples() -> list[tuple[str, str]]:
    """The command lines that each command's help shows as examples."""
    return [
        (name, line.strip())
        for name, command in COMMANDS.items()
        for text in (command.help or "").replace("\\\n", " ").splitlines()
        if EXAMPLE.match(text)
        for line in text.split(" && ")
    ]


@pytest.mark.parametrize(("command", "line"), _examples())
def test_an_example_of_help_parses(command: str, line: str) -> None:
    words = _of_wingspan(_words(line))
    assert words, f"{command}: {line}"
    _parse(words)


def test_every_command_shows_itself() -> None:
    shown = {name for name, line in _examples() if f"wingspan {name} " in f"{line.replace('.cli.main', '')} "}
    assert set(COMMANDS) - shown == {"testbed down", "testbed status"}


def test_pages_show_commands() -> None:
    assert len([line for _, line in _shown() if _of_wingspan(_words(line))]) > 40


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_named_in_a_sentence_exist(page: Path) -> None:
    """`wingspan COMMAND ... --option` between backticks, where values may be left out."""
    wrong = []
    for code in INLINE.findall(page.read_text()):
        words = code.split()[1:]
        known = _options(words)
        wrong += [
            f"{code}: {name}" for name in re.findall(r"(?<!\S)(--?[a-z][\w-]*)", code) if name not in known
        ]
    assert wrong == []


OTHERS = {
    "--nnodes", "--rounds", "--case",  # torchrun, benchmarks
    "--allow-run-as-root", "--oversubscribe",  # mpirun
    "--expert-distribution-recorder-mode", "--moe-runner-backend",  # SGLang
    "--quantization",  # SGLang and vLLM
    "--output-details",  # sglang.bench_serving
    "--save-detailed",  # vllm bench serve
    "--enable-return-routed-experts", "--additional-config", "--eplb-config",  # vLLM
    "--extra_llm_api_options",  # TensorRT-LLM
}  # fmt: skip
"""Options of other programs, which the pages name as theirs."""


def test_options_named_alone_exist() -> None:
    """`--option` between backticks, of whatever command the page is about."""
    known = _options(list(_tree().commands)) | OTHERS
    for name, command in _tree().commands.items():
        known |= _options([name, *getattr(command, "commands", {})])
    named = [
        (page.name, name)
        for page in PAGES
        for name in re.findall(r"`(--[a-z][\w-]*)", BLOCK.sub("", page.read_text()))
    ]
    assert [(page, name) for page, name in named if name not in known] == []
    assert OTHERS - {name for _, name in named} == set()


def _options(words: list[str]) -> set[str]:
    """All options of the commands that these words name, one after another."""
    command, known = _tree(), {"--help"} | {name for option in _tree().params for name in option.opts}
    for word in words:
        at = command if isinstance(command, typer.core.TyperGroup) else _tree()
        if word in at.commands:
            command = at.commands[word]
            known |= {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
    return known


def test_a_wrong_command_is_found() -> None:
    for line in (
        "wingspan plann",
        "wingspan plan seed --gpu-count 3",
        "wingspan testbed run -- wingspan run x --nope",
    ):
        with pytest.raises((AssertionError, typer.TyperException)):
            _parse(_of_wingspan(_words(line)))
