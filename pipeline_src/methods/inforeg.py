"""InfoReg: adaptive unimodal regulation (Huang, Wei, Yang and Hu, "Adaptive unimodal regulation for balanced multimodal
information acquisition", CVPR 2025, arXiv:2503.18595).

    L    = CE(z, y) + lambda sum_m CE(z_m, y)            z_m: the fusion's unimodal logits
    s_m  : performance score of a batch                  best: the modality with the largest
    Tr_m : trace of encoder m's Fisher information       summed over the batches of an epoch
    open : (S_{t-1} - S_{t-2}) / S_{t-1} > K             S: sum of Tr over `window` epochs; the first epoch is open
    grad of encoder m += c_m (w - w_first)               where m is best and open; w_first: weights before the epoch

`form` chooses between the paper and what the authors' code (InfoReg_CVPR2025, main.py) does otherwise:

               paper                                        released (default: checked against the code)
    c_m        exp(beta tanh(s_m - s_j))                    beta_m exp(tanh(s_m - s_j))
    s_m        mean probability of the truth                sum over the batch: tanh is +-1 nearly always
    beta       0.9                                          audio 0.95, visual 0.1
    open       K = 0.04, each modality's own Tr             K = 0.05, Tr of audio for all, sums over ten epochs
    Tr         of the gradients of L                        of those with the pull

Tr adds up, over batches and over the encoder's weights of two axes or more, the mean squared entry of the gradient. The
paper's InfoReg has lambda 0, its InfoReg* and the released code have 1.

Ours: the paper's form takes s as a mean, and is open in the first epoch, too, where it says nothing. The weights before
the epoch are its w_{t-1}. Without a modality named audio, the released form takes the first one's Tr. More than two
modalities: s_j is the mean of the others [extension].

In metrics.jsonl: unimodal_loss/m, with its weight, score/m, a mean over the samples, and pull/m, c_m, as means over the
steps; trace/m of the epoch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from pipeline_src.core.lazy import torch
from pipeline_src.core.upload import upload
from pipeline_src.methods.base import Method, MethodParams, Quantity, methods

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline_src.methods.base import Batch, Context, Output, Phase, Setting

Form = Literal["released", "paper"]
Beta = Annotated[float, Field(ge=0, le=80)]

BETA = {"audio": 0.95, "visual": 0.1}  # released
OTHERS = 0.95  # beta of other names in the released form, as of the stronger modality there
PAPER_BETA = 0.9


def pull(score: Tensor, beta: Tensor, form: Form) -> Tensor:
    """c (M,) from scores and betas (M,); 0 for all modalities but the best."""
    lead = score - (score.sum() - score) / (len(score) - 1)
    best = (score == score.max()) & (lead > 0)
    size = beta * torch.exp(torch.tanh(lead)) if form == "released" else torch.exp(beta * torch.tanh(lead))
    return size * best


def opened(traces: Tensor, window: int, threshold: float) -> Tensor:
    """Which encoders may be pulled, (M,) bool, from the traces (T, M) of the T epochs so far; all if T is 0."""
    last, previous = traces[-window:].sum(dim=0), traces[-window - 1 : -1].sum(dim=0)
    return (last == 0) | (last - previous > threshold * last)


class InfoRegParams(MethodParams):
    form: Form = Field("released", description="the authors' code or the paper's equations; see the top of the file")
    beta: Beta | dict[str, Beta] | None = Field(
        None,
        description="strength, of each modality or by modality; null: released audio 0.95, visual 0.1, other names "
        "0.95, paper 0.9",
    )
    threshold: float | None = Field(None, ge=-1e6, le=1, description="K; null: released 0.05, paper 0.04")
    window: int | None = Field(
        None, ge=1, le=1_000_000, description="epochs that a sum of traces is of; null: released 10, paper 1"
    )
    unimodal_weight: float = Field(
        1.0, ge=0, le=1e6, description="lambda; released, and the paper's InfoReg*, 1; the paper's InfoReg 0"
    )


@methods.register("inforeg")
class InfoReg(Method):
    """Holds the encoder that is ahead near its earlier weights while it takes in information fastest."""

    family = "gradients"
    Params = InfoRegParams
    quantities = (
        Quantity("unimodal_loss", "nats", "Cross-entropy of each modality's unimodal logits, with its weight."),
        Quantity("score", "", "Mean confidence of the truth of a modality's unimodal logits.", limits=(0.0, 1.0)),
        Quantity("pull", "", "Factor c on the way back to the weights before the epoch; 0 without a pull."),
        Quantity("trace", "", "Trace of an encoder's Fisher information, summed over the epoch.", scale="log"),
    )

    @classmethod
    def refuses(cls, params: InfoRegParams, setting: Setting) -> str | None:
        return setting.lacks(modalities=2, no_frozen=True) or (
            setting.unknown("beta", params.beta) if isinstance(params.beta, dict) else None
        )

    @classmethod
    def extension(cls, params: InfoRegParams, setting: Setting) -> str | None:
        if len(setting.modalities) > 2:
            return "InfoReg is defined for two modalities; here the best is compared with the mean of the others"
        if params.form == "released" and "audio" not in setting.modalities:
            return "InfoReg, released form, without a modality named audio: the first one's trace opens the window"
        return None

    def __init__(self, params: InfoRegParams) -> None:
        super().__init__(params)
        self.first: dict[str, Tensor] = {}  # the encoders' weights before the epoch, by their names in the model
        self.traces: Tensor | None = None  # (T, M) of the epochs before
        self.trace: Tensor | None = None  # (M,) of this one so far
        self.score: Tensor | None = None  # s as a sum (M,), within a step
        self.strength: Tensor | None = None  # beta (M,) on the device, made once

    def beta(self, names: list[str]) -> list[float]:
        """beta of each modality."""
        given, released = self.params.beta, self.params.form == "released"
        if isinstance(given, float):
            return [given] * len(names)
        return [(given or {}).get(m, BETA.get(m, OTHERS) if released else PAPER_BETA) for m in names]

    def open(self, names: list[str]) -> Tensor:
        """Which encoders may be pulled in this epoch, (M,) bool."""
        p, released = self.params, self.params.form == "released"
        window = p.window or (10 if released else 1)
        threshold = (0.05 if released else 0.04) if p.threshold is None else p.threshold
        chosen = opened(self.traces, window, threshold)
        return chosen[names.index("audio") if "audio" in names else 0].expand_as(chosen) if released else chosen

    def before_epoch(self, ctx: Context) -> list[Phase]:
        device, count = ctx.labels("train").device, len(ctx.model.modalities)
        if self.traces is None:
            self.traces = torch.zeros(0, count, device=device)
        self.trace = torch.zeros(count, device=device)
        self.first = {name: p.detach().clone() for name, p in ctx.model.encoders.named_parameters()}
        return super().before_epoch(ctx)

    def loss(self, ctx: Context, output: Output, batch: Batch) -> dict[str, Tensor]:
        losses = super().loss(ctx, output, batch)
        logits = self.unimodal(ctx.model, output.features)
        with torch.no_grad():
            score = [ctx.task.confidence(z.detach(), batch.label).sum() for z in logits.values()]
            self.score = torch.stack(score)
        for m, s in zip(logits, self.score.unbind(), strict=True):
            ctx.log(f"score/{m}", s / len(batch.label))
        if weight := self.params.unimodal_weight:
            losses |= {f"unimodal_loss/{m}": weight * ctx.task.loss(z, batch.label) for m, z in logits.items()}
        return losses

    def after_backward(self, ctx: Context, output: Output, batch: Batch) -> None:
        released = self.params.form == "released"
        names, score = ctx.model.modalities, self.score if released else self.score / len(batch.label)
        if self.strength is None:
            self.strength = upload(torch.tensor(self.beta(names), dtype=score.dtype), score.device)
        factor = pull(score, self.strength, self.params.form) * self.open(names)
        if not released:
            self.trace = self.trace + self._trace(ctx)
        for m, c in zip(names, factor.unbind(), strict=True):
            ctx.log(f"pull/{m}", c)
            trained = {name: p for name, p in ctx.parameters(ctx.model.encoders[m]).items() if p.grad is not None}
            with torch.no_grad():
                away = torch._foreach_sub(list(trained.values()), [self.first[f"{m}.{k}"] for k in trained])
                torch._foreach_mul_(away, c)
                torch._foreach_add_([p.grad for p in trained.values()], away)
        if released:
            self.trace = self.trace + self._trace(ctx)

    def _trace(self, ctx: Context) -> Tensor:
        """Sum over an encoder's weights of the mean squared entry of the gradient, (M,)."""
        sums = []
        for encoder in ctx.model.encoders.values():
            gradients = [p.grad for p in ctx.parameters(encoder).values() if p.dim() > 1 and p.grad is not None]
            squares = torch._foreach_pow(torch._foreach_norm(gradients), 2)
            torch._foreach_div_(squares, [float(g.numel()) for g in gradients])
            sums.append(torch.stack(squares).sum())
        return torch.stack(sums)

    def after_epoch(self, ctx: Context) -> None:
        self.traces = torch.cat([self.traces, self.trace[None]])
        for m, value in zip(ctx.model.modalities, self.trace.unbind(), strict=True):
            ctx.log(f"trace/{m}", value)

    def state_dict(self) -> dict[str, Tensor]:
        kept = {"traces": self.traces, "trace": self.trace}
        return {k: v for k, v in kept.items() if v is not None} | {f"first/{k}": v for k, v in self.first.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.traces, self.trace = state.get("traces"), state.get("trace")
        self.first = {k.removeprefix("first/"): v for k, v in state.items() if k.startswith("first/")}
