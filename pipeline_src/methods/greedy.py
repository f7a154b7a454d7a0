"""Greedy: balanced MMTM by the conditional learning speed (Wu, Jastrzebski, Cho and Geras, ICML 2022,
arXiv:2202.05306).

The model is MMTM: exchanges between the encoders, and a classifier of each modality's own; L = sum_m CE(z_m, y), the
prediction is the mean of z_m. theta_m are encoder m's parameters, phi_m its way into the exchange: E_m and the common
S.

    mu(x) = sum g^2 / sum x^2                   g: the step's gradients of the parameters x
    A_m  += mu(phi_m),  R_m += mu(theta_m)      in every normal step, since the start of training
    s_m   = log10(A_m / R_m)                    conditional learning speed
    if |s_0 - s_1| > epsilon: curation in the next Q steps, with m* = argmax s

In curation the factors that scale m*'s states are replaced by their running mean over training, so that its logits come
from its own states alone. The decision falls after the backward pass of a normal step; sums do not grow in curation;
the step after the last curated one is normal, adds and decides anew. Before `first_epoch` only sums are kept.

Read in the authors' code (greedy_multimodal_learning). Theirs otherwise, and ours:
- Its running mean of modality 1 is that of modality 0's factors, a slip: `average`.
- Its running means grow in evaluation, too, and are lost in checkpoints; here they are of training and are kept.
- Fusion `mmtm` exchanges at three taps, as theirs; phi_m are the layers of all taps. `mmtm_last` has one [extension].

In metrics.jsonl, means over the steps: unimodal_loss/m, speed/m, s_m, and curation, the fraction of curated steps.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pipeline_src.core.errors import UserError
from pipeline_src.core.lazy import torch
from pipeline_src.methods.base import Method, MethodParams, Quantity, methods

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor, nn

    from pipeline_src.methods.base import Batch, Context, Output, Setting

FUSIONS = ("mmtm", "mmtm_last")


def relative_step(parameters: Iterable[nn.Parameter]) -> Tensor:
    """mu () of parameters that have gradients."""
    trained = [p for p in parameters if p.grad is not None]
    gradients = torch.stack(torch._foreach_norm([p.grad for p in trained])).square().sum()
    return gradients / torch.stack(torch._foreach_norm([p.detach() for p in trained])).square().sum()


def speed(across: Tensor, along: Tensor) -> Tensor:
    """s (2,) from the sums A and R (2,)."""
    return torch.log10(across / along)


class GreedyParams(MethodParams):
    epsilon: float = Field(0.01, ge=0, le=1e6, description="difference of speeds above which it curates; released 0.01")
    window: int = Field(5, ge=1, le=1_000_000, description="Q, curated steps in a row; released 5")
    first_epoch: int = Field(2, ge=0, le=1_000_000, description="first epoch that may curate, from 0; released 2")
    average: Literal["own", "released"] = Field(
        "own", description="running mean of modality 1's factors; released: of modality 0's, a slip"
    )


@methods.register("greedy")
class Greedy(Method):
    """Cuts the faster learner off from the other modality for some steps, so that the slower one catches up."""

    Params = GreedyParams
    family = "gradients"
    quantities = (
        Quantity("unimodal_loss", "nats", "Cross-entropy of a modality's classifier."),
        Quantity("speed", "", "Conditional learning speed s of a modality.", reference=0.0),
        Quantity("curation", "", "Fraction of steps in curation.", of="model", limits=(0.0, 1.0)),
    )

    @classmethod
    def refuses(cls, params: GreedyParams, setting: Setting) -> str | None:
        count = len(setting.modalities)
        if count != 2:
            return f"expected two modalities, but got {count}"
        if setting.fusion not in FUSIONS:
            return f"expected fusion {' or '.join(FUSIONS)}, whose exchange it balances, but got {setting.fusion!r}"
        if params.first_epoch >= setting.epochs:
            return f"expected first_epoch below training.epochs = {setting.epochs}, but got {params.first_epoch}"
        return setting.lacks(no_frozen=True)

    @classmethod
    def extension(cls, params: GreedyParams, setting: Setting) -> str | None:
        return "Greedy with an exchange at the last tap only" if setting.fusion == "mmtm_last" else None

    def __init__(self, params: GreedyParams) -> None:
        super().__init__(params)
        self.sums: Tensor | None = None  # A and R (2, 2)
        self.left: Tensor | None = None  # () int64, curated steps to come
        self.faster: Tensor | None = None  # () int64, m*
        self.calls: Tensor | None = None  # (), forward passes that the running means are of
        self.means: dict[str, Tensor] = {}  # running means of the factors (C,), by "tap/modality"

    def on_train_start(self, ctx: Context) -> None:
        device = ctx.labels("train").device
        self.sums, self.calls = torch.zeros(2, 2, device=device), torch.zeros((), device=device)
        self.left, self.faster = (torch.zeros((), dtype=torch.int64, device=device) for _ in range(2))

    def step(self, ctx: Context, batch: Batch) -> None:
        exchanges, names = ctx.model.fusion.exchanges, ctx.model.modalities
        hooks = [
            exchange.register_forward_hook(partial(self._replace, i, names)) for i, exchange in enumerate(exchanges)
        ]
        try:
            super().step(ctx, batch)
        finally:
            for hook in hooks:
                hook.remove()

    def _replace(
        self, tap: int, names: list[str], module: nn.Module, means: list[Tensor], factors: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """The factors {m: (B, C_m)} that scale the states, after they entered the running means."""
        from pipeline_src.models.parts import whole_batch

        shown = {}
        for i, m in enumerate(names):
            of = factors[names[0] if self.params.average == "released" else m]
            source = whole_batch(of.detach().float()).mean(dim=0)
            if len(source) != factors[m].shape[1]:
                raise UserError(
                    "methods.greedy.average: expected encoders of the same width with average: released, but got "
                    f"{len(source)} and {factors[m].shape[1]} channels; choose own"
                )
            old = self.means.get(f"{tap}/{m}", torch.zeros_like(source))
            self.means[f"{tap}/{m}"] = mean = old + (source - old) / (self.calls + 1)
            curated = (self.left > 0) & (self.faster == i)
            shown[m] = torch.where(curated, mean.to(factors[m].dtype).expand_as(factors[m]), factors[m])
        return shown

    def loss(self, ctx: Context, output: Output, batch: Batch) -> dict[str, Tensor]:
        parts = {m: ctx.task.loss(z, batch.label) for m, z in self.unimodal(ctx.model, output.features).items()}
        for m, value in parts.items():
            ctx.log(f"unimodal_loss/{m}", value)
        return {"loss": sum(parts.values())}

    def after_backward(self, ctx: Context, output: Output, batch: Batch) -> None:
        self._decide(ctx)
        for m, s in zip(ctx.model.modalities, speed(*self.sums).unbind(), strict=True):
            ctx.log(f"speed/{m}", s)

    def _decide(self, ctx: Context) -> None:
        """Sums and the mode of the next step, from gradients."""
        model, normal = ctx.model, self.left == 0
        ctx.log("curation", (~normal).float())
        across, along = [], []
        for m, encoder in model.encoders.items():
            way = [layer for e in model.fusion.exchanges for layer in (e.squeeze, e.excite[m])]
            across.append(relative_step(p for layer in way for p in ctx.parameters(layer).values()))
            along.append(relative_step(ctx.parameters(encoder).values()))
        self.sums = self.sums + normal * torch.stack([torch.stack(across), torch.stack(along)])
        self.calls = self.calls + 1
        s = speed(*self.sums)
        begins = normal & ((s[0] - s[1]).abs() > self.params.epsilon) & (ctx.epoch >= self.params.first_epoch)
        self.faster = torch.where(begins, s.argmax(), self.faster)
        self.left = torch.where(begins, self.params.window, (self.left - 1).clamp(min=0))

    def state_dict(self) -> dict[str, Tensor]:
        kept = {"sums": self.sums, "left": self.left, "faster": self.faster, "calls": self.calls}
        return {k: v for k, v in kept.items() if v is not None} | {f"mean/{k}": v for k, v in self.means.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name in ("sums", "left", "faster", "calls"):
            setattr(self, name, state.get(name))
        self.means = {k.removeprefix("mean/"): v for k, v in state.items() if k.startswith("mean/")}
