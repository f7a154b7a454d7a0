"""Audio-guided visual attention, and the dual multimodal residual network (Tian et al., ECCV 2018, arXiv:1803.08842).

The first modality guides where the others are looked at. At the last tap, with s (B, C_0) the mean state of the guide
and v_p (B, C) the state of an attended modality at place p, of P places:

    z_p   = w . tanh(W_v relu(U_v v_p + u_v) + W_a relu(U_a s + u_a))     U: to 512, W: to 49, without bias
    v_p  <- P softmax_p(z) v_p

so that the mean over places, which the encoder takes next, is the paper's sum of attended places. Then, with features
f_m, which are those of a BiLSTM over the segments where the encoder is `recurrent`:

    avga    z = L_2 relu(L_1 relu([f_1; ...; f_M]))                       L_1: to 64
    dmrn    g = 1 / M sum_m U_m f_m, U_m: linear, tanh, linear
            z = L (1 / M sum_m tanh(f_m + g))

Layers and widths were checked against the released code (AVE-ECCV18, models.py and models_fusion.py). There, W_a
relu(...) is added to the 49 places and not to the 49 hidden numbers, which cannot be told from the shapes; here it is
added as the paper's equation says, so any number of places will do. The released DMRN starts from the weights of its
attention model; here all models start from the same random ones. The released training takes the softmax twice (a
soft-margin loss of probabilities), visits the clips in one order and chooses the epoch on test; here as for every task.

Several modalities may be attended [extension], and `dmrn` maps longer features to the shortest. A guide that was
removed counts as zero; the exchange's weights belong to no modality. One modality: a linear classifier. Unimodal
logits: the prediction with the other modalities' features set to zero.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pipeline_src.models.base import added, fusions
from pipeline_src.models.fusions.base import Fusion, linear, only
from pipeline_src.models.stages import State

INNER, HIDDEN, JOINT = 512, 49, 64  # of the released code


class Attention(nn.Module):
    """The attention over the places of one modality, of C channels, by a guide of C_0."""

    def __init__(self, channels: int, guide: int):
        super().__init__()
        self.guide_channels = guide
        self.state, self.guide = linear(channels, INNER), linear(guide, INNER)
        self.of_state = nn.Linear(INNER, HIDDEN, bias=False)
        self.of_guide = nn.Linear(INNER, HIDDEN, bias=False)
        self.score = nn.Linear(HIDDEN, 1, bias=False)
        for layer in (self.of_state, self.of_guide, self.score):
            nn.init.xavier_normal_(layer.weight)

    def forward(self, state: State, guide: Tensor | None) -> Tensor:
        """The attended state (B, C, *places); `guide` (B, C_0), or None if it was removed."""
        v = state.x.flatten(2).transpose(1, 2)  # (B, P, C)
        s = v.new_zeros(len(v), self.guide_channels) if guide is None else guide
        by = self.of_guide(torch.relu(self.guide(s)))
        z = self.score(torch.tanh(self.of_state(torch.relu(self.state(v))) + by[:, None, :]))[:, :, 0]
        if state.padding is None:
            weight = z.softmax(dim=1) * v.shape[1]
        else:
            padding = state.padding.flatten(1)
            weight = z.masked_fill(padding, -torch.inf).softmax(dim=1) * (~padding).sum(1, keepdim=True)
        return state.x * weight.view(len(v), 1, *state.x.shape[2:])


@fusions.register("avga", taps=1, writes=True)
class AVGA(Fusion):
    """Audio-guided visual attention: where the others are looked at follows from the first modality."""

    def __init__(self, dims: dict[str, int], classes: int, widths: dict[str, tuple[int, ...]] | None = None):
        super().__init__(dims, classes, widths)
        (guide, *attended) = dims
        self.guiding = guide
        self.attention = nn.ModuleDict(
            {m: Attention(self.widths[m][-1], self.widths[guide][-1]) for m in attended if self.widths}
        )
        if attended:
            self.head()
        else:
            self.out = linear(dims[guide], classes)

    def head(self) -> None:
        """Make the layers that read the features of several modalities."""
        self.joint, self.out = linear(sum(self.dims.values()), JOINT), linear(JOINT, self.classes)

    def exchange(self, tap: int, states: dict[str, State]) -> dict[str, Tensor]:
        guide = states[self.guiding].mean() if self.guiding in states else None
        return {m: self.attention[m](state, guide) if m in self.attention else state.x for m, state in states.items()}

    def read(self, features: Mapping[str, Tensor]) -> Tensor:
        """What the last layer reads of several modalities."""
        return torch.relu(self.joint(torch.relu(torch.cat([features[m] for m in self.dims], dim=1))))

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        return self.out(self.read(features) if len(self.dims) > 1 else features[self.guiding])

    def unimodal(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {m: self(only(features, [m])) for m in features}


@fusions.register("dmrn", taps=1, writes=True)
class DMRN(AVGA):
    """Audio-guided visual attention, then the dual multimodal residual network."""

    def head(self) -> None:
        narrow = min(self.dims.values())
        wider = {m: dim for m, dim in self.dims.items() if dim > narrow}
        self.maps = nn.ModuleDict({m: linear(dim, narrow) for m, dim in wider.items()})
        self.residual = nn.ModuleDict(
            {m: nn.Sequential(linear(narrow, narrow), nn.Tanh(), linear(narrow, narrow)) for m in self.dims}
        )
        self.out = linear(narrow, self.classes)

    def read(self, features: Mapping[str, Tensor]) -> Tensor:
        f = {m: self.maps[m](features[m]) if m in self.maps else features[m] for m in self.dims}
        merged = added(self.residual[m](f[m]) for m in f) / len(f)
        return added(torch.tanh(f[m] + merged) for m in f) / len(f)
