"""What `check` does with many clips and classes."""

import pandas as pd

from pipeline_src.datasets import check


class Counted:
    """A table of classes and splits that counts how often it is looked into."""

    looks = 0

    @property
    def label(self) -> pd.Series:
        self.looks += 1
        return pd.Series(["a", "b"])

    split = pd.Series(["train", "test"])


class Few:
    classes = ("a", "b", "c", "d")


def test_the_clips_are_looked_at_once_whatever_the_number_of_classes(monkeypatch):
    counted = Counted()
    monkeypatch.setattr(check, "_by_class", lambda table, dataset: counted)
    assert check._empty("few", pd.DataFrame(), Few()) == [
        "few: expected training clips of every class, but got none of b, c, d"
    ]
    assert counted.looks == 1
