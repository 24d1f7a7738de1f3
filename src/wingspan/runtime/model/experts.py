"""The experts of this rank's slots: rows in, rows out.

transformers keeps a layer's experts as stacked parameters. How they are laid out says a row of `experts_table`, so
every architecture computes here.

Shapes: N rows, S slots of this rank, D hidden size, I intermediate size (2 I where gate and up are fused).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from wingspan.runtime.model.experts_table import need_row, owner_of, rows_per_expert
from wingspan.runtime.model.slot_linear import SlotLinear, SlotWeights


@dataclass(frozen=True)
class ExpertWeights:
    """One expert, ready to take a slot: what each of its matrices is."""

    matrices: tuple[SlotWeights, ...]


class LocalExperts:
    """The experts in this rank's slots of one MoE layer, ready to compute rows sorted by slot.

    Args:
        module: a transformers experts module, of a kind that has a row, whose parameters hold this rank's S slots along
            dimension 0 (S may be 0). They are read at every call, so an optimiser's update is seen.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._row = need_row(module)
        self._linears = [SlotLinear(module, matrices) for matrices in self._row.matrices]
        self.rows = 0
        """Rows computed since the start."""

    def __call__(
        self, rows_ND: torch.Tensor, counts_S: Sequence[int], *, in_place: bool = False
    ) -> torch.Tensor:
        """The experts' outputs, not yet weighted.

        Args:
            rows_ND: sorted by slot.
            counts_S: rows of each slot; zeros are welcome; the sum is N.
            in_place: the outputs may take the rows' place, where no gradient is kept.

        Returns:
            One output row (N, D) per input row. It depends on `rows_ND` and, with at least one slot, on the
            parameters even where N is 0, so that backward runs the same on every rank.
        """
        self.rows += len(rows_ND)
        if not len(counts_S):
            return rows_ND.clone()
        *ups, down = self._linears
        hidden_NI = self._row.activate(self._module, [up(rows_ND, counts_S) for up in ups])
        out_ND = down(hidden_NI, counts_S, rows_ND if in_place else None)
        return out_ND if self._row.finish is None else self._row.finish(self._module, out_ND)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._linears[-1].device

    @property
    def weight_bytes(self) -> int:
        """Bytes of the experts' weights on this rank."""
        return sum(linear.weight_bytes for linear in self._linears)

    @property
    def slot_bytes(self) -> int:
        """Bytes of one expert's weights, whether or not this rank holds one."""
        return sum(linear.slot_bytes for linear in self._linears)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row as it comes to an expert, and leaves it."""
        return self._linears[0].input_bytes

    def read(self, slot: int) -> torch.Tensor:
        """The weights of one slot as `slot_bytes` bytes in the CPU's memory, the same for every way to hold them."""
        return torch.cat([linear.read(slot) for linear in self._linears])

    def prepare(self, raw: torch.Tensor) -> ExpertWeights:
        """What another rank's `read` gave, in the form that this rank computes on."""
        parts = raw.split([linear.slot_bytes for linear in self._linears])
        return ExpertWeights(
            tuple(linear.prepare(part) for linear, part in zip(self._linears, parts, strict=True))
        )

    def replace(self, slots: Sequence[int | ExpertWeights]) -> None:
        """Hold these experts from now on, in this order: present slots by their number, new ones from `prepare`."""
        for number, linear in enumerate(self._linears):
            linear.replace([s if isinstance(s, int) else s.matrices[number] for s in slots])

    def fill(self, experts: Sequence[int], read: Callable[[int], dict[str, torch.Tensor]]) -> None:
        """Hold these experts from now on, each read when the one before it is in its slot.

        Args:
            experts: the logical experts, in the order of their slots.
            read: gives one's part of each parameter, by the names below the module.
        """
        for linear in self._linears:
            linear.make_room(len(experts))
        for slot, number in enumerate(experts):
            expert = read(number)
            for linear in self._linears:
                linear.put(slot, expert)

    def parameters(self) -> list[nn.Parameter]:
        """The experts' parameters."""
        owners = [owner_of(self._module, name) for name in rows_per_expert(self._module)]
        return [getattr(owner, own) for owner, own in owners]

    def pack(self) -> None:
        """End training: no gradient reaches these parameters any more, and the matrices take their fastest form."""
        for parameter in self._module.parameters():
            parameter.requires_grad_(False)
        for linear in self._linears:
            linear.pack()
