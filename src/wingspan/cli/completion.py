"""What a shell offers behind Tab: names of presets, beside the files that it finds itself."""

from __future__ import annotations


def model_names(incomplete: str) -> list[str]:
    """Model presets that begin as what was typed."""
    from wingspan.specs.models import model_presets

    return [name for name in model_presets() if name.startswith(incomplete)]


def source_names(incomplete: str) -> list[str]:
    """The same, and published deployments."""
    return [*model_names(incomplete), *deployment_names(incomplete)]


def deployment_names(incomplete: str) -> list[str]:
    """Published deployments that begin so."""
    from wingspan.deployment_presets import deployment_presets

    return [name for name in deployment_presets() if name.startswith(incomplete)]


def cluster_names(incomplete: str) -> list[str]:
    """Clusters that begin so; behind a `+`, the variants of what stands before it."""
    from wingspan.specs.cluster_files import cluster_presets, cluster_variants

    before, plus, begun = incomplete.rpartition("+")
    known = cluster_variants() if plus else cluster_presets()
    return [f"{before}{plus}{name}" for name in known if name.startswith(begun)]
