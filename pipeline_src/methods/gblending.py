"""Gradient-Blending (Wang, Tran and Feiszli, "What makes training multi-modal classification networks hard?", CVPR
2020, arXiv:1905.12681).

The model has outputs k: a linear classifier of its own of each modality, z_m = c_m(f_m), and the fusion's z, joint.

    O_k = (V_k(end) - T_k(end)) - (V_k(start) - T_k(start))     overfitting gained; V, T: mean loss on val and train
    G_k = V_k(start) - V_k(end)                                 generalisation gained
    w_k = (G_k / O_k^2) / sum_j (G_j / O_j^2)
    L   = sum_k w_k CE(z_k, y)                                  prediction: the fusion's z

- `mode: offline`: once for all. start and end are those of each modality's model trained alone and of joint training
  with the same fusion, from the same seed.
- `mode: online`: anew every `super_epoch` epochs. Each output by itself is trained for so many epochs from the current
  weights by its own loss, measured and put back; then training goes on with w.
- `weights` given: these, without an estimate.

Sources: L is that of the authors' code (facebookresearch/VMZ, loss_creator.py). The estimate was never released: O, G,
w (Eq. 3, Algorithm 1) and both modes are recalled. BalanceBenchmark has a super-epoch of 10.

Ours, where the paper says nothing or this pipeline differs:
- Offline, the end is the epoch that was selected on val, as only its weights are kept [extension]. Joint training has
  no unimodal losses.
- G_k counts as 0 at least and O_k^2 as 1e-8 at least; a quotient that is not finite counts as 0. If all are 0, weights
  are equal. BalanceBenchmark takes absolute values, so that what gets worse gains weight.
- Losses are measured in evaluation mode without augmentation. The passes of an estimate have the learning rate and the
  order of the epoch that they come before.

A fusion that exchanges hidden states is refused, as no classifier sees one modality alone there.

In metrics.jsonl: weight/m, generalisation/m and overfitting/m of each modality; joint_weight, joint_generalisation and
joint_overfitting; unimodal_loss/m, with its weight, the mean over the steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from pipeline_src.core.lazy import torch
from pipeline_src.core.seeding import seed_of
from pipeline_src.methods.base import MethodParams, Phase, Quantity, Requirement, methods
from pipeline_src.methods.classifiers import Classifiers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from pipeline_src.methods.base import Batch, Context, Output, Setting
    from pipeline_src.models.fusions.base import Features, Fusion
    from pipeline_src.models.multimodal import MultimodalModel

JOINT = "joint"  # the name of the fusion's output
BLEND = "blend"  # the pass that trains with the weights
FLOOR = 1e-8  # of O^2

Weight = Annotated[float, Field(ge=0, le=1e6)]


def gains(start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """G and O (K,) from mean losses (2, K), on train and val, at the start and the end."""
    return start[1] - end[1], (end[1] - end[0]) - (start[1] - start[0])


def blend(generalisation: Tensor, overfitting: Tensor) -> Tensor:
    """w (K,), of the sum 1, from G and O (K,)."""
    ratio = generalisation.clamp(min=0) / overfitting.square().clamp(min=FLOOR)
    ratio = torch.where(ratio.isfinite(), ratio, 0)
    total = ratio.sum()
    return torch.where(total > 0, ratio / torch.where(total > 0, total, 1), 1 / len(ratio))


class GBlendingParams(MethodParams):
    mode: Literal["offline", "online"] = Field(
        "offline", description="weights once, from runs of each modality and of joint training, or every super-epoch"
    )
    super_epoch: int = Field(
        10, ge=1, le=1_000_000, description="epochs between two estimates of mode online; BalanceBenchmark 10"
    )
    weights: dict[str, Weight] | None = Field(
        None,
        description="weights by modality and `joint`, 0 where none is given, instead of an estimate. Released, audio / "
        "visual / joint: Kinetics-400 R3D-50 .014/.630/.356, ip-CSN-152 .009/.485/.506, AudioSet .239/.384/.377, EPIC "
        "noun .175/.460/.364, verb .524/.247/.229",
    )


@methods.register("gblending")
class GBlending(Classifiers):
    """Weighs joint and unimodal losses by how much each training generalises for how much it overfits."""

    family = "losses"
    Params = GBlendingParams
    quantities = (
        Quantity("unimodal_loss", "nats", "Cross-entropy of each modality's own classifier, with its weight."),
        Quantity("weight", "", "Weight of a modality's loss.", limits=(0.0, 1.0)),
        Quantity("generalisation", "nats", "What a modality's training takes off its loss on val.", detail=True),
        Quantity("overfitting", "nats", "What it adds to the gap between val and train.", detail=True),
        Quantity("joint_weight", "", "Weight of the joint loss.", of="model", limits=(0.0, 1.0)),
        Quantity(
            "joint_generalisation", "nats", "What joint training takes off its loss on val.", of="model", detail=True
        ),
        Quantity(
            "joint_overfitting", "nats", "What it adds to the gap between val and train.", of="model", detail=True
        ),
    )

    @classmethod
    def refuses(cls, params: GBlendingParams, setting: Setting) -> str | None:
        if why := setting.lacks(modalities=2, no_writes=True):
            return why
        if JOINT in setting.modalities:
            return f"expected modalities of another name than {JOINT!r}, the name of the joint output, but got it"
        if params.weights is not None:
            if why := setting.unknown("weights", params.weights, (JOINT,)):
                return why
            if not any(params.weights.values()):
                return "expected a weight above 0, but got none"
        elif params.mode == "online" and params.super_epoch > setting.epochs:
            return f"expected super_epoch of training.epochs = {setting.epochs} at most, but got {params.super_epoch}"
        return None

    @classmethod
    def extension(cls, params: GBlendingParams, setting: Setting) -> str | None:
        if params.weights is None and params.mode == "offline":
            return "G-Blending with the required runs at the epoch selected on val, not at their last"
        return None

    @classmethod
    def requires(cls, params: GBlendingParams, setting: Setting) -> dict[str, Requirement]:
        if params.weights is not None or params.mode == "online":
            return {}
        return {m: Requirement(m) for m in setting.modalities} | {JOINT: Requirement(None)}

    def __init__(self, params: GBlendingParams) -> None:
        super().__init__(params)
        self.weights: Tensor | None = None  # w (K,), modalities in their order, then joint
        self.measured: Tensor | None = None  # G and O (2, K), if they were estimated
        self.start: Tensor | None = None  # of the estimate that is going on: losses (2, K), end: so far
        self.end: Tensor | None = None
        self.current: Tensor | None = None  # (), the output that it trains
        self.saved: dict[str, Tensor] = {}

    @property
    def _online(self) -> bool:
        return self.params.weights is None and self.params.mode == "online"

    def on_train_start(self, ctx: Context) -> None:
        if self._online:
            return
        outputs = [*ctx.model.modalities, JOINT]
        if (given := self.params.weights) is not None:
            self.weights = torch.tensor([given.get(k, 0.0) for k in outputs], device=ctx.labels("train").device)
            return
        models = {k: ctx.run(k) for k in outputs}
        # The runs' encoders started from those of this model, as all of a seed do; their fusions are built again.
        fresh = {k: _untrained(model.fusion, ctx) for k, model in models.items()}
        start = _losses(ctx, lambda f: {k: fusion(f if k == JOINT else {k: f[k]}) for k, fusion in fresh.items()})
        parts = [_losses(ctx, lambda f, k=k, model=model: {k: model.fusion(f)}, model) for k, model in models.items()]
        self._settle(start, torch.cat(parts, dim=1))

    def _settle(self, start: Tensor, end: Tensor) -> None:
        self.measured = torch.stack(gains(start, end))
        self.weights = blend(*self.measured)

    def before_epoch(self, ctx: Context) -> list[Phase]:
        n = self.params.super_epoch
        if not self._online or ctx.epoch % n:
            return [Phase(BLEND)]
        self.saved, self.start = ctx.save(), _losses(ctx, self._all(ctx))
        self.end = torch.zeros_like(self.start)
        self.current = torch.zeros((), dtype=torch.int64)
        passes = min(n, ctx.epochs - ctx.epoch)
        outputs = [*ctx.model.modalities, JOINT]
        return [Phase(f"estimate {k}") for k in outputs for _ in range(passes)] + [Phase(BLEND)]

    def _all(self, ctx: Context) -> Callable[[Features], Mapping[str, Tensor]]:
        """What reads the logits {k: (B, C)} of all outputs from features."""
        return lambda f: {**self.unimodal(ctx.model, f), JOINT: self.logits(ctx.model, f)}

    def step(self, ctx: Context, batch: Batch) -> None:
        if self.saved:
            self._measure(ctx)
        if not self.saved:
            super().step(ctx, batch)
            return
        ctx.zero_grad()
        k = self._trained(ctx)
        features = ctx.encode(batch, None if k == JOINT else [k])
        with ctx.autocast():
            z = self.logits(ctx.model, features) if k == JOINT else ctx.model.extra[k](features[k])
            loss = ctx.task.loss(z, batch.label)
        ctx.backward(loss)
        ctx.update()

    def _trained(self, ctx: Context) -> str:
        return [*ctx.model.modalities, JOINT][int(self.current)]  # on the CPU

    def _measure(self, ctx: Context) -> None:
        """At the first batch of a pass that no longer trains the current output: note its losses and go back."""
        outputs = [*ctx.model.modalities, JOINT]
        if ctx.phase.name == f"estimate {self._trained(ctx)}":
            return
        i = int(self.current)
        self.end[:, i] = _losses(ctx, self._all(ctx))[:, i]
        ctx.go_back(self.saved)
        self.current = self.current + 1
        if i == len(outputs) - 1:
            self._settle(self.start, self.end)
            self.saved, self.start, self.end, self.current = {}, None, None, None

    def loss(self, ctx: Context, output: Output, batch: Batch) -> dict[str, Tensor]:
        *weights, last = self.weights.unbind()
        losses = {"loss": last * ctx.task.loss(output.logits, batch.label)}
        added = self.unimodal_losses(ctx, output, batch)
        return losses | {name: w * value for (name, value), w in zip(added.items(), weights, strict=True)}

    def after_epoch(self, ctx: Context) -> None:
        for i, k in enumerate([*ctx.model.modalities, JOINT]):
            values = {"weight": self.weights[i]}
            if self.measured is not None:
                values |= {"generalisation": self.measured[0, i], "overfitting": self.measured[1, i]}
            for name, value in values.items():
                ctx.log(f"joint_{name}" if k == JOINT else f"{name}/{k}", value)

    def state_dict(self) -> dict[str, Tensor]:
        parts = {"weights": self.weights, "measured": self.measured, "start": self.start, "end": self.end}
        parts |= {"current": self.current}
        return {k: v for k, v in parts.items() if v is not None} | {f"saved/{k}": v for k, v in self.saved.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name in ("weights", "measured", "start", "end", "current"):
            setattr(self, name, state.get(name))
        if self.current is not None:
            self.current = self.current.cpu()
        self.saved = {k.removeprefix("saved/"): v for k, v in state.items() if k.startswith("saved/")}


def _untrained(fusion: Fusion, ctx: Context) -> Fusion:
    """A run's fusion, which is one of features alone or reads hidden states, with the first weights of its seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(ctx.seed, "head"))
        parts = (fusion.dims, fusion.classes, fusion.widths) if fusion.widths else (fusion.dims, fusion.classes)
        return type(fusion)(*parts).to(ctx.labels("train").device).eval()


def _losses(
    ctx: Context, read: Callable[[Features], Mapping[str, Tensor]], model: MultimodalModel | None = None
) -> Tensor:
    """Mean losses (2, K), on train and val, of the logits {k: (B, C)} that `read` makes of features."""
    rows = []
    for split in ("train", "val"):
        logits, label = ctx.collect(split, model=model, read=read)
        rows.append(torch.stack([ctx.task.loss(z, label) for z in logits.values()]))
    return torch.stack(rows)
