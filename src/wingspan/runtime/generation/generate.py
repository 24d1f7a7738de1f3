"""Generation with a KV cache, data-parallel over ranks: every rank steps its own sequences, all step together.

Shapes: P sequences of this rank, V vocabulary, R ranks, W the most sequences on any rank.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from transformers import PreTrainedModel

from wingspan.errors import RunError
from wingspan.runtime.balance.rebalancer import Rebalancer
from wingspan.runtime.generation.batches import Batch, Columns, batches_of
from wingspan.runtime.generation.caches import Caches
from wingspan.runtime.generation.micro_batches import interleave, split_rows
from wingspan.runtime.generation.prompts import Prompt
from wingspan.runtime.generation.sampling import Sampler, Sampling
from wingspan.runtime.measuring.monitor import LoadMonitor
from wingspan.runtime.measuring.recorder import Recorder
from wingspan.runtime.model.architecture import model_errors
from wingspan.runtime.model.finite import first_not_finite, routers_finite, rows_finite
from wingspan.runtime.model.padding import padding_is_neutral
from wingspan.runtime.model.step import SEQUENTIAL, Flow, Step
from wingspan.runtime.transport.transport import Transport

_NOTHING = -1
"""In the shared tokens of a step: this place has no sequence, or a finished one."""

_NOT_FINITE = -2
"""There too: the logits of this sequence, or the weights of a router, are NaN or infinite."""

OnTokens = Callable[[dict[int, int]], None]
"""Called on rank 0 after each step with the new token of each prompt (prompt index -> id)."""


@dataclass
class Generated:
    """One rank's results, in the order of its prompts."""

    token_ids: list[list[int]]
    logits: list[list[torch.Tensor]] = field(default_factory=list)
    """Per sequence and new token the logits (V,) it was chosen from; only where they were asked for."""
    load_LE: dict[str, torch.Tensor] = field(default_factory=dict)
    """Per phase this rank's tokens by (MoE layer, expert)."""
    cache_bytes: int = 0


@dataclass(frozen=True)
class _Forward:
    """One forward of the model, ready to run: gives logits (P, V)."""

    run: Callable[[], torch.Tensor]
    valid_T: torch.Tensor | None


