"""Two small fusions that meet the encoders inside: one reads hidden states, one writes them, one leaves them alone."""

import torch
from torch import Tensor, nn

from pipeline_src.models.base import fusions
from pipeline_src.models.fusions.base import Fusion, linear

READS, WRITES, IDLE = "test_reads", "test_writes", "test_idle"


class Classifiers(Fusion):
    """A classifier per modality; the joint logits are their mean."""

    def __init__(self, dims, classes, widths=None):
        super().__init__(dims, classes, widths)
        self.classifiers = nn.ModuleDict({m: linear(dim, classes) for m, dim in dims.items()})

    def forward(self, features) -> Tensor:
        return sum(self.unimodal(features).values()) / len(self.dims)

    def unimodal(self, features) -> dict[str, Tensor]:
        return {m: classifier(features[m]) for m, classifier in self.classifiers.items()}


@fusions.register(READS, own_classifiers=True, taps=3, reads=True)
class Reads(Classifiers):
    """In the manner of CentralNet: a central stream is a learnt weighted sum of the hidden states' means, tap by tap.

    c <- ReLU(a c + sum_m a_m L_m mean(h_m)); the joint logits are those of c, plus the mean of the modalities'.
    """

    def __init__(self, dims, classes, widths=None):
        super().__init__(dims, classes, widths)
        count = len(next(iter(self.widths.values()), ()))
        self.weights = nn.Parameter(torch.ones(count, len(dims) + 1))
        self.maps = nn.ModuleDict({m: nn.ModuleList([linear(c, 5) for c in of]) for m, of in self.widths.items()})
        self.central = linear(5, classes)

    def forward(self, features) -> Tensor:
        z = super().forward(features)
        if not self.widths:
            return z
        c = torch.zeros(len(z), 5)
        for tap, (own, *weights) in enumerate(self.weights):
            parts = zip(self.dims, weights, strict=True)
            terms = [a * self.maps[m][tap](features.hidden[m][tap].mean()) for m, a in parts if m in features.hidden]
            c = torch.relu(sum(terms, own * c))
        return z + self.central(c)


@fusions.register(WRITES, own_classifiers=True, taps=3, writes=True)
class Writes(Classifiers):
    """In the manner of MMTM: squeeze, a joint vector, and a factor for each channel of each modality."""

    def __init__(self, dims, classes, widths=None):
        super().__init__(dims, classes, widths)
        taps = list(zip(*self.widths.values(), strict=True))
        self.squeezes = nn.ModuleList([linear(sum(of), 4) for of in taps])
        self.factors = nn.ModuleDict({m: nn.ModuleList([linear(4, c) for c in of]) for m, of in self.widths.items()})

    def exchange(self, tap, states) -> dict[str, Tensor]:
        count = len(next(iter(states.values())).x)
        means = [states[m].mean() if m in states else torch.zeros(count, of[tap]) for m, of in self.widths.items()]
        joint = torch.relu(self.squeezes[tap](torch.cat(means, dim=1)))
        written = {}
        for m, state in states.items():
            factor = 2 * torch.sigmoid(self.factors[m][tap](joint))
            written[m] = state.x * factor.view(*factor.shape, *[1] * (state.x.dim() - 2))
        return written


@fusions.register(IDLE, own_classifiers=True, taps=3, reads=True, writes=True)
class Idle(Classifiers):
    """Is shown the states and changes nothing."""

    def exchange(self, tap, states) -> dict[str, Tensor]:
        return {m: state.x for m, state in states.items()}
