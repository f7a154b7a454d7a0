"""The texts that `new` writes: a study of a table, a method and an encoder with their tests."""

STUDY = """\
# {title}
#     counterpoise plan --params {name}.yaml
#     snakemake --cores all --config params={name}.yaml
# yaml-language-server: $schema={schema}

"""

EXTENDS = (
    STUDY
    + """\
extends: {extends} # all that is not below; `counterpoise plan --explain --params {name}.yaml` shows it

{study}
# And whatever else is to differ: datasets, recipes, model, training, methods, evaluation, tuning. Blocks merge by key,
# other values replace, null removes.

tracking: {{experiment: {name}}}
"""
)

TABLE = (
    STUDY
    + """\
study: # every dataset x fusion x method x seed is one run
  datasets: [{name}]
  fusions: [concat]
  methods: [{methods}]
  unimodal: true # also every modality alone
  seeds: [0, 1, 2]

datasets:
  {name}: # without a column split, a fifth is cut off as test; see docs/data.md
    kind: table
    folder: {folder}
    file: {file}
    modalities: {{{columns}}} # modality: the column with the paths of its files
    recipe: {name}

recipes: # what each file becomes
  {name}:
{recipe}

model:
  encoders:
{encoders}

training:
  epochs: 20
  batch_size: 16
  optimizer: sgd
  lr: 0.01
  momentum: 0.9
  weight_decay: 1.0e-4
  lr_step: 14 # epochs
  lr_gamma: 0.1
  augmentation:
{augmentation}
  normalize: train
  select: best_val
  track_test: false
  device: auto
  precision: auto
  resident_fraction: 0.5

methods: {{}} # parameters by method; the published defaults where nothing is said

evaluation: {{batch_size: 64, probe_c: 1.0, probe_iterations: 1000}}

reporting: {{confidence: 0.95}}

tracking: {{enabled: true, experiment: {name}}}
"""
)

METHOD = '''\
"""{name}: joint training plus each modality's own loss. Replace this by the equations of your method.

The hooks that a method may override: pipeline_src/methods/base.py, docs/methods-how-to.md.
"""

from pydantic import Field

from pipeline_src.methods.base import Method, MethodParams, Quantity, methods


class {cls}Params(MethodParams):
    weight: float = Field(default=1.0, ge=0, le=1000, description="of the unimodal losses; 0 is joint training")


@methods.register("{name}")
class {cls}(Method):
    """Joint training plus each modality's own loss."""

    Params = {cls}Params
    params: {cls}Params
    quantities = (Quantity(name="unimodal_loss", unit="nats", caption="The modality's own loss, weighted."),)

    def loss(self, ctx, output, batch):
        losses = super().loss(ctx, output, batch)
        for m, logits in self.unimodal(ctx.model, output.features).items():
            losses[f"unimodal_loss/{{m}}"] = self.params.weight * ctx.task.loss(logits, batch.label)
        return losses
'''

METHOD_TEST = '''\
"""{name} trains, and is joint training where it says so. In the clone: python -m pytest {folder}/test_{name}.py"""

from pathlib import Path

import pytest
import torch

from pipeline_src.core import plugins
from pipeline_src.training.loader import Loader
from pipeline_src.training.loop import Trainer
from tests.synthetic import SPLITS, SyntheticCache, spec

plugins.add(str(Path(__file__).parent))
CPU = torch.device("cpu")


def trained(method: str, modalities: int = 2, **params) -> Trainer:
    """One epoch on a small synthetic cache."""
    cache = SyntheticCache(modalities)
    loaders = {{split: Loader(cache, split, list(cache.modalities), CPU, resident=True) for split in SPLITS}}
    trainer = Trainer(spec(cache, "concat", method, params), 0, cache, loaders, CPU)
    trainer.epoch(0)
    return trainer


def same(one: Trainer, other: Trainer) -> bool:
    pairs = zip(one.model.parameters(), other.model.parameters(), strict=True)
    return all(torch.allclose(a, b, atol=1e-6) for a, b in pairs)


@pytest.mark.parametrize("modalities", [2, 3])
def test_it_trains(modalities):
    run = trained("{name}", modalities)
    assert all(torch.isfinite(p).all() for p in run.model.parameters())
    assert not same(run, trained("joint", modalities))


def test_it_is_joint_training_at_weight_0():
    assert same(trained("{name}", weight=0.0), trained("joint"))
'''

ENCODER = '''\
"""{name}: a linear layer and ReLU on the whole input. Replace this by your network.

What an encoder may be asked: pipeline_src/models/base.py, docs/models.md.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pipeline_src.models.base import Encoder, EncoderParams, encoders

if TYPE_CHECKING:
    from torch import nn


class {cls}Params(EncoderParams):
    kind: Literal["{name}"] = "{name}"
    features: int = Field(ge=1, le=65_536, description="length of the feature vector")


@encoders.register("{name}")
class {cls}(Encoder):
    """Any input of numbers (B, ...) -> features (B, features)."""

    Params = {cls}Params
    params: {cls}Params
    layouts = ("frames", "spectrogram", "sequence")

    @property
    def features(self) -> int:
        return self.params.features

    def build(self) -> nn.Module:
        from torch import nn  # here, as a study is planned without torch

        return nn.Sequential(nn.Flatten(1), nn.Linear(prod(self.shape), self.features), nn.ReLU())
'''

ENCODER_TEST = '''\
"""{name} trains in the place of every encoder. In the clone: python -m pytest {folder}/test_{name}.py"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipeline_src.core import plugins
from pipeline_src.training.loader import Loader
from pipeline_src.training.loop import Trainer
from tests.synthetic import SPLITS, SyntheticCache, encoder, spec

plugins.add(str(Path(__file__).parent))
CPU = torch.device("cpu")


@pytest.mark.parametrize("fusion", ["concat", "sum"])
def test_it_trains(fusion):
    cache = SyntheticCache(3, layouts=("frames", "spectrogram", "sequence"))
    network = dict.fromkeys(cache.modalities, encoder("{name}", features=8))
    loaders = {{split: Loader(cache, split, list(cache.modalities), CPU, resident=True) for split in SPLITS}}
    trainer = Trainer(replace(spec(cache, fusion), encoders=network), 0, cache, loaders, CPU)
    before = [p.detach().clone() for p in trainer.model.parameters()]
    trainer.epoch(0)
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, trainer.model.parameters(), strict=True))
'''
