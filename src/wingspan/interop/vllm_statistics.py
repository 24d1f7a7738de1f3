"""Read what vLLM records of its routing.

- Routed experts (`--enable-return-routed-experts`): `CompletionOutput.routed_experts`, an array (tokens, hidden layers,
  top-k) per request, saved by the user as `.npy` (one request) or `.npz` (one array per request). Source:
  vllm-project/vllm pull request 28284. Rows of dense layers repeat one number.
- Load statistics: `.jsonl` with `eplb_load_stats` records, `expert_load` (MoE layers, physical experts) and `p2l_map`.
  Source: vllm-project/vllm pull request 41141 (open; `eplb_config.expert_load_stats_path`).

Shapes: H hidden layers, L MoE layers, T tokens, K experts per token, P physical and E logical experts.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wingspan.errors import InputError
from wingspan.interop.counts import logical_load
from wingspan.interop.files import read_json_lines
from wingspan.interop.physical import ImportOptions, NotSaidError
from wingspan.routing.recorded_load import RecordedLoad
from wingspan.routing.trace import RoutingTrace, concatenate


def read_load_statistics(path: Path, options: ImportOptions) -> RecordedLoad:
    """The load of a file of `eplb_load_stats` records, one moment each; empty steps are left out."""
    moments = []
    for record in read_json_lines(path):
        if record.get("record_type") != "eplb_load_stats":
            continue
        try:
            physical_LP = np.asarray(record["expert_load"], dtype=np.int64)
            map_LP = np.asarray(record["p2l_map"], dtype=np.int64)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: a record lacks or garbles {error}") from None
        if physical_LP.ndim != 2 or physical_LP.shape != map_LP.shape or map_LP.min() < 0:
            raise InputError(
                f"{path}: expert_load {physical_LP.shape} and p2l_map {map_LP.shape} do not agree"
            )
        if physical_LP.any():
            experts = options.experts or int(map_LP.max()) + 1
            moments.append(logical_load(physical_LP[None], map_LP, experts))
    if not moments:
        raise InputError(f"{path}: no eplb_load_stats record with tokens in it")
    if len({m.shape for m in moments}) > 1:
        raise InputError(f"{path}: its records differ in layers or experts; split the file")
    load_WLE, layers = np.concatenate(moments), options.moe_layers
    if layers is not None and len(layers) != load_WLE.shape[1]:
        raise InputError(f"{path}: of {load_WLE.shape[1]} MoE layers, not {len(layers)}")
    return RecordedLoad(load_WLE, layers, f"vLLM load statistics, {path}")


def read_routed_experts(path: Path, options: ImportOptions) -> RoutingTrace:
    """The trace of a `.npy`, a `.npz`, or a folder of them: each array a request, dealt to the ranks in turn."""
    files = sorted(path.glob("*.np[yz]")) if path.is_dir() else [path]
    arrays = [array for file in files for array in _arrays(file)]
    if not arrays:
        raise InputError(f"{path}: no array of routed experts in it")
    hidden = {array.shape[1:] for array in arrays}
    if len(hidden) > 1:
        raise InputError(f"{path}: requests differ in layers or top-k: {sorted(hidden)}")
    layers = list(options.moe_layers) if options.moe_layers is not None else _moe_layers(arrays)
    if not layers:
        raise NotSaidError(
            f"{path}: nothing shows which of its {arrays[0].shape[1]} layers are MoE layers", "moe_layers"
        )
    if max(layers) >= arrays[0].shape[1]:
        raise InputError(f"{path}: MoE layer {max(layers)} is asked for, it has {arrays[0].shape[1]} layers")
    experts = options.experts or 1 + max(int(a[:, layers].max(initial=0)) for a in arrays)
    ranks = options.ranks or 1
    try:
        return concatenate(
            [_request(array[:, layers], number, ranks, experts) for number, array in enumerate(arrays)]
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _request(picks_TLK: NDArray[Any], number: int, ranks: int, experts: int) -> RoutingTrace:
    tokens = len(picks_TLK)
    return RoutingTrace(
        picks_TLK,
        np.full(tokens, number % ranks, dtype=np.int32),
        np.full(tokens, number, dtype=np.int32),
        np.full(tokens, number // ranks, dtype=np.int32),
        experts,
        ranks,
    )


def _moe_layers(arrays: list[NDArray[Any]]) -> list[int]:
    """Layers in which any token picks different experts; at top-1 all of them."""
    if arrays[0].shape[2] == 1:
        return list(range(arrays[0].shape[1]))
    varied_H = np.any([(a != a[:, :, :1]).any(axis=(0, 2)) for a in arrays], axis=0)
    return [int(n) for n in np.flatnonzero(varied_H)]


def _arrays(file: Path) -> list[NDArray[Any]]:
    try:
        loaded = np.load(file, allow_pickle=False)
        arrays = [loaded[name] for name in loaded.files] if file.suffix == ".npz" else [loaded]
    except FileNotFoundError:
        raise InputError(f"{file}: no such file") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{file}: not a numpy file ({error})") from None
    for array in arrays:
        if array.ndim != 3 or not np.issubdtype(array.dtype, np.integer):
            raise InputError(
                f"{file}: an array {array.dtype}{array.shape}, expected whole numbers as (tokens, layers, top-k)"
            )
    return arrays
