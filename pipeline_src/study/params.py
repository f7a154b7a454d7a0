"""params.yaml as a whole, the sections that no single stage reads, and recipes. Blocks of plug-ins are checked by the
`Params` of the plug-in that they name, see `config`.
"""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError

from pipeline_src.core.params import SEED, Affects, Section, Variable, unique
from pipeline_src.datasets.base import DatasetParams
from pipeline_src.evaluation.params import Evaluation
from pipeline_src.media.base import ExtractorParams
from pipeline_src.methods.base import MethodParams
from pipeline_src.models.base import EncoderParams, FusionParams, Init
from pipeline_src.observers.base import ObserverParams
from pipeline_src.study.resources import Resources
from pipeline_src.study.tuning import TUNABLE, Tuning, changed
from pipeline_src.training.params import Training

Axes = Annotated[  # axis -> level -> the parameters of a dataset that it sets
    dict[str, Annotated[dict[str, dict[str, Any]], Field(min_length=2)]], Field(min_length=1, max_length=2)
]


class Study(Section):
    """What is compared: every dataset with every fusion and method, over every seed."""

    affects = "aggregate"  # by the runs that it asks for

    datasets: Annotated[list[str], Field(min_length=1), AfterValidator(unique)] = Field(
        description="keys of `datasets`; one with a grid stands for every dataset of it"
    )
    fusions: Annotated[list[str], AfterValidator(unique)] = Field(description="registered fusions")
    methods: Annotated[list[str], AfterValidator(unique)] = Field(
        description="registered methods, or keys of `methods` with a `kind`; `joint` is the baseline"
    )
    schedules: Annotated[list[str], AfterValidator(unique)] = Field(
        default=[], description="keys of `schedules`, under each of which every dataset is trained; none: `training`"
    )
    unimodal: bool = Field(description="also train one model per modality, alone")
    seeds: Annotated[
        list[Annotated[int, Field(ge=0, le=SEED)]], Field(min_length=1, max_length=10_000), AfterValidator(unique)
    ] = Field(description="a seed fixes initial weights, batches and augmentation for every method alike")
    vary: Annotated[list[Variable], AfterValidator(unique)] = Field(
        default=[],
        description="what else varies with the seed: `split` (which training samples are val), `data` (what is drawn"
        " when a dataset is generated, its test set included)",
    )


class Model(Section):
    """The network. Which fusion it has, the study says."""

    affects = None  # as a whole; the fields of each block say what they affect

    encoders: dict[str, Any] = Field(description="modality -> {kind: registered encoder, ...}")
    fusion: FusionParams = FusionParams()
    init: Annotated[Init, Affects("train")] = Field(
        default="default",
        description="rule by which weights start, see models/initial.py; ogm_ge: of OGM-GE's, PMR's and OPM's code;"
        " relearning: of Diagnosing & Re-learning's",
    )

    def frozen(self, modalities: Iterable[str]) -> tuple[str, ...]:
        """Those of the modalities whose encoders, once they are checked, are not trained."""
        return tuple(m for m in modalities if (params := self.encoders.get(m)) is not None and params.freeze)


class Reporting(Section):
    """How runs become a table."""

    affects = "aggregate"

    confidence: float = Field(gt=0.5, le=0.9999, description="level of the intervals (Student's t over seeds)")
    convergence: list[float] = Field(
        default=[],
        max_length=10,
        description="scores on val, such as 0.75, whose first epoch, and the operations up to it, the report tells of"
        " every method; none by default",
    )


class Tracking(Section):
    """What becomes of runs in MLflow; changes no result. The store: environment variable MLFLOW_TRACKING_URI."""

    affects = None

    enabled: bool = Field(True, description="mirror runs in MLflow while Snakemake works")
    experiment: str = Field("counterpoise", max_length=200, pattern=r"^[\w .:-]+$", description="MLflow's experiment")


class Recipe(Section):
    """recipes/<name>.yaml: the preprocessing of a published protocol."""

    affects = None  # as a whole; the fields of each block say what they affect

    source: str = Field(description="paper and released code that the numbers are from")
    choices: list[str] = Field(description="where they contradict each other or leave open: what was chosen and why")
    training: str = Field(description="what of the protocol's preprocessing belongs to the section `training`")
    modalities: dict[str, Any] = Field(description="modality -> {kind: feature extractor, ...}")


