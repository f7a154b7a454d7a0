"""Corruptions in params.yaml: what they move, and what is refused in one line each."""

from pathlib import Path

import pytest
import yaml

from pipeline_src.core import fingerprint
from pipeline_src.core.errors import UserError
from pipeline_src.study.plan import Plan
from pipeline_src.study.yaml import Loader

TESTING, TRAINING = "evaluation.corruptions.", "training.augmentation.audio.corruption."
SHIPPED = Path(__file__).parents[2] / "params.yaml"


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """A function: corruptions of testing, and of the training batches of sound -> the plan of joint training."""
    monkeypatch.chdir(tmp_path)

    def of(testing: dict | None = None, training: dict | None = None) -> Plan:
        values = yaml.load(SHIPPED.read_text(), Loader)
        values["study"] |= {"methods": ["joint"], "fusions": ["concat"], "seeds": [0]}
        values["evaluation"]["corruptions"] = testing or {}
        values["training"]["augmentation"]["audio"] = {"corruption": training or {}}
        Path("params.yaml").write_text(yaml.safe_dump(values))
        return Plan()

    return of


def fps(plan: Plan) -> dict[str, tuple[str, str]]:
    return {cell.method: (cell.fp, cell.evaluation_fp) for cell in plan.cells}


def test_corruptions_of_testing_move_the_evaluation_and_those_of_training_the_runs_of_their_modality(plan):
    bare = fps(plan())
    tested = fps(plan({"noise": {"rates": [0.5]}}))
    other = fps(plan({"noise": {"rates": [0.25]}}))
    for name, (fp, evaluation) in bare.items():
        assert tested[name][0] == fp and tested[name][1] not in (evaluation, other[name][1])
    trained = fps(plan(training={"noise": 0.5}))
    assert {name for name in bare if trained[name][0] != bare[name][0]} == {"audio-only", "joint"}


def test_the_code_of_a_corruption_counts_where_it_is_used(plan, monkeypatch):
    bare, tested, trained = (fps(plan(*how)) for how in ((), ({"patches": {}},), (None, {"patches": 0.5})))
    read = fingerprint._module

    def edited(module: str) -> tuple:
        digest, imports = read(module)
        return (digest + "'" if module == "pipeline_src.corruptions.patches" else digest), imports

    monkeypatch.setattr(fingerprint, "_module", edited)
    assert fps(plan()) == bare
    after = fps(plan({"patches": {}}))
    assert all(after[name][0] == tested[name][0] and after[name][1] != tested[name][1] for name in after)
    after = fps(plan(None, {"patches": 0.5}))
    assert {name for name in after if after[name][0] != trained[name][0]} == {"audio-only", "joint"}


@pytest.mark.parametrize(
    ("testing", "training", "line"),
    [
        ({"nose": {}}, None, TESTING + "nose: expected a registered corruption, but got 'nose'; did you mean"),
        ({"noise": {"rates": []}}, None, TESTING + "noise.rates: expected at least 1 item"),
        ({"noise": {"rates": [0.0]}}, None, TESTING + "noise.rates.0: expected greater than 0, but got 0"),
        ({"noise": {"rates": [2.0, 1.0]}}, None, TESTING + "noise.rates: expected ascending rates, each once, but got"),
        ({"patches": {"rates": [0.5, 1.5]}}, None, TESTING + "patches.rates: expected a rate of at most 1,"),
        ({"patches": {"size": 0}}, None, TESTING + "patches.size: expected"),
        ({"noise": {"kinds": 1}}, None, TESTING + "noise.kinds: unknown key"),
        ({"noise": {"modalities": ["sound"]}}, None, TESTING + "noise.modalities.0: expected a modality of"),
        (None, {"noisy": 1.0}, TRAINING + "noisy: expected a registered corruption, but got"),
        (None, {"missing": 2.0}, TRAINING + "missing: expected a rate of at most 1, but got 2"),
        (None, {"noise": 0.0}, TRAINING + "noise: expected greater than 0, but got 0"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(plan, testing, training, line):
    with pytest.raises(UserError) as error:
        plan(testing, training)
    (got,) = str(error.value).split("\n")
    assert got.partition(": ")[2].startswith(line), got
