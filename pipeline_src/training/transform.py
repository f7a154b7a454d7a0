"""From what the cache holds to what the model reads: random changes and normalisation, for a whole batch on the device.

Crops and flips follow the rules of torchvision.transforms.v2 (RandomResizedCrop, RandomHorizontalFlip), drawn for
every clip of the batch at once, or for every frame (`per`).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn.functional import grid_sample

from pipeline_src.core.upload import upload
from pipeline_src.corruptions.base import Corruption, corruptions
from pipeline_src.models.parts import Part
from pipeline_src.tasks.segments import cut
from pipeline_src.training.params import Augmentation

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}  # RGB in [0, 1]


class Drawn(NamedTuple):
    """The random changes of a batch of one modality; None is none."""

    boxes: Tensor | None = None  # (B, 1, 4), or (B, T, 4) of each frame; see `crop_boxes`
    flipped: Tensor | None = None  # (B, 1) bool, or (B, T)
    shift: Tensor | None = None  # (B, 1) steps
    seed: int | None = None  # of the corruptions

    def rows(self, own: slice) -> "Drawn":
        """Those of some of the samples; a seed is of all of them."""
        return Drawn(*(None if x is None else x[own] for x in self[:3]), self.seed)


class Transform:
    """Inputs {m: (B, ...)} as cached -> float32, normalised. With what `draw` gave they are also augmented.

    `modalities` is the cache's description, `augmentation` the random changes of each, `normalize` "train", "imagenet"
    or "none". Tokens become int64; a step of nothing but zeros of a sequence, which is padding, stays so. With
    `segments` T, a sample becomes T rows (see `tasks.segments.cut`), after its random changes. `fused` takes frames of
    training through crop, flip and normalisation at once (see `training.fused`); their type may be that of autocast.
    """

    def __init__(
        self,
        modalities: Mapping[str, dict],
        augmentation: Mapping[str, Augmentation],
        normalize: str,
        device: torch.device,
        segments: int = 0,
        fused: Callable[[Tensor, Tensor, Tensor, Drawn], Tensor] | None = None,
    ):
        self.segments, self.fused = segments, fused
        self.layouts = {m: modalities[m]["layout"] for m in augmentation}
        self.shapes, self.device = {m: modalities[m]["shape"] for m in augmentation}, device
        self.augmentation, self.scale, self.spread = augmentation, {}, {}
        self.corruptions = {
            m: [(corruptions[name](), rate) for name, rate in how.corruption.items()] for m, how in augmentation.items()
        }
        for m, info in modalities.items():
            mean, std = (torch.tensor(info[k], dtype=torch.float32, device=device) for k in ("mean", "std"))
            if normalize != "train":  # pictures still come to [0, 1]
                mean, std = torch.zeros_like(mean), torch.full_like(std, 255.0 if info["dtype"] == "uint8" else 1.0)
            if normalize == "imagenet" and info["layout"] == "frames" and info["shape"][1] == 3:
                mean, std = (255 * torch.tensor(IMAGENET[k], device=device) for k in ("mean", "std"))
            by_channel = (-1, 1, 1) if info["layout"] == "frames" else (-1,)  # of one value, or of each feature
            self.scale[m] = (1 / std).view(by_channel), (-mean / std).view(by_channel)
            own = torch.tensor(info["std"], dtype=torch.float32, device=device)
            self.spread[m] = (own / std).view(by_channel)  # of train, in the units of the output

    def draw(self, sizes: Sequence[int], generators: Mapping[str, Generator]) -> list[dict[str, Drawn]]:
        """The random changes of a pass, batch by batch, of so many samples each: drawn on the CPU, batch after batch,
        and sent to the device at once.

        Every modality has its own generator, so that a modality is augmented alike whatever the others are.
        """
        each = {m: self._drawn(m, sizes, generator) for m, generator in generators.items()}
        return [{m: drawn[i] for m, drawn in each.items()} for i in range(len(sizes))]

    def _drawn(self, m: str, sizes: Sequence[int], generator: Generator) -> list[Drawn]:
        how, layout = self.augmentation[m], self.layouts[m]
        boxes, flipped, shift = [], [], []
        seeds: list[int | None] = []
        each = self.shapes[m][0] if layout == "frames" and how.per == "frame" else 1  # changes of a clip
        for size in sizes:
            if layout == "frames" and (how.crop_scale != [1.0, 1.0] or how.crop_ratio != [1.0, 1.0]):
                drawn = crop_boxes(size * each, *self.shapes[m][-2:], how.crop_scale, how.crop_ratio, generator)
                boxes.append(drawn.view(size, each, 4))
            if layout == "frames" and how.flip:
                flipped.append(torch.rand(size, each, generator=generator) < how.flip)
            if layout == "spectrogram" and how.roll:
                shift.append(torch.randint(-how.roll, how.roll + 1, (size, 1), generator=generator))
            spoiled = bool(self.corruptions[m])
            seeds.append(int(torch.randint(2**62, (), generator=generator)) if spoiled else None)
        parts = [
            upload(torch.cat(kind), self.device).split(list(sizes)) if kind else [None] * len(sizes)
            for kind in (boxes, flipped, shift)
        ]
        return [Drawn(*one) for one in zip(*parts, seeds, strict=True)]

    def __call__(self, inputs: dict[str, Tensor], drawn: Mapping[str, Drawn] | None = None) -> dict[str, Tensor]:
        out, part = {}, inputs if isinstance(inputs, Part) else None
        for m, x in inputs.items():
            layout, change = self.layouts[m], (drawn or {}).get(m, Drawn())
            change = change if part is None else change.rows(part.own)
            if layout == "tokens":
                out[m] = self._spoiled(m, x.long(), change.seed, part)
                continue
            if change.shift is not None:
                x = roll(x, change.shift)  # first, as the cache's type is half as large
            factor, offset = self.scale[m]
            if self.fused and drawn is not None and layout == "frames" and not self.corruptions[m]:
                x = self.fused(x, factor, offset, change)
                out[m] = cut(x, layout, self.segments) if self.segments else x
                continue
            steps = x.ne(0).any(-1, keepdim=True) if layout == "sequence" else None
            x = (x * factor).add_(offset)  # float32, from any type
            if steps is not None:
                x = x * steps
            if change.boxes is not None:
                x = crop(x, change.boxes, change.flipped)
            elif change.flipped is not None:
                x = torch.where(change.flipped[:, :, None, None, None], x.flip(-1), x)
            x = self._spoiled(m, x, change.seed, part)
            out[m] = cut(x, layout, self.segments) if self.segments else x
        return out if part is None else part.made(out, self.segments or 1)

    def _spoiled(self, m: str, x: Tensor, seed: int | None, part: Part | None = None) -> Tensor:
        """A modality of a training batch with the corruptions of its augmentation, drawn where x is: for the whole
        batch, of which x may be a part.
        """
        if seed is None:
            return x
        if part is not None:
            whole = x.new_zeros(sum(part.counts), *x.shape[1:])
            whole[part.own] = x
            return self._spoiled(m, whole, seed)[part.own]
        generator = Generator(x.device).manual_seed(seed)
        for corruption, rate in self.corruptions[m]:
            x = self.corrupted(m, x, corruption, rate, generator)
        return x

    def corrupted(self, m: str, x: Tensor, corruption: Corruption, rate: float, generator: Generator) -> Tensor:
        """What the model reads of a modality, spoiled."""
        return corruption(x, self.layouts[m], rate, self.spread[m], generator)


def crop_boxes(
    count: int, height: int, width: int, scale: list[float], ratio: list[float], generator: Generator, tries: int = 10
) -> Tensor:
    """Boxes (count, 4) as x0, y0, x1, y1 in pixels, drawn as RandomResizedCrop draws one.

    Area uniform in `scale`, aspect ratio log-uniform in `ratio`, the first of ten tries that fits, else the largest
    centred box within the ratio.
    """
    area = height * width * (scale[0] + (scale[1] - scale[0]) * torch.rand(count, tries, generator=generator))
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = torch.exp(low + (high - low) * torch.rand(count, tries, generator=generator))
    w, h = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = fits.to(torch.int8).argmax(1, keepdim=True)
    w, h = w.gather(1, first).squeeze(1), h.gather(1, first).squeeze(1)
    none = ~fits.any(1)
    whole = min(max(width / height, ratio[0]), ratio[1])
    w = torch.where(none, torch.tensor(float(min(width, round(height * whole)))), w)
    h = torch.where(none, torch.tensor(float(min(height, round(width / whole)))), h)
    place = torch.rand(count, 2, generator=generator)
    x0 = torch.where(none, ((width - w) / 2).floor(), (place[:, 0] * (width - w + 1)).floor())
    y0 = torch.where(none, ((height - h) / 2).floor(), (place[:, 1] * (height - h + 1)).floor())
    return torch.stack([x0, y0, x0 + w, y0 + h], 1)


def crop(x: Tensor, boxes: Tensor, flipped: Tensor | None = None) -> Tensor:
    """Frames (B, T, C, H, W) cut to each clip's box (B, 1, 4), or each frame's (B, T, 4), and brought back to (H, W),
    bilinear, as v2.functional.resized_crop; then those of `flipped` (B, 1) or (B, T) are mirrored.

    A crop is never larger than what it becomes, so there is nothing to smooth.
    """
    *_, h, w = x.shape
    boxes = boxes.flatten(0, 1)
    n = len(boxes)
    x0, y0, x1, y1 = boxes.to(x).split(1, dim=1)
    across, down = _sources(x0, x1, w), _sources(y0, y1, h)
    if flipped is not None:
        across = torch.where(flipped.flatten()[:, None], across.flip(-1), across)
    grid = torch.stack([across[:, None, :].expand(n, h, w), down[:, :, None].expand(n, h, w)], dim=-1)
    return grid_sample(x.reshape(n, -1, h, w), grid, padding_mode="border", align_corners=False).reshape(x.shape)


def _sources(low: Tensor, high: Tensor, size: int) -> Tensor:
    """Where `size` pixels are read from between low and high (B, 1) of an axis as long: (B, size), in [-1, 1]."""
    at = low + (torch.arange(size, device=low.device) + 0.5) * (high - low) / size
    at = torch.minimum(torch.maximum(at, low + 0.5), high - 0.5)  # nothing outside the box shines in
    return at * 2 / size - 1


def roll(x: Tensor, shift: Tensor) -> Tensor:
    """Spectrograms (B, F, T), each shifted in time by `shift` (B, 1) whole steps, round the end."""
    source = (torch.arange(x.shape[-1], device=x.device) - shift) % x.shape[-1]
    return x.gather(2, source[:, None, :].expand(x.shape))
