"""The commands that simulate, place, run and serve what a plan for requests found, each as it can be pasted."""

from __future__ import annotations

import shlex
from pathlib import Path

from wingspan.deployment import Deployment
from wingspan.describe import Description
from wingspan.describe.description import file_of
from wingspan.interop.launch import LAUNCHERS, EngineLaunch
from wingspan.placement.spec import Strategy
from wingspan.simulate.service import Offer, PhaseGroup
from wingspan.simulate.service_plan import ServicePlan
from wingspan.specs.engines import EngineKind, EngineProfile
from wingspan.specs.execution import ScheduleKind
from wingspan.specs.precision import Precision
from wingspan.specs.precision_text import text_of

_WIDTH = 78
USUAL_OUT = Path("best.json")


def prefill_path(out: Path) -> Path:
    """Where the deployment of the groups that prefill goes, beside that of those that decode."""
    return out.with_name(f"{out.stem}.prefill{out.suffix}")


def commands(plan: ServicePlan, said: Description, out: Path | None) -> dict[str, list[str]]:
    """Titles, and below each its lines; none where nothing was found.

    Args:
        plan: what was found.
        said: what was asked for.
        out: the file of the deployment that decodes, where one is written.
    """
    if plan.best is None:
        return {}
    return {"then": _own(plan.best, said, out)} | _engines(plan.best)


def _own(best: Offer, said: Description, out: Path | None) -> list[str]:
    file, source = out or USUAL_OUT, str(said.source)
    files = [file, *([prefill_path(file)] if best.prefill else [])]
    lines = [] if out else [f"# with --out {file} added, the plan writes {' and '.join(map(str, files))}:"]
    for path in files:
        lines += _wrapped(["wingspan", "simulate", str(path)])
    lines += _wrapped(["wingspan", "place", _recorded(said), "--model", str(file), "--out", "placement.json"])
    lines += _wrapped(["wingspan", "run", str(file), "--checkpoint", "FOLDER"])
    if any(Path(source).glob("*.safetensors")):
        lines += _wrapped(["wingspan", "serve", str(file)])
    if best.decode_groups > 1 or best.prefill_groups > 1:
        beside = " and one of those that prefill" if best.prefill else ""
        lines += [f"# requests for one of the groups that decode{beside}:"]
    if not best.prefill and not _is_usual(best):
        served = _serving_options(best, said, of_file=True)
        return [*lines, *_wrapped(["wingspan", "simulate-serving", str(file), *served])]
    if not _is_usual(best):
        lines += ["# (it places experts linearly in the fewest slots, with the usual dispatch)"]
    model = best.decode.deployment.model.name if file_of(said) else source
    return [*lines, *_wrapped(["wingspan", "simulate-serving", model, *_serving_options(best, said)])]


def _recorded(said: Description) -> str:
    """The file that says how tokens choose; a name to replace where none was given."""
    return said.routing if said.routing is not None and Path(said.routing).is_file() else "TRACE"


def _engine(engine: EngineKind | EngineProfile, said: Description) -> str | None:
    """How the option names it; the file of a profile that came with a deployment is a name to replace."""
    if isinstance(engine, EngineProfile):
        return said.engine or "ENGINE"
    return None if engine is EngineKind.NONE else engine.value


def _is_usual(best: Offer) -> bool:
    """Whether all groups are as `simulate-serving` makes them."""
    groups = [best.decode, *([best.prefill] if best.prefill else [])]
    return all(
        group.deployment.placement.strategy is Strategy.LINEAR and group.redundant < group.ranks
        for group in groups
    )


_IN_FILE = {
    "--cluster",
    "--ranks",
    "--attention-ranks",
    "--schedule",
    "--routing",
    "--precision",
    "--engine",
    "--mtp",
    "--acceptance",
    "--seed",
}
"""What a deployment's file says itself."""


