"""Purity and purity gap of each modality's features: the diagnosis of Diagnosing & Re-learning, of any method.

k-means with as many clusters as classes, on train and on val apart; the purity is the fraction of samples whose label
is the most frequent of their cluster, and the gap is |purity on train - purity on val| (Wei et al., ECCV 2024,
arXiv:2407.09705, Fig. 4). See methods/relearning.py, whose functions these are. Test is clustered where
`training.track_test` scores it after every epoch anyway; nothing is chosen by it.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline_src.core.errors import UserError
from pipeline_src.methods.base import Quantity
from pipeline_src.methods.relearning import assign, purity
from pipeline_src.observers.base import Observed, Observer, ObserverParams, Setting, observers


class PurityParams(ObserverParams):
    features: Literal["minmax", "none"] = Field(
        default="minmax", description="features before clustering: scaled to [-1, 1] per dimension, or as they are"
    )
    starts: int = Field(default=10, ge=1, le=1000, description="k-means++ starts, of which the best counts")


@observers.register("purity")
class Purity(Observer):
    """Purities on each split, and the gap."""

    Params = PurityParams
    params: PurityParams
    quantities = (
        *(
            Quantity(
                f"purity_on_{split}",
                "",
                f"The purity of the clusters of the modality's features on {split}, after the epoch.",
                limits=(0.0, 1.0),
            )
            for split in ("train", "val", "test")
        ),
        Quantity("purity_gap", "", "The difference of the purities on train and on val, without its sign."),
    )

    @classmethod
    def refuses(cls, params: PurityParams, setting: Setting) -> str | None:
        return setting.lacks(classes=True)

    def observe(self, run: Observed) -> dict[str, float]:
        p, found = self.params, {}
        for split in run.splits:
            seen = run.seen(split)
            for m, features in seen.features.items():
                if not features.isfinite().all():
                    raise UserError(f"expected finite features of {m!r} on {split}, but got others")
                clusters = assign(features, run.task.classes, p.features, p.starts)
                found[f"purity_on_{split}/{m}"] = purity(clusters, seen.label.cpu())
        for m in run.model.modalities:
            found[f"purity_gap/{m}"] = abs(found[f"purity_on_train/{m}"] - found[f"purity_on_val/{m}"])
        return found
