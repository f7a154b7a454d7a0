import numpy as np
import pytest

from pipeline_src.media.base import MediaError
from pipeline_src.media.fbank import Fbank, FbankParams, fbank
from tests.media.clips import broken, noise, tone, write

AST = {
    "kind": "fbank",
    "sample_rate": 16_000,
    "bins": 128,
    "frames": 1024,
    "window": "hanning",
    "mean": -4.503877,
    "scale": 10.282552,
}


def extractor(**change):
    return Fbank(FbankParams(**AST | change))


def by_definition(wave, rate=16_000, bins=128, length=400, shift=160, low=20.0):
    """Kaldi's log mel energies in double precision, from its documentation and not its code."""
    wave, n_fft = wave.astype(float), 512
    frames = np.stack([wave[s : s + length] for s in range(0, len(wave) - length + 1, shift)])
    frames = frames - frames.mean(1, keepdims=True)
    frames = frames - 0.97 * np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    frames = frames * (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / (length - 1)))
    power = np.abs(np.fft.rfft(frames, n_fft)) ** 2

    def mel(hertz):
        return 1127 * np.log(1 + hertz / 700)

    edges = np.linspace(mel(low), mel(rate / 2), bins + 2)
    places = mel(np.arange(n_fft // 2 + 1) * rate / n_fft)
    up = (places - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    down = (edges[2:, None] - places) / (edges[2:] - edges[1:-1])[:, None]
    filters = np.minimum(up, down).clip(0)
    filters[:, -1] = 0  # Kaldi leaves the highest frequency out
    return np.log(np.maximum(power @ filters.T, np.finfo(np.float32).eps))


@pytest.mark.parametrize("sound", ["noise", "tone", "quiet"])
def test_agrees_with_an_independent_computation(sound):
    wave = {"noise": noise(1, 16_000), "tone": tone(1, 1000, 16_000), "quiet": 1e-4 * noise(1, 16_000)}[sound][0]
    expected, found = by_definition(wave), fbank(wave, FbankParams(**AST))
    assert found.shape == expected.shape == (98, 128)
    # Energies in single precision: 1e-5 of a window's largest, and so in the logarithm where they are not far below it.
    np.testing.assert_allclose(np.exp(found), np.exp(expected), rtol=2e-3, atol=2e-5 * np.exp(expected.max()))
    near = expected > expected.max(1, keepdims=True) - 8
    assert np.abs(found - expected)[near].max() < 5e-3


def test_shape_padding_and_scale_are_the_published(tmp_path):
    bank = extractor()
    array = bank.extract(write(tmp_path / "clip.wav", wave=noise(1, 16_000), rate=16_000))
    assert array.shape == bank.shape == (128, 1024)
    assert array.dtype == bank.dtype == np.float16
    np.testing.assert_allclose(array[:, 98:], 4.503877 / 10.282552, atol=1e-3)
    stored = np.rint(noise(1, 16_000)[0] * 32768) / 32768
    np.testing.assert_allclose(array[:, :98].T, (by_definition(stored) + 4.503877) / 10.282552, atol=5e-3)


def test_a_longer_sound_is_cut_and_its_mean_does_not_matter(tmp_path):
    wave = noise(2, 16_000)
    long = extractor(frames=50).extract(write(tmp_path / "long.wav", wave=wave, rate=16_000))
    short = extractor(frames=50).extract(write(tmp_path / "short.wav", wave=wave[:, :16_000], rate=16_000))
    np.testing.assert_array_equal(long, short)
    lifted = extractor(frames=50).extract(write(tmp_path / "lifted.wav", wave=wave + 0.25, rate=16_000))
    np.testing.assert_allclose(lifted, long, atol=5e-3)


def test_a_sound_shorter_than_a_window(tmp_path):
    with pytest.raises(MediaError, match="too short: expected at least 25 ms of sound, but got 20 ms"):
        extractor().extract(write(tmp_path / "clip.wav", wave=noise(0.02, 16_000), rate=16_000))


@pytest.mark.parametrize("kind", ["missing", "empty", "garbage", "mute", "cut wav", "moov first"])
def test_a_broken_file_is_a_media_error(tmp_path, kind):
    with pytest.raises(MediaError):
        extractor().extract(broken(tmp_path, kind))
