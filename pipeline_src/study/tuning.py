"""Equal tuning: the section `tuning`, and the trials that it draws.

    tuning:
      trials: 8             # of every configuration: joint training, each modality alone and every method alike
      seeds: [100, 101]     # of the trials; the study's own seeds choose nothing
      spaces:
        all: {training.lr: {log: [0.003, 0.1]}}             # of every configuration
        pmr: {alpha: [1.0, 2.0, 4.0]}                       # what a method adds: its own parameters
        opm_ogm: {opm.q_base: {linear: [0.1, 0.9]}}         # and those of the blocks in them

A space of lists alone is a grid: `trials` of its points are drawn without repeats, which are all of them if it has no
more. A space with a range is searched at random: each range is cut into `trials` equal parts, one value is drawn in
each, and the parts of several parameters are combined at random (Latin hypercube sampling: McKay et al., Technometrics
1979). A range of the same name has the same values in every configuration.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeVar

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from pipeline_src.core.errors import brief
from pipeline_src.core.params import SEED, Section, unique
from pipeline_src.core.registry import closest
from pipeline_src.core.seeding import seed_of
from pipeline_src.datasets.base import datasets
from pipeline_src.methods.base import Method, MethodParams, Setting, methods
from pipeline_src.study.yaml import Mistakes
from pipeline_src.training.params import Training

if TYPE_CHECKING:
    from pipeline_src.study.params import Settings

ALL, UNIMODAL, JOINT = "all", "unimodal", "joint"  # spaces besides those of the methods
SCHEDULE = "training."  # before the names of the section `training`
# What of `training` may differ between trials: every run has the same epochs, and test is scored alike in all.
TUNABLE = ("batch_size", "optimizer", "lr", "momentum", "weight_decay", "lr_step", "lr_gamma")
Given = TypeVar("Given", bound=Section)
MOST = 100_000  # points of a grid
DIGITS = 3  # significant ones of a value that is drawn from a range

Bounds = Annotated[list[float], Field(min_length=2, max_length=2)]
Point = dict[str, Any]  # the values of one trial, by the names of a space


class Range(Section):
    """An interval to draw from: evenly in the logarithm, or evenly."""

    affects = "aggregate"  # by the runs that it asks for

    log: Bounds | None = Field(default=None, description="[low, high], drawn evenly in the logarithm")
    linear: Bounds | None = Field(default=None, description="[low, high], drawn evenly")

    @model_validator(mode="after")
    def _of_one_kind(self) -> Self:
        if (self.log is None) == (self.linear is None):
            raise ValueError("expected either log: [low, high] or linear: [low, high]")
        low, high = self.log or self.linear or []
        if not low < high or (self.log is not None and low <= 0):
            raise ValueError(f"expected [low, high]{', both above 0,' if self.log else ''} with low below high")
        return self

    def at(self, place: float) -> float:
        """The value at a place in [0, 1), rounded for people to read."""
        if self.log is not None:
            low, high = self.log
            value = low * (high / low) ** place
        else:
            low, high = self.linear or [0.0, 1.0]
            value = low + (high - low) * place
        return min(max(float(f"{value:.{DIGITS}g}"), low), high)


def _plain(value: Any) -> Any:
    """Validator: a value that a parameter of one value can have."""
    if not isinstance(value, int | float | str | None):
        raise ValueError("expected a number, text, true, false or null")
    return value


Values = Annotated[
    Annotated[Range, Tag("range")]
    | Annotated[list[Annotated[Any, AfterValidator(_plain)]], Field(min_length=1), AfterValidator(unique), Tag("list")],
    Discriminator(lambda values: "range" if isinstance(values, dict | Range) else "list"),
]
Space = Mapping[str, Values]


class Tuning(Section):
    """The same number of trials for every configuration, chosen by validation scores; see `study.tuning`."""

    affects = "aggregate"  # by the runs that it asks for

    trials: int = Field(ge=2, le=1000, description="of every configuration, joint and unimodal training included")
    seeds: Annotated[
        list[Annotated[int, Field(ge=0, le=SEED)]], Field(min_length=1, max_length=1000), AfterValidator(unique)
    ] = Field(description="of the trials; the study has none of them")
    seed: int = Field(default=0, ge=0, le=SEED, description="of the draw of the trials")
    spaces: dict[str, dict[str, Values]] = Field(
        description="all, unimodal (else as joint) or a method -> training.<key> or a parameter of the method -> a list"
        " of values, {log: [low, high]} or {linear: [low, high]}"
    )

    def space(self, method: str, unimodal: bool) -> dict[str, Values]:
        """The space of a configuration: what all have, and its own."""
        own = self.spaces.get(UNIMODAL, self.spaces.get(JOINT, {})) if unimodal else self.spaces.get(method, {})
        return self.spaces.get(ALL, {}) | own

    def points(self, method: str, unimodal: bool = False) -> list[Point]:
        """The trials of a configuration, in order. Raises ValueError where its space has too few points."""
        return drawn(self.space(method, unimodal), self.trials, self.seed)


def drawn(space: Space, trials: int, seed: int) -> list[Point]:
    """As many different points of a space, the same on every machine. Raises ValueError where it has too few."""
    if any(isinstance(values, Range) for values in space.values()):
        points = _sampled(space, trials, seed)
    else:
        points = _grid({name: list(values) for name, values in space.items()}, trials, seed)
    different = len({repr(point) for point in points})
    if different < trials:
        raise ValueError(f"expected a space with at least trials = {trials} different points, but got {different}")
    return points


def _grid(lists: dict[str, list], trials: int, seed: int) -> list[Point]:
    if (count := math.prod(map(len, lists.values()))) > MOST:
        raise ValueError(f"expected a grid of at most {MOST:,} points, but got {count:,}; use a range")
    points = [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]
    first = sorted(range(count), key=lambda i: seed_of(seed, "grid", points[i]))[:trials]
    return [points[i] for i in sorted(first)]


def _sampled(space: Space, trials: int, seed: int) -> list[Point]:
    columns: dict[str, list[Any]] = {}
    for name, values in space.items():
        parts = sorted(range(trials), key=lambda part: seed_of(seed, "order", name, part))
        places = [(part + seed_of(seed, "within", name, part) / 2**63) / trials for part in parts]
        if isinstance(values, Range):
            columns[name] = [values.at(place) for place in places]
        else:
            columns[name] = [values[int(place * len(values))] for place in places]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def split(point: Point) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a trial changes of the section `training`, and of the method's parameters."""
    training = {name.removeprefix(SCHEDULE): value for name, value in point.items() if name.startswith(SCHEDULE)}
    return training, {name: value for name, value in point.items() if not name.startswith(SCHEDULE)}


