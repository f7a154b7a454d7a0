"""Folders of the user's own: plug-ins are planned, trained and count in addresses; a mistake is one line."""

import sys
from pathlib import Path

import pytest
import torch
import yaml

from pipeline_src.core import fingerprint, plugins
from pipeline_src.core.errors import UserError
from pipeline_src.core.stages import STAGES
from pipeline_src.datasets.base import datasets
from pipeline_src.methods.base import methods
from pipeline_src.models.base import fusions
from pipeline_src.study.plan import Plan
from pipeline_src.study.yaml import Loader
from pipeline_src.training.loader import Loader as Batches
from pipeline_src.training.loop import Trainer
from tests.synthetic import SPLITS, SyntheticCache, spec

SHIPPED = Path(__file__).parents[2] / "params.yaml"
FILES = {
    "numbers.py": "FACTOR = 0.5\n",
    "halved.py": '''"""Joint training with half the loss."""

from pydantic import Field

from pipeline_src.methods.base import Method, MethodParams, methods

from .numbers import FACTOR


class HalvedParams(MethodParams):
    power: int = Field(default=1, ge=1)


@methods.register("halved")
class Halved(Method):
    Params = HalvedParams

    def loss(self, ctx, output, batch):
        return {name: FACTOR**self.params.power * value for name, value in super().loss(ctx, output, batch).items()}
''',
    "twice.py": '''"""Concatenation under another name."""

from pipeline_src.models.base import fusions
from pipeline_src.models.fusions.concat import Concat


@fusions.register("twice")
class Twice(Concat):
    pass
''',
    "pairs.py": '''"""Two files per sample."""

from pathlib import Path

from pipeline_src.datasets.base import Clip, Dataset, FolderParams, datasets


@datasets.register("pairs")
class Pairs(Dataset):
    Params = FolderParams
    modalities = ("audio", "visual")
    classes = ("a", "b")

    def clips(self, folder):
        for name in ("one", "two"):
            yield Clip(name, "a", "train", name, {m: Path(m, name) for m in self.modalities})
''',
}


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The folder `mine` with FILES, in the working directory; forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plugins, "FOLDERS", {})
    folder = tmp_path / "mine"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text)
    fingerprint._module.cache_clear()
    yield folder
    for name in [name for name in sys.modules if name.startswith(plugins.PREFIX)]:
        del sys.modules[name]
    for registry, name in ((methods, "halved"), (fusions, "twice"), (datasets, "pairs")):
        registry._loaded.pop(name, None)
    fingerprint._module.cache_clear()


def plan(folders=("mine",), **study) -> Plan:
    values = yaml.load(SHIPPED.read_text(), Loader)
    block = {"kind": "pairs", "recipe": "av-digits-2", "val_fraction": 0.2, "split_seed": 0, "max_quarantine": 0.01}
    values["datasets"]["pairs"] = {**block, "shards": 1, "folder": "media"}
    values["study"] |= {"methods": ["joint", "halved"], "fusions": ["twice"], "unimodal": False, "seeds": [0], **study}
    values["plugins"] = list(folders)
    Path("params.yaml").write_text(yaml.safe_dump(values))
    return Plan()


def addresses(plan: Plan) -> dict[str, set[str]]:
    fingerprint._module.cache_clear()
    return {stage: {str(path) for path, _ in plan.places(stage)} for stage in STAGES}


def test_method_fusion_and_dataset_are_planned(mine):
    study = plan(datasets=["pairs"])
    assert [(cell.data.name, cell.fusion, cell.method) for cell in study.cells] == [
        ("pairs", "twice", "joint"),
        ("pairs", "twice", "halved"),
    ]
    assert study.params.methods["halved"].power == 1
    assert methods.module("halved") == "plugins_mine.halved" and "pairs" in list(datasets)


def test_their_code_counts_like_ours(mine):
    before = addresses(plan())
    (mine / "halved.py").write_text(FILES["halved.py"].replace("Joint training", "Training"))
    assert addresses(plan()) == before
    (mine / "numbers.py").write_text("FACTOR = 0.25\n")
    after = addresses(plan())
    kept = before["train"] & after["train"]
    assert {Path(path).parts[5].rpartition("-")[0] for path in kept} == {"joint"}
    assert before["cache"] == after["cache"]
    (mine / "twice.py").write_text(FILES["twice.py"].replace("pass", "edited = 1"))
    assert not addresses(plan())["train"] & before["train"]


def test_the_folder_may_be_elsewhere_and_the_addresses_stay(mine, tmp_path):
    before = addresses(plan())
    (tmp_path / "other").mkdir()
    mine.rename(tmp_path / "other" / "mine")
    plugins.FOLDERS.clear()
    assert addresses(plan(["other/mine"])) == before


def test_they_are_trained(mine):
    plugins.add("mine")
    cache = SyntheticCache(2)
    loaders = {s: Batches(cache, s, list(cache.modalities), torch.device("cpu"), resident=True) for s in SPLITS}

    def first_loss(method: str, **params) -> float:
        what = spec(cache, "twice", method, params, lr=1e-6)
        return Trainer(what, 0, cache, loaders, torch.device("cpu")).epoch(0)["loss"]

    assert first_loss("halved", power=2) == pytest.approx(first_loss("joint") / 4, rel=1e-3)


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("none", r"plugins\.0: expected a folder with Python files, but got \"none\""),
        ("empty", r"plugins\.0: expected a folder with Python files, but got \"empty\""),
        ("a-b", r"plugins\.0: expected a folder whose name consists of letters, digits and '_', but got \"a-b\""),
    ],
)
def test_a_folder_that_cannot_be_used_is_one_line(mine, tmp_path, folder, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a-b").mkdir()
    (tmp_path / "a-b" / "x.py").touch()
    with pytest.raises(UserError, match=rf"params\.yaml:\d+: {message}") as raised:
        plan([folder], methods=["joint"], fusions=["sum"])
    assert not [line for line in str(raised.value).splitlines() if "plugins" not in line and "pairs" not in line]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda text: text.replace("class Halved(", "class Halved)"), r"mine/halved\.py:15: .*; fix the file"),
        (
            lambda text: text.replace("numbers import FACTOR", "numbers import FACTOUR"),
            r"mine/halved\.py:7: ImportError",
        ),
        (lambda text: text + "\n1 / 0\n", r"mine/halved\.py:21: ZeroDivisionError: division by zero; fix the file"),
    ],
    ids=["syntax", "import", "error"],
)
def test_an_error_in_a_file_names_file_and_line(mine, edit, message):
    (mine / "halved.py").write_text(edit(FILES["halved.py"]))
    with pytest.raises(UserError, match=message):
        plan()


def test_a_name_that_is_taken(mine):
    (mine / "twice.py").write_text(FILES["twice.py"].replace('"twice"', '"concat"'))
    with pytest.raises(UserError, match=r"'concat' is registered in .*fusions\.concat and in plugins_mine\.twice"):
        plan()
