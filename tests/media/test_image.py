import numpy as np
import pytest
from PIL import Image as Pillow
from torchvision.transforms import v2

from pipeline_src.media.base import MediaError
from pipeline_src.media.image import Image, ImageParams
from tests.media.clips import cut


def extractor(**change):
    return Image(ImageParams(**{"kind": "image", "size": 32, "color": "rgb", "fit": "squash"} | change))


def picture(mode="RGB", size=(60, 45)) -> Pillow.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    return Pillow.fromarray(pixels, "RGBA").convert(mode) if mode != "RGBA" else Pillow.fromarray(pixels, "RGBA")


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp", "gif"])
def test_agrees_with_torchvision(tmp_path, suffix):
    file = tmp_path / f"a.{suffix}"
    picture().save(file)
    image = extractor()
    array = image.extract(file)
    assert array.shape == image.shape == (1, 3, 32, 32) and array.dtype == image.dtype == np.uint8
    theirs = v2.functional.resize(Pillow.open(file).convert("RGB"), [32, 32])
    np.testing.assert_array_equal(array[0], np.asarray(theirs).transpose(2, 0, 1))
    assert image.probe(file) == 0


def test_crop_keeps_the_centre(tmp_path):
    picture(size=(90, 30)).save(tmp_path / "a.png")
    array = extractor(size=30, fit="crop").extract(tmp_path / "a.png")[0]
    np.testing.assert_array_equal(array, np.asarray(picture(size=(90, 30)))[:, 30:60].transpose(2, 0, 1))


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "CMYK", "1"])
def test_any_mode_of_eight_bits(tmp_path, mode):
    file = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    picture(mode).save(file)
    assert extractor().extract(file).shape == (1, 3, 32, 32)
    assert extractor(color="grey").extract(file).shape == extractor(color="grey").shape == (1, 1, 32, 32)


def test_grey_of_28_pixels_is_kept_as_it_is(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
    Pillow.fromarray(pixels).save(tmp_path / "digit.png")
    array = extractor(size=28, color="grey").extract(tmp_path / "digit.png")
    np.testing.assert_array_equal(array[0, 0], pixels)


def test_broken_files(tmp_path):
    picture(size=(200, 200)).save(tmp_path / "cut.jpg")
    picture(size=(200, 200)).save(tmp_path / "cut.png")
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "empty.png").touch()
    Pillow.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "deep.png")
    reasons = {
        "missing.png": "missing file",
        "empty.png": "empty file",
        "text.jpg": "cannot be opened: not a picture",
        "cut.jpg": "cannot be decoded: .*truncated",
        "cut.png": "cannot be decoded: .+",
        "deep.png": "expected 8 bits a channel, but got mode I",
    }
    for name in ("cut.jpg", "cut.png"):
        cut(tmp_path / name, 0.5)
    for name, reason in reasons.items():
        with pytest.raises(MediaError, match=reason):
            extractor().extract(tmp_path / name)
