"""One classifier for all modalities, as alternating and boosting methods need it.

    shared       z = 1 / M sum_m c(f_m)     c = Linear(D, C)                        z_m = c(f_m) / M
    shared_mlp   z = sum_m c(f_m)           c = Linear(D, 256), ReLU, Linear(256, C)  z_m = c(f_m)

`shared` is the classifier of MLA (Zhang et al., CVPR 2024, arXiv:2311.10707), `shared_mlp` that of ReconBoost's
released code (Hua et al., ICML 2024). The unimodal logits add up to z. D is the length of the shortest feature vector;
a longer one is mapped to D first, c(P_m f_m), by a matrix P_m of its own [extension].
"""

from collections.abc import Mapping

from torch import Tensor, nn

from pipeline_src.models.base import added, fusions
from pipeline_src.models.fusions.base import Fusion, linear

HIDDEN = 256  # of ReconBoost's classifier


@fusions.register("shared", additive=True)
class Shared(Fusion):
    """One linear classifier for all modalities, as alternating and boosting methods need it."""

    def __init__(self, dims: dict[str, int], classes: int):
        super().__init__(dims, classes)
        narrow = min(dims.values())
        self.maps = nn.ModuleDict({m: nn.Linear(dim, narrow, bias=False) for m, dim in dims.items() if dim > narrow})
        for layer in self.maps.values():
            for weight in layer.parameters():
                nn.init.xavier_normal_(weight)
        self.classifier = self.shared(narrow, classes)
        self.weight = 1 / len(dims)

    def shared(self, dim: int, classes: int) -> nn.Module:
        """The classifier (B, D) -> (B, C)."""
        return linear(dim, classes)

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        return added(self.unimodal(features).values())

    def narrow(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the classifier reads of each modality, (B, D)."""
        return {m: self.maps[m](features[m]) if m in self.maps else features[m] for m in self.dims}

    def unimodal(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {m: self.weight * self.classifier(f) for m, f in self.narrow(features).items()}


@fusions.register("shared_mlp", additive=True)
class SharedMLP(Shared):
    """One classifier of two layers for all modalities, as alternating and boosting methods need it."""

    def __init__(self, dims: dict[str, int], classes: int):
        super().__init__(dims, classes)
        self.weight = 1

    def shared(self, dim: int, classes: int) -> nn.Module:
        return nn.Sequential(linear(dim, HIDDEN), nn.ReLU(), linear(HIDDEN, classes))
