"""What mixes tokens in a layer, from the shapes of its projections; where they do not tell, what is guessed."""

from __future__ import annotations

import re
from typing import Any

from wingspan.specs.families.family import Family
from wingspan.specs.families.mixers import window_of
from wingspan.specs.families.reader import Reader
from wingspan.specs.from_weights.weights import Weight
from wingspan.specs.mixers import HeadAttention, LatentAttention, LinearMixer, Mixer
from wingspan.specs.reading import parse

_QUERY, _KEY, _VALUE = (
    ("q_proj", "wq", "query", "q"),
    ("k_proj", "wk", "key", "k"),
    ("v_proj", "wv", "value", "v"),
)
_TOGETHER = ("qkv_proj", "query_key_value", "Wqkv", "wqkv", "qkv", "c_attn")
_OUT = ("o_proj", "wo", "out_proj", "dense", "o", "c_proj", "proj")
_USUAL_HEAD = 128
_RECURRENT = re.compile(r"^(A_log|conv1d|dt_bias|D|conv)$|linear|mamba|recurrent|conv$|delta|lightning")
"""Parameters and types of layers that keep a state."""


def mixers_of(
    weights: list[Weight], hidden: int, layer: int, reader: Reader, guessed: set[str]
) -> tuple[Mixer, ...]:
    """Those of a layer: as many as there are matrices that lead back.

    Args:
        weights: of its attention.
        hidden: of the model.
        layer: its number.
        reader: of the config, for what no shape tells.
        guessed: what is guessed is added to it.

    Raises:
        InputError: the shapes fit no attention that is known.
    """
    within = [_within(w) for w in weights if w.module in _OUT and len(w.shape) == 2]
    blocks: dict[str, list[Weight]] = {name: [] for name in within or [""]}
    for weight in weights:
        blocks[next((name for name in within if weight.name.startswith(name)), next(iter(blocks)))].append(
            weight
        )
    return tuple(_mixer(of, hidden, layer, reader, guessed) for of in blocks.values() if of)


def _within(weight: Weight) -> str:
    """The name of the module that holds the one of this weight, and a dot."""
    return weight.name.rpartition(f"{weight.module}.")[0] or weight.name.rpartition(weight.module)[0]


