"""AMST: modality-specific training (ECML 2025; authors' code CXianRen/AMST). The paper itself was not read.

Modality m is trained in the epochs e, from 0, with e mod s_m = 0 only.

    alternating   each batch has an update for each m that is due, by CE(c(f_m), y), of encoder m and the classifier c
                  of all modalities (fusion `shared`); others do not run
    joint         CE(z, y) by any fusion; encoders that are not due get no gradient

Prediction: the fusion's; of `shared` that is the mean of c(f_m). A period of 1 for all is MLA without a projection and
with even weights (`alternating`), or joint training bit for bit (`joint`).

What the authors' code does otherwise: its `full` has both models and averages them, but trains the joint one by the
alternating rule as well; it is left out. Encoders that are not due are in training mode here: the running statistics of
normalisation follow.

In metrics.jsonl, means over the steps: unimodal_loss/m of the modalities that are due, in `alternating`, and loss.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from pipeline_src.methods.alternating import FUSION, Alternating
from pipeline_src.methods.base import Batch, Context, Method, MethodParams, Quantity, Setting, methods

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from pipeline_src.models.fusions.base import Features
    from pipeline_src.models.multimodal import MultimodalModel

Period = Annotated[int, Field(ge=1, le=10_000)]


class AMSTParams(MethodParams):
    mode: Literal["alternating", "joint"] = Field(
        "alternating", description="an update per modality and batch, or one by the joint loss"
    )
    period: dict[str, Period] = Field(
        {"audio": 5, "text": 10},
        description="s_m in epochs by modality, 1 where none is named; released audio 5 (CREMA-D), 2 (AVE),"
        " 4 (IEMOCAP), 6 (UR-Funny), visual 1, text 10",
    )


@methods.register("amst")
class AMST(Alternating):
    """Trains the modalities that learn fast in some epochs only."""

    family = "alternation"
    Params = AMSTParams
    params: AMSTParams
    quantities = (Quantity("unimodal_loss", "nats", "Cross-entropy of the shared classifier on each modality."),)

    @classmethod
    def refuses(cls, params: AMSTParams, setting: Setting) -> str | None:
        names = ", ".join(setting.modalities)
        if params.mode == "alternating" and setting.fusion != FUSION:
            return f"expected fusion {FUSION}, one classifier for all modalities, but got {setting.fusion!r}"
        if "period" in params.model_fields_set and (why := setting.unknown("periods", params.period)):
            return why
        if all(params.period.get(m, 1) > 1 for m in setting.modalities):
            return f"expected a period of 1 for one of {names}, so that no epoch is empty, but got none"
        return setting.lacks(modalities=2, no_taps=True)

    def due(self, ctx: Context) -> list[str]:
        return [m for m in ctx.model.modalities if ctx.epoch % self.params.period.get(m, 1) == 0]

    def unimodal(self, model: MultimodalModel, features: Features) -> dict[str, Tensor]:
        if self.params.mode == "joint":
            return Method.unimodal(self, model, features)
        return super().unimodal(model, features)

    def step(self, ctx: Context, batch: Batch) -> None:
        if self.params.mode == "joint":
            Method.step(self, ctx, batch)
        else:
            super().step(ctx, batch)

    def on_features(self, ctx: Context, features: Features, batch: Batch) -> tuple[Mapping[str, Tensor], Tensor | None]:
        due = self.due(ctx)
        return {m: f if m in due else f.detach() for m, f in features.items()}, None
