"""The plan: from params.yaml to the address of every output, and back.

An address is a readable name with the fingerprint of all that determines the output (see `fingerprint`). Snakemake,
DVC and the command line all take their paths from here, so whichever ran first, the others find its outputs.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from pipeline_src.core import files
from pipeline_src.core.errors import UserError, brief, plain
from pipeline_src.core.fingerprint import HEX, code_digest, fingerprint, members_digest
from pipeline_src.core.registry import closest
from pipeline_src.corruptions.base import corruptions
from pipeline_src.datasets.base import Dataset, DatasetParams, datasets
from pipeline_src.media.base import extractors
from pipeline_src.methods.base import Requirement, Setting, methods
from pipeline_src.models.base import encoders, fusions
from pipeline_src.observers.base import observers
from pipeline_src.reports.figures.registry import figures
from pipeline_src.study import config, tuning
from pipeline_src.study.choice import Search
from pipeline_src.study.naming import study_name
from pipeline_src.study.outputs import (
    CACHE,
    INDEX,
    MANIFEST,
    NO_FUSION,
    RAW,
    SEEN,
    STUDY,
    TRIAL,
    TUNED,
    Cell,
    Data,
    Run,
)
from pipeline_src.study.tuning import Point
from pipeline_src.study.varied import varied
from pipeline_src.tasks.base import LABELS, tasks
from pipeline_src.training.spec import RunSpec


class Plan:
    """Every output that params.yaml asks for. Jobs that read no raw files of the user need no `fresh` look at them."""

    def __init__(self, file: str | Path = "params.yaml", fresh: bool = True):
        self.file = Path(file)
        self._content = files.content if fresh else files.last_content
        self.params = config.load(file)
        self._paths: dict[str, dict[Path, Any]] = {}  # by stage, what lives at a path
        self._looks: dict[tuple, Any] = {}

    @cached_property
    def data(self) -> list[Data]:
        """Dataset by dataset, whatever runs read: one, or one for each seed if the study lets it vary."""
        study, blocks = self.params.study, self.params.datasets
        seeds = *study.seeds, *self._tuning_seeds
        if not study.vary:
            return [self._data(name, blocks[name], seeds) for name in study.datasets]
        return [
            self._data(name, varied(blocks[name], study.vary, seed), (seed,))
            for name in study.datasets
            for seed in seeds
        ]

    @cached_property
    def datasets(self) -> dict[str, Data]:
        """The study's datasets by name, each by the data that its first seed reads."""
        return {name: self.named(name)[0] for name in self.params.study.datasets}

    @cached_property
    def _stored(self) -> list[Data]:
        """What is fetched, extracted and cached: a dataset is one of these, however many schedules it has."""
        return list({data.cache: replace(data, name=self.params.stored(data.name)) for data in self.data}.values())

    def named(self, name: str) -> list[Data]:
        """The data of a dataset of the study, under whichever schedule. Raises UserError, with the closest name, if it
        has none of that name.
        """
        every = [data for data in self.data if data.name == name] or [d for d in self._stored if d.name == name]
        if not every:
            raise UserError(
                f"{self.file}: expected a dataset of the study, but got {brief(name)}"
                f"{closest(name, self.params.study.datasets)}"
            )
        return every

    def _look(self, look: Callable[[Path, Path], Any], folder: Path, seen: Path) -> Any:
        """What is found in a folder, which is looked into once."""
        key = look, folder, seen
        if key not in self._looks:
            self._looks[key] = look(folder, seen)
        return self._looks[key]

    def _data(self, name: str, params: DatasetParams, seeds: tuple[int, ...]) -> Data:
        dataset, stored = datasets[params.kind](params), self.params.stored(name)
        recipe = self.params.recipes[params.recipe]
        recipe = {m: extractors[recipe[m].kind](recipe[m]) for m in dataset.modalities}
        code, read = code_digest([datasets.module(params.kind)]), [extractors.module(x.name) for x in recipe.values()]
        labels = members_digest(tasks.module(dataset.task), LABELS)  # what manifest and cache use of the task
        # The user's folder counts by its content, wherever it is; a study can be planned without the data, under an
        # address of its own, and the first job says what is missing.
        folder, source, seen = dataset.folder, None, None
        if folder is not None:
            # By folder, as studies may give one name to several.
            seen = Path(SEEN.format(name=f"{stored}-{fingerprint(folder=str(folder))}"))
            source = self._look(self._content, folder, seen) if folder.is_dir() else "absent"
        fetched = folder is None or type(dataset).fetch is not Dataset.fetch
        fp = fingerprint(stage="fetch", code=code, params=params.values("fetch"), source=source)
        raw = Path(RAW.format(dataset=stored, fp=fp)) if fetched else folder
        seen = Path(SEEN.format(name=raw.name)) if fetched else seen
        state = self._look(files.changes, raw, seen) if fetched and (raw / files.FILES).exists() else {}
        manifest_fp = fingerprint(
            stage="manifest",
            code=[code_digest(["pipeline_src.datasets.manifest", *read]), labels],
            params=[params.values("manifest"), {m: x.params.values("manifest") for m, x in recipe.items()}],
            raw=[fp, state],
        )
        cache_fp = fingerprint(
            stage="cache",
            code=[code_digest(["pipeline_src.features.build", *read]), labels],
            params={m: x.params.values("extract") for m, x in recipe.items()},
            manifest=manifest_fp,
        )
        cut = fingerprint(
            content=cache_fp, **params.values("extract")
        )  # another cut has another address, but trains the same
        return Data(
            name=name,
            recipe=params.recipe,
            dataset=dataset,
            extractors=recipe,
            raw=raw,
            fetched=fetched,
            seen=seen,
            manifest=Path(MANIFEST.format(dataset=stored, fp=manifest_fp)),
            cache=Path(CACHE.format(dataset=stored, recipe=params.recipe, fp=cut)),
            cache_fp=cache_fp,
            seeds=seeds,
            vary=tuple(self.params.study.vary),
        )

    @property
    def _tuning_seeds(self) -> list[int]:
        return self.params.tuning.seeds if self.params.tuning else []

    @cached_property
    def cells(self) -> list[Cell]:
        """Unimodal baselines first, then every fusion with every method, dataset by dataset; then the same tuned, each
        after its trials.

        A cell that another requires is one of them, before it, even if the study does not list it.
        """
        cells = [cell for configuration in self._configurations() for cell in self._seeded(*configuration)]
        if self.params.tuning is not None:
            cells += [cell for configuration in self._configurations() for cell in self._tuned(*configuration)]
        every = [part for cell in cells for part in (*cell.requires.values(), cell)]
        return list({(cell.folder, cell.seeds): cell for cell in every}.values())

    def _configurations(self) -> Iterator[tuple[str, str, str, str, tuple[str, ...]]]:
        """Dataset, fusion, label, method and modalities of all that the study lists."""
        study = self.params.study
        for name in study.datasets:
            modalities = tuple(self.datasets[name].extractors)
            if study.unimodal:
                yield from ((name, NO_FUSION, f"{m}-only", "joint", (m,)) for m in modalities)
            yield from ((name, fusion, of, of, modalities) for fusion in study.fusions for of in study.methods)

    def _seeded(self, name: str, *configuration: Any, role: str = "", **more: Any) -> list[Cell]:
        """The cells of a configuration: one, or one for each data that its seeds read."""
        cells = [self._cell(data, *configuration, role=role, **more) for data in self.named(name)]
        return [cell for cell in cells if cell.seeds]

    def _tuned(self, name: str, fusion: str, label: str, method: str, modalities: tuple[str, ...]) -> list[Cell]:
        """The cells of a configuration's trials, and the tuned ones."""
        assert self.params.tuning is not None
        points = self.params.tuning.points(method, fusion == NO_FUSION)
        trials = [self._seeded(name, fusion, label, method, modalities, role=TRIAL, point=point) for point in points]
        runs = tuple(tuple(Run(cell, seed) for cell in cells for seed in cell.seeds) for cells in trials)
        search = Search(tuple(points), runs)
        tuned = self._seeded(name, fusion, f"{label}-{TUNED}", method, modalities, role=TUNED, search=search)
        return [*chain.from_iterable(trials), *tuned]

    @cached_property
    def rows(self) -> list[Cell]:
        """What tables have a row of: cells that differ in their data alone are one row, which the first stands for.
        Trials have none; of tuned cells, see `reports.tuning`.
        """
        rows: dict[Path, Cell] = {}
        for cell in self.cells:
            if not cell.role:
                rows.setdefault(cell.place, cell)
        return list(rows.values())

    @cached_property
    def _weights(self) -> dict[str, str]:
        """Hashes of the files that encoders start from, by modality. A file counts by its content, wherever it is."""
        hashes = {m: encoder.weights_sha256() for m, encoder in self.params.model.encoders.items()}
        return {m: value for m, value in hashes.items() if value is not None}

    def _cell(
        self,
        data: Data,
        fusion: str,
        label: str,
        method: str,
        modalities: tuple[str, ...],
        role: str = "",
        point: Point | None = None,
        search: Search | None = None,
    ) -> Cell:
        """A cell, with a trial's values (`point`) in place of those of params.yaml, or as a `search` will choose."""
        params, shown = self.params, fusion
        fusion = "concat" if fusion == NO_FUSION else fusion
        schedule, own = tuning.split(point or {})
        training, kind = params.training_of(data.name), params.kinds[method]
        setting = Setting(modalities, fusion, training.epochs, data.dataset.task, params.model.frozen(modalities))
        requires = {
            name: self._baseline(data, shown, method, need, role)
            for name, need in methods[kind].requires(params.methods[method], setting).items()
        }
        # Trials, and tuned runs, which have a trial's spec, are not observed.
        asked = {} if role else params.observers
        observed = {name: one for name, one in asked.items() if observers[name].refuses(one, setting) is None}
        spec = RunSpec(
            modalities=modalities,
            encoders={m: params.model.encoders[m] for m in modalities},
            fusion=fusion,
            fusion_params=params.model.fusion,
            init=params.model.init,
            method=kind,
            params=tuning.changed(params.methods[method], own),
            training=tuning.changed(training, schedule),
            augmentation={m: params.training.augmentation[m] for m in modalities},
            task=data.dataset.task,
            segments=data.dataset.segments,
            weights_sha256={m: value for m, value in self._weights.items() if m in modalities},
            requires={name: cell.fp for name, cell in requires.items()},
            observers=observed,
        )
        network = [encoders.module(params.model.encoders[m].kind) for m in modalities] + [fusions.module(fusion)]
        network.append(tasks.module(data.dataset.task))
        chooser = [] if search is None else ["pipeline_src.study.choice"]
        spoiling = {name for m in modalities for name in params.training.augmentation[m].corruption}
        more = [*map(observers.module, observed), *map(corruptions.module, sorted(spoiling))]
        code = code_digest(["pipeline_src.training.run", methods.module(kind), *network, *more, *chooser])
        what = {"spec": spec.address()} if search is None else {"search": search.address()}
        fp = fingerprint(stage="train", code=code, cache=data.cache_fp, **what)
        evaluation_fp = fingerprint(
            stage="evaluate",
            code=code_digest(
                [
                    "pipeline_src.evaluation.run",
                    methods.module(kind),
                    *network,
                    *map(corruptions.module, params.evaluation.corruptions),
                ]
            ),
            params=params.evaluation.values("evaluate"),
            run=fp,
        )
        wanted = self._tuning_seeds if role == TRIAL else params.study.seeds
        return Cell(
            data=data,
            fusion=shown,
            method=label,
            spec=spec,
            code=code,
            fp=fp,
            evaluation=params.evaluation,
            evaluation_fp=evaluation_fp,
            extension=methods[kind].extension(params.methods[method], setting),
            requires=requires,
            seeds=tuple(seed for seed in data.seeds if seed in wanted),
            role=role,
            search=search,
        )

    def _baseline(self, data: Data, fusion: str, method: str, need: Requirement, role: str) -> Cell:
        """The cell that a method requires: of one modality alone, or joint training with the same fusion. It is never
        tuned; a trial's has the seeds of trials.
        """
        role = TRIAL if role == TRIAL else ""
        if need.modality is None:
            return self._cell(data, fusion, "joint", "joint", tuple(data.extractors), role)
        if need.modality not in data.extractors:
            what = f"expected a modality of {data.name!r}, but got {need.modality!r}"
            raise UserError(f"methods.{method}.requires: {what}{closest(need.modality, data.extractors)}")
        return self._cell(data, NO_FUSION, f"{need.modality}-only", "joint", (need.modality,), role)

    @cached_property
    def runs(self) -> list[Run]:
        return [Run(cell, seed) for cell in self.cells for seed in cell.seeds]

    def inputs(self, stage: str, output: str) -> list[Path]:
        """The files that the job of an output reads; none if the plan has no such output, which its job will say."""
        match stage, self._by_path(stage).get(Path(output)):
            case "manifest", Data() as data:
                return [data.raw_index] if data.fetched else []
            case "extract", (data, _):
                return data.listed
            case "cache", Data() as data:
                return [*(stem.with_suffix(".arrow") for stem in data.shards), data.manifest / "manifest.parquet"]
            case "evaluate", Run() as run:  # and "train": the job of metrics.json does both
                return [*run.cell.data.files, *(other.metrics for other in run.first)]
        return []

    @property
    def results(self) -> Path:
        """Where tables and report go: a folder of this params file alone."""
        return Path(STUDY.format(study=study_name(self.file)))

    @cached_property
    def index(self) -> Path:
        """The one output that stands for the whole study: the list of all addresses, written with the tables."""
        fp = fingerprint(
            stage="aggregate",
            code=code_digest(["pipeline_src.reports.aggregate", *map(figures.module, figures)]),
            params=self.params.reporting.values("aggregate"),
            quarantine=[data.dataset.params.values("aggregate") for data in self.datasets.values()],
            runs=[[run.names, run.cell.fp, run.cell.evaluation_fp] for run in self.runs],
            words=[cell.extension for cell in self.cells],
            reproduces=self.params.reproduces,
            grids=[[grid.name, grid.axes] for grid in self.params.studied_grids.values()],
            quantities={
                name: [vars(q) for q in methods[self.params.kinds[name]].quantities]
                for name in self.params.study.methods
            },
            observed={name: [vars(q) for q in observers[name].quantities] for name in self.params.observers},
        )
        return self.results / INDEX.format(fp=fp)

    def at(self, stage: str, target: str) -> Any:
        """What lives at a path: a Data (fetch, manifest, cache), a (Data, shard index) (extract), or a Run.

        Raises UserError if params.yaml, the code or the raw data have moved on since the path was planned.
        """
        path = Path(target)
        if path in self._by_path(stage):
            return self._by_path(stage)[path]
        # The same names under another fingerprint: what the caller most likely means.
        similar = [str(place) for place, _ in self.places(stage) if _unaddressed(place) == _unaddressed(path)]
        raise UserError(
            f"{plain(target, 300)}: not what {self.file} asks of `{stage}` now"
            + (f" (that would be {similar[0]})" if similar else "")
            + "; parameters, code or raw data changed since this job was planned: run snakemake again"
        )

    def all(self, stage: str) -> list[Any]:
        """Everything that a stage makes."""
        return [what for _, what in self.places(stage)]

    def _by_path(self, stage: str) -> dict[Path, Any]:
        if stage not in self._paths:
            self._paths[stage] = dict(self.places(stage))
        return self._paths[stage]

    def places(self, stage: str) -> Iterator[tuple[Path, Any]]:
        """The path of every output of a stage, and what lives there."""
        match stage:
            case "fetch":
                raw = {data.raw_index: data for data in self._stored if data.fetched}  # several splits may share one
                yield from raw.items()
            case "manifest":
                yield from ((data.manifest / "manifest.parquet", data) for data in self._stored)
            case "extract":
                for data in self._stored:
                    yield from ((stem.with_suffix(".arrow"), (data, i)) for i, stem in enumerate(data.shards))
            case "cache":
                yield from ((data.cache_file, data) for data in self._stored)
            case "train":
                yield from ((run.record, run) for run in self.runs)
            case "evaluate":
                yield from ((run.metrics, run) for run in self.runs)
            case "aggregate":
                yield self.index, self

    def jobs(self, stage: str) -> list[list[Path]]:
        """Every file that a stage makes, in a list per job; of the tables, the index alone stands for all."""
        match stage:
            case "manifest" | "cache":
                return [[path, path.with_name("quarantine.parquet")] for path, _ in self.places(stage)]
            case "extract":
                return [[path, path.with_suffix(".quarantine.parquet")] for path, _ in self.places(stage)]
            case "train" | "evaluate":
                return [getattr(run, f"{stage}_files") for run in self.runs]
        return [[path] for path, _ in self.places(stage)]


def _unaddressed(path: Path) -> str:
    return re.sub(rf"-{HEX}\b", "", str(path))
