"""Plug-ins are found by name without being imported, and a new one is one new file."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline_src.core.errors import UserError
from pipeline_src.core.registry import Registry, closest
from pipeline_src.datasets.base import datasets

ROOT = Path(__file__).parents[2]

DATASET = """
from pathlib import Path

from pipeline_src.datasets.base import Clip, Dataset, datasets


@datasets.register("toy")
class Toy(Dataset):
    modalities = ("audio", "visual")
    classes = ("a", "b")

    def clips(self, folder: Path):
        yield Clip("one", "a", "train", "one", {m: Path("one.mp4") for m in self.modalities})
"""
METHOD = """
from pydantic import Field

from pipeline_src.methods.base import Method, MethodParams, methods


class LouderParams(MethodParams):
    gain: float = Field(default=2.0, gt=0)


@methods.register("louder")
class Louder(Method):
    Params = LouderParams
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A function that makes a package of plug-in files and returns its registry."""
    monkeypatch.syspath_prepend(tmp_path)
    made = []

    def make(name: str, **sources: str) -> Registry:
        made.append(name)
        folder = tmp_path / name
        folder.mkdir()
        (folder / "__init__.py").touch()
        for file, source in sources.items():
            (folder / f"{file}.py").write_text(source)
        return Registry(name, "toy")

    yield make
    for module in [m for m in sys.modules if m.partition(".")[0] in made]:
        del sys.modules[module]


@pytest.fixture
def copy(tmp_path):
    """A copy of the program, and a function that runs Python code in it."""
    for name in ("pipeline_src", "workflow"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for name in ("params.yaml", "Snakefile"):
        shutil.copy(ROOT / name, tmp_path)

    def run(code: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env={"PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return tmp_path, run


def test_listing_all_names_imports_no_torch_and_no_plugin():
    code = """
import sys
from pipeline_src.datasets.base import datasets
from pipeline_src.media.base import extractors
from pipeline_src.methods.base import methods
from pipeline_src.models.base import encoders, fusions
names = [list(registry) for registry in (datasets, extractors, methods, encoders, fusions)]
assert all(names), names
assert "joint" in methods and "av_digits" in datasets and "sum" in fusions
loaded = {"torch", "av", "pipeline_src.datasets.av_digits", "pipeline_src.models.fusions.sum"} & set(sys.modules)
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_only_the_file_that_defines_a_name_is_imported(package):
    registry = package(
        "toys_lazy",
        good="import toys_lazy\n@toys_lazy.registry.register('good')\nclass Good: pass\n",
        bad="import no_such_package\n@toys_lazy.registry.register('bad')\nclass Bad: pass\n",
    )
    import toys_lazy

    toys_lazy.registry = registry
    assert list(registry) == ["bad", "good"]
    assert registry["good"].name == "good"
    with pytest.raises(ImportError, match="no_such_package"):
        registry["bad"]


def test_clash_in_the_files_names_both(package):
    one = "@toys.register('same')\nclass One: pass\n"
    registry = package("toys_clash", one=one, two=one)
    with pytest.raises(UserError, match=r"'same' is registered in toys_clash\.one and in toys_clash\.two"):
        list(registry)


def test_clash_at_the_definition_names_both():
    registry = Registry("pipeline_src.datasets", "toy")
    plugins = [type("Toy", (), {"__module__": module}) for module in ("first", "second")]
    registry.register("same")(plugins[0])
    with pytest.raises(ValueError, match="'same' is defined in first and in second"):
        registry.register("same")(plugins[1])


def test_unknown_name_gives_the_closest():
    with pytest.raises(
        UserError, match=r"registered dataset, but got 'av_digit'; did you mean 'av_digits'\? \(known: "
    ):
        datasets["av_digit"]
    assert closest("zzz", ["b", "a"]) == " (known: a, b)"
    assert closest("zzz", []) == " (known: none)"
    assert ["av_digits"] not in datasets


def test_syntax_error_names_file_and_line(package):
    registry = package("toys_syntax", good="x = 1\n", broken="x = 1\ndef (\n")
    with pytest.raises(UserError, match=r"toys_syntax/broken\.py:2: .*; fix the file"):
        list(registry)


def test_new_method_is_one_new_file(copy):
    folder, run = copy
    (folder / "pipeline_src" / "methods" / "louder.py").write_text(METHOD)
    params = (folder / "params.yaml").read_text()
    head, _, tail = params.partition("\n  methods: [")
    assert tail
    tail = tail.partition("\n")[2]
    (folder / "params.yaml").write_text(f"{head}\n  methods: [joint, louder]\n{tail}")
    out = run("""
from pipeline_src.methods.base import methods
from pipeline_src.study.plan import Plan
plan = Plan()
print("louder" in methods, plan.params.methods["louder"].gain)
print(*sorted({run.cell.fusion for run in plan.runs if run.cell.method == "louder"} - {"none"}))
print(all(plan.at("train", str(run.record)) is run for run in plan.runs))
""")
    assert out.splitlines() == ["True 2.0", "concat", "True"]


def test_new_data_set_is_one_new_file_and_its_block(copy):
    folder, run = copy
    (folder / "pipeline_src" / "datasets" / "toy.py").write_text(DATASET)
    params = (folder / "params.yaml").read_text()
    block = "toy: {recipe: av-digits-2, val_fraction: 0.2, split_seed: 0, max_quarantine: 0.0, shards: 3}"
    params = params.replace("datasets: [av_digits]", "datasets: [av_digits, toy]")
    params = params.replace("\ndatasets:\n", f"\ndatasets:\n  {block}\n")
    (folder / "params.yaml").write_text(params)
    out = run("""
from pipeline_src.datasets.base import datasets
from pipeline_src.study.plan import Plan
plan = Plan()
print("toy" in list(datasets), plan.datasets["toy"].recipe, len(plan.datasets["toy"].shards))
print(*sorted({run.cell.method for run in plan.runs if run.cell.data.name == "toy"}))
""")
    assert out.splitlines()[0] == "True av-digits-2 3"
    assert {"audio-only", "joint", "visual-only"} <= set(out.splitlines()[1].split())
