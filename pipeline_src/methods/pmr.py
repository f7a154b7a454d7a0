"""PMR: prototypical modal rebalance (Fan et al., CVPR 2023, arXiv:2211.07089).

    c_m,k   = mean of the features f_m,i of the clips i with label k, of a share of the training data, once per epoch
    p_m(k)  = softmax_k(-||f_m - c_m,k||)                    the prototype classifier of modality m
    Eq. 8   rho_m  = sum_i p_m,i(y_i) / sum_i p_j,i(y_i)     over the batch; two modalities m, j
    Eq. 9   PCE_m  = -mean_i log p_m,i(y_i)                  prototypical cross-entropy
    Eq. 11  beta_m = clip(1 / rho_m - 1, 0, 1)               the paper's beta and gamma: 0 but for the slower modality
    Eq. 10  L      = CE + alpha sum_m beta_m PCE_m
    Eq. 12  c_m,k <- eps c_m,k + (1 - eps) (class mean)      from one epoch to the next
    Eq. 13  L      - mu sum_m gamma_m H(p_m)                 PER, in the first few epochs; H: mean entropy in nats,
                                                             gamma_m = clip(rho_m - 1, 0, 1), Eq. 11 with roles swapped

PCE speeds the slower modality up; PER keeps the entropy of the faster one's posterior high, which slows it down. No
gradient flows through prototypes, ratios and weights. The fusion takes no part in either term, so every fusion serves.

Where the authors' code (Modal-Imbalance-PMR) departs from the paper, both are offered:

    weights        the code sets beta_m to 1 for the slower modality, 0 for the other, however far apart they are
    mu             the code has no PER
    share, draw    the code takes the first tenth of the shuffled and augmented training batches, rounded down, in
                   evaluation mode; a class that is not among them gets NaN. It takes the whole validation set of AVE,
                   and a tenth of the test set of CG-MNIST: neither is possible here

As in the code, prototypes are computed in every epoch up to the last that uses them, by Eq. 12 also before a term
begins, and those of the untrained encoders, of epoch 0, are not carried on. Later ones, which the code computes to log
them, would change nothing.

Deviations: the share is drawn from the unaugmented clips, by default from each class alike and at least one clip of it,
so that no class is missed. A class without a clip in it keeps its prototype; one that never had any is left out of the
softmax, its clips out of Eq. 8 and the mean of Eq. 9. A score counts as 1e-8 or more, so that ratios are finite and
those of two scores of 0 are 1; the code has no such floor.

Where samples have segments (task `segments`), a row is a segment. Prototypes are of segments that show an event, as
in the paper ("only on ground-truth segments"): so the background has none, and its segments are left out of
Eq. 8 and Eq. 9 as above, but not of the entropies of Eq. 13. The share is of clips, by the class of their event.

More than two modalities [extension]: rho_m compares with the mean over, or the smallest of, the others (`others`, see
`discrepancy`); everything else stands as above. The paper and its code have two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pipeline_src.core.lazy import torch
from pipeline_src.core.params import LARGE
from pipeline_src.methods.base import Batch, Context, Method, Output, Phase, Quantity, Setting, WindowParams, methods
from pipeline_src.methods.discrepancy import RATIO, Others, ratios, scores

if TYPE_CHECKING:
    from torch import Generator, Tensor

LEFT_OUT = -1e30  # a logit whose probability is 0; not -inf, which makes 0 log 0 a NaN
IGNORED = -100

Weights = Literal["proportional", "binary"]


def draw(label: Tensor, share: float, stratified: bool, rng: Generator) -> Tensor:
    """Rows of a share of the clips, ascending: label (N,) -> (n,), from each class alike if `stratified`.

    At least one clip, or one of each class that has any.
    """
    order = torch.randperm(len(label), generator=rng)
    if not stratified:
        return order[: max(1, round(share * len(label)))].sort().values
    of_class, position = label[order].sort(stable=True)
    count = torch.bincount(label)
    rank = torch.arange(len(label)) - (count.cumsum(0) - count)[of_class]
    wanted = (share * count.double()).round().clamp(min=1)
    return order[position[rank < wanted[of_class]]].sort().values


def class_means(features: Tensor, label: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Prototypes (C, D), zero where a class has no clip, and clips per class (C,), of features (N, D), label (N,)."""
    # A product with the one-hot labels, as a scattered sum has no fixed order on a GPU.
    member = torch.nn.functional.one_hot(label, classes).float()
    count = member.sum(dim=0)
    return member.T @ features.float() / count.clamp(min=1)[:, None], count