class Generator:
    """Continues prompts on one rank; all ranks of the group call `run` together with the same list."""

    def __init__(
        self,
        model: PreTrainedModel,
        transport: Transport,
        recorder: Recorder,
        monitor: LoadMonitor,
        step: Step,
        flows: Mapping[str, Flow] | None = None,
        rebalancer: Rebalancer | None = None,
    ) -> None:
        self._model = model
        self._transport = transport
        self._recorder = recorder
        self._monitor = monitor
        self._step = step
        self._rebalancer = rebalancer
        self._flows = flows or {}
        self._device = next(model.parameters()).device
        self._padding_is_neutral = padding_is_neutral(model)
        self._routers_finite = routers_finite(model)

    @torch.inference_mode()
    def run(
        self,
        prompts: Sequence[Prompt],
        max_new_tokens: int,
        sampling: Sampling,
        *,
        keep_logits: bool = False,
        on_tokens: OnTokens | None = None,
    ) -> Generated:
        """Continue this rank's share of `prompts`.

        Args:
            prompts: all ranks' prompts, the same list everywhere.
            max_new_tokens: the most tokens for each; a sequence also ends at the model's end-of-text token.
            sampling: how tokens are chosen.
            keep_logits: also return what every token was chosen from.
            on_tokens: rank 0's listener.
        """
        world = self._transport.world
        homes = [[p for p in prompts if p.home_rank == r] for r in range(world.size)]
        mine = homes[world.rank]
        widest = max(1, *(len(h) for h in homes))
        done = Generated([[] for _ in mine], [[] for _ in mine])
        alive_P = torch.tensor([bool(mine)] * max(1, len(mine)))
        sampler = Sampler(sampling, [p.index for p in mine])
        batches = self._batches(homes)
        caches = [Caches() for _ in batches]
        for number in range(max_new_tokens):
            phase = "decode" if number else "prefill"
            logits_PV = self._forward(batches, caches, phase)
            chosen_P = self._choose(sampler, logits_PV, alive_P)
            self._collect(done, chosen_P, logits_PV, alive_P, keep_logits)
            shared_RW = self._share(chosen_P, alive_P, widest)
            self._refuse_not_finite(homes, done, shared_RW)
            alive_P &= ~torch.isin(chosen_P, self._end_ids())
            load_LE = self._monitor.take()
            done.load_LE[phase] = load_LE + done.load_LE.get(phase, 0)
            left = max_new_tokens - number - 1 if self._any_left(shared_RW) else 0
            if self._rebalancer is not None and left:
                if phase == "prefill":
                    self._rebalancer.forget()
                else:
                    self._rebalancer.after_step(load_LE, left)
            self._recorder.end_step()
            if on_tokens is not None and world.rank == 0:
                on_tokens(_by_prompt(homes, shared_RW))
            if not left:
                break
            for batch in batches:
                batch.append(chosen_P[batch.places], alive_P[batch.places])
        done.cache_bytes = sum(c.size_bytes for c in caches)
        return done

    def _batches(self, homes: list[list[Prompt]]) -> list[Batch]:
        return batches_of(
            [[p.ids for p in home] for home in homes],
            self._transport.world.rank,
            self._device,
            padding_is_neutral=self._padding_is_neutral,
            micro_batches=max(flow.micro_batches for flow in (SEQUENTIAL, *self._flows.values())),
        )

    def _forward(self, batches: Sequence[Batch], caches: Sequence[Caches], phase: str) -> torch.Tensor:
        """One step of all sequences: the last column's logits (P, V) in their order."""
        self._recorder.begin_step(phase, sum(batch.tokens for batch in batches))
        self._step.flow = self._flows.get(phase, SEQUENTIAL)
        together = self._step.flow.micro_batches
        # A single batch is cut by rows; where there are several, its micro-batches are batches of their own.
        forwards = [
            forward
            for batch, cache in zip(batches, caches, strict=True)
            for forward in self._forwards_of(batch, cache, together if self._padding_is_neutral else 1)
        ]
        logits = [
            logits_PV
            for first in range(0, len(forwards), together)
            for logits_PV in self._run(forwards[first : first + together])
        ]
        if len(logits) == 1:
            return logits[0]
        places = [place for batch in batches for place in batch.places]
        return torch.cat(logits)[torch.tensor(places, dtype=torch.int64).argsort()]

    def _forwards_of(self, batch: Batch, caches: Caches, parts: int) -> list[_Forward]:
        """A batch's forwards, one per part of its rows; each puts its cache back and gives its rows' logits."""
        slices = split_rows(len(batch), parts)
        caches.regroup(parts, len(batch))
        columns = [batch.columns(rows) for rows in slices]

        def forward_of(number: int) -> torch.Tensor:
            logits_PV, caches.parts[number] = self._forward_part(columns[number], caches.parts[number])
            return logits_PV[: slices[number].stop - slices[number].start]

        return [_Forward(partial(forward_of, n), columns[n].valid_T) for n in range(parts)]

    def _run(self, forwards: Sequence[_Forward]) -> list[torch.Tensor]:
        if len(forwards) == 1:
            self._step.valid_T = forwards[0].valid_T
            return [forwards[0].run()]
        return interleave([f.run for f in forwards], [f.valid_T for f in forwards], self._step)

    def _forward_part(self, part: Columns, cache: object) -> tuple[torch.Tensor, object]:
        """One micro-batch's forward over its new columns, the rest being in the cache."""
        with model_errors(self._model.config):
            out = self._model(
                input_ids=part.ids_PN,
                attention_mask=part.mask_PC,
                position_ids=part.positions_PN,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
        return out.logits[:, -1], out.past_key_values

    def _choose(self, sampler: Sampler, logits_PV: torch.Tensor, alive_P: torch.Tensor) -> torch.Tensor:
        """The next token of each sequence (P,), on the CPU."""
        if not bool(alive_P.any()):
            return torch.zeros(len(alive_P), dtype=torch.int64)
        finite_P = rows_finite(logits_PV).cpu() & self._routers_finite
        if not bool(finite_P[alive_P].all()):
            return torch.where(finite_P, 0, _NOT_FINITE)
        return sampler(logits_PV)

    def _refuse_not_finite(self, homes: list[list[Prompt]], done: Generated, shared_RW: torch.Tensor) -> None:
        """Raise `RunError` on every rank where a sequence's logits are not finite, naming where that begins.

        All ranks run that sequence once more then, alone and from its start, and watch every part of the model.
        """
        if not bool((shared_RW == _NOT_FINITE).any()):
            return
        bad = [homes[r][place] for r, place in (shared_RW == _NOT_FINITE).nonzero().tolist()]
        prompt = min(bad, key=lambda p: p.index)
        world, home = self._transport.world, homes[prompt.home_rank]
        self._recorder.end_step()
        rows_R: list[list[list[int]]] = [[] for _ in homes]
        if world.rank == prompt.home_rank:
            rows_R[world.rank] = [[*prompt.ids, *done.token_ids[home.index(prompt)][:-1]]]
        alone = Batch(rows_R[world.rank], range(len(rows_R[world.rank])), self._device)
        self._step.flow = SEQUENTIAL
        where = first_not_finite(self._model, lambda: self._run(self._forwards_of(alone, Caches(), 1)))
        found = self._transport.gather(where)
        first = self._transport.broadcast(None if found is None else found[prompt.home_rank])
        raise RunError(
            f"prompt {prompt.index}: its logits are not finite (NaN or infinite), which begins in "
            f"{first or 'the logits themselves'}; is the checkpoint damaged, or its dtype too narrow?"
        )

    @staticmethod
    def _collect(
        done: Generated, chosen_P: torch.Tensor, logits_PV: torch.Tensor, alive_P: torch.Tensor, keep: bool
    ) -> None:
        for number, tokens in enumerate(done.token_ids):
            if alive_P[number]:
                tokens.append(int(chosen_P[number]))
                if keep:
                    done.logits[number].append(logits_PV[number].float().cpu())

    def _share(self, chosen_P: torch.Tensor, alive_P: torch.Tensor, widest: int) -> torch.Tensor:
        mine_W = torch.full((widest,), _NOTHING)
        mine_W[: len(chosen_P)] = torch.where(alive_P, chosen_P, _NOTHING)
        return self._transport.share(mine_W)

    def _any_left(self, shared_RW: torch.Tensor) -> bool:
        live = shared_RW[shared_RW != _NOTHING]
        return bool(len(live)) and not bool(torch.isin(live, self._end_ids()).all())

    def _end_ids(self) -> torch.Tensor:
        ends = self._model.generation_config.eos_token_id
        return torch.tensor([ends] if isinstance(ends, int) else list(ends or []), dtype=torch.int64)


def _by_prompt(homes: list[list[Prompt]], shared_RW: torch.Tensor) -> dict[int, int]:
    return {
        prompt.index: int(shared_RW[rank, place])
        for rank, home in enumerate(homes)
        for place, prompt in enumerate(home)
        if shared_RW[rank, place] != _NOTHING
    }
