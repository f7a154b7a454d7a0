"""Diagnosing & Re-learning (Wei et al., ECCV 2024, arXiv:2407.09705).

    diagnose    C_S^m    k-means of the features f_m of the clips of S, as many clusters as classes
                P_S^m  = 1 / |S| sum_c max_y |{i in S: C_S^m(i) = c, y_i = y}|      purity, S: training D, held-out V
                g^m    = |P_D^m - P_V^m|                                            purity gap
    strength    alpha^m = tanh(lambda g^m)
    re-learn    theta^m <- alpha^m theta_init^m + (1 - alpha^m) theta^m             every parameter of encoder m

theta_init are the weights before the first step; the fusion is left alone. A modality that is fitted to the
training clips beyond what holds for others has a wide gap and starts over; one that is scarcely informative has a
narrow gap and is kept. The rule is one modality's alone, so that any number of them works without an extension.

D and V are `train` and `val`: the manifest cuts val from the training clips, as the authors cut 744 of CREMA-D's 6,698,
and joint training has the same clips and batches. Test data is never read. Note that val also chooses the epoch.

The defaults are those of the authors' code, as we have no other source that states them all. It

    every, times    re-initialises after the epochs numbered 20, 40 and 60 from 0, hence after 21, 41 and 61 epochs
    features        clusters features scaled to [-1, 1] per dimension, D and V each by their own range
    starts          names no number of k-means++ starts: scikit-learn's own was 10 before version 1.4, 1 since. It
                    matters: one of the golden cases' purities is 0.58 with 1 start and 0.81 with 10
    buffers         leaves the running statistics of normalisation as they are
    optimizer       leaves the momentum of the weights that it moved as it is

As in that code an epoch is scored before its weights are re-initialised, which is why this happens at the start of the
next; purities stand in that epoch's row, and nothing happens after the last epoch.

Deviations: the authors' script trains D&R without augmentation on 5,954 clips, its baseline with augmentation on 6,698,
and picks the epoch on test; here both have the same clips and augmentation, and the diagnosis alone sees clips without
it. k-means gets the clips in the dataset's order, not shuffled, and one thread, so that a run repeats exactly.
lambda = infinity gives alpha = 1 whatever the gap, its limit for all gaps but 0. With fewer clips than classes there
are as many clusters as clips; with fewer distinct features, such as a constant modality's, as many as are distinct.
"""

from __future__ import annotations

import math
import time
import warnings
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pipeline_src.core.errors import UserError
from pipeline_src.core.lazy import torch
from pipeline_src.methods.base import Context, Method, MethodParams, Phase, Quantity, Setting, methods

if TYPE_CHECKING:
    from torch import Tensor, nn

Scale = Literal["minmax", "none"]


