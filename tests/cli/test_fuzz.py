"""Wrong input of every kind, drawn: each ends in one line and exit code 2, soon, and leaves nothing.

WINGSPAN_FUZZ=4000 draws more; WINGSPAN_FUZZ_SEED another start.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.cli.forking import Case, Outcome, outcomes
from tests.cli.fuzz_cases import light_cases, runtime_cases
from tests.cli.fuzz_files import make_folder

DRAWN = int(os.environ.get("WINGSPAN_FUZZ", "300"))
SEED = int(os.environ.get("WINGSPAN_FUZZ_SEED", "0"))
_SHARE_OF_RUNTIME = 0.12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("fuzz")
    make_folder(made)
    return made


def drawn(strategy: st.SearchStrategy[Case], count: int) -> list[Case]:
    cases: list[Case] = []

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.seed(SEED)
    @given(strategy)
    def collect(case: Case) -> None:
        cases.append(case)

    collect()
    return cases


def complaints(ended: Outcome) -> Iterator[str]:
    """What is wrong with how a wrong command line ended; some drawn ones turn out to be right, and may succeed."""
    command = ended.arguments[0] if ended.arguments else ""
    if ended.code is None:
        yield "not done within the limit"
        return
    if "Traceback" in ended.err + ended.out:
        yield "a traceback"
    if ended.left_processes:
        yield "a process is left"
    partial = [name for name in ended.changed if name.endswith(".partial")]
    if partial:
        yield f"half-written: {partial}"
    if ended.code == 0:
        if "--json" in ended.arguments and not _is_strict_json(ended.out):
            yield "JSON that not every reader takes"
        return
    if ("Usage:" in ended.out and not ended.err) or (
        command == "diff" and (ended.code, ended.err) == (1, "")
    ):
        return  # the help was printed; there are differences
    if "a mistake of its own" in ended.err:
        yield "a mistake of its own"
    allowed = (1, 2) if command in ("run", "record", "compare", "validate", "doctor") else (2,)
    if ended.code not in allowed:
        yield f"exit code {ended.code}"
    if ended.err.count("\n") != 1 or not ended.err.startswith("wingspan"):
        yield "not one line of its own"
    if len(ended.err) > 2000:
        yield "a line that nobody reads"
    if ended.changed:
        yield f"something written: {ended.changed}"


def _is_strict_json(text: str) -> bool:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        json.loads(text, parse_constant=refuse)
    except ValueError:
        return False
    return True


def check_all(kind: str, folder: Path, cases: list[Case]) -> None:
    found = []
    count = 0
    for ended in outcomes(kind, folder, cases):
        count += 1
        for complaint in complaints(ended):
            lines = ended.err.strip().splitlines()[-6:]
            found.append(
                "\n    ".join(
                    [f"{complaint}: {ended.arguments} ({ended.code}, {ended.seconds:.1f} s)", *lines]
                )
            )
    assert count == len(cases)
    assert not found, f"{len(found)} of {count}\n" + "\n".join(found)


@pytest.mark.timeout(900)
def test_wrong_input_is_one_line_everywhere(folder: Path) -> None:
    cases = drawn(light_cases(folder), round(DRAWN * (1 - _SHARE_OF_RUNTIME)))
    check_all("light", folder, cases)


@pytest.mark.timeout(900)
def test_wrong_configurations_are_one_line_where_transformers_reads_them(folder: Path) -> None:
    check_all("runtime", folder, drawn(runtime_cases(), round(DRAWN * _SHARE_OF_RUNTIME)))
