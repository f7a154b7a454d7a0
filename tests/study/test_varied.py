"""What varies with the seed: each seed has its own data, which all of its runs share; by default nothing moves."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml

from pipeline_src.core.errors import UserError
from pipeline_src.core.params import varying
from pipeline_src.core.stages import STAGES
from pipeline_src.datasets import manifest
from pipeline_src.datasets.base import datasets
from pipeline_src.methods.base import Requirement, methods
from pipeline_src.study.estimate import estimate
from pipeline_src.study.plan import Plan
from pipeline_src.study.varied import varied
from pipeline_src.study.yaml import Loader
from tests.datasets.test_av_digits import params as digits

SHIPPED = Path(__file__).parents[2] / "params.yaml"
DATA = STAGES[:4]


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """A function: changes of the section `study`, and of the dataset -> a plan, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def of(dataset: dict | None = None, **study) -> Plan:
        values = yaml.load(SHIPPED.read_text(), Loader)
        values["study"] |= {"methods": ["joint", "pmr"], "seeds": [0, 1], **study}
        values["datasets"]["av_digits"] |= dataset or {}
        values["study"] = {key: value for key, value in values["study"].items() if value is not None}
        Path("params.yaml").write_text(yaml.safe_dump(values))
        return Plan()

    return of


def addresses(plan: Plan) -> dict[str, set[str]]:
    return {stage: {str(path) for path, _ in plan.places(stage)} for stage in STAGES}


def test_by_default_every_seed_reads_the_data_of_the_params_file(plan):
    fixed = plan(vary=[])
    assert addresses(fixed) == addresses(plan(vary=None))
    (data,) = fixed.data
    assert data.seeds == (0, 1) and data.dataset.params == fixed.params.datasets["av_digits"]
    assert len(fixed.cells) == len(fixed.rows) == 4 and all(cell.seeds == (0, 1) for cell in fixed.cells)


@pytest.mark.parametrize(
    ("vary", "fetched", "fields"),
    [
        (["split"], 1, {"split_seed"}),
        (["data"], 2, {"seed", "writer_seed"}),
        (["split", "data"], 2, {"split_seed", "seed", "writer_seed"}),
    ],
)
def test_every_seed_has_its_own_data_and_all_of_its_runs_share_it(plan, vary, fetched, fields):
    fixed, plan = plan(), plan(vary=vary)
    assert [len(plan.jobs(stage)) for stage in DATA] == [fetched, 2, 4, 2]
    one, other = plan.data
    differing = {name for name, value in one.dataset.params if value != getattr(other.dataset.params, name)}
    assert differing == fields
    for run in plan.runs:
        assert run.cell.data is (one, other)[run.seed] and run.cell.seeds == (run.seed,)
        assert plan.inputs("evaluate", str(run.metrics)) == run.cell.data.files
    assert len(plan.runs) == 8 and [cell.place for cell in plan.rows] == [cell.place for cell in fixed.rows]
    for stage in STAGES[1:]:
        assert not addresses(plan)[stage] & addresses(fixed)[stage]
        assert all(plan.at(stage, str(path)) == what for path, what in plan.places(stage))


def test_more_seeds_leave_what_is_there_and_other_seeds_of_the_file_give_other_draws(plan):
    before, after = (addresses(plan(vary=["split", "data"], seeds=seeds)) for seeds in ([1, 0], [0, 1, 2]))
    for stage in STAGES[:-1]:
        assert before[stage] < after[stage]
    for change in ({"split_seed": 7}, {"seed": 7}, {"writer_seed": 7}):
        moved = addresses(plan(change, vary=["split", "data"], seeds=[0, 1]))
        assert not before["train"] & moved["train"]


def test_a_required_run_has_the_data_of_its_seed(plan, monkeypatch):
    monkeypatch.setattr(methods["pmr"], "requires", classmethod(lambda cls, params, where: {"t": Requirement("audio")}))
    plan = plan(vary=["data"], unimodal=False)
    assert len(plan.rows) == 3
    for run in plan.runs:
        for other in run.requires.values():
            assert other in plan.runs and other.seed == run.seed and other.cell.data is run.cell.data


