"""Logarithmic power spectral density of the sound, standardised clip by clip: the audio input of PMR.

PMR's parameters: 16,000 Hz, 48,000 samples (257 x 299, CREMA-D) or 160,000 (257 x 1004, AVE), n_fft 512, hop 159
(overlap 353), floor 1e-7. Its script for CREMA-D reads at librosa's default of 22,050 Hz and goes on as with 16,000.
"""

from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from pipeline_src.media.base import Extractor, ExtractorParams, extractors
from pipeline_src.media.decode import duration, mono
from pipeline_src.media.log_stft import fitted


class LogPSDParams(ExtractorParams):
    sample_rate: int = Field(ge=1000, le=192_000, description="rate that the sound is resampled to, Hz")
    samples: int = Field(ge=16, le=10**8, description="length that the sound is cut or padded to, samples")
    pad: Literal["zero", "tile"] = Field(description="how a shorter sound is filled: with silence, or by repeating it")
    n_fft: int = Field(ge=16, le=16_384, description="length of the Fourier transform and of its window, samples")
    hop: int = Field(ge=1, le=16_384, description="step between windows, samples")
    floor: float = Field(gt=0, le=1, description="added to the density before the logarithm")
    standardize: bool = Field(description="subtract the clip's mean and divide by its standard deviation")

    @model_validator(mode="after")
    def _whole_window(self) -> Self:
        if self.samples < self.n_fft or self.hop > self.n_fft:
            raise ValueError("expected samples of at least n_fft, and hop of at most n_fft")
        return self


@extractors.register("log_psd")
class LogPSD(Extractor):
    """float16 (n_fft // 2 + 1, 1 + (samples - n_fft) // hop): frequencies upwards, time along the second axis.

    The density is scipy.signal.spectrogram's by default: Tukey window (0.25), each segment's mean removed, one-sided;
    windows lie wholly inside the sound.
    """

    Params = LogPSDParams
    params: LogPSDParams
    layout = "spectrogram"
    dtype = np.dtype(np.float16)
    parts = True

    @property
    def shape(self) -> tuple[int, int]:
        p = self.params
        return (p.n_fft // 2 + 1, 1 + (p.samples - p.n_fft) // p.hop)

    def probe(self, file: Path) -> float:
        """Stated duration of the sound, seconds. Raises MediaError if there is none to take."""
        return duration(file, "audio")

    def extract(self, file: Path) -> np.ndarray:
        """Raises MediaError if the file cannot be opened or decoded, or ends before its stated duration."""
        return self._density(mono(file, self.params.sample_rate, self.params.samples))

    def extract_part(self, file: Path, start: float, end: float) -> np.ndarray:
        return self._density(mono(file, self.params.sample_rate, self.params.samples, (start, end)))

    def _density(self, wave: np.ndarray) -> np.ndarray:
        from scipy.signal import spectrogram

        p = self.params
        wave = fitted(wave, p.samples, p.pad)
        density = spectrogram(wave, p.sample_rate, nperseg=p.n_fft, noverlap=p.n_fft - p.hop)[2]
        values = np.log(density + np.float32(p.floor))
        if p.standardize:
            values = (values - values.mean()) / (values.std() + 1e-9)
        return values.astype(self.dtype)
