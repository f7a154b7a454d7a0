"""CentralNet: a central stream reads the encoders' hidden states (Vielzeuf et al., ECCVW 2018, arXiv:1808.07275).

    s_i     = a_i c_i + sum_m a_{i,m} pad(mean of h_{i,m} over places)     c_1 = 0; h_{i,m}: state of m at tap i
    c_{i+1} = ReLU(A_i s_i + b_i)                                          as wide as the next tap, then as the last
    z       = W c + b                                                      the last c
    z_m     = W_m f_m + b_m                                                the streams' own classifiers
    loss    = CE(z, y) + sum_m CE(z_m, y)

The scalars a are learnt. A tap is as wide as its widest modality; `pad` fills up with zeros. The central stream reads
the last three taps of each encoder and changes nothing in them: features depend on their own modality alone. A removed
modality is missing in the sums.

Checked in code of two of its authors (github.com/jperezrua/mfas, models/central/avmnist.py and ntu.py): central layers
with a ReLU, zeros that fill up channels, the mean over frames, scalars that start uniformly in [0, 1), and a joint
prediction of the central stream alone. There the states are pooled (AV-MNIST) or maps (NTU); here they are pooled, so
that encoders of any kind can meet. There A_i convolves along the channels (AV-MNIST, three weights) or over places
(NTU, with batch norm); here it is a full linear layer without batch norm, as methods may ask for several predictions in
a step. The loss is the paper's with weights of 1. PMR's release (Fan et al., CVPR 2023, Table 3) lacks the model.
More than two modalities: the same equations [extension]. One modality: a linear classifier.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from pipeline_src.models.base import added, fusions
from pipeline_src.models.fusions.base import Fusion, linear
from pipeline_src.models.stages import State


@fusions.register("centralnet", own_classifiers=True, taps=3, reads=True, unimodal_loss=True)
class CentralNet(Fusion):
    def __init__(self, dims: dict[str, int], classes: int, widths: dict[str, tuple[int, ...]] | None = None):
        super().__init__(dims, classes, widths)
        self.classifiers = nn.ModuleDict({m: linear(dim, classes) for m, dim in dims.items()})
        if self.widths:
            self.wide = [max(of) for of in zip(*self.widths.values(), strict=True)]
            after = [*self.wide[1:], self.wide[-1]]
            self.central = nn.ModuleList([linear(i, o) for i, o in zip(self.wide, after, strict=True)])
            self.mix = nn.Parameter(torch.rand(len(self.wide), 1 + len(dims)))  # a_i, then a_{i,m}
            self.out = linear(after[-1], classes)

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        if not self.widths:
            return added(self.unimodal(features).values()) / len(self.dims)
        hidden: Mapping[str, tuple[State, ...]] = getattr(features, "hidden", {})
        like = next(iter(features.values()))
        c = like.new_zeros(len(like), self.wide[0])
        for i, layer in enumerate(self.central):
            own, *weights = self.mix[i]
            states = {m: (a, hidden[m][i].mean()) for m, a in zip(self.dims, weights, strict=True) if m in hidden}
            parts = [a * pad(h, (0, self.wide[i] - h.shape[1])) for a, h in states.values()]
            c = torch.relu(layer(added([own * c, *parts])))
        return self.out(c)

    def unimodal(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {m: classifier(features[m]) for m, classifier in self.classifiers.items()}
