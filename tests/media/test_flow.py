import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from pipeline_src.media.base import MediaError
from pipeline_src.media.flow import Flow, FlowParams, as_bytes, tv_l1
from pipeline_src.media.flow_pictures import FlowPictures, FlowPicturesParams
from tests.media.clips import broken, cut, write


def texture(height=64, width=120) -> np.ndarray:
    """Smooth grey texture, uint8 (H, W)."""
    values = gaussian_filter(np.random.default_rng(0).normal(size=(height, width)), 2)
    return (127 + 100 * values / np.abs(values).max()).astype(np.uint8)


def extractor(**change):
    how = {"kind": "flow", "count": 2, "pick": "centers", "size": 48, "fit": "crop"}
    return Flow(FlowParams(**how | change))


@pytest.mark.parametrize(("right", "down"), [(3, 0), (-2, 1), (0, -2)])
def test_a_shifted_pattern_has_its_shift(right, down):
    whole = texture()
    before, after = whole[8:56, 20:90], whole[8 - down : 56 - down, 20 - right : 90 - right]
    u, v = tv_l1(before, after)[:, 8:-8, 8:-8]
    assert abs(np.median(u) - right) < 0.1 and abs(np.median(v) - down) < 0.1


def test_bytes_by_hand():
    assert as_bytes(np.array([-99.0, -20, -10, 0, 10, 20, 99]), 20).tolist() == [0, 0, 64, 128, 191, 255, 255]


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_motion_of_a_video(tmp_path, suffix):
    whole = texture(48, 160)
    frames = np.stack([np.repeat(whole[:, 60 - 2 * k : 108 - 2 * k, None], 3, axis=2) for k in range(24)])
    file = write(tmp_path / f"clip{suffix}", frames, fps=25, options={"g": "6", "b": "4000000"})
    flow = extractor()
    array = flow.extract(file)
    assert array.shape == flow.shape == (2, 2, 48, 48) and array.dtype == flow.dtype == np.uint8
    inside = array[:, :, 8:-8, 8:-8].astype(int)
    per_pixel = 127.5 / 20
    assert np.abs(np.median(inside[:, 0], axis=(1, 2)) - (127.5 + 2 * per_pixel)).max() < 2.5
    assert np.abs(np.median(inside[:, 1], axis=(1, 2)) - 127.5).max() < 2.5
    twice = extractor(gap=2).extract(file)[:, 0, 8:-8, 8:-8]
    assert abs(np.median(twice) - (127.5 + 4 * per_pixel)) < 4
    half = extractor(side=24).extract(file)[:, 0, 8:-8, 8:-8]
    assert abs(np.median(half) - (127.5 + per_pixel)) < 2.5, "displacements are pixels of `side`"
    assert flow.probe(file) == pytest.approx(24 / 25, abs=0.05)


def test_the_last_moment_has_a_pair_and_a_still_no_motion(tmp_path):
    still = np.repeat(texture(48, 48)[None, :, :, None], 3, axis=3).repeat(4, axis=0)
    array = extractor(pick="ends").extract(write(tmp_path / "clip.mp4", still, fps=4))
    assert np.abs(array.astype(int) - 128).max() <= 3


@pytest.mark.parametrize("kind", ["missing", "empty", "garbage", "blind", "moov first", "cut avi"])
def test_a_broken_file_is_a_media_error(tmp_path, kind):
    with pytest.raises(MediaError):
        extractor().extract(broken(tmp_path, kind))


@pytest.fixture
def stored(tmp_path):
    """Nine pairs of pictures, u of level 10 k and v of 10 k + 5."""
    for part, more in (("u", 0), ("v", 5)):
        folder = tmp_path / "tvl1_flow" / part / "v_Archery_g01_c01"
        folder.mkdir(parents=True)
        for k in range(1, 10):
            grey = np.full((24, 32), 10 * k + more, np.uint8)
            Image.fromarray(grey).save(folder / f"frame{k:06}.jpg", quality=95)
    return tmp_path / "tvl1_flow/u/v_Archery_g01_c01/frame000001.jpg"


def reader(**change):
    how = {"kind": "flow_pictures", "count": 3, "pick": "centers", "size": 16, "fit": "squash"}
    return FlowPictures(FlowPicturesParams(**how | change))


def test_stored_pictures_are_picked_in_pairs(stored):
    array = reader().extract(stored)
    assert array.shape == reader().shape == (3, 2, 16, 16)
    assert array.mean((2, 3)).round().tolist() == [[20, 25], [50, 55], [80, 85]]
    assert reader(pick="first", fps=1.0).extract(stored)[:, 0, 0, 0].tolist() == [10, 20, 30]
    assert reader(pick="ends").extract(stored)[:, 0, 0, 0].tolist() == [10, 50, 90]
    assert reader().probe(stored) == 0


def test_broken_stored_pictures(stored):
    other = stored.parent.parent.parent / "v" / stored.parent.name
    with pytest.raises(MediaError, match="missing file"):
        reader().extract(stored.with_name("none.jpg"))
    with pytest.raises(MediaError, match="expected a picture below u/"):
        reader().extract(other / stored.name)
    cut(stored.with_name("frame000005.jpg"), 0.5)
    with pytest.raises(MediaError, match=r"cannot be (opened|decoded)"):
        reader().extract(stored)
    (other / "frame000003.jpg").unlink()
    with pytest.raises(MediaError, match=r"u and v differ: frame000003\.jpg and 0 more have no pair"):
        reader().probe(stored)
