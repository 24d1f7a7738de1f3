"""Wingspan: wide expert parallelism for Mixture-of-Experts models, planned, predicted, run and compared.

```
from wingspan import Description, load_cluster, load_model, place, plan, simulate

best = plan(Description(load_model("deepseek-v3"), load_cluster("h100-sxm")), gpus=64).shown
print(simulate(best.deployment).step_seconds)
```

Each name is imported when it is first used: only `LLM`, and what it takes, loads torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from wingspan.version import __version__

if TYPE_CHECKING:
    from wingspan.deployment import Deployment
    from wingspan.describe import Description
    from wingspan.front import place, plan, simulate
    from wingspan.runtime.generation.requests import Length
    from wingspan.runtime.generation.sampling import Sampling
    from wingspan.runtime.llm import LLM
    from wingspan.specs.cluster import load_cluster
    from wingspan.specs.models import load_model


__all__ = [
    "LLM",
    "Deployment",
    "Description",
    "Length",
    "Sampling",
    "__version__",
    "load_cluster",
    "load_model",
    "place",
    "plan",
    "simulate",
]

_HOMES = {
    "Deployment": "deployment",
    "Description": "describe",
    "LLM": "runtime.llm",
    "Length": "runtime.generation.requests",
    "Sampling": "runtime.generation.sampling",
    "load_cluster": "specs.cluster",
    "load_model": "specs.models",
    "place": "front",
    "plan": "front",
}


def __getattr__(name: str) -> object:
    """A public name, imported at its first use.

    Raises:
        ModuleNotFoundError: what only `wingspan[runtime]` brings is not installed.
    """
    if name == "simulate":  # the room itself can be called
        return import_module("wingspan.simulate")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"wingspan.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        text = f"wingspan.{name} needs {missing}; pip install 'wingspan[runtime]'"
        raise ModuleNotFoundError(text, name=missing) from None


def __dir__() -> list[str]:
    return [*globals(), *__all__]
