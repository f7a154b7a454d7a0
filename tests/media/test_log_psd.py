import numpy as np
import pytest
from pydantic import ValidationError

from pipeline_src.media.base import MediaError
from pipeline_src.media.fbank import Fbank, FbankParams
from pipeline_src.media.log_psd import LogPSD, LogPSDParams
from pipeline_src.media.log_stft import LogSTFT, LogSTFTParams
from tests.media.clips import broken, noise, write

PMR = {
    "kind": "log_psd",
    "sample_rate": 16_000,
    "samples": 48_000,
    "pad": "tile",
    "n_fft": 512,
    "hop": 159,
    "floor": 1e-7,
    "standardize": True,
}


STFT = {
    "kind": "log_stft",
    "sample_rate": 16_000,
    "seconds": 1.0,
    "pad": "tile",
    "n_fft": 256,
    "hop": 128,
    "floor": 1e-7,
}


def extractor(**change):
    return LogPSD(LogPSDParams(**PMR | change))


def by_definition(wave, rate, n_fft, hop):
    """One-sided density in double precision: |sum w (x - mean) e^-i|^2 * 2 / (rate sum w^2), Tukey window of 0.25."""
    n = np.arange(n_fft)
    edge = n_fft * 0.25 / 2  # a periodic window: one of n_fft + 1 without its last value
    window = np.ones(n_fft)
    window[n < edge] = 0.5 - 0.5 * np.cos(np.pi * n[n < edge] / edge)
    window[n > n_fft - edge] = 0.5 - 0.5 * np.cos(np.pi * (n_fft - n[n > n_fft - edge]) / edge)
    kernel = np.exp(-2j * np.pi * np.outer(np.arange(n_fft // 2 + 1), n) / n_fft)
    parts = np.stack([wave[s : s + n_fft] for s in range(0, len(wave) - n_fft + 1, hop)], axis=1).astype(float)
    density = np.abs(kernel @ (window[:, None] * (parts - parts.mean(0)))) ** 2 / (rate * (window**2).sum())
    density[1:-1] *= 2
    return density


def test_agrees_with_the_definition(tmp_path):
    wave = noise(0.2, 16_000)[0]
    file = write(tmp_path / "clip.wav", wave=wave[None], rate=16_000)
    stored = np.rint(wave * 32768) / 32768
    spectrogram = extractor(samples=3200, n_fft=64, hop=17, standardize=False)
    expected = np.log(by_definition(stored, 16_000, 64, 17) + 1e-7)
    found = spectrogram.extract(file)
    assert found.shape == spectrogram.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=0.02)  # float16 of values about -12


@pytest.mark.parametrize(("samples", "steps"), [(48_000, 299), (160_000, 1004)])
def test_shape_and_standardisation_are_those_of_pmr(tmp_path, samples, steps):
    spectrogram = extractor(samples=samples)
    array = spectrogram.extract(write(tmp_path / "clip.wav", wave=noise(1, 16_000), rate=16_000))
    assert array.shape == spectrogram.shape == (257, steps)
    assert array.dtype == spectrogram.dtype == np.float16
    assert abs(array.astype(float).mean()) < 1e-3 and abs(array.astype(float).std() - 1) < 1e-3


def test_a_part_is_the_sound_from_its_start_to_its_end(tmp_path):
    wave = noise(2, 16_000)
    whole = write(tmp_path / "whole.wav", wave=wave, rate=16_000)
    cut = write(tmp_path / "cut.wav", wave=wave[:, 8_000:20_000], rate=16_000)
    for spectrogram in (
        extractor(),
        Fbank(FbankParams(kind="fbank", sample_rate=16_000, bins=16, frames=64, window="hanning")),
        LogSTFT(
            LogSTFTParams(kind="log_stft", sample_rate=16_000, seconds=1.0, pad="tile", n_fft=256, hop=128, floor=1e-7)
        ),
    ):
        expected = spectrogram.extract(cut)
        np.testing.assert_allclose(spectrogram.extract_part(whole, 0.5, 1.25), expected, atol=0.02)
        assert not np.allclose(spectrogram.extract(whole), expected, atol=0.1)
        np.testing.assert_array_equal(spectrogram.extract_part(whole, 0.0, 2.0), spectrogram.extract(whole))
        with pytest.raises(MediaError, match="too short: expected sound after 2 s"):
            spectrogram.extract_part(whole, 2.0, 3.0)


def test_silence_is_finite(tmp_path):
    array = extractor().extract(write(tmp_path / "clip.wav", wave=np.zeros((1, 16_000), np.float32), rate=16_000))
    assert np.isfinite(array).all()


@pytest.mark.parametrize("kind", ["missing", "empty", "garbage", "mute", "cut wav"])
def test_a_broken_file_is_a_media_error(tmp_path, kind):
    with pytest.raises(MediaError):
        extractor().extract(broken(tmp_path, kind))


@pytest.mark.parametrize("change", [{"samples": 100}, {"hop": 513}, {"floor": 0.0}])
def test_parameters_are_checked(change):
    with pytest.raises(ValidationError):
        extractor(**change)
