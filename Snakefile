"""Counterpoise: raw media in, a table of balanced multimodal learning out.

    snakemake --cores all                                  the study of params.yaml
    snakemake --cores all --config params=other.yaml       another one
    snakemake --cores all --profile slurm                  on a cluster; resources=other.yaml: with other requests

Paths come from pipeline_src.plan: each holds a fingerprint of all that determines the output, so what exists is right.
"""

import os
import sys

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

from pipeline_src import plan as places
from pipeline_src.config import RESOURCES
from pipeline_src.errors import UserError
from pipeline_src.plan import Plan
from pipeline_src.tracking.follow import Follower

min_version("9.27")

# The jobs' `python` is the one that runs snakemake, activated or not; a conda environment still goes before it.
os.environ.update(PATH=os.pathsep.join([os.path.dirname(sys.executable), os.getenv("PATH", "")]))

if "resources" in config:
    os.environ[RESOURCES] = config["resources"]  # jobs find the same file
params_file = config.get("params", "params.yaml")
try:
    plan = Plan(params_file)
    plan.index
except UserError as error:
    raise WorkflowError(str(error)) from None
asked = plan.params.resources
follower = Follower(plan)  # mirrors the runs in MLflow, from a process of its own


wildcard_constraints:
    dataset="|".join(plan.data),
    recipe="|".join({data.recipe for data in plan.data.values()}),
    fusion="|".join({cell.fusion for cell in plan.cells}),
    method="|".join({cell.method for cell in plan.cells}),
    seed="|".join(map(str, plan.params.study.seeds)),
    shard=r"\d{4}-of-\d{4}",
    fp=places.HEX,
    evaluation=places.HEX,


onstart:
    follower.start()


onsuccess:
    follower.end()


onerror:
    follower.end()


# On a cluster these run where snakemake does: nodes may have no way out to download by, and tables are a matter of seconds.
localrules:
    all,
    fetch,
    aggregate,


rule all:
    default_target: True
    input:
        plan.index,


include: "workflow/rules/fetch.smk"
include: "workflow/rules/manifest.smk"
include: "workflow/rules/cache.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/aggregate.smk"
