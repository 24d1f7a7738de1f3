"""Where tables of measurements lie: a folder of CSV files, or the installed package aiconfigurator-core."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from wingspan.errors import InputError
from wingspan.interop.silicon.groups import KINDS, MeasurementGroup, groups_of
from wingspan.interop.silicon.tables import read_table

_H100 = "aiconfigurator_h100_sxm-"
_FILES = (
    ("infersim_gemm_h800_data.csv", "infersim_gemm", "h800"),
    (_H100 + "moe_sglang_0.5.10_wideep_generation_moe_perf.csv", "wideep_generation_moe", "h100-sxm"),
    (_H100 + "moe_sglang_0.5.10_wideep_context_moe_perf.csv", "wideep_context_moe", "h100-sxm"),
    ("infersim_grouped_gemm_decode_h800_data.csv", "infersim_grouped_gemm", "h800"),
    ("infersim_grouped_gemm_prefill_h800_data.csv", "infersim_grouped_gemm", "h800"),
    (_H100 + "comm_sglang_0.5.6.post2_wideep_deepep_ll_perf.csv", "wideep_deepep_ll", "h100-sxm"),
    (_H100 + "comm_sglang_0.5.6.post2_wideep_deepep_normal_perf.csv", "wideep_deepep_normal", "h100-sxm"),
    (_H100 + "comm_nccl_2.29.2_nccl_perf.csv", "nccl", "h100-sxm"),
    ("infersim_mla_decode_h800_128-512-64.csv", "infersim_mla_decode", "h800"),
    ("infersim_mla_prefill_h800_128-128-64.csv", "infersim_mla_prefill", "h800"),
    (_H100 + "mla_sglang_0.5.10_wideep_generation_mla_perf.csv", "wideep_generation_mla", "h100-sxm"),
    (_H100 + "mla_sglang_0.5.10_wideep_context_mla_perf.csv", "wideep_context_mla", "h100-sxm"),
)
_PACKAGE = "aiconfigurator_core"
_SYSTEMS = (("h200_sxm", "h200"), ("b200_sxm", "b200"))
"""Systems of the package on which no constant was fitted, and the preset that describes each."""


def read_folder(folder: Path) -> list[MeasurementGroup]:
    """All groups whose CSV tables lie in `folder`, in the order of the report; none where it holds none of them.

    Raises:
        InputError: a table is there but cannot be read as what it should be.
    """
    found = [(folder / name, kind, cluster) for name, kind, cluster in _FILES if (folder / name).is_file()]
    return [group for path, kind, cluster in found for group in groups_of(kind, read_table(path), cluster)]


def read_package() -> list[MeasurementGroup]:
    """The groups that the installed aiconfigurator-core measured on H200 and B200: the newest table of each kind.

    Nothing was fitted on them: every row judges, and none promises anything.

    Raises:
        InputError: the package is not installed, or a table of it cannot be read.
    """
    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise InputError("--silicon needs the package aiconfigurator-core; pip install aiconfigurator-core")
    data = Path(spec.origin).parent / "systems" / "data"
    groups = []
    for system, cluster in _SYSTEMS:
        for kind in KINDS:
            versions = [*(data / system).glob(f"*/sglang/*/{kind}_perf.parquet")]
            versions += (data / system).glob(f"comm/nccl/*/{kind}_perf.parquet")
            if versions:
                newest = max(versions, key=lambda path: _version(path.parent.name))
                groups += [_unfitted(group) for group in groups_of(kind, read_table(newest), cluster)]
    return groups


def _unfitted(group: MeasurementGroup) -> MeasurementGroup:
    nothing = np.zeros(len(group.measured), dtype=bool)
    return replace(group, name=f"{group.cluster}: {group.name}", for_fitting=nothing, target=None)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text))
