"""Example clips as the encoders get them, from the feature cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline_src.features import CACHE_FILE
from pipeline_src.features.read import Cache
from pipeline_src.reports.figures.drawing import Drawing
from pipeline_src.reports.figures.style import panels, styled

COUNT = 6


def examples(name: str, folder: Path, split: str = "train") -> Drawing | None:
    """One clip of each of the first COUNT classes, a panel for each modality; None where there is no cache or
    no picture.
    """
    if not (folder / CACHE_FILE).exists():
        return None
    cache = Cache(folder)
    of_split = cache.clips[cache.clips.split == split]
    rows = of_split.groupby("label", sort=True).head(1).sort_values("label").index.to_numpy()[:COUNT]
    if not len(rows):
        return None
    with styled():
        seen = [m for m, about in cache.modalities.items() if len(about["shape"]) > 1]
        if not seen:
            return None
        figure, axes = panels(len(rows) * len(seen), columns=len(rows), size=(1.55, 1.5))
        each = [(m, row) for m in seen for row in rows]
        for axis, (m, row) in zip(axes, each, strict=True):
            picture = image(cache.gather(m, np.array([row]))[0])
            lie = {"origin": "lower", "aspect": "auto"} if picture.ndim == 2 else {}
            axis.imshow(picture, cmap="cividis", interpolation="none", **lie)  # its own pixels: small
            axis.set(xticks=[], yticks=[])
            axis.set_title(f"{m}: {cache.classes[cache.clips.label[row]]}", fontsize=7.5, fontweight="normal")
            axis.grid(visible=False)
            axis.spines[:].set_visible(False)
    return Drawing(
        f"examples-{name}",
        f"Clips of {name}",
        f"A training clip of each of the first {len(rows)} classes, as the cache holds it and before augmentation: of"
        " several frames the middle one; spectrograms with time to the right and frequency upwards.",
        figure,
    )


def image(values: np.ndarray) -> np.ndarray:
    """A clip's modality as a picture: (F, T) as it is; of frames (T, C, H, W) the middle one, (H, W, 3) for three
    channels, else the length of the channels' vector, (H, W).
    """
    if values.ndim == 4:
        frame = values[len(values) // 2]
        return frame.transpose(1, 2, 0) if len(frame) == 3 else np.linalg.norm(frame.astype(np.float32), axis=0)[::-1]
    return values.reshape(len(values), -1).astype(np.float32)
