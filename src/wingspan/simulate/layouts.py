"""What a search may choose on a number of GPUs: EP sizes, slots per rank, and how many ranks share attention."""

from __future__ import annotations

from wingspan.specs.cluster import Cluster


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
