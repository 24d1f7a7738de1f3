"""What all results of both executors are: values that do not change, read and written as JSON."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class FrozenResult(BaseModel):
    """Base of every result type; a field that is not declared is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)
