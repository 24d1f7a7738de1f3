"""A placement's traffic as an expectation, from a demand: load, sources and co-activation, no tokens.

Ranks of a domain hold equally many tokens and choose alike. Where a demand knows no sources all ranks do; where it
knows no co-activation, experts go together by chance.

Shapes: L MoE layers, E logical experts, R ranks, S slots per rank, X = R x S slots, G scale-up domains,
Q classes of source domains that choose alike (1 or G). The last domain may be narrower than the others: slots and
ranks are then filled up to whole domains with slots that hold nothing and ranks that have no tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from wingspan.specs.cluster import Cluster
from wingspan.specs.execution import DispatcherKind
from wingspan.specs.placement import EMPTY
from wingspan.traffic.demand import Demand
from wingspan.traffic.distinct import first_by_company, hit_by_chance, missed_by_chance, summed
from wingspan.traffic.layers import Domains, LayerTraffic
from wingspan.traffic.links import Traffic
from wingspan.traffic.rule import NEAREST_FIRST, ReplicaRule

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_CACHED_VALUES = 300_000
"""Values of an array over (layer, domain, slot): that of 1,024 ranks with replicas is 60 MB over all layers."""


def expected_traffic(
    slots_LRS: Ints,
    demand: Demand,
    cluster: Cluster,
    dispatcher: DispatcherKind,
    rule: ReplicaRule = NEAREST_FIRST,
) -> LayerTraffic:
    """Rows of one dispatch of the demand's tokens, one way.

    Args:
        slots_LRS: experts in slots, over exactly the cluster's ranks; every expert has one.
        demand: of the step, or of any number of tokens; its nodes are the cluster's domains.
        cluster: for its domains and racks.
        dispatcher: what is sent once.
        rule: of the replicas.
    """
    blocks = [
        _of_layers(slots_LRS[layers], demand.of_layers(layers), cluster, dispatcher, rule)
        for layers in _blocks(slots_LRS, Domains.of(cluster, slots_LRS.shape[1]).count)
    ]
    return LayerTraffic.joined(blocks)


def _blocks(slots_LRS: Ints, domains: int) -> list[slice]:
    """Layers that are computed together: as many as stay in the processor's cache, one at least."""
    layers, ranks, each = slots_LRS.shape
    size = max(1, _CACHED_VALUES // (domains * ranks * each))
    return [slice(begin, begin + size) for begin in range(0, layers, size)]


def _of_layers(
    slots_LRS: Ints, demand: Demand, cluster: Cluster, dispatcher: DispatcherKind, rule: ReplicaRule
) -> LayerTraffic:
    _, ranks, slots_per_rank = slots_LRS.shape
    flow = _flow(slots_LRS, demand, Domains.of(cluster, ranks), rule)
    rows = _Rows(flow, slots_per_rank)
    if dispatcher is DispatcherKind.HIERARCHICAL:
        arrived, crossing_LQG, links = _hierarchical(flow, rows)
    else:
        per_rank = rows.once if dispatcher is DispatcherKind.DEDUPLICATED else rows.every
        arrived, crossing_LQG, links = _straight(flow, per_rank())
    up_sent, up_received, out_sent, out_received = (np.maximum(level[:, :ranks], 0.0) for level in links)
    rack_sent, rack_received = _rack_rows(cluster, flow, crossing_LQG)
    return LayerTraffic(
        _slot_rows(flow, slots_LRS),
        arrived[:, :ranks],
        Traffic(up_sent, up_received, out_sent, out_received, rack_sent, rack_received),
    )


def expected_slot_rows(slots_LRS: Ints, demand: Demand, domains: Domains, rule: ReplicaRule) -> Floats:
    """Rows that each slot computes: (L, R, S)."""
    return _slot_rows(_flow(slots_LRS, demand, domains, rule), slots_LRS)


def _slot_rows(flow: _Flow, slots_LRS: Ints) -> Floats:
    layers, ranks, each = slots_LRS.shape
    return flow.slot_rows_LX[:, : ranks * each].reshape(layers, ranks, each)


@dataclass(frozen=True, eq=False)
class _Flow:
    """Where the rows of a token go.

    Args:
        domains: of the ranks.
        demand: of the tokens.
        slots_LX: experts in slots, filled up to whole domains.
        tokens_LG: that live in each domain.
        beyond_LQE: probability that a token of a source class sends a row to a slot of this expert in another domain.
        near_LX: probability that a token of the slot's own domain does.
        own_LX: probability that a token of the slot's own rank does.
        near_picked_LX: probability that a token of the slot's own domain picks its expert.
    """

    domains: Domains
    demand: Demand
    slots_LX: NDArray[np.int64]
    tokens_LG: Floats
    beyond_LQE: Floats
    near_LX: Floats
    own_LX: Floats
    near_picked_LX: Floats

    @property
    def class_G(self) -> NDArray[np.int64]:
        """The class of each domain."""
        return _classes(self.beyond_LQE, self.domains)

    @cached_property
    def chosen_LQX(self) -> Floats:
        """Probability that a token of a source class sends a row to a slot."""
        return self._at_slots(self.beyond_LQE, self.near_LX)

    @cached_property
    def missed_LQX(self) -> Floats:
        """What `hit_by_chance` adds up of it: taken of the experts, who are fewer than slots times domains."""
        return self._at_slots(missed_by_chance(self.beyond_LQE), missed_by_chance(self.near_LX))

    def _at_slots(self, beyond_LQE: Floats, near_LX: Floats) -> Floats:
        """Look up the value of each slot: (L, Q, X); layer by layer, which numpy does quickest. Empty ones have 0."""
        layers, classes, _ = beyond_LQE.shape
        slots = np.arange(self.slots_LX.shape[1])
        values_LQE = np.concatenate([beyond_LQE, np.zeros((layers, classes, 1))], axis=2)
        at_LQX = np.empty((layers, classes, len(slots)))
        for layer, values_QE in enumerate(values_LQE):
            values_QE.take(self.slots_LX[layer], axis=1, out=at_LQX[layer], mode="wrap")
        at_LQX[:, slots * classes // len(slots), slots] = near_LX
        return at_LQX

    @property
    def tokens_LR(self) -> Floats:
        """Tokens that live on each rank, filled up to whole domains (the fillers' are never read)."""
        per_rank_LG = self.tokens_LG / self.domains.ranks_G
        return np.repeat(per_rank_LG, self.domains.width, axis=1)

    @cached_property
    def slot_rows_LX(self) -> Floats:
        """Rows that each slot computes."""
        return self.from_all(self.chosen_LQX)

    @cached_property
    def far_part_LX(self) -> Floats:
        """The part that a slot gets of the rows that other domains have for its expert."""
        near_LX = self.by_own(self.chosen_LQX) * self._of_domain(self.tokens_LG)
        wanted_LX = np.take_along_axis(self.demand.load_LE, np.maximum(self.slots_LX, 0), axis=1)
        near_wanted_LX = self.near_picked_LX * self._of_domain(self.tokens_LG)
        far_rows, far_wanted = self.slot_rows_LX - near_LX, wanted_LX - near_wanted_LX
        if self.domains.count == 1:
            far_rows, far_wanted = self.slot_rows_LX, wanted_LX
        part = np.divide(far_rows, far_wanted, out=np.zeros_like(far_rows), where=far_wanted > 1e-12)
        return np.clip(part, 0.0, 1.0)

    def _of_domain(self, values_LG: Floats) -> Floats:
        """Look up the value of each slot's domain: (L, X) from (L, G)."""
        return np.repeat(values_LG, self.slots_LX.shape[1] // self.domains.count, axis=1)

    def from_all(self, values_LQ: Floats) -> Floats:
        """Sum over all tokens of what (L, Q, ...) is per token."""
        several = values_LQ.shape[1] > 1
        tokens_LQ = self.tokens_LG if several else self.tokens_LG.sum(axis=1, keepdims=True)
        return np.asarray(np.einsum("ld...,ld->l...", values_LQ, tokens_LQ))

    def by_own(self, values_LQR: Floats) -> Floats:
        """Pick from (L, Q, R) what a token of the rank's own domain sends there: (L, R)."""
        layers, classes, _ = values_LQR.shape
        count = self.domains.count
        split = values_LQR.reshape(layers, classes, count, -1)
        return split[:, self.class_G, np.arange(count)].reshape(layers, -1)


def _flow(slots_LRS: Ints, demand: Demand, domains: Domains, rule: ReplicaRule) -> _Flow:
    layers, _, each = slots_LRS.shape
    fillers = domains.count * domains.width - domains.ranks
    filled = np.full((layers, fillers, each), EMPTY)
    slots_LX = np.concatenate([slots_LRS, filled], axis=1).reshape(layers, -1)
    tokens_LG, picked_LQE = _sources(demand, domains)
    parts = rule.parts(slots_LX, demand.num_experts, domains.count)
    class_X = np.repeat(_classes(picked_LQE, domains), slots_LX.shape[1] // domains.count)
    near_picked_LX = picked_LQE[np.arange(layers)[:, None], class_X, np.maximum(slots_LX, 0)]
    return _Flow(
        domains,
        demand,
        slots_LX,
        tokens_LG,
        picked_LQE * parts.elsewhere_LQE,
        near_picked_LX * parts.near_LX,
        near_picked_LX * parts.of_own_rank_LX,
        near_picked_LX,
    )


def _classes(values_LQE: Floats, domains: Domains) -> NDArray[np.int64]:
    """The source class of each domain: its own, or the one that all share."""
    return np.arange(domains.count) if values_LQE.shape[1] > 1 else np.zeros(domains.count, dtype=np.int64)


def _sources(demand: Demand, domains: Domains) -> tuple[Floats, Floats]:
    """Tokens of each domain (L, G), and the probability that a token of a source class picks an expert (L, Q, E)."""
    if demand.source_LEG is None:
        tokens_LG = demand.tokens_L[:, None] * (domains.ranks_G / domains.ranks)
        picked_LQE = (demand.load_LE / np.maximum(demand.tokens_L, 1e-300)[:, None])[:, None, :]
    else:
        tokens_LG = demand.source_LEG.sum(axis=1) / demand.choice.per_token
        picked_LQE = demand.source_LEG.transpose(0, 2, 1) / np.maximum(tokens_LG, 1e-300)[:, :, None]
    return tokens_LG, picked_LQE


@dataclass(frozen=True, eq=False)
class _PerRank:
    """Rows per token to ranks: from each source class (L, Q, R), and from a token of the rank itself (L, R)."""

    from_class_LQR: Floats
    from_self_LR: Floats


class _Rows:
    """Rows per token to each rank, once per expert or once in all, and to each domain once."""

    def __init__(self, flow: _Flow, slots_per_rank: int) -> None:
        self._flow = flow
        self._ranks = flow.domains.count * flow.domains.width
        self._slots_per_rank = slots_per_rank

    def every(self) -> _PerRank:
        """One row per (token, expert)."""
        flow = self._flow
        layers, classes, _ = flow.chosen_LQX.shape
        return _PerRank(
            summed(flow.chosen_LQX.reshape(layers, classes, self._ranks, -1)),
            summed(flow.own_LX.reshape(layers, self._ranks, -1)),
        )

    def once(self) -> _PerRank:
        """One row per (token, rank)."""
        if self._slots_per_rank == 1:
            return self.every()
        flow = self._flow
        own = self._hit(flow.own_LX[:, None, :], self._ranks)
        return _PerRank(self._hit(None, self._ranks), own[:, 0])

    def once_per_domain(self) -> Floats:
        """One row per (token, domain): (L, Q, G)."""
        if self._ranks == self._flow.domains.count and self._slots_per_rank == 1:
            return self._flow.chosen_LQX
        return self._hit(None, self._flow.domains.count)

    def _hit(self, chosen_LQX: Floats | None, places: int) -> Floats:
        """Rows per token to places; of tokens that choose slots so, None: of all."""
        flow = self._flow
        demand = flow.demand
        if demand.together_LEE is None:
            missed_LQX = flow.missed_LQX if chosen_LQX is None else missed_by_chance(chosen_LQX)
            return hit_by_chance(demand.choice, missed_LQX, flow.slots_LX, places)
        first_LX = first_by_company(
            flow.slots_LX, flow.far_part_LX, demand.load_LE, demand.together_LEE, places, demand.choice
        )
        chosen_LQX = flow.chosen_LQX if chosen_LQX is None else chosen_LQX
        rows = (chosen_LQX * first_LX[:, None, :]).reshape(*chosen_LQX.shape[:2], places, -1)
        return np.asarray(rows.sum(axis=-1))


def _straight(flow: _Flow, rows: _PerRank) -> tuple[Floats, Floats, list[Floats]]:
    """Rows that arrive, rows to each domain, and the four levels of links, each row straight to its rank."""
    width, tokens_LR = flow.domains.width, flow.tokens_LR
    layers, classes, _ = rows.from_class_LQR.shape
    crossing_LQG = rows.from_class_LQR.reshape(layers, classes, -1, width).sum(axis=-1)
    near_LR = flow.by_own(rows.from_class_LQR) * np.repeat(flow.tokens_LG, width, axis=1)
    self_LR = rows.from_self_LR * tokens_LR
    arrived_LR = flow.from_all(rows.from_class_LQR)
    to_own_LR = np.repeat(flow.by_own(crossing_LQG), width, axis=1)
    to_all_LR = np.repeat(crossing_LQG.sum(axis=2)[:, flow.class_G], width, axis=1)
    return (
        arrived_LR,
        crossing_LQG,
        [
            to_own_LR * tokens_LR - self_LR,
            near_LR - self_LR,
            (to_all_LR - to_own_LR) * tokens_LR,
            arrived_LR - near_LR,
        ],
    )


def _hierarchical(flow: _Flow, rows: _Rows) -> tuple[Floats, Floats, list[Floats]]:
    """What links carry where a row crosses to each domain once, to the rank of its home's index, which forwards it."""
    width, tokens_LR = flow.domains.width, flow.tokens_LR
    once, crossing_LQG = rows.once(), rows.once_per_domain()
    layers = len(tokens_LR)
    mates_R = np.repeat(flow.domains.ranks_G, width).astype(np.float64)
    arrived_LR = flow.from_all(once.from_class_LQR)
    near_LR = flow.by_own(once.from_class_LQR) * np.repeat(flow.tokens_LG, width, axis=1)
    self_LR = once.from_self_LR * tokens_LR
    far_LR = arrived_LR - near_LR
    # Rows of other domains land on all ranks alike; of near ones each mate sends its share.
    received_up_LR = far_LR * (mates_R - 1) / mates_R + near_LR - self_LR
    by_mate_LR = far_LR / mates_R + (near_LR - self_LR) / np.maximum(mates_R - 1, 1)
    in_domain_LG = by_mate_LR.reshape(layers, -1, width).sum(axis=2)
    own_LG = flow.by_own(crossing_LQG)
    leaving_LG = crossing_LQG.sum(axis=2)[:, flow.class_G] - own_LG
    entering_LG = (flow.from_all(crossing_LQG) - own_LG * flow.tokens_LG) / flow.domains.ranks_G
    return (
        arrived_LR,
        crossing_LQG,
        [
            np.repeat(in_domain_LG, width, axis=1) - by_mate_LR,
            received_up_LR,
            np.repeat(leaving_LG, width, axis=1) * tokens_LR,
            np.repeat(entering_LG, width, axis=1),
        ],
    )


def _rack_rows(cluster: Cluster, flow: _Flow, crossing_LQG: Floats) -> tuple[Floats, Floats]:
    """Rows that leave and enter each rack: two (L, K), K = 0 without racks."""
    rack_G = flow.domains.rack_of_domain(cluster)
    if rack_G is None:
        nothing = np.zeros((len(crossing_LQG), 0))
        return nothing, nothing
    member_GK = (rack_G[:, None] == np.arange(rack_G[-1] + 1)).astype(np.float64)
    elsewhere_GG = rack_G[:, None] != rack_G[None, :]
    rows_LGG = crossing_LQG[:, flow.class_G] * flow.tokens_LG[:, :, None] * elsewhere_GG
    return rows_LGG.sum(axis=2) @ member_GK, rows_LGG.sum(axis=1) @ member_GK