def _mixer(weights: list[Weight], hidden: int, layer: int, reader: Reader, guessed: set[str]) -> Mixer:
    matrices = {weight.module: weight for weight in weights if len(weight.shape) == 2}
    total = sum(weight.values for weight in weights)
    out = _first(matrices, _OUT)
    if out is not None and "kv_a_proj_with_mqa" in matrices and "kv_b_proj" in matrices:
        return _latent(matrices, total, out, reader, guessed)
    kinds = reader.optional("layer_types", "layers_block_type")
    kind = str(kinds[layer]) if isinstance(kinds, list) and layer < len(kinds) else ""
    recurrent = _RECURRENT.search(kind) or any(_RECURRENT.search(w.module) for w in weights)
    if "wq_b" not in matrices and any("index" in w.name for w in weights):
        guessed.add("an index beside the keys has no cache and chooses nothing")
    key, value, query = (_first(matrices, names) for names in (_KEY, _VALUE, _QUERY))
    together = _first(matrices, _TOGETHER)
    if out is None or recurrent:
        return _unknown(matrices, total, out, hidden, reader, guessed)
    attended = out.shape[1]
    if together is not None:
        keys = values = (together.shape[0] - attended) // 2
        queries = attended
    elif query is not None and key is not None:
        keys, queries = key.shape[0], query.shape[0]
        values = value.shape[0] if value is not None else 0
    else:
        return _unknown(matrices, total, out, hidden, reader, guessed)
    heads = _heads(weights, attended, layer, reader, guessed)
    value_dim = attended // heads
    kv_heads = max(1, (values or keys) // value_dim)
    head_dim = keys // kv_heads
    gate = queries - heads * head_dim
    apart = _first(matrices, ("g_proj", "gate_proj", "gate"))
    if not gate and apart is not None:
        gate = apart.shape[0]
    gated = {attended: "values", heads: "head"}.get(gate, "none") if gate else "none"
    plan: dict[str, Any] = {
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "value_dim": None if value_dim == head_dim else value_dim,
        "gated_output": gated,
        "keys_are_values": together is None and value is None,
        "window_tokens": window_of(reader, Family(), layer),
    }
    mixer: HeadAttention = _with_extra(HeadAttention, plan, total, hidden, reader)
    return mixer


def _with_extra(kind: type[Any], fields: dict[str, Any], total: int, hidden: int, reader: Reader) -> Any:
    """The mixer, with what its matrices do not explain of its parameters."""
    plain = parse(kind, fields, reader.source)
    matrices = sum(a * b for a, b in plain.projections(hidden))
    return parse(kind, {**fields, "extra_parameters": max(0, total - matrices)}, reader.source)


def _first(matrices: dict[str, Weight], names: tuple[str, ...]) -> Weight | None:
    return next((matrices[name] for name in names if name in matrices), None)


def _heads(weights: list[Weight], attended: int, layer: int, reader: Reader, guessed: set[str]) -> int:
    """How many: from the config; else by the width of a norm over one head's query, or of 128 values each."""
    own = reader.optional("v_head_dim", "head_dim")
    if isinstance(own, int) and own > 0 and attended % own == 0:
        return attended // own
    if reader.optional("num_attention_heads", "n_heads", "num_heads", "n_head") is not None:
        count = reader.integer("num_attention_heads", "n_heads", "num_heads", "n_head", layer=layer)
        if count and attended % count == 0:
            return count
    norms = [w.shape[0] for w in weights if len(w.shape) == 1 and "norm" in w.module]
    width = next((n for n in norms if attended % n == 0 and n < attended), None)
    if width is None:
        width = _USUAL_HEAD if attended % _USUAL_HEAD == 0 else attended
        guessed.add(f"heads of attention are {width} values wide")
    return attended // width


def _latent(
    matrices: dict[str, Weight], total: int, out: Weight, reader: Reader, guessed: set[str]
) -> LatentAttention:
    hidden, kv_rank = out.shape[0], matrices["kv_b_proj"].shape[1]
    rope = matrices["kv_a_proj_with_mqa"].shape[0] - kv_rank
    heads = _heads([], out.shape[1], 0, reader, guessed)
    value = out.shape[1] // heads
    query = matrices.get("q_b_proj") or matrices.get("q_proj")
    nope = matrices["kv_b_proj"].shape[0] // heads - value
    index = _index(matrices, reader, guessed)
    fields: dict[str, Any] = {
        "heads": heads,
        "query_rank": matrices["q_a_proj"].shape[0] if "q_a_proj" in matrices and query else None,
        "kv_rank": kv_rank,
        "nope_dim": nope,
        "rope_dim": rope,
        "value_dim": value,
        "index": index,
    }
    mixer: LatentAttention = _with_extra(LatentAttention, fields, total, hidden, reader)
    return mixer


def _index(matrices: dict[str, Weight], reader: Reader, guessed: set[str]) -> dict[str, int] | None:
    """An index that chooses tokens, as DeepSeek-V3.2 names its matrices."""
    if "wq_b" not in matrices or "wk" not in matrices:
        return None
    width = matrices["wk"].shape[0]
    if reader.optional("index_topk") is None:
        guessed.add("an index chooses 2,048 tokens")
    return {
        "heads": matrices["wq_b"].shape[0] // width,
        "head_dim": width,
        "top_tokens": reader.integer("index_topk", default=2048),
    }


def _unknown(
    matrices: dict[str, Weight],
    total: int,
    out: Weight | None,
    hidden: int,
    reader: Reader,
    guessed: set[str],
) -> LinearMixer:
    """All matrices one after another, and nothing kept: no shape says what state or cache there is."""
    guessed.add(
        f"layers with {', '.join(sorted(matrices)[:3])}: no cache, no state, and no arithmetic but their matrices'"
    )
    last = out if out is not None and out.shape[0] == hidden else None
    inward = [(w.shape[1], w.shape[0]) for w in matrices.values() if w is not last]
    fields = {"heads": 1, "inward": inward, "attended": last.shape[1] if last else hidden}
    mixer: LinearMixer = _with_extra(LinearMixer, fields, total, hidden, reader)
    return mixer
