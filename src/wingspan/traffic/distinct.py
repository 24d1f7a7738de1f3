"""How many distinct places (nodes, ranks) a token's top-k choice touches, where experts go together only by chance.

Shapes: L layers, Q classes of source domains, P places, B slots of a place.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb, log

import numpy as np
from numpy.typing import NDArray

from wingspan.specs.model import Experts
from wingspan.specs.placement import EMPTY

Floats = NDArray[np.float64]
_FEW = 8
"""Values that are added one by one."""
_LIKELIEST = 1 - 1e-12
"""Most probability of a pick: keeps the logarithm of missing it finite."""


@dataclass(frozen=True)
class Choice:
    """What a token picks in a layer: `per_token` of `count` experts.

    With node-limited routing (arXiv:2412.19437, section 2.1.2) it first picks `groups_per_token` of `groups` groups
    of experts, then experts in them. The last `shared` experts are picked by every token.
    """

    count: int
    per_token: int
    groups: int = 1
    groups_per_token: int = 1
    shared: int = 0

    @property
    def routed(self) -> Choice:
        """What is left to choose without the shared experts."""
        count, per_token = self.count - self.shared, self.per_token - self.shared
        return Choice(count, per_token, self.groups, self.groups_per_token)

    @classmethod
    def of(cls, experts: Experts) -> Choice:
        """A model's."""
        return cls(
            experts.count,
            experts.per_token,
            experts.groups,
            experts.groups_per_token,
            experts.shared_slots,
        )


def missed_by_chance(chosen_LQX: Floats) -> Floats:
    """Logarithm of the probability that a token sends no row to a slot: what `hit_by_chance` adds up."""
    return np.log1p(-np.minimum(chosen_LQX, _LIKELIEST))


def hit_by_chance(choice: Choice, missed_LQX: Floats, slots_LX: NDArray[np.int64], places: int) -> Floats:
    """Probability that any slot of a place is chosen: (L, Q, places).

    Choices of one token exclude each other, so independent misses would be too rare or too frequent; an exponent
    makes their product exact for uniform routing (and for groups of node-limited routing), and keeps the skew.

    Args:
        choice: of a token.
        missed_LQX: of the slots, from `missed_by_chance`.
        slots_LX: the slots' experts.
        places: into fewer than there are slots these divide, one after the other.
    """
    layers, classes, slots = missed_LQX.shape
    each = slots // places
    together = summed(missed_LQX.reshape(layers, classes, places, each))
    here, alone = slots_LX, None
    if choice.shared:
        # Whether a shared expert is missed depends on no other choice of the token.
        sure_LX = slots_LX >= choice.count - choice.shared
        missed_LQX = np.where(sure_LX[:, None, :], missed_LQX, 0.0)
        alone = summed(missed_LQX.reshape(layers, classes, places, each))
        together -= alone
        here = np.where(sure_LX, EMPTY, slots_LX)
    here = here.reshape(layers, places, each)
    choice = choice.routed
    held_LP = (here != EMPTY).sum(axis=-1)
    groups_LP = np.ones_like(held_LP)
    if choice.groups > 1:
        present = np.zeros((layers, places, choice.groups), dtype=bool)
        layer, place, slot = np.nonzero(here != EMPTY)
        present[layer, place, here[layer, place, slot] // (choice.count // choice.groups)] = True
        groups_LP = present.sum(axis=-1)
    exponent_LP = np.ones(held_LP.shape)
    for held, groups in {*zip(held_LP.ravel().tolist(), groups_LP.ravel().tolist(), strict=True)}:
        exponent_LP[(held_LP == held) & (groups_LP == groups)] = _exponent(choice, held, groups)
    together *= exponent_LP[:, None, :]
    if alone is not None:
        together += alone
    return np.negative(np.expm1(together, out=together), out=together)


def summed(values: Floats) -> Floats:
    """The sum over the last axis; numpy's own takes several times as long where that is a rank's few slots."""
    if values.shape[-1] > _FEW:
        return np.asarray(values.sum(axis=-1))
    total = values[..., 0].copy()
    for index in range(1, values.shape[-1]):
        total += values[..., index]
    return total


def first_by_company(
    slots_LX: NDArray[np.int64],
    part_LX: Floats,
    load_LE: Floats,
    together_LEE: Floats,
    places: int,
    choice: Choice,
) -> Floats:
    """Share of each slot's tokens that pick nothing in an earlier slot of its place: (L, X).

    Follows from co-activation: the picks of earlier slots are taken as independent given the slot itself, with an
    exponent that makes the product exact for uniform routing.

    Args:
        slots_LX: the slots' experts.
        part_LX: of a token's rows for the slot's expert the part that the slot gets.
        load_LE: tokens per expert.
        together_LEE: tokens that pick both; its diagonal is not read.
        places: into so many the slots divide, one after the other.
        choice: of a token.
    """
    layers, slots = slots_LX.shape
    slots_LPB = slots_LX.reshape(layers, places, -1)
    held_LPB = slots_LPB != EMPTY
    expert_LPB = np.where(held_LPB, slots_LPB, 0)
    layer = np.arange(layers)[:, None, None]
    both = together_LEE[layer[..., None], expert_LPB[..., :, None], expert_LPB[..., None, :]]
    # Of the tokens of slot b those that also pick the expert of slot c, and there this very replica of it.
    load_LPB = np.maximum(load_LE[layer, expert_LPB], 1e-300)
    meets = both / load_LPB[..., :, None] * part_LX.reshape(slots_LPB.shape)[..., None, :]
    meets = np.minimum(meets, _SURE)
    meets[~held_LPB[..., None, :] | ~held_LPB[..., :, None]] = 0.0
    missed_LPB = np.log1p(-np.tril(meets, k=-1)).sum(axis=3)
    earlier_LPB = np.cumsum(held_LPB, axis=2) - held_LPB
    first: Floats = np.exp(missed_LPB * _after(choice, slots // places)[earlier_LPB])
    return first.reshape(layers, slots)


_SURE = 0.999
"""Most probability of meeting a partner that one pair contributes: keeps its logarithm finite."""


def _after(choice: Choice, slots: int) -> Floats:
    """Exponents that make a uniform product of misses of 0, 1, ... earlier slots exact: (slots,)."""
    others, picks = choice.count - 1, choice.per_token - 1
    exponents = np.ones(slots)
    if not 0 < picks < others:
        return exponents
    for earlier in range(2, slots):
        missed = comb(max(0, others - earlier), picks) / comb(others, picks)
        exponents[earlier] = log(max(missed, 1e-300)) / (earlier * log(1 - picks / others))
    return exponents


def _exponent(choice: Choice, held: int, groups: int) -> float:
    """The exponent that makes a uniform product of misses over `held` experts in `groups` groups exact."""
    count, k = choice.count, choice.per_token
    if held == 0 or k == count:
        return 1.0
    missed = _missed(choice, held, groups)
    return log(max(missed, 1e-300)) / (held * log(1 - k / count))


def _missed(choice: Choice, held: int, groups: int) -> float:
    """Probability that none of `held` experts, spread evenly over `groups` groups, is among a token's top-k."""
    usable = choice.count // choice.groups * choice.groups_per_token
    every = comb(choice.groups, choice.groups_per_token)
    total = 0.0
    for open_groups in range(min(groups, choice.groups_per_token) + 1):
        ways = comb(groups, open_groups) * comb(choice.groups - groups, choice.groups_per_token - open_groups)
        reachable = round(held * open_groups / groups)
        missed = comb(max(0, usable - reachable), choice.per_token) / comb(usable, choice.per_token)
        total += ways / every * missed
    return total
