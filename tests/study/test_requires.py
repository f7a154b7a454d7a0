"""A method that requires other runs of the same seed: an edge of the plan, part of the address, trained first."""

from pathlib import Path

import pytest
import yaml

from pipeline_src.core.errors import UserError
from pipeline_src.methods.base import Method, Requirement, methods
from pipeline_src.study.outputs import NO_FUSION
from pipeline_src.study.plan import Plan
from pipeline_src.study.yaml import Loader

SHIPPED = Path(__file__).parents[2] / "params.yaml"


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """A function: changes of the section `study`, and of others -> the plan of joint training and PMR."""
    monkeypatch.chdir(tmp_path)

    def of(study: dict | None = None, **sections: dict) -> Plan:
        values = yaml.load(SHIPPED.read_text(), Loader)
        values["study"] |= {"methods": ["pmr"], "fusions": ["concat", "sum"], "seeds": [0, 1], "unimodal": False}
        values["study"] |= study or {}
        for name, changes in sections.items():
            values[name] |= changes
        Path("params.yaml").write_text(yaml.safe_dump(values))
        return Plan()

    return of


@pytest.fixture
def needs(monkeypatch):
    """A function: modalities (None for joint training) that PMR requires from now on."""

    def of(*modalities: str | None) -> None:
        needed = {f"teacher-{m}": Requirement(m) for m in modalities}
        monkeypatch.setattr(methods["pmr"], "requires", classmethod(lambda cls, params, setting: needed))

    return of


def labels(plan: Plan) -> list[tuple[str, str]]:
    return [(cell.fusion, cell.method) for cell in plan.cells]


def test_a_unimodal_cell_has_no_fusion(plan):
    assert labels(plan({"unimodal": True}))[:2] == [(NO_FUSION, "audio-only"), (NO_FUSION, "visual-only")]
    assert all(cell.spec.fusion == "concat" for cell in plan({"unimodal": True}).cells[:2])


def test_required_cells_come_first_even_if_the_study_does_not_list_them(plan, needs):
    needs("visual", None)
    assert labels(plan()) == [
        (NO_FUSION, "visual-only"),
        ("concat", "joint"),
        ("concat", "pmr"),
        ("sum", "joint"),
        ("sum", "pmr"),
    ]
    listed = plan({"methods": ["pmr", "joint"], "unimodal": True})
    assert len(listed.cells) == 2 + 2 * 2
    for cell in listed.cells:
        assert all(listed.cells.index(other) < listed.cells.index(cell) for other in cell.requires.values())


def test_a_run_requires_the_runs_of_its_seed_and_the_records_of_those_are_its_inputs(plan, needs):
    needs("audio", None)
    plan = plan()
    for run in plan.runs:
        cache, read = run.cell.data.files, plan.inputs("evaluate", str(run.metrics))
        if run.cell.method != "pmr":
            assert run.requires == {} and read == cache
            continue
        audio, joint = run.requires["teacher-audio"], run.requires["teacher-None"]
        assert audio in plan.runs and joint in plan.runs
        assert (audio.seed, joint.seed) == (run.seed, run.seed)
        assert (audio.cell.method, joint.cell.fusion) == ("audio-only", run.cell.fusion)
        assert read == [*cache, audio.metrics, joint.metrics]
        assert run.cell.spec.record()["requires"] == {"teacher-audio": audio.cell.fp, "teacher-None": joint.cell.fp}


def test_what_is_required_is_part_of_the_address_and_nothing_is_where_nothing_is_required(plan, needs):
    def addresses(plan: Plan) -> dict:
        return {label: cell.fp for label, cell in zip(labels(plan), plan.cells, strict=True)}

    without = addresses(plan())
    needs("audio")
    teacher = addresses(plan())
    needs("visual")
    other = addresses(plan())
    pmr = ("concat", "pmr")
    assert len({without[pmr], teacher[pmr], other[pmr]}) == 3
    assert Method.requires(None, None) == {}
    assert all("requires" not in cell.spec.address() for cell in plan().cells if cell.method != "pmr")


def test_a_modality_that_the_dataset_lacks(plan, needs):
    needs("smell")
    with pytest.raises(UserError, match=r"methods\.pmr\.requires: expected a modality of 'av_digits', but got 'smell'"):
        _ = plan().cells
