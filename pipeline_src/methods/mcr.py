"""MCR: game-theoretic regularisation of multimodal fusion (Kontras et al., NeurIPS 2025, arXiv:2411.07335).

    J(a, j) = mean over n permutations and the batch of JS(softmax(z with f_a permuted), softmax(z))
              j: the only modality whose features carry a gradient in the permuted prediction; all: each does
    greedy         R = sum over ordered pairs (a, j), a != j, of J(a, j) - J(a, a)
    independent    R = -sum_a J(a, a)
    collaborative  R = -sum_a J(a, all)
    L = CE(z, y) + sum_m CE(z_m, y) + l R + NT-Xent(f) + MSE(g(sg(z)), [f_1; ...; f_M])

Features of a are permuted within the batch, so J says how much the prediction depends on a. In the greedy game each
modality raises its own J and lowers the others'. Its R is 0 in value, always, as stopping gradients changes no value:
only its gradient works. Encoders start from those of the modalities' own baselines (`initial`).

Read in the authors' stand-alone model file and configurations (kkontras/MCR). What they do otherwise:
- Permuted predictions leave the fusion's bias out, z has it: `bias`. Default kept, as in the paper; released needs a
  linear fusion. l is a truth value in that file, so it counts 1.
- n is 6 in the configuration and 32 in the README; l 0.1 and 0.01; learning rate 1e-5 to 1e-4, batch 32.

Ours, where it was not read [extension]: z_m are the fusion's unimodal logits. NT-Xent compares each pair of modalities,
temperature 0.1: positives are samples of the same label, the sample itself among them; longer features are mapped to
the shortest length first. g is linear; the target has its gradient. Both terms count 1. More than two modalities.

In metrics.jsonl, means over the steps: unimodal_loss/m, divergence/m, which is J(m, .), game, contrastive and
reconstruction, each loss with its weight.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pipeline_src.core.lazy import torch
from pipeline_src.methods.base import Method, MethodParams, Quantity, Requirement, methods
from pipeline_src.models.base import fusion_facts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn

    from pipeline_src.methods.base import Batch, Context, Output, Setting

Game = Literal["greedy", "independent", "collaborative"]
TEMPERATURE = 0.1  # released


def jensen_shannon(first: Tensor, second: Tensor) -> Tensor:
    """Divergence (...,) in nats of softmax distributions, from logits (..., C)."""
    log_p, log_q = first.log_softmax(dim=-1), second.log_softmax(dim=-1)
    log_mean = torch.logaddexp(log_p, log_q) - math.log(2)
    return (log_p.exp() * (log_p - log_mean) + log_q.exp() * (log_q - log_mean)).sum(dim=-1) / 2


def divergence(
    features: Mapping[str, Tensor],
    permuted: str,
    trained: str | None,
    order: Tensor,
    logits: Tensor,
    predict: Callable[[dict[str, Tensor]], Tensor],
) -> Tensor:
    """J(permuted, trained) () for permutations `order` (n, B); `trained` None: every modality has its gradient."""
    n, rows = len(order), order.flatten()
    parts = {}
    for m, f in features.items():
        f = f if trained in (None, m) else f.detach()
        parts[m] = f.index_select(0, rows) if m == permuted else f.repeat(n, 1)
    return jensen_shannon(predict(parts).float().view(n, *logits.shape), logits.float()).mean()


def rivalry(
    features: Mapping[str, Tensor],
    order: Tensor,
    logits: Tensor,
    predict: Callable[[dict[str, Tensor]], Tensor],
) -> tuple[Tensor, Tensor]:
    """The greedy R () and J(a, .) (M,) of each modality, by one prediction of all permuted features.

    J(a, j) and J(a, a) are one number and differ in what carries a gradient, so that one pass back gives all. The
    gradients by z and by the fusion's weights cancel out in R, and R is 0.
    """
    names, n, size = list(features), len(order), len(logits)
    still = torch.arange(size, device=order.device).repeat(n)
    rows = {m: torch.cat([order.flatten() if a == m else still for a in names]) for m in names}
    parts = {m: f.detach().index_select(0, rows[m]).requires_grad_() for m, f in features.items()}
    with torch.enable_grad():
        apart = jensen_shannon(predict(parts).float().view(len(names), n, *logits.shape), logits.detach().float())
        values = apart.mean(dim=(1, 2))
        slopes = torch.autograd.grad(values.sum(), list(parts.values()))
    work = []
    for m, slope in zip(names, slopes, strict=True):
        slope.view(len(names), -1, slope.shape[1])[names.index(m)] *= 1 - len(names)  # of J(m, m); once of the others
        work.append((features[m] * torch.zeros_like(features[m]).index_add(0, rows[m], slope)).sum())
    total = torch.stack(work).sum()
    return total - total.detach(), values.detach()


def pairs(game: Game, names: list[str]) -> list[tuple[str, str | None, int]]:
    """R as a sum of J(permuted, trained) with factors: (permuted, trained, factor)."""
    if game == "collaborative":
        return [(a, None, -1) for a in names]
    alone = [(a, a, -1 if game == "independent" else 1 - len(names)) for a in names]
    return alone + [(a, j, 1) for a in names for j in names if a != j] if game == "greedy" else alone


def contrastive(first: Tensor, second: Tensor, label: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """NT-Xent () between features (B, D) of two modalities, samples of the same label (B,) as positives, both ways."""
    unit = torch.nn.functional.normalize
    near = unit(first.float(), dim=1) @ unit(second.float(), dim=1).T / temperature
    positive = (label[:, None] == label).float()
    positive = positive / positive.sum(dim=1, keepdim=True)
    return -((positive * near.log_softmax(dim=1)).sum() + (positive * near.T.log_softmax(dim=1)).sum()) / (
        2 * len(label)
    )


class MCRParams(MethodParams):
    game: Game = Field("greedy", description="which of the three games is played")
    weight: float = Field(0.1, ge=0, le=1e6, description="l; released configurations of CREMA-D 0.1 and 0.01")
    permutations: int = Field(6, ge=1, le=1024, description="n; released CREMA-D 6 in the configuration, README 32")
    bias: Literal["kept", "released"] = Field(
        "kept", description="whether permuted predictions have the fusion's bias; released: they leave it out"
    )
    initial: Literal["unimodal", "random"] = Field(
        "unimodal", description="where encoders start: from each modality's own baseline, as published, or at random"
    )
    unimodal_weight: float = Field(1.0, ge=0, le=1e6, description="of the unimodal losses; published 1")
    contrastive_weight: float = Field(1.0, ge=0, le=1e6, description="of NT-Xent")
    reconstruction_weight: float = Field(1.0, ge=0, le=1e6, description="of the mean squared error")


@methods.register("mcr")
class MCR(Method):
    """Lets modalities compete for the prediction: each is to matter when its features are permuted."""

    Params = MCRParams
    family = "losses"
    quantities = (
        Quantity("unimodal_loss", "nats", "Cross-entropy of each modality's unimodal logits, with its weight."),
        Quantity("divergence", "nats", "How much the prediction changes if a modality's features are permuted."),
        Quantity("game", "nats", "Regularisation R, with its weight; 0 in the greedy game.", of="model", detail=True),
        Quantity("contrastive", "nats", "Contrastive loss between modalities, with its weight.", of="model"),
        Quantity("reconstruction", "", "Squared error of features from the logits, with its weight.", of="model"),
    )

    @classmethod
    def refuses(cls, params: MCRParams, setting: Setting) -> str | None:
        if why := setting.lacks(modalities=2, classes=True, no_taps=True):
            return why
        if params.bias == "released" and not fusion_facts(setting.fusion).linear:
            return f"expected a linear fusion with bias: released, but got {setting.fusion!r}"
        return None

    @classmethod
    def extension(cls, params: MCRParams, setting: Setting) -> str | None:
        if len(setting.modalities) > 2:
            return "MCR for more than two modalities, by ordered pairs"
        if params.contrastive_weight or params.reconstruction_weight:
            return "MCR with contrastive and reconstruction losses in a form of ours"
        return None

    @classmethod
    def requires(cls, params: MCRParams, setting: Setting) -> dict[str, Requirement]:
        return {m: Requirement(m) for m in setting.modalities} if params.initial == "unimodal" else {}

    def modules(self, dims: dict[str, int], classes: int) -> dict[str, nn.Module]:
        from pipeline_src.models.fusions.base import linear

        narrow = min(dims.values())
        maps = {m: torch.nn.Linear(d, narrow, bias=False) for m, d in dims.items() if d > narrow}
        return {"decoder": linear(classes, sum(dims.values())), "maps": torch.nn.ModuleDict(maps)}

    def on_train_start(self, ctx: Context) -> None:
        if self.params.initial == "unimodal":
            for m, encoder in ctx.model.encoders.items():
                encoder.load_state_dict(ctx.run(m).encoders[m].state_dict())

    def loss(self, ctx: Context, output: Output, batch: Batch) -> dict[str, Tensor]:
        p, losses, features = self.params, super().loss(ctx, output, batch), output.features
        if p.unimodal_weight:
            logits = self.unimodal(ctx.model, features)
            losses |= {
                f"unimodal_loss/{m}": p.unimodal_weight * ctx.task.loss(z, batch.label) for m, z in logits.items()
            }
        if p.weight:
            losses["game"] = p.weight * self._game(ctx, output)
        if p.contrastive_weight:
            maps = ctx.model.extra["maps"]
            mapped = [maps[m](f) if m in maps else f for m, f in features.items()]
            terms = [contrastive(a, b, batch.label) for a, b in itertools.combinations(mapped, 2)]
            losses["contrastive"] = p.contrastive_weight * torch.stack(terms).mean()
        if p.reconstruction_weight:
            rebuilt = ctx.model.extra["decoder"](output.logits.detach())
            error = torch.nn.functional.mse_loss(rebuilt.float(), torch.cat(list(features.values()), dim=1).float())
            losses["reconstruction"] = p.reconstruction_weight * error
        return losses

    def _game(self, ctx: Context, output: Output) -> Tensor:
        """R ()."""
        features, names = output.features, ctx.model.modalities
        shape = (self.params.permutations, len(output.logits))
        order = torch.rand(shape, generator=ctx.device_rng, device=output.logits.device).argsort(dim=1)

        def predict(parts: dict[str, Tensor]) -> Tensor:
            z = self.logits(ctx.model, features.replaced(parts))
            if self.params.bias == "kept":
                return z
            return z - self.logits(ctx.model, features.replaced({m: torch.zeros_like(f[:1]) for m, f in parts.items()}))

        if self.params.game == "greedy":
            game, values = rivalry(features, order, output.logits, predict)
            for m, j in zip(features, values.unbind(), strict=True):
                ctx.log(f"divergence/{m}", j)
            return game
        total = []
        for permuted, trained, factor in pairs(self.params.game, names):
            j = divergence(features, permuted, trained, order, output.logits, predict)
            total.append(factor * j)
            ctx.log(f"divergence/{permuted}", j)
        return torch.stack(total).sum()
