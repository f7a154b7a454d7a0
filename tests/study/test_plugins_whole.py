"""A study that consists of the user's own plug-ins, one of each kind, from fetch to the report."""

import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline_src.core import fingerprint, plugins
from pipeline_src.core.stages import STAGES
from pipeline_src.datasets.base import datasets
from pipeline_src.features.read import Cache
from pipeline_src.media.base import extractors
from pipeline_src.methods.base import methods
from pipeline_src.models.base import encoders, fusions
from pipeline_src.reports.figures.base import figures
from pipeline_src.study.plan import Plan
from pipeline_src.tasks.base import tasks
from tests.attacks.judge import STUDY, call

KINDS = {
    "dots": datasets,
    "scaled": extractors,
    "flat": encoders,
    "summed": fusions,
    "softened": tasks,
    "quieter": methods,
    "dotted": figures,
}
FILES = {
    "dots.py": '''"""Points around a mean per class, a file per sample and modality."""

from pathlib import Path

import numpy as np

from pipeline_src.datasets.base import Clip, Dataset, DatasetParams, datasets


@datasets.register("dots")
class Dots(Dataset):
    Params = DatasetParams
    modalities = ("left", "right")
    classes = ("no", "yes")
    task = "softened"

    def fetch(self, folder):
        rng = np.random.default_rng(0)
        for i in range(60):
            for m in self.modalities:
                (folder / m).mkdir(exist_ok=True)
                np.save(folder / m / f"{i}.npy", rng.normal(2 * (i % 2) - 1, 0.5, 3))

    def clips(self, folder):
        for i in range(60):
            split = "test" if i >= 40 else "train"
            yield Clip(f"s{i}", self.classes[i % 2], split, f"s{i}", {m: Path(m, f"{i}.npy") for m in self.modalities})
''',
    "scaled.py": '''"""Three numbers, times a factor, as one step of a sequence."""

import numpy as np
from pydantic import Field

from pipeline_src.media.base import Extractor, ExtractorParams, extractors


class ScaledParams(ExtractorParams):
    factor: float = Field(gt=0)


@extractors.register("scaled")
class Scaled(Extractor):
    Params = ScaledParams
    layout = "sequence"
    dtype = np.dtype(np.float32)
    shape = (1, 3)

    def probe(self, file):
        return 0.0

    def extract(self, file):
        return (self.params.factor * np.load(file)).astype(np.float32)[None]
''',
    "flat.py": '''"""One linear layer."""

from typing import Literal

from pydantic import Field

from pipeline_src.models.base import Encoder, EncoderParams, encoders


class FlatParams(EncoderParams):
    kind: Literal["flat"] = "flat"
    width: int = Field(ge=1)


@encoders.register("flat")
class Flat(Encoder):
    Params = FlatParams
    layouts = ("sequence",)

    @property
    def features(self):
        return self.params.width

    def build(self):
        from torch import nn

        return nn.Sequential(nn.Flatten(1), nn.Linear(self.shape[0] * self.shape[1], self.params.width), nn.Tanh())
''',
    "summed.py": '''"""The sum of unimodal logits, under another name."""

from pipeline_src.models.base import fusions
from pipeline_src.models.fusions.sum import Sum


@fusions.register("summed", additive=True, linear=True)
class Summed(Sum):
    pass
''',
    "softened.py": '''"""Classification with softened labels, and a metric of its own."""

import torch

from pipeline_src.tasks.base import Metric, tasks
from pipeline_src.tasks.classification import Classification


@tasks.register("softened")
class Softened(Classification):
    metrics = (*Classification.metrics, Metric("yeses", "yes", "%", "The fraction of samples that are called yes."))

    def losses(self, logits, target):
        return torch.nn.functional.cross_entropy(logits, target, reduction="none", label_smoothing=0.1)

    def loss(self, logits, target):
        return self.losses(logits, target).mean()

    def evaluate(self, logits, target, whole):
        return super().evaluate(logits, target, whole) | {"yeses": float(logits.argmax(1).mean())}
''',
    "quieter.py": '''"""Joint training with half the loss."""

from pipeline_src.methods.base import Method, methods


@methods.register("quieter")
class Quieter(Method):
    def loss(self, ctx, output, batch):
        return {name: 0.5 * value for name, value in super().loss(ctx, output, batch).items()}
''',
    "dotted.py": '''"""A figure of one point."""

from pipeline_src.reports.figures.base import Drawing, figures
from pipeline_src.reports.figures.style import panels, styled


@figures.register("dotted", place="views", order=1)
def dotted(results):
    with styled():
        drawn, axes = panels(1)
        axes[0].plot([0], [len(results.seeds)], marker="o")
    yield Drawing(f"dotted-{results.name}", "Seeds as a dot", "A figure of the user's own.", drawn)
''',
}


