"""The section "Result" of the README, from the accuracies of the default study on two kinds of processor.

`python -m benchmarks result` reads docs/results/default.csv and default-avx2.csv, which have the test accuracies of all
runs, linear probes and ensembles, and prints the section. With `--name default` (or default-avx2) it first writes that
file from the results of this clone. more-seeds.csv and more-seeds-avx2.csv have more seeds of the methods whose
verdicts differ between the instruction sets: those of experiments/more-seeds.yaml, which decide, and those that were
looked at before.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from pipeline_src.evaluation import FUSED
from pipeline_src.reports import formats
from pipeline_src.reports.ensemble import ENSEMBLE
from pipeline_src.reports.scores import (
    ACCURACY,
    BASELINE,
    COLUMNS,
    GAP,
    accuracy_table,
    modalities_of,
    read,
    significant,
)
from pipeline_src.reports.statistics import Summary, corrected, paired
from pipeline_src.reports.tables import Entry, Table, corrections, entry, sensitivity
from pipeline_src.reports.wording import MINUS, interval, level, percent, plural, words
from pipeline_src.study import config
from pipeline_src.study.naming import study_name
from pipeline_src.study.outputs import NO_FUSION, STUDY

STUDIED, MORE_SEEDS = Path("params.yaml"), Path("experiments/more-seeds.yaml")
ELSEWHERE = (Path("experiments/equal-tuning.yaml"), Path("experiments/when-balancing-helps.yaml"))
FOLDER = Path("docs/results")
OURS, AVX2 = "default", "default-avx2"  # files of FOLDER
MORE = ("more-seeds", "more-seeds-avx2")
GAIN = ACCURACY.gain
SAMPLES = 510  # test samples
METRICS = ("accuracy", "accuracy_probe")


def result(name: str | None) -> None:
    """Print the section; first write the accuracies of this clone's study to the file called `name`."""
    if name is not None:
        studied = MORE_SEEDS if name in MORE else STUDIED
        rows = pd.read_parquet(Path(STUDY.format(study=study_name(studied))) / "metrics.parquet")
        rows = rows[(rows.split == "test") & rows.metric.isin(METRICS)]
        file = FOLDER / f"{name}.csv"
        if name in MORE and file.exists():
            before = pd.read_csv(file)
            rows = pd.concat([before[~before.seed.isin(rows.seed)], rows])
        FOLDER.mkdir(parents=True, exist_ok=True)
        rows.to_csv(file, index=False, lineterminator="\n")
    print(section(), end="")


class Measured:
    """One of the files: its rows in long form and the accuracy table that the report makes of them."""

    def __init__(self, file: Path):
        self.rows = pd.read_csv(file)
        self.seeds = sorted(self.rows.seed.unique())
        self.confidence = config.load(STUDIED).reporting.confidence
        cells = self.rows[COLUMNS[:4]].drop_duplicates().to_dict("records")
        (self.dataset,) = self.rows.dataset.unique()
        samples = {self.dataset: SAMPLES}
        self.table = accuracy_table(self.rows, cells, self.seeds, self.confidence, samples=samples)
        self.table = self.table.set_index("method", drop=False)

    def entry(self, method: str, what: str) -> Entry:
        """A score or a difference as the report shows it."""
        row, gain = self.table.loc[method], what == GAIN
        return entry(read(row, what), len(self.seeds), gain, gain and significant(row, what, self.confidence))

    def verdict(self, method: str) -> str:
        """What the study says of a method, in a word."""
        row = self.table.loc[method]
        if not significant(row, GAIN, self.confidence):
            return "not significant"
        return "a gain" if row[f"{GAIN}_mean"] > 0 else "a loss"

    def behind(self) -> tuple[str, Summary]:
        """The method of the best model of one modality, and the accuracy of joint training less its own; one test."""
        alone = self.table[self.table.fusion == NO_FUSION]
        best = alone.method[alone.accuracy_mean.idxmax()]
        fused = self.rows[self.rows.modality == FUSED].set_index(["method", "seed"]).value
        values = ([fused[method, seed] for seed in self.seeds] for method in (BASELINE, best))
        return best, corrected([paired(*values, 1 / SAMPLES)], self.confidence)[0]

    def gaps(self) -> str:
        """What the encoders of joint training lack against those trained alone, by linear probes."""
        row = self.table.loc[BASELINE]
        parts = []
        for m in modalities_of(self.table):
            gap = read(row, f"{m}/{GAP}")
            parts.append(f"{m} {percent(gap.mean, True)} {interval(gap, True)}")
        return words(parts)


