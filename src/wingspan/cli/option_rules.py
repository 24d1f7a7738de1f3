"""Options that act only beside others: given without them, they are refused instead of doing nothing.

The rules are one table, and `CheckedCommand` asks it before any command's work. What shows only in a file (a
deployment's schedule, an engine's dump) is refused where that file is read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import typer
import typer.core

from wingspan.cli.aliases import read_old_names
from wingspan.errors import InputError, WingspanError

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Rule:
    """When an option acts.

    Args:
        option: its parameter's name.
        acts: whether it does, from all parameters of the command.
        mend: why it would do nothing, and what to do.
    """

    option: str
    acts: Callable[[Values], bool]
    mend: str


def _without(other: str) -> Callable[[Values], bool]:
    return lambda values: not values[other]


def _with(other: str) -> Callable[[Values], bool]:
    return lambda values: values[other] not in (None, False, 0, [], ())


_SAMPLING = "at --temperature 0 the likeliest token is taken; raise it, or leave this out"
_DRAWN = "requests of a file are not drawn; leave it out, or --requests"

_TRIED = "no token is tried ahead; add --mtp, or leave it out"
_OF_REQUESTS = "with --prompt-tokens the requests say it; leave it out, or those"
_NO_REQUESTS = "it is a limit of requests; add --prompt-tokens and --output-tokens, or leave it out"


def _no_requests(values: Values) -> bool:
    return values["prompt_tokens"] is None and values["output_tokens"] is None


def _is_file(values: Values) -> bool:
    """Whether the source is a deployment's file, which may say the requests; `plan` looks."""
    from wingspan.deployment import is_deployment

    return is_deployment(str(values["source"]))


def _without_file(values: Values) -> bool:
    """Whether what is served is no deployment's file."""
    from wingspan.deployment import is_deployment

    return not is_deployment(str(values["model"]))


def _may_have_requests(values: Values) -> bool:
    return not _no_requests(values) or _is_file(values)


def _with_or_in_file(other: str) -> Callable[[Values], bool]:
    return lambda values: values[other] is not None or _is_file(values)


_NOT_IN_TRAINING = (
    "ttft",
    "tpot",
    "prompt_tokens",
    "output_tokens",
    "tokens_per_gpu",
    "tokens_spread",
    "context_spread",
    "redundant",
    "experts_per_rank",
    "placement",
    "dispatcher",
    "expert_tensor_parallel",
    "shared_in_slots",
    "engine",
    "longest_step_ms",
    "mtp_tokens",
    "acceptance",
    "price",
    "out",
    "html",
)
"""Options of `plan` that a plan of training has no use for."""

_OF_SERVING = (
    "ranks",
    "rate",
    "num_requests",
    "prompt_tokens",
    "output_tokens",
    "length_spread",
    "max_sequences",
    "step_tokens",
    "rounds",
    "seed",
)
"""Options of `compare` that say how a server is loaded."""

_OF_A_PREDICTION = (
    "source",
    "cluster",
    "experts_per_rank",
    "placement",
    "phase",
    "tokens_per_gpu",
    "total_sequences",
    "context",
    "routing",
    "schedule",
    "dispatcher",
    "attention_ranks",
    "expert_tensor_parallel",
    "from_weights",
    "mtp_tokens",
    "acceptance",
    "precision",
    "engine",
    "seed",
    "max_sequences",
    "step_tokens",
    "as_json",
)
"""Options of `calibrate` that say what was measured elsewhere."""

