"""Summation: z = sum_m z_m, with the unimodal logits z_m = W_m f_m + b_m."""

from collections.abc import Mapping

from torch import Tensor, nn

from pipeline_src.models.base import added, fusions
from pipeline_src.models.fusions.base import Fusion, linear


@fusions.register("sum", additive=True, linear=True)
class Sum(Fusion):
    def __init__(self, dims: dict[str, int], classes: int):
        super().__init__(dims, classes)
        self.terms = nn.ModuleDict({m: linear(dim, classes) for m, dim in dims.items()})

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        return added(self.unimodal(features).values())

    def linear_gradients(self) -> dict[str, list[Tensor]]:
        """Each modality's part of the gradients: those of its own term."""
        return {m: [p.grad for p in term.parameters() if p.grad is not None] for m, term in self.terms.items()}

    def unimodal(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {m: term(features[m]) for m, term in self.terms.items()}

    def linear_weights(self) -> dict[str, Tensor]:
        """W_m (C, D_m) of each modality."""
        return {m: next(term.parameters()) for m, term in self.terms.items()}  # before its bias
