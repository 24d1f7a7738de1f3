"""How a case's run on forked ranks compares with plain transformers.

The oracle is transformers' own `generate`, one prompt at a time, on the same checkpoint in one process.

Shapes: N generated tokens of a prompt, V vocabulary.
"""

from __future__ import annotations

import json
import pickle
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from transformers import LogitsProcessor, LogitsProcessorList

from benchmarks.architectures import tiny_configuration, write_checkpoint
from benchmarks.fuzz_case import Case
from wingspan.balance.settings import parse_rebalance
from wingspan.errors import InputError, WingspanError
from wingspan.models.classes import text_class
from wingspan.runtime.dispatch.choice import DispatchOptions
from wingspan.runtime.generation.prompts import Prompt, check_context
from wingspan.runtime.generation.sampling import Sampling
from wingspan.runtime.generation.tokenizer import Tokenizer
from wingspan.runtime.launch.group import Group
from wingspan.runtime.launch.start import Rest
from wingspan.runtime.model.architecture import SAME_MODULES, load_config
from wingspan.runtime.model.engine import default_placement, describe
from wingspan.runtime.model.reference import Check
from wingspan.runtime.model.step import flow_named
from wingspan.runtime.run import Listener, RunRequest, RunResult, checked, run
from wingspan.runtime.start import EngineSetup
from wingspan.runtime.transport.transport import Transport
from wingspan.specs.running import transport_kind

CPU = torch.device("cpu")
_LONGEST_SECONDS = 120
_SUMMATION = 1e-5
"""Of the largest logit in FP32: what the order of summation alone does."""
_ROUNDING_FACTOR = 2.0
"""How much further from exact logits (FP32 for BF16, else FP64) than plain transformers a run may be."""
_ROUNDINGS = 8
"""Plain runs of which the furthest counts: in small models one rounding flips few near-ties between experts."""
_SILENT = Listener(on_loaded=lambda _: None, on_tokens=lambda _: None)


@dataclass(frozen=True)
class Verdict:
    """`outcome`: equal, refused, or DIFFERENT (a crash too); `why` in one line."""

    outcome: str
    why: str = ""


@dataclass(frozen=True)
class Answers:
    """What a run gave for each prompt: its tokens, and the logits (N, V) that they were chosen from."""

    tokens: list[list[int]]
    logits: list[torch.Tensor]
    check: Check | None = None
    """What the run's own check found, where it is wingspan's."""


def judge(case: Case, folder: Path) -> Verdict:
    """Write the case's checkpoint to `folder`, run it, and compare."""
    try:
        with _time_limit():
            checkpoint = _checkpoint(case, folder / "checkpoint")
            try:
                answers = _run(case, checkpoint, folder / "answers.pickle")
            except InputError as error:
                return Verdict(
                    "refused" if "\n" not in str(error) else "DIFFERENT", str(error).replace(f"{folder}/", "")
                )
            return _with_own_check(_compare(case, checkpoint, answers), answers)
    except WingspanError as error:
        return Verdict("DIFFERENT", str(error))
    except Exception as error:  # whatever it is, it is a finding
        return Verdict("DIFFERENT", f"{type(error).__name__}: {error}")


def _checkpoint(case: Case, folder: Path) -> Path:
    modules = SAME_MODULES.get(case.architecture, case.architecture)
    config = tiny_configuration(modules, case.sizes)
    if case.ends is not None:
        config.get_text_config().eos_token_id = case.ends
    write_checkpoint(config, folder, case.weights_seed, getattr(torch, case.stored), sharded=case.sharded)
    if modules != case.architecture:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"model_type": case.architecture}))
    return folder


def _run(case: Case, checkpoint: Path, result: Path) -> Answers:
    model = describe(checkpoint, getattr(torch, case.dtype))
    request = RunRequest(
        EngineSetup(
            model,
            default_placement(model.shape, case.ranks, case.slots),
            CPU,
            DispatchOptions(case.dispatch),
            dict(zip(("prefill", "decode"), map(flow_named, case.flows), strict=True)),
            parse_rebalance(case.rebalance),
        ),
        [Prompt(n, list(ids), None, n % case.ranks) for n, ids in enumerate(case.prompts)],
        case.new_tokens,
        Sampling(),
        keep_logits=True,
    )
    check_context(request.prompts, case.new_tokens, model.config)
    tokenizer = Tokenizer(checkpoint)

    def work(transport: Transport) -> Rest | None:
        ran = run(transport, request, tokenizer, _SILENT)
        return None if ran is None else lambda: _hand_over(checked(ran, request), result)

    Group(case.ranks, case.ranks_per_node, transport_kind(case.transport)).run(work, CPU)
    answers: Answers = pickle.loads(result.read_bytes())
    return answers


