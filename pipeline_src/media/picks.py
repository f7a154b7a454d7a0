"""The moments of a clip that an extractor reads: the choices of the published protocols, by name."""

from fractions import Fraction
from typing import Literal, Self

from pydantic import Field, model_validator

from pipeline_src.media.base import ExtractorParams

Pick = Literal["centers", "starts", "ends", "first", "rolled"]

ROLLED = 3  # moments of `rolled`


class PickParams(ExtractorParams):
    """Parameters of extractors that read a few moments of a clip."""

    count: int = Field(ge=1, le=512, description="moments per clip")
    pick: Pick = Field(
        description="which moments. `centers`: the centre of each of `count` equal parts of the clip; `starts`: the "
        "start of each; `ends`: evenly from the first frame to the last, both included; `first`: the first `count` at "
        "`fps` per second, from 0 s; `rolled`: of `of` stored ones the first, middle and last once the last is in "
        "front, as BML_TPAMI2024 reads them: the last, the one before the middle, the last but one"
    )
    of: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="the clip is first thinned to the centres of `of` equal parts, as papers store frames on disk; of "
        "each run of of // count of these, `starts` takes the first and `centers` the middle one, rounded down",
    )
    fps: float | None = Field(default=None, gt=0, le=1000, description="moments per second of `first`")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.fps is None) == (self.pick == "first"):
            raise ValueError(f"expected fps with pick `first`, and with it alone; but got `{self.pick}`")
        if self.of is not None and (self.pick not in ("centers", "starts", "rolled") or self.of < self.count):
            raise ValueError("expected `of` of at least `count`, with pick `centers`, `starts` or `rolled`")
        if self.pick == "rolled" and (self.count != ROLLED or self.of is None):
            raise ValueError(f"expected count: {ROLLED} and `of` with pick `rolled`")
        return self

    def times(self, seconds: Fraction) -> list[Fraction]:
        """Ascending times in a clip of this length, in seconds. `first` may go beyond a short clip's end."""
        count = self.count
        match self.pick:
            case "first":
                return [Fraction(k) / Fraction(self.fps) for k in range(count)]
            case "ends":
                return [seconds * Fraction(k, count - 1) for k in range(count)] if count > 1 else [Fraction(0)]
        if self.of is not None and self.pick == "rolled":
            chosen = sorted((place - 1) % self.of for place in (0, (self.of - 1) // 2, self.of - 1))
            return [seconds * Fraction(2 * k + 1, 2 * self.of) for k in chosen]
        if self.of is not None:
            run = self.of // count
            into = max(run // 2, 1) - 1 if self.pick == "centers" else 0
            return [seconds * Fraction(2 * (k * run + into) + 1, 2 * self.of) for k in range(count)]
        twice = 1 if self.pick == "centers" else 0
        return [seconds * Fraction(2 * k + twice, 2 * count) for k in range(count)]