def _serving_options(best: Offer, said: Description, *, of_file: bool = False) -> list[str]:
    goal, decode, prefill = best.goal, best.decode, best.prefill
    rate = best.requests_per_second / best.decode_groups
    if prefill is not None:
        rate = min(rate, prefill.requests_per_second)
    options, work = decode.deployment.options, decode.deployment.workload
    tokens = prefill.batch if prefill else decode.batch + (best.chunk_tokens or 0)
    values = {
        "--cluster": said.cluster if isinstance(said.cluster, str) else decode.deployment.cluster.name,
        "--ranks": decode.ranks,
        "--separate-prefill": prefill.ranks if prefill else None,
        "--attention-ranks": options.attention_ranks if options.attention_ranks > 1 else None,
        "--schedule": options.schedule,
        "--routing": said.routing,
        "--precision": text_of(work.precision) or None,
        "--engine": _engine(options.engine, said),
        "--mtp": work.mtp_tokens or None,
        "--acceptance": work.acceptance if work.mtp_tokens else None,
        "--seed": work.seed or None,
        "--prompt-tokens": goal.prompt_tokens,
        "--output-tokens": goal.output_tokens,
        "--max-sequences": decode.batch,
        "--step-tokens": max(2, tokens),
        "--rate": f"{0.8 * rate:.3g}",
        "--ttft-p99": goal.ttft_seconds,
        "--tpot-p99": goal.tpot_seconds,
    }
    return [
        word
        for name, value in values.items()
        if value is not None and not (of_file and name in _IN_FILE)
        for word in (name, f"{value:g}" if isinstance(value, float) else str(value))
    ]


def _engines(best: Offer) -> dict[str, list[str]]:
    """Each engine's commands, one for each kind of groups."""
    kinds = [("decode" if best.prefill else "both", best.decode, best.decode_groups)]
    kinds += [("prefill", best.prefill, best.prefill_groups)] if best.prefill else []
    found: dict[str, list[str]] = {}
    for engine, command_of in LAUNCHERS.items():
        found[engine] = _checkpoint(best.decode.deployment, engine)
        for phase, group, count in kinds:
            if len(kinds) > 1 or count > 1:
                found[engine].append(f"# {phase}" + (f", {count} of these" if count > 1 else ""))
            command = command_of(_launch(best, phase, group))
            if command.file:
                found[engine] += [f"cat > {command.file} <<END", *command.file_text.splitlines(), "END"]
            found[engine] += _wrapped(command.words)
    return found


def _engine_quantises(deployment: Deployment) -> bool:
    """Whether all weights are asked for in FP8 and were published wider: SGLang and vLLM quantise as they load."""
    before = deployment.model.precision
    return all(
        part.weights is Precision.FP8 and getattr(before, name).weights.bytes >= 2
        for name, part in deployment.precisions.parts.items()
    )


def _checkpoint(deployment: Deployment, engine: str) -> list[str]:
    """Which checkpoint MODEL must be, where the published one has other formats."""
    asked, before = deployment.precisions, deployment.model.precision
    same = all(part.weights is getattr(before, name).weights for name, part in asked.parts.items())
    if same or (_engine_quantises(deployment) and engine != "TensorRT-LLM"):
        return []
    return [f"# MODEL: {asked.weights_described}, as its config says"]


def _launch(best: Offer, phase: str, group: PhaseGroup) -> EngineLaunch:
    deployment = group.deployment
    prompts = -(-group.batch // best.goal.prompt_tokens)
    decoded = group.batch * deployment.workload.tried_per_sequence
    tokens = {
        "prefill": group.batch,
        "decode": decoded,
        "both": decoded + (best.chunk_tokens or 0),
    }[phase]
    return EngineLaunch(
        phase=phase,
        ranks=group.ranks,
        ranks_per_node=min(deployment.cluster.gpus_per_node, group.ranks),
        redundant=group.redundant,
        experts=deployment.model.experts.count,
        attention_ranks=deployment.options.attention_ranks,
        sequences=prompts if phase == "prefill" else group.batch,
        step_tokens=tokens,
        two_batch=deployment.options.schedule == ScheduleKind.TWO_BATCH,
        fp8_cache=deployment.precisions.kv is Precision.FP8,
        fp8_weights=_engine_quantises(deployment),
        nvfp4_experts=deployment.precisions.experts.activations is Precision.NVFP4,
        nvfp4_rows=deployment.precisions.dispatch is Precision.NVFP4,
        tried_ahead=deployment.workload.mtp_tokens,
    )


def _wrapped(words: list[str]) -> list[str]:
    """A command as lines of at most a terminal's width, an option kept with its value."""
    quoted = [word if " " in word else shlex.quote(word) for word in words]
    pieces: list[str] = []
    for word in quoted:
        option = bool(pieces) and pieces[-1].startswith("--") and " " not in pieces[-1]
        if option and not word.startswith("--"):
            pieces[-1] += f" {word}"
        else:
            pieces.append(word)
    lines = [pieces[0]]
    for piece in pieces[1:]:
        if len(lines[-1]) + 1 + len(piece) > _WIDTH:
            lines[-1] += " \\"
            lines.append(f"    {piece}")
        else:
            lines[-1] += f" {piece}"
    return lines
