"""The step-wise engine of one rank: decide, forward, sample. Every rank steps its own sequences, all step together.

Requests join and leave between steps. All ranks are told of the same requests, hold the same ledger, and so decide the
same; at the end of a step they share the tokens they chose, and what each did, to be sure of it.

Shapes: P sequences of this rank that get a token, V vocabulary, R ranks, W the most tokens of any rank, X = 3 + W.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch

from wingspan.errors import RunError
from wingspan.runtime.generation.adjusting import adjusted
from wingspan.runtime.generation.batches import Batch, SlotBatch
from wingspan.runtime.generation.between_steps import BetweenSteps
from wingspan.runtime.generation.forwards import Forwards
from wingspan.runtime.generation.grammars import Grammars
from wingspan.runtime.generation.ledger import Ledger, PromptLogprobs, RankPlan, StepPlan, StepResult
from wingspan.runtime.generation.logprobs import Logprobs, logprobs_of, prompt_logprobs_of
from wingspan.runtime.generation.prefixes import Prefixes
from wingspan.runtime.generation.requests import Request
from wingspan.runtime.generation.sampling import Draw, choose
from wingspan.runtime.model.engine import Engine
from wingspan.runtime.model.finite import first_not_finite, routers_finite, rows_finite
from wingspan.runtime.model.padding import cuts_are_neutral, padding_is_neutral, why_no_prefix_caching
from wingspan.runtime.model.step import SEQUENTIAL, Flow
from wingspan.schedule.batching import UNLIMITED, BatchLimits
from wingspan.schedule.prefix_cache import BLOCK_TOKENS
from wingspan.schedule.prompts import Piece

_NO_TOKEN = -1
"""In the shared row of a step: this rank chose fewer tokens than another."""

_NOT_FINITE = -2
"""There too: the logits of this sequence, or the weights of a router, are NaN or infinite."""

_HEAD = 4
"""Numbers at the head of the shared row: prompt tokens computed, rows decoded, whether this rank wants to drain, and
the memory of a token that it keeps for others."""


class Generator:
    """Continues requests on one rank; all ranks of the group make the same calls with the same requests.

    Args:
        engine: the loaded rank.
        flows: the schedule of each phase; sequential where none is named.
        between: what is done between steps, as moving experts.
        limits: of each rank; without, all requests are admitted at once.
        keep_logits: also keep what every token was chosen from.
        tokenizer: transformers' own, for answers that must follow a grammar.
        more_to_come: requests may follow those that are held, so nobody knows how many steps there will be.
        prefix_bytes: memory for what sequences that ended had, for others that begin alike, where the model's caches
            allow it; 0: nothing is shared.
        block_tokens: what is shared are blocks of so many tokens.
    """

    def __init__(
        self,
        engine: Engine,
        flows: Mapping[str, Flow] | None = None,
        between: BetweenSteps | None = None,
        limits: BatchLimits = UNLIMITED,
        *,
        keep_logits: bool = False,
        tokenizer: Any = None,
        more_to_come: bool = False,
        prefix_bytes: int = 0,
        block_tokens: int = BLOCK_TOKENS,
    ) -> None:
        self.load_LE: dict[str, torch.Tensor] = {}
        """Per phase this rank's tokens by (MoE layer, expert)."""
        self.buffer_bytes: dict[str, int] = {}
        """The most that the exchanges' buffers were needed for in a step of each phase."""
        self.logits: dict[int, list[torch.Tensor]] = {}
        """For each new token of this rank's requests the logits (V,) it was chosen from, where they are kept."""
        self.cache_bytes = 0
        """The most memory that this rank's caches took."""
        self._engine = engine
        self._model = engine.model
        self._transport = engine.transport
        self._recorder = engine.recorder
        self._flows = flows or {}
        self._between = between
        self._keep_logits = keep_logits
        self._more_to_come = more_to_come
        self._world = engine.transport.world
        end_ids = _end_ids(engine.model.generation_config.eos_token_id)
        self._grammars = Grammars(tokenizer, engine.config.get_text_config().vocab_size, end_ids)
        self._together = padding_is_neutral(engine.model)
        self._limits = limits
        shares = prefix_bytes > 0 and why_no_prefix_caching(engine.model, block_tokens) is None
        self._ledger = Ledger(
            self._world.size,
            limits,
            end_ids,
            together=self._together,
            in_pieces=cuts_are_neutral(engine.model),
            block_tokens=block_tokens if shares else 0,
        )
        self._prefixes = (
            Prefixes(self._ledger, self._world.rank, engine.config, prefix_bytes) if shares else None
        )
        new_cache = (lambda: None) if self._prefixes is None else self._prefixes.new_cache
        self._forwards = Forwards(engine.model, engine.step, new_cache)
        self._begun: dict[int, Batch] = {}
        """Prompts of which a part is computed, by request."""
        self._decoding: list[Batch | SlotBatch] = []
        """In the order of the ledger's groups."""
        self._routers_finite = routers_finite(engine.model)
        self._wants_drain = False
        self._of_prompts: dict[int, PromptLogprobs] = {}
        """What was found of prompts in the step that is under way."""

    @property
    def unfinished(self) -> int:
        """Requests that wait or are being continued, on all ranks."""
        return len(self._ledger.held)

    def submit(self, request: Request) -> None:
        """Take in a request, from the next step on; raises `InputError` where no rank ever has room for it."""
        self._ledger.submit(request)

    def withdraw(self, number: int) -> None:
        """Forget a request; from the next step on it costs nothing."""
        self._ledger.withdraw(number)
        self._regroup()

    def drain(self) -> None:
        """Admit nobody after the next step. One rank's word is enough; those who wait end as "drained"."""
        self._wants_drain = True

    @torch.inference_mode()
    def step(self) -> StepResult:
        """Give every admitted request its next token, or compute more of its prompt. Collective.

        Raises:
            RunError: on every rank: logits are not finite, or ranks were given different requests.
        """
        plan = self._ledger.plan()
        if self._prefixes is not None:
            self._prefixes.forget()
        self._give_up(plan.preempted)
        mine = plan.ranks[self._world.rank]
        logits = [*self._prefill(plan, mine), *self._decode(plan, mine)]
        logits_PV = torch.cat(logits) if len(logits) > 1 else logits[0] if logits else None
        chosen_P = self._choose(mine.sampled, logits_PV)
        shared_RX = self._share(mine, chosen_P, plan)
        self._refuse_not_finite(plan, shared_RX[:, _HEAD:])
        tokens_R = [
            row[_HEAD : _HEAD + len(rank.sampled)]
            for rank, row in zip(plan.ranks, shared_RX.tolist(), strict=True)
        ]
        logprobs = self._logprobs(plan, mine, logits_PV, chosen_P)
        self._ledger.computed(plan)
        if self._prefixes is not None:
            self._prefixes.keep(mine, [*self._decoding, *self._begun.values()])
            self._prefixes.limit(int(shared_RX[:, 3].max()))
        result = self._ledger.commit(plan, tokens_R, drain=bool(shared_RX[:, 2].any()))
        result.logprobs.update(logprobs.new)
        result.prompt_logprobs.update(logprobs.prompts)
        if result.finished:
            self._measure_caches()
            self._grammars.keep(self._ledger.held)
        self._regroup()
        self._balance(plan)
        self._recorder.end_step()
        return result

    def _prefill(self, plan: StepPlan, mine: RankPlan) -> list[torch.Tensor]:
        """The logits of this rank's prompts that end in this step."""
        if not plan.prefill_forwards:
            return []
        self._recorder.begin_step("prefill", mine.prefill_tokens)
        flow = self._flows.get("prefill", SEQUENTIAL)
        logits = []
        for number in range(plan.prefill_forwards):
            pieces = mine.prefill[number] if number < len(mine.prefill) else ()
            batch = self._batch_of(pieces)
            of_batch_PV = self._forward_prompts(batch, pieces, flow)
            if all(piece.is_last for piece in pieces):
                logits.append(of_batch_PV)
                self._decoding += [batch] if pieces else []
            else:
                self._begun[pieces[0].request] = batch
        self._take_load("prefill")
        if self._between is not None and plan.decode_forwards:
            self._between.beside_step(self._newest_load_LE)
        return logits

    def _forward_prompts(self, batch: Batch, pieces: Sequence[Piece], flow: Flow) -> torch.Tensor:
        """The logits of each piece's last token; where a request wants it, those of all are looked at."""
        held = [self._ledger.held[piece.request] for piece in pieces]
        new = [self._new_ids(piece, cached) for piece, cached in zip(pieces, batch.cached_P, strict=True)]
        if not any(continuation.request.prompt_logprobs for continuation in held):
            return self._forwards.run(batch, new, flow)
        logits_PNV = self._forwards.run_all(batch, new, flow)
        computed = [slice(piece.begin, piece.begin + piece.tokens) for piece in pieces]
        self._of_prompts.update(prompt_logprobs_of(logits_PNV, held, computed))
        return logits_PNV[:, -1]

    def _decode(self, plan: StepPlan, mine: RankPlan) -> list[torch.Tensor]:
        """The logits of this rank's sequences that decode."""
        if not plan.decode_forwards:
            return []
        self._recorder.end_step()
        self._recorder.begin_step("decode", mine.decode_rows)
        flow = self._flows.get("decode", SEQUENTIAL)
        logits = []
        for number in range(plan.decode_forwards):
            batch = self._decoding[number] if number < len(mine.decode) else Batch([])
            newest = [[self._ledger.held[n].tokens[-1]] for n in batch.numbers]
            of_rows_PV = self._forwards.run(batch, newest, flow)
            logits.append(_in_order(of_rows_PV, batch, mine.decode[number][1] if len(batch) else ()))
        self._take_load("decode")
        return logits

    def _batch_of(self, pieces: Sequence[Piece]) -> Batch:
        """Where the pieces' rows live: a new batch, or that of a prompt already begun, here or by another."""
        if self._prefixes is not None and pieces and pieces[0].cached:
            return self._prefixes.batch(pieces)
        if pieces and pieces[0].begin:
            return self._begun.pop(pieces[0].request)
        return Batch([piece.request for piece in pieces])

    def _new_ids(self, piece: Piece, cached: int) -> Sequence[int]:
        return self._ledger.held[piece.request].ids[cached : piece.begin + piece.tokens]

    def _take_load(self, phase: str) -> None:
        self._newest_load_LE = self._engine.monitor.take()
        self.load_LE[phase] = self._newest_load_LE + self.load_LE.get(phase, 0)
        asked = self._engine.buffers.take_asked_bytes()
        self.buffer_bytes[phase] = max(asked, self.buffer_bytes.get(phase, 0))

    def _choose(self, numbers: Sequence[int], logits_PV: torch.Tensor | None) -> torch.Tensor:
        """The next token of each sequence (P,), on the CPU."""
        if logits_PV is None:
            return torch.zeros(0, dtype=torch.int64)
        finite_P = rows_finite(logits_PV).cpu() & self._routers_finite
        if not bool(finite_P.all()):
            return torch.where(finite_P, 0, _NOT_FINITE)
        if self._keep_logits:
            for number, row_V in zip(numbers, logits_PV.float().cpu(), strict=True):
                self.logits.setdefault(number, []).append(row_V)
        held = [self._ledger.held[number] for number in numbers]
        draws = [Draw(c.request.sampling, c.request.stream, c.position) for c in held]
        return choose(adjusted(logits_PV, held, self._grammars), draws)

    def _logprobs(
        self, plan: StepPlan, mine: RankPlan, logits_PV: torch.Tensor | None, chosen_P: torch.Tensor
    ) -> Logprobs:
        """Those of all ranks, on rank 0; collective in a step in which a request wants them."""
        held, all_ranks = self._ledger.held, Logprobs()
        wanting = (number for rank in plan.ranks for number in rank.wanting_logprobs(held))
        if next(wanting, None) is None:
            return all_ranks
        own, self._of_prompts = Logprobs(prompts=self._of_prompts), {}
        if logits_PV is not None:
            own.new.update(logprobs_of(logits_PV, chosen_P, [held[n] for n in mine.sampled]))
        for part in cast("list[Logprobs]", self._transport.gather(own) or []):
            all_ranks.new.update(part.new)
            all_ranks.prompts.update(part.prompts)
        return all_ranks

    def _share(self, mine: RankPlan, chosen_P: torch.Tensor, plan: StepPlan) -> torch.Tensor:
        """Every rank's row (R, X) of this step.

        Raises:
            RunError: a rank did something else than this one has in its plan.
        """
        most = max(len(rank.sampled) for rank in plan.ranks)
        row_X = torch.full((_HEAD + most,), _NO_TOKEN)
        token_bytes = 0 if self._prefixes is None else self._prefixes.token_bytes
        row_X[:_HEAD] = torch.tensor([mine.prefill_tokens, mine.decode_rows, self._wants_drain, token_bytes])
        row_X[_HEAD : _HEAD + len(chosen_P)] = chosen_P
        shared_RX = self._transport.share(row_X)
        for rank, (part, did) in enumerate(zip(plan.ranks, shared_RX[:, :2].tolist(), strict=True)):
            if did != [part.prefill_tokens, part.decode_rows]:
                raise RunError(
                    f"rank {rank} computed {did[0]} prompt tokens and {did[1]} sequences, of which rank "
                    f"{self._world.rank} knows {part.prefill_tokens} and {part.decode_rows}; give all ranks the same "
                    "requests in the same order"
                )
        return shared_RX

    def _give_up(self, numbers: Sequence[int]) -> None:
        """Drop the caches of requests that were put back."""
        for number in numbers:
            self._begun.pop(number, None)
        if numbers:
            self._regroup()

    @torch.inference_mode()
    def _regroup(self) -> None:
        """Let the caches follow the ledger: rows that ended leave, those that were prefilled join."""
        held = self._ledger.held
        self._begun = {number: batch for number, batch in self._begun.items() if number in held}
        batches = []
        for numbers in self._ledger.decoding(self._world.rank).values():
            of_group = set(numbers)
            parts = [batch for batch in self._decoding if not of_group.isdisjoint(batch.numbers)]
            for part in parts:
                part.keep(of_group)
            batches.append(self._in_slots(parts) if self._together else parts[0])
        self._decoding = batches

    def _in_slots(self, parts: Sequence[Batch | SlotBatch]) -> SlotBatch:
        """Those that decode, and behind them those that were prefilled."""
        slots = next((part for part in parts if isinstance(part, SlotBatch)), None)
        slots = slots or SlotBatch(self._limits.sequences_per_home)
        for part in parts:
            if isinstance(part, Batch):
                slots.join(part)
        return slots

    def _measure_caches(self) -> None:
        batches = [*self._decoding, *self._begun.values()]
        shared_bytes = 0 if self._prefixes is None else self._prefixes.size_bytes
        held_bytes = shared_bytes + sum(batch.caches.size_bytes for batch in batches)
        self.cache_bytes = max(self.cache_bytes, held_bytes)

    def _balance(self, plan: StepPlan) -> None:
        """Let experts move. What was seen in prefill alone says nothing about the steps to come."""
        if self._between is None or not self.unfinished:
            return
        if plan.decode_forwards:
            steps_left = None if self._more_to_come else self._ledger.steps_left
            self._between.after_step(self._newest_load_LE, steps_left)
        else:
            self._between.forget()

    def _refuse_not_finite(self, plan: StepPlan, tokens_RW: torch.Tensor) -> None:
        """Raise `RunError` on every rank where a sequence's logits are not finite, naming where that begins.

        All ranks run that sequence once more then, alone and from its start, and watch every part of the model.
        """
        if not bool((tokens_RW == _NOT_FINITE).any()):
            return
        bad = (tokens_RW == _NOT_FINITE).nonzero().tolist()
        number, home = min((plan.ranks[rank].sampled[place], rank) for rank, place in bad)
        self._recorder.end_step()
        alone = Batch([number] if self._world.rank == home else [])
        ids = [self._ledger.held[number].ids] * len(alone)
        where = first_not_finite(self._model, lambda: self._forwards.run(alone, ids, SEQUENTIAL))
        found = self._transport.gather(where)
        first = self._transport.broadcast(None if found is None else found[home])
        raise RunError(
            f"prompt {number}: its logits are not finite (NaN or infinite), which begins in "
            f"{first or 'the logits themselves'}; is the checkpoint damaged, or its dtype too narrow?"
        )


def _in_order(of_rows_PV: torch.Tensor, batch: Batch | SlotBatch, numbers: Sequence[int]) -> torch.Tensor:
    """The logits of these requests: a row lies where there was room for it, so perhaps in another order."""
    if batch.numbers == list(numbers):
        return of_rows_PV
    row_of = {number: row for row, number in enumerate(batch.numbers)}
    return of_rows_PV[torch.tensor([row_of[number] for number in numbers], device=of_rows_PV.device)]


def _end_ids(ends: int | list[int] | None) -> list[int]:
    return [ends] if isinstance(ends, int) else list(ends or [])
