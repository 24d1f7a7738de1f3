"""Read the dumps of SGLang's expert distribution recorder (`--expert-distribution-recorder-mode`).

- `stat`, `stat_approx`: one `.pt` file with `logical_count` (steps, hidden layers, logical experts).
- `per_pass`: one `.pt` file per rank with `records` of `global_physical_count` (hidden layers, physical experts).
- `per_token`: the same with `topk_ids_of_layer` (hidden layers, tokens, k), physical, -1 where there is none.

- Older versions: one CSV per rank, `layer_id,expert_id,count`, with a line per pair that was picked.

Source: sgl-project/sglang, python/sglang/srt/eplb/expert_distribution.py. `logical_count` may also come as JSON.

Shapes: H hidden layers, L MoE layers, T tokens, K experts per token, P physical and E logical experts, W moments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wingspan.errors import InputError
from wingspan.interop.counts import logical_load, only_used_layers
from wingspan.interop.physical import ImportOptions
from wingspan.interop.torch_file import read_torch_file
from wingspan.routing.load_file import read_load
from wingspan.routing.recorded_load import RecordedLoad
from wingspan.routing.trace import RoutingTrace, concatenate


@dataclass(frozen=True)
class _Dump:
    path: Path
    records: list[dict[str, Any]]
    map_HP: NDArray[np.int64]


def read_counts(data: dict[str, Any], source: str, options: ImportOptions) -> RecordedLoad:
    """The load of an object with `logical_count`."""
    try:
        count = np.asarray(data["logical_count"], dtype=np.int64)
    except (TypeError, ValueError):
        raise InputError(f"{source}: logical_count is no array of whole numbers") from None
    if count.ndim == 2:
        count = count[None]
    if count.ndim != 3 or not count.size:
        raise InputError(
            f"{source}: logical_count has shape {count.shape}, expected (steps, layers, experts)"
        )
    taken = count[count.sum(axis=(1, 2)) > 0]
    return only_used_layers(taken, options.moe_layers, f"SGLang recorder, {source}")


def read_csv(path: Path, options: ImportOptions) -> RecordedLoad:
    """The load of one rank's CSV, or of a folder of them, summed."""
    load = read_load(path, options.experts)
    if options.moe_layers is None:
        return replace(load, source=f"SGLang recorder, {path}")
    missing = sorted(set(options.moe_layers) - set(load.moe_layers or ()))
    if missing:
        raise InputError(f"{path}: MoE layer {missing[0]} is asked for, which was not recorded")
    rows = [(load.moe_layers or ()).index(n) for n in options.moe_layers]
    return RecordedLoad(load.load_WLE[:, rows], options.moe_layers, f"SGLang recorder, {path}", load.remarks)


def read_records(paths: Sequence[Path], options: ImportOptions) -> RoutingTrace | RecordedLoad:
    """What the dumps of all ranks of one recording hold: a trace in `per_token` mode, else the load per pass."""
    dumps = [_read_dump(path) for path in paths]
    if any("topk_ids_of_layer" in record for dump in dumps for record in dump.records):
        return _trace(dumps, options)
    return _load(dumps, options)


def _read_dump(path: Path) -> _Dump:
    data = read_torch_file(path)
    try:
        records, map_HP = list(data["records"]), np.asarray(data["last_physical_to_logical_map"])
        for record in records:
            record["forward_pass_id"], record["rank"], record["global_physical_count"]
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: not a per_pass or per_token dump of SGLang's recorder ({error})") from None
    if not records:
        raise InputError(f"{path}: the recording holds no forward pass")
    return _Dump(path, records, map_HP.astype(np.int64))


def _load(dumps: list[_Dump], options: ImportOptions) -> RecordedLoad:
    experts = options.experts or int(dumps[0].map_HP.max()) + 1
    passes: dict[int, NDArray[np.int64]] = {}
    for dump in dumps:
        for record in dump.records:
            counts_HP = np.asarray(record["global_physical_count"], dtype=np.int64)
            number = int(record["forward_pass_id"])
            passes[number] = passes.get(number, 0) + logical_load(counts_HP[None], dump.map_HP, experts)[0]
    load_WHE = np.stack([passes[number] for number in sorted(passes)])
    return only_used_layers(load_WHE, options.moe_layers, f"SGLang recorder, {_names(dumps)}")


