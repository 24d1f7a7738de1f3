"""`from wingspan import ...` plans, predicts and places in one call each, without torch and without the terminal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import wingspan
from wingspan.errors import InputError

_PLANNED = """
import sys
{before}
import wingspan
assert not [name for name in ("numpy", "pydantic", "torch") if name in sys.modules], "importing wingspan is not light"
from wingspan import Description, load_cluster, load_model, place, plan, simulate
said = Description(load_model("mixtral-8x7b"), load_cluster("h100-sxm"), tokens_per_gpu=16)
made = plan(said, gpus=8)
assert simulate(made.shown.deployment).step_seconds == made.shown.report.step_seconds
assert callable(place)
print(sorted({{"torch", "transformers", "rich", "typer", "plotly"}} & set(sys.modules)))
"""


@pytest.mark.parametrize("before", ["", "import wingspan.simulate.step\nimport wingspan.front"])
def test_planning_loads_neither_torch_nor_the_terminal(before: str) -> None:
    """Whatever was imported before, `simulate` is what predicts."""
    text = _PLANNED.format(before=before)
    if before:
        text = text.replace("assert not [", "[")
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, check=False, timeout=100
    )
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_every_public_name_is_there() -> None:
    assert [name for name in wingspan.__all__ if getattr(wingspan, name, None) is None] == []
    assert set(wingspan.__all__) <= set(dir(wingspan))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        getattr(wingspan, "nothing")  # noqa: B009


def test_a_description_is_what_the_command_line_says(tmp_path: Path) -> None:
    from tests.cli.without_torch import run_without_torch

    out = tmp_path / "d.json"
    words = ("--ranks", "8", "-b", "32", "--routing", "log-normal:0.6", "--schedule", "chunks:3")
    done = run_without_torch("simulate", "mixtral-8x7b", *words, "--out", str(out))
    assert done.returncode == 0, done.stderr
    said = wingspan.Description(
        "mixtral-8x7b", ranks=8, tokens_per_gpu=32, routing="log-normal:0.6", schedule="chunks:3"
    )
    assert wingspan.simulate(said) == wingspan.simulate(wingspan.Description(str(out)))


def test_placing_takes_the_tokens_of_the_traces_steps() -> None:
    from tests.placement.examples import trace
    from wingspan.routing.synthetic import TraceShape

    made = wingspan.place(
        wingspan.Description("models/tiny", ranks=8), trace("communities", TraceShape(2000, 7, 8, 2, 8, 16))
    )
    assert {"linear", "ours"} <= set(made.placements)


def test_an_error_names_the_field() -> None:
    with pytest.raises(InputError, match="`schedule` chunks:0"):
        wingspan.simulate(wingspan.Description("mixtral-8x7b", schedule="chunks:0"))


_WITHOUT = """
import sys
sys.modules[{missing!r}] = None
try:
    from wingspan import {name}
except ImportError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("name", "missing"), [("LLM", "torch"), ("LLM", "transformers"), ("Sampling", "torch")]
)
def test_what_needs_torch_says_what_to_install(name: str, missing: str) -> None:
    text = _WITHOUT.format(name=name, missing=missing)
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, check=True, timeout=100
    )
    assert done.stdout == f"wingspan.{name} needs {missing}; pip install 'wingspan[runtime]'\n"
