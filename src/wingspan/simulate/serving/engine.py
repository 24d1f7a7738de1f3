"""Serves requests: events in order of time, prefill and decode on one group or on two.

Separate groups: the prefill group computes the prompt and gives the first token; the decode group admits the
request as soon as it has room and pulls the KV cache over; the prefill group holds it until then.

Shapes: N requests, H homes.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from wingspan.errors import InputError
from wingspan.simulate.serving.group import GroupSpec, GroupState
from wingspan.specs.requests import Requests

_ONE_AFTER_ANOTHER = 0.35
"""A part of the time that a request takes to come: who sends and who receives are one thread each.

Measured on `wingspan serve`: of requests sent at once two or three are in the first step, the others find it begun.
"""


@dataclass(frozen=True)
class KVTransfer:
    """How a prompt's KV cache travels from its prefill home to its decode home.

    Each home sends or receives one cache at a time, at the full bandwidth.
    """

    bytes_per_token: float
    bytes_per_second: float
    latency_seconds: float

    def __post_init__(self) -> None:
        if self.bytes_per_token < 0 or self.latency_seconds < 0 or not self.bytes_per_second > 0:
            raise InputError(
                f"KV transfer: {self.bytes_per_token} bytes a token at {self.bytes_per_second} bytes a second after "
                f"{self.latency_seconds} s; bandwidth must be above 0, the others at least 0"
            )

    def seconds(self, tokens: int) -> float:
        """Time for the KV cache of `tokens` tokens."""
        return self.latency_seconds + tokens * self.bytes_per_token / self.bytes_per_second


@dataclass(frozen=True)
class Fleet:
    """The groups that serve: one for both phases, or `prefill` and `decode` with the transfer between them."""

    prefill: GroupSpec
    decode: GroupSpec | None = None
    transfer: KVTransfer | None = None
    prefix_caching: bool = False
    """Whether what prompts share is computed once on a home, while it is held; for requests that have blocks."""
    request_seconds: float = 0.0
    """From when a request is sent until it can be computed: client, network, reading it. A part of it passes for one
    request after another; those that have come through that part are admitted with the first. 0: all come at once."""

    def __post_init__(self) -> None:
        if (self.decode is None) != (self.transfer is None):
            raise InputError(
                "serving: a separate decode group needs a KV transfer, and a transfer needs that group"
            )

    @property
    def groups(self) -> list[GroupSpec]:
        """Every group once."""
        return [self.prefill] if self.decode is None else [self.prefill, self.decode]


@dataclass(frozen=True)
class Occupancy:
    """What happened until a moment: request-seconds in the system, and of each group the seconds it was busy.

    `decode_steps` and `decoded_tokens` are those of the group that decodes.
    """

    request_seconds: float
    busy_seconds: dict[str, float]
    decode_steps: int
    decoded_tokens: int


@dataclass(frozen=True, eq=False)
class Served:
    """When each request was admitted, got its first and its last token (seconds), and how the groups fared."""

    requests: Requests
    admitted_seconds_N: NDArray[np.float64]
    first_token_seconds_N: NDArray[np.float64]
    finish_seconds_N: NDArray[np.float64]
    arriving: Occupancy
    """Until the last request arrived."""
    whole: Occupancy
    """Until the last request left."""
    groups: list[GroupState]
    prefix_hit_share: float | None = None
    """Prompt tokens that were found computed; None without prefix caching."""


def serve(
    requests: Requests,
    fleet: Fleet,
    watch: Callable[[int], None] = lambda _: None,
    *,
    concurrency: int | None = None,
) -> Served:
    """Serve all requests to the end.

    Args:
        requests: in order of arrival.
        fleet: what serves them.
        watch: told how many have left, whenever one does.
        concurrency: the most that their client has under way: others arrive as soon as one leaves; None: no limit.

    Raises:
        InputError: a request whose KV cache no home has room for.
    """
    return _Serving(requests, fleet, watch, len(requests) if concurrency is None else concurrency).run()


class _Serving:
    """One simulation: the clock, the events to come, and what happened to each request."""

    def __init__(
        self, requests: Requests, fleet: Fleet, watch: Callable[[int], None], concurrency: int
    ) -> None:
        self._requests = requests
        self._concurrency = concurrency
        self._due = self._sent = 0
        self._sent_seconds_N = requests.arrival_seconds_N.copy()
        self._prompt = requests.prompt_tokens_N.tolist()
        self._output = requests.output_tokens_N.tolist()
        self._transfer = fleet.transfer
        self._caching = fleet.prefix_caching
        self._coming_seconds = fleet.request_seconds
        self._front_free = 0.0
        self._awake = 0.0  # until then nobody has told a group that was idle of the request that comes
        whole_N = requests.prompt_tokens_N + requests.output_tokens_N
        together = fleet.decode is None
        self._prefill = GroupState(
            fleet.prefill,
            whole_N if together else requests.prompt_tokens_N,
            requests if fleet.prefix_caching else None,
        )
        # A request that a separate decode group put back would need the prefill group again.
        self._decode = (
            self._prefill if fleet.decode is None else GroupState(fleet.decode, whole_N, grows=False)
        )
        self._groups = [self._prefill] if together else [self._prefill, self._decode]
        self._sender_free_H = [0.0] * fleet.prefill.homes
        self._receiver_free_H = [0.0] * (fleet.decode.homes if fleet.decode else 0)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._now = 0.0
        self._in_system = 0
        self._left = 0
        self._watch = watch
        self._request_seconds = 0.0
        self._arriving = Occupancy(0.0, {}, 0, 0)
        self._admitted, self._first, self._finish = (np.full(len(requests), np.nan) for _ in range(3))

    def run(self) -> Served:
        self._at(float(self._requests.arrival_seconds_N[0]), self._come_due)
        while self._events:
            time = self._events[0][0]
            self._request_seconds += self._in_system * (time - self._now)
            self._now = time
            # All that happens at one instant comes before the steps that begin then.
            while self._events and self._events[0][0] == time:
                heapq.heappop(self._events)[2]()
            for group in self._groups:
                self._keep_busy(group)
        return Served(
            replace(self._requests, arrival_seconds_N=self._sent_seconds_N),
            self._admitted,
            self._first,
            self._finish,
            self._arriving,
            self._occupancy(),
            self._groups,
            self._prefill.cached_tokens / sum(self._prompt) if self._caching else None,
        )

    def _at(self, time: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time, next(self._order), action))

    def _come_due(self) -> None:
        """The client has another request to send."""
        self._due += 1
        if self._due < len(self._requests):
            self._at(float(self._requests.arrival_seconds_N[self._due]), self._come_due)
        self._send()

    def _send(self) -> None:
        """Let what is due arrive, as far as the client may have it under way."""
        while self._sent < self._due and self._in_system < self._concurrency:
            request = self._sent
            self._sent += 1
            self._in_system += 1
            self._sent_seconds_N[request] = self._now
            self._come(request)
            if self._sent == len(self._requests):
                self._arriving = self._occupancy()

    def _come(self, request: int) -> None:
        """Let a request that was sent just now come to the group."""
        if not self._coming_seconds:
            self._submit(request)
            return
        self._front_free = max(self._now, self._front_free) + self._coming_seconds * _ONE_AFTER_ANOTHER
        self._at(self._front_free, lambda: self._submit(request))

    def _submit(self, request: int) -> None:
        if self._coming_seconds and self._prefill.idle:
            self._awake = self._now + self._coming_seconds * (1 - _ONE_AFTER_ANOTHER)
            self._at(self._awake, lambda: None)
        prompt = self._prompt[request]
        self._prefill.submit(request, prompt, prompt_tokens=prompt)

    def _occupancy(self) -> Occupancy:
        busy = {group.spec.name: group.busy_seconds_until(self._now) for group in self._groups}
        rows = self._groups[-1].rows
        return Occupancy(self._request_seconds, busy, rows.steps, rows.decoded_tokens)

    def _keep_busy(self, group: GroupState) -> None:
        if group is self._prefill:
            if self._now < self._awake:
                return
            if not group.stepping:
                self._admit_to_prefill()
        else:
            self._admit_to_decode()
        if not group.stepping:
            horizon = self._events[0][0] if self._events else np.inf
            end = group.begin_step(self._now, horizon)
            if end is not None:
                self._at(end, lambda: self._end_step(group))

    def _admit_to_prefill(self) -> None:
        for request in self._prefill.admit():
            if np.isnan(self._admitted[request]):  # else it was put back meanwhile
                self._admitted[request] = self._now
            self._prefill.start_prefill(request, self._prompt[request])

    def _admit_to_decode(self) -> None:
        """Pull over the KV cache of those for whom the decode group has room."""
        if self._transfer is None:
            return
        for request in self._decode.admit():
            sender, receiver = self._prefill.home_of(request), self._decode.home_of(request)
            begin = max(self._now, self._sender_free_H[sender], self._receiver_free_H[receiver])
            end = begin + self._transfer.seconds(self._prompt[request])
            self._sender_free_H[sender] = self._receiver_free_H[receiver] = end
            self._at(end, lambda request=request: self._end_transfer(request))  # type: ignore[misc]

    def _end_transfer(self, request: int) -> None:
        self._prefill.release(request)
        self._start_decoding(request)

    def _start_decoding(self, request: int) -> None:
        self._decode.start_decoding(request, self._prompt[request] + 1, self._output[request] - 1)

    def _end_step(self, group: GroupState) -> None:
        outcome = group.end_step()
        for request in outcome.prefilled:
            self._first[request] = self._now
            if self._output[request] == 1:
                group.release(request)
                self._leave(request)
            elif self._transfer is None:
                self._start_decoding(request)
            else:
                self._decode.submit(request, self._prompt[request] + 1)
        for request in outcome.finished:
            self._leave(request)

    def _leave(self, request: int) -> None:
        self._finish[request] = self._now
        self._in_system -= 1
        self._left += 1
        self._watch(self._left)
        self._send()
