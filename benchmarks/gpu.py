"""All that one GPU can show, in ten minutes: each part in a process of its own, under a time limit of its own.

From a checkout, without installing: torch, transformers and what `pyproject.toml` names must be there.

    PYTHONPATH=src python -m benchmarks.gpu --out gpu-results
    PYTHONPATH=src python -m benchmarks.gpu --dry-run

Every part leaves a JSON file with what it found, how long it took, and on what; a part that fails or runs out of time
leaves what it said last. Without a GPU nothing is run.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

_ROOT = Path(__file__).resolve().parents[1]
_LAST_LINES = 40
_NO_GPU = 2


@dataclass(frozen=True)
class Part:
    """One part: what it shows, and the most it may take."""

    name: str
    shows: str
    limit_seconds: int


PARTS = (
    Part("tests", "the tests marked `gpu`", 140),
    Part("ranks", "1, 2, 4 and 8 ranks on the GPU against plain transformers; schedules, dispatchers", 170),
    Part("kernels", "products, attention and memory of the reference models, predicted beside measured", 90),
    Part("steps", "host read-backs of a layer; a MoE layer eager and as a CUDA graph", 40),
    Part("overlap", "the exposed share of exchanges with and without the communication stream", 50),
    Part("memory", "a rank's memory by part, predicted beside counted, and what the card holds", 50),
    Part("cluster", "a cluster file by `wingspan calibrate`", 60),
)
"""Ten minutes if all of them ran to their limits; the most important first."""

app = typer.Typer(add_completion=False)


def machine() -> dict[str, Any]:
    """Card, driver and versions."""
    import torch
    import transformers

    driver = Path("/proc/driver/nvidia/version")
    return {
        "card": torch.cuda.get_device_name(0),
        "memory_bytes": torch.cuda.get_device_properties(0).total_memory,
        "driver": driver.read_text().splitlines()[0] if driver.exists() else None,
        "cuda": torch.version.cuda,
        "nccl": list(torch.cuda.nccl.version()),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }


def sees_gpu() -> bool:
    """Whether torch has a GPU to compute on; asks without making this process use it."""
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    import torch

    return torch.cuda.is_available()


def run_part(part: Part, out: Path) -> dict[str, Any]:
    """Run a part in a process of its own; what is known of it afterwards, which is also in its file."""
    found = out / f"{part.name}.found.json"
    found.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.gpu", "--part", part.name, "--out", str(out)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(_ROOT / "src"), str(_ROOT)])}
    begun = time.monotonic()
    try:
        done = subprocess.run(
            command, cwd=_ROOT, env=environment, capture_output=True, text=True, timeout=part.limit_seconds
        )
        ended, said = ("passed" if done.returncode == 0 else "failed"), done.stdout + done.stderr
    except subprocess.TimeoutExpired as late:
        ended, said = "out of time", _text(late.stdout) + _text(late.stderr)
    result = {
        "part": part.name,
        "ended": ended,
        "seconds": round(time.monotonic() - begun, 1),
        "found": json.loads(found.read_text()) if found.exists() else None,
        "said_last": said.splitlines()[-_LAST_LINES:],
    }
    found.unlink(missing_ok=True)
    (out / f"{part.name}.json").write_text(json.dumps(result, indent=1) + "\n")
    return result


def _text(said: bytes | str | None) -> str:
    return said.decode(errors="replace") if isinstance(said, bytes) else said or ""


@app.command()
def main(
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("gpu-results"),
    only: Annotated[list[str] | None, typer.Option(help="Run these parts only.")] = None,
    dry_run: Annotated[bool, typer.Option(help="List the parts and their time limits.")] = False,
    part: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run all parts, one after another."""
    if part is not None:
        from benchmarks import gpu_parts

        found = out / f"{part}.found.json"
        for result in getattr(gpu_parts, part)():
            # Written as far as it is known, so that a part that is cut off leaves what it had.
            found.write_text(json.dumps(result))
        return
    chosen = [p for p in PARTS if not only or p.name in only]
    if unknown := set(only or ()) - {p.name for p in PARTS}:
        raise typer.BadParameter(
            f"{', '.join(sorted(unknown))}: use one of {', '.join(p.name for p in PARTS)}"
        )
    if dry_run:
        for one in chosen:
            print(f"{one.name:8} {one.limit_seconds:4} s at most  {one.shows}")
        print(f"{'in all':8} {sum(p.limit_seconds for p in chosen):4} s at most")
        return
    if not sees_gpu():
        print("no GPU here that torch sees: nothing was run", file=sys.stderr)
        raise typer.Exit(_NO_GPU)
    out.mkdir(parents=True, exist_ok=True)
    probe = [
        sys.executable,
        "-c",
        "import json; from benchmarks.gpu import machine; print(json.dumps(machine()))",
    ]
    about = subprocess.run(probe, cwd=_ROOT, capture_output=True, text=True, timeout=60, check=True).stdout
    (out / "machine.json").write_text(about)
    print(about.strip(), flush=True)
    results = []
    for one in chosen:
        print(f"{one.name}: {one.shows} ...", flush=True)
        results.append(run_part(one, out))
        print(f"{one.name}: {results[-1]['ended']} in {results[-1]['seconds']} s", flush=True)
    raise typer.Exit(0 if all(result["ended"] == "passed" for result in results) else 1)


if __name__ == "__main__":
    app()
