"""Where published measurements lie: in the package aiconfigurator-core, in a checkout of InferSim, or in one folder.

Both projects are public under Apache-2.0, and nothing of theirs is copied here:

- aiconfigurator-core 0.12.0 (PyPI; github.com/ai-dynamo/aiconfigurator) holds tables of H100, H200 and B200;
- github.com/alibaba/InferSim (commit f2293da) holds tables of H800 under `bench_data/`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from wingspan.errors import InputError
from wingspan.interop.silicon.groups import KINDS, MeasurementGroup, groups_of
from wingspan.interop.silicon.tables import read_table

PACKAGE = "aiconfigurator-core==0.12.0"
"""What pip installs, in the version whose tables the constants were fitted on."""
CHECKOUT = "https://github.com/alibaba/InferSim"


@dataclass(frozen=True)
class MeasurementSource:
    """A table on whose one half constants were fitted.

    Args:
        project: `aiconfigurator` (below its `systems/data`) or `infersim` (below its checkout).
        path: where that project keeps it.
        kind: what it measures (`KINDS`).
        cluster: preset that describes the machine.
    """

    project: str
    path: str
    kind: str
    cluster: str

    @property
    def csv_name(self) -> str:
        """Its name as CSV where tables of both projects lie in one folder."""
        system, *rest = Path(self.path).with_suffix(".csv").parts
        if self.project == "infersim":
            return f"infersim_{'_'.join(rest)}"
        return f"aiconfigurator_{system}-{'_'.join(rest)}"

    def among(self, folder: Path) -> Path | None:
        """The table in `folder`: under its own path or under `csv_name`; None where neither is there."""
        return next((path for path in (folder / self.path, folder / self.csv_name) if path.is_file()), None)


def _h100(path: str) -> MeasurementSource:
    kind = Path(path).name.removesuffix("_perf")
    return MeasurementSource("aiconfigurator", f"h100_sxm/{path}.parquet", kind, "h100-sxm")


def _h800(path: str, kind: str) -> MeasurementSource:
    return MeasurementSource("infersim", f"bench_data/{path}.csv", kind, "h800")


SOURCES = (
    _h800("gemm/h800/data", "infersim_gemm"),
    _h100("moe/sglang/0.5.10/wideep_generation_moe_perf"),
    _h100("moe/sglang/0.5.10/wideep_context_moe_perf"),
    _h800("grouped_gemm/decode/h800/data", "infersim_grouped_gemm"),
    _h800("grouped_gemm/prefill/h800/data", "infersim_grouped_gemm"),
    _h100("comm/sglang/0.5.6.post2/wideep_deepep_ll_perf"),
    _h100("comm/sglang/0.5.6.post2/wideep_deepep_normal_perf"),
    _h100("comm/nccl/2.29.2/nccl_perf"),
    _h100("comm/sglang/0.5.14/custom_allreduce_perf"),
    _h100("comm/trtllm/1.3.0rc20/custom_allreduce_perf"),
    _h800("mla/decode/h800/128-512-64", "infersim_mla_decode"),
    _h800("mla/prefill/h800/128-128-64", "infersim_mla_prefill"),
    _h100("mla/sglang/0.5.10/wideep_generation_mla_perf"),
    _h100("mla/sglang/0.5.10/wideep_context_mla_perf"),
)
"""In the order of the report."""
_NEWER_SYSTEMS = (("h200_sxm", "h200", False), ("b200_sxm", "b200", True))
"""Systems of the package, the preset that describes each, and whether its constants were fitted on half of the rows."""
_FITTED_TARGET = 0.15
"""Median error that the project promises on the judging half of a system that was fitted on."""


def read_folder(folder: Path) -> list[MeasurementGroup]:
    """All groups whose tables lie in `folder`, in the order of the report; none where it holds none of them.

    Args:
        folder: a checkout of InferSim, aiconfigurator's `systems/data`, or CSV tables of both by `csv_name`.

    Raises:
        InputError: a table is there but cannot be read as what it should be.
    """
    found = [(source, source.among(folder)) for source in SOURCES]
    return [
        group
        for source, path in found
        if path is not None
        for group in groups_of(source.kind, read_table(path), source.cluster)
    ]


def package_tables() -> Path | None:
    """The folder of tables of the installed aiconfigurator-core; None where it is not installed."""
    spec = find_spec("aiconfigurator_core")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / "systems" / "data"


def read_newer() -> list[MeasurementGroup]:
    """The groups that the installed aiconfigurator-core measured on H200 and B200: the newest table of each kind.

    Nothing was fitted on H200's: every row judges, and none promises anything.

    Raises:
        InputError: the package is not installed, or a table of it cannot be read.
    """
    data = package_tables()
    if data is None:
        raise InputError(f"tables of H200 and B200 come with aiconfigurator-core; pip install {PACKAGE}")
    groups = []
    for system, cluster, fitted in _NEWER_SYSTEMS:
        for kind in KINDS:
            versions = [*(data / system).glob(f"*/sglang/*/{kind}_perf.parquet")]
            versions += (data / system).glob(f"comm/nccl/*/{kind}_perf.parquet")
            if versions:
                newest = max(versions, key=lambda path: _version(path.parent.name))
                groups += [
                    _of_system(group, fitted) for group in groups_of(kind, read_table(newest), cluster)
                ]
    return groups


def _of_system(group: MeasurementGroup, fitted: bool) -> MeasurementGroup:
    name = f"{group.cluster}: {group.name}"
    if fitted:
        return replace(group, name=name, target=_FITTED_TARGET)
    nothing = np.zeros(len(group.measured), dtype=bool)
    return replace(group, name=name, for_fitting=nothing, target=None)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text))
