"""The launch commands of SGLang, vLLM and TensorRT-LLM that amount to one group of ranks of a plan.

Options as sglang 0.5.23 and vLLM 0.33.0 declare them, and TensorRT-LLM's `trtllm-serve` and `LlmArgs` do
(docs/interop.md says how each was checked). An engine counts
a limit of a step per attention group where we count it per GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from wingspan.writing import json_text


@dataclass(frozen=True)
class EngineLaunch:
    """One group of ranks.

    Args:
        phase: `prefill` or `decode` where another group has the other, `both` where none has.
        ranks: EP size.
        ranks_per_node: of them.
        redundant: slots beyond the experts, in all.
        experts: logical ones.
        attention_ranks: ranks that share attention.
        sequences: most sequences at a time, per GPU.
        step_tokens: most tokens of a step, per GPU.
        two_batch: two micro-batches alternate.
        fp8_cache: the KV cache is kept in FP8.
        fp8_weights: the engine is to quantise a 16-bit checkpoint to FP8. What a checkpoint's config says of its own
            format engines read, and want no option for (SGLang, docs, "Quantization"; vLLM the same).
        nvfp4_experts: experts are computed in NVFP4.
        nvfp4_rows: rows leave in NVFP4.
        tried_ahead: tokens that each sequence tries ahead by the model's own layers for that.
    """

    phase: str
    ranks: int
    ranks_per_node: int
    redundant: int
    experts: int
    attention_ranks: int
    sequences: int
    step_tokens: int
    two_batch: bool
    fp8_cache: bool
    fp8_weights: bool = False
    nvfp4_experts: bool = False
    nvfp4_rows: bool = False
    tried_ahead: int = 0

    @property
    def nodes(self) -> int:
        """How many the group fills."""
        return -(-self.ranks // self.ranks_per_node)

    @property
    def groups(self) -> int:
        """Attention groups."""
        return self.ranks // self.attention_ranks


@dataclass(frozen=True)
class Command:
    """What to type: the command's words, of which some are an option with its value, and the file that it reads."""

    words: list[str]
    file: str = ""
    file_text: str = ""


def sglang(launch: EngineLaunch) -> Command:
    """SGLang's; on several nodes the command is given on each."""
    group = launch.attention_ranks
    words = ["python -m sglang.launch_server", "--model-path MODEL"]
    # Rows leave in BF16 beside NVFP4 experts unless this is set (its environment variables, 0.5.23).
    if launch.nvfp4_rows and launch.ranks > 1:
        words.insert(0, "SGLANG_MOE_NVFP4_DISPATCH=1")
    rows = launch.sequences * (1 + launch.tried_ahead) * group
    if launch.phase != "prefill" and rows > _DEEPEP_TOKENS:
        words.insert(0, f"SGLANG_DEEPEP_NUM_MAX_DISPATCH_TOKENS_PER_RANK={rows}")
    if launch.nodes > 1:
        words += [f"--nnodes {launch.nodes}", "--node-rank NODE", "--dist-init-addr HOST:PORT"]
    words += [f"--tp-size {launch.ranks}", f"--ep-size {launch.ranks}"]
    if launch.groups > 1:
        words += [f"--attn-dp-size {launch.groups}"]
    if launch.ranks > 1:
        mode = {"prefill": "normal", "decode": "low_latency", "both": "auto"}[launch.phase]
        words += ["--moe-a2a-backend deepep", f"--deepep-mode {mode}", "--moe-dense-tp-size 1"]
    if launch.redundant:
        words += [f"--ep-num-redundant-experts {launch.redundant}", "--ep-dispatch-algorithm static"]
    if launch.phase != "both":
        words += [f"--disaggregation-mode {launch.phase}"]
    # Counted over all attention groups, and a chunk in each.
    words += [f"--max-running-requests {launch.sequences * launch.ranks}"]
    if launch.phase != "decode":
        words += [f"--chunked-prefill-size {launch.step_tokens * group * launch.groups}"]
    words += ["--enable-two-batch-overlap"] if launch.two_batch else []
    if ahead := launch.tried_ahead:
        # One branch: a chain of so many, and the token before them (docs, "Speculative Decoding").
        words += ["--speculative-algorithm EAGLE", f"--speculative-num-steps {ahead}"]
        words += ["--speculative-eagle-topk 1", f"--speculative-num-draft-tokens {ahead + 1}"]
    words += ["--kv-cache-dtype fp8_e4m3"] if launch.fp8_cache else []
    words += ["--quantization fp8"] if launch.fp8_weights else []
    # Of its kernels for NVFP4 the one that takes DeepEP's rows (docs, "Expert Parallelism"; token dispatcher's checks).
    words += ["--moe-runner-backend flashinfer_cutedsl"] if launch.nvfp4_experts and launch.ranks > 1 else []
    return Command(words)


