"""The way in which the released code of the papers reads data, re-implemented plainly, to compare with.

JPEG files of every frame and a WAV file of the sound are decoded for every visit: RandomResizedCrop and flip by
torchvision, the spectrogram by the short-time Fourier transform, in the workers of a DataLoader; PyTorch's default
precision; each batch is uploaded when it comes and its loss read at once (Peng et al., CVPR 2022, released code).
The workers go on from epoch to epoch, and what is timed begins when each has given a batch: the rate of a long run,
without what starting the workers takes.
"""

from __future__ import annotations

import os
import time
import wave
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline_src.training import device as devices

if TYPE_CHECKING:
    from benchmarks.gpu import Size

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

        def one(clip: int) -> None:
            for k, picture in enumerate(self.pictures_of(clip)):
                picture.save(folder / f"{clip}-{k}.jpg", quality=90)
            with wave.open(str(folder / f"{clip}.wav"), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(RATE)
                file.writeframes(self.sound_of(clip).tobytes())

        with ThreadPoolExecutor(cores()) as pool:
            list(pool.map(one, range(clips)))


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0))


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


class Timed(NamedTuple):
    """What was timed of a training run."""

    samples: float  # per second
    batches: int  # that were timed
    before: int  # batches before the clock started


def train(model: Any, files: Files, device: torch.device, batch: int, workers: int, turns: int) -> Timed:
    """Train the model on one stream of batches, as many epochs of the files as it takes, and time its last part.

    In a turn each worker gives one batch. The clock starts after the first turn, and stops after `turns` more.
    """
    turn = max(1, workers)
    model.to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.001, momentum=0.9, weight_decay=1e-4)
    loader = torch.utils.data.DataLoader(
        files,
        batch,
        sampler=torch.utils.data.RandomSampler(files, num_samples=batch * turn * (1 + turns)),
        num_workers=workers,
        pin_memory=device.type == "cuda",
        persistent_workers=workers > 0,
    )
    seen, started = 0, 0.0
    for number, (audio, visual, label) in enumerate(loader, 1):
        optimizer.zero_grad()
        logits = model({"audio": audio.to(device), "visual": visual.to(device)}).logits
        loss = torch.nn.functional.cross_entropy(logits, label.to(device))
        loss.backward()
        optimizer.step()
        loss.item()  # for the log, as released
        seen += len(label)
        if number == turn:
            devices.synchronize(device)
            seen, started = 0, time.perf_counter()
    devices.synchronize(device)
    return Timed(seen / (time.perf_counter() - started), turn * turns, turn)


def measure(device: torch.device, size: Size, classes: int) -> float:
    """Write the files, print the samples per second of training on them and what was timed, and return them."""
    from pipeline_src.models.base import encoders
    from pipeline_src.models.multimodal import build

    Pictures(size.frames).write(Path("files"), size.distinct)
    files = Files(Path("files"), size.distinct, size.frames, size.pixels, classes)
    audio, visual, _ = files[0]
    inputs = {
        "audio": {"layout": "spectrogram", "shape": list(audio.shape)},
        "visual": {"layout": "frames", "shape": list(visual.shape)},
    }
    network = encoders["resnet"].Params(kind="resnet", width=size.width, depth=list(size.depth))
    workers = min(size.workers, cores())
    # PyTorch's defaults, which the released code leaves: TF32 in convolutions, float32 in matrix products.
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    for part in (torch.backends.cudnn.conv, torch.backends.cudnn.rnn):
        part.fp32_precision = "tf32"
    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("default")
    try:
        model = build(dict.fromkeys(inputs, network), "concat", inputs, classes, 0)
        timed = train(model, files, device, size.batch, workers, size.turns)
    finally:
        torch.set_deterministic_debug_mode(before)
    print(
        f"\nThe published way, JPEG and WAV files of {size.distinct:,} clips, a DataLoader with {workers} workers on "
        f"{cores()} cores, float32 (TF32 in convolutions where there is one): {timed.samples:,.0f} samples/s\n"
        f"  timed: {timed.batches:,} batches of {size.batch}, after the first {timed.before:,}, when every worker had "
        "given one; they persist from epoch to epoch",
        flush=True,
    )
    return timed.samples
