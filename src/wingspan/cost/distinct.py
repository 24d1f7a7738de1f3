"""How many distinct groups of experts (nodes, ranks) a token's top-k choice touches."""

from __future__ import annotations

from math import comb

from wingspan.errors import InputError


def expected_distinct(experts: int, top_k: int, groups: int) -> float:
    """Expected number of distinct groups hit by `top_k` different experts, each as likely as any other.

    G (1 - C(E - E/G, k) / C(E, k)): a group is missed where all k fall among the experts of the others
    (DESIGN.md section 7). Experts that do not divide evenly go to the first groups, one more each.

    Example: 256 experts, top-8: 2 nodes 1.99, 4: 3.61, 8: 5.30, 16: 6.52, 32: 7.27.

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
