"""The repository stands alone: it names no file that is not in it, and no document that its reader does not have."""

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
THIS = "tests/test_repository.py"
_TEXT = {".py", ".md", ".toml", ".yaml", ".yml", ".json", ".txt", ".css", ".js", ""}
FORBIDDEN = re.compile(
    r"DESIGN\.md|/work/|(?i:seed(?:'s)? document|\bshared/|\bissue \d|must show|the issue's|seed(?:'s)?,? sections?\b)"
)
ALLOWED = {
    "docs/cost-model.md": "github.com/NVIDIA/nccl, issue 1428",
    "src/wingspan/specs/presets/kernels/h100.yaml": "github.com/NVIDIA/nccl issue 1428",
    "src/wingspan/specs/presets/kernels/b200.yaml": "github.com/NVIDIA/nccl issue 1428",
}
"""Public threads of other projects, with their address."""

PATH = re.compile(r"(?<![\w/.~{}$<>*-])((?:[\w-]+/)*[\w-]+\.(?:py|md|svg|css|js|yaml))(?![\w/*(])")
"""A file as texts name it: with all its folders, the last ones, or none."""
FOLDER = re.compile(r"`((?:[\w-]+/)+)`")
MODULE = re.compile(r"(?<![\w./-])((?:wingspan|tests|benchmarks|training)(?:\.[A-Za-z]\w*)+)")
OTHERS = {
    "collector/helper.py", "collector/sglang/collect_wideep_deepep_moe.py",  # ai-dynamo/aiconfigurator
    "docs/spec.md",  # yaml/pyyaml
    "examples/wide_ep/ep_load_balancer/README.md", "examples/wide_ep/ep_load_balancer/utils.py",  # TensorRT-LLM
    "tensorrt_llm/llmapi/llm_args.py",
    "python/sglang/srt/eplb/expert_distribution.py", "python/sglang/srt/eplb/expert_location.py",  # SGLang
    "tests/test_internode.py",  # deepseek-ai/DeepEP
    "torch/_utils.py", "torch/serialization.py",
    "vllm/config/parallel.py", "vllm_ascend/eplb/core/eplb_utils.py",
    "html/entities.py", "stringprep.py",  # CPython's standard library
}  # fmt: skip
"""Files of other projects; the texts say whose."""
NOT_MODULES = re.compile(r"wingspan\.(recorded_load|routing_trace|dispatchers|nothing)\b")
"""Names of formats and entry points, and one that a test asks for in vain."""


@cache
def _tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a checkout of git: which files belong to the repository is not known")
    return listed.stdout.splitlines()


def _texts() -> list[tuple[str, str]]:
    return [
        (name, (REPOSITORY / name).read_text())
        for name in _tracked()
        if Path(name).suffix in _TEXT
        and name not in {THIS, "LICENSE"}
        and (REPOSITORY / name).is_file()
        and (REPOSITORY / name).stat().st_size < 500_000
    ]


def test_no_text_names_what_its_reader_does_not_have():
    found = []
    for name, text in _texts():
        for number, line in enumerate(text.splitlines(), start=1):
            rest = line.replace(ALLOWED.get(name, "\0"), "")
            if FORBIDDEN.search(rest):
                found.append(f"{name}:{number}: {line.strip()}")
    assert found == []


def test_no_text_names_a_file_that_is_not_here():
    ends = {"/".join(parts[-n:]) for parts in map(_parts, _tracked()) for n in range(1, len(parts) + 1)}
    missing = [
        f"{name}: {path}"
        for name, text in _texts()
        for path in PATH.findall(text)
        if path not in ends | OTHERS and not _made(name, path)
    ]
    assert missing == []


def test_every_exception_is_needed():
    texts = _texts()
    assert {path for path in OTHERS if not any(path in text for _, text in texts)} == set()
    assert {name for name, words in ALLOWED.items() if words not in (REPOSITORY / name).read_text()} == set()


def test_no_page_names_a_class_that_is_not_here():
    texts = dict(_texts())
    defined = {name for text in texts.values() for name in re.findall(r"^ *class (\w+)", text, re.MULTILINE)}
    missing = [
        f"{page}: {name}"
        for page, text in texts.items()
        if page.endswith(".md")
        for name in re.findall(r"`([A-Z][a-z]+(?:[A-Z][a-z]+)+)\b", text)
        if name not in defined
    ]
    assert missing == []


def test_no_page_names_a_folder_that_is_not_here():
    folders = [f"/{Path(name).parent}/" for name in _tracked()]
    missing = [
        f"{name}: {folder}"
        for name, text in _texts()
        if name.endswith(".md")
        for folder in FOLDER.findall(text)
        if not any(f"/{folder}" in path for path in folders) and folder not in GIVEN_FOLDERS
    ]
    assert missing == []


GIVEN_FOLDERS = {"bench_data/"}
"""Folders of others, and of users."""


def test_no_text_names_a_module_that_is_not_here():
    missing = [
        f"{name}: {module}"
        for name, text in _texts()
        for module in MODULE.findall(text)
        if not NOT_MODULES.match(module) and not _resolves(module)
    ]
    assert missing == []


def _parts(name: str) -> tuple[str, ...]:
    return Path(name).parts


def _made(name: str, path: str) -> bool:
    """Whether `path` is a file that somebody makes: an example's output, or what a test writes."""
    if name.startswith("tests/"):
        return path.partition("/")[0] not in {
            "docs",
            "src",
            "tests",
            "benchmarks",
            "training",
            "calibration",
            "models",
        }
    return "/" not in path and path.endswith(".yaml")


def _resolves(module: str) -> bool:
    """Whether it is a module, or something that one defines."""
    first, *names = module.split(".")
    at = REPOSITORY / ("src" if first == "wingspan" else "") / first
    for number, name in enumerate(names):
        if (at / name).is_dir() or (at / f"{name}.py").is_file():
            at = at / name
            continue
        file = at / "__init__.py" if at.is_dir() else at.with_suffix(".py")
        return file.is_file() and bool(re.search(rf"\b{re.escape(names[number])}\b", file.read_text()))
    return True