def vllm(launch: EngineLaunch) -> Command:
    """vLLM's; on several nodes it is given on each, with its first rank."""
    group = launch.attention_ranks
    words = ["vllm serve MODEL", f"--data-parallel-size {launch.groups}"]
    if launch.nodes > 1:
        words += [
            f"--data-parallel-size-local {launch.ranks_per_node // group}",
            "--data-parallel-start-rank FIRST",
            "--data-parallel-address HOST",
        ]
    if group > 1:
        words += [f"--tensor-parallel-size {group}"]
    if launch.ranks > 1:
        kernels = "low_latency" if launch.phase == "decode" else "high_throughput"
        words += ["--enable-expert-parallel", f"--all2all-backend deepep_{kernels}"]
    if launch.redundant:
        words += [
            "--enable-eplb",
            f"--eplb-config '{json_text({'num_redundant_experts': launch.redundant})}'",
        ]
    if launch.phase != "both":
        transfer = {"kv_connector": "NixlConnector", "kv_role": "kv_both"}
        words += [f"--kv-transfer-config '{json_text(transfer)}'"]
    words += [
        f"--max-num-seqs {launch.sequences * group}",
        f"--max-num-batched-tokens {launch.step_tokens * group}",
    ]
    words += ["--enable-dbo"] if launch.two_batch else []
    if launch.tried_ahead:
        # docs, "MTP (Multi-Token Prediction)".
        ahead = {"method": "mtp", "num_speculative_tokens": launch.tried_ahead}
        words += [f"--speculative-config '{json_text(ahead)}'"]
    words += ["--kv-cache-dtype fp8"] if launch.fp8_cache else []
    words += ["--quantization fp8"] if launch.fp8_weights else []
    return Command(words)


def tensorrt_llm(launch: EngineLaunch) -> Command:
    """TensorRT-LLM's, with the options file that it reads; started over all ranks by mpirun or Slurm.

    Its attention is cut over one GPU or over all: what lies between is not among its options, and said.
    """
    if launch.attention_ranks not in (1, launch.ranks):
        return Command(
            [f"# none: it cannot cut attention over {launch.attention_ranks} of {launch.ranks} GPUs"]
        )
    lines = [f"enable_attention_dp: {str(launch.attention_ranks == 1 and launch.ranks > 1).lower()}"]
    if launch.redundant:
        slots = launch.experts + launch.redundant
        lines += [
            "moe_config:",
            "  backend: WIDEEP",
            "  load_balancer:",
            f"    num_slots: {slots}",
            "    layer_updates_per_iter: 0",
        ]
    if launch.phase != "both":
        lines += ["cache_transceiver_config:", "  backend: DEFAULT"]
    if launch.fp8_cache:
        lines += ["kv_cache_config:", "  dtype: fp8"]
    if launch.tried_ahead:
        # docs, "Speculative Decoding": `MTPDecodingConfig`.
        lines += ["speculative_config:", "  decoding_type: MTP"]
        lines += [f"  num_nextn_predict_layers: {launch.tried_ahead}"]
    words = [
        "trtllm-serve MODEL",
        f"--tp_size {launch.ranks}",
        f"--ep_size {launch.ranks}",
        f"--gpus_per_node {min(launch.ranks_per_node, launch.ranks)}",
        f"--max_batch_size {launch.sequences}",
        f"--max_num_tokens {launch.step_tokens}",
        f"--extra_llm_api_options {launch.phase}.yaml",
    ]
    return Command(words, f"{launch.phase}.yaml", "\n".join(lines))


LAUNCHERS: dict[str, Callable[[EngineLaunch], Command]] = {
    "SGLang": sglang,
    "vLLM": vllm,
    "TensorRT-LLM": tensorrt_llm,
}
"""Each engine's command."""

_DEEPEP_TOKENS = 128
"""Tokens per rank that SGLang's low-latency buffers hold unless told otherwise (sglang 0.5.23)."""
