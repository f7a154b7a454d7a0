"""Logarithmic magnitude spectrogram of the sound: the audio input of OGM-GE and the papers after it.

OGM-GE's parameters: CREMA-D (257 x 188) 22,050 Hz, 3 s, n_fft 512, hop 353, floor 1e-7, pad `tile`; VGGSound
(129 x 626) 16 kHz, 5 s, n_fft 256, hop 128.
"""

from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from pipeline_src.media.base import Extractor, ExtractorParams, extractors
from pipeline_src.media.decode import duration, mono


class LogSTFTParams(ExtractorParams):
    sample_rate: int = Field(ge=1000, le=192_000, description="rate that the sound is resampled to, Hz")
    seconds: float = Field(gt=0, le=600, description="length that the sound is cut or padded to, s")
    pad: Literal["zero", "tile"] = Field(description="how a shorter sound is filled: with silence, or by repeating it")
    n_fft: int = Field(ge=16, le=16_384, description="length of the Fourier transform and of its Hann window, samples")
    hop: int = Field(ge=1, le=16_384, description="step between windows, samples")
    floor: float = Field(gt=0, le=1, description="added to the magnitude before the logarithm")
    start: float = Field(
        default=0.0, ge=0, le=600, description="s passed over first, of a sound padded to `start` + `seconds`"
    )

    @model_validator(mode="after")
    def _longer_than_a_window(self) -> Self:
        if round(self.seconds * self.sample_rate) <= self.n_fft:
            raise ValueError("expected seconds x sample_rate above n_fft; lengthen `seconds` or shorten `n_fft`")
        return self


@extractors.register("log_stft")
class LogSTFT(Extractor):
    """float16 (n_fft // 2 + 1, 1 + samples // hop): frequencies upwards, time along the second axis."""

    Params = LogSTFTParams
    params: LogSTFTParams
    layout = "spectrogram"
    dtype = np.dtype(np.float16)
    parts = True

    @property
    def samples(self) -> int:
        return round(self.params.seconds * self.params.sample_rate)

    @property
    def shape(self) -> tuple[int, int]:
        return (self.params.n_fft // 2 + 1, 1 + self.samples // self.params.hop)

    def probe(self, file: Path) -> float:
        """Stated duration of the sound, seconds. Raises MediaError if there is none to take."""
        return duration(file, "audio")

    def extract(self, file: Path) -> np.ndarray:
        """Raises MediaError if the file cannot be opened or decoded, or ends before its stated duration."""
        return self._logarithms(mono(file, self.params.sample_rate, self._passed + self.samples))

    def extract_part(self, file: Path, start: float, end: float) -> np.ndarray:
        return self._logarithms(mono(file, self.params.sample_rate, self._passed + self.samples, (start, end)))

    @property
    def _passed(self) -> int:
        """Samples before the first that is used."""
        return round(self.params.start * self.params.sample_rate)

    def _logarithms(self, wave: np.ndarray) -> np.ndarray:
        p = self.params
        wave = fitted(wave, self._passed + self.samples, p.pad)[self._passed :]
        return log_stft(wave, p.n_fft, p.hop, p.floor).astype(self.dtype)


def fitted(wave: np.ndarray, samples: int, pad: Literal["zero", "tile"]) -> np.ndarray:
    """Wave cut or padded to `samples` and clipped to [-1, 1]."""
    wave = np.resize(wave, samples) if pad == "tile" else np.pad(wave, (0, max(0, samples - len(wave))))[:samples]
    return wave.clip(-1, 1)


def log_stft(wave: np.ndarray, n_fft: int, hop: int, floor: float) -> np.ndarray:
    """ln(|STFT| + floor) of a float32 wave (n,) as float32 (n_fft // 2 + 1, 1 + n // hop).

    Periodic Hann window of n_fft samples, not normalised, centred on multiples of `hop`; the wave is mirrored at both
    ends, so n must exceed n_fft // 2.
    """
    import torch

    window = torch.hann_window(n_fft)
    spectrum = torch.stft(torch.from_numpy(wave), n_fft, hop, window=window, center=True, return_complex=True)
    return (spectrum.abs() + floor).log().numpy()