def carried(old: Tensor, has_old: Tensor, new: Tensor, count: Tensor, momentum: float) -> Tensor:
    """Eq. 12: prototypes (C, D) from the last ones and the class means; `has_old` (C,) bool, `count` (C,).

    A class without a clip keeps its last prototype; one without a last prototype takes its mean.
    """
    found = (count > 0)[:, None]
    return torch.where(found, torch.where(has_old[:, None], momentum * old + (1 - momentum) * new, new), old)


def similarity(features: Tensor, prototypes: Tensor, has: Tensor) -> Tensor:
    """Logits of the prototype classifier, minus the Euclidean distances: (B, D), (C, D), (C,) bool -> (B, C) float32.

    Classes without a prototype get no probability. The gradient is finite everywhere, also on a prototype.
    """
    with torch.autocast(features.device.type, enabled=False):
        # Distances by a matrix product are fast, but lose the digits that all vectors share: these are taken off.
        features = features.float()
        centre = features.detach().mean(dim=0)
        distance = torch.cdist(features - centre, prototypes - centre, compute_mode="use_mm_for_euclid_dist")
    return (-distance).masked_fill(~has, LEFT_OUT)


def prototypical_cross_entropy(log_p: Tensor, label: Tensor, has: Tensor) -> Tensor:
    """Eq. 9: log-posteriors (B, C), label (B,), has (C,) bool -> (). The mean over clips of classes with a prototype;
    0 if there is none.
    """
    known = has[label]
    target = torch.where(known, label, IGNORED)
    lost = torch.nn.functional.nll_loss(log_p, target, ignore_index=IGNORED, reduction="sum")
    return lost / known.sum().clamp(min=1)


def entropy(log_p: Tensor) -> Tensor:
    """Mean entropy in nats of log-posteriors (B, C) -> ()."""
    return -(log_p.exp() * log_p).sum(dim=1).mean()


def speed_up(ratio: Tensor, weights: Weights) -> Tensor:
    """Eq. 11 for every modality at once: ratios (M,) -> beta (M,), above 0 for the slower ones."""
    return (1 / ratio - 1).clamp(0, 1) if weights == "proportional" else (ratio < 1).to(ratio.dtype)


def slow_down(ratio: Tensor, weights: Weights) -> Tensor:
    """The weights of PER, Eq. 11 with the roles swapped: ratios (M,) -> gamma (M,), above 0 for the faster ones."""
    return (ratio - 1).clamp(0, 1) if weights == "proportional" else (ratio > 1).to(ratio.dtype)


class PMRParams(WindowParams):
    """Values of the authors are those of their paper or of bash.sh in their repository."""

    alpha: float = Field(
        1.0,
        ge=0,
        le=LARGE,
        allow_inf_nan=False,
        description="weight of the prototype losses; paper 1 or 2, CREMA-D 2, AVE 1 or 2",
    )
    weights: Weights = Field(
        "proportional", description="beta: the paper's clipped ratio, or the released 1 for the slower modality"
    )
    first_epoch: int = Field(0, ge=0, description="first epoch with prototype losses, from 0; released 0")
    last_epoch: int | None = Field(
        None,
        ge=0,
        description="last epoch with prototype losses, from 0 and included; null: the run's last. Released: "
        "70 of 100 to 150 epochs, CG-MNIST 60 of 100, in trials with CREMA-D 100 of 130 and 150",
    )
    share: float = Field(
        0.1,
        gt=0,
        le=1,
        description="of the training clips, for the prototypes; paper 0.1; 0.01 is below joint "
        "training on AVE, and 0.9 points above it on CREMA-D (Table 5)",
    )
    draw: Literal["stratified", "random"] = Field(
        "stratified", description="the share: from every class alike, or, as released, from all clips"
    )
    momentum: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="eps, the part of the last prototypes that is kept; released 0.2, bash.sh mostly 0",
    )
    mu: float = Field(
        0.01,
        ge=0,
        le=LARGE,
        allow_inf_nan=False,
        description="weight of PER; paper 0.001 or 0.01, 0 for none as released",
    )
    per_epochs: int = Field(
        5, ge=0, description="first epochs with PER, of a shorter run all; the paper says few, not how many"
    )
    others: Others = Field(
        "mean", description="more than two modalities: what a ratio compares with [extension, of no paper]"
    )