@pytest.fixture
def study(tmp_path, monkeypatch):
    """The folder `mine` with FILES and p.yaml, in the working directory; forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plugins, "FOLDERS", {})
    Path("mine").mkdir()
    for name, text in FILES.items():
        Path("mine", name).write_text(text)
    blocks = {
        "datasets": "digits: {kind: dots, recipe: small-1, val_fraction: 0.25, split_seed: 0, max_quarantine: 0.0, "
        "shards: 1}",
        "recipes": "small-1: {left: {kind: scaled, factor: 2.0}, right: {kind: scaled, factor: 0.5}}",
        "model": "encoders: {left: {kind: flat, width: 4}, right: {kind: flat, width: 4}}",
    }
    text = STUDY.replace("[concat]", "[summed]").replace("[joint]", "[joint, quieter]")
    for section, block in blocks.items():
        text = re.sub(rf"^{section}:\n(?:  .*\n)+", f"{section}:\n  {block}\n", text, flags=re.MULTILINE)
    text = text.replace("audio: {roll: 8}", "left: {}").replace(
        "visual: {crop_scale: [0.7, 1.0], crop_ratio: [0.9, 1.1], flip: 0.0}", "right: {}"
    )
    Path("p.yaml").write_text(text.replace("epochs: 2", "epochs: 20") + "plugins: [mine]\n")
    fingerprint._module.cache_clear()
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith(plugins.PREFIX)]:
        del sys.modules[name]
    for name, registry in KINDS.items():
        registry._loaded.pop(name, None)
    fingerprint._module.cache_clear()


def test_one_of_each_kind_from_fetch_to_the_report(study):
    plan = Plan("p.yaml")
    (data,) = plan.data
    runs = [run.metrics for run in plan.runs]
    for stage, *paths in (["fetch"], ["manifest"], ["extract"], ["cache"], ["train", *runs], ["aggregate"]):
        for targets in [[path] for path in paths] or [[]]:
            done = call(stage, "--params", "p.yaml", *targets)
            assert done.status == 0, (stage, done.err)
    cache = Cache(data.cache)
    raw = np.load(next(data.raw.glob("left/0.npy")))
    rows = cache.clips.id.tolist()
    assert np.allclose(cache.gather("left", np.array([rows.index("s0")]))[0, 0], 2 * raw), "the extractor's"
    metrics = pd.read_parquet("results/studies/p/metrics.parquet")
    test = metrics[(metrics.split == "test") & (metrics.modality == "fused")]
    found = test.set_index(["method", "metric"]).value
    for method in ("joint", "quieter"):
        assert found[method, "accuracy"] == 1.0, "dataset, extractor, encoder and fusion work together"
        assert found[method, "yeses"] == 0.5, "the task's own metric"
        assert found[method, "nll"] > 0.005, "softened labels"
    report = Path("results/studies/p/report.html").read_text()
    assert "A figure of the user's own." in report or "A figure of the user&#39;s own." in report
    assert list(Path("results/studies/p/figures").glob("dotted-*.svg"))


MOVES = {  # stages whose addresses move with the code of a plug-in; all that follow them move, too
    "dots.py": ("    task =", "    edited = 1\n    task =", "fetch"),
    "scaled.py": ("self.params.factor * np.load(file)", "np.load(file) * self.params.factor", "manifest"),
    "flat.py": ("nn.Tanh()", "nn.ReLU()", "train"),
    "summed.py": ("pass", "edited = 1", "train"),
    "softened.py": ("0.1", "0.2", "train"),
    "quieter.py": ("0.5", "0.25", "train"),
    "dotted.py": ("[0]", "[1]", "aggregate"),
}


@pytest.mark.parametrize("file", MOVES)
def test_the_code_of_each_moves_the_addresses_that_it_determines(study, file):
    def addresses() -> dict[str, set[str]]:
        fingerprint._module.cache_clear()
        plan = Plan("p.yaml")
        return {stage: {str(path) for path, _ in plan.places(stage)} for stage in STAGES}

    before = addresses()
    old, new, first = MOVES[file]
    assert old in FILES[file]
    Path("mine", file).write_text(FILES[file].replace(old, new))
    after = addresses()
    moved = {stage for stage in STAGES if before[stage] != after[stage]}
    assert moved == set(STAGES[STAGES.index(first) :])
    if file == "quieter.py":  # the other method's runs stay
        assert len(before["train"] & after["train"]) == 1
