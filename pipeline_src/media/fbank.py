"""Kaldi's logarithmic mel filter banks: the audio input of Kinetics-Sounds in OGM-GE, of Diagnosing & Re-learning, and
of the audio spectrogram transformer, whose settings they are (Gong et al., Interspeech 2021, arXiv:2104.01778).

Their numbers (128 x 1024): 16 kHz, windows of 25 ms every 10 ms, 128 bins, mean -4.503877, scale 10.282552 (twice the
deviation 5.141276).
"""

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from pipeline_src.media.base import Extractor, ExtractorParams, MediaError, extractors
from pipeline_src.media.decode import duration, mono


class FbankParams(ExtractorParams):
    sample_rate: int = Field(ge=1000, le=192_000, description="rate that the sound is resampled to, Hz")
    bins: int = Field(ge=1, le=512, description="mel filters, from 20 Hz to half the sample rate")
    frames: int = Field(ge=1, le=100_000, description="windows that the sound is cut or padded to")
    window: Literal["hanning", "hamming", "povey", "rectangular"] = Field(description="shape of the window, Kaldi's")
    window_ms: float = Field(default=25.0, gt=1, le=1000, description="length of the window, ms")
    shift_ms: float = Field(default=10.0, gt=0.1, le=1000, description="step between windows, ms")
    mean: float = Field(default=0.0, description="subtracted from every value, of windows that fill up, too")
    scale: float = Field(default=1.0, gt=0, description="divisor, after the mean is subtracted")


@extractors.register("fbank")
class Fbank(Extractor):
    """float16 (bins, frames): frequencies upwards, time along the second axis.

    Kaldi's defaults but for the window and no dither: pre-emphasis 0.97, each window's mean removed (which makes
    removing the sound's own, as released code does, without effect), power spectrum, natural logarithm of at least the
    epsilon of float32; the wave lies in [-1, 1]. Windows that fill up hold 0 before `mean` and `scale`.
    """

    Params = FbankParams
    params: FbankParams
    layout = "spectrogram"
    dtype = np.dtype(np.float16)
    parts = True

    @property
    def shape(self) -> tuple[int, int]:
        return (self.params.bins, self.params.frames)

    def probe(self, file: Path) -> float:
        """Stated duration of the sound, seconds. Raises MediaError if there is none to take."""
        return duration(file, "audio")

    def extract(self, file: Path) -> np.ndarray:
        """Raises MediaError if the file cannot be opened or decoded, ends early, or is shorter than one window."""
        return self._energies(mono(file, self.params.sample_rate, self._samples))

    def extract_part(self, file: Path, start: float, end: float) -> np.ndarray:
        return self._energies(mono(file, self.params.sample_rate, self._samples, (start, end)))

    @property
    def _samples(self) -> int:
        """As many as all windows take."""
        p = self.params
        span = p.window_ms + (p.frames - 1) * p.shift_ms  # ms
        return 1 + round(span * p.sample_rate / 1000)

    def _energies(self, wave: np.ndarray) -> np.ndarray:
        p = self.params
        values = fbank(wave, p)
        if not len(values):
            length = 1000 * len(wave) / p.sample_rate
            raise MediaError(f"too short: expected at least {p.window_ms:.0f} ms of sound, but got {length:.0f} ms")
        values = np.pad(values[: p.frames], ((0, max(0, p.frames - len(values))), (0, 0)))
        return ((values.T - p.mean) / p.scale).astype(self.dtype)


def fbank(wave: np.ndarray, params: FbankParams) -> np.ndarray:
    """Log mel energies of a float32 wave (n,): float32 (windows that fit, bins)."""
    import kaldi_native_fbank as knf

    options = knf.FbankOptions()
    options.frame_opts.samp_freq = params.sample_rate
    options.frame_opts.frame_length_ms = params.window_ms
    options.frame_opts.frame_shift_ms = params.shift_ms
    options.frame_opts.window_type = params.window
    options.frame_opts.dither = 0.0
    options.mel_opts.num_bins = params.bins
    options.use_energy = False
    online = knf.OnlineFbank(options)
    online.accept_waveform(params.sample_rate, wave)
    online.input_finished()
    windows = [online.get_frame(i) for i in range(online.num_frames_ready)]
    return np.stack(windows) if windows else np.empty((0, params.bins), np.float32)
