"""Commands that are asked for a deployment in a few words: the options of a `Description`, and it made of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, get_type_hints

from wingspan.cli import options

_OPTIONS = {
    "source": options.Source,
    "cluster": options.ClusterName,
    "ranks": options.Ranks,
    "experts_per_rank": options.ExpertsPerRank,
    "redundant": options.Redundant,
    "placement": options.PlacementName,
    "phase": options.Phase,
    "tokens_per_gpu": options.Tokens,
    "total_sequences": options.TotalSequences,
    "tokens_spread": options.TokensSpread,
    "context": options.ContextTokens,
    "context_spread": options.Spread,
    "routing": options.RoutingText,
    "expected_loads": options.ExpectedLoads,
    "schedule": options.ScheduleText,
    "dispatcher": options.DispatcherName,
    "attention_ranks": options.AttentionRanks,
    "expert_tensor_parallel": options.ExpertTensorParallel,
    "from_weights": options.FromWeights,
    "shared_in_slots": options.SharedInSlots,
    "mtp_tokens": options.MtpTokens,
    "acceptance": options.Acceptance,
    "precision": options.PrecisionText,
    "engine": options.EngineName,
    "seed": options.Seed,
}
"""For each field of a `Description` that commands have: its option."""

_DEFAULTS = {
    "source": inspect.Parameter.empty,
    "expected_loads": False,
    "from_weights": False,
    "shared_in_slots": False,
}
"""Fields whose default is not None, or that must be given."""


def described(
    *, without: tuple[str, ...] = (), **others: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Let a command have options in the place of its parameter `said`, and give it the `Description` that they make.

    Args:
        without: fields that this command has not.
        others: options of this command that are not the usual ones, by field.
    """
    fields = {name: others.get(name, option) for name, option in _OPTIONS.items() if name not in without}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def run(**values: Any) -> None:
            from wingspan.describe import Description

            given = {name: values.pop(name) for name in fields}
            said = Description(**{**given, "source": given.get("source") or ""})
            command(said=said, **values)

        # The type of `said` costs more to import than a command's help takes.
        hints = get_type_hints(command, localns={"Description": object}, include_extras=True)
        parameters: list[inspect.Parameter] = []
        for name, parameter in inspect.signature(command).parameters.items():
            if name == "said":
                parameters += [_parameter(*field, _default(field[0], others)) for field in fields.items()]
            else:
                parameters.append(_parameter(name, hints[name], parameter.default))
        shown: Any = run
        shown.__signature__ = inspect.Signature(parameters)
        shown.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def _default(name: str, others: Mapping[str, Any]) -> Any:
    """A source of a command's own need not be given."""
    return None if name == "source" and name in others else _DEFAULTS.get(name)


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
