import numpy as np
import pytest

from pipeline_src.media.array import Array, ArrayParams
from pipeline_src.media.base import MediaError
from tests.media.clips import cut


def extractor(**change):
    return Array(ArrayParams(**{"kind": "array", "length": 5, "features": 3, "non_finite": "zero"} | change))


def saved(folder, values):
    np.save(folder / "a.npy", values)
    return folder / "a.npy"


def test_padding_and_cutting(tmp_path):
    steps = np.arange(1, 10, dtype=np.float32).reshape(3, 3)
    file = saved(tmp_path, steps)
    array = extractor()
    found = array.extract(file)
    assert found.shape == array.shape == (5, 3) and found.dtype == array.dtype == np.float32
    np.testing.assert_array_equal(found, np.concatenate([steps, np.zeros((2, 3))]))
    np.testing.assert_array_equal(extractor(pad="start").extract(file), np.concatenate([np.zeros((2, 3)), steps]))
    np.testing.assert_array_equal(extractor(length=2).extract(file), steps[:2])
    np.testing.assert_array_equal(extractor(length=2, keep="end").extract(file), steps[1:])
    np.testing.assert_array_equal(extractor(length=3, keep="end").extract(file), steps)
    assert array.probe(file) == 0


def test_values_that_are_not_finite(tmp_path):
    file = saved(tmp_path, np.array([[1, -np.inf, 2], [np.nan, 3, 1e300]]))
    np.testing.assert_array_equal(extractor(length=2).extract(file), [[1, 0, 2], [0, 3, 0]])
    with pytest.raises(MediaError, match="3 of 6 values are not finite"):
        extractor(non_finite="refuse").extract(file)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (np.zeros((4, 2)), r"but got float64 \(4, 2\)"),
        (np.zeros(3), r"but got float64 \(3,\)"),
        (np.zeros((1, 4, 3)), r"but got float64 \(1, 4, 3\)"),
        (np.array([["a", "b", "c"]]), r"but got <U1 \(1, 3\)"),
        (np.zeros((2, 3), complex), r"but got complex128 \(2, 3\)"),
        (np.zeros((0, 3)), "no steps"),
    ],
)
def test_another_array_is_refused(tmp_path, values, found):
    with pytest.raises(MediaError, match=found):
        extractor().extract(saved(tmp_path, values))


class Unpickled:
    """An object whose unpickling would be noticed."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


def test_broken_files(tmp_path):
    reasons = {"missing.npy": "missing file", "empty.npy": "empty file", "text.npy": "cannot be opened"}
    (tmp_path / "empty.npy").touch()
    (tmp_path / "text.npy").write_text("1 2 3")
    np.save(tmp_path / "cut.npy", np.zeros((40, 3)))
    cut(tmp_path / "cut.npy", 0.5)
    np.save(tmp_path / "objects.npy", np.array([[Unpickled()] * 3], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "archive.npz", np.zeros((2, 3)))
    reasons |= {"cut.npy": "cannot be opened", "objects.npy": "cannot be opened", "archive.npz": "but got an archive"}
    for name, reason in reasons.items():
        with pytest.raises(MediaError, match=reason):
            extractor().extract(tmp_path / name)
