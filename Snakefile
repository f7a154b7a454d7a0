"""Counterpoise: raw media in, a table of balanced multimodal learning out.

    snakemake --cores all                                  the study of params.yaml
    snakemake --cores all --config params=other.yaml       another one
    snakemake --cores all --profile slurm                  on a cluster; resources=other.yaml: with other requests

Paths come from pipeline_src.study.plan: each holds a fingerprint of all that determines the output, so what exists is right.
"""

import atexit
import os
import sys
from itertools import chain

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

from pipeline_src.study import engine, estimate, watch
from pipeline_src.core import files, progress
from pipeline_src.core.fingerprint import HEX
from pipeline_src.study import outputs as places
from pipeline_src.study.resources import RESOURCES
from pipeline_src.core.errors import UserError
from pipeline_src.core.stages import STAGES
from pipeline_src.study.plan import Plan
from pipeline_src.tracking.beside import Follower
from pipeline_src.training.gpu import slots
from pipeline_src.warm import serve

min_version("9.27")

# The jobs' `python` is the one that runs snakemake, activated or not; a conda environment still goes before it.
os.environ.update(PATH=os.pathsep.join([os.path.dirname(sys.executable), os.getenv("PATH", "")]))

# A signal to the whole group of processes (Ctrl-C, Slurm's) is for Python alone: the shell waits for what it saves and
# how it ends, and `tee` for its last line.
shell.prefix("trap '' INT TERM USR1; set -euo pipefail; ")

if others := sorted(config.keys() - {"params", "resources"}):
    raise WorkflowError(f"--config {others[0]}: unknown; expected params=FILE or resources=FILE")
if "resources" in config:
    os.environ[RESOURCES] = config["resources"]  # jobs find the same file
params_file = str(config.get("params", "params.yaml"))
try:
    progress.show()
    plan = Plan(params_file, fresh=workflow.is_main_process)  # a job's own command looks at raw files if it reads them
    plan.index
except UserError as error:
    raise WorkflowError(str(error)) from None
asked = plan.params.resources
here = slots(asked.cells_per_gpu) if plan.params.training.device in ("auto", "cuda") else None
gpus = plan.params.training.gpus if plan.params.training.device != "cpu" else 1  # that train a run together
inputs = engine.steer(workflow, plan, gpus, here)  # outputs decide what is done, not what Snakemake remembers
follower = Follower(plan)  # mirrors the runs in MLflow, from a process of its own
warm = serve.Warm(plan)  # imports once what jobs on this machine need
reporter = watch.Reporter(plan)  # says every half minute how far the study is


# A dry run, of a study that is not done, ends with what it will take; only at the end is it known to be one.
atexit.register(lambda: workflow.dryrun and not plan.index.exists() and print(estimate.line(plan), file=sys.stderr))


wildcard_constraints:
    dataset="|".join({*plan.datasets, *map(plan.params.stored, plan.datasets)}),
    recipe="|".join({data.recipe for data in plan.data}),
    fusion="|".join({cell.fusion for cell in plan.cells}),
    method="|".join({cell.method for cell in plan.cells}),
    seed="|".join({str(run.seed) for run in plan.runs}),
    shard=r"\d{4}-of-\d{4}",
    fp=HEX,
    evaluation=HEX,


onstart:
    follower.start()
    reporter.start()
    if workflow.local_exec and not here:
        warm.start()


onsuccess:
    warm.end()
    reporter.end()
    follower.end()


onerror:
    warm.end()
    reporter.end()
    follower.end()


# On a cluster these run where snakemake does: nodes may have no way out to download by, and tables are a matter of seconds.
localrules:
    all,
    fetch,
    aggregate,
    data,
    features,
    runs,


include: "workflow/rules/fetch.smk"
include: "workflow/rules/manifest.smk"
include: "workflow/rules/cache.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/aggregate.smk"


# What DVC has recorded may be read-only links, which Snakemake looks at before `onstart`.
if workflow.is_main_process and os.path.exists("dvc.lock"):
    for job in [*chain.from_iterable(map(plan.jobs, STAGES[:-1])), rules.aggregate.output]:
        files.unprotect(job)


# Every output, also those that the tables are made from: a lost one is made again, and no job can be done without them.
rule all:
    default_target: True
    input:
        rules.aggregate.output,
        [run.metrics for run in plan.runs],


# The stages of dvc.yaml before the last. They ask for every file, so that a lost one is made again or missed.
rule data:
    input:
        plan.jobs("fetch"),
        plan.jobs("manifest"),


rule features:
    input:
        plan.jobs("extract"),
        plan.jobs("cache"),


rule runs:
    input:
        [run.metrics for run in plan.runs],
