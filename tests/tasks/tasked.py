"""Synthetic caches with the labels of each task, and runs on them."""

import numpy as np
import torch

from pipeline_src.methods.base import Setting, methods
from pipeline_src.tasks.base import tasks
from pipeline_src.training.loader import Loader
from pipeline_src.training.loop import Trainer
from tests.synthetic import SPLITS, SyntheticCache, spec, stand_ins

CPU = torch.device("cpu")
SEGMENTS = {"segments": 2}  # of a sample; 0 for other tasks


def cache_of(task: str) -> SyntheticCache:
    """Two modalities, frames (2, 3, 16, 16) and spectrogram (17, 12), that hold the label of three classes."""
    cache = SyntheticCache(2)
    index = cache.clips.label.to_numpy()
    if task == "regression":
        cache.clips["label"] = (index - 1).astype(np.float32)
    elif task == "multilabel":
        cache.clips["label"] = [np.array([i == 0, i >= 1, i == 2], np.float32) for i in index]
    elif task == "segments":  # the event, or in every fifth sample its first half, then the background
        halves = np.arange(len(index)) % 5 == 0
        cache.clips["label"] = [
            np.array([i, 2 if half else i], np.int32) for i, half in zip(index, halves, strict=True)
        ]
    return cache


def setting(task: str, fusion: str = "concat", epochs: int = 1000) -> Setting:
    return Setting(("m0", "m1"), fusion, epochs, task)


def trainer(task: str, method: str = "joint", fusion: str = "concat", resident: bool = True, **training) -> Trainer:
    from dataclasses import replace

    cache, segments = cache_of(task), SEGMENTS.get(task, 0)
    what = replace(spec(cache, fusion, method, **training), task=task, segments=segments)
    target = tasks[task].target
    loaders = {s: Loader(cache, s, list(cache.modalities), CPU, resident, target, segments) for s in SPLITS}
    run = Trainer(what, 0, cache, loaders, CPU, stand_ins(what, cache))
    run.method.on_train_start(run.context)
    return run


def refused(task: str, method: str, fusion: str) -> str | None:
    return methods[method].refuses(methods[method].Params(), setting(task, fusion))
