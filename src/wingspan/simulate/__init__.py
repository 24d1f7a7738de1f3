"""Executor 1: predicts a schedule's timeline on a cluster.

The room has the name of what `from wingspan import simulate` gives, so it can be called as that.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wingspan.deployment import Deployment
    from wingspan.describe import Description
    from wingspan.schedule.result import StepReport


class _CallableRoom(ModuleType):
    def __call__(self, said: Deployment | Description) -> StepReport:
        """Predict one step: `wingspan.front.simulate`."""
        from importlib import import_module

        report: StepReport = import_module("wingspan.front").simulate(said)
        return report


sys.modules[__name__].__class__ = _CallableRoom
