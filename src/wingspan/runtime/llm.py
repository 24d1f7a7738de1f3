"""A model as an object: its ranks are forked once, and requests are stepped through them while the caller looks on."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from operator import index
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar, cast

import torch
from transformers import PreTrainedConfig
from transformers.utils.logging import disable_progress_bar

from wingspan.balance.settings import Rebalance
from wingspan.deployment import Deployment
from wingspan.errors import InputError
from wingspan.runtime.generation.ledger import Continuation, FinishReason, StepResult
from wingspan.runtime.generation.prompts import check_ids, check_length
from wingspan.runtime.generation.requests import Length, Request
from wingspan.runtime.generation.sampling import Sampling
from wingspan.runtime.generation.tokenizer import Tokenizer
from wingspan.runtime.launch.met_ranks import Met
from wingspan.runtime.launch.obeying import Commanded, Obey, ObeyingRanks
from wingspan.runtime.measuring.figures import GroupFigures, Looks
from wingspan.runtime.model.engine import rank_bytes
from wingspan.runtime.model.padding import why_no_prefix_caching
from wingspan.runtime.ranks.capacity import prefix_bytes
from wingspan.runtime.ranks.device import select_device
from wingspan.runtime.setup.kv_room import kv_room
from wingspan.runtime.setup.setup import Asked, read_setup
from wingspan.runtime.start import Started, engine_setup, remarks, start
from wingspan.runtime.transport.transport import Transport
from wingspan.schedule.batching import UNLIMITED, BatchLimits
from wingspan.specs.placement import Placement

_LOG = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class Completion:
    """One prompt's continuation; `text` is None where the checkpoint has no tokenizer."""

    number: int
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    text: str | None
    finish_reason: FinishReason


class _Look:
    """Asks the ranks what they did."""


@dataclass(frozen=True)
class _News:
    """What the ranks are told before a step."""

    requests: tuple[Request, ...]
    withdrawn: tuple[int, ...]


