"""A small table of published figures, invented for the tests."""

from __future__ import annotations

import csv
from pathlib import Path

COLUMNS = (
    "id",
    "source",
    "system",
    "model",
    "hardware",
    "gpus",
    "ep",
    "phase",
    "precision",
    "batch_per_gpu",
    "seq",
    "overlap",
    "metric",
    "value",
    "unit",
    "notes",
)
_USUAL = {
    "source": "test",
    "system": "SGLang",
    "model": "DeepSeek-V3",
    "hardware": "H100 SXM",
    "gpus": "72",
    "ep": "72",
    "phase": "decode",
    "precision": "FP8",
    "batch_per_gpu": "64",
    "seq": "2000",
    "overlap": "no TBO",
    "metric": "output throughput per node",
    "value": "11000",
    "unit": "tok/s/node",
    "notes": "",
}


def row(name: str, **changes: str) -> dict[str, str]:
    return {"id": name, **_USUAL, **changes}


def write(path: Path, *rows: dict[str, str]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return path
