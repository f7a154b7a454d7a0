"""Every experiment trains one epoch and is evaluated, on small files in the published layout of its dataset.

The experiments are as they are shipped, with fewer and smaller samples, narrow networks, one seed and one epoch. Those
of a dataset share the files, and what is the same run in two of them is trained once.
"""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from pipeline_src.core import files
from pipeline_src.datasets.fetch import fetch
from pipeline_src.datasets.manifest import make
from pipeline_src.evaluation.run import evaluate
from pipeline_src.features.build import extract, pack
from pipeline_src.methods.base import methods
from pipeline_src.reports.aggregate import aggregate
from pipeline_src.reports.declared import primary
from pipeline_src.reports.papers import items
from pipeline_src.study import config, extends
from pipeline_src.study.plan import Plan
from pipeline_src.training.run import train
from tests.datasets import published
from tests.test_experiments import TABLES

# What a small sample has of what its extractor gives
SMALLER = {
    "frames": {"size": 16},
    "image": {"size": 16},
    "flow": {"count": 1, "size": 16},
    "log_psd": {"samples": 8000},
    "log_stft": {"seconds": 0.5},
    "fbank": {"frames": 48},
    "tokens": {"length": 8, "buckets": 100},
}
NARROW = {
    "resnet": {"width": 4, "depth": [1, 1, 1, 1]},
    "convnet": {"width": 4, "features": 8},
    "transformer": {"width": 8, "layers": 1, "heads": 2, "feedforward": 8},
    "embedding": {"width": 8},
    "recurrent": {"width": 4},
}
CLASSES = 6  # whose files are there; the lists have all
EARLY, LAST = {"first_epoch", "warmup_epochs"}, "last_epoch"  # parameters of when a method is in force
LATER = {"relearning": {"every": 1, "times": 1}}  # acts after an epoch of several only
EPOCHS = 3  # with a method of `LATER`
BY_DATASET: dict[str, list[Path]] = {}
for file in TABLES:
    for name in extends.read(file)[0]["study"]["datasets"]:
        BY_DATASET.setdefault(name, []).append(file)


def cremad(folder: Path) -> dict:
    """The published copy, with the lists of Diagnosing & Re-learning, which have a val of their own."""
    block = published.cremad(folder)
    lines = (folder / "lists/train.csv").read_text().splitlines()
    (folder / "lists/relearning_train.csv").write_text("\n".join(lines[12:]) + "\n")
    (folder / "lists/relearning_val.csv").write_text("\n".join(lines[:12]) + "\n")
    return block


def few(kind: str, *parents: str) -> Callable[[Path], dict]:
    """The published copy of a dataset with folders by class, of which most are gone."""

    def made(folder: Path) -> dict:
        block = published.MADE[kind](folder)
        for parent in parents:
            for path in sorted((folder / parent).iterdir())[CLASSES:]:
                shutil.rmtree(path)
        return block

    return made


MADE = {
    "cremad": cremad,
    "kinetics_sounds": few("kinetics_sounds", "videos/train", "videos/val"),
    "vggsound": lambda folder: published.vggsound(folder, 3 * CLASSES),
    "ucf101": few("ucf101", "UCF-101"),
    "food101": few("food101", "images/train", "images/test"),
}