def changed(block: Given, changes: dict[str, Any]) -> Given:
    """A checked block with other values, checked. Raises pydantic's ValidationError."""
    return type(block).model_validate(merged(block, changes)) if changes else block


def merged(block: Section, changes: dict[str, Any]) -> dict[str, Any]:
    """What the file says of a checked block, with other values; the name `opm.q_base` is of the block `opm` in it."""
    values, inner = given(block), defaultdict[str, dict[str, Any]](dict)
    for name, value in changes.items():
        first, _, rest = name.partition(".")
        if rest:
            inner[first][rest] = value
        else:
            values[first] = value
    return values | {name: merged(getattr(block, name), of) for name, of in inner.items()}


def given(block: Section) -> dict[str, Any]:
    """What the file says of a checked block."""
    return {name: getattr(block, name) for name in block.model_fields_set}


# --- what is wrong with the section -----------------------------------------------------------------------------------


def check(params: "Settings", mistakes: Mistakes) -> None:
    """Note what is wrong with the section `tuning` of `params`, whose other blocks are checked: every trial must be a
    run that the study could name.
    """
    tuning, study = params.tuning, params.study
    if tuning is None:
        return
    if both := sorted({*tuning.seeds} & {*study.seeds}):
        mistakes.add(("tuning", "seeds"), f"expected seeds that study.seeds lacks, but got {both[0]}, which it has")
    before = len(mistakes.lines)
    for key, space in tuning.spaces.items():
        _check_names(params, key, space, mistakes)
    if len(mistakes.lines) > before:
        return
    if study.unimodal:
        _check_trials(params, tuning, JOINT, True, mistakes)
    for method in study.methods if study.fusions else []:
        if params.methods.get(method) is not None:
            _check_trials(params, tuning, method, False, mistakes)


