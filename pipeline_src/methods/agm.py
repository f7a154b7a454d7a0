"""AGM: adaptive gradient modulation (Li et al., ICCV 2023, arXiv:2308.07686).

F(S) are the logits with the inputs of all modalities outside of S set to zero; F(all) is the ordinary forward pass, all
other F(S) are computed in evaluation mode, with gradients.

    phi_m   = sum_{S without m} |S|! (M - |S| - 1)! / M! (F(S + m) - F(S)),  F({}) := 0        sum_m phi_m = F(all)
    s_m     = mean_i -log max(softmax(phi_m,i)[y_i], 1e-8)
    r_m     = exp(mean_{j != m} s_j - s_m)                             above 1: m is ahead
    tau_m   = exp(mean_{j != m} S_j - S_m)                             S_m: running mean of s_m, 0 at first
    kappa_m = exp(alpha min(tau_m - r_m, cap))
    S_m    <- ((t - 1) S_m + s_m) / t                                  after kappa, t: iterations so far
    L       = CE(sum_m phi_m, y), with dL / dphi_m multiplied by kappa_m

Then, if an entry of the gradient of a weight of the fusion is beyond +-`limit`, all gradients are clipped to a norm of
`clip`. Prediction: the fusion's. The padded passes train the encoders, too, where the kappas differ.

Paper and authors' code (AGM_ICCV2023) agree, but for F({}): the paper's mono-modal contribution, used for analysis,
subtracts the output of zero inputs. A zero input is encoded: its feature is not zero. As encoders are separate,
one more pass, with an input of zeros beside the batch, gives every F(S). `pad: feature` sets features to zero instead,
which costs nothing more [extension]. Running means go on outside of the window of epochs, where kappa is 1.

In metrics.jsonl, means over the steps: score/m, ratio/m, reference/m (tau) and coefficient/m (kappa).
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pipeline_src.core.lazy import torch
from pipeline_src.methods.base import Method, Quantity, WindowParams, methods

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from pipeline_src.methods.base import Batch, Context, Output, Setting

FLOOR = 1e-8  # of a probability, in the released code


def shapley(names: list[str], value: Callable[[tuple[str, ...]], Tensor]) -> dict[str, Tensor]:
    """phi_m (B, C) of each modality, from `value`, F(S) (B, C) of a set of modalities that is not empty."""
    count = len(names)
    sets = [s for n in range(1, count + 1) for s in itertools.combinations(names, n)]
    worth: dict[tuple[str, ...], Tensor | float] = {s: value(s) for s in sets} | {(): 0.0}
    parts: dict[str, Tensor] = {}
    for m in names:
        terms = []
        for without in worth:
            if m not in without:
                joined = tuple(name for name in names if name in without or name == m)
                weight = math.factorial(len(without)) * math.factorial(count - len(without) - 1) / math.factorial(count)
                terms.append(weight * (worth[joined] - worth[without]))
        parts[m] = torch.stack(terms).sum(dim=0)
    return parts


def leads(score: Tensor) -> Tensor:
    """exp(mean of the others' scores - own) (M,) of scores (M,): above 1 for what has the smaller score."""
    return torch.exp((score.sum() - score) / (len(score) - 1) - score)


def coefficients(ratio: Tensor, reference: Tensor, alpha: float, cap: float | None) -> Tensor:
    """kappa (M,) from r and tau (M,)."""
    lag = reference - ratio
    return torch.exp(alpha * (lag if cap is None else lag.clamp(max=cap)))


class AGMParams(WindowParams):
    alpha: float = Field(1.0, ge=0, le=1e3, description="strength; 0 is joint training. Released 1, AV-MNIST 2.5")
    cap: float | None = Field(
        10.0, gt=0, le=80, description="largest tau - r; released CREMA-D 10, UR-Funny 7; null, no cap: the others"
    )
    pad: Literal["input", "feature"] = Field(
        "input", description="what of a removed modality is zero: its input, as released, or its feature [extension]"
    )
    first_epoch: int = Field(0, ge=0, description="first epoch with modulation, from 0; released 0")
    last_epoch: int | None = Field(
        None, ge=0, description="last epoch with modulation, from 0 and included; null: the run's last. Released 19"
    )
    limit: float = Field(1.0, gt=0, le=1e30, description="entry of the fusion's gradient above which all are clipped")
    clip: float = Field(1.0, gt=0, le=1e30, description="norm that is clipped to; released 1, UR-Funny 5")


@methods.register("agm")
class AGM(Method):
    """Scales what flows into each modality's part of the logits by how far it is ahead of its usual lead."""

    family = "gradients"
    Params = AGMParams
    params: AGMParams
    quantities = (
        Quantity("score", "nats", "Cross-entropy of a modality's part of the logits."),
        Quantity("ratio", "", "Lead r of a modality in the batch; above 1 it is ahead.", reference=1.0),
        Quantity("reference", "", "Usual lead tau of a modality, from the running means.", reference=1.0),
        Quantity("coefficient", "", "Factor kappa on the gradient of a modality's part.", reference=1.0),
    )

    @classmethod
    def refuses(cls, params: AGMParams, setting: Setting) -> str | None:
        return setting.lacks(modalities=2, classes=True, no_taps=True) or params.beyond(setting.epochs)

    @classmethod
    def extension(cls, params: AGMParams, setting: Setting) -> str | None:
        return "AGM with features instead of inputs set to zero" if params.pad == "feature" else None

    def __init__(self, params: AGMParams) -> None:
        super().__init__(params)
        self.running: Tensor | None = None  # S (M,)
        self.seen: Tensor | None = None  # t (), iterations so far

    def on_train_start(self, ctx: Context) -> None:
        device = ctx.labels("train").device
        self.running = torch.zeros(len(ctx.model.modalities), device=device)
        self.seen = torch.zeros((), device=device)

    def parts(self, ctx: Context, output: Output, batch: Batch) -> dict[str, Tensor]:
        """phi_m (B, C) of each modality."""
        features, padded = output.features, self._padded(ctx, output, batch)

        def value(kept: tuple[str, ...]) -> Tensor:
            if len(kept) == len(features):
                return output.logits
            present, blank = padded
            return self.logits(
                ctx.model, features.replaced({m: (present if m in kept else blank)[m] for m in features})
            )

        return shapley(list(features), value)

    def _padded(self, ctx: Context, output: Output, batch: Batch) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        """Features {m: (B, D_m)} of the inputs, and of nothing, for the padded passes."""
        if self.params.pad == "feature":
            return output.features, {m: torch.zeros_like(f) for m, f in output.features.items()}
        present, blank = ctx.encode_blank(batch)
        return present, {m: blank[m].expand_as(f) for m, f in present.items()}

    def loss(self, ctx: Context, output: Output, batch: Batch) -> dict[str, Tensor]:
        p, phi = self.params, self.parts(ctx, output, batch)
        with torch.no_grad():
            confidence = torch.stack([ctx.task.confidence(part, batch.label) for part in phi.values()])
            score = -confidence.clamp(min=FLOOR).log().mean(dim=1)
            ratio, reference = leads(score), leads(self.running)
            kappa = coefficients(ratio, reference, p.alpha * p.within(ctx.epoch), p.cap)
            self.seen = self.seen + 1
            self.running = ((self.seen - 1) * self.running + score) / self.seen
        for i, m in enumerate(phi):
            for name, values in zip(
                ("score", "ratio", "reference", "coefficient"), (score, ratio, reference, kappa), strict=True
            ):
                ctx.log(f"{name}/{m}", values[i])
        # The same value, with the gradient of each part multiplied.
        scaled = [part.detach() + k * (part - part.detach()) for part, k in zip(phi.values(), kappa, strict=True)]
        return {"loss": ctx.task.loss(torch.stack(scaled).sum(dim=0), batch.label)}

    def after_backward(self, ctx: Context, output: Output, batch: Batch) -> None:
        p = self.params
        weights = [w.grad for w in ctx.parameters(ctx.model.fusion).values() if w.dim() > 1 and w.grad is not None]
        gradients = [w.grad for w in ctx.parameters().values() if w.grad is not None]
        largest = torch.stack([g.abs().max() for g in weights]).max()
        norm = torch.stack(torch._foreach_norm(gradients)).norm()
        factor = torch.where(largest > p.limit, (p.clip / (norm + 1e-6)).clamp(max=1), 1)
        torch._foreach_mul_(gradients, factor)

    def state_dict(self) -> dict[str, Tensor]:
        return {} if self.running is None else {"running": self.running, "seen": self.seen}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.running, self.seen = state.get("running"), state.get("seen")