def section() -> str:
    """The text, as Markdown."""
    ours, other = (Measured(FOLDER / f"{name}.csv") for name in (OURS, AVX2))
    rows = []
    for method in ours.table.method:
        tested = method not in (BASELINE, *ours.table[ours.table.fusion == NO_FUSION].method)
        row = [Entry(method)]
        for measured in (ours, other):
            row.append(Entry(measured.entry(method, "accuracy").value))
            row.append(measured.entry(method, GAIN) if tested else Entry(""))
        rows.append(row)
    differences = f"{MINUS} {BASELINE}"
    columns = ["method", "accuracy", differences, "accuracy, AVX2", f"{differences}, AVX2"]
    table = Table("Result", _caption(ours), columns, rows, 1)
    return f"{formats.markdown([table])}\n{_sentences(ours, other)}\n"


def _caption(ours: Measured) -> str:
    seeds, compared = plural(len(ours.seeds), "seed"), corrections(ours.table, [GAIN])
    return (
        f"Test accuracy in percent of the default study, mean ± standard deviation over {seeds}."
        f" {MINUS} {BASELINE}: the difference to joint training in points, paired by seed, with its"
        f" {level(ours.confidence)} interval, corrected for {compared}. Bold: significant after the correction."
        " AVX2: the same study on the same processor, limited to the instructions of older ones."
    )


def _sentences(ours: Measured, other: Measured) -> str:
    best, less = ours.behind()
    _, less_other = other.behind()
    methods = [method for method in ours.table.method if ours.table.fusion[method] != NO_FUSION and method != BASELINE]
    changed = [method for method in methods if ours.verdict(method) != other.verdict(method)]
    agreed = (
        "Every verdict is the same on both."
        if not changed
        else "The verdict is not the same on both for "
        + words([f"{method} ({ours.verdict(method)}; AVX2: {other.verdict(method)})" for method in changed])
        + f". {_more(ours)}"
    )
    return "\n".join(
        [
            f"- Joint training less `{best}`: {percent(less.mean, True)} {interval(less, True)} points"
            f" (AVX2: {percent(less_other.mean, True)} {interval(less_other, True)}).",
            f"- Its encoders less those trained alone, by linear probes, in points: {ours.gaps()}"
            f" (AVX2: {other.gaps()}).",
            f"- {agreed} {sensitivity(ours.table[ours.table.method != ENSEMBLE], GAIN, ours.confidence)}",
        ]
    )


def _more(measured: Measured) -> str:
    """What the methods whose verdicts differ lose or gain with the seeds that were kept for this question, with those
    of them that no other study had, and with all seeds; corrected for as many comparisons as in the study measured.
    """
    both = [pd.read_csv(FOLDER / f"{name}.csv") for name in MORE]
    seeds, kept = sorted(both[0].seed.unique()), config.load(MORE_SEEDS).study.seeds
    others = [config.load(file) for file in ELSEWHERE]
    used = {seed for one in others for seed in [*one.study.seeds, *(one.tuning.seeds if one.tuning else [])]}
    fresh = [seed for seed in kept if seed not in used]
    said, settled = _differences(both, kept, measured)
    what = "all significant" if settled else "not all significant"
    return (
        f"With {plural(len(kept), 'new seed')} and the same correction, these are {what}: {said}."
        f" With the {len(fresh)} of them that no other study had: {_differences(both, fresh, measured)[0]}."
        f" With all {len(seeds)} seeds: {_differences(both, seeds, measured)[0]}."
    )


def _differences(both: list[pd.DataFrame], seeds: list[int], measured: Measured) -> tuple[str, bool]:
    """Each method less joint training on both processors, in words; whether all of it is significant."""
    comparisons = int(measured.table[f"{GAIN}_family"].max())
    fused = [
        rows[(rows.modality == FUSED) & (rows.metric == "accuracy")].pivot(index="method", columns="seed").value[seeds]
        for rows in both
    ]
    parts, verdicts = [], []
    for method in (name for name in both[0].method.unique() if name != BASELINE):
        tests = [paired(list(of.loc[method]), list(of.loc[BASELINE]), 1 / SAMPLES) for of in fused]
        ours, other = (corrected([test], measured.confidence, comparisons=comparisons)[0] for test in tests)
        parts.append(
            f"{method} {percent(ours.mean, True)} {interval(ours, True)} (AVX2: {percent(other.mean, True)}"
            f" {interval(other, True)})"
        )
        verdicts += [test.ci_low > 0 or test.ci_high < 0 for test in (ours, other)]
    return words(parts), all(verdicts)
