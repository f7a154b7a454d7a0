"""Grids over dataset parameters: what they expand to, and every mistake in one line."""

import pytest

from pipeline_src.core.errors import UserError
from pipeline_src.study import config
from pipeline_src.study.plan import Plan
from tests.study.test_config import VALID

GRID = """\
grids:
  av_digits:
    sound:
      noisy: {snr_db: [-10.0, 0.0]}
      middle: {}
    picture:
      scarce: {contrast: [0.3, 0.6], occlusion: 0.15}
      clear: {occlusion: 0.0}
"""


@pytest.fixture
def load(tmp_path, monkeypatch):
    """A function: text of a params file -> its settings."""
    monkeypatch.chdir(tmp_path)

    def of(text: str):
        (tmp_path / "p.yaml").write_text(text)
        return config.load("p.yaml")

    return of


@pytest.fixture
def said(load):
    """A function: old and new text of GRID -> the lines of the error, from the place on."""

    def of(old: str, new: str, text: str = VALID) -> list[str]:
        assert GRID.count(old) == 1, old
        with pytest.raises(UserError) as raised:
            load(text + GRID.replace(old, new))
        return [line.split(": ", 1)[1] for line in str(raised.value).split("\n")]

    return of


def test_a_grid_is_a_dataset_for_every_combination_of_its_levels(load):
    params = load(VALID + GRID)
    names = [f"av_digits-{sound}-{picture}" for sound in ("noisy", "middle") for picture in ("scarce", "clear")]
    assert params.study.datasets == names
    values = {name: params.datasets[name] for name in names}
    assert [one.snr_db for one in values.values()] == [[-10.0, 0.0]] * 2 + [[0.0, 15.0]] * 2
    assert [one.occlusion for one in values.values()] == [0.15, 0.0] * 2
    assert [one.contrast for one in values.values()] == [[0.3, 0.6], [0.7, 1.0]] * 2
    assert {one.clips for one in values.values()} == {100}
    (grid,) = params.studied_grids.values()
    assert grid.axes == {"sound": ["noisy", "middle"], "picture": ["scarce", "clear"]}
    assert grid.datasets["noisy", "clear"] == "av_digits-noisy-clear"


def test_its_datasets_are_what_the_same_blocks_without_a_grid_are(load):
    """So that runs are shared with a study that names the block itself."""
    load(VALID)
    plain = Plan("p.yaml").datasets["av_digits"]
    load(VALID + GRID.replace("clear: {occlusion: 0.0}", "same: {}"))
    same = Plan("p.yaml").datasets["av_digits-middle-same"]
    assert same.cache_fp == plain.cache_fp


def test_a_grid_of_one_axis_and_one_that_the_study_does_not_ask_for(load):
    one = GRID[: GRID.index("    picture")]
    assert load(VALID + one).study.datasets == ["av_digits-noisy", "av_digits-middle"]
    block = VALID[VALID.index("  av_digits:") : VALID.index("recipes:")].replace("av_digits:", "av_digits-other:")
    other = block.replace("recipe: digits-1", "kind: av_digits\n    recipe: digits-1")
    text = VALID.replace("recipes:", other + "recipes:", 1) + one.replace("av_digits:", "av_digits-other:")
    params = load(text)
    assert params.study.datasets == ["av_digits"] and params.studied_grids == {}


# old text, new text, how the one line begins
MISTAKES = {
    "key": ("{snr_db:", "{snr:", "grids.av_digits.sound.noisy.snr: unknown key; did you mean 'snr_db'?"),
    "value": (
        "[-10.0, 0.0]",
        "[0.0, -10.0]",
        "grids.av_digits.sound.noisy.snr_db: expected [low, high] with low <= high, but got [0.0, -10.0]",
    ),
    "level that is no block": (
        "{snr_db: [-10.0, 0.0]}",
        "0.5",
        "grids.av_digits.sound.noisy: expected a block of keys, but got 0.5",
    ),
    "dataset": (
        "  av_digits:",
        "  av_digit:",
        "grids.av_digit: expected a key of `datasets`, but got 'av_digit'; did you mean 'av_digits'?",
    ),
    "doubled": (
        "{occlusion: 0.0}",
        "{occlusion: 0.0, snr_db: [5.0, 5.0]}",
        "grids.av_digits.picture.clear.snr_db: expected each parameter on one axis, but sound sets it as well",
    ),
    "fixed": (
        "{occlusion: 0.0}",
        "{recipe: digits-1}",
        "grids.av_digits.picture.clear.recipe: expected a parameter of the data, but got one that all levels share",
    ),
    "same": (
        "middle: {}",
        "middle: {snr_db: [-10.0, 0.0]}",
        "grids.av_digits.sound: expected levels that differ, but two of them give the same dataset",
    ),
    "one level": ("      middle: {}\n", "", "grids.av_digits.sound: expected at least 2 items after validation, not 1"),
    "name": ("middle:", "Mid/dle:", "grids.av_digits.sound.Mid/dle: expected a name of at most 64 small letters"),
    "axes": (
        "    picture:",
        "    seed: {a: {seed: 1}, b: {seed: 2}}\n    picture:",
        "grids.av_digits: expected at most 2 items after validation, not more",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(said, mistake):
    old, new, begins = MISTAKES[mistake]
    (line,) = said(old, new)
    assert line.startswith(begins)


def test_a_name_that_another_dataset_has(load):
    text = VALID.replace("  av_digits:\n", "  av_digits: &digits\n").replace(
        "recipes:", "  av_digits-noisy-clear: {<<: *digits, kind: av_digits}\nrecipes:", 1
    )
    with pytest.raises(UserError, match="expected names that no other dataset has, but got 'av_digits-noisy-clear'"):
        load(text + GRID)


def test_a_dataset_that_is_asked_for_twice(load):
    grid = GRID[: GRID.index("    picture")]
    with pytest.raises(UserError, match=r"study\.datasets: expected each value once"):
        load(VALID.replace("datasets: [av_digits]", "datasets: [av_digits, av_digits]") + grid)


def test_too_many_combinations(said):
    many = "".join(f"      l{i}: {{seed: {i}}}\n" for i in range(51))
    assert said("      noisy: {snr_db: [-10.0, 0.0]}\n      middle: {}\n", many) == [
        "grids.av_digits: expected at most 100 combinations of levels, but got 102"
    ]
