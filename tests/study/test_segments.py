"""Mistakes of studies with a label per segment are found before any run, in one line at their place."""

from pathlib import Path

import pytest
import yaml

from pipeline_src.core.errors import UserError
from pipeline_src.study import config

STUDY = Path(__file__).parents[2] / "experiments/av-digits-segments.yaml"
ARRAYS = {m: {"kind": "array", "length": 4, "features": 6, "non_finite": "refuse"} for m in ("audio", "visual")}


@pytest.fixture
def study(tmp_path):
    """A function: changes, merged into the study of the embedded dataset -> its settings."""

    def of(changes):
        file = tmp_path / "study.yaml"
        file.write_text(yaml.safe_dump({"extends": str(STUDY), **changes}))
        return config.load(file)

    return of


def test_a_recipe_that_cannot_be_cut_into_the_segments(study):
    recipe = {"audio": {"frames": 132}, "visual": {"kind": "frames", "count": 3, "size": 32, "pick": "centers"}}
    with pytest.raises(UserError, match=r"recipe: visual: expected a number of steps or frames that 4 segments divide"):
        study({"recipes": {"av-digits-segments-1": recipe}})


@pytest.mark.parametrize(
    ("segments", "says"), [(4, None), (5, "expected a dataset of 5 segments for encoder 'recurrent'")]
)
def test_an_encoder_over_segments_needs_as_many(tmp_path, segments, says):
    values = yaml.safe_load((STUDY.parents[1] / "params.yaml").read_text())
    more = yaml.safe_load(STUDY.read_text())
    values["study"] |= more["study"]
    values["datasets"] = more["datasets"]
    values["recipes"] = {"av-digits-segments-1": ARRAYS}
    encoder = {"kind": "recurrent", "channels": 6, "segments": segments, "width": 4}
    values["model"]["encoders"] = dict.fromkeys(ARRAYS, encoder)
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(values))
    if says is None:
        assert config.load(file).model.encoders["audio"].segments == 4
        return
    with pytest.raises(UserError, match=says):
        config.load(file)


def test_a_method_that_needs_one_label_per_sample(study):
    with pytest.raises(UserError, match=r"expected a task with one label per sample, .* but got segments"):
        study({"study": {"methods": ["joint", "valuation"]}})