class LLM:
    """A Mixture-of-Experts model over ranks of this machine, each with its own experts and its own sequences.

    Requests join and leave between steps. The ranks live until `close`, or as long as the thread that made them; use
    it as a context manager. What is done otherwise than the deployment or the checkpoint says is a warning in the log.

    Args:
        source: folder of a checkpoint in the Hugging Face format, a deployment, or a deployment's file; what is given
            beside a deployment changes what it says.
        ranks: processes to start, each a home for sequences; None: the deployment's, else one per core.
        experts_per_rank: slots of a rank in each layer; None: the deployment's, else as few as hold all experts.
        checkpoint: folder of a deployment's weights, where it names none or another.
        ranks_per_node: that count as one node; None: the deployment's, else all.
        placement: which expert lives in which slot, a file of that, or linear, round-robin, random or balanced; None:
            the deployment's, else linear.
        dtype: auto (the deployment's, else the checkpoint's; so is None), float32 or bfloat16.
        device: cpu or cuda.
        transport: auto, torch or shm.
        dispatcher: auto, flat, deduplicated, hierarchical, or another package's; None: the deployment's, else auto.
        schedule: sequential, chunks:N or two-batch; None: the deployment's, else sequential.
        row_precision: of rows to the experts: same (as the model computes), bfloat16 or float8; None: the
            deployment's, else same.
        rebalance: how experts move while requests are answered: off, auto (where the gain exceeds the cost), `every N`
            steps, or the settings themselves.
        sequences_per_rank: the most that a rank continues at a time; others wait.
        tokens_per_step: the most that a rank computes in a step; longer prompts take several steps where the model's
            caches allow it.
        kv_tokens_per_rank: tokens of KV cache that a rank has room for; None: what a quarter of the machine's free
            memory holds, shared by the ranks. Where they outgrow it, those that joined last are put back, and computed
            again later; no token changes. Blocks of running sequences that are kept for others come on top.
        prefix_caching: what prompts and answers begin with is computed once on a rank, as long as there is memory for
            it (a tenth of what is free); no token changes. Models whose caches do not allow it go without, which is a
            warning.
        met: the ranks, where a launcher started them. On rank 0 this object commands them; on another, making it is to
            obey until rank 0 closes its own.

    Raises:
        InputError: no such model, values that do not fit it, or a launcher started this process and `met` is not given.
        RunError: a rank died.
    """

    def __init__(
        self,
        source: Deployment | str | Path,
        ranks: int | None = None,
        experts_per_rank: int | None = None,
        *,
        checkpoint: str | Path | None = None,
        ranks_per_node: int | None = None,
        placement: Placement | str | Path | None = None,
        dtype: str | None = None,
        device: str = "cpu",
        transport: str = "auto",
        dispatcher: str | None = None,
        schedule: str | None = None,
        row_precision: str | None = None,
        rebalance: Rebalance | str = "off",
        sequences_per_rank: int = 16,
        tokens_per_step: int = 512,
        kv_tokens_per_rank: int | None = None,
        prefix_caching: bool = True,
        met: Met | None = None,
    ) -> None:
        asked = Asked(
            source,
            checkpoint=checkpoint,
            ranks=ranks,
            ranks_per_node=ranks_per_node,
            experts_per_rank=experts_per_rank,
            placement=placement,
            schedule=schedule,
            dispatcher=dispatcher,
            dtype=dtype,
            row_precision=row_precision,
            rebalance=rebalance,
            device=device,
            transport=transport,
        )
        setup = read_setup(asked, os.environ)
        group = setup.own_group(os.environ) if met is None else met.group
        limits = BatchLimits(
            UNLIMITED.kv_tokens_per_home if kv_tokens_per_rank is None else kv_tokens_per_rank,
            sequences_per_rank,
            tokens_per_step,
        )
        engine = engine_setup(setup, group, select_device(setup.device))
        tokenizer = Tokenizer(setup.folder)
        for line in remarks(setup, engine.model, tokenizer):
            _LOG.warning("%s", line)
        if prefix_caching and (why_not := why_no_prefix_caching(engine.model.structure)):
            _LOG.warning("no prefix caching, every prompt is computed from its first token on: %s", why_not)
        weights_bytes = rank_bytes(engine.model, engine.placement.slots_per_rank)
        room = kv_room(setup, group.size, weights_bytes, kv_tokens_per_rank)
        if room.remark is not None:
            _LOG.info("%s", room.remark)
        room_bytes = prefix_bytes(group.size, weights_bytes) if prefix_caching else 0
        rooms = torch.tensor([room.tokens, room_bytes])
        if met is not None:
            # Each of a launch's ranks sees its own memory: the least room is everybody's, so that all decide alike.
            rooms = met.transport.share(rooms).amin(0)
        limits = replace(limits, kv_tokens_per_home=int(rooms[0]))

        def prepare(joined: Transport) -> Obey:
            # Every rank's loading bar on one terminal would tell nobody anything.
            disable_progress_bar()  # type: ignore[no-untyped-call]
            started = start(
                joined,
                engine,
                limits,
                tokenizer=tokenizer.backend,
                more_to_come=True,
                prefix_bytes=int(rooms[1]),
            )
            looks = Looks(started.engine.recorder, joined)
            return lambda command: _obey(started, looks, command)

        self.tokenizer = tokenizer
        self._model = engine.model
        self._limits = limits
        self._held: dict[int, Continuation] = {}
        self._new: list[Request] = []
        self._withdrawn: list[int] = []
        self._submitted = 0
        self._ranks_per_node = group.ranks_per_node
        self._ranks: Commanded = (
            ObeyingRanks(prepare, group, engine.device) if met is None else met.ranks(prepare)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def slots(self) -> int:
        """Sequences that are continued at a time, over all ranks."""
        return self._limits.sequences_per_home * self._ranks.size

    @property
    def ranks(self) -> int:
        """How many there are."""
        return self._ranks.size

    @property
    def ranks_per_node(self) -> int:
        """How many of them lie on a node."""
        return self._ranks_per_node

    @property
    def limits(self) -> BatchLimits:
        """What a rank may hold, and compute in one step."""
        return self._limits

    @property
    def config(self) -> PreTrainedConfig:
        """The model's configuration."""
        return self._model.config

    @property
    def unfinished(self) -> int:
        """Requests that wait or are being continued."""
        return len(self._held)

    def submit(
        self,
        prompt: str | Sequence[int],
        sampling: Sampling | None = None,
        length: Length | None = None,
        *,
        stream: int = 0,
        logprobs: int | None = None,
        prompt_logprobs: bool = False,
    ) -> int:
        """Let a request join at the next step.

        Args:
            prompt: text, or token ids.
            sampling: how its tokens are chosen; None: greedily.
            length: when it ends.
            stream: which of several draws with the same seed this is.
            logprobs: how many of the likeliest tokens `StepResult.logprobs` names beside each new one.
            prompt_logprobs: `StepResult.prompt_logprobs` names them beside each of the prompt, too.

        Returns:
            The request's number.

        Raises:
            InputError: a prompt without tokens, ids outside the vocabulary, or more than the model or a rank can hold.
        """
        name = f"prompt {self._submitted}"
        ids = self.tokenizer.encode(prompt) if isinstance(prompt, str) else _whole_numbers(name, prompt)
        request = Request(
            self._submitted,
            tuple(ids),
            sampling or Sampling(),
            length or Length(),
            stream,
            logprobs=logprobs,
            prompt_logprobs=prompt_logprobs,
        )
        check_ids(name, ids, self._model.config)
        check_length(name, ids, request.length.max_new_tokens, self._model.config)
        request.check_fits(self._limits)
        self._submitted += 1
        self._held[request.number] = Continuation(request)
        self._new.append(request)
        return request.number

    def withdraw(self, number: int) -> None:
        """Forget a request; from the next step on it costs nothing. One that has ended is gone already."""
        if self._held.pop(number, None) is not None:
            self._withdrawn.append(number)

    def step(self) -> StepResult:
        """Compute the next token of every request that is being continued; of those that just joined, the prompt.

        Returns:
            The tokens that are new, by request, the requests that ended, and what balancing did. Nothing where there is
            no request.

        Raises:
            RunError: a rank failed or died; the object is of no use then.
        """
        if not (self._held or self._withdrawn):
            return StepResult()
        news = _News(tuple(self._new), tuple(self._withdrawn))
        self._new, self._withdrawn = [], []
        result = self._ask(news, StepResult)
        for number, token in result.tokens.items():
            self._held[number].tokens.append(token)
        for number in result.finished:
            del self._held[number]
        return result

    def generate(
        self,
        prompts: Sequence[str | Sequence[int]],
        sampling: Sampling | Sequence[Sampling] | None = None,
        length: Length | Sequence[Length] | None = None,
    ) -> list[Completion]:
        """Complete prompts, each as if it were alone.

        Args:
            prompts: texts, or token ids.
            sampling: for all, or one for each; None: greedy. With one seed, each prompt still has draws of its own.
            length: for all, or one for each.

        Returns:
            A completion of each, in order.

        Raises:
            InputError: see `submit`, or requests submitted before have not ended: their tokens would pass unseen.
                Nothing is begun then.
            RunError: see `step`.
        """
        if self._held:
            raise InputError(
                f"{self.unfinished} requests have not ended; step them to their end, or withdraw them"
            )
        samplings = _one_for_each(sampling or Sampling(), Sampling, "sampling", len(prompts))
        lengths = _one_for_each(length or Length(), Length, "length", len(prompts))
        numbers: list[int] = []
        try:
            for stream, (prompt, how, long) in enumerate(zip(prompts, samplings, lengths, strict=True)):
                numbers.append(self.submit(prompt, how, long, stream=stream))
        except InputError:
            self._take_back(numbers)
            raise
        left = {number: self._held[number] for number in numbers}
        done: dict[int, Completion] = {}
        while len(done) < len(numbers):
            for number, reason in self.step().finished.items():
                if number in left:
                    done[number] = self._completion(left[number], reason)
        return [done[number] for number in numbers]

    def take_figures(self) -> GroupFigures:
        """What the ranks did since the last call: times, bytes and load. Costs them about as much as one exchange.

        Of more than a thousand steps of a phase, times and bytes are those of the latest thousand.

        Raises:
            RunError: see `step`.
        """
        return self._ask(_Look(), GroupFigures)

    @property
    def words(self) -> Sequence[int]:
        """File descriptors, of which one can be read once a rank has ended, though nobody asked for a step."""
        return self._ranks.words

    def check(self) -> None:
        """Between steps; raises `RunError` where a rank has ended, and names it."""
        self._ranks.check()

    def close(self) -> None:
        """End the ranks. Requests that have not ended are dropped."""
        self._held, self._new, self._withdrawn = {}, [], []
        self._ranks.close()

    def _ask(self, command: object, kind: type[T]) -> T:
        """The ranks' answer; after an error there is nothing left to continue."""
        try:
            answer = self._ranks.ask(command)
        except BaseException:
            self._held = {}
            raise
        if not isinstance(answer, kind):
            raise TypeError(f"the ranks answered {answer!r}")
        return answer

    def _take_back(self, numbers: Iterable[int]) -> None:
        """Forget requests that no rank has heard of."""
        for number in numbers:
            del self._held[number]
        self._new = [request for request in self._new if request.number in self._held]

    def _completion(self, continuation: Continuation, reason: FinishReason) -> Completion:
        request, tokens = continuation.request, tuple(continuation.tokens)
        text = self.tokenizer.decode(tokens)
        return Completion(request.number, tuple(request.ids), tokens, text, reason)


def _obey(started: Started, looks: Looks, command: object) -> StepResult | GroupFigures | None:
    """On every rank: take in the news, and step if anybody is there; or say what was done."""
    if isinstance(command, _Look):
        rows = [layer.experts.rows for layer in started.engine.layers.values()]
        return looks.take(started.generator.load_LE, rows)
    if not isinstance(command, _News):
        raise TypeError(f"no command: {command!r}")
    generator = started.generator
    for request in command.requests:
        generator.submit(request)
    for number in command.withdrawn:
        generator.withdraw(number)
    result = generator.step() if generator.unfinished else StepResult()
    if started.rebalancer is not None:
        result.balancing.extend(started.rebalancer.take_events())
    return result


def _whole_numbers(name: str, ids: Sequence[int]) -> list[int]:
    """Token ids of any kind of whole number, as Python's own."""
    try:
        return [index(i) for i in ids]
    except TypeError:
        raise InputError(f"{name}: token ids are whole numbers, not {list(ids)[:8]}") from None


def _one_for_each(given: T | Sequence[T], kind: type[T], name: str, prompts: int) -> Sequence[T]:
    if isinstance(given, kind):
        return [given] * prompts
    several = list(cast("Sequence[T]", given))
    if len(several) != prompts:
        raise InputError(f"{len(several)} {name}s for {prompts} prompts; give one for all, or one for each")
    return several
