"""A learning rate for each modality: MSLR, which adapts it, and MSES, which stops modalities one by one.

Gradients of a modality are those of its encoder and, if the fusion is linear in each modality, of its part of the
fusion. Accuracies and losses are of val, of the fusion's unimodal logits.

In metrics.jsonl: rate/m, the factor of the epoch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import Field

from pipeline_src.core.lazy import torch
from pipeline_src.methods.base import Context, Method, MethodParams, Phase, Quantity, methods
from pipeline_src.models.base import fusion_facts

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline_src.methods.base import Batch, Output, Setting

MEMORY = 5  # epochs that MSLR compares with
SMOOTH = (0.6, 0.4)  # weights of the last and of this epoch's loss
RATE = Quantity("rate", "", "Factor on the gradients of a modality's encoder.", reference=1.0)


def progress(accuracy: Tensor) -> Tensor:
    """rho (M,) after the last epoch of accuracies (E, M)."""
    if len(accuracy) <= MEMORY:
        return torch.ones_like(accuracy[-1])
    return accuracy[-1] / accuracy[-1 - MEMORY : -1].mean(dim=0).clamp(min=1e-8)


def smoothed(last: float, now: float) -> float:
    """v_m of two epochs' losses; the loss itself in the first epoch, where `last` is NaN."""
    return now if math.isnan(last) else SMOOTH[0] * last + SMOOTH[1] * now


class LearningRates(Method):
    """Multiplies the gradients of each modality by its rate."""

    quantities = (RATE,)

    @classmethod
    def refuses(cls, params: MethodParams, setting: Setting) -> str | None:
        return setting.lacks(modalities=2, no_taps=True)

    def rates(self, ctx: Context) -> dict[str, float]:
        """The factor of each modality in this epoch; 0 for one that is finished."""
        raise NotImplementedError

    def before_epoch(self, ctx: Context) -> list[Phase]:
        for m, rate in self.rates(ctx).items():
            ctx.log(f"rate/{m}", rate)
        return [Phase()]

    def after_backward(self, ctx: Context, output: Output, batch: Batch) -> None:
        model, blocks = ctx.model, {}
        if fusion_facts(model.fusion.name).linear:
            blocks = model.fusion.linear_gradients()
        for m, rate in self.rates(ctx).items():
            parameters = ctx.parameters(model.encoders[m]).values()
            own = [*(p.grad for p in parameters if p.grad is not None), *blocks.get(m, ())]
            if rate:
                torch._foreach_mul_(own, rate)
            else:
                torch._foreach_zero_(own)
                for p in parameters:
                    p.grad = None

    def validated(self, ctx: Context) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Unimodal logits (N, C) of each modality on val, and labels (N,)."""
        logits, label = ctx.collect("val", read=lambda features: self.unimodal(ctx.model, features))
        yield from ((m, z, label) for m, z in logits.items())


class MSLRParams(MethodParams):
    initial: dict[str, float] = Field(
        {}, description="c, by modality (1 where none is named); CREMA-D: audio 0.9, visual 1.1"
    )


@methods.register("mslr")
class MSLR(LearningRates):
    """Speeds up the modality whose accuracy rises, against its own last five epochs.

    Yao and Mihalcea, "Modality-specific learning rates for effective multimodal additive late-fusion", Findings of ACL
    2022. Gradients of modality m are multiplied by c_m rho_m:

        rho_m = acc_m(e) / mean(acc_m(e - 5), ..., acc_m(e - 1))      from the sixth epoch on, 1 before

    The method's own code was not found: the equation is that of AGM's repository (run/CREMAD_main.py), which takes
    accuracies from the test split and counts the audio's from the visual prediction; here they are of val. c is 0.9
    audio and 1.1 visual on CREMA-D; 0.9 audio, 1.4 visual and 0.7 text on UR-Funny.
    """

    family = "gradients"
    Params = MSLRParams
    params: MSLRParams

    @classmethod
    def refuses(cls, params: MSLRParams, setting: Setting) -> str | None:
        why = setting.unknown("rates", params.initial) or super().refuses(params, setting)
        return why or setting.lacks(classes=True)  # whose accuracy rises

    def __init__(self, params: MSLRParams) -> None:
        super().__init__(params)
        self.accuracy: Tensor | None = None  # (epochs so far, at most MEMORY + 1; M), on the CPU

    def rates(self, ctx: Context) -> dict[str, float]:
        names = ctx.model.modalities
        rho = [1.0] * len(names) if self.accuracy is None else progress(self.accuracy).tolist()
        return {m: self.params.initial.get(m, 1.0) * r for m, r in zip(names, rho, strict=True)}

    def after_epoch(self, ctx: Context) -> None:
        now = torch.tensor([[ctx.task.score(z, label) for _, z, label in self.validated(ctx)]], dtype=torch.float64)
        self.accuracy = now if self.accuracy is None else torch.cat([self.accuracy, now])[-1 - MEMORY :]

    def state_dict(self) -> dict[str, Tensor]:
        return {} if self.accuracy is None else {"accuracy": self.accuracy}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.accuracy = state["accuracy"].cpu() if state else None


class Stopping:
    """Which modalities are finished, from each epoch's losses on val."""

    def __init__(self, names: list[str], patience: int) -> None:
        self.names, self.patience = names, patience
        self.last = dict.fromkeys(names, math.nan)
        self.best = dict.fromkeys(names, math.inf)
        self.at = dict.fromkeys(names, 0)  # epoch of the best
        self.finished = dict.fromkeys(names, False)

    def update(self, epoch: int, losses: dict[str, float]) -> tuple[list[str], str | None]:
        """Modalities at their best now, and the one to whose best epoch the model goes back, or None."""
        better, back = [], None
        for m, loss in losses.items():
            value = smoothed(self.last[m], loss)
            self.last[m] = loss
            if self.finished[m]:
                continue
            if value < self.best[m]:
                self.best[m], self.at[m] = value, epoch
                better.append(m)
            elif epoch - self.at[m] > self.patience:
                self.finished[m], back = True, m
        return better, back


