"""Where requests live: dealt to another number of ranks."""

from __future__ import annotations

import numpy as np

from wingspan.routing.trace import RoutingTrace


def spread_requests(trace: RoutingTrace, ranks: int) -> RoutingTrace:
    """Deal the requests to `ranks` ranks in turn, their tokens unchanged: for a trace recorded on another number."""
    _, index_T = np.unique(trace.request_T, return_inverse=True)
    return RoutingTrace(
        trace.experts_TLK,
        (index_T % ranks).astype(np.int32),
        trace.request_T,
        trace.step_T,
        trace.num_experts,
        ranks,
    )