def assign(features: Tensor, clusters: int, scale: Scale, starts: int) -> Tensor:
    """Cluster (N,) of each row of features (N, D), which must be finite; at most `clusters` of them."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.preprocessing import minmax_scale
    from threadpoolctl import threadpool_limits

    points = features.cpu().numpy()
    if scale == "minmax":
        points = minmax_scale(points, (-1, 1))
    # With more threads scikit-learn adds up the centres in whatever order the threads finish.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than clusters: a defined result
        found = KMeans(min(clusters, len(points)), n_init=starts, random_state=0).fit_predict(points)
    return torch.from_numpy(found).long()


def purity(clusters: Tensor, labels: Tensor) -> float:
    """Share of the clips whose label is the most frequent of their cluster: clusters (N,), labels (N,), both int64."""
    classes = int(labels.max()) + 1
    cells = (int(clusters.max()) + 1) * classes
    counts = torch.bincount(clusters * classes + labels, minlength=cells).view(-1, classes)
    return int(counts.amax(1).sum()) / len(labels)


def reset_strength(train: float, val: float, lam: float) -> float:
    """alpha in [0, 1] from the purities of training and held-out clips; 1 where lam is infinite."""
    return 1.0 if math.isinf(lam) else math.tanh(lam * abs(train - val))


def soft_reset(initial: Tensor, current: Tensor, alpha: float) -> Tensor:
    """alpha initial + (1 - alpha) current, rounded where the tensor holds whole numbers (a counter of batches)."""
    mixed = alpha * initial + (1 - alpha) * current
    return mixed if current.is_floating_point() else mixed.round().to(current.dtype)


def due(epoch: int, every: int, times: int) -> bool:
    """Whether the encoders are re-initialised after this epoch (counted from 0)."""
    return epoch > 0 and epoch % every == 0 and epoch // every <= times


class RelearningParams(MethodParams):
    strength: float = Field(
        default=3.0,
        ge=0,
        allow_inf_nan=True,
        description="lambda, from purity gap to re-initialisation; published 3 (CREMA-D); 0 is joint training, .inf "
        "gives the initial encoders",
    )
    every: int = Field(
        default=20,
        ge=1,
        description="epochs between re-initialisations; the first is after epoch `every`, counted from 0; published "
        "20 of 90 (CREMA-D)",
    )
    times: int = Field(default=3, ge=1, description="most re-initialisations in a run; published 3 (CREMA-D)")
    features: Scale = Field(
        default="minmax",
        description="what is clustered: features scaled to [-1, 1] per dimension (authors' code) or as they are",
    )
    starts: int = Field(
        default=1,
        ge=1,
        description="k-means++ starts, of which the tightest clustering counts; the authors' code has scikit-learn's "
        "default, 1, or 10 before version 1.4",
    )
    buffers: Literal["keep", "blend"] = Field(
        default="keep",
        description="running statistics of normalisation: left alone (authors' code) or re-initialised like weights",
    )
    optimizer: Literal["keep", "reset"] = Field(
        default="keep",
        description="momentum of a re-initialised encoder's weights: left alone (authors' code) or cleared",
    )


@methods.register("relearning")
class Relearning(Method):
    """Re-initialises encoders by their purity gaps, and logs in the epochs that begin with it."""

    family = "alternation"
    Params = RelearningParams
    params: RelearningParams
    quantities = (
        *(
            Quantity(
                name=f"purity_{split}",
                unit="",
                caption=f"The purity of the clusters of the modality's features on {split} before re-initialisation.",
                limits=(0, 1),
            )
            for split in ("train", "val")
        ),
        Quantity(
            name="reset_strength",
            unit="",
            caption="How far the encoder is set back to its initial weights: 0 is not at all, 1 is altogether.",
            limits=(0, 1),
        ),
        Quantity(
            name="diagnosis_seconds",
            unit="s",
            caption="The time that diagnosis and re-initialisation take.",
            of="model",
            detail=True,
        ),
    )

    def __init__(self, params: RelearningParams) -> None:
        super().__init__(params)
        self.initial: dict[str, Tensor] = {}  # {"m/name": weights before the first step}

    @classmethod
    def refuses(cls, params: RelearningParams, setting: Setting) -> str | None:
        if why := setting.lacks(classes=True):
            return why
        least = params.every + 2  # `every` counts from 0, and an epoch must follow
        if setting.epochs < least:
            return f"expected training.epochs of {least} or more with every: {params.every}, but got {setting.epochs}"
        return None

    def on_train_start(self, ctx: Context) -> None:
        for m, encoder in ctx.model.encoders.items():
            for name, tensor in self._affected(encoder).items():
                self.initial[f"{m}/{name}"] = tensor.detach().clone()

    def before_epoch(self, ctx: Context) -> list[Phase]:
        if due(ctx.epoch - 1, self.params.every, self.params.times):
            started = time.perf_counter()
            for m, alpha in self._diagnose(ctx).items():
                self._relearn(ctx, m, alpha)
            ctx.log("diagnosis_seconds", time.perf_counter() - started)
        return super().before_epoch(ctx)

    def _diagnose(self, ctx: Context) -> dict[str, float]:
        """Re-initialisation strength of every modality."""
        p = self.params
        purities: dict[str, dict[str, float]] = {m: {} for m in ctx.model.modalities}
        for split in ("train", "val"):
            features, labels = ctx.collect(split)
            for m, f in features.items():
                if not f.isfinite().all():
                    raise UserError(
                        f"relearning: expected finite features of {m!r} before epoch {ctx.epoch}, but got others: "
                        "training has diverged; lower training.lr"
                    )
                purities[m][split] = purity(assign(f, ctx.classes, p.features, p.starts), labels.cpu())
                ctx.log(f"purity_{split}/{m}", purities[m][split])
        strengths = {m: reset_strength(found["train"], found["val"], p.strength) for m, found in purities.items()}
        for m, alpha in strengths.items():
            ctx.log(f"reset_strength/{m}", alpha)
        return strengths

    def _relearn(self, ctx: Context, m: str, alpha: float) -> None:
        if alpha == 0:
            return  # nothing is re-initialised, so momentum stays too
        encoder = ctx.model.encoders[m]
        with torch.no_grad():
            for name, tensor in self._affected(encoder).items():
                tensor.copy_(soft_reset(self.initial[f"{m}/{name}"].to(tensor.device), tensor, alpha))
        if self.params.optimizer == "reset":
            for parameter in encoder.parameters():
                ctx.optimizer.state.pop(parameter, None)

    def _affected(self, encoder: nn.Module) -> dict[str, Tensor]:
        """What is re-initialised of an encoder, by name."""
        buffers = encoder.named_buffers() if self.params.buffers == "blend" else ()
        return {**dict(encoder.named_parameters()), **dict(buffers)}

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self.initial)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.initial = dict(state)
