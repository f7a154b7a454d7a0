"""What jobs ask for: defaults, growth with retries, the words of Snakemake's Slurm executor, mistakes, other files."""

import json
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import pytest
import yaml
from snakemake.iocontainers import ResourceList
from snakemake_executor_plugin_slurm.submit_string import get_submit_command
from snakemake_executor_plugin_slurm.utils import set_gres_string

from pipeline_src.core.errors import UserError
from pipeline_src.study import config, resources
from pipeline_src.study.schema import SCHEMAS
from tests.workflow.small import snakemake, write_params

ROOT = Path(__file__).parents[2]

VALID = """\
cells_per_gpu: 1
default: {threads: 1, mem_mb: 4000, runtime: 60, account: lab, partition: cpu}
extract: {runtime: 240}
train: {gpu: 1, partition: gpu, max_runtime: 100, sbatch: --signal=TERM@120}
"""


@pytest.fixture
def loaded(tmp_path, monkeypatch):
    """A function: text of a resources file -> what it says, complete."""
    monkeypatch.chdir(tmp_path)

    def of(text: str) -> resources.Resources:
        Path("r.yaml").write_text(text)
        return resources.load("r.yaml")

    return of


def requests(stage: resources.Requests, attempt: int) -> dict:
    return {k: v(None, attempt) if callable(v) else v for k, v in stage.job().items()}


@pytest.mark.parametrize("file", sorted((ROOT / "workflow").glob("resources*.yaml")), ids=lambda file: file.name)
def test_files_of_the_repository_are_valid(file):
    assert resources.load(file).train.gpu == 1
    schema = json.loads(SCHEMAS["resources"].read_text())
    jsonschema.validate(yaml.safe_load(file.read_text()), schema)


def test_what_a_stage_does_not_say_is_the_defaults(loaded):
    resources = loaded(VALID)
    assert (resources.extract.runtime, resources.extract.mem_mb, resources.cache.runtime) == (240, 4000, 60)
    assert (resources.train.partition, resources.cache.partition) == ("gpu", "cpu")
    assert {resources.train.account, resources.fetch.account} == {"lab"}


def test_requests_in_the_executors_words(loaded):
    resources = loaded(VALID)
    same = {"slurm_account": "lab", "mem_mb": 4000, "runtime": 60}
    assert requests(resources.cache, 1) == {**same, "gpu": 0, "slurm_partition": "cpu"}
    assert requests(resources.train, 1) == {
        **same,
        **{"gpu": 1, "slurm_partition": "gpu", "slurm_extra": "--signal=TERM@120"},
    }


def test_a_run_on_several_gpus_asks_for_them(loaded):
    train = loaded(VALID.replace("{gpu: 1", "{gpu: 1, gpu_model: a100")).train
    assert {k: v for k, v in train.job(4).items() if k.startswith("gpu")} == {"gpu": 4, "gpu_model": "a100"}
    assert loaded(VALID.replace("{gpu: 1", "{gpu: 0")).train.job(4)["gpu"] == 4
    assert loaded(VALID.replace("{gpu: 1", "{gpu: 8")).train.job(4)["gpu"] == 8


@pytest.mark.parametrize(("gpus", "asked"), [(1, ["--gpus=1"]), (4, ["--gpus=4", "--nodes=1"])])
def test_slurm_is_asked_for_several_gpus_of_one_node(loaded, gpus, asked):
    """Without --nodes=1 Slurm takes them from several nodes, and the job sees those of the first one."""
    values = {k: v(None, 1) if callable(v) else v for k, v in loaded(VALID).train.job(gpus).items()}
    job = SimpleNamespace(resources=ResourceList(fromdict=values), threads=8)
    texts = dict.fromkeys(("run_uuid", "slurm_logfile", "comment_str", "account", "partition", "workdir"), "x")
    options = shlex.split(get_submit_command(job, texts) + set_gres_string(job))
    assert sorted(one for one in options if re.match("--(gpus|nodes|ntasks|gres)", one)) == asked
    assert "--cpus-per-task=8" in options


def test_under_the_slurm_profile_a_run_gets_its_gpus(tmp_path):
    """In a dry run, which prints what each job would ask for: Snakemake cuts a request down to a limit."""
    write_params(tmp_path, {"training": {"gpus": 4}})
    (tmp_path / "slurm").symlink_to(ROOT / "slurm")
    output = snakemake(tmp_path, "--profile", "slurm", "--dry-run", "--quiet", "host")
    asked = {}
    said_of_jobs = re.compile(r"^ *(?:local)?rule (\w+):$.*?^ *resources: (.*?)$", re.MULTILINE | re.DOTALL)
    for rule, said in said_of_jobs.findall(output):
        found = dict(one.split("=", 1) for one in said.split(", "))
        asked.setdefault(rule, set()).add((found.get("gpu"), found.get("nodes")))
    assert asked.pop("all") == {(None, None)}
    assert asked.pop("train") == {("4", "1")}
    assert asked == {rule: {("0", None)} for rule in ("fetch", "manifest", "extract", "cache", "aggregate")}

    output = snakemake(tmp_path, "--profile", "slurm", "--dry-run", "--resources", "gpu=1", succeeds=False)
    (line,) = [line for line in output.splitlines() if "training.gpus" in line]
    assert line.startswith("params.yaml: training.gpus: expected at most 1, the limit that --resources or a profile")


def test_a_retry_asks_for_more_memory_and_time_up_to_the_set_most(loaded):
    resources = loaded(VALID)
    asked = [requests(resources.train, attempt) for attempt in (1, 2, 3)]
    assert [one["mem_mb"] for one in asked] == [4000, 8000, 12000]
    assert [one["runtime"] for one in asked] == [60, 100, 100]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("extract: {runtime", "extract: {runtme", "3: extract.runtme: unknown key; did you mean 'runtime'? (known: "),
        ("extract:", "extrct:", "3: extrct: unknown key; did you mean 'extract'? (known: "),
        ("240", "4 h", '3: extract.runtime: expected a valid integer, but got "4 h"'),
        ("train:", "evaluate:", "4: evaluate: unknown key; did you mean "),
        ("240", "0", "3: extract.runtime: expected greater than or equal to 1, but got 0"),
        ("threads: 1, ", "", "2: default: expected at least threads, mem_mb and runtime, but got {"),
        (VALID, "", " expected sections (cells_per_gpu, local_copy, default, "),
    ],
)
def test_mistakes_say_where_and_what(loaded, old, new, said):
    assert VALID.count(old) == 1
    with pytest.raises(UserError) as raised:
        loaded(VALID.replace(old, new))
    (line,) = str(raised.value).split("\n")
    assert line.startswith(f"r.yaml:{said}")


def test_a_file_named_in_the_environment_takes_the_place_of_the_shipped_one(tmp_path, monkeypatch):
    monkeypatch.setenv(resources.RESOURCES, str(tmp_path / "mine.yaml"))
    with pytest.raises(UserError, match=r"mine.yaml: expected a readable resources file: No such file"):
        config.load(ROOT / "params.yaml")
    (tmp_path / "mine.yaml").write_text(VALID)
    assert config.load(ROOT / "params.yaml").resources.train.partition == "gpu"
