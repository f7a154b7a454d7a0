"""The choice of equal tuning: best mean on val, ties, divergence, edges; and what its record holds."""

from types import SimpleNamespace

import pytest

from pipeline_src.core.errors import UserError
from pipeline_src.study import choice
from pipeline_src.study.choice import Search, choose, edges
from pipeline_src.tasks.base import Metric

ACCURACY = Metric("accuracy", "accuracy", "%", "The fraction.")
ERROR = Metric("mae", "error", "", "The mean absolute error.", higher=False)
LR = "training.lr"


@pytest.fixture
def search(monkeypatch):
    """A function: scores of each trial, one per seed (None: diverged) -> a Search whose trials' records have them."""
    monkeypatch.setattr(choice, "RunFiles", lambda run: SimpleNamespace(record=lambda: run.about))

    def of(*scores: list[float | None], metric: str = "accuracy") -> Search:
        def about(score: float | None) -> dict:
            # A run that diverged has an epoch that was the best before; its score does not count.
            status = "diverged" if score is None else "complete"
            selected = {"epoch": 3, f"val_{metric}": 0.99 if score is None else score}
            return {"status": status, "selected": selected}

        runs = tuple(
            tuple(
                SimpleNamespace(cell=SimpleNamespace(fp=f"trial{i}"), seed=100 + j, about=about(score))
                for j, score in enumerate(each)
            )
            for i, each in enumerate(scores)
        )
        return Search(tuple({LR: (i + 1) / 10} for i in range(len(scores))), runs)

    return of


def test_the_best_mean_over_the_seeds_is_chosen(search):
    made = choose(search([0.9, 0.1], [0.6, 0.6], [0.7, 0.4]), ACCURACY, "run")
    assert (made["chosen"], made["values"], made["seeds"], made["metric"]) == (1, {LR: 0.2}, [100, 101], "val_accuracy")
    assert [trial["mean"] for trial in made["trials"]] == pytest.approx([0.5, 0.6, 0.55])
    assert made["trials"][0] == {"values": {LR: 0.1}, "scores": [0.9, 0.1], "mean": 0.5}


def test_of_equal_scores_the_first_drawn_is_chosen(search):
    assert choose(search([0.5, 0.5], [0.7, 0.5], [0.5, 0.7], [0.6, 0.6]), ACCURACY, "run")["chosen"] == 1


def test_where_a_lower_metric_is_better_the_lowest_is_chosen(search):
    made = choose(search([0.5], [0.3], [0.3], [0.4], metric="mae"), ERROR, "run")
    assert (made["chosen"], made["metric"]) == (1, "val_mae")


def test_a_trial_that_diverged_in_one_seed_is_worse_than_any_other(search):
    made = choose(search([0.9, None], [0.2, 0.1], [None, None]), ACCURACY, "run")
    assert made["chosen"] == 1
    assert [trial["mean"] for trial in made["trials"]] == [None, pytest.approx(0.15), None]
    assert made["trials"][0]["scores"] == [0.9, None]


def test_a_score_that_is_no_number_counts_as_diverged(search):
    assert choose(search([float("nan")], [0.2]), ACCURACY, "run")["chosen"] == 1


def test_where_every_trial_diverged_there_is_no_choice(search):
    with pytest.raises(
        UserError, match=r"^digits/concat/pmr-tuned seed 0: expected a trial .* all 2 did; change tuning"
    ):
        choose(search([None], [None]), ACCURACY, "digits/concat/pmr-tuned seed 0")


@pytest.mark.parametrize(
    ("tried", "chosen", "found"),
    [
        ([0.1, 0.2, 0.3], 1, {}),
        ([0.1, 0.2, 0.3], 0, {"x": "lowest"}),
        ([0.1, 0.2, 0.3], 2, {"x": "highest"}),
        ([0.3, 0.1, 0.3], 0, {"x": "highest"}),
        ([0.1, 0.1, 0.1], 0, {}),  # nothing was searched
        (["a", "b"], 0, {}),
        ([True, False], 0, {}),
        ([None, 3, 5], 1, {"x": "lowest"}),
        ([None, 3, 5], 0, {}),
    ],
)
def test_a_choice_is_on_the_edge_where_nothing_was_tried_beyond_it(tried, chosen, found):
    assert edges(tuple({"x": value} for value in tried), chosen) == found


def test_the_edge_is_that_of_what_was_tried_whether_or_not_it_diverged(search):
    assert choose(search([None], [0.5], [None]), ACCURACY, "run")["edges"] == {}


def test_the_address_holds_trials_and_seeds_and_no_score(search):
    first, second = search([0.1, 0.2], [0.3, 0.4]), search([0.5, 0.6], [0.7, None])
    assert (
        first.address() == second.address() == [[("trial0", 100), ("trial0", 101)], [("trial1", 100), ("trial1", 101)]]
    )
