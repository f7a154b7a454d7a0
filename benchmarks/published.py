"""The way in which the released code of the papers reads data, re-implemented plainly, to compare with.

JPEG files of every frame and a WAV file of the sound are decoded for every visit: RandomResizedCrop and flip by
torchvision, the spectrogram by the short-time Fourier transform, in the workers of a DataLoader; PyTorch's default
precision; each batch is uploaded when it comes and its loss read at once (Peng et al., CVPR 2022, released code).
"""

from __future__ import annotations

import time
import wave
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

RATE, HOP, WINDOW = 22_050, 353, 512  # 257 x 188 of 3 s
SIZE = (360, 480)  # of a frame, CREMA-D's


class Pictures:
    """Made-up clips: smooth pictures with some texture, and tones with noise; any number from a few of them."""

    def __init__(self, frames: int, seconds: float = 3.0, distinct: int = 16):
        rng = np.random.default_rng(0)
        coarse = rng.integers(0, 256, (distinct, 12, 16, 3), np.uint8)
        smooth = np.stack([np.asarray(Image.fromarray(x).resize(SIZE[::-1], Image.Resampling.BICUBIC)) for x in coarse])
        noise = rng.integers(-8, 9, smooth.shape, np.int16)
        self.pictures = np.clip(smooth + noise, 0, 255).astype(np.uint8)
        t = np.arange(int(RATE * seconds)) / RATE
        tones = [np.sin(2 * np.pi * 110 * (i + 1) * t) + 0.3 * rng.standard_normal(len(t)) for i in range(distinct)]
        self.sounds = (8_000 * np.stack(tones)).clip(-32_768, 32_767).astype(np.int16)
        self.frames = frames

    def pictures_of(self, clip: int) -> list[Image.Image]:
        """The frames of a clip."""
        base = self.pictures[clip % len(self.pictures)]
        return [Image.fromarray(np.roll(base, (clip + 7 * k, 3 * clip), (0, 1))) for k in range(self.frames)]

    def sound_of(self, clip: int) -> np.ndarray:
        """Samples, int16."""
        return np.roll(self.sounds[clip % len(self.sounds)], 101 * clip)

    def write(self, folder: Path, clips: int) -> None:
        """The files of the clips: clip-k.jpg and clip.wav."""
        folder.mkdir(parents=True)
        for clip in range(clips):
            for k, picture in enumerate(self.pictures_of(clip)):
                picture.save(folder / f"{clip}-{k}.jpg", quality=90)
            with wave.open(str(folder / f"{clip}.wav"), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(RATE)
                file.writeframes(self.sound_of(clip).tobytes())


def spectrogram(samples: np.ndarray) -> Tensor:
    """log(|STFT| + 1e-7) (257, frames) of int16 samples."""
    x = torch.from_numpy(samples.astype(np.float32) / 32_768)
    found = torch.stft(x, WINDOW, HOP, window=torch.hann_window(WINDOW), return_complex=True)
    return torch.log(found.abs() + 1e-7)


class Files(torch.utils.data.Dataset):
    """Clips (spectrogram (F, T), frames (T, C, H, W), label) from their files."""

    def __init__(self, folder: Path, clips: int, frames: int, pixels: int, classes: int):
        from torchvision.transforms import v2

        self.folder, self.clips, self.frames, self.classes = folder, clips, frames, classes
        self.change = v2.Compose(
            [
                v2.RandomResizedCrop(pixels),
                v2.RandomHorizontalFlip(),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
            ]
        )

    def __len__(self) -> int:
        return self.clips

    def __getitem__(self, clip: int) -> tuple[Tensor, Tensor, int]:
        with wave.open(str(self.folder / f"{clip}.wav"), "rb") as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
        pictures = [Image.open(self.folder / f"{clip}-{k}.jpg").convert("RGB") for k in range(self.frames)]
        return spectrogram(samples), torch.stack([self.change(p) for p in pictures]), clip % self.classes


def train(model: Any, files: Files, device: torch.device, batch: int, workers: int, epochs: int = 1) -> float:
    """Samples per second of training the model, after a first epoch that is not counted."""
    model.to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.001, momentum=0.9, weight_decay=1e-4)
    loader = torch.utils.data.DataLoader(
        files, batch, shuffle=True, num_workers=workers, pin_memory=device.type == "cuda", drop_last=True
    )
    seen, started = 0, 0.0
    for epoch in range(1 + epochs):
        if epoch == 1:
            seen, started = 0, time.perf_counter()
        for audio, visual, label in loader:
            optimizer.zero_grad()
            logits = model({"audio": audio.to(device), "visual": visual.to(device)}).logits
            loss = torch.nn.functional.cross_entropy(logits, label.to(device))
            loss.backward()
            optimizer.step()
            seen += len(label)
            loss.item()  # for the log, as released
    return seen / (time.perf_counter() - started)
