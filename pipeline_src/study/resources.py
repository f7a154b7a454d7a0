"""workflow/resources.yaml: per stage, the resources that a job requests. No result depends on it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from pipeline_src.core.params import CHARACTERS, Section
from pipeline_src.features import Room
from pipeline_src.study import yaml

SHIPPED = Path(__file__).parents[2] / "workflow" / "resources.yaml"
RESOURCES = "COUNTERPOISE_RESOURCES"  # environment variable: a file that replaces workflow/resources.yaml


class Requests(Section):
    """What a job of one stage asks for; what is not said is `default`'s."""

    affects = None

    threads: int | None = Field(
        None,
        ge=1,
        le=65_536,
        description="CPU cores; of train: also fixes the order of sums, so keep it to repeat a run bit for bit",
    )
    mem_mb: int | None = Field(
        None, ge=1, le=10**9, description="MB of memory; a retry asks for twice, then three times as much"
    )
    max_mem_mb: int | None = Field(None, ge=1, le=10**9, description="what a retry asks for at most")
    runtime: int | None = Field(
        None, ge=1, le=10**7, description="minutes; a retry asks for twice, then three times as much"
    )
    max_runtime: int | None = Field(
        None, ge=1, le=10**7, description="what a retry asks for at most: the partition's limit"
    )
    gpu: int | None = Field(
        None,
        ge=0,
        le=10_000,
        description="GPUs; honoured where the executor or --resources gpu=N knows them; none if not said",
    )
    gpu_model: str | None = Field(None, min_length=1, description="Slurm: kind of GPU, as in --gpus=MODEL:N")
    partition: str | None = Field(None, min_length=1, description="Slurm: the cluster's own default if not said")
    account: str | None = Field(None, min_length=1, description="Slurm: whom to charge")
    constraint: str | None = Field(None, min_length=1, description="Slurm: features of nodes")
    qos: str | None = Field(None, min_length=1, description="Slurm: quality of service")
    sbatch: str | None = Field(None, min_length=1, description="Slurm: further options of sbatch, as typed")

    def gpus(self, together: int = 1) -> int:
        """GPUs of a job; at least as many as train its run `together`, where that is more than one."""
        return max(self.gpu or 0, together if together > 1 else 0)

    def job(self, gpus: int = 1) -> dict[str, int | str | Callable]:
        """Snakemake's `resources` of a job, as its Slurm executor names them; memory and time grow with retries.

        `gpus` train a run together. Several are to be of one node: Slurm would take them from several nodes.
        """

        def growing(value: int, most: int | None) -> Callable:
            return lambda wildcards, attempt: min(attempt * value, max(value, most) if most else attempt * value)

        gpu = self.gpus(gpus)
        asked = {
            "mem_mb": growing(self.mem_mb, self.max_mem_mb),
            "runtime": growing(self.runtime, self.max_runtime),
            "gpu": gpu,
            "gpu_model": self.gpu_model if gpu else None,
            "nodes": 1 if gpu > 1 else None,
            "slurm_partition": self.partition,
            "slurm_account": self.account,
            "constraint": self.constraint,
            "qos": self.qos,
            "slurm_extra": self.sbatch,
        }
        return {name: value for name, value in asked.items() if value is not None}


class LocalCopy(Section):
    """What stays on a machine's disk of the rows that lie in storage (`storage` of a dataset)."""

    affects = None

    folder: str = Field(
        default="data/local",
        min_length=1,
        max_length=CHARACTERS,
        description="on a disk of the machine that trains; ~ and $VARIABLES are replaced there. Jobs share it",
    )
    gb: float = Field(
        default=100, ge=0, le=10**6, description="GB that may lie there; 0: every epoch reads from storage"
    )

    @property
    def room(self) -> Room:
        return Room(self.folder, int(self.gb * 1e9))


def _complete(default: Requests) -> Requests:
    if None in (default.threads, default.mem_mb, default.runtime):
        raise ValueError("expected at least threads, mem_mb and runtime")
    return default


class Resources(Section):
    """workflow/resources.yaml: per stage, what jobs ask of the machine or the cluster; changes no result."""

    affects = None

    cells_per_gpu: int = Field(
        default=1,
        ge=1,
        le=1000,
        description="cells on one GPU at a time, each with its share of the memory",
    )
    local_copy: LocalCopy = LocalCopy()
    default: Annotated[Requests, AfterValidator(_complete)] = Field(
        description="of every stage that does not say otherwise"
    )
    fetch: Requests = Requests()
    manifest: Requests = Requests()
    extract: Requests = Requests()
    cache: Requests = Requests()
    train: Requests = Field(Requests(), description="training, and evaluation in the same job")
    aggregate: Requests = Requests()

    def resolved(self) -> "Resources":
        """Every stage complete, with `default` where it says nothing."""
        default = self.default.model_dump()
        stages = (name for name, field in type(self).model_fields.items() if field.annotation is Requests)
        return self.model_copy(
            update={name: Requests(**default | getattr(self, name).model_dump(exclude_none=True)) for name in stages}
        )


def load(file: str | Path | None = None) -> Resources:
    """Read and check a resources file, as `config.load` does; every stage is complete."""
    file = Path(file or os.environ.get(RESOURCES) or SHIPPED)
    values, mistakes = yaml.read(file, Resources, "resources")
    resources = mistakes.checked(Resources, values, ())
    mistakes.raise_if_any()
    return resources.resolved()
