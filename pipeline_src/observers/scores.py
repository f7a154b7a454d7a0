"""How sure the fused model and each modality are of the truth, and how well the model fits the training data.

    s_m    = 1 / N sum_i p_m,i(y_i)                       mean confidence of the truth; p_m: of modality m's own logits
    rho_m  = 1 / (M - 1) sum_{j != m} s_m / s_j           OGM-GE, Eq. 9; for M > 2 the mean over the others

The same for every method. What a method itself logs as score and ratio are sums over its training batches, while it
learns; these are means over the whole split after the epoch (PMR, CVPR 2023, Figs. 2a and 4c).
"""

from __future__ import annotations

from pipeline_src.methods import discrepancy
from pipeline_src.methods.base import Quantity
from pipeline_src.observers.base import Observed, Observer, observers

UNIT = (0.0, 1.0)


@observers.register("scores")
class Scores(Observer):
    """Scores, ratios, training loss and training accuracy."""

    quantities = (
        *(
            Quantity(
                f"score_on_{split}",
                "",
                f"The mean probability that the logits of the fused model, or of the modality, give to the truth on"
                f" {split}, after the epoch.",
                of="both",
                limits=UNIT,
            )
            for split in ("train", "val")
        ),
        Quantity(
            "ratio_on_train",
            "",
            "The modality's score on train divided by that of the others; above 1 it is ahead.",
            scale="log",
            reference=1.0,
        ),
        Quantity("loss_on_train", "", "The task's loss of the fused model on train, after the epoch.", of="model"),
        Quantity(
            "accuracy_on_train",
            "",
            "The fraction of training samples that the fused model, or the modality's own logits, get right.",
            of="both",
            limits=UNIT,
        ),
    )

    def observe(self, run: Observed) -> dict[str, float]:
        found: dict[str, float] = {}
        for split in ("train", "val"):
            seen = run.seen(split)
            every = {"": seen.logits, **{f"/{m}": z for m, z in seen.unimodal.items()}}
            scores = {of: run.task.confidence(z, seen.label).mean() for of, z in every.items()}
            found |= {f"score_on_{split}{of}": float(score) for of, score in scores.items()}
            if split == "train":
                own = {of: score for of, score in scores.items() if of}
                if len(own) > 1:
                    found |= {f"ratio_on_train{of}": float(r) for of, r in discrepancy.ratios(own).items()}
                found["loss_on_train"] = float(run.task.loss(seen.logits, seen.label))
                if run.task.primary.name == "accuracy":
                    found |= {f"accuracy_on_train{of}": run.task.score(z, seen.label) for of, z in every.items()}
        return found
