"""What the homes of a group compute in one step, whoever takes it: ranks that serve, or a simulation of them.

Shapes: H homes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from wingspan.schedule.prompts import Piece


@dataclass(frozen=True)
class StepLoad:
    """One step: prompts that are computed, and sequences that decode.

    Args:
        decoding_H: sequences of each home that get their next token.
        context_tokens: tokens that these have, all together.
        prompts: what each home computes of its prompts, in order; homes that compute none may be left out.
    """

    decoding_H: tuple[int, ...]
    context_tokens: int
    prompts: Mapping[int, Sequence[Piece]] = field(default_factory=dict)

    @property
    def decoding(self) -> tuple[float, float]:
        """Sequences that decode: on the fullest home, and in the mean."""
        return max(self.decoding_H), sum(self.decoding_H) / len(self.decoding_H)

    @property
    def mean_context(self) -> float:
        """Tokens of a decoding sequence in the mean; 0 where there is none."""
        return self.context_tokens / max(1, sum(self.decoding_H))

    @property
    def computing(self) -> tuple[float, float]:
        """All tokens, decoded and prefilled: on the fullest home, and in the mean."""
        tokens_H = list(self.decoding_H)
        for home, pieces in self.prompts.items():
            tokens_H[home] += sum(piece.tokens for piece in pieces)
        return max(tokens_H), sum(tokens_H) / len(tokens_H)

    @property
    def prompt_tokens(self) -> tuple[float, float]:
        """Tokens of prompts: on the fullest home, and in the mean."""
        tokens = [sum(piece.tokens for piece in pieces) for pieces in self.prompts.values()]
        return max(tokens, default=0), sum(tokens) / len(self.decoding_H)

    @property
    def attended_tokens(self) -> float:
        """Earlier tokens and itself that a prompt's token attends to, in the mean; 0 where there is none."""
        pieces = [piece for of_home in self.prompts.values() for piece in of_home]
        tokens = sum(piece.tokens for piece in pieces)
        return sum(piece.attended_pairs for piece in pieces) / max(1, tokens)

    @property
    def prompt_forwards(self) -> list[list[tuple[Piece, ...]]]:
        """The forwards in which an engine computes these prompts: in each, the pieces of every home that has some."""
        of_homes = [forwards_of(pieces) for pieces in self.prompts.values()]
        return [[group for group in groups if group] for groups in zip_longest(*of_homes, fillvalue=())]


def forwards_of(pieces: Sequence[Piece], *, together: bool = True) -> list[tuple[Piece, ...]]:
    """One home's pieces by forwards of the model: whole prompts go together, so the rests of cached ones, a part alone.

    Args:
        pieces: of one step.
        together: whole prompts of any length may share a forward; otherwise only those of one length.
    """
    groups: dict[object, list[Piece]] = {}
    for piece in pieces:
        key: object = ("part", piece.request)
        if piece.is_last and piece.begin == piece.cached:
            key = ("whole" if together else piece.tokens, bool(piece.cached))
        groups.setdefault(key, []).append(piece)
    return [tuple(group) for group in groups.values()]
