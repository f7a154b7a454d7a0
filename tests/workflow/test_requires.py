"""A method that requires teachers, through the real Snakemake: they are trained first, though the study lists none."""

import json
import sys

import pytest

from tests.workflow import repository
from tests.workflow.small import jobs

TAUGHT = '''
"""Draws features to those of unimodal runs of the same seed."""

from pipeline_src.methods.base import Method, Quantity, Requirement, methods


@methods.register("taught")
class Taught(Method):
    quantities = (Quantity(name="distance", unit="", caption="The mean square distance of features to the teacher."),)

    @classmethod
    def requires(cls, params, setting):
        return {m: Requirement(m) for m in setting.modalities}

    def loss(self, ctx, output, batch):
        losses = super().loss(ctx, output, batch)
        for m, f in output.features.items():
            losses[f"distance/{m}"] = (f - ctx.run(m).encode({m: batch.inputs[m]})[m]).square().mean()
        return losses
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = repository.make(tmp_path_factory.mktemp("taught"), {"study": {"methods": ["taught"], "unimodal": False}})
    (made / "pipeline_src/methods/taught.py").write_text(TAUGHT)
    return made


def test_teachers_come_first_and_are_in_the_record(folder):
    output = repository.run(folder, sys.executable, "-m", "snakemake", "--cores", "2")
    done = jobs(output)
    assert (done["train"], done["aggregate"]) == (6, 1)
    records = {}
    for file in folder.glob("results/runs/**/record.json"):
        record = json.loads(file.read_text())
        records[record["method"], record["seed"]] = record
    assert set(records) == {(name, seed) for name in ("audio-only", "visual-only", "taught") for seed in (0, 1)}
    for seed in (0, 1):
        taught, teachers = records["taught", seed], {m: records[f"{m}-only", seed] for m in ("audio", "visual")}
        assert set(taught["required"]) == set(teachers)
        for m, teacher in teachers.items():
            said = taught["required"][m]
            assert (said["method"], said["seed"]) == (f"{m}-only", seed)
            assert said["fingerprint"] == teacher["fingerprint"]
            assert said["backwards"] == teacher["backwards"] / 2  # through one of two encoders
            assert teacher["ended"] <= taught["ended"]
        assert taught["forwards"] == 2 * taught["backwards"]  # its own, and both teachers of the batch
        file = next(folder.glob(f"results/runs/*/*/concat/taught-*/seed{seed}/evaluation-*/metrics.json"))
        values = {
            row["metric"]: row["value"] for row in json.loads(file.read_text())["metrics"] if row["split"] == "train"
        }
        assert values["backwards"] == taught["backwards"] + sum(t["backwards"] for t in teachers.values()) / 2
    assert "Nothing to be done" in repository.run(folder, sys.executable, "-m", "snakemake", "--cores", "2", "-n")
