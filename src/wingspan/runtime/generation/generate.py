"""Generation with a KV cache, data-parallel over ranks: every rank steps its own sequences, all step together.

Shapes: P sequences of this rank, S length so far, V vocabulary, R ranks, W the most sequences on any rank.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from transformers import PreTrainedModel

from wingspan.runtime.generation.micro_batches import Caches, part_of, split_rows, take_turns
from wingspan.runtime.generation.prompts import Batch, Prompt, batch
from wingspan.runtime.generation.sampling import Sampler, Sampling
from wingspan.runtime.live.rebalancer import Rebalancer
from wingspan.runtime.measuring.monitor import LoadMonitor
from wingspan.runtime.measuring.recorder import Recorder
from wingspan.runtime.model.architecture import model_errors
from wingspan.runtime.model.step import SEQUENTIAL, Flow, Step
from wingspan.runtime.transport.transport import Transport

_NOTHING = -1
"""In the shared tokens of a step: this place has no sequence, or a finished one."""

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
        now = batch(mine, self._device)
        caches = Caches()
        for number in range(max_new_tokens):
            phase = "decode" if number else "prefill"
            logits_PV = self._forward(now, caches, phase)
            chosen_P = sampler(logits_PV) if mine else torch.zeros(1, dtype=torch.int64)
            self._collect(done, chosen_P, logits_PV, alive_P, keep_logits)
            shared_RW = self._share(chosen_P, alive_P, widest)
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
            now = _next(now, chosen_P, alive_P, self._device)
        done.cache_bytes = caches.size_bytes
        return done

    def _forward(self, now: Batch, caches: Caches, phase: str) -> torch.Tensor:
        """One forward of all sequences: the last column's logits (P, V)."""
        step, rows = self._step, len(now.ids_PS)
        new = now.ids_PS.shape[1] if phase == "prefill" else 1
        self._recorder.begin_step(phase, int(now.valid_PS[:, -new:].sum()))
        step.flow = self._flows.get(phase, SEQUENTIAL)
        slices = split_rows(rows, step.flow.micro_batches)
        caches.regroup(len(slices), rows)
        parts = [part_of(now, part) for part in slices]

        def forward_of(number: int) -> torch.Tensor:
            logits_PV, caches.parts[number] = self._forward_part(parts[number], new, caches.parts[number])
            return logits_PV[: slices[number].stop - slices[number].start]

        valid = [_valid_tokens(part.valid_PS[:, -new:]) for part in parts]
        if len(parts) == 1:
            step.valid_T = valid[0]
            return forward_of(0)
        return torch.cat(take_turns([partial(forward_of, n) for n in range(len(parts))], valid, step))

    def _forward_part(self, part: Batch, new: int, cache: object) -> tuple[torch.Tensor, object]:
        """One micro-batch's forward over its last `new` columns, the rest being in the cache."""
        with model_errors(self._model.config):
            out = self._model(
                input_ids=part.ids_PS[:, -new:],
                # A row of padding alone would leave attention nothing to attend to.
                attention_mask=_attendable(part.valid_PS),
                position_ids=part.positions_PS[:, -new:],
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
        return out.logits[:, -1], out.past_key_values

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


def _attendable(valid_PS: torch.Tensor) -> torch.Tensor:
    """The attention mask; rows without any real token see their last column."""
    mask_PS = valid_PS.clone()
    mask_PS[:, -1] |= ~valid_PS.any(1)
    return mask_PS.long()


def _next(now: Batch, chosen_P: torch.Tensor, alive_P: torch.Tensor, device: torch.device) -> Batch:
    return Batch(
        torch.cat([now.ids_PS, chosen_P[:, None].to(device)], 1),
        torch.cat([now.valid_PS, alive_P[:, None].to(device)], 1),
    )


def _by_prompt(homes: list[list[Prompt]], shared_RW: torch.Tensor) -> dict[int, int]:
    return {
        prompt.index: int(shared_RW[rank, place])
        for rank, home in enumerate(homes)
        for place, prompt in enumerate(home)
        if shared_RW[rank, place] != _NOTHING
    }


def _valid_tokens(valid_PN: torch.Tensor) -> torch.Tensor | None:
    """`Step.valid_T` of these columns."""
    return None if bool(valid_PN.all()) else valid_PN.flatten()
