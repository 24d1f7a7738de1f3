"""Text that comes in pieces adds up to what the whole would be, whatever the tokens' borders."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from wingspan.server.text import TextStream


def decode(ids: Sequence[int]) -> str:
    """A tokenizer of bytes, as the shipped model's: several tokens may make one character."""
    return bytes(ids).decode("utf-8", errors="replace")


def run(text: str, stops: Sequence[str], *, keep: bool = False) -> tuple[list[str], TextStream]:
    stream = TextStream(decode, stops, keep_stop=keep)
    pieces = []
    for token in text.encode():
        pieces.append(stream.push(token))
        if stream.stopped_by is not None:
            return pieces, stream
    return [*pieces, stream.end()], stream


def first_stop(text: str, stops: Sequence[str]) -> tuple[int, str] | None:
    """Where the answer ends by looking at it as it grows, character by character."""
    for end in range(1, len(text) + 1):
        found = [(text.find(stop), -len(stop), stop) for stop in stops if text[:end].find(stop) >= 0]
        if found:
            at, _, stop = min(found)
            return at, stop
    return None


texts = st.text(alphabet="abé€😀 ", max_size=30)
stops = st.lists(st.text(alphabet="abé€😀 ", min_size=1, max_size=4), max_size=3)


@given(texts, stops)
def test_pieces_add_up_to_the_text_before_the_stop(text: str, stop_texts: list[str]) -> None:
    pieces, stream = run(text, stop_texts)
    expected = first_stop(text, stop_texts)
    assert "".join(pieces) == (text if expected is None else text[: expected[0]])
    assert stream.stopped_by == (None if expected is None else expected[1])
    assert stream.length == len("".join(pieces))


@given(texts, stops)
def test_a_stop_that_is_kept_ends_the_text(text: str, stop_texts: list[str]) -> None:
    pieces, _ = run(text, stop_texts, keep=True)
    expected = first_stop(text, stop_texts)
    assert "".join(pieces) == (text if expected is None else text[: expected[0]] + expected[1])


@given(texts)
def test_no_piece_holds_a_part_of_a_character(text: str) -> None:
    assert not any("\ufffd" in piece for piece in run(text, [])[0])


def test_bytes_that_are_no_text_come_out_at_the_end() -> None:
    stream = TextStream(decode)
    assert stream.push(0xC3) == ""
    assert stream.end() == "\ufffd"
