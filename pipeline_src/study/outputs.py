"""What a study makes, and where: the data of a dataset, a cell of the grid, a run.

Paths are relative to the working directory. Each holds the fingerprint of all that determines the output, which
`study.plan` computes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from pipeline_src.core import files
from pipeline_src.datasets.base import Dataset
from pipeline_src.evaluation.params import Evaluation
from pipeline_src.features import CACHE_FILE
from pipeline_src.media.base import Extractor
from pipeline_src.study import places
from pipeline_src.study.choice import Search
from pipeline_src.training.spec import RunSpec

NO_FUSION = "none"  # the fusion of a unimodal model
TRIAL, TUNED = "trial", "tuned"  # what a cell is to equal tuning; see study.tuning

# Where outputs live, relative to the working directory; the same words are the wildcards of the rules.
RAW = "data/raw/{dataset}-{fp}"
MANIFEST = "data/manifest/{dataset}-{fp}"
CACHE = "data/cache/{dataset}/{recipe}-{fp}"
SHARD = CACHE + "/shard-{shard}"
CELL = "results/runs/{dataset}/{recipe}/{fusion}/{method}-{fp}"
RUN = CELL + "/seed{seed}"
EVALUATION = RUN + "/evaluation-{evaluation}"
STUDY = "results/studies/{study}"
INDEX = "tables/index-{fp}.json"  # below `Plan.results`
TUNING = ("tuned.csv", "trials.csv")  # tables of a study that is tuned: over seeds, and of every trial
SEEN = "data/seen/{name}.json"  # what this machine remembers of raw files; no output


@dataclass(frozen=True)
class Data:
    """One dataset of the study under its recipe, and where its outputs are."""

    name: str
    recipe: str
    dataset: Dataset
    extractors: dict[str, Extractor]
    raw: Path
    fetched: bool  # made by the fetch stage, or the user's own folder
    seen: Path  # see files.scan
    manifest: Path  # folder
    cache: Path  # folder
    cache_fp: str  # of its content
    seeds: tuple[int, ...] = ()  # of the study and its tuning, those whose runs read it
    vary: tuple[str, ...] = ()  # what of it varies with the seed

    @property
    def max_quarantine(self) -> float:
        return self.dataset.params.max_quarantine

    @property
    def storage(self) -> str:
        """Address under which its shards lie; none: on this disk."""
        return self.dataset.params.storage

    @property
    def objects(self) -> str:
        """Where below that address."""
        return "/".join(self.cache.parts[-2:])

    @property
    def raw_index(self) -> Path:
        return self.raw / files.FILES

    @property
    def cache_file(self) -> Path:
        return self.cache / CACHE_FILE

    @property
    def shards(self) -> list[Path]:
        """The stems of the shards; each has an .arrow file and a .quarantine.parquet beside it."""
        count = self.dataset.params.shards
        return [self.cache / f"shard-{i:04d}-of-{count:04d}" for i in range(count)]

    @property
    def listed(self) -> list[Path]:
        """What extraction reads: the list of clips, and the raw files if they are of our making."""
        return [self.manifest / "manifest.parquet", *([self.raw_index] if self.fetched else [])]

    @property
    def files(self) -> list[Path]:
        """What training and evaluation read."""
        shards = [stem.with_suffix(".arrow") for stem in self.shards]
        return [self.cache / "cache.json", self.cache / "quarantine.parquet", *shards]


@dataclass(frozen=True)
class Cell:
    """What is trained once for each of `seeds`: one method with one fusion on one dataset.

    A tuned cell has a search, and the spec of params.yaml; `choice.resolved` gives its runs the spec of the chosen
    trial, and the outcome of the search.
    """

    data: Data
    fusion: str
    method: str
    spec: RunSpec
    code: str  # hash of the code that trains it
    fp: str
    evaluation: Evaluation
    evaluation_fp: str
    extension: str | None  # what no paper gives about the method here
    requires: Mapping[str, "Cell"] = field(default_factory=dict)  # whose runs of the same seed must be there first
    seeds: tuple[int, ...] = ()
    role: str = ""  # TRIAL, TUNED, or what the study compares
    search: Search | None = field(default=None, repr=False)
    outcome: Mapping[str, Any] | None = None

    @property
    def names(self) -> dict[str, str]:
        return {"dataset": self.data.name, "recipe": self.data.recipe, "fusion": self.fusion, "method": self.method}

    @property
    def place(self) -> Path:
        """Where its numbers stand, without a fingerprint: the row of the tables."""
        return Path(self.data.name, self.fusion, self.method)

    @property
    def folder(self) -> Path:
        return Path(CELL.format(**self.names, fp=self.fp))


@dataclass(frozen=True)
class Run:
    """One seed of a cell."""

    cell: Cell
    seed: int

    @property
    def names(self) -> dict[str, Any]:
        return {**self.cell.names, "seed": self.seed}

    @property
    def label(self) -> str:
        return f"{self.cell.data.name}/{self.cell.fusion}/{self.cell.method} seed {self.seed}"

    @property
    def folder(self) -> Path:
        return self.cell.folder / f"seed{self.seed}"

    @property
    def record(self) -> Path:
        return self.folder / places.RECORD

    @property
    def evaluation(self) -> Path:
        return self.folder / f"evaluation-{self.cell.evaluation_fp}"

    @property
    def metrics(self) -> Path:
        return self.evaluation / places.METRICS

    @property
    def requires(self) -> dict[str, "Run"]:
        """The runs of the same seed that must be there first, by the method's names for them."""
        return {name: Run(cell, self.seed) for name, cell in self.cell.requires.items()}

    @property
    def first(self) -> list["Run"]:
        """All runs that must be there first: those that the method requires, and the trials of a tuned run."""
        search = self.cell.search
        return [*self.requires.values(), *([] if search is None else chain.from_iterable(search.runs))]

    @property
    def train_files(self) -> list[Path]:
        """The record, which is written last, and what it says is there."""
        return [self.record, self.folder / places.WEIGHTS, self.folder / places.HISTORY]

    @property
    def evaluate_files(self) -> list[Path]:
        return [self.metrics, self.evaluation / places.PREDICTIONS]
