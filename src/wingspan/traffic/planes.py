"""Experts cut over neighbouring ranks: what the ranks of one index in every such group see of the cluster."""

from __future__ import annotations

from wingspan.specs.cluster import Cluster


def plane_of(cluster: Cluster, group: int) -> Cluster:
    """The cluster that every `group`-th rank forms: an exchange runs once in each of these, all alike.

    A row travels between ranks of one index, and is gathered inside the group where it arrives. A group wider than a
    node or domain leaves one rank of it. Of a network card that several GPUs share each plane's rank has its share.

    Args:
        cluster: as many GPUs as there are ranks.
        group: neighbouring ranks that share each expert.
    """
    if group == 1:
        return cluster
    node, domain = (max(1, width // group) for width in (cluster.gpus_per_node, cluster.scale_up_domain_gpus))
    changes: dict[str, object] = {
        "nodes": max(1, cluster.gpus // group // node),
        "gpus_per_node": node,
        "scale_up_domain_gpus": domain,
    }
    if cluster.gpus_per_network_card > 1:
        share = cluster.scale_out.bandwidth_bytes_per_second / cluster.gpus_per_network_card
        changes["scale_out"] = cluster.scale_out.model_copy(update={"bandwidth_bytes_per_second": share})
        changes["gpus_per_network_card"] = 1
    if cluster.racks is not None:
        per_rack = max(1, cluster.racks.nodes_per_rack * cluster.gpus_per_node // group // node)
        changes["racks"] = cluster.racks.model_copy(update={"nodes_per_rack": per_rack})
    return cluster.model_copy(update=changes)
