"""How many distinct nodes a token's top-k choice touches where every expert is as likely as any other.

Shapes: E logical experts.
"""

from __future__ import annotations

from math import comb

import numpy as np
from numpy.typing import ArrayLike

from wingspan.errors import InputError


def expected_distinct(experts: int, top_k: int, groups: int) -> float:
    """Expected number of distinct groups hit by `top_k` different experts, each as likely as any other.

    G (1 - C(E - E/G, k) / C(E, k)): a group is missed where all k fall among the experts of the others.
    Experts that do not divide evenly go to the first groups, one more each.

    Example: 256 experts, top-8: 2 nodes 1.99, 4: 3.61, 8: 5.29, 16: 6.52, 32: 7.27.

    Raises:
        InputError: top-k above the experts, or fewer than one of anything.
    """
    if not 1 <= top_k <= experts or groups < 1:
        raise InputError(f"top-k {top_k} of {experts} experts over {groups} groups: no such choice")
    small, larger_groups = divmod(experts, groups)
    every = comb(experts, top_k)
    missed_small = comb(experts - small, top_k) / every
    missed_large = comb(experts - small - 1, top_k) / every if larger_groups else 0.0
    return (groups - larger_groups) * (1 - missed_small) + larger_groups * (1 - missed_large)


def expected_distinct_nodes(node_E: ArrayLike, top_k: int) -> float:
    """Expected distinct nodes where experts lie on them in any way: the sum of 1 - C(E - e, k) / C(E, k) over nodes.

    Args:
        node_E: the node of each logical expert (experts,); e is the number of experts on a node.
        top_k: experts per token.

    Example: 4 experts on 2 nodes, top-2, give 2 x (1 - 1/6) = 1.667.

    Raises:
        InputError: top-k above the experts.
    """
    held_G = np.unique(np.asarray(node_E), return_counts=True)[1].tolist()
    experts = sum(held_G)
    if not 1 <= top_k <= experts:
        raise InputError(f"top-{top_k} of {experts} experts cannot be")
    every = comb(experts, top_k)
    return sum(1 - comb(experts - held, top_k) / every for held in held_G)