def _hand_over(ran: RunResult, result: Path) -> None:
    """From rank 0 to the parent."""
    logits = [torch.stack(ran.logits[number]) for number in sorted(ran.logits)]
    result.write_bytes(pickle.dumps(Answers([o.token_ids for o in ran.outputs], logits, ran.check)))


def _compare(case: Case, checkpoint: Path, got: Answers) -> Verdict:
    """In FP32 the same tokens; in each dtype logits as near to exact ones as plain transformers' own roundings."""
    dtype: torch.dtype = getattr(torch, case.dtype)
    forced = () if case.dtype == "float32" else got.tokens
    plain = _plain(checkpoint, torch.float32, case, forced)
    if got.tokens != plain.tokens:
        number = next(n for n, (g, e) in enumerate(zip(got.tokens, plain.tokens, strict=True)) if g != e)
        return Verdict(
            "DIFFERENT", f"prompt {number}: {got.tokens[number]} instead of {plain.tokens[number]}"
        )
    summation = _SUMMATION * max(1.0, max(float(logits_NV.abs().max()) for logits_NV in plain.logits))
    if _distance(got, plain) <= summation:
        return Verdict("equal")
    exact = _plain(checkpoint, torch.float64, case, got.tokens) if dtype == torch.float32 else plain
    difference, allowed = _distance(got, exact), summation
    for rounding in range(_ROUNDINGS):
        rounded = _distance(_plain(checkpoint, dtype, case, got.tokens, rounding), exact)
        allowed = max(allowed, _ROUNDING_FACTOR * rounded + summation)
        # Not "if it is more": NaN must not pass.
        if difference <= allowed:
            return Verdict("equal")
    return Verdict("DIFFERENT", f"logits by {difference:.1e} from plain transformers, allowed {allowed:.1e}")


def _with_own_check(verdict: Verdict, got: Answers) -> Verdict:
    """The run's own check must come to the same."""
    if got.check is None or got.check.passed == (verdict.outcome == "equal"):
        return verdict
    own = f"the run's own check: {'passed' if got.check.passed else got.check}"
    return Verdict("DIFFERENT", f"{verdict.why}; {own}" if verdict.why else own)


def _distance(got: Answers, exact: Answers) -> float:
    """The largest difference of any logit; NaN where there is one."""
    worst = [(a - b).abs().max() for a, b in zip(got.logits, exact.logits, strict=True)]
    return float(torch.stack(worst).max())


def _plain(
    checkpoint: Path,
    dtype: torch.dtype,
    case: Case,
    forced: Sequence[Sequence[int]] = (),
    rounding: int = 0,
) -> Answers:
    """What plain transformers generates; with `forced` tokens, the logits that it would choose each of them from.

    Other `rounding`s than 0 move every weight by up to the dtype's own rounding.
    """
    found = text_class(load_config(checkpoint))
    model: Any = found.model.from_pretrained(
        checkpoint, config=found.config, dtype=dtype, experts_implementation="eager"
    )
    model.eval()
    if rounding:
        torch.manual_seed(rounding)
        with torch.no_grad():
            for parameter in model.parameters():
                noise = torch.rand(parameter.shape) * 2 - 1
                parameter.copy_(parameter.float() * (1 + noise * torch.finfo(dtype).eps))
    tokens, logits = [], []
    for number, prompt in enumerate(case.prompts):
        force = [_Forced(len(prompt), forced[number])] if forced else []
        out = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            do_sample=False,
            max_new_tokens=len(forced[number]) if forced else case.new_tokens,
            logits_processor=LogitsProcessorList(force),
            output_logits=True,
            return_dict_in_generate=True,
        )
        tokens.append(out.sequences[0, len(prompt) :].tolist())
        logits.append(torch.cat(out.logits).float())
    return Answers(tokens, logits)


class _Forced(LogitsProcessor):
    """Makes `generate` choose given tokens."""

    def __init__(self, prompt_length: int, tokens: Sequence[int]) -> None:
        self._prompt_length = prompt_length
        self._tokens = tokens

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        only = torch.full_like(scores, float("-inf"))
        only[:, self._tokens[input_ids.shape[1] - self._prompt_length]] = 0
        return only


@contextmanager
def _time_limit() -> Iterator[None]:
    def end(*_: object) -> NoReturn:
        raise TimeoutError(f"no end after {_LONGEST_SECONDS} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(_LONGEST_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
