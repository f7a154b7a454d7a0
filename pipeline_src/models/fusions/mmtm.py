"""MMTM: squeeze and excitation across modalities, inside the encoders (Joze et al., CVPR 2020, arXiv:1911.08670).

At a tap, with h_m (B, C_m, *places) the state of modality m:

    s_m  = mean of h_m over places                            squeeze; frames and steps too, padding left out
    e    = ReLU(S [s_1; ...; s_M] + s)                        width 2 sum_m C_m / 4
    h_m <- sigmoid(E_m e + e_m) * h_m                         excitation, one factor per sample and channel

Then each modality has a classifier of its own, z_m = W_m f_m + b_m, and z = 1 / M sum_m z_m.

`mmtm` exchanges at the last three taps, on a ResNet after layer2, layer3 and layer4, as the model that PMR trains does
(Fan et al., CVPR 2023, models/MMTM.py); `mmtm_last` exchanges at the last tap only. On an encoder that ends in average
pooling this scales the features themselves. The z_m come from features that have met the other modalities. A removed
modality is not encoded; its s_m counts as zero.

Checked: the exchange against golden cases of the authors' module; ratio, places of the exchanges, classifiers and their
mean against PMR's models/MMTM.py; sigmoid without a factor of 2 also against the authors' mmtm.py (github.com/haamoon/
mmtm), whose prediction is the mean of both streams too.

Deviations from PMR's code: it squeezes each frame by itself, with one frame per clip; here s_m is the mean over all
frames. Its layers start from PyTorch's default; here from Xavier weights and zero bias, as other fusions do. More than
two modalities: the same equations [extension]. One modality: a linear classifier.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pipeline_src.models.base import added, fusions
from pipeline_src.models.fusions.base import Fusion, linear
from pipeline_src.models.stages import State

RATIO = 4  # of the released code


class Exchange(nn.Module):
    """One tap: channels {m: C_m}; means {m: (B, C_m)} -> factors {m: (B, C_m)} in (0, 1)."""

    def __init__(self, channels: dict[str, int]):
        super().__init__()
        self.channels, total = dict(channels), sum(channels.values())
        self.squeeze = linear(total, max(1, 2 * total // RATIO))
        self.excite = nn.ModuleDict({m: linear(self.squeeze.out_features, c) for m, c in channels.items()})

    def forward(self, means: Mapping[str, Tensor]) -> dict[str, Tensor]:
        like = next(iter(means.values()))
        rows = [means[m] if m in means else like.new_zeros(len(like), c) for m, c in self.channels.items()]
        joint = torch.relu(self.squeeze(torch.cat(rows, dim=1)))
        return {m: torch.sigmoid(self.excite[m](joint)) for m in means}


@fusions.register("mmtm", own_classifiers=True, taps=3, writes=True)
class MMTM(Fusion):
    """MMTM: squeeze and excitation across modalities at the encoders' last three taps (Joze et al., CVPR 2020)."""

    def __init__(self, dims: dict[str, int], classes: int, widths: dict[str, tuple[int, ...]] | None = None):
        super().__init__(dims, classes, widths)
        taps = zip(*self.widths.values(), strict=True)
        self.exchanges = nn.ModuleList([Exchange(dict(zip(self.widths, channels, strict=True))) for channels in taps])
        self.classifiers = nn.ModuleDict({m: linear(dim, classes) for m, dim in dims.items()})

    def exchange(self, tap: int, states: dict[str, State]) -> dict[str, Tensor]:
        factors = self.exchanges[tap]({m: state.mean() for m, state in states.items()})
        return {
            m: state.x * factors[m].view(*factors[m].shape, *[1] * (state.x.dim() - 2)) for m, state in states.items()
        }

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        return added(self.unimodal(features).values()) / len(self.dims)

    def unimodal(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {m: classifier(features[m]) for m, classifier in self.classifiers.items()}


@fusions.register("mmtm_last", own_classifiers=True, taps=1, writes=True)
class MMTMLast(MMTM):
    """MMTM at the last tap of the encoders alone."""