def small(file: Path, kind: str, folder: Path, block: dict) -> list[dict]:
    """The values of an experiment made small; apart those with the methods that need several epochs."""
    values = extends.read(file)[0]
    values.pop("extends", None)
    recipe = config.recipe(values["datasets"][kind]["recipe"])
    values["recipes"] = {
        "small": {m: given(params) | SMALLER.get(params.kind, {}) for m, params in recipe.modalities.items()}
    }
    if kind == "ave_features":
        values["recipes"] = {"small": published.SECONDS}
    if kind.startswith("cmu_"):
        values["recipes"] = {"small": published.FEATURES}
    values["datasets"][kind] |= {
        **{"folder": str(folder), "recipe": "small", "shards": 1, "max_quarantine": 0.99, "val_fraction": 0.25},
        **{key: value for key, value in block.items() if key != "split"},
    }
    for m, encoder in values["model"]["encoders"].items():
        values["model"]["encoders"][m] = encoder | NARROW[encoder["kind"]]
        if encoder["kind"] == "embedding":
            values["model"]["encoders"][m]["words"] = 101
    values["study"]["seeds"] = [0]
    values["training"] |= {"epochs": 1, "batch_size": 32, "device": "cpu", "precision": "fp32"}
    values["evaluation"]["probe_c"] = 0.01  # soon converges
    values["tracking"] = {"enabled": False}
    values["methods"] = {
        name: from_the_start(name, values.get("methods", {}).get(name) or {}) for name in values["study"]["methods"]
    }
    for schedule in values.get("schedules", {}).values():
        schedule.pop("epochs", None)
    for observer in values.get("observers", {}).values():
        observer["every"] = 1
    later = [name for name in values["study"]["methods"] if name in LATER]
    parts = [
        {**values, "study": values["study"] | {"methods": [m for m in values["study"]["methods"] if m not in later]}}
    ]
    if later:
        methods = values["methods"] | {name: values["methods"][name] | LATER[name] for name in later}
        study = values["study"] | {"methods": later, "unimodal": False}
        parts.append(
            {**values, "study": study, "methods": methods, "training": values["training"] | {"epochs": EPOCHS}}
        )
    return parts


def from_the_start(name: str, block: dict) -> dict:
    """A method's parameters, in force from the first epoch to the last."""
    fields = methods[block.get("kind", name)].Params.model_fields
    early = dict.fromkeys(EARLY & set(fields), 0)
    inner = {
        key: {one: 0 if one in EARLY else value for one, value in of.items() if one != LAST}
        for key, of in block.items()
        if isinstance(of, dict)
    }
    kept = {key: value for key, value in block.items() if key != LAST and value is not None}  # null: the default
    return kept | inner | early


def given(params) -> dict:
    """The keys of a block as its file has them."""
    return params.model_dump(include=params.model_fields_set)


@pytest.mark.parametrize("kind", BY_DATASET)
def test_every_experiment_runs_on_files_in_the_published_layout(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw").mkdir()
    threads = torch.get_num_threads()
    block = MADE.get(kind, published.MADE[kind])(tmp_path / "raw")
    for file in BY_DATASET[kind]:
        for values in small(file, kind, tmp_path / "raw", block):
            (tmp_path / "experiments").mkdir(exist_ok=True)
            (tmp_path / f"experiments/{file.name}").write_text(yaml.safe_dump(values))
            run(Plan(f"experiments/{file.name}"))
    torch.set_num_threads(threads)
    if kind == "cg_mnist":
        plan = Plan("experiments/pmr-2023-cgmnist.yaml")
        aggregate(plan)
        report = (plan.results / "report.html").read_text()
        title = "PMR: Fan et al., CVPR 2023 (arXiv:2211.07089), Table 1"
        assert title in report and title in (plan.results / "tables/accuracy.md").read_text()


def run(plan: Plan) -> None:
    """All stages of a plan, where they have not been made for another one, and what comes out."""
    for data in plan.datasets.values():
        if data.cache_file.exists():
            continue
        if data.fetched and not data.raw_index.exists():
            fetch(data)
    plan = Plan(plan.file)
    for data in plan.datasets.values():
        if not data.cache_file.exists():
            make(data)
            for index in range(len(data.shards)):
                extract(data, index)
            pack(data)
    for one in plan.runs:
        if not one.record.exists():
            train([one], plan.params)
    for one in plan.runs:
        logged = [json.loads(line) for line in (one.folder / "metrics.jsonl").read_text().splitlines()]
        numbers = [value for row in logged for value in row.values() if isinstance(value, float)]
        assert numbers and all(map(math.isfinite, numbers)), one.label
    last = plan.runs[-1]  # one of each experiment, as evaluation takes longer here than training
    evaluate([last], plan.params)
    rows = files.read_json(last.metrics)["metrics"]
    wanted = "fused", primary(last.cell.spec.task).score
    found = {row["split"]: row["value"] for row in rows if (row["modality"], row["metric"]) == wanted}
    assert set(found) == {"val", "test"} and all(0 <= value <= 1 for value in found.values()), last.label
    assert plan.params.reproduces and set(plan.params.reproduces) <= set(items())
