"""The model: one encoder per modality and a fusion head."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pipeline_src.models.base import encoders, heads
from pipeline_src.models.heads.base import Head, only
from pipeline_src.seeding import seed_of


class Output(NamedTuple):
    """What the model made of a batch: features {m: (B, D_m)} and the joint logits (B, C)."""

    features: dict[str, Tensor]
    logits: Tensor


class MultimodalModel(nn.Module):
    """Inputs {m: (B, ...)} -> `Output`. Modalities are the keys of `encoders`."""

    def __init__(self, encoders: dict[str, nn.Module], head: Head):
        super().__init__()
        self.encoders, self.head = nn.ModuleDict(encoders), head

    @property
    def modalities(self) -> list[str]:
        return list(self.encoders)

    def encode(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Features {m: (B, D_m)}, each from its own modality alone."""
        return {m: encoder(inputs[m]) for m, encoder in self.encoders.items()}

    def forward(self, inputs: dict[str, Tensor]) -> Output:
        features = self.encode(inputs)
        return Output(features, self.head(features))

    def predict(self, features: dict[str, Tensor], kept: list[str]) -> Tensor:
        """Joint logits (B, C) with the modalities that are not `kept` removed."""
        return self.head(only(features, kept))


def build(spec: dict[str, Any], inputs: dict[str, dict], classes: int, seed: int) -> MultimodalModel:
    """A model with the initial weights of `seed`, on the CPU.

    `spec` is a cell's (`encoders`, `head`); `inputs` is {m: {"layout", "shape"}} from the cache. A modality's encoder
    starts from the same weights in every model of the seed, whatever the other modalities, the head and the method.
    """
    parts, dims = {}, {}
    for m, params in spec["encoders"].items():
        plugin = encoders[params["kind"]]
        encoder = plugin(plugin.Params(**params), inputs[m]["layout"], tuple(inputs[m]["shape"]))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(seed, "encoder", m))
            parts[m] = encoder.build()
        dims[m] = encoder.features
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "head"))
        head = heads[spec["head"]](dims, classes)
    return MultimodalModel(parts, head)
