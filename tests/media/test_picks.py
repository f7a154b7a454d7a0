"""Which moments are looked at, by hand."""

from fractions import Fraction

import pytest
from pydantic import ValidationError

from pipeline_src.media.picks import PickParams


def times(seconds, **how):
    return [float(t) for t in PickParams(kind="k", **how).times(Fraction(seconds))]


@pytest.mark.parametrize(
    ("how", "seconds", "expected"),
    [
        ({"count": 2, "pick": "centers"}, 8, [2, 6]),
        ({"count": 2, "pick": "starts"}, 8, [0, 4]),
        ({"count": 3, "pick": "ends"}, 8, [0, 4, 8]),
        ({"count": 1, "pick": "ends"}, 8, [0]),
        ({"count": 3, "pick": "first", "fps": 2.0}, 8, [0, 0.5, 1]),
        ({"count": 3, "pick": "first", "fps": 1.0}, 1, [0, 1, 2]),
        # Kinetics-Sounds in OGM-GE: files 1, 4 and 7 of ten, stored at the middle of every second
        ({"count": 3, "pick": "starts", "of": 10}, 10, [0.5, 3.5, 6.5]),
        ({"count": 3, "pick": "centers", "of": 10}, 10, [0.5, 3.5, 6.5]),
        # UCF-101 in BalanceBenchmark: files 1, 3 and 5 of six
        ({"count": 3, "pick": "centers", "of": 6}, 12, [1, 5, 9]),
        # CREMA-D in Diagnosing & Re-learning: files 2 and 7 of ten
        ({"count": 2, "pick": "centers", "of": 10}, 10, [1.5, 6.5]),
        # Kinetics-Sounds in OPM: of the files 9, 0, 1 ... 8 of ten those at places 0, 4 and 9, in the order of time
        ({"count": 3, "pick": "rolled", "of": 10}, 10, [3.5, 8.5, 9.5]),
        ({"count": 3, "pick": "rolled", "of": 3}, 3, [0.5, 1.5, 2.5]),
    ],
)
def test_times(how, seconds, expected):
    assert times(seconds, **how) == expected


@pytest.mark.parametrize(
    "how",
    [
        {"pick": "first"},
        {"pick": "centers", "fps": 1.0},
        {"pick": "ends", "of": 4},
        {"pick": "starts", "of": 2},
        {"pick": "rolled"},
        {"pick": "rolled", "of": 10, "count": 2},
        {"pick": "middle"},
        {"pick": "first", "fps": 0.0},
        {"pick": "centers", "count": 0},
    ],
)
def test_what_makes_no_sense_is_refused(how):
    with pytest.raises(ValidationError):
        PickParams(**{"kind": "k", "count": 3} | how)
