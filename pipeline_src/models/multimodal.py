"""The model: one encoder per modality and a fusion."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pipeline_src.core.seeding import seed_of
from pipeline_src.models.base import encoders, fusions
from pipeline_src.models.fusions.base import Fusion, only


class Output(NamedTuple):
    """What the model made of a batch: features {m: (B, D_m)} and the joint logits (B, C)."""

    features: dict[str, Tensor]
    logits: Tensor


class MultimodalModel(nn.Module):
    """Inputs {m: (B, ...)} -> `Output`. Modalities are the keys of `encoders`."""

    def __init__(self, encoders: dict[str, nn.Module], fusion: Fusion):
        super().__init__()
        self.encoders, self.fusion = nn.ModuleDict(encoders), fusion

    @property
    def modalities(self) -> list[str]:
        return list(self.encoders)

    def encode(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Features {m: (B, D_m)}, each from its own modality alone."""
        return {m: encoder(inputs[m]) for m, encoder in self.encoders.items()}

    def forward(self, inputs: dict[str, Tensor]) -> Output:
        features = self.encode(inputs)
        return Output(features, self.fusion(features))

    def predict(self, features: dict[str, Tensor], kept: list[str]) -> Tensor:
        """Joint logits (B, C) with the modalities that are not `kept` removed."""
        return self.fusion(only(features, kept))


def build(spec: dict[str, Any], inputs: dict[str, dict], classes: int, seed: int) -> MultimodalModel:
    """A model with the initial weights of `seed`, on the CPU.

    `spec` is a cell's (`encoders`, `fusion`); `inputs` is {m: {"layout", "shape"}} from the cache. A modality's encoder
    starts from the same weights in every model of the seed, whatever the other modalities, the fusion and the method.
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
        fusion = fusions[spec["fusion"]](dims, classes)
    return MultimodalModel(parts, fusion)
