"""What a step computes: in how many forwards, and how much on the fullest home and the mean one."""

from __future__ import annotations

from wingspan.schedule.prompts import Piece
from wingspan.schedule.step_load import StepLoad, forwards_of


def _piece(request: int, begin: int, tokens: int, *, is_last: bool) -> Piece:
    return Piece(request, begin, tokens, left=0 if is_last else 9)


def test_whole_prompts_share_a_forward_and_parts_have_their_own() -> None:
    end, whole = _piece(1, 10, 5, is_last=True), _piece(2, 0, 7, is_last=True)
    other, part = _piece(3, 0, 4, is_last=True), _piece(4, 0, 3, is_last=False)
    assert forwards_of([end, whole, other, part]) == [(end,), (whole, other), (part,)]
    assert forwards_of([whole, other], together=False) == [(whole,), (other,)]
    load = StepLoad((2, 0, 1), 90, {0: [end, whole], 2: [other]})
    assert load.prompt_forwards == [[(end,), (other,)], [(whole,)]]


def test_figures_count_the_fullest_home_and_the_mean() -> None:
    load = StepLoad((2, 0, 1), 90, {2: [_piece(3, 0, 4, is_last=True)]})
    assert load.decoding == (2, 1)
    assert load.mean_context == 30
    assert load.computing == (5, 7 / 3)
    assert load.attended_tokens == 2.5
    assert StepLoad((0, 0), 0).mean_context == StepLoad((1, 0), 3).attended_tokens == 0