RULES: dict[str, tuple[Rule, ...]] = {
    "simulate": (Rule("acceptance", _with_or_in_file("mtp_tokens"), _TRIED),),
    "sweep": (
        Rule("acceptance", _with("mtp_tokens"), _TRIED),
        Rule(
            "tokens_per_gpu", _without("total_sequences"), "--total-sequences says the batch; leave one out"
        ),
    ),
    "plan": (
        *(
            Rule(name, lambda values: values["phase"] != "train", "--phase train has none; leave it out")
            for name in _NOT_IN_TRAINING
        ),
        Rule("phase", _no_requests, _OF_REQUESTS),
        Rule("acceptance", _with_or_in_file("mtp_tokens"), _TRIED),
        Rule("tokens_per_gpu", _no_requests, _OF_REQUESTS),
        Rule("context", _no_requests, _OF_REQUESTS),
        Rule("total_sequences", _no_requests, _OF_REQUESTS),
        Rule(
            "expert_tensor_parallel",
            _no_requests,
            "groups for requests keep each expert whole; leave it out, or plan steps",
        ),
        Rule("longest_step_ms", _no_requests, "requests are limited by --ttft and --tpot; leave it out"),
        Rule("ttft", _may_have_requests, _NO_REQUESTS),
        Rule("tpot", _may_have_requests, _NO_REQUESTS),
        Rule(
            "prompt_tokens",
            _with_or_in_file("output_tokens"),
            "a request has an output too; add --output-tokens",
        ),
        Rule(
            "output_tokens",
            _with_or_in_file("prompt_tokens"),
            "a request has a prompt too; add --prompt-tokens",
        ),
    ),
    "simulate-serving": (
        *(
            Rule(name, _without_file, "the deployment's file says it; leave it out, or change the file")
            for name in (
                "cluster",
                "ranks",
                "attention_ranks",
                "schedule",
                "routing",
                "precision",
                "engine",
                "mtp_tokens",
            )
        ),
        Rule("separate_prefill", _without_file, "the file is of one group; give a model, or leave it out"),
        Rule("acceptance", _with("mtp_tokens"), _TRIED),
        Rule("prompt_tokens", _without("requests"), _DRAWN),
        Rule("output_tokens", _without("requests"), _DRAWN),
        Rule("length_spread", _without("requests"), _DRAWN),
        Rule(
            "rate",
            lambda values: not values["find_limit"] or "," not in str(values["rate"]),
            "--find-limit begins at one load and finds the others; give one",
        ),
    ),
    "inspect": (
        Rule("from_weights", _without("runtime"), "--runtime asks transformers; leave one out"),
        Rule("gated", _without("from_weights"), "the tensors say it; leave one out"),
    ),
    "claims": (Rule("brief", _without("as_json"), "--json holds everything; leave one out"),),
    "validate": (
        Rule("data", _without("silicon"), "--silicon judges on the installed tables alone; leave one out"),
        Rule("rows", _without("silicon"), "--silicon has no authors' figures; leave one out"),
        Rule("rows", _without("as_json"), "--json holds them anyway; leave it out"),
        Rule("rows", _without("end_to_end"), "--end-to-end judges engines, not kernels; leave one out"),
        Rule("data", _without("end_to_end"), "--end-to-end names its own table; leave one out"),
        Rule("silicon", _without("end_to_end"), "--end-to-end names its own table; leave one out"),
    ),
    "run": (
        Rule(
            "cluster",
            lambda values: values["schedule"] == "auto",
            "only --schedule auto predicts by it; add that, or leave it out",
        ),
        Rule("seed", _with("temperature"), _SAMPLING),
        Rule("top_k", _with("temperature"), _SAMPLING),
        Rule("top_p", _with("temperature"), _SAMPLING),
        Rule("min_p", _with("temperature"), _SAMPLING),
    ),
    "compare": (
        *(
            Rule(name, _without("serving"), "--serving has none; leave it out, or compare a step")
            for name in ("compute", "cluster", "time_scale", "steps", "trace", "wait_seconds")
        ),
        *(
            Rule(name, _with("serving"), "it is of a server under load; add --serving, or leave it out")
            for name in _OF_SERVING
        ),
        Rule(
            "time_scale",
            lambda values: values["compute"] == "paced",
            "real compute takes as long as it takes; leave it out",
        ),
        Rule(
            "checkpoint",
            lambda values: values["compute"] == "real" or values["serving"],
            "paced compute has no weights; add --compute real, or leave it out",
        ),
    ),
    "place": (
        Rule("horizon_steps", _with("present"), "a move is weighed only with --current; leave it out"),
        Rule(
            "placement",
            lambda values: bool(values["out"] or values["html"]),
            "it names what --out writes and --html shows; add one, or leave it out",
        ),
        Rule("to", _with("out"), "it says how --out is written; add that, or leave it out"),
        Rule("from_", _without("synthetic"), "a synthetic trace is of no engine; leave one out"),
    ),
    "routing": (Rule("ranks", _without("placement"), "--placement names its own ranks; leave one out"),),
    "calibrate": (
        *(
            Rule(name, _with("from_bench"), "only --from-bench predicts; add that, or leave it out")
            for name in _OF_A_PREDICTION
        ),
        *(
            Rule(name, _without("from_bench"), "--from-bench measures nothing here; leave it out")
            for name in ("ranks_per_node", "cluster_name", "device", "transport", "wait_seconds")
        ),
        Rule("acceptance", _with_or_in_file("mtp_tokens"), _TRIED),
    ),
    "testbed down": (Rule("name", _without("everything"), "--all takes every testbed; leave one out"),),
}
"""For each command, by its words after `wingspan`, its options that can do nothing."""


_FILES_TO_WRITE = {"--out", "--html", "--trace"}
"""Options that name one, in every command that has them."""


class CheckedCommand(typer.core.TyperCommand):
    """A command that refuses what was given in vain, and numbers that are none."""

    def invoke(self, ctx: Any) -> Any:
        """Check the options, then run the command; fields that its errors name are shown as its options.

        Raises:
            InputError: an option that would do nothing, or is not finite.
        """
        shown = {str(param.name): str(param.opts[0]) for param in self.params}
        self._check(ctx, shown)
        try:
            return super().invoke(ctx)
        except WingspanError as error:
            error.args = (_with_options(str(error), shown),)
            raise

    def make_parser(self, ctx: Any) -> Any:
        """The parser; it knows old names too."""
        parser: Any = super().make_parser(ctx)
        read_old_names(parser, self.get_params(ctx))
        parse = parser.parse_args

        def parse_args(args: list[str]) -> Any:
            values, others, order = parse(args)
            for param in self.params:
                given = str(values.get(param.name))
                if param.opts[0] in _FILES_TO_WRITE and given.endswith("/"):  # a path forgets that
                    raise InputError(f"{param.opts[0]} {given}: is a folder; name a file in it")
            return values, others, order

        parser.parse_args = parse_args
        return parser

    def _check(self, ctx: Any, shown: Mapping[str, str]) -> None:
        given = {name for name in shown if _from_command_line(ctx, name)}
        for rule in RULES.get(str(ctx.command_path).partition(" ")[2], ()):
            if rule.option in given and not rule.acts(ctx.params):
                value = ctx.params[rule.option]
                named = shown[rule.option] + ("" if value is True else f" {value}")
                raise InputError(f"{named}: does nothing here: {rule.mend}")
        for name in given:
            if isinstance(value := ctx.params[name], float) and not math.isfinite(value):
                raise InputError(f"{shown[name]} {value}: use a finite number")


def _with_options(text: str, shown: Mapping[str, str]) -> str:
    """An error's text with the fields that it names, as `ranks_per_node`, written as this command's options."""
    return re.sub(
        "`([a-z][a-z0-9_]*)`",
        lambda found: shown[found[1]] if shown.get(found[1], "").startswith("-") else found[0],
        text,
    )


def _from_command_line(ctx: Any, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