def _check_names(params: "Settings", key: str, space: Space, mistakes: Mistakes) -> None:
    """The names of a space: of `training`, or of the method that it is of."""
    place = ("tuning", "spaces", key)
    kinds = {name: name for name in methods} | params.kinds
    if key not in (ALL, UNIMODAL) and key not in kinds:
        known = [ALL, UNIMODAL, *kinds]
        mistakes.add(
            place, f"expected {ALL}, {UNIMODAL} or a registered method, but got {brief(key)}{closest(key, known)}"
        )
        return
    own = _tunable(methods[kinds[key]].Params) if key in kinds else []
    known = [*(SCHEDULE + name for name in TUNABLE), *own]
    for name in space:
        if name not in known:
            mistakes.add((*place, name), f"expected a parameter that can be tuned{closest(name, known)}")


def _tunable(block: type[Section]) -> list[str]:
    """The parameters of a method, those of the blocks in it as `opm.q_base`."""
    names = []
    for name, field in block.model_fields.items():
        kind: Any = field.annotation
        nested = isinstance(kind, type) and issubclass(kind, Section)
        names += [f"{name}.{each}" for each in _tunable(kind)] if nested else [name]
    return names


def _check_trials(params: "Settings", tuning: Tuning, method: str, unimodal: bool, mistakes: Mistakes) -> None:
    """Every trial of a configuration, up to the first that cannot be run."""
    own = UNIMODAL if unimodal and UNIMODAL in tuning.spaces else method
    place = ("tuning", "spaces", own if own in tuning.spaces else ALL)
    if not tuning.space(method, unimodal):
        what = "each modality alone" if unimodal else brief(method)
        mistakes.add(place[:2], f"expected a space for {what}, but got none; name one, or one of {brief(ALL)}")
        return
    try:
        points = tuning.points(method, unimodal)
    except ValueError as error:
        mistakes.add(place, str(error))
        return
    for point in points:
        training, changes = split(point)
        block = params.methods[method]
        schedule = mistakes.checked(Training, given(params.training) | training, (*place, "training"))
        values = mistakes.checked(type(block), merged(block, changes), place)
        refusals = {} if values is None or unimodal else _refusals(params, methods[params.kinds[method]], block, values)
        for why in refusals:
            mistakes.add(place, f"{why} (trial {point})")
        if refusals or values is None or schedule is None:
            return


def _refusals(params: "Settings", method: type[Method], block: MethodParams, values: MethodParams) -> dict[str, None]:
    """Why a method cannot work with the values of a trial in place of its block's, each reason once."""
    blocks = [params.datasets.get(name) for name in params.study.datasets]
    kinds = [datasets[each.kind](each) for each in blocks if each is not None]
    settings = [
        Setting(tuple(kind.modalities), fusion, training.epochs, kind.task, params.model.frozen(kind.modalities))
        for kind in kinds
        for fusion in params.study.fusions
        for training in params.trainings().values()
    ]
    reasons = {why: None for setting in settings if (why := method.refuses(values, setting)) is not None}
    if not reasons and any(method.requires(values, setting) != method.requires(block, setting) for setting in settings):
        reasons["expected trials that require the same runs as the method's block does, but got others"] = None
    return reasons
