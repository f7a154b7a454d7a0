"""A run of a method on the synthetic cache, for tests of single steps."""

import torch

from pipeline_src.methods.base import Batch, Output
from pipeline_src.models.fusions.base import Features
from pipeline_src.training.loader import Loader
from pipeline_src.training.loop import Trainer
from tests.synthetic import SyntheticCache, spec, stand_ins

CPU = torch.device("cpu")


def run(method: str, fusion: str = "concat", modalities: int = 2, params: dict | None = None, **training) -> Trainer:
    """A run that is about to train its first epoch; its required runs are untrained models."""
    cache = SyntheticCache(modalities)
    what = spec(cache, fusion, method, params, **training)
    loaders = {s: Loader(cache, s, list(cache.modalities), CPU, resident=True) for s in ("train", "val", "test")}
    trainer = Trainer(what, 0, cache, loaders, CPU, stand_ins(what, cache))
    trainer.method.on_train_start(trainer.context)
    return trainer


def forward(trainer: Trainer) -> tuple[Batch, Features, Output]:
    """The first batch of train, its features and what the method predicts."""
    batch = next(iter(trainer.loaders["train"].batches(8)))
    batch = batch._replace(inputs=trainer.transform(batch.inputs))
    features = trainer.context.encode(batch)
    return batch, features, Output(features, trainer.method.logits(trainer.model, features))


def same_weights(one: Trainer, other: Trainer) -> bool:
    """Whether encoders and fusion are equal bit for bit."""
    theirs = other.model.state_dict()
    return all(torch.equal(x, theirs[k]) for k, x in one.model.state_dict().items() if not k.startswith("extra."))
