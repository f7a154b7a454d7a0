import re
import subprocess
import sys

import numpy as np
import pytest
from pydantic import ValidationError

from pipeline_src.media.base import MediaError, extractors
from pipeline_src.media.decode import decode, opened
from pipeline_src.media.frames import Frames, FramesParams
from tests.media.clips import broken, greys, noise, write


def extractor(count=3, size=32, **how):
    return Frames(FramesParams(**{"kind": "frames", "count": count, "size": size, "pick": "centers"} | how))


def numbers(array):
    """Frame numbers that the grey levels of `greys` stand for."""
    levels = array.reshape(len(array), -1)
    assert np.ptp(levels.astype(int), axis=1).max() <= 8, "frames are not plain"
    return ((levels.mean(1) - 20) / 16).round().astype(int).tolist()


@pytest.mark.parametrize(
    ("suffix", "codec"), [(".mp4", "libx264"), (".mkv", "libx264"), (".avi", "mpeg4"), (".avi", "libx264")]
)
@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, [6]), (2, [3, 9]), (3, [2, 6, 10]), (12, list(range(12))), (24, [k // 2 for k in range(24)])],
)
def test_picks_the_frame_on_display_at_the_centre_of_each_part(tmp_path, suffix, codec, count, expected):
    # Matroska states one duration for all streams, and the sound's last packet would lengthen it.
    file = write(tmp_path / f"clip{suffix}", greys(12), wave=None if suffix == ".mkv" else noise(1), codec=codec)
    frames = extractor(count)
    array = frames.extract(file)
    assert array.shape == frames.shape == (count, 3, 32, 32)
    assert array.dtype == frames.dtype == np.uint8
    assert numbers(array) == expected


@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "libx264"), (".avi", "mpeg4"), (".flv", "flv1")])
@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"pick": "first", "fps": 1.0}, [0, 4, 8]),
        ({"pick": "first", "fps": 0.5}, [0, 8, 11]),  # of a clip of 3 s, the last frame in the place of that at 4 s
        ({"pick": "starts"}, [0, 4, 8]),
        ({"pick": "ends"}, [0, 6, 11]),
        ({"pick": "starts", "of": 6}, [1, 5, 9]),
    ],
)
def test_published_picks_on_real_files(tmp_path, suffix, codec, how, expected):
    file = write(tmp_path / f"clip{suffix}", greys(12), fps=4, codec=codec, options={"g": "5"})
    assert numbers(extractor(3, **how).extract(file)) == expected


@pytest.mark.parametrize(
    ("part", "how", "expected"),  # of 12 frames, four a second
    [
        ((1.0, 3.0), {"pick": "first", "fps": 1.0}, [4, 8, 11]),  # at 1, 2 and 3 s: the last frame
        ((1.0, 2.0), {"pick": "first", "fps": 1.0}, [4, 8, 8]),  # none is later than the end
        ((1.0, 2.0), {"pick": "centers"}, [4, 6, 7]),
        ((2.0, 10.0), {"pick": "ends"}, [8, 10, 11]),  # the video ends before the part does
        ((0.0, 3.0), {"pick": "centers"}, [2, 6, 10]),  # the whole
    ],
)
def test_the_frames_of_a_part(tmp_path, part, how, expected):
    file = write(tmp_path / "clip.mp4", greys(12), fps=4, options={"g": "5"})
    assert numbers(extractor(3, **how).extract_part(file, *part)) == expected
    with pytest.raises(MediaError, match="expected pictures after 3 s"):
        extractor(3, **how).extract_part(file, 3.0, 4.0)


def test_squash_agrees_with_what_torchvision_does_to_the_decoded_frame(tmp_path):
    from PIL import Image
    from torchvision.transforms import v2

    ramp = np.linspace(0, 255, 160)[None, :, None] * np.ones((120, 1, 3))
    waves = 60 * np.sin(np.indices((120, 160)).sum(0) / 9)[..., None]
    frame = (0.6 * ramp + 60 + waves).clip(0, 255).astype(np.uint8)
    file = write(tmp_path / "clip.mp4", np.repeat(frame[None], 4, axis=0), options={"crf": "8"})
    ours = extractor(1, 96, fit="squash", interpolation="bilinear").extract(file)[0].astype(int)
    with opened(file, "video") as (container, stream):
        decoded = next(container.decode(stream)).to_ndarray(format="rgb24")
    theirs = np.asarray(v2.functional.resize(Image.fromarray(decoded), [96, 96])).transpose(2, 0, 1).astype(int)
    # Colour is scaled before it is turned from YUV to RGB here, and after it there.
    assert np.abs(ours - theirs).mean() < 1.5 and np.abs(ours - theirs).max() <= 12
    cropped = extractor(1, 96, interpolation="bilinear").extract(file)[0].astype(int)
    assert np.abs(cropped - theirs).mean() > 5, "squash and crop must differ on an oblong frame"


