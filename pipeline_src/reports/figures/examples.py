"""Example samples as the encoders get them, from the feature cache."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pipeline_src.features.read import Cache
from pipeline_src.reports.figures.base import Drawing, figures
from pipeline_src.reports.figures.style import panels, styled
from pipeline_src.reports.results import Results

COUNT = 6


@figures.register("examples", place="data", order=10, needs=("cache",))
def examples(results: Results) -> Iterator[Drawing]:
    """A training sample of each of the first COUNT classes (the first COUNT samples, if they have no class of their
    own), a panel for each modality that is a picture.
    """
    cache = Cache(results.cache)
    samples = cache.clips[cache.clips.split == "train"]
    classed = samples.label.dtype.kind == "i"
    first = samples.groupby("label", sort=True).head(1).sort_values("label") if classed else samples
    rows = first.index.to_numpy()[:COUNT]
    seen = [m for m, about in cache.modalities.items() if len(about["shape"]) > 1]
    each = [(m, row) for m in seen for row in rows]
    if not each:
        return
    with styled():
        figure, axes = panels(len(each), columns=len(rows), size=(1.55, 1.5))
        for axis, (m, row) in zip(axes, each, strict=True):
            picture = image(cache.gather(m, np.array([row]))[0])
            lie = {"origin": "lower", "aspect": "auto"} if picture.ndim == 2 else {}
            axis.imshow(picture, cmap="cividis", interpolation="none", **lie)  # its own pixels: small
            axis.set(xticks=[], yticks=[])
            of = f": {cache.classes[cache.clips.label[row]]}" if classed else ""
            axis.set_title(f"{m}{of}", fontsize=7.5, fontweight="normal")
            axis.grid(visible=False)
            axis.spines[:].set_visible(False)
    caption = (
        f"{f'A training sample of each of the first {len(rows)} classes' if classed else 'Training samples'}, as the"
        " cache holds it and before augmentation: of"
        " several frames the middle one; spectrograms with time to the right and frequency upwards."
    )
    yield Drawing(f"examples-{results.name}", f"Samples of {results.name}", caption, figure)


def image(values: np.ndarray) -> np.ndarray:
    """A sample's modality as a picture: (F, T) as it is; of frames (T, C, H, W) the middle one, (H, W, 3) for three
    channels, else the length of the channels' vector, (H, W).
    """
    if values.ndim == 4:
        frame = values[len(values) // 2]
        return frame.transpose(1, 2, 0) if len(frame) == 3 else np.linalg.norm(frame.astype(np.float32), axis=0)[::-1]
    return values.reshape(len(values), -1).astype(np.float32)
