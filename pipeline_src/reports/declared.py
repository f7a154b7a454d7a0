"""What is declared of the numbers that the results show. Tables, figures, MLflow and DVC ask here and keep no lists."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline_src import evaluation
from pipeline_src.core.errors import UserError
from pipeline_src.methods.base import Quantity, methods
from pipeline_src.observers.base import SECONDS, observers
from pipeline_src.tasks.base import Metric, tasks

if TYPE_CHECKING:
    from pipeline_src.study.outputs import Cell, Data
    from pipeline_src.study.plan import Plan


@dataclass(frozen=True)
class View:
    """One way to score a modality: its name in tables, and a whole sentence that says what it is."""

    label: str
    caption: str


COST = ("seconds", "forwards", "backwards")  # of training
CAPTIONS = {
    "unimodal": "the modality's own logits are scored, as the fusion gives them.",
    "removal": "the fused model is scored with the other modalities removed.",
    "probe": "a linear model on the features of the frozen encoder is scored.",
}
VIEWS = {name: View(name, CAPTIONS[name]) for name in evaluation.VIEWS}


@dataclass(frozen=True)
class Primary:
    """The primary metric of a dataset's task, and what numbers made of it are called."""

    metric: Metric

    @property
    def score(self) -> str:
        """Of the whole model: in metrics.json, and as a column of the tables."""
        return self.metric.name

    @property
    def gain(self) -> str:
        """Its difference from the baseline's, as a column."""
        return f"{self.score}_gain"

    @property
    def best(self) -> str:
        """By the papers' rule, which selects the epoch on test."""
        return f"{self.score}_best_test_epoch"

    def view(self, name: str) -> str:
        """Of a modality, by one of `evaluation.VIEWS`."""
        return f"{self.score}_{name}"

    def by_epoch(self, modality: str | None = "") -> str:
        """On val, as a key of metrics.jsonl: of the fused model, or of a modality's unimodal logits."""
        return f"val_{self.score}" + (f"/{modality}" if modality else "")

    @property
    def factor(self) -> float:
        """What a value is multiplied by in figures: percentages are drawn in percent."""
        return 100.0 if self.metric.unit == "%" else 1.0

    @property
    def axis(self) -> str:
        """`accuracy, percent`, at an axis."""
        return f"{self.metric.label}, percent" if self.metric.unit == "%" else self.metric.label

    @property
    def points(self) -> str:
        """What a difference is called at an axis."""
        return "points" if self.metric.unit == "%" else self.metric.label

    def better(self, difference: float) -> bool:
        """Whether a difference is an improvement; none is not."""
        return difference > 0 if self.metric.higher else difference < 0


def primary(task: str) -> Primary:
    """The primary metric of a task."""
    return Primary(tasks[task].metrics[0])


def named_metric(name: str) -> Metric:
    """A metric that a task declares. Tasks that use a name mean the same by it."""
    for task in tasks:
        for metric in tasks[task].metrics:
            if metric.name == name:
                return metric
    raise UserError(f"metric {name!r}: expected one that a task declares, but got none")


def metrics(data: Data) -> tuple[Metric, ...]:
    """What the task of a dataset (of a Plan) declares; the first metric is the primary one."""
    return tasks[data.dataset.task].metrics


def fractions() -> set[str]:
    """The names of all metrics that lie between 0 and 1."""
    return {metric.name for name in tasks for metric in tasks[name].metrics if metric.unit == "%"}


def counting() -> set[str]:
    """The names of all metrics that are multiples of 1 over the number of targets."""
    return {metric.name for name in tasks for metric in tasks[name].metrics if metric.counts}


def quantities(cell: Cell) -> dict[str, Quantity]:
    """What the method of a cell (of a Plan) and its observers declare, by name."""
    watching = of_observers(cell)
    seen = {name: q for every in watching.values() for name, q in every.items()}
    return of_method(cell) | seen | ({SECONDS.name: SECONDS} if watching else {})


def of_method(cell: Cell) -> dict[str, Quantity]:
    """What the method of a cell declares, by name."""
    return {quantity.name: quantity for quantity in methods[cell.spec.method].quantities}


def of_observers(cell: Cell) -> dict[str, dict[str, Quantity]]:
    """What the observers of a cell declare, by observer and name."""
    return {name: {q.name: q for q in observers[name].quantities} for name in cell.spec.observers}


def compared(plan: Plan) -> list[Quantity]:
    """The quantities, without details, that the methods and observers of a Plan declare, each name once."""
    declared = [quantity for cell in plan.rows for quantity in quantities(cell).values() if not quantity.detail]
    return list({quantity.name: quantity for quantity in declared}.values())


def heading(name: str) -> str:
    """`drop_probability` as `Drop probability`."""
    return name.replace("_", " ").capitalize()


def sentence(quantity: Quantity) -> str:
    """`Weight, in nats: The weight of ...`."""
    unit = f", in {quantity.unit}" if quantity.unit else ""
    return f"{heading(quantity.name)}{unit}: {quantity.caption}"


def explained(declared: Iterable[tuple[str, Quantity]]) -> str:
    """The captions of quantities, each once, from (method, quantity); a method is named where captions differ."""
    captions: dict[str, dict[str, list[str]]] = {}
    for method, quantity in declared:
        by = captions.setdefault(quantity.name, {}).setdefault(sentence(quantity), [])
        if method not in by:
            by.append(method)
    return " ".join(
        (f"Of {', '.join(by)}, " if len(texts) > 1 else "") + text
        for texts in captions.values()
        for text, by in texts.items()
    )
