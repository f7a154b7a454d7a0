"""The published values, with their sources (published.csv in this folder), beside those of a study.

A value is shown beside ours only if it was made by the same recipe on the same dataset with the same fusion and
optimizer. All others are drawn as what they are: how far values of one method on one dataset lie apart. `papers` lays
values out as the papers' tables do.

Columns of published.csv:
    dataset
    method      `<modality>-only`: trained alone; a variant has a name of its own, which experiments use as well
    fusion      `none` of one modality; `concat-mlp`: two layers; empty where the source does not say
    modality    whose score inside the model it is; empty: the fused model's
    metric      accuracy is top-1; segment_accuracy: over seconds; f1: the source does not name the average
    percent
    recipe      ours that repeats the source's preprocessing; empty where the source does not name it or it is another
    optimizer   empty where it is not known
    source      paper, code or person
    table       tables and figures that show it, `Table 1; Table 2`; empty where there is none or it is not known
    protocol    how it was trained and scored, as far as known
    provenance  `first-hand` (read in the authors' own artefact), `quoted` (by somebody else, not checked against the
                paper) or `user` (a third party's run of released code or weights)
    remark      also what differs from the recipe
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd

from pipeline_src.reports.declared import Primary
from pipeline_src.reports.scores import ACCURACY, BASELINE, primary_of, read
from pipeline_src.reports.tables import Entry, Table, entry
from pipeline_src.reports.wording import percent

PROTOCOL = (
    "Published values mostly come from one run and report the epoch with the best test accuracy. Some are scored"
    " without the last, incomplete batch of the test set. Frames, spectrograms, schedules and fusions differ between"
    " papers even under one name. Here, every method has the same of all of these, over several seeds, and the epoch is"
    " selected on val; the column `ours at the best test epoch` gives the accuracy by the papers' rule."
)


@dataclass(frozen=True)
class Published:
    """What is published of a dataset: a sentence, the values by our recipe, and those to draw."""

    line: str
    same: pd.DataFrame  # rows of published.csv of the same dataset and recipe
    where: str  # the registered dataset that they are published of
    drawn: pd.DataFrame  # rows of published.csv of that dataset and the study's methods
    protocol: str = PROTOCOL

    @property
    def drawable(self) -> bool:
        """Whether there is anything to draw."""
        return not self.drawn.empty


@cache
def values() -> pd.DataFrame:
    """published.csv; `fusion` and `recipe` are empty text where the source does not say."""
    return pd.read_csv(Path(__file__).parent / "published.csv", keep_default_na=False, dtype={"percent": float})


def published(
    name: str, kind: str, recipe: str, methods: list[str], optimizer: str, one: Primary = ACCURACY
) -> Published:
    """What is published of the dataset `name` of the registered `kind` and of these methods and BASELINE, by its
    primary metric; values of another `optimizer` than the study's are only drawn.
    """
    accuracies = values()[(values().metric == one.score) & (values().modality == "")]
    label = one.metric.label
    several = "accuracies" if one == ACCURACY else f"values of {label}"
    of_dataset = accuracies[accuracies.dataset == kind]
    same = of_dataset[(of_dataset.recipe == recipe) & of_dataset.optimizer.isin([optimizer, ""])]
    if of_dataset.empty:
        line = f"No {label} on {name} is published, so nothing is shown beside ours."
    else:
        count = "none" if same.empty else f"{len(same)}"
        line = (
            f"{len(of_dataset)} {several} on {name} are published, {count} of them by the recipe {recipe} and"
            f" {optimizer}. Values by another recipe or optimizer, or by a recipe that the source does not name, are"
            " not comparable; they are only drawn."
        )
    return Published(line, same, kind, of_dataset[of_dataset.method.isin([BASELINE, *methods])])


def side_by_side(name: str, recipe: str, same: pd.DataFrame, table: pd.DataFrame, seeds: int) -> Table | None:
    """Published values beside ours; `same` as in Published, `table`: the dataset's rows of the accuracy table."""
    rows = []
    if table.empty or primary_of(table).metric.unit != "%":
        return None
    one = primary_of(table)
    for row in table.to_dict("records"):
        matches = same[(same.method == row["method"]) & same["fusion"].isin([row["fusion"], ""])]
        for match in matches.to_dict("records"):
            baseline = same[
                (same.method == BASELINE)
                & (same["fusion"] == match["fusion"])
                & (same.source == match["source"])
                & same.table.map(lambda shown, of=match["table"]: bool(_tables(shown) & _tables(of)))
            ].percent
            comparable = len(baseline) == 1 and row["method"] != BASELINE
            gain = (match["percent"] - baseline.item()) / 100 if comparable else math.nan
            rows.append(
                [
                    *map(Entry, (row["fusion"], row["method"])),
                    Entry(", ".join(filter(None, (match["source"], match["table"])))),
                    Entry(match["provenance"] + (f": {said}" if (said := _said(match)) else "")),
                    Entry(f"{match['percent']:.1f}"),
                    entry(read(row, one.score), seeds),
                    entry(read(row, one.best), seeds),
                    Entry(percent(gain, True)),
                    entry(read(row, one.gain), seeds, sign=True),
                ]
            )
    if not rows:
        return None
    columns = ["fusion", "method", "source", "provenance", "published", "ours", "ours at the best test epoch"]
    columns += [f"published gain over its {BASELINE}", "our gain"]
    caption = (
        f"Test {one.metric.label} in percent, for the same dataset, fusion and recipe. A published gain is shown only"
        " where the same source gives its own joint training. A published value is a single number without a deviation."
    )
    return Table(f"Published values and ours: {name} (recipe {recipe})", caption, columns, rows, 4)


def _said(value: dict) -> str:
    """The remark and the protocol of a row of published.csv."""
    return "; ".join(filter(None, (value["remark"], value["protocol"])))


def _tables(shown: str) -> set[str]:
    return set(shown.split("; "))
