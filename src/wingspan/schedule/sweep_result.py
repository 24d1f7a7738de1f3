"""What a sweep reports: predictions over one or more axes, and what they say together."""

from __future__ import annotations

from pydantic import Field

from wingspan.schedule.frozen import FrozenResult
from wingspan.schedule.price import price_per_million_tokens

Value = int | float | str


class SweepAxis(FrozenResult):
    """One thing that is varied."""

    name: str = Field(description="as on the command line, such as `ranks`")
    label: str = Field(description="with its unit, such as `network bandwidth, GB/s per GPU`")
    values: list[Value] = Field(min_length=1)

    @property
    def numeric(self) -> bool:
        """Whether its values are numbers, so that they have distances."""
        return not any(isinstance(value, str) for value in self.values)


class SweepPoint(FrozenResult):
    """One prediction."""

    at: dict[str, Value] = Field(description="a value of each axis")
    ranks: int
    experts_per_rank: int
    schedule: str
    tokens: int = Field(description="in the step, over all ranks")
    step_seconds: float
    relative_error: float | None = Field(default=None, ge=0, description="of the step time; see StepReport")
    tokens_per_second: float
    tokens_per_second_per_gpu: float
    price_per_million_tokens: float | None = Field(
        default=None, description="in the currency of the price of a GPU hour; None without one"
    )
    parallel_efficiency: float = Field(
        description="step with evenly loaded ranks and free transfers, over this step"
    )
    exposed_share: float = Field(description="all waiting of the mean rank over step time")
    imbalance: float
    peak_memory_bytes: int
    fits: bool = Field(description="peak memory is within the GPU's")
    bound_by: str = Field(default="", description="the operation that takes most of the slowest rank's time")


class SweepResult(FrozenResult):
    """All points of a sweep, in the order of the axes, first axis outermost."""

    conditions: dict[str, str]
    axes: list[SweepAxis] = Field(min_length=1)
    points: list[SweepPoint]
    findings: list[str] = Field(default=[], description="what the points say together, one sentence each")
    notes: list[str] = Field(default=[])

    def priced(self, price_per_gpu_hour: float) -> SweepResult:
        """With what a million tokens of each point cost, in the price's currency."""
        points = [
            point.model_copy(
                update={
                    "price_per_million_tokens": price_per_million_tokens(
                        price_per_gpu_hour, point.tokens_per_second_per_gpu
                    )
                }
            )
            for point in self.points
        ]
        return self.model_copy(update={"points": points})