def _trace(dumps: list[_Dump], options: ImportOptions) -> RoutingTrace:
    records = sorted(
        ((record, dump) for dump in _one_of_copies(dumps) for record in dump.records),
        key=lambda pair: (pair[0]["forward_pass_id"], pair[0]["rank"]),
    )
    layers, top_k = _layers_and_top_k([record for record, _ in records], options, _names(dumps))
    experts = options.experts or int(dumps[0].map_HP.max()) + 1
    ranks = options.ranks or 1 + max(int(record["rank"]) for record, _ in records)
    pieces, requests = [], 0
    for record, dump in records:
        piece = _tokens(record, dump, layers, top_k, experts, ranks, requests)
        requests = max(requests, int(piece.request_T.max(initial=-1)) + 1)
        pieces.append(piece)
    return concatenate(pieces)


def _tokens(
    record: dict[str, Any],
    dump: _Dump,
    layers: list[int],
    top_k: int,
    experts: int,
    ranks: int,
    requests: int,
) -> RoutingTrace:
    """One rank's tokens of one pass. Requests are numbered anew: dumps do not name them."""
    physical_LTK = np.asarray(record["topk_ids_of_layer"])[layers][:, :, :top_k]
    valid_T: NDArray[np.bool_] = np.all(physical_LTK >= 0, axis=(0, 2))
    logical_LTK = dump.map_HP[np.array(layers)[:, None, None], np.maximum(physical_LTK, 0)]
    lengths = record.get("extend_seq_lens")
    # In prefill the sequences' lengths are known; in decode each token is of another sequence.
    request_T = (
        np.repeat(np.arange(len(lengths)), lengths)
        if lengths is not None and sum(lengths) == len(valid_T)
        else np.arange(len(valid_T))
    )
    try:
        return RoutingTrace(
            logical_LTK.transpose(1, 0, 2)[valid_T].astype(np.int16),
            np.full(int(valid_T.sum()), int(record["rank"]), dtype=np.int32),
            (request_T[valid_T] + requests).astype(np.int32),
            np.full(int(valid_T.sum()), int(record["forward_pass_id"]), dtype=np.int32),
            experts,
            ranks,
        )
    except InputError as error:
        raise InputError(f"{dump.path}: {error}") from None


def _layers_and_top_k(
    records: list[dict[str, Any]], options: ImportOptions, source: str
) -> tuple[list[int], int]:
    """The MoE layers (those named, else those with any choice), and how many columns are ever filled."""
    used: set[int] = set()
    top_k = 0
    for record in records:
        filled_HTK = np.asarray(record["topk_ids_of_layer"]) >= 0
        used |= set(np.flatnonzero(filled_HTK.any(axis=(1, 2))).tolist())
        top_k = max(top_k, int(filled_HTK.any(axis=(0, 1)).sum()))
    layers = sorted(used) if options.moe_layers is None else list(options.moe_layers)
    if not layers or not top_k:
        raise InputError(f"{source}: no token chose any expert")
    return layers, top_k


def _one_of_copies(dumps: list[_Dump]) -> list[_Dump]:
    """Without attention data parallelism every rank records the same tokens: then one rank's dump is the recording."""
    inputs = [[(r["forward_pass_id"], r.get("input_ids")) for r in dump.records] for dump in dumps]
    copies = len(dumps) > 1 and inputs[0][0][1] and all(other == inputs[0] for other in inputs[1:])
    return dumps[:1] if copies else dumps


def _names(dumps: list[_Dump]) -> str:
    more = f" and {len(dumps) - 1} more" if len(dumps) > 1 else ""
    return f"{dumps[0].path}{more}"