def test_channels_are_red_green_blue(tmp_path):
    frames = np.zeros((4, 32, 32, 3), np.uint8)
    frames[...] = (200, 100, 30)
    array = extractor(1).extract(write(tmp_path / "clip.mp4", frames))
    assert np.abs(array[0].mean((1, 2)) - (200, 100, 30)).max() < 6


@pytest.mark.parametrize("axis", [1, 2])
def test_keeps_the_centre_of_an_oblong_frame(tmp_path, axis):
    frames = np.full((4, 96, 96, 3), 255, np.uint8)
    frames[:, 24:72] = 40
    frames = frames[:, :, :48] if axis == 1 else frames.transpose(0, 2, 1, 3)[:, :48]
    array = extractor(1, 24).extract(write(tmp_path / "clip.mp4", frames))[0]
    assert np.abs(array[:, 2:-2, 2:-2].astype(int) - 40).max() < 10


def test_shrinking_does_not_alias(tmp_path):
    board = (np.indices((192, 192)).sum(0) % 2 * 200 + 20).astype(np.uint8)
    frames = np.repeat(board[None, :, :, None], 3, axis=3).repeat(4, axis=0)
    array = extractor(1, 48).extract(write(tmp_path / "clip.avi", frames))
    assert abs(array.mean() - 120) < 12 and array.std() < 12


def test_decodes_no_more_frames_than_asked(tmp_path):
    taken = []
    with opened(write(tmp_path / "clip.mp4", greys(12)), "video") as (container, stream):
        decode(container, stream, lambda frame: taken.append(frame.pts) or len(taken) == 3)
    assert len(taken) == 3


def test_probe_reads_the_duration(tmp_path):
    assert extractor().probe(write(tmp_path / "clip.mp4", greys(9), fps=6)) == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("missing", r"missing file"),
        ("folder", r"missing file"),
        ("empty", r"empty file"),
        ("garbage", r"cannot be opened: .+"),
        ("blind", r"no video stream"),
        ("moov first", r"truncated: decoded 0\.\d\d s of 1\.00 s"),
        ("moov last", r"cannot be opened: .+"),
        ("cut mkv", r"truncated: decoded 0\.\d\d s of 1\.\d\d s"),
        ("cut avi", r"truncated: [\d,]+ bytes of [\d,]+"),
    ],
)
def test_a_broken_file_is_a_media_error_with_its_reason(tmp_path, kind, reason):
    file = broken(tmp_path, kind)
    with pytest.raises(MediaError) as caught:
        extractor(1).extract(file)
    assert re.fullmatch(reason, str(caught.value))
    assert file.stem not in str(caught.value).split()


def test_an_unknown_codec_is_a_media_error(tmp_path):
    file = write(tmp_path / "clip.mp4", greys(12))
    file.write_bytes(file.read_bytes().replace(b"avc1", b"zzz1"))
    with pytest.raises(MediaError, match=r"cannot be decoded: unknown codec"):
        extractor().extract(file)


@pytest.mark.parametrize("kind", ["missing", "empty", "garbage", "blind", "moov last"])
def test_probe_finds_what_the_container_shows(tmp_path, kind):
    with pytest.raises(MediaError):
        extractor().probe(broken(tmp_path, kind))


@pytest.mark.parametrize("change", [{"count": 0}, {"size": 4}, {"pick": "random"}, {"sise": 3}])
def test_parameters_are_checked(change):
    with pytest.raises(ValidationError):
        FramesParams(**{"kind": "frames", "count": 3, "size": 48, "pick": "centers"} | change)


def test_importing_is_cheap_and_the_registry_knows_the_names():
    modules = "pipeline_src.media.frames, pipeline_src.media.log_stft, pipeline_src.datasets.av_digits"
    heavy = "{'av', 'torch', 'torchvision', 'sklearn', 'scipy', 'espeakng_loader'} & set(sys.modules)"
    code = f"import sys, {modules}; print(sorted({heavy}))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    assert extractors["frames"] is Frames
