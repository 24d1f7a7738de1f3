"""Wrong options and outputs end as one line on stderr with exit code 2, before any work and with nothing written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.command import Command


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("simulat",), ["simulat", "Did you mean 'simulate'", "wingspan --help"]),
        (("simulate",), ["source", "wingspan simulate --help"]),
        (("simulate", "seed", "--ranks", "x"), ["--ranks", "given: x"]),
        (("simulate", "seed", "--ranks", "0"), ["--ranks", "given: 0"]),
        (("simulate", "seed", "--foo"), ["--foo"]),
        (("simulate", "seed", "--schedule", "chunks:100"), ["--schedule chunks:100", "64"]),
        (("simulate", "seed", "--schedule", "chunks:x"), ["--schedule chunks:x", "chunks:N"]),
        (("simulate", "seed", "--json", "--csv"), ["--json and --csv"]),
        (("simulate", "seed", "--placement", "best"), ["--placement best", "round-robin", "existing file"]),
        (("simulate", "seed", "--ranks", "100"), ["100 GPUs", "96 or 104"]),
        (
            ("simulate", "deepseek-v3", "--ranks", "72", "--experts-per-rank", "3"),
            ["--ranks 88 or --experts-per-rank 4"],
        ),
        (("simulate", "seed", "--ranks", "10000000000"), ["ranks = 10000000000", "16384"]),
        (("simulate", "seed", "-b", "1000000000000"), ["tokens_per_gpu = 1000000000000", "16777216"]),
        (("simulate", "seed", "--context", "5000"), ["context of 5,000", "4,096 that seed was made for"]),
        (("plan", "seed", "--context", "5000"), ["context of 5,000", "4,096 that seed was made for"]),
        (("sweep", "seed", "--context", "4096,5000"), ["context of 5,000", "4,096 that seed was made for"]),
        (
            ("simulate", "seed", "--phase", "prefill", "-b", "64", "--context", "65"),
            ["64 tokens", "prompt of 65"],
        ),
        (
            ("sweep", "seed", "--phase", "prefill", "-b", "64,128", "--context", "65"),
            ["64 tokens", "prompt of 65"],
        ),
        (("sweep", "seed", "--ranks", "16..10000000000"), ["--ranks 16..10000000000", "more than 16,384"]),
        (("sweep", "seed", "--ranks", "9" * 5000), ["--ranks 999", "neither a number"]),
        (("sweep", "seed", "--ranks", "16,²"), ["--ranks", "neither a number"]),
        (
            ("sweep", "seed", "--ranks", "16,32", "--tokens-per-gpu", "1000000000000"),
            ["--tokens-per-gpu 1000000000000", "16,777,216"],
        ),
        (
            ("simulate-serving", "seed", "--prompt-tokens", "4000"),
            ["--prompt-tokens 4000", "4,096 tokens that seed"],
        ),
        (
            ("place", "--synthetic", "uniform", "--ranks", "1000000000000"),
            ["1,000,000,000,000 ranks", "16,384"],
        ),
        (
            ("place", "--synthetic", "uniform", "--experts-per-rank", "1000000000000"),
            ["1,000,000,000,000 slots"],
        ),
        (
            ("synthesize", "uniform", "--layers", "1000000000", "--out", "x"),
            ["layers = 1,000,000,000", "1,000"],
        ),
        (
            ("synthesize", "uniform", "--tokens", "1000000000000", "--out", "x"),
            ["tokens = 1,000,000,000,000"],
        ),
        (
            ("simulate-serving", "seed", "--num-requests", "10000000000"),
            ["--num-requests", "more than 1,000,000"],
        ),
        (("plan", "deepseek-v3", "--longest-step-ms", "nan"), ["--longest-step-ms", "given: nan"]),
        (
            ("plan", "mixtral-8x7b", "--longest-step-ms", "0.1"),
            ["0.1 ms is too short", "1 new token per GPU"],
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_one_line_names_thing_value_and_mend(
    wingspan: Command, arguments: tuple[str, ...], words: list[str]
) -> None:
    ended = wingspan(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.count("\n") == 1
    for word in words:
        assert word in ended.err


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (("simulate", "mixtral-8x7b"), "--out"),
        (("simulate", "mixtral-8x7b"), "--trace"),
        (("simulate", "mixtral-8x7b"), "--html"),
        (("plan", "mixtral-8x7b"), "--out"),
        (("sweep", "mixtral-8x7b", "--ranks", "4,8"), "--html"),
        (("simulate-serving", "mixtral-8x7b", "--ranks", "8"), "--html"),
        (("place", "--synthetic", "uniform"), "--out"),
        (("synthesize", "uniform"), "--out"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value,
)
def test_an_output_that_cannot_be_written_is_named_first(
    wingspan: Command, tmp_path: Path, command: tuple[str, ...], option: str
) -> None:
    for path, mend in [
        (tmp_path, "name a file"),
        (f"{tmp_path}/no/", "name a file"),
        (tmp_path / "no" / "x", "create it first"),
    ]:
        ended = wingspan(*command, option, str(path))
        assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
        assert str(path) in ended.err
        assert mend in ended.err
    assert list(tmp_path.iterdir()) == []
