"""The routing trace: which experts each token chose, in every MoE layer, where the token lives and when it came.

Shapes: T tokens, L MoE layers, K experts per token (top-k), E logical experts per layer, R home ranks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wingspan.errors import InputError

MAX_EXPERTS = int(np.iinfo(np.int16).max) + 1


@dataclass(frozen=True, eq=False)
class RoutingTrace:
    """Tokens in time order, with the experts each chose.

    Args:
        experts_TLK: int16 (tokens, MoE layers, top-k); logical experts, each at most once per (token, layer).
        home_rank_T: int32 (tokens,); the rank on which the token's sequence lives.
        request_T: int32 (tokens,); the request, prompt or text window the token belongs to.
        step_T: int32 (tokens,); the forward pass it was part of, never falling.
        num_experts: logical experts per layer.
        num_ranks: home ranks there are; 0 takes the highest home rank + 1. Give it where the last ranks may
            hold no token.

    The arrays become read-only. An empty trace (0 tokens) is valid.

    Raises:
        InputError: shapes disagree, an id is out of range, a token picks an expert twice, or time runs backwards.
    """

    experts_TLK: NDArray[np.int16]
    home_rank_T: NDArray[np.int32]
    request_T: NDArray[np.int32]
    step_T: NDArray[np.int32]
    num_experts: int
    num_ranks: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.num_experts <= MAX_EXPERTS:
            raise InputError(f"routing trace: {self.num_experts} experts per layer; use 1 to {MAX_EXPERTS}")
        self._set("experts_TLK", _integers("experts_TLK", self.experts_TLK, np.int16))
        for name in ("home_rank_T", "request_T", "step_T"):
            self._set(name, _integers(name, getattr(self, name), np.int32))
        self._check_shapes()
        self._check_experts()
        self._check_tokens()
        object.__setattr__(self, "num_ranks", self.num_ranks or _highest(self.home_rank_T) + 1)

    @property
    def num_tokens(self) -> int:
        """Tokens in the trace."""
        return int(self.experts_TLK.shape[0])

    @property
    def num_layers(self) -> int:
        """MoE layers."""
        return int(self.experts_TLK.shape[1])

    @property
    def top_k(self) -> int:
        """Experts that each token picks in each MoE layer."""
        return int(self.experts_TLK.shape[2])

    def take(self, tokens: slice | NDArray[Any]) -> RoutingTrace:
        """These tokens only: a slice, a mask (tokens,), or rising indices."""
        return RoutingTrace(
            self.experts_TLK[tokens],
            self.home_rank_T[tokens],
            self.request_T[tokens],
            self.step_T[tokens],
            self.num_experts,
            self.num_ranks,
        )

    def chunks(self, tokens: int) -> Iterator[RoutingTrace]:
        """The trace in pieces of at most this many tokens."""
        for start in range(0, self.num_tokens, tokens):
            yield self.take(slice(start, start + tokens))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, RoutingTrace)
            and (self.num_experts, self.num_ranks) == (other.num_experts, other.num_ranks)
            and np.array_equal(self.experts_TLK, other.experts_TLK)
            and np.array_equal(self.home_rank_T, other.home_rank_T)
            and np.array_equal(self.request_T, other.request_T)
            and np.array_equal(self.step_T, other.step_T)
        )

    __hash__ = None  # type: ignore[assignment]

    def _set(self, name: str, array: NDArray[Any]) -> None:
        array.setflags(write=False)
        object.__setattr__(self, name, array)

    def _check_shapes(self) -> None:
        shape = self.experts_TLK.shape
        if len(shape) != 3 or 0 in shape[1:]:
            raise InputError(
                f"routing trace: expected experts (tokens, MoE layers, top-k), got shape {shape}"
            )
        if self.top_k > self.num_experts:
            raise InputError(f"routing trace: top-{self.top_k} of {self.num_experts} experts cannot be")
        for name in ("home_rank_T", "request_T", "step_T"):
            if getattr(self, name).shape != shape[:1]:
                raise InputError(
                    f"routing trace: {name} has shape {getattr(self, name).shape}, the experts {shape[0]} tokens"
                )

    def _check_experts(self) -> None:
        experts = self.experts_TLK
        if not experts.size:
            return
        if experts.min() < 0 or experts.max() >= self.num_experts:
            bad = np.argwhere((experts < 0) | (experts >= self.num_experts))[0]
            raise InputError(
                f"routing trace: token {bad[0]}, MoE layer {bad[1]} names expert {int(experts[tuple(bad)])}; "
                f"experts are 0..{self.num_experts - 1}"
            )
        for one in range(self.top_k):
            for two in range(one):
                same = experts[..., one] == experts[..., two]
                if same.any():
                    token, layer = (int(i) for i in np.argwhere(same)[0])
                    raise InputError(
                        f"routing trace: token {token}, MoE layer {layer} picks expert "
                        f"{int(experts[token, layer, one])} twice"
                    )

    def _check_tokens(self) -> None:
        for name in ("home_rank_T", "request_T", "step_T"):
            values = getattr(self, name)
            if values.size and values.min() < 0:
                token = int(np.argmax(values < 0))
                raise InputError(
                    f"routing trace: token {token} has {name} {int(values[token])}; use 0 or more"
                )
        if self.num_ranks < 0 or (self.num_ranks and _highest(self.home_rank_T) >= self.num_ranks):
            raise InputError(
                f"routing trace: a token lives on rank {_highest(self.home_rank_T)}, there are {self.num_ranks} ranks"
            )
        falls = np.diff(self.step_T) < 0
        if falls.any():
            token = int(np.argmax(falls)) + 1
            raise InputError(
                f"routing trace: token {token} is of step {int(self.step_T[token])}, the one before of step "
                f"{int(self.step_T[token - 1])}; tokens must be in time order"
            )


def concatenate(traces: Sequence[RoutingTrace]) -> RoutingTrace:
    """One trace from pieces that follow each other in time; raises `InputError` where they differ in shape."""
    if not traces:
        raise InputError("routing trace: no piece to join")
    first = traces[0]
    for trace in traces:
        check_same_shape(first, trace)
    return RoutingTrace(
        np.concatenate([t.experts_TLK for t in traces]),
        np.concatenate([t.home_rank_T for t in traces]),
        np.concatenate([t.request_T for t in traces]),
        np.concatenate([t.step_T for t in traces]),
        first.num_experts,
        max(t.num_ranks for t in traces),
    )


def check_same_shape(first: RoutingTrace, other: RoutingTrace) -> None:
    """Raise `InputError` unless both have the same layers, top-k and experts."""
    shapes = [(t.num_layers, t.top_k, t.num_experts) for t in (first, other)]
    if shapes[0] != shapes[1]:
        raise InputError(
            "routing trace: pieces differ: {} layers, top-{} of {} experts; then {} layers, top-{} of {}".format(
                *shapes[0], *shapes[1]
            )
        )


def _integers(name: str, values: Any, kind: type[np.signedinteger[Any]]) -> NDArray[Any]:
    """A view of `values` as `kind`; refuses fractions and numbers that do not fit."""
    array = np.asarray(values)
    if array.dtype == kind:
        return array.view()
    limit = np.iinfo(kind)
    if not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"routing trace: {name} holds {array.dtype}, expected whole numbers")
    if array.size and (array.min() < limit.min or array.max() > limit.max):
        raise InputError(f"routing trace: {name} holds numbers beyond {limit.min}..{limit.max}")
    return array.astype(kind)


def _highest(values: NDArray[np.int32]) -> int:
    return int(values.max()) if values.size else -1
