"""What a search may choose on a number of GPUs: EP sizes, slots per rank, and how many ranks share attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wingspan.errors import InputError
from wingspan.placement.spec import PlacementSpec, Strategy
from wingspan.specs.cluster import Cluster


@dataclass(frozen=True)
class Kept:
    """What of slots and placement is asked for, and so not chosen; None: chosen.

    Args:
        experts_per_rank: slots per (layer, rank).
        redundant: slots beyond the experts, in all of a layer.
        placement: how experts are put into slots; an explicit one also says how many ranks there are.
    """

    experts_per_rank: int | None = None
    redundant: int | None = None
    placement: PlacementSpec | None = None

    @property
    def strategy(self) -> Strategy | None:
        """The placement's; where replicas are asked for, the one that makes them."""
        if self.placement is not None:
            return self.placement.strategy
        return Strategy.BALANCED if self.redundant else None

    @property
    def ranks(self) -> int | None:
        """The EP size, where an explicit placement says it."""
        explicit = self.placement is not None and self.placement.slots is not None
        return self.placement.ranks if explicit and self.placement else None

    def check(self, experts: int, sizes: Sequence[int]) -> None:
        """Raise `InputError` where no EP size suits the slots that are asked for."""
        if any(self.slot_counts(experts, size) for size in sizes):
            return
        shown = ", ".join(map(str, sizes))
        if self.ranks is not None:
            raise InputError(f"`placement`: it is over {self.ranks} ranks; the EP sizes here are {shown}")
        if self.redundant is not None:
            raise InputError(
                f"`redundant` {self.redundant}: {experts} + {self.redundant} slots divide over none of the EP sizes "
                f"{shown}"
            )
        raise InputError(
            f"`experts_per_rank` {self.experts_per_rank}: holds the {experts} experts on none of the EP sizes {shown}"
        )

    def slot_counts(self, experts: int, ranks: int) -> list[int]:
        """Slots per rank to try; none where the asked ones do not suit so many ranks."""
        if self.ranks is not None and self.placement is not None:
            return [self.placement.experts_per_rank] if ranks == self.ranks else []
        if self.redundant is not None:
            each, left = divmod(experts + self.redundant, ranks)
            return [each] if not left and each <= experts else []
        if self.experts_per_rank is not None:
            enough = self.experts_per_rank * ranks >= experts
            return [self.experts_per_rank] if enough and self.experts_per_rank <= experts else []
        return slot_counts(experts, ranks)

    def spec(self, strategy: Strategy, ranks: int, slots: int) -> PlacementSpec:
        """So many slots filled by this strategy, or the explicit placement."""
        if self.placement is not None and self.placement.slots is not None:
            return self.placement
        return PlacementSpec(strategy=strategy, ranks=ranks, experts_per_rank=slots)


def ep_sizes(experts: int, cluster: Cluster) -> list[int]:
    """EP sizes that cut the cluster's GPUs into alike groups, smallest first.

    A group fills whole nodes and whole scale-up domains, or an equal part of one; or it is all GPUs. Above the number
    of experts the further ranks are spare and hold replicas, up to one replica of every expert.

    Example: 256 experts on 72 GPUs in nodes of 8 give 1, 2, 4, 8, 24 and 72; in nodes of 4 under one domain of 72
    GPUs, 12 and 36 as well.
    """
    gpus = cluster.gpus
    levels = (min(cluster.gpus_per_node, gpus), min(cluster.scale_up_domain_gpus, gpus))
    sizes = (size for size in range(1, min(gpus, 2 * experts) + 1) if gpus % size == 0)
    return [size for size in sizes if size == gpus or all(_nested(size, level) for level in levels)]


def group_sizes(experts: int, cluster: Cluster) -> list[int]:
    """EP sizes of groups that need not fill the cluster: other groups may have the rest. Smallest first.

    Of more than fifty the larger ones are thinned out, each about a tenth above the one before.
    """
    levels = (min(cluster.gpus_per_node, cluster.gpus), min(cluster.scale_up_domain_gpus, cluster.gpus))
    most = min(cluster.gpus, 2 * experts)
    sizes = [size for size in range(1, most + 1) if all(_nested(size, level) for level in levels)]
    if len(sizes) <= _MOST_SIZES:
        return sizes
    thinned: list[int] = []
    for size in sizes:
        if not thinned or size >= _GROWTH * thinned[-1] or experts % size == 0 or size == most:
            thinned.append(size)
    return thinned


_MOST_SIZES = 50
_GROWTH = 1.1


def slot_counts(experts: int, ranks: int) -> list[int]:
    """Slots per rank: as few as hold every expert, then more, in growing strides up to twice as many.

    Example: 256 experts on 72 ranks give 4, 5, 6 and 8.
    """
    least = -(-experts // ranks)
    counts, extra = [least], 1
    while extra <= least and least + extra <= experts and ranks > 1:
        counts.append(least + extra)
        extra *= 2
    return counts


def attention_groups(ranks: int, cluster: Cluster, heads: int, shared: int = 1) -> list[int]:
    """Over how many ranks attention may be cut: what divides ranks, node and heads; also all that share an expert."""
    in_node = min(ranks, cluster.gpus_per_node)
    groups = [
        group for group in range(1, in_node + 1) if not (ranks % group or in_node % group or heads % group)
    ]
    beyond = shared > in_node and not (shared % in_node or ranks % shared or heads % shared)
    return [*groups, shared] if beyond else groups


def expert_cuts(ranks: int, cluster: Cluster, intermediate: int, asked: int | None) -> list[int]:
    """Over how many neighbouring ranks each expert may be cut: as asked, else not at all or over all of them."""
    in_node = min(ranks, cluster.gpus_per_node)
    cuts = dict.fromkeys([1, ranks] if asked is None else [asked])
    return [
        cut for cut in cuts if not (ranks % cut or intermediate % cut) and 0 in (in_node % cut, cut % in_node)
    ]


def _nested(size: int, level: int) -> bool:
    return size % level == 0 or level % size == 0
