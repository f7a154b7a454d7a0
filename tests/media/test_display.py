"""Decoding only what is needed gives the very frames that decoding everything gives."""

from fractions import Fraction

import numpy as np
import pytest

from pipeline_src.media import display
from pipeline_src.media.base import MediaError
from pipeline_src.media.display import on_display
from tests.media.clips import cut, noise, write

FRAMES, FPS = 60, 25


def moving(count: int = FRAMES, height: int = 48, width: int = 64) -> np.ndarray:
    """Frames uint8 (count, H, W, 3) that all differ, with motion that tempts an encoder to use B-frames."""
    texture = np.random.default_rng(0).integers(0, 256, (height, width + 2 * count, 3), dtype=np.uint8)
    return np.stack([texture[:, 2 * k : 2 * k + width] for k in range(count)])


@pytest.fixture
def decoded(monkeypatch):
    """Counts the frames that are decoded."""
    counts = []
    real = display._decode_spans

    def spy(file, chosen, spans):
        counts.append(sum(last - key + 1 for key, last in spans))
        return real(file, chosen, spans)

    monkeypatch.setattr(display, "_decode_spans", spy)
    return counts


ENCODINGS = {
    "one group of pictures": (".mp4", "libx264", {"g": "250"}),
    "short groups": (".mp4", "libx264", {"g": "12"}),
    "pyramid of B-frames": (".mp4", "libx264", {"g": "16", "bf": "6", "x264-params": "b-pyramid=normal:scenecut=0"}),
    "open groups": (".mkv", "libx264", {"g": "10", "bf": "3", "x264-params": "open-gop=1:scenecut=0"}),
    "open groups, mp4": (".mp4", "libx264", {"g": "10", "bf": "3", "x264-params": "open-gop=1:scenecut=0"}),
    "intra refresh": (".mkv", "libx264", {"g": "10", "x264-params": "intra-refresh=1:keyint=10"}),
    "no B-frames": (".mp4", "libx264", {"g": "8", "bf": "0"}),
    "MPEG-4 part 2": (".mp4", "mpeg4", {"g": "10", "bf": "2"}),
    "flv": (".flv", "flv1", {"g": "10"}),
    "flv with H.264": (".flv", "libx264", {"g": "10"}),
    "VP9": (".webm", "libvpx-vp9", {"g": "10", "deadline": "realtime", "cpu-used": "8"}),
    "avi": (".avi", "mpeg4", {"g": "10"}),
    "avi with B-frames": (".avi", "libx264", {"g": "10"}),
}


@pytest.mark.parametrize("name", ENCODINGS)
def test_every_frame_equals_that_of_decoding_everything(tmp_path, name):
    suffix, codec, options = ENCODINGS[name]
    file = write(tmp_path / f"clip{suffix}", moving(), fps=FPS, codec=codec, options=options)
    everything = [[Fraction(k, FPS)] for k in range(FRAMES)]
    some = [[Fraction(k, FPS) for k in (3, 4, 31, 55)], [Fraction(-1), Fraction(1, 3), Fraction(99)]]
    for wanted in everything + some:
        few = on_display(file, lambda seconds, rate, wanted=wanted: wanted)
        all_ = on_display(file, lambda seconds, rate, wanted=wanted: wanted, whole=True)
        assert [f.pts for f in few] == [f.pts for f in all_]
        for one, other in zip(few, all_, strict=True):
            np.testing.assert_array_equal(one.to_ndarray(format="rgb24"), other.to_ndarray(format="rgb24"))


def test_decoding_begins_at_the_keyframe_before(tmp_path, decoded):
    file = write(
        tmp_path / "clip.mp4", moving(), fps=FPS, codec="libx264", options={"g": "10", "x264-params": "scenecut=0"}
    )
    on_display(file, lambda seconds, rate: [Fraction(51, FPS)])
    assert decoded[-1] <= 6
    on_display(file, lambda seconds, rate: [Fraction(0), Fraction(50, FPS)])
    assert decoded[-1] == 2


def test_times_may_stand_in_any_order_and_twice(tmp_path):
    file = write(tmp_path / "clip.mp4", moving(), fps=FPS)
    frames = on_display(file, lambda seconds, rate: [Fraction(k, FPS) for k in (7, 2, 7)])
    assert frames[0].pts == frames[2].pts != frames[1].pts


def test_what_the_decoder_cannot_give_alone_is_decoded_with_all_before_it(tmp_path, monkeypatch):
    file = write(tmp_path / "clip.mp4", moving(), fps=FPS)
    expected = on_display(file, lambda seconds, rate: [Fraction(1)])
    monkeypatch.setattr(display, "_decode_spans", lambda *arguments: None)
    assert on_display(file, lambda seconds, rate: [Fraction(1)])[0].pts == expected[0].pts


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".flv"])
def test_a_file_cut_behind_the_last_wanted_frame_is_still_found_out(tmp_path, suffix):
    frames = moving()
    codec, sound = ("flv1", None) if suffix == ".flv" else (None, noise(FRAMES / FPS))
    file = write(tmp_path / f"clip{suffix}", frames, fps=FPS, wave=sound, codec=codec, faststart=True)
    assert len(on_display(file, lambda seconds, rate: [Fraction(0)])) == 1
    with pytest.raises(MediaError, match=r"truncated|damaged"):
        on_display(cut(file, 0.8), lambda seconds, rate: [Fraction(0)])
