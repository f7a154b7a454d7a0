"""A balancing method is only its difference from joint training: hooks that the one training loop calls.

Nothing here imports torch, so that params.yaml and the grid are read without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from pydantic import Field, model_validator

from pipeline_src.core.params import Section
from pipeline_src.core.registry import Registry
from pipeline_src.methods.context import Batch, Context, Phase
from pipeline_src.models.base import Output, added, fusion_facts
from pipeline_src.tasks.base import tasks

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pipeline_src.models.fusions.base import Features
    from pipeline_src.models.multimodal import MultimodalModel

__all__ = [
    "FAMILIES",
    "Batch",
    "Context",
    "Method",
    "MethodParams",
    "Output",
    "Phase",
    "Quantity",
    "Requirement",
    "Setting",
    "WindowParams",
    "methods",
]

methods = Registry("pipeline_src.methods", "method")

# What a method changes of joint training: the order in which methods are listed.
FAMILIES = {
    "baseline": "nothing balanced",
    "gradients": "scale, mix or separate the encoders' gradients",
    "losses": "add losses, or weigh them",
    "features": "drop features while training",
    "sampling": "choose the samples that an epoch visits",
    "alternation": "train modalities in turn, stop them or start them again",
    "fusion weights": "weigh the modalities in the prediction",
    "teachers": "learn from the models of other runs",
    "other": "of no family above",
}


@dataclass(frozen=True)
class Quantity:
    """A number that a method logs by `ctx.log`: as `name/m` of each modality m, as `name` of the model, or as both.

    The report, MLflow and DVC's plots draw what is declared, with its caption; what is not declared is not drawn.
    """

    name: str
    unit: str  # "" for a pure number
    caption: str  # a whole sentence: what the number is
    of: Literal["modality", "model", "both"] = "modality"
    scale: Literal["linear", "log"] = "linear"
    reference: float | None = None  # a line across the plot, such as the ratio of modalities that are even
    limits: tuple[float, float] | None = None  # of the values, where there are any
    detail: bool = False  # drawn of each run by itself, but not in comparisons


class MethodParams(Section):
    """Parameters of a method: default, range, and the table of the paper that they come from."""

    affects = "train"


class WindowParams(MethodParams):
    """Parameters of a method that acts from one epoch to another; it says in their descriptions what is published."""

    first_epoch: int = Field(default=0, ge=0)
    last_epoch: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _in_order(self) -> WindowParams:
        if self.last_epoch is not None and self.last_epoch < self.first_epoch:
            raise ValueError(f"expected last_epoch of at least first_epoch = {self.first_epoch}")
        return self

    def within(self, epoch: int) -> bool:
        """Whether an epoch, from 0, is in the window; both ends are."""
        return self.first_epoch <= epoch and (self.last_epoch is None or epoch <= self.last_epoch)

    def beyond(self, epochs: int) -> str | None:
        """Why the window does not fit a run of so many epochs, or None."""
        for name in ("first_epoch", "last_epoch"):
            epoch = getattr(self, name)
            if epoch is not None and epoch >= epochs:
                return f"expected {name} below training.epochs = {epochs}, but got {epoch}"
        return None


class Requirement(NamedTuple):
    """A finished run of the same seed: the baseline of one modality, or joint training with the same fusion (None)."""

    modality: str | None


class Setting(NamedTuple):
    """What a method is to work with, as far as params.yaml tells before any run starts."""

    modalities: tuple[str, ...]
    fusion: str
    epochs: int
    task: str = "classification"  # of the dataset
    frozen: tuple[str, ...] = ()  # modalities whose encoders are not trained
    gpus: int = 1  # on which a run is trained together; then `Batch.inputs` is a part of the batch

    def lacks(
        self,
        modalities: int = 1,
        classes: bool = False,
        additive: bool = False,
        linear: bool = False,
        no_taps: bool = False,
        no_writes: bool = False,
        whole: bool = False,
        no_reads: bool = False,
        no_frozen: bool = False,
    ) -> str | None:
        """What to say if a method cannot work here that needs so many `modalities`, a task with `classes`, or a fusion
        with such facts: `no_taps`, it uses no hidden states, `no_writes`, it changes none, and `no_reads`, it predicts
        from features alone; or encoders that are all trained, `no_frozen`; or one label per sample, `whole`. None if it
        can.
        """
        count, facts, task = len(self.modalities), fusion_facts(self.fusion), tasks[self.task]
        words = {2: "two modalities", 3: "three modalities"}.get(modalities, f"{modalities} modalities")
        fusion = repr(self.fusion)
        needs = (
            (count >= modalities, f"{words} or more", count),
            (not classes or task.counted, "task classification or segments, as it needs classes", self.task),
            (not whole or not task.segmented, "a task with one label per sample, as it chooses samples", self.task),
            (not additive or facts.additive, "a fusion that is a sum over modalities", fusion),
            (not linear or facts.linear, "a fusion that is linear in each modality (concat, sum)", fusion),
            (not no_taps or not facts.taps, "a fusion of features alone", f"{fusion}, which uses hidden states"),
            (not no_writes or not facts.writes, "a fusion that leaves hidden states alone", fusion),
            (not no_reads or not facts.reads, "a fusion that predicts from features alone", fusion),
            (not no_frozen or not self.frozen, "encoders that are trained", f"freeze for {', '.join(self.frozen)}"),
        )
        return next((f"expected {what}, but got {got}" for met, what, got in needs if not met), None)

    def unknown(self, what: str, named: Iterable[str], others: tuple[str, ...] = ()) -> str | None:
        """What to say of names, of `what` in params.yaml, that are no modalities (nor `others`); else None."""
        names = (*self.modalities, *others)
        wrong = sorted(set(named) - set(names))
        return f"expected {what} of {', '.join(names)}, but got {', '.join(wrong)}" if wrong else None

    @property
    def additive(self) -> bool:
        """Whether the fusion is a sum over modalities."""
        return fusion_facts(self.fusion).additive


class Method:
    """Joint training. A method overrides the hooks in which it differs, in the order in which they are called here."""

    Params: ClassVar[type[MethodParams]] = MethodParams
    quantities: ClassVar[tuple[Quantity, ...]] = ()
    family: ClassVar[str] = "other"  # a key of FAMILIES
    name: ClassVar[str]  # that it is registered under

    @classmethod
    def refuses(cls, params: Any, setting: Setting) -> str | None:
        """Why the method cannot work in this setting, or None.

        Asked before any run starts; one line, "expected ..., but got ...", reported at the method's block. `params`,
        here and in the next two, is of type `Params`.
        """
        return None

    @classmethod
    def extension(cls, params: Any, setting: Setting) -> str | None:
        """What no paper gives about the method in this setting, for the tables; None where a paper does."""
        return None

    @classmethod
    def requires(cls, params: Any, setting: Setting) -> dict[str, Requirement]:
        """Runs that must be there first, by the name under which `ctx.run(name)` gives them.

        Only baselines and joint training can be required, so that the plan has no circle.
        """
        return {}

    def __init__(self, params: MethodParams):
        self.params = params

    def modules(self, dims: dict[str, int], classes: int) -> dict[str, nn.Module]:
        """Modules of the method's own, {name: module}, for features of length D_m {m: D_m}; kept in `model.extra`.

        Called whenever a model is built, for evaluation too, under a seed of their own: encoders and fusion start from
        the same weights in all methods. They are in the optimiser, in checkpoints and in the weights.
        """
        return {}

    def logits(self, model: MultimodalModel, features: Features) -> Tensor:
        """The prediction (B, C), in training, validation and evaluation alike; a removed modality's features are 0.

        A pure function of the model's tensors and the features {m: (B, D_m)}; it may read `self.params` and
        `model.training`.
        """
        return model.fusion(features)

    def unimodal(self, model: MultimodalModel, features: Features) -> dict[str, Tensor]:
        """What the model predicts from each modality, {m: (B, C)}; a pure function, as `logits` is."""
        return model.fusion.unimodal(features)

    def on_train_start(self, ctx: Context) -> None:
        """Before the first epoch: snapshots."""

    def before_epoch(self, ctx: Context) -> list[Phase]:
        """Prototypes and schedules; returns the passes of the epoch.

        Not called again when a run goes on within the epoch: what later hooks need of it belongs in `state_dict`.
        """
        return [Phase()]

    def samples(self, ctx: Context) -> Tensor | None:
        """Rows (N',) int64 of train that the coming pass visits, repeats allowed; None: each once.

        Called before each pass, and again when a run goes on within one: it may depend on what `state_dict` holds only.
        A last batch of one sample joins the one before, as in every pass.
        `batch.position` (B,) says where in the list a batch's samples are, for what the method knows of each visit.
        """
        return None

    def step(self, ctx: Context, batch: Batch) -> None:
        """One batch: here one update by the hooks below, in their order."""
        ctx.zero_grad()
        features = ctx.encode(batch)
        with ctx.autocast():
            changed, kept = self.on_features(ctx, features, batch)
            features = features.replaced(changed)
            if kept is not None:
                features, batch = features.rows(kept), batch.rows(kept)
                if not len(batch.label):  # nothing to learn from, and no mean loss
                    return
            output = Output(features, self.logits(ctx.model, features))
            losses = self.loss(ctx, output, batch)
        for name, value in losses.items():
            ctx.log(name, value)
        if "loss" not in losses:  # what the log, the check for divergence and the plots of training read
            ctx.log("loss", added(losses.values()))
        self.backward(ctx, losses, output, batch)
        self.after_backward(ctx, output, batch)
        ctx.update()

    def on_features(self, ctx: Context, features: Features, batch: Batch) -> tuple[Mapping[str, Tensor], Tensor | None]:
        """Between encoders and fusion: features {m: (B, D_m)} in and out; the rows kept (B,) bool, or None for all.

        A batch of which no row is kept ends here, without an update.
        """
        return features, None

    def loss(self, ctx: Context, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Named scalars: their sum is minimised, and each is logged; so is the sum, as `loss`, if none is so named.

        Here the loss of the prediction; with a fusion of `unimodal_loss`, and those of its unimodal logits.
        """
        loss, fusion = ctx.task.loss(output.logits, batch.label), ctx.model.fusion
        if fusion.unimodal_loss and ctx.model.taps:
            loss = added([loss, *(ctx.task.loss(z, batch.label) for z in fusion.unimodal(output.features).values())])
        return {"loss": loss}

    def backward(self, ctx: Context, losses: dict[str, Tensor], output: Output, batch: Batch) -> None:
        """Gradients from the named losses: here those of their sum."""
        ctx.backward(added(losses.values()))

    def after_backward(self, ctx: Context, output: Output, batch: Batch) -> None:
        """Gradients are there and may be scaled or added to, through `ctx.model.encoders[m]`."""

    def after_epoch(self, ctx: Context) -> None:
        """Weights may be changed here."""

    def state_dict(self) -> dict[str, Tensor]:
        """What the method must have to resume exactly after any step, and cannot compute from weights: by name."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back what `state_dict` gave, on the run's device."""
