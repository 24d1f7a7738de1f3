"""Which experts single tokens choose, drawn from the shares of a workload.

Shapes: L MoE layers, E experts, T tokens, K experts per token.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def draw_choices(
    shares_LE: NDArray[np.float64], tokens: int, top_k: int, seed: int | Sequence[int]
) -> NDArray[np.int64]:
    """Every token's experts in every layer: (L, T, K), without repetition, hotter ones by their shares.

    The k largest of log share + Gumbel noise are a draw of k without replacement. An expert's frequency follows its
    share as far as that goes: with k of E drawn at once, the hottest ones fall a little behind theirs.
    """
    layers, experts = shares_LE.shape
    rng = np.random.default_rng(seed)
    with np.errstate(divide="ignore"):
        log_LE = np.log(shares_LE)
    chosen_LTK = np.empty((layers, tokens, top_k), dtype=np.int64)
    # Layer by layer: the scores of all may fill the memory.
    for chosen_TK, log_E in zip(chosen_LTK, log_LE, strict=True):
        scores_TE = log_E + rng.gumbel(size=(tokens, experts))
        chosen_TK[:] = np.argpartition(-scores_TE, top_k - 1, axis=1)[:, :top_k]
    return chosen_LTK
