"""Read the folder that TensorRT-LLM writes under `EXPERT_STATISTIC_PATH`.

`meta_info.json` (`num_experts`, `num_experts_per_token`) and, per rank, `rank<r>.safetensors`: for each
`<iteration>_<layer>` the tokens per expert; or `rank<r>_raw.safetensors`: the experts of every token (tokens, top-k).
Source: NVIDIA/TensorRT-LLM, `ExpertStatistic`, and examples/wide_ep/ep_load_balancer/utils.py.

Shapes: W iterations, H hidden layers, L MoE layers, T tokens, K experts per token, E logical experts.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wingspan.errors import InputError
from wingspan.interop.files import read_json
from wingspan.interop.physical import ImportOptions
from wingspan.interop.safetensors_file import read_safetensors
from wingspan.routing.recorded_load import RecordedLoad
from wingspan.routing.trace import RoutingTrace, concatenate

Tensors = dict[tuple[int, int], NDArray[Any]]
"""A rank's tensors, by (iteration, layer)."""


def read_folder(folder: Path, options: ImportOptions) -> RoutingTrace | RecordedLoad:
    """What the folder holds: a trace where every token's experts were kept, else the load per iteration."""
    about = read_json(folder / "meta_info.json")
    if not isinstance(about, dict) or not isinstance(about.get("num_experts"), int):
        raise InputError(f"{folder / 'meta_info.json'}: no num_experts in it")
    experts = int(about["num_experts"])
    raw = _by_rank(folder, raw=True)
    if raw:
        return _trace(raw, experts, folder, options)
    counts = _by_rank(folder, raw=False)
    if not counts:
        raise InputError(f"{folder}: no rank<r>.safetensors in it")
    return _load(counts, experts, folder, options)


def _by_rank(folder: Path, *, raw: bool) -> dict[int, Tensors]:
    pattern = re.compile(r"rank(\d+)_raw\.safetensors" if raw else r"rank(\d+)\.safetensors")
    found = {}
    for path in sorted(folder.iterdir()):
        if match := pattern.fullmatch(path.name):
            found[int(match[1])] = {_key(name, path): t for name, t in read_safetensors(path).items()}
    return found


def _key(name: str, path: Path) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)_(\d+)", name)
    if match is None:
        raise InputError(f"{path}: a tensor {name!r}, expected <iteration>_<layer>")
    return int(match[1]), int(match[2])


def _load(ranks: dict[int, Tensors], experts: int, folder: Path, options: ImportOptions) -> RecordedLoad:
    keys = sorted({key for tensors in ranks.values() for key in tensors})
    layers = _layers(keys, options, folder)
    moments = sorted({iteration for iteration, _ in keys})
    load_WLE = np.zeros((len(moments), len(layers), experts), dtype=np.int64)
    for tensors in ranks.values():
        for (iteration, layer), counts in tensors.items():
            if layer not in layers:
                continue
            if counts.shape != (experts,):
                raise InputError(
                    f"{folder}: counts of shape {counts.shape}, meta_info says {experts} experts"
                )
            load_WLE[moments.index(iteration), layers.index(layer)] += counts.astype(np.int64)
    return RecordedLoad(load_WLE, tuple(layers), f"TensorRT-LLM expert statistic, {folder}")


def _trace(ranks: dict[int, Tensors], experts: int, folder: Path, options: ImportOptions) -> RoutingTrace:
    keys = sorted({key for tensors in ranks.values() for key in tensors})
    layers = _layers(keys, options, folder)
    pieces = []
    for iteration in sorted({iteration for iteration, _ in keys}):
        for rank, tensors in sorted(ranks.items()):
            try:
                picks_TLK = np.stack([tensors[iteration, layer] for layer in layers], axis=1)
            except KeyError:
                continue  # a rank without tokens in this iteration
            except ValueError:
                raise InputError(
                    f"{folder}: rank {rank}, iteration {iteration}: layers differ in tokens"
                ) from None
            pieces.append(_piece(picks_TLK, rank, iteration, experts, max(ranks) + 1, folder))
    return _numbered(concatenate(pieces))


def _piece(
    picks_TLK: NDArray[Any], rank: int, iteration: int, experts: int, ranks: int, folder: Path
) -> RoutingTrace:
    tokens = len(picks_TLK)
    try:
        return RoutingTrace(
            picks_TLK,
            np.full(tokens, rank, dtype=np.int32),
            np.zeros(tokens, dtype=np.int32),
            np.full(tokens, iteration, dtype=np.int32),
            experts,
            ranks,
        )
    except InputError as error:
        raise InputError(f"{folder}: rank {rank}, iteration {iteration}: {error}") from None


def _numbered(trace: RoutingTrace) -> RoutingTrace:
    """Give every token a request number of its own: the folder does not say which belong together."""
    request_T = np.arange(trace.num_tokens, dtype=np.int32)
    return RoutingTrace(
        trace.experts_TLK, trace.home_rank_T, request_T, trace.step_T, trace.num_experts, trace.num_ranks
    )


def _layers(keys: list[tuple[int, int]], options: ImportOptions, folder: Path) -> list[int]:
    found = sorted({layer for _, layer in keys})
    if options.moe_layers is None:
        return found
    missing = sorted(set(options.moe_layers) - set(found))
    if missing:
        raise InputError(f"{folder}: MoE layer {missing[0]} is asked for, which was not recorded")
    return list(options.moe_layers)
