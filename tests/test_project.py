"""What must stay in step: pins and environments, the schema, the README's picture, and the first command's checks."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from pipeline_src.core.stages import STAGES
from pipeline_src.study import versioning
from pipeline_src.study.plan import Plan
from pipeline_src.warm import serve

ROOT = Path(__file__).parents[1]
LOCK = dict(re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", (ROOT / "envs/requirements.txt").read_text(), re.MULTILINE))


def test_the_conda_environment_has_the_pins_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {re.match(r"[a-z0-9-]+", line).group() for line in project["dependencies"]}
    environment = yaml.safe_load((ROOT / "envs/counterpoise.yaml").read_text())["dependencies"]
    pinned = dict(line.split("==") for line in environment[-1]["pip"])
    assert set(pinned) == needed
    assert {name: LOCK[name] for name in needed} == pinned


@pytest.mark.parametrize(("name", "least"), [("requirements", 50), ("pretrained", 10), ("hdf5", 0)])
def test_every_pin_has_hashes_and_none_an_address(name, least):
    text = (ROOT / f"envs/{name}.txt").read_text()
    entries = [entry for entry in re.split(r"\n(?=[a-z0-9])", text.strip()) if not entry.startswith("#")]
    assert len(entries) > least
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in text


def test_the_extra_has_pins_of_its_own_that_suit_the_package():
    """envs/pretrained.txt adds to envs/requirements.txt and changes none of it."""
    extra = dict(re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", (ROOT / "envs/pretrained.txt").read_text(), re.MULTILINE))
    assert not extra.keys() & LOCK.keys()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for line in project["optional-dependencies"]["pretrained"]:
        name, least, below = re.fullmatch(r"([a-z]+)>=([\d.]+),<([\d.]+)", line).groups()
        pinned, low, high = ([int(part) for part in text.split(".")] for text in (extra[name], least, below))
        assert low <= pinned < high


def test_too_old_or_no_python_is_one_clear_message(tmp_path):
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs/requirements.txt").write_text("")
    done = subprocess.run(["make", "run", "PYTHON="], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert "expected Python 3.11 or later" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_the_docs_draw_the_stages_as_they_are():
    page = (ROOT / "docs/how-it-works.md").read_text()
    drawn = set(re.findall(r"(\w+)\[", page.split("```mermaid")[1].split("```")[0]))
    rules = set()
    for file in (ROOT / "workflow/rules").glob("*.smk"):
        rules |= set(re.findall(r"pipeline_src (\w+) --params", file.read_text()))
    assert len(rules) >= 6 and rules <= drawn


def test_dvc_versions_every_output_once_and_keeps_it():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    outs = [out for stage in stages.values() for out in stage["outs"] + stage.get("metrics", [])]
    assert all(len(out) == 1 and options["persist"] for out in outs for options in out.values())
    kept = [Path(path) for out in outs for path in out]
    plan = Plan(ROOT / "params.yaml")
    made = [Path(path) for stage in STAGES for job in plan.jobs(stage) for path in job]
    aggregate = re.findall(r'plan\.results / f?"([\w.]+)', (ROOT / "workflow/rules/aggregate.smk").read_text())
    assert len(aggregate) >= 5
    made += [plan.results / name for name in aggregate]
    assert [str(path) for path in made if sum(path == out or out in path.parents for out in kept) != 1] == []
    assert [str(out) for out in kept if not any(out == path or out in path.parents for path in made)] == []
    assert list(stages)[:-1] == list(versioning.PARTS)
    for stage in stages.values():
        assert {"pipeline_src", "recipes", "Snakefile", "workflow/rules"} <= set(stage["deps"])
        assert stage["params"] == [{"params.yaml": None}]


@pytest.mark.parametrize("page", [ROOT / "README.md", *(ROOT / "docs").glob("*.md")], ids=lambda page: page.stem)
def test_every_file_that_a_page_names_is_there(page):
    text = page.read_text()
    folders = "pipeline_src|workflow|tests|envs|profiles|slurm|recipes|experiments"
    named = [ROOT / path for path in re.findall(rf"(?:`|params=|--params )((?:{folders})/[\w/.-]+)", text)]
    named += [page.parent / path for path in re.findall(r"\]\(([^):#]+)(?:#[\w-]+)?\)", text)]
    assert len(named) > 10 or page.stem != "README"
    assert [str(path.relative_to(ROOT)) for path in named if not path.exists()] == []


@pytest.mark.parametrize("page", [ROOT / "README.md", *(ROOT / "docs").glob("*.md")], ids=lambda page: page.stem)
def test_every_section_that_a_page_links_to_is_there(page):
    missing = []
    for path, section in re.findall(r"\]\(([^):#]*)#([\w-]+)\)", page.read_text()):
        headings = re.findall(r"^#+ (.+)$", (page.parent / path if path else page).read_text(), re.MULTILINE)
        if section not in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}:
            missing.append(f"{path}#{section}")
    assert missing == []


@pytest.mark.parametrize(("own", "value"), [(None, "1073741824"), ("131072", "131072")])
def test_a_job_that_trains_keeps_freed_memory_unless_the_user_says_otherwise(own, value):
    """The shell command of the rule, with `env` in the place of `python`."""
    text = (ROOT / "workflow/rules/train.smk").read_text()
    (line,) = re.findall(r"^ALLOCATOR = (.+)$", text, re.MULTILINE)
    setting = eval(line, {"serve": serve}).replace("{{", "{").replace("}}", "}")
    given = {} if own is None else {"MALLOC_MMAP_THRESHOLD_": own}
    done = subprocess.run(["bash", "-c", f"{setting} env"], env={**os.environ, **given}, capture_output=True, text=True)
    said = done.stdout.splitlines()
    assert f"MALLOC_MMAP_THRESHOLD_={value}" in said and "MALLOC_TRIM_THRESHOLD_=4294967296" in said


def test_the_environment_without_a_gpu_has_all_pins_but_those_of_gpus():
    said = subprocess.run(["make", "-n", "cpu"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    filtered = next(line for line in said.splitlines() if line.startswith("awk ")).partition(" >")[0]
    pins = subprocess.run(filtered, shell=True, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    left = dict(re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", pins, re.MULTILINE))
    gone = set(LOCK) - set(left)
    assert {"torch", "torchvision", "triton"} <= gone
    assert all(name.startswith(("torch", "triton", "nvidia-", "cuda-")) for name in gone)
    assert not [name for name in left if re.search("nvidia|cuda|triton", name)]
    assert len(re.findall("--hash=sha256:", pins)) > len(left)
    assert f"--torch-backend cpu torch=={LOCK['torch']} torchvision=={LOCK['torchvision']}" in said
