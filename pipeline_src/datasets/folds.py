"""Folds that are stratified by label and keep groups whole: scikit-learn's StratifiedGroupKFold with shuffling.

The rule is that of scikit-learn 1.9, to the last bit: groups in a random order, those first whose samples are spread
most unevenly over the classes. Each goes to the fold that keeps the classes' fractions most alike over the folds, and
of about equal ones to the smallest. scikit-learn holds a matrix of groups x classes, 4 GB of a million videos of 500
classes, and computes the deviation of every class for every fold and group. Here only that of a group's own classes is
computed, and the matrix in parts.
"""

import numpy as np

RELATIVE, ABSOLUTE = 1e-5, 1e-8  # two spreads that differ by less are about equal (numpy.isclose)
BLOCK = 1 << 22  # numbers of a part of the matrix of groups x classes


def folds(label: np.ndarray, group: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The fold (N,), below `count`, of each sample. Labels (N,) and groups (N,) are numbers from 0 on, in the order of
    their names.
    """
    total = np.bincount(label).astype(float)
    order, starts, classes, sizes = _groups(label, group, len(total), seed)
    spread = _Spread(total, count)
    fold_of = np.empty(len(starts) - 1, dtype=np.intp)
    for i in order.tolist():
        here = slice(starts[i], starts[i + 1])
        fold_of[i] = spread.add(classes[here], sizes[here])
    return fold_of[group]


def _groups(label: np.ndarray, group: np.ndarray, classes: int, seed: int) -> tuple[np.ndarray, ...]:
    """The groups in the order in which they are given a fold; and of group g, from starts[g] to starts[g + 1], its
    classes and how many samples it has of each.
    """
    pairs, sizes = np.unique(group.astype(np.int64) * classes + label, return_counts=True)
    of, which = np.divmod(pairs, classes)
    starts = np.searchsorted(of, np.arange(int(group.max()) + 2))
    groups, rows = len(starts) - 1, max(1, BLOCK // classes)
    uneven = np.empty(groups)
    for first in range(0, groups, rows):
        last = min(first + rows, groups)
        part = slice(starts[first], starts[last])
        dense = np.zeros((last - first, classes))
        dense[of[part] - first, which[part]] = sizes[part]
        uneven[first:last] = dense.std(axis=1)
    shuffled = np.arange(groups)
    np.random.RandomState(seed).shuffle(shuffled)
    return shuffled[np.argsort(-uneven[shuffled], kind="stable")], starts, which, sizes.astype(float)


class _Spread:
    """How unevenly the classes are spread: of each class, the deviation over folds of its fraction in a fold."""

    def __init__(self, total: np.ndarray, count: int):
        self.total, self.count = total, count
        self.counts = np.zeros((count, len(total)))
        self.deviation = np.zeros((count, len(total)))  # of each class, a row per fold that a group may go to
        self.samples = [0.0] * count
        self.each = np.arange(count)

    def add(self, classes: np.ndarray, sizes: np.ndarray) -> int:
        """Give a group with so many samples of these classes a fold, and return it."""
        counts, total = self.counts[:, classes], self.total[classes]
        before = (counts / total)[:, None]
        trials = np.repeat(before, self.count, axis=1)  # [k, i]: fractions in fold k if the group goes to fold i
        trials[self.each, self.each] = (counts + sizes) / total
        if len(self.total) == 1:
            tried = np.ascontiguousarray(trials[:, :, 0].T).std(axis=1)[:, None]  # its sum has another order
        else:
            tried = _deviation(trials, self.count)
        self.deviation[:, classes] = tried
        means = np.add.reduce(self.deviation, axis=1) / len(self.total)
        best = self._best(means.tolist())
        self.deviation[:, classes] = tried[best]
        self.counts[best, classes] += sizes
        self.samples[best] += float(sizes.sum())
        return best

    def _best(self, spreads: list[float]) -> int:
        best, low, least = 0, spreads[0], self.samples[0]
        for i in range(1, self.count):
            value, samples = spreads[i], self.samples[i]
            if value < low or (samples < least and abs(value - low) <= ABSOLUTE + RELATIVE * abs(low)):
                best, low, least = i, value, samples
        return best


def _deviation(values: np.ndarray, count: int) -> np.ndarray:
    """numpy.std(values, axis=0) of (count, ...), in its order of sums."""
    apart = values - np.add.reduce(values, axis=0) / count
    return np.sqrt(np.add.reduce(apart * apart, axis=0) / count)