def test_every_draw_is_estimated(plan):
    (fixed,), (drawn,) = (estimate(plan(vary=vary)) for vary in ([], ["data"]))
    assert drawn.runs == fixed.runs and drawn.flop == fixed.flop
    assert (drawn.bytes, drawn.core_seconds) == (2 * fixed.bytes, 2 * fixed.core_seconds)


@pytest.mark.parametrize("kind", list(datasets))
def test_derived_seeds_are_valid_and_independent_of_each_other(kind):
    section = datasets[kind].Params
    fields = [*varying(section, "split"), *varying(section, "data")]
    assert fields[0] == "split_seed"
    block = section.model_construct(**dict.fromkeys(section.model_fields, 0))
    values = [getattr(varied(block, ["split", "data"], seed), field) for seed in range(50) for field in fields]
    assert len(set(values)) == len(values) and max(values) < 2**31 and min(values) >= 0


@pytest.mark.parametrize(
    ("name", "what", "why"),
    [
        ("ave", "split", "expected a dataset whose val is cut from train, but got one that publishes its val"),
        ("cmu_mosei", "split", "expected a dataset whose val is cut from train"),
        ("ave", "data", "expected a dataset that is drawn from a seed, but got one that is published"),
        ("cremad", "data", "expected a dataset that is drawn from a seed"),
    ],
)
def test_what_cannot_vary_is_refused_before_any_run(name, what, why, plan, monkeypatch):
    refused = datasets[name](datasets[name].Params.model_construct(split="authors")).refuses(what)
    assert refused.startswith(why)
    plan()
    monkeypatch.setattr(datasets["av_digits"], "refuses", lambda self, asked: refused if asked == what else None)
    values = yaml.safe_load(Path("params.yaml").read_text())
    values["study"]["vary"] = [what]
    Path("params.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(UserError) as error:
        Plan()
    place, _, said = str(error.value).partition(": ")
    assert place.startswith("params.yaml:")
    assert said == f"study.vary.0: {refused} (dataset 'av_digits'); remove {what!r}"


def test_a_split_varies_where_val_is_cut_and_colours_where_they_are_made():
    cremad, mnist = datasets["cremad"], datasets["cg_mnist"]
    assert cremad(cremad.Params.model_construct(split="speakers")).refuses("split") is None
    assert cremad(cremad.Params.model_construct(split="relearning")).refuses("split") is not None
    assert mnist(mnist.Params.model_construct(colors="made")).refuses("data") is None
    assert "made" in mnist(mnist.Params.model_construct(colors="published")).refuses("data")


@pytest.mark.parametrize("value", [["splits"], "split", ["split", "split"], [1]])
def test_a_mistake_in_vary_is_one_line(plan, value):
    with pytest.raises(UserError, match=r"^params.yaml:\d+: study.vary[^\n]*expected[^\n]*$"):
        plan(vary=value)


def test_a_list_with_a_val_of_its_own_is_refused_by_the_manifest(plan, monkeypatch):
    data = plan(vary=["split"]).data[0]
    rows = pd.DataFrame([{"id": split, "split": split, "label": "one", "group": split} for split in manifest.SPLITS])
    monkeypatch.setattr(manifest, "listed_clips", lambda data: [])
    monkeypatch.setattr(manifest, "look", lambda *_, **__: (rows.copy(), rows[:0].assign(reason="")))
    monkeypatch.setattr(manifest.quarantine, "check_fraction", lambda *_: None)
    monkeypatch.setattr(manifest.files, "write_table", lambda *_: None)
    with pytest.raises(UserError, match=r"^study.vary: expected a dataset whose val is cut from train, but av_digits"):
        manifest.make(data)
    manifest.make(replace(data, vary=("data",)))


def test_derived_digits_are_valid_parameters():
    block = varied(digits(), ["split", "data"], 4)
    assert type(block).model_validate(block.model_dump()) == block
