"""Options of commands that run ranks, or take long: each changes the outcome or is refused.

As in `test_options_act.py`, but what differs from run to run is left out before outcomes are compared.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import REPOSITORY, Command
from tests.cli.test_calibrate_bench import ACTS as FROM_BENCH
from tests.cli.tree import COMMANDS
from wingspan.deployment import save_deployment
from wingspan.describe import Description, deployment_of

TINY = "models/tiny"
FILE = "FILE"
"""Stands for a file in a new folder; that it is written is the effect."""
TRACE_FILE = "written.parquet"
"""The same, where it is a routing trace, whose name says so."""

RUN = (
    "run", TINY, "--ranks", "2", "--experts-per-rank", "4", "--prompt-ids", "5,9,17,3", "--prompt-ids", "8,8",
    "--max-new-tokens", "2", "--json",
)  # fmt: skip
WARM = (*RUN, "--temperature", "1")
CALIBRATE = ("calibrate", "--ranks", "2", "--ranks-per-node", "1")
RECORD = (
    "record", TINY, "--text", "LICENSE", "--ranks", "2", "--max-tokens", "300", "--request-tokens", "10",
    "--out", TRACE_FILE,
)  # fmt: skip
COMPARE = ("compare", "DEPLOYMENT", "--steps", "1", "--json")

ROWS: dict[str, dict[str, tuple[str, ...]]] = {
    "run": {
        "--checkpoint": (*RUN, "--checkpoint", TINY), "--ranks": (*RUN, "--ranks", "4", "--experts-per-rank", "2"),
        "--experts-per-rank": (*RUN, "--experts-per-rank", "5"), "--ranks-per-node": (*RUN, "--ranks-per-node", "1"),
        "--placement": (*RUN, "--placement", "nothing"), "--prompt": (*RUN, "--prompt", "def"),
        "--prompts-file": (*RUN, "--prompts-file", "LICENSE", "--max-new-tokens", "1"),
        "--prompt-ids": (*RUN, "--prompt-ids", "7"), "--max-new-tokens": (*RUN, "--max-new-tokens", "3"),
        "--temperature": WARM, "--top-k": (*RUN, "--top-k", "3"), "--top-p": (*RUN, "--top-p", "0.5"),
        "--min-p": (*RUN, "--min-p", "0.1"),
        "--seed": (*RUN, "--seed", "3"), "--dtype": (*RUN, "--dtype", "float32"), "--device": (*RUN, "--device", "tpu"),
        "--rebalance": (*RUN, "--rebalance", "every 0"), "--schedule": (*RUN, "--schedule", "chunks:2"),
        "--cluster": (*RUN, "--cluster", "h800"), "--transport": (*RUN, "--transport", "pigeon"),
        "--dispatcher": (*RUN, "--dispatcher", "deduplicated"), "--row-precision": (*RUN, "--row-precision", "float8"),
        "--check": (*RUN, "--check"), "--trace": (*RUN, "--trace", FILE),
        "--html": (*RUN, "--html", FILE), "--out": (*RUN, "--out", FILE),
        "--wait-seconds": (*RUN, "--wait-seconds", "5"), "--json": RUN[:-1],
    },
    "record": {
        "--text": (*RECORD, "--text", "Makefile"), "--ranks": (*RECORD, "--ranks", "4"),
        "--out": (*RECORD, "--out", TRACE_FILE), "--experts-per-rank": (*RECORD, "--experts-per-rank", "3"),
        "--ranks-per-node": (*RECORD, "--ranks", "4", "--ranks-per-node", "3"),
        "--request-tokens": (*RECORD, "--request-tokens", "20"),
        "--requests-per-step": (*RECORD, "--requests-per-step", "1"),
        "--max-tokens": (*RECORD, "--max-tokens", "20"), "--dtype": (*RECORD, "--dtype", "float32"),
        "--device": (*RECORD, "--device", "tpu"), "--wait-seconds": (*RECORD, "--wait-seconds", "5"),
        "--json": (*RECORD, "--json"),
    },
    "compare": {
        "--compute": (*COMPARE, "--compute", "real"), "--checkpoint": (*COMPARE, "--checkpoint", TINY),
        "--cluster": (*COMPARE, "--cluster", "none.yaml"), "--time-scale": (*COMPARE, "--time-scale", "0"),
        "--ranks-per-node": (*COMPARE, "--ranks-per-node", "1"), "--steps": (*COMPARE, "--steps", "2"),
        "--transport": (*COMPARE, "--transport", "pigeon"), "--trace": (*COMPARE, "--trace", FILE),
        "--html": (*COMPARE, "--html", FILE),
        "--wait-seconds": (*COMPARE, "--wait-seconds", "5"), "--json": COMPARE[:-1],
        "--serving": (*COMPARE, "--serving"), "--ranks": (*COMPARE, "--ranks", "2"),
        "--rate": (*COMPARE, "--rate", "2"),
        "--num-requests": (*COMPARE, "--num-requests", "9"), "--prompt-tokens": (*COMPARE, "--prompt-tokens", "9"),
        "--output-tokens": (*COMPARE, "--output-tokens", "9"), "--length-spread": (*COMPARE, "--length-spread", "0"),
        "--max-sequences": (*COMPARE, "--max-sequences", "2"), "--step-tokens": (*COMPARE, "--step-tokens", "9"),
        "--rounds": (*COMPARE, "--rounds", "1"), "--seed": (*COMPARE, "--seed", "1"),
    },
    "calibrate": {
        "--ranks": (*CALIBRATE, "--ranks", "1"), "--ranks-per-node": (*CALIBRATE, "--ranks-per-node", "2"),
        "--out": (*CALIBRATE, "--out", FILE), "--cluster-name": (*CALIBRATE, "--cluster-name", "other"),
        "--device": (*CALIBRATE, "--device", "tpu"), "--transport": (*CALIBRATE, "--transport", "pigeon"),
        "--wait-seconds": (*CALIBRATE, "--wait-seconds", "5"),
    },
}  # fmt: skip
BASES = {"run": RUN, "record": RECORD, "calibrate": CALIBRATE, "compare": COMPARE}

_VARIES = re.compile(r"second|memory|slowest|exposed|report$|notes|links|utilisation|compared|error")
"""Figures of a run that depend on how busy the machine is."""


def _steady(text: str) -> Any:
    """The output without what varies; text that is no JSON: without its numbers."""
    try:
        return _without_times(json.loads(text))
    except ValueError:
        return re.sub(r"[-\d.,]+(e-?\d+)?( [kMG]?B| [a-z]?s)?|─+| +", " ", text)


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {key: each for key, each in value.items() if key == "report" or not _VARIES.search(key)}
        return {key: _without_times(each) for key, each in kept.items()}
    return [_without_times(each) for each in value] if isinstance(value, list) else value


def _outcome(wingspan: Command, command: str, arguments: tuple[str, ...], folder: Path) -> Any:
    folder.mkdir()
    done = wingspan(
        *(str(folder / f"{n}{a}") if a in (FILE, TRACE_FILE) else a for n, a in enumerate(arguments))
    )
    assert done.code in (0, 2), done.err
    if done.code == 2:
        assert done.err.count("\n") == 1
        return 2, done.err
    files = sorted(file.name for file in folder.rglob("*") if file.is_file())
    if command != "record":
        return 0, _steady(done.out), files
    out = re.sub(
        r"[\d,.]+ tokens/s|\"[a-z_]*second[a-z_]*\": [\d.e-]+", "", done.out.replace(str(folder), "")
    )
    return 0, out, [(folder / name).read_bytes() for name in files]


@pytest.mark.parametrize("command", ROWS)
def test_every_option_changes_something_or_is_refused(
    wingspan: Command, tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(REPOSITORY)
    deployment = tmp_path / "d.json"
    save_deployment(
        deployment_of(Description(TINY, ranks=2, experts_per_rank=4, tokens_per_gpu=2)), deployment
    )
    base = _placed(BASES[command], deployment)
    _quick_calibration(monkeypatch)
    params = COMMANDS[command].params
    names = {p.opts[0] for p in params if p.param_type_name == "option" and p.name != "help"}
    assert names == ROWS[command].keys() | (FROM_BENCH.keys() if command == "calibrate" else set())
    before = _outcome(wingspan, command, base, tmp_path / "base")
    assert before[0] == 0, before
    again = _outcome(wingspan, command, base, tmp_path / "again")
    assert again == before, "what varies by itself shows nothing"
    idle = [
        option
        for number, (option, arguments) in enumerate(ROWS[command].items())
        if _outcome(wingspan, command, _placed(arguments, deployment), tmp_path / str(number)) == before
    ]
    assert idle == []


def _placed(arguments: tuple[str, ...], deployment: Path) -> tuple[str, ...]:
    return tuple(str(deployment) if a == "DEPLOYMENT" else a for a in arguments)


def _quick_calibration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few and small samples; ranks are forked, and so inherit this."""
    from wingspan.runtime import calibration
    from wingspan.runtime.measuring import calibrate

    monkeypatch.setattr(calibration, "measure_overheads", lambda *_: None)
    few = calibrate.ProbeSizes(rows=(1, 4), read_bytes=2**20, message_bytes=(2**10, 2**14))
    monkeypatch.setattr(calibrate, "CPU_SIZES", few)


@pytest.mark.parametrize("option", [["--cluster", "h800"], ["--brief"], ["--json"]])
def test_options_of_claims_act(wingspan: Command, monkeypatch: pytest.MonkeyPatch, option: list[str]):
    import wingspan.simulate.claims as room

    monkeypatch.setattr(room, "claims", lambda *given: [_claim(given[3].name)])
    assert wingspan("claims", *option).out != wingspan("claims").out


def _claim(name: str) -> Any:
    from wingspan.simulate.claims import Claim

    fields = Claim.__dataclass_fields__
    given = {"claim": name, "said": "so", "computed": 1.0, "unit": "x", "holds": True, "fits": None, "own": None,
             "own_fits": None, "conditions": ("one",)}  # fmt: skip
    return Claim(**{key: value for key, value in given.items() if key in fields})
