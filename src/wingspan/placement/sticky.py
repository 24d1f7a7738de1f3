"""Give a plan the names that move least: nodes, ranks and slots that hold nearly the same as before keep it.

Which node, rank or slot is called which changes no balance and no co-activation, only the sources (nodes) and what
must be fetched. So the best renaming is a linear assignment: of nodes, then of ranks in each node, then slots stay.

Shapes: L layers, R ranks, S slots, G nodes, M ranks per node, B slots per node, E experts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from wingspan.specs.placement import EMPTY

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def name_nodes(slots_LRS: Ints, worth_LEG: Floats) -> Ints:
    """Put each node's contents on the node where they are worth most in sum; `worth_LEG` per (expert, node)."""
    num_layers, ranks, size = slots_LRS.shape
    nodes = worth_LEG.shape[2]
    contents_LGB = slots_LRS.reshape(num_layers, nodes, -1)
    held = contents_LGB != EMPTY
    layer = np.arange(num_layers)[:, None, None]
    worth_LGBG = worth_LEG[layer, np.where(held, contents_LGB, 0)] * held[..., None]
    source_LG = _assign(worth_LGBG.sum(axis=2).transpose(0, 2, 1))
    return contents_LGB[np.arange(num_layers)[:, None], source_LG].reshape(num_layers, ranks, size)


def name_ranks(slots_LRS: Ints, present_LRQ: Ints, ranks_per_node: int) -> Ints:
    """Inside each node put the contents of each rank where most of them lie at `present_LRQ`, slot by slot."""
    num_layers, ranks, size = slots_LRS.shape
    new_XMS = slots_LRS.reshape(-1, ranks_per_node, size)
    old_XMQ = present_LRQ.reshape(-1, ranks_per_node, present_LRQ.shape[2])
    same = new_XMS[:, :, None, :, None] == old_XMQ[:, None, :, None, :]
    same &= (new_XMS != EMPTY)[:, :, None, :, None]
    common_XMM = same.any(axis=4).sum(axis=3)
    source_XM = _assign(common_XMM.transpose(0, 2, 1).astype(np.float64))
    placed_XMS = new_XMS[np.arange(len(new_XMS))[:, None], source_XM]
    return _keep_slots(placed_XMS.reshape(num_layers, ranks, size), present_LRQ)


def _assign(worth_XAB: Floats) -> Ints:
    """Assign to each row A the column B that makes the sum greatest, in every matrix X."""
    rows = worth_XAB.shape[1]
    result = np.tile(np.arange(rows), (len(worth_XAB), 1))
    # Where the diagonal is best in each row it is the assignment; most nodes of a calm plan are such.
    diagonal = np.diagonal(worth_XAB, axis1=1, axis2=2)
    for x in np.flatnonzero((diagonal < worth_XAB.max(axis=2)).any(axis=1)):
        result[x] = linear_sum_assignment(worth_XAB[x], maximize=True)[1]
    return result


def _keep_slots(slots_LRS: Ints, present_LRQ: Ints) -> Ints:
    """Inside each rank leave an expert in the slot where it lies, and put the others in the free slots in order."""
    size = slots_LRS.shape[2]
    at_LRSQ = (slots_LRS[..., :, None] == present_LRQ[..., None, :size]) & (slots_LRS != EMPTY)[..., None]
    stays_LRS, old_slot_LRS = at_LRSQ.any(axis=3), at_LRSQ.argmax(axis=3)
    kept_LRQ = at_LRSQ.any(axis=2)
    # Free slots in order, and newcomers in order, meet rank by rank.
    free_LRS = np.argsort(kept_LRQ, axis=2, kind="stable")
    turn_LRS = np.cumsum(~stays_LRS, axis=2) - 1
    new_slot = np.take_along_axis(free_LRS, np.maximum(turn_LRS, 0), axis=2)
    target_LRS = np.where(stays_LRS, old_slot_LRS, new_slot)
    result = np.full_like(slots_LRS, EMPTY)
    np.put_along_axis(result, target_LRS, slots_LRS, axis=2)
    return result