class MSESParams(MethodParams):
    patience: int = Field(80, ge=1, le=1_000_000, description="epochs without a better loss; released 80 of 200")


@methods.register("mses")
class MSES(LearningRates):
    """Stops each modality when its loss on val has not improved for a while, and goes back to its best epoch.

    Fujimori et al., "Modality-specific learning rate control for multimodal classification", ACPR 2019.

        v_m(e) = 0.6 L_m(e - 1) + 0.4 L_m(e),    v_m(0) = L_m(0)
        v_m below its best: the best epoch e*_m is e, and the state of the model and the optimizer is kept
        e - e*_m > patience: modality m is finished, and model and optimizer go back to epoch e*_m

    The method's own code was not found: the equations are those of AGM's repository (run/CREMAD_main.py), which takes
    losses from the test split; here they are of val. Bests stay when the state goes back, as released.

    A finished modality is not stepped at all. The release multiplies its gradients by 0, so that weight decay and
    momentum go on, and ends the run when all are finished; here the remaining epochs train nothing but the fusion's
    shared part.
    """

    family = "alternation"
    Params = MSESParams
    params: MSESParams

    def __init__(self, params: MethodParams) -> None:
        super().__init__(params)
        self.stopping: Stopping | None = None
        self.saved: dict[str, dict[str, Tensor]] = {}  # {m: the state of the run at the best epoch of m}

    def _stopping(self, names: list[str]) -> Stopping:
        self.stopping = self.stopping or Stopping(names, self.params.patience)
        return self.stopping

    def rates(self, ctx: Context) -> dict[str, float]:
        return {m: float(not done) for m, done in self._stopping(ctx.model.modalities).finished.items()}

    def after_epoch(self, ctx: Context) -> None:
        losses = {m: float(ctx.task.loss(z, label)) for m, z, label in self.validated(ctx)}
        better, back = self._stopping(ctx.model.modalities).update(ctx.epoch, losses)
        if better:
            state = ctx.save()  # shared, if several modalities are at their best
            self.saved |= dict.fromkeys(better, state)
        if back is not None:
            ctx.go_back(self.saved.pop(back))

    def state_dict(self) -> dict[str, Tensor]:
        if self.stopping is None:
            return {}
        s = self.stopping
        state = {
            f"stopping/{m}": torch.tensor([s.last[m], s.best[m], s.at[m], s.finished[m]], dtype=torch.float64)
            for m in s.names
        }
        return state | {f"saved/{m}/{name}": value for m, kept in self.saved.items() for name, value in kept.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        values = {key.removeprefix("stopping/"): x.tolist() for key, x in state.items() if key.startswith("stopping/")}
        stopping = Stopping(list(values), self.params.patience)
        for m, (last, best, at, finished) in values.items():
            stopping.last[m], stopping.best[m], stopping.at[m], stopping.finished[m] = (
                last,
                best,
                int(at),
                bool(finished),
            )
        self.stopping, self.saved = stopping if values else None, {}
        for key, value in state.items():
            kind, m, name = (*key.split("/", 2), "")[:3]
            if kind == "saved":
                self.saved.setdefault(m, {})[name] = value
