"""What a person sees of `wingspan calibrate`: each resource as measured, beside the line drawn through it."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table

from wingspan.cli.console import Console


def show(cluster: Any, found: Any) -> None:
    """Print the summary to standard error."""
    console = Console(stderr=True, highlight=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("measured", "smallest", "largest", "in the file"):
        table.add_column(name, justify="left" if name == "measured" else "right")
    for precision, samples in found.products.items():
        peak = cluster.gpu.peak_flops[precision]
        table.add_row(
            f"matrix product, {precision}",
            f"{_us(samples[0][1])}",
            f"{_us(samples[-1][1])} ({_rate(samples[-1], 'FLOP/s')})",
            f"{_scaled(peak)}FLOP/s",
        )
    read = cluster.gpu.memory_bandwidth_bytes_per_second
    table.add_row("memory, read", "", f"{_us(found.read[1])}", f"{_scaled(read)}B/s")
    for label, samples, link in (
        ("link inside a node", found.links.within, cluster.scale_up),
        ("link between nodes", found.links.across, cluster.scale_out),
    ):
        if samples:
            table.add_row(
                label,
                f"{_us(samples[0][1])}",
                f"{_us(samples[-1][1])} ({_rate(samples[-1], 'B/s')})",
                f"{_scaled(link.bandwidth_bytes_per_second)}B/s + {_us(link.latency_seconds)}",
            )
        else:
            table.add_row(label, "", "", "not measured")
    console.print(table)


def _us(seconds: float) -> str:
    return f"{seconds * 1e6:.1f} us" if seconds < 1e-3 else f"{seconds * 1e3:.2f} ms"


def _rate(sample: tuple[float, float], unit: str) -> str:
    return f"{_scaled(sample[0] / sample[1])}{unit}"


def _scaled(value: float) -> str:
    for prefix, scale in (("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if value >= scale:
            return f"{value / scale:.2f} {prefix}"
    return f"{value:.0f} "
