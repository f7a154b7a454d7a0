"""A small cache in memory with what training reads of a real one, for any number of modalities."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pandas as pd

from pipeline_src.methods.base import Setting, methods
from pipeline_src.models.base import EncoderParams, encoders, fusion_facts, fusions
from pipeline_src.models.multimodal import MultimodalModel
from pipeline_src.tasks.base import tasks
from pipeline_src.training.assemble import assemble
from pipeline_src.training.params import Augmentation, Training
from pipeline_src.training.spec import RunSpec

CLASSIFICATION = tasks["classification"](3)
SPLITS = {"train": 26, "val": 10, "test": 13}  # no multiple of a batch


KINDS = {  # layout -> shape, type and a very small encoder
    "spectrogram": ((17, 12), "float16", {"kind": "resnet", "width": 4, "depth": [1, 1]}),
    "frames": ((2, 3, 16, 16), "uint8", {"kind": "resnet", "width": 4, "depth": [1, 1]}),
    "sequence": (
        (6, 5),
        "float32",
        {"kind": "transformer", "width": 8, "layers": 1, "heads": 2, "feedforward": 8, "dropout": 0.0},
    ),
    "tokens": ((7,), "int32", {"kind": "embedding", "words": 50, "width": 8}),
}


SCHEDULE = {
    "epochs": 3,
    "batch_size": 8,
    "optimizer": "sgd",
    "lr": 0.05,
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "lr_step": 2,
    "lr_gamma": 0.1,
    "augmentation": {},
    "normalize": "train",
    "select": "best_val",
    "track_test": True,
    "device": "cpu",
    "precision": "fp32",
    "resident_fraction": 0.5,
}


class SyntheticCache:
    """Modality i has the i-th of `layouts`, round and round; each holds the label, the later ones less of it."""

    def __init__(
        self,
        modalities: int = 2,
        classes: int = 3,
        seed: int = 0,
        splits: dict[str, int] = SPLITS,
        layouts: tuple[str, ...] = ("spectrogram", "frames"),
    ):
        rng = np.random.default_rng(seed)
        count = sum(splits.values())
        label = np.concatenate([np.arange(n) % classes for n in splits.values()])
        self.classes = [f"class{i}" for i in range(classes)]
        self.clips = pd.DataFrame(
            {
                "id": [f"clip{i:03d}" for i in range(count)],
                "label": label,
                "split": np.repeat(list(splits), list(splits.values())),
                "group": [f"group{i % 7}" for i in range(count)],
            }
        )
        self.modalities, self._values = {}, {}
        for i in range(modalities):
            layout = layouts[i % len(layouts)]
            shape, dtype, _ = KINDS[layout]
            values = rng.normal(size=(count, *shape)) + label.reshape(-1, *[1] * len(shape)) / (i + 1)
            if layout == "tokens":
                values = 1 + np.abs(10 * values).astype(int) % 49
            if layout in ("sequence", "tokens"):
                values[rng.random(values.shape[:2]) < 0.3] = 0  # padding
            values = np.clip(40 * values + 90, 0, 255) if dtype == "uint8" else values
            values = values.astype(dtype)
            stats = {"mean": [0.0], "std": [1.0]}
            if layout != "tokens":
                axes = {"frames": (0, 1, 3, 4), "sequence": (0, 1)}.get(layout)
                train = values[self.clips.split == "train"].astype(np.float64)
                stats = {k: np.atleast_1d(getattr(train, k)(axes)).tolist() for k in ("mean", "std")}
            self.modalities[f"m{i}"] = {"layout": layout, "shape": list(shape), "dtype": dtype, **stats}
            self._values[f"m{i}"] = values

    units = None  # nothing lies in storage

    def ahead(self, modalities, parts):
        return nullcontext(lambda: None)

    def rows(self, split: str) -> np.ndarray:
        return np.flatnonzero(self.clips.split == split)

    def row_bytes(self, modalities: list[str]) -> int:
        return sum(self._values[m][0].nbytes for m in modalities)

    def gather(self, modality: str, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        if out is None:
            return self._values[modality][rows]
        out[:] = self._values[modality][rows]
        return out


def spec(
    cache: SyntheticCache, fusion: str = "concat", method: str = "joint", params: dict | None = None, **training
) -> RunSpec:
    """A run's spec with a very small network for every modality of the cache; `params` are the method's."""
    augmentation = Augmentation(crop_scale=[0.5, 1.0], crop_ratio=[0.8, 1.25], flip=0.5, roll=3)
    chosen = methods[method].Params(**(params or {}))
    asked = setting(fusion, len(cache.modalities), SCHEDULE["epochs"])
    return RunSpec(
        modalities=tuple(cache.modalities),
        encoders={m: encoder(**KINDS[info["layout"]][2]) for m, info in cache.modalities.items()},
        fusion=fusion,
        method=method,
        params=chosen,
        training=Training(**SCHEDULE | training),
        augmentation=dict.fromkeys(cache.modalities, augmentation),
        requires=dict.fromkeys(methods[method].requires(chosen, asked), "feed"),
    )


def encoder(kind: str, **params) -> EncoderParams:
    return encoders[kind].Params(kind=kind, **params)


FUSIONS = [name for name in fusions if not fusion_facts(name).steps]  # that join the encoders of `spec`


def setting(fusion: str = "concat", modalities: int = 2, epochs: int = 10) -> Setting:
    """What a method is asked about before a run, with modalities m0, m1 ..."""
    return Setting(tuple(f"m{i}" for i in range(modalities)), fusion, epochs)


def stand_ins(what: RunSpec, cache: SyntheticCache, seed: int = 7) -> Callable[[str], MultimodalModel]:
    """Untrained models of another seed in the place of the runs that the method of a spec requires."""
    asked = Setting(what.modalities, what.fusion, what.training.epochs)
    required = methods[what.method].requires(what.params, asked)

    def model(name: str) -> MultimodalModel:
        m = required[name].modality
        other = replace(what, method="joint", params=methods["joint"].Params())
        if m is not None:
            other = replace(other, modalities=(m,), encoders={m: what.encoders[m]}, fusion="concat")
        return assemble(other, cache.modalities, len(cache.classes), seed).model

    return model
