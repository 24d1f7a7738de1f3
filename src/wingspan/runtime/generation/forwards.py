"""A batch's forward through the model, in as many micro-batches as the step's schedule has.

Shapes: P sequences, N columns, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from transformers import PreTrainedModel

from wingspan.runtime.generation.batches import Batch, Columns, SlotBatch, columns_of
from wingspan.runtime.generation.micro_batches import interleave, split_rows
from wingspan.runtime.model.architecture import model_errors
from wingspan.runtime.model.padding import forget_lengths, rotations_by_length
from wingspan.runtime.model.step import Flow, Step


class Forwards:
    """Runs batches on one rank; all ranks make the same number of calls.

    Args:
        model: of the rank.
        step: what its layers read.
        new_cache: what sequences without a cache are computed into; None: what the model makes for them.
    """

    def __init__(
        self, model: PreTrainedModel, step: Step, new_cache: Callable[[], object] = lambda: None
    ) -> None:
        self._model = model
        self._step = step
        self._new_cache = new_cache
        self._device = next(model.parameters()).device
        self._rotations_by_length = rotations_by_length(model)

    def run(self, batch: Batch | SlotBatch, new: Sequence[Sequence[int]], flow: Flow) -> torch.Tensor:
        """Compute the batch's new tokens, the rest being in its caches; these take them in.

        Args:
            batch: perhaps an empty one: the rank takes part.
            new: ids of each row's new tokens.
            flow: the schedule.

        Returns:
            The logits (P, V) of each row's last token.
        """
        return self.run_all(batch, new, flow, last=1)[:, -1]

    def run_all(
        self, batch: Batch | SlotBatch, new: Sequence[Sequence[int]], flow: Flow, *, last: int = 0
    ) -> torch.Tensor:
        """As `run`, but with the logits (P, N, V) of the last columns, so many; 0: of all N of the forward."""
        slices = split_rows(len(batch), flow.micro_batches)
        whole = columns_of(new, self._device, batch.cached_P)
        columns = [whole.rows(rows) for rows in slices]
        new_columns = whole.ids_PN.shape[1]
        caches = batch.caches.begin(slices, new_columns)

        def part(number: int) -> torch.Tensor:
            logits_PNV, cache = self._forward(columns[number], caches[number], last)
            rows = slices[number].stop - slices[number].start
            caches[number] = cache if rows else None
            return logits_PNV[:rows]

        forget_lengths(self._rotations_by_length)
        self._step.flow = flow
        logits = self._interleaved([partial(part, n) for n in range(len(slices))], columns)
        batch.caches.end(caches, new_columns)
        batch.cached_P = [cached + len(ids) for cached, ids in zip(batch.cached_P, new, strict=True)]
        # A micro-batch without rows had a column of its own.
        of_rows = [logits_PNV for logits_PNV in logits if len(logits_PNV)] or logits[:1]
        return of_rows[0] if len(of_rows) == 1 else torch.cat(of_rows)

    def _interleaved(
        self, parts: Sequence[partial[torch.Tensor]], columns: Sequence[Columns]
    ) -> list[torch.Tensor]:
        if len(parts) == 1:
            self._step.tokens = columns[0].tokens
            return [parts[0]()]
        return interleave(parts, [c.tokens for c in columns], self._step)

    def _forward(self, part: Columns, cache: object, last: int) -> tuple[torch.Tensor, object]:
        """One micro-batch's."""
        with model_errors(self._model.config):
            out = self._model(
                input_ids=part.ids_PN,
                attention_mask=part.mask_PC,
                position_ids=part.positions_PN,
                past_key_values=self._new_cache() if cache is None else cache,
                use_cache=True,
                logits_to_keep=last,
            )
        return out.logits, out.past_key_values
