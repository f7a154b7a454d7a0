import re

import numpy as np
import pytest
from pydantic import ValidationError

from pipeline_src.media.base import MediaError
from pipeline_src.media.decode import mono
from pipeline_src.media.log_stft import LogSTFT, LogSTFTParams, fitted, log_stft
from tests.media.clips import broken, greys, noise, tone, write

OGM_GE = {
    "kind": "log_stft",
    "sample_rate": 22_050,
    "seconds": 3.0,
    "pad": "tile",
    "n_fft": 512,
    "hop": 353,
    "floor": 1e-7,
}


def extractor(**change):
    return LogSTFT(LogSTFTParams(**OGM_GE | change))


def by_definition(wave, n_fft, hop):
    """|STFT| in double precision, from the definition of the discrete Fourier transform."""
    mirrored = np.concatenate([wave[n_fft // 2 : 0 : -1], wave, wave[-2 : -n_fft // 2 - 2 : -1]]).astype(float)
    n = np.arange(n_fft)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * n / n_fft)
    kernel = np.exp(-2j * np.pi * np.outer(np.arange(n_fft // 2 + 1), n) / n_fft)
    starts = range(0, len(wave) + 1, hop)
    return np.stack([np.abs(kernel @ (window * mirrored[start : start + n_fft])) for start in starts], axis=1)


@pytest.mark.parametrize(("samples", "n_fft", "hop"), [(2000, 64, 17), (2048, 128, 64), (513, 512, 353)])
def test_agrees_with_the_definition(samples, n_fft, hop):
    wave = noise(1)[0][:samples]
    expected = by_definition(wave, n_fft, hop)
    found = log_stft(wave, n_fft, hop, 1e-2)
    assert found.shape == expected.shape == (n_fft // 2 + 1, 1 + samples // hop)
    # Single against double precision: magnitudes up to 10 to some 1e-6 each, over a floor of 1e-2.
    np.testing.assert_allclose(found, np.log(expected + 1e-2), atol=5e-4)


@pytest.mark.parametrize(
    ("rate", "seconds", "n_fft", "hop", "shape"),
    [(22_050, 3, 512, 353, (257, 188)), (16_000, 5, 256, 128, (129, 626))],
    ids=["CREMA-D", "VGGSound"],
)
def test_agrees_with_librosa(rate, seconds, n_fft, hop, shape):
    import librosa

    wave = noise(seconds, rate)[0] + tone(seconds, 440, rate)[0]
    # Ends mirrored, as was librosa's default until 0.10.
    theirs = np.log(np.abs(librosa.stft(wave, n_fft=n_fft, hop_length=hop, pad_mode="reflect")) + 1e-7)
    ours = log_stft(wave, n_fft, hop, 1e-7)
    assert ours.shape == theirs.shape == shape
    # Single precision in another order: 5e-6 of the largest magnitude, and the logarithm of the small ones shows it.
    np.testing.assert_allclose(np.exp(ours), np.exp(theirs), atol=5e-6 * np.exp(theirs.max()))
    assert np.quantile(np.abs(ours - theirs), 0.999) < 1e-3
    assert np.abs(ours.astype(np.float16) - theirs).max() < 0.02, "as cached"


def test_start_passes_over_the_beginning(tmp_path):
    wave = noise(2, 16_000)
    later = write(tmp_path / "later.wav", wave=wave, rate=16_000)
    cut_off = write(tmp_path / "cut.wav", wave=wave[:, 8000:], rate=16_000)
    how = {"sample_rate": 16_000, "seconds": 1.0}
    np.testing.assert_array_equal(extractor(**how, start=0.5).extract(later), extractor(**how).extract(cut_off))
    # A short sound is filled first: 0.5 s repeated, from 0.75 s on, is the sound turned by half.
    short = write(tmp_path / "short.wav", wave=wave[:, :8000], rate=16_000)
    turned = write(tmp_path / "turned.wav", wave=np.roll(wave[:, :8000], 4000, axis=1), rate=16_000)
    np.testing.assert_array_equal(extractor(**how, start=0.75).extract(short), extractor(**how).extract(turned))


def test_shape_and_type_are_those_of_ogm_ge(tmp_path):
    spectrogram = extractor()
    array = spectrogram.extract(write(tmp_path / "clip.wav", wave=noise(1)))
    assert array.shape == spectrogram.shape == (257, 188)
    assert array.dtype == spectrogram.dtype == np.float16
    assert np.isfinite(array).all()


def test_a_tone_shows_at_its_frequency_and_level_after_resampling_and_mixing_down(tmp_path):
    left = tone(1.0, 1000, 44_100)
    file = write(tmp_path / "clip.wav", wave=np.concatenate([left, 0 * left]), rate=44_100)
    array = extractor(sample_rate=16_000, seconds=1.0, hop=160).extract(file)[:, 5:-5].astype(float)
    assert (array.argmax(0) == 1000 * 512 // 16_000).all()
    # amplitude 0.5 on one channel of two; a Hann window of 512 sums to 256, half of it at the positive frequency
    np.testing.assert_allclose(np.exp(array.max(0)), 0.25 * 256 / 2, rtol=0.02)


def test_padding(tmp_path):
    file = write(tmp_path / "clip.wav", wave=noise(0.5, 16_000), rate=16_000)
    zero, tiled = (
        extractor(sample_rate=16_000, seconds=1.0, hop=160, pad=pad).extract(file).astype(float)
        for pad in ("zero", "tile")
    )
    np.testing.assert_array_equal(zero[:, 55:], np.float16(np.log(1e-7)))
    np.testing.assert_array_equal(tiled[:, 55:95], tiled[:, 5:45])


def test_a_longer_sound_is_cut(tmp_path):
    long = write(tmp_path / "long.wav", wave=noise(2, 16_000), rate=16_000)
    short = write(tmp_path / "short.wav", wave=noise(2, 16_000)[:, :16_000], rate=16_000)
    spectrogram = extractor(sample_rate=16_000, seconds=1.0)
    np.testing.assert_array_equal(spectrogram.extract(long), spectrogram.extract(short))


@pytest.mark.parametrize("rate", [16_000, 22_050, 44_100])
def test_resampling_keeps_the_whole_sound(tmp_path, rate):
    file = write(tmp_path / "clip.wav", wave=noise(1, 44_100), rate=44_100)
    assert len(mono(file, rate, 10 * rate)) == rate


def test_fitted_by_hand():
    wave = np.array([2, -3, 0.5], np.float32)
    assert fitted(wave, 5, "zero").tolist() == [1, -1, 0.5, 0, 0]
    assert fitted(wave, 5, "tile").tolist() == [1, -1, 0.5, 1, -1]
    assert fitted(wave, 2, "zero").tolist() == fitted(wave, 2, "tile").tolist() == [1, -1]


def test_takes_the_sound_of_a_video(tmp_path):
    file = write(tmp_path / "clip.mp4", greys(12), wave=tone(1.0, 1000, 16_000), rate=16_000)
    array = extractor(sample_rate=16_000, seconds=1.0, hop=160).extract(file)[:, 10:-10]
    assert (array.argmax(0) == 32).all()
    assert extractor().probe(file) == pytest.approx(1, abs=0.07)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("missing", r"missing file"),
        ("empty", r"empty file"),
        ("garbage", r"cannot be opened: .+"),
        ("mute", r"no audio stream"),
        ("moov first", r"truncated: decoded 0\.\d\d s of 1\.00 s"),
        ("moov last", r"cannot be opened: .+"),
        ("cut mkv", r"truncated: decoded 0\.\d\d s of 1\.\d\d s"),
        ("clipped", r"cannot be decoded: damaged packet at 0\.9\d s"),
        ("cut avi", r"truncated: [\d,]+ bytes of [\d,]+"),
        ("cut wav", r"truncated: [\d,]+ bytes of [\d,]+"),
    ],
)
def test_a_broken_file_is_a_media_error_with_its_reason(tmp_path, kind, reason):
    with pytest.raises(MediaError) as caught:
        extractor(seconds=0.1).extract(broken(tmp_path, kind))
    assert re.fullmatch(reason, str(caught.value))


@pytest.mark.parametrize("change", [{"seconds": 0.01}, {"hop": 0}, {"pad": "wrap"}, {"floor": 0.0}, {"n_ftt": 512}])
def test_parameters_are_checked(change):
    with pytest.raises(ValidationError):
        extractor(**change)