@methods.register("pmr")
class PMR(Method):
    """Speeds the slower modality up by a loss on distances to class prototypes, and slows the faster one down."""

    family = "losses"
    Params = PMRParams
    params: PMRParams
    quantities = (
        RATIO,
        Quantity(
            name="weight",
            unit="",
            caption="The weight of the modality's prototypical cross-entropy, which speeds up a slow modality.",
            limits=(0, 1),
        ),
        Quantity(
            name="entropy_weight",
            unit="",
            caption="The weight of the modality's prototypical entropy, which slows down a fast modality.",
            limits=(0, 1),
        ),
        Quantity(
            name="prototype_score",
            unit="samples",
            caption="The sum over a batch of the probability that the modality's prototypes give to the true class.",
            detail=True,
        ),
        Quantity(
            name="prototype_loss",
            unit="nats",
            caption="The cross-entropy of the modality's prototype classifier.",
            detail=True,
        ),
        Quantity(
            name="entropy",
            unit="nats",
            caption="The entropy of the modality's prototype classifier.",
            detail=True,
        ),
        Quantity(
            name="pce",
            unit="nats",
            caption="The loss term of prototypical cross-entropy.",
            of="model",
            detail=True,
        ),
        Quantity(
            name="per",
            unit="nats",
            caption="The loss term of prototypical entropy.",
            of="model",
            detail=True,
        ),
        Quantity(
            name="classes_without_prototype",
            unit="classes",
            caption="The number of classes for which no sample has given a prototype yet.",
            of="model",
            detail=True,
        ),
    )

    @classmethod
    def refuses(cls, params: PMRParams, setting: Setting) -> str | None:
        return setting.lacks(modalities=2, classes=True) or params.beyond(setting.epochs)

    @classmethod
    def extension(cls, params: PMRParams, setting: Setting) -> str | None:
        if len(setting.modalities) > 2:
            return "PMR is defined for two modalities; here each is compared with the others"
        return None

    def __init__(self, params: PMRParams) -> None:
        super().__init__(params)
        self.prototypes: dict[str, Tensor] = {}  # {m: (C, D_m)} float32
        self.has: Tensor | None = None  # (C,) bool: the classes that have a prototype

    def terms(self, epoch: int) -> tuple[float, float]:
        """alpha and mu in an epoch: 0 where its term is off."""
        p = self.params
        return p.alpha * p.within(epoch), p.mu * (epoch < p.per_epochs)

    def before_epoch(self, ctx: Context) -> list[Phase]:
        if any(any(self.terms(epoch)) for epoch in range(ctx.epoch, ctx.epochs)):
            p, rows = self.params, None
            if p.share < 1:
                rows = draw(ctx.sample_labels("train").cpu(), p.share, p.draw == "stratified", ctx.rng)
            features, label = ctx.collect("train", rows)
            if (event := ctx.task.events(label)) is not None:
                features, label = {m: f[event] for m, f in features.items()}, label[event]
            self.update(features, label, ctx.classes, p.momentum if ctx.epoch > 1 else 0.0)
            ctx.log("classes_without_prototype", (~self.has).sum())
        return [Phase()]

    def update(self, features: dict[str, Tensor], label: Tensor, classes: int, momentum: float) -> None:
        """Take the prototypes of features {m: (N, D_m)} and label (N,), by Eq. 12 where there are last ones."""
        has = torch.zeros(classes, dtype=torch.bool) if self.has is None else self.has
        has = has.to(label.device)
        for m, f in features.items():
            new, count = class_means(f, label, classes)
            old = self.prototypes[m].to(new.device) if m in self.prototypes else torch.zeros_like(new)
            self.prototypes[m] = carried(old, has, new, count, momentum)
        self.has = has | (count > 0)

    def loss(self, ctx: Context, output: Output, batch: Batch) -> dict[str, Tensor]:
        losses = super().loss(ctx, output, batch)
        alpha, mu = self.terms(ctx.epoch)
        if not alpha and not mu:
            return losses
        p = self.params
        logits = {m: similarity(f, self.prototypes[m], self.has) for m, f in output.features.items()}
        with torch.no_grad():
            score = scores(ctx.task, logits, batch.label)
            ratio = torch.stack(list(ratios(score, p.others).values()))
            beta, gamma = speed_up(ratio, p.weights), slow_down(ratio, p.weights)
        log_p = [z.log_softmax(dim=1) for z in logits.values()]
        pce = torch.stack([prototypical_cross_entropy(x, batch.label, self.has) for x in log_p])
        spread = torch.stack([entropy(x) for x in log_p])
        for i, m in enumerate(logits):
            ctx.log(f"prototype_score/{m}", score[m])
            ctx.log(f"ratio/{m}", ratio[i])
            ctx.log(f"prototype_loss/{m}", pce[i])
            ctx.log(f"weight/{m}", beta[i])
            ctx.log(f"entropy/{m}", spread[i])
            ctx.log(f"entropy_weight/{m}", gamma[i])
        if alpha:
            losses["pce"] = alpha * (beta * pce).sum()
        if mu:
            losses["per"] = -mu * (gamma * spread).sum()
        return losses

    def state_dict(self) -> dict[str, Tensor]:
        if self.has is None:
            return {}
        return {"has": self.has, **{f"prototypes/{m}": c for m, c in self.prototypes.items()}}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.has = state.get("has")
        self.prototypes = {k.partition("/")[2]: v for k, v in state.items() if k != "has"}
