"""MBT: bottleneck tokens between transformers (Nagrani et al., NeurIPS 2021, arXiv:2107.00135).

From a tap on, each of the last layers reads its own modality's steps and four tokens that all modalities share:

    [h_m; b_m] <- layer_m([h_m; b])      b = the mean of the b_m, learnt tokens before the first of these layers
    z_m = W f_m + c                      f_m: features, the class token with `pool: class`; W, c serve all modalities
    z   = 1 / M sum_m z_m

It uses the last five taps: four layers (or as many as the encoders have, less one) are joined, those before them see
their own modality alone; of the published twelve layers four are joined too. Features know the other modalities. A
removed modality is not encoded and takes no part in the mean.

Checked in the authors' code (github.com/google-research/scenic, projects/mbt/model.py): the tokens are appended to each
modality's steps, the layer's own weights serve both, the tokens' outputs are averaged over the modalities after each
joined layer and start from N(0, 0.02); one classifier reads the class token of each modality, and logits are averaged.
Deviations of that code: it has one token more than the paper's four if there are class tokens, starts the classifier
from zeros, minimises the mean of the modalities' losses and averages logits at test alone; here the loss is that of the
averaged logits in training too. There one layer norm at the end serves all modalities; here each encoder has its own
(`norm: before`). For the published layers choose `pool: class`, `norm: before`, `activation: gelu`.
More than two modalities: the same equations [extension]. One modality: a linear classifier.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from pipeline_src.models.base import added, fusions
from pipeline_src.models.fusions.base import Fusion, linear
from pipeline_src.models.stages import State

TOKENS = 4  # B of the paper


@fusions.register("mbt", own_classifiers=True, taps=5, least_taps=2, writes=True, steps=True)
class MBT(Fusion):
    def __init__(self, dims: dict[str, int], classes: int, widths: dict[str, tuple[int, ...]] | None = None):
        super().__init__(dims, classes, widths)
        (width,) = set(dims.values())  # one for all: `steps`
        self.classifier = linear(width, classes)
        self.last = len(next(iter(self.widths.values()), ())) - 1
        if self.widths:
            self.tokens = nn.Parameter(0.02 * torch.randn(width, TOKENS))

    def exchange(self, tap: int, states: dict[str, State]) -> dict[str, State]:
        """Tokens are appended at the first tap, averaged at those between, and taken off at the last."""
        own = states if tap == 0 else {m: _cut(state) for m, state in states.items()}
        if tap == self.last:
            return own
        if tap == 0:
            shared = self.tokens.expand(len(next(iter(states.values())).x), -1, -1)
        else:
            shared = added(state.x[..., -TOKENS:] for state in states.values()) / len(states)
        return {m: _appended(state, shared) for m, state in own.items()}

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        return added(self.unimodal(features).values()) / len(self.dims)

    def unimodal(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {m: self.classifier(features[m]) for m in self.dims}


def _appended(state: State, tokens: Tensor) -> State:
    """A state of steps (B, C, T) with tokens (B, C, n) after them, which are never padding."""
    assert state.padding is not None
    return State(torch.cat([state.x, tokens.to(state.x.dtype)], dim=2), pad(state.padding, (0, TOKENS)))


def _cut(state: State) -> State:
    assert state.padding is not None
    return State(state.x[..., :-TOKENS], state.padding[..., :-TOKENS])
