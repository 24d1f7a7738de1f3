"""Uneven streams over every kind of attention, by the engine behind the server; all of it: `benchmarks.serving_kinds`.

Each day another architecture of each kind has its turn, so that the tests stay short and all are run.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from benchmarks.serving_kinds import KINDS, STREAMS, differing, judge, streams

from wingspan.runtime.model.known import architectures

TODAY = date.today().toordinal()


def of_today(members: tuple[str, ...]) -> str:
    return members[TODAY % len(members)]


def test_no_architecture_is_of_two_kinds() -> None:
    members = [name for kind in KINDS.values() for name in kind]
    assert len(members) == len(set(members))
    assert set(members) <= set(architectures())


@pytest.mark.parametrize("name", [of_today(members) for members in KINDS.values()])
def test_streams_that_come_and_go_are_what_each_is_alone(name: str, tmp_path: Path) -> None:
    assert judge(name, tmp_path) == []


def test_streams_through_http_are_what_each_is_alone(tmp_path: Path) -> None:
    kinds = list(KINDS.values())
    assert judge(of_today(kinds[TODAY % len(kinds)]), tmp_path, http=True) == []


def test_streams_are_uneven_and_some_leave() -> None:
    asked = streams("mixtral")
    assert len(asked) == STREAMS
    assert len({len(stream.request.ids) for stream in asked}) > 3
    assert 0 < sum(stream.leaves for stream in asked) < STREAMS / 2


def test_the_judge_sees_a_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.serving_kinds.plain_model", lambda _: None)
    monkeypatch.setattr("benchmarks.serving_kinds.plain_tokens", lambda *_: [1, 2])
    asked = streams("mixtral")
    got = ['!"' if not stream.leaves else "!" for stream in asked]
    assert differing(tmp_path, asked, got) == []
    assert differing(tmp_path, asked, ['""', *got[1:]]) == ["stream 0: '\"\"' instead of '!\"'"]