class Params(Section):
    """params.yaml."""

    affects = None  # as a whole; the fields of each block say what they affect

    study: Study
    datasets: dict[str, Any] = Field(
        description="name -> {kind: registered dataset, ...}; a kind may stand under several names"
    )
    grids: dict[str, Axes] = Field(
        default={},
        description="key of `datasets` -> one or two axes -> levels -> what differs from the block; a study of it has a"
        " dataset <key>-<level>-<level> for every combination",
    )
    recipes: dict[str, dict[str, Any]] = Field(
        default={},
        description="name-version -> modality -> {kind: feature extractor, ...}, beside those of the folder recipes/",
    )
    model: Model
    training: Training
    schedules: dict[str, dict[str, Any]] = Field(
        default={}, description="name -> what differs from `training`; see study.schedules"
    )
    methods: dict[str, Any] = Field(
        default={},
        description="parameters of each method, by name; its published defaults otherwise. A block with `kind`, a"
        " registered method, has a name of its own, so that a method can be in a study several times",
    )
    observers: dict[str, Any] = Field(
        default={}, description="what is observed of every run while it trains, by name; it changes no weights"
    )
    evaluation: Evaluation
    reporting: Reporting
    tracking: Tracking = Tracking()
    tuning: Tuning | None = Field(default=None, description="equal tuning: absent, nothing is tuned")
    reproduces: Annotated[list[str], AfterValidator(unique)] = Field(
        default=[],
        description="tables and figures of papers, as reports/papers.yaml names them, that the report lays out as the"
        " paper does",
    )
    plugins: Annotated[list[str], AfterValidator(unique)] = Field(
        default=[],
        description="folders of your own with files that register methods, datasets, encoders, ...",
    )
    extends: str | None = Field(
        default=None,
        description="another params file, relative to this one, which holds but for what this one says: blocks merge by"
        " key, other values replace, null removes",
    )


SCHEDULED = (
    "epochs",
    *TUNABLE,
    "beta2",
)  # what of `training` a schedule may set; all runs select and score epochs alike


@dataclass(frozen=True)
class Grid:
    """A grid of the study: its name in params.yaml, its axes with their levels, and the datasets by their levels."""

    name: str
    axes: dict[str, list[str]]
    datasets: dict[tuple[str, ...], str]


@dataclass(frozen=True)
class Scheduled:
    """A dataset of the study under one of its schedules."""

    dataset: str  # whose raw data, manifest and cache it has
    schedule: str
    training: Training


class Network(Model):
    """`Model` with every encoder checked."""

    encoders: dict[str, EncoderParams]


class Settings(Params):
    """params.yaml with the block of every plug-in checked, and what changes no result."""

    datasets: dict[str, DatasetParams]
    recipes: dict[str, dict[str, ExtractorParams]]
    model: Network
    methods: dict[str, MethodParams]
    observers: dict[str, ObserverParams]
    kinds: dict[str, str] = Field(default={})  # the registered method of every name of `methods`
    resources: Resources
    extended: tuple[Path, ...] = ()  # the params files that the file extends, the nearest first
    studied_grids: dict[str, Grid] = Field(default={})
    scheduled: dict[str, Scheduled] = Field(default={})  # datasets of the study, by name; none if it has no schedules

    def trainings(self) -> dict[str, Training]:
        """The section `training` under every schedule of the study, by name; of a study without any, itself under "".

        A schedule that is wrong, which `schedules.check` says, is left out.
        """
        found = {}
        for name in self.study.schedules:
            values = self.schedules.get(name)
            if values is not None and set(values) <= set(SCHEDULED):
                with suppress(ValidationError):
                    found[name] = changed(self.training, values)
        return found or {"": self.training}

    def training_of(self, dataset: str) -> Training:
        """By which the runs of a dataset of the study are trained."""
        return self.scheduled[dataset].training if dataset in self.scheduled else self.training

    def stored(self, dataset: str) -> str:
        """The name under which raw data, manifest and cache of a dataset of the study are kept."""
        return self.scheduled[dataset].dataset if dataset in self.scheduled else dataset
