"""What one dispatch of every MoE layer brings: rows for each slot, rows at each rank, rows through each link.

Shapes: L MoE layers, R ranks, S slots per rank, G scale-up domains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from wingspan.specs.cluster import Cluster
from wingspan.traffic.links import Traffic

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LayerTraffic:
    """Rows of one dispatch, per layer: counted from a trace (`counted`) or expected from a demand (`expected`).

    Args:
        slot_rows_LRS: (token, expert) pairs that each slot computes.
        arrived_LR: rows that reach each rank before they are copied to its slots, its own tokens' included.
        links: rows through each link; row bytes times `links.scaled` gives bytes.
    """

    slot_rows_LRS: Floats
    arrived_LR: Floats
    links: Traffic

    @classmethod
    def joined(cls, blocks: Sequence[LayerTraffic]) -> LayerTraffic:
        """Blocks of layers, one after the other."""
        if len(blocks) == 1:
            return blocks[0]
        links = [
            np.concatenate([getattr(block.links, field.name) for block in blocks])
            for field in fields(Traffic)
        ]
        return cls(
            np.concatenate([block.slot_rows_LRS for block in blocks]),
            np.concatenate([block.arrived_LR for block in blocks]),
            Traffic(*links),
        )

    def sent_from(self, tokens_R: Floats) -> LayerTraffic:
        """The same rows, where ranks have unlike numbers of tokens: each sends in proportion to its own."""
        share_R = tokens_R / tokens_R.mean()
        up, out = self.links.scale_up_sent * share_R, self.links.scale_out_sent * share_R
        return replace(self, links=replace(self.links, scale_up_sent=up, scale_out_sent=out))

    def scaled(self, factor: float) -> LayerTraffic:
        """All rows times `factor`: from a trace to its mean step."""
        return LayerTraffic(self.slot_rows_LRS * factor, self.arrived_LR * factor, self.links.scaled(factor))


@dataclass(frozen=True)
class Domains:
    """Ranks in scale-up domains (nodes): the last may be narrower than the others.

    Args:
        ranks: all of them.
        width: ranks of a full domain.
    """

    ranks: int
    width: int

    @classmethod
    def of(cls, cluster: Cluster, ranks: int) -> Domains:
        """The domains that so many ranks of a cluster fill."""
        return cls(ranks, min(cluster.scale_up_domain_gpus, ranks))

    @property
    def count(self) -> int:
        """Number of domains."""
        return -(-self.ranks // self.width)

    @property
    def ranks_G(self) -> NDArray[np.int64]:
        """Ranks of each domain."""
        return np.minimum(self.width, self.ranks - np.arange(self.count) * self.width)

    def of_rank(self, rank: NDArray[np.int64]) -> NDArray[np.int64]:
        """The domain of each rank."""
        return rank // self.width

    def rack_of_domain(self, cluster: Cluster) -> NDArray[np.int64] | None:
        """The rack of each domain (G,); None where the cluster has none, or one is enough."""
        if cluster.racks is None:
            return None
        rack_G = np.arange(self.count) * self.width // (cluster.racks.nodes_per_rack * cluster.gpus_per_node)
        return rack_G if rack_G[-1] else None
