"""Whether gains grow with the head-room: by hand, and on noise that would deceive a test on the same seeds."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from pipeline_src.reports.headroom import (
    Association,
    association,
    associations,
    critical,
    halves,
    headline,
    least,
    table,
)
from pipeline_src.reports.statistics import holm
from pipeline_src.reports.wording import MINUS
from tests.reports.gridded import grid


def test_correlations_and_p_of_three_datasets_by_hand():
    """Gains rank 1, 2, 3 and 1, 3, 2, head-rooms 1, 2, 3 in both halves: the correlations are 1 and 0.5. Together the
    gains rank -2, 1, 1 about their mean, so of the six orders the two that leave the first in its place reach 1.5.
    """
    gains = [np.array([0.01, 0.02, 0.03]), np.array([0.0, 0.05, 0.04])]
    rooms = [np.array([0.02, 0.03, 0.09]), np.array([-0.01, 0.0, 0.01])]
    first, second, p = association(gains, rooms)
    assert (first, second) == (pytest.approx(1), pytest.approx(0.5))
    assert p == pytest.approx(2 / 6)
    assert association([gains[0]] * 2, rooms) == (pytest.approx(1), pytest.approx(1), pytest.approx(1 / 6))
    assert association([-gains[0]] * 2, rooms)[2] == 1, "one-sided"
    assert least(3) == pytest.approx(1 / 6) and least(9) == pytest.approx(1 / 362_880)


def test_it_is_spearmans_correlation_with_ties_against_scipy():
    rng = np.random.default_rng(3)
    gains, rooms = rng.integers(0, 4, (2, 6)) / 10, rng.integers(0, 4, (2, 6)) / 10
    first, second, p = association(list(gains), list(rooms))
    assert first == pytest.approx(stats.spearmanr(gains[0], rooms[1]).statistic)
    assert second == pytest.approx(stats.spearmanr(gains[1], rooms[0]).statistic)
    every = [
        stats.spearmanr(gains[0][list(o)], rooms[1]).statistic + stats.spearmanr(gains[1][list(o)], rooms[0]).statistic
        for o in itertools.permutations(range(6))
    ]
    assert p == pytest.approx(np.mean(np.array(every) >= first + second - 1e-9))


def test_the_smallest_correlation_that_is_significant_is_that_of_the_test_itself():
    gains, rooms = (list(values) for values in np.random.default_rng(5).normal(size=(2, 2, 6)))
    found = {}  # every rho that these values can have -> its p
    for order in itertools.permutations(range(6)):
        first, second, p = association([values[list(order)] for values in gains], rooms)
        found[round((first + second) / 2, 9)] = p
    for alpha in (0.05, 0.01):
        assert critical(gains, rooms, alpha) == pytest.approx(min(rho for rho, p in found.items() if p < alpha))
    assert math.isnan(critical(gains, rooms, 1 / 720)), "the highest has a p of 1/720"


def test_more_datasets_than_can_be_ordered_are_drawn():
    values = np.arange(12.0)
    assert association([values] * 2, [values] * 2) == (pytest.approx(1), pytest.approx(1), 1e-5)
    gains, rooms = np.random.default_rng(0).normal(size=(2, 2, 12))
    drawn = association(list(gains), list(rooms))
    assert 0.01 < drawn[2] < 0.99 and drawn == association(list(gains), list(rooms)), "the same orders every time"


def test_equal_values_have_no_correlation():
    same, other = np.zeros(4), np.arange(4.0)
    first, second, p = association([same, other], [other, other])
    assert math.isnan(first) and second == pytest.approx(1) and math.isnan(p)
    assert all(map(math.isnan, association([np.array([])] * 2, [np.array([])] * 2)))


def test_the_noise_of_joint_training_does_not_pass_for_an_association():
    """All datasets alike, a method as good as joint training: only joint's own noise varies. On the same seeds gain and
    head-room rise together; between halves they do not, and p is below 0.05 in no more than 5 % of 400 studies, but for
    three standard errors.
    """
    rng = np.random.default_rng(11)
    same, apart, small = [], [], 0
    for _ in range(400):
        joint, method, ensemble = rng.normal(0.8, 0.02, (3, 7, 4))
        gain, room = method - joint, ensemble - joint
        same.append(stats.spearmanr(gain.mean(1), room.mean(1)).statistic)
        cut = [[values[:, :2].mean(1), values[:, 2:].mean(1)] for values in (gain, room)]
        first, second, p = association(*cut)
        apart += [first, second]
        small += p < 0.05
    assert np.mean(same) > 0.3 > 0.05 > abs(np.mean(apart))
    assert small / 400 < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)


def test_halves_are_in_the_order_of_the_study():
    assert halves([5, 3, 4]) == ([5], [3, 4])
    assert halves(list(range(8))) == ([0, 1, 2, 3], [4, 5, 6, 7])


BY_HAND = {  # gains .01, .02, .03 and head-rooms .1, .2, .3 on both seeds
    ("a",): {"joint": [0.5, 0.6], "better": [0.51, 0.61], "ensemble": [0.6, 0.7]},
    ("b",): {"joint": [0.6, 0.5], "better": [0.62, 0.52], "ensemble": [0.8, 0.7]},
    ("c",): {"joint": [0.4, 0.4], "better": [0.43, 0.43], "ensemble": [0.7, 0.7]},
}


@pytest.fixture
def two():
    return grid({"sound": ["a", "b", "c"]}, BY_HAND, seeds=(7, 2))


def test_a_grid_has_an_association_per_method(two):
    (one,) = associations(two)
    assert (one.fusion, one.method, one.datasets) == ("concat", "better", 3)
    assert (one.first, one.second, one.rho) == (pytest.approx(1),) * 3
    assert (one.p, one.p_holm) == (pytest.approx(1 / 6),) * 2
    assert headline([one], 0.95) == (
        "No method's gain is shown to grow with the head-room. So few datasets cannot show it: no correlation would be"
        " significant."
    )
    assert headline([one], 0.8) == "The gain grows with the head-room for better (+1.00), by mean rank correlation."
    made = table(two, [one])
    assert [entry.value for entry in made.rows[0]] == [
        "concat",
        "better",
        "3",
        "+1.00",
        "+1.00",
        "+1.00",
        "0.17",
        "0.17",
    ]
    assert "gain over joint on seeds 7 with head-room on seeds 2" in made.caption
    assert "The smallest uncorrected p possible is 0.17." in made.caption


def test_a_dataset_with_a_lost_run_is_left_out_for_its_method_alone():
    worse = {("a",): [0.4, 0.5], ("b",): [0.5, None], ("c",): [0.39, 0.39]}
    accuracies = {levels: {**of, "worse": worse[levels]} for levels, of in BY_HAND.items()}
    better, worse = associations(grid({"sound": ["a", "b", "c"]}, accuracies, seeds=(7, 2)))
    assert (better.datasets, worse.datasets) == (3, 2)
    assert worse.rho == pytest.approx(1) and worse.p == pytest.approx(1 / 2)
    assert [better.p_holm, worse.p_holm] == pytest.approx(holm([better.p, worse.p]))


def test_a_method_that_equals_joint_training_is_not_tested_and_not_counted():
    accuracies = {levels: {**of, "same": of["joint"]} for levels, of in BY_HAND.items()}
    two = grid({"sound": ["a", "b", "c"]}, accuracies, seeds=(7, 2))
    better, same = associations(two)
    assert math.isnan(same.p) and math.isnan(same.critical) and better.p_holm == better.p
    assert "over the 1 comparison with a p" in table(two, [better, same]).caption


def test_what_would_have_been_significant_is_said():
    one = Association("concat", "a", 9, 0.1, 0.2, 0.3, 0.6, 0.52)
    other = Association("concat", "b", 9, 0.1, 0.2, 0.3, 0.6, 0.61)
    text = "A mean rank correlation of +0.52 to +0.61, by method, would be significant where no other is."
    assert headline([one, other], 0.95).endswith(text)


def test_one_seed_or_no_ensemble_is_not_tested():
    axes = {"sound": ["a", "b", "c"]}
    one = {levels: {method: values[:1] for method, values in of.items()} for levels, of in BY_HAND.items()}
    assert associations(grid(axes, one, seeds=(7,))) == []
    without = {levels: {"joint": of["joint"], "better": of["better"]} for levels, of in BY_HAND.items()}
    assert associations(grid(axes, without, seeds=(7, 2))) == []
    assert "is not tested" in headline([], 0.95)


def test_a_negative_correlation_has_its_sign(two):
    (one,) = associations(two)
    shown = table(two, [type(one)("concat", "better", 3, -0.5, -1.0, 1.0, 1.0)]).rows[0]
    assert [entry.value for entry in shown[3:6]] == [f"{MINUS}0.50", f"{MINUS}1.00", f"{MINUS}0.75"]
