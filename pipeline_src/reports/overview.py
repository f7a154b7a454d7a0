"""A page across studies: what every method gains on every dataset, its mean rank, and what is significant.

A setting is a dataset with its recipe and a fusion in one study; tuned runs are settings of their own. Methods are
compared within a setting only, where all see the same samples and batches over the same seeds. The page reads what
`aggregate` wrote: tables/accuracy.csv, tables/tuned.csv and the index.

    rank        of a method among those of a setting, by the mean of its task's primary metric on test: 1 is the best,
                equal means share their rank
    mean rank   over the settings of the block: the methods that more than half of the settings have, and the settings
                that have all of these
    p           of Friedman's test whether mean ranks differ, by permutation: the fraction of all orders of the ranks
                within each setting, or of ORDERS drawn ones, in which they differ as much or more. The usual F and
                chi-squared distributions need many settings: with two settings that agree they give p 0, where 0.5
                is right for two methods.
    difference  of two mean ranks that is significant once p is, by Nemenyi's test over k methods and n settings:
                q(alpha, k) sqrt(k (k + 1) / (6 n)), q: studentised range over sqrt 2 (Demsar, "Statistical comparisons
                of classifiers over multiple data sets", JMLR 2006, section 3.2.2)
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from pipeline_src.core import files
from pipeline_src.core.errors import UserError
from pipeline_src.reports.declared import Primary
from pipeline_src.reports.ensemble import ENSEMBLE
from pipeline_src.reports.figures.base import Drawing
from pipeline_src.reports.figures.drawing import shown
from pipeline_src.reports.figures.style import INK, PAPER, looks, method_rows, styled
from pipeline_src.reports.page import environment
from pipeline_src.reports.scores import BASELINE, CELL, primary_of, read, significant
from pipeline_src.reports.tables import Entry, Table, entry
from pipeline_src.reports.wording import NONE, level, p_value, percent, plural, value
from pipeline_src.study.outputs import NO_FUSION

log = logging.getLogger(__name__)

TEMPLATE = "overview.html.j2"
STUDIES = Path("results/studies")
PAGE = Path("results/overview.html")
TABLES = {"accuracy.csv": "", "tuned.csv": ", equal tuning"}  # of a study, and what its settings are called after it
NEEDED = [*CELL, "seeds", "complete", "metric"]
ORDERS = 20_000


@dataclass(frozen=True)
class Setting:
    """One dataset with its recipe and a fusion in a study: the fused models' rows of its accuracy table by method."""

    study: str  # the name of its folder, and how it is tuned
    folder: Path
    dataset: str
    recipe: str
    fusion: str
    rows: pd.DataFrame
    seeds: int
    confidence: float
    complete: bool  # the whole study

    @cached_property
    def primary(self) -> Primary:
        return primary_of(self.rows)

    @property
    def trained(self) -> pd.Series:
        """The mean of the primary metric on test by method, of all that is trained and complete."""
        rows = self.rows[self.rows.complete & (self.rows.index != ENSEMBLE)]
        return rows[f"{self.primary.score}_mean"].dropna()

    def _row(self, method: str) -> pd.Series:
        return self.rows.loc[[method]].iloc[0]

    def gain(self, method: str) -> float:
        """The mean difference from BASELINE; NaN where there is none."""
        column = f"{self.primary.gain}_mean"
        return float(self.rows[column].get(method, math.nan)) if column in self.rows else math.nan

    def verdict(self, method: str) -> int:
        """1 where a method is significantly better than BASELINE, -1 where it is worse, else 0."""
        if math.isnan(self.gain(method)) or not significant(self._row(method), self.primary.gain, self.confidence):
            return 0
        return 1 if self.primary.better(self.gain(method)) else -1

    def entry(self, method: str, what: str, sign: bool = False, strong: bool = False) -> Entry:
        """A column of a method's row as people read it."""
        if method not in self.rows.index or f"{what}_mean" not in self.rows:
            return Entry(NONE)
        return entry(read(self._row(method), what), self.seeds, sign, strong, self.primary.metric.unit)


@dataclass(frozen=True)
class Ranking:
    """Ranks of the block's methods (columns) in its settings (rows), and Friedman's test of them; p is NaN and
    `difference` infinite for fewer than two settings or two methods.
    """

    ranks: pd.DataFrame  # by index of the setting and by method
    p: float
    difference: float
    confidence: float


def overview(folders: Sequence[Path], page: Path = PAGE) -> None:
    """Write the page across the studies in `folders`; all of results/studies if none is named.

    Raises UserError if a folder has no tables, or none of them has a method to compare.
    """
    folders = list(folders) or sorted(path.parent.parent for path in STUDIES.glob("*/tables/accuracy.csv"))
    if not folders:
        raise UserError(f"{STUDIES}: expected the results of a study, but got none; run snakemake, or name folders")
    every = [setting for folder in folders for setting in settings(folder)]
    if not any(len(setting.trained) > 1 for setting in every):
        raise UserError(
            f"{', '.join(map(str, folders))}: expected finished runs of {BASELINE} and of another method, but got none;"
            " finish a study (`counterpoise status --params FILE` says what is missing), or name other folders"
        )
    files.write_text(page, render(every, page))
    log.info(f"overview  {plural(len(every), 'setting')} of {len(folders)} studies in {page}")


def settings(folder: Path) -> Iterator[Setting]:
    """The settings of a study's folder. Raises UserError if there are no tables that this version wrote."""
    fix = "run `python -m pipeline_src aggregate` for its params file"
    indexes = sorted((folder / "tables").glob("index-*.json"))
    if not indexes or not (folder / "tables/accuracy.csv").exists():
        raise UserError(f"{folder}: expected tables/accuracy.csv and an index, but got none; {fix}")
    index = files.read_sealed(indexes[0], fix)
    if "confidence_level" not in index:
        raise UserError(f"{indexes[0]}: expected the confidence of the tables, but got none; {fix}")
    for name, tuned in TABLES.items():
        if not (file := folder / "tables" / name).exists():
            continue
        table = pd.read_csv(file, keep_default_na=False, na_values=[""])
        if missing := [column for column in NEEDED if column not in table]:
            raise UserError(f"{file}: expected the column {missing[0]}, but got none; {fix}")
        fused = table[table.fusion != NO_FUSION]
        for (dataset, recipe, fusion), rows in fused.groupby(CELL[:3], sort=False):
            seeds = int(str(rows.seeds.iloc[0]).rpartition(" ")[2])
            common = (f"{folder.name}{tuned}", folder, str(dataset), str(recipe), str(fusion))
            yield Setting(*common, rows.set_index("method"), seeds, index["confidence_level"], bool(index["complete"]))


def ranking(every: Sequence[Setting]) -> Ranking:
    """The ranks of the block."""
    signs = [1 if setting.primary.metric.higher else -1 for setting in every]
    scores = pd.DataFrame({i: signs[i] * setting.trained for i, setting in enumerate(every)})  # methods x settings
    common = scores.index[scores.notna().sum(axis=1) > len(every) / 2]
    block = scores.loc[common].dropna(axis="columns")
    ranks = block.rank(ascending=False).T
    n, k = ranks.shape
    confidence = min(setting.confidence for setting in every)
    if n < 2 or k < 2:
        return Ranking(ranks, math.nan, math.inf, confidence)
    q = stats.studentized_range.ppf(confidence, k, np.inf) / math.sqrt(2)
    return Ranking(ranks, _friedman(ranks.to_numpy()), float(q * math.sqrt(k * (k + 1) / (6 * n))), confidence)


def _friedman(ranks: np.ndarray) -> float:
    """p of Friedman's test of ranks (n settings, k methods)."""

    def spread(*methods: np.ndarray, axis: int) -> np.ndarray:
        return np.sum([method.sum(axis=axis) ** 2 for method in methods], axis=0)

    test = stats.permutation_test(
        tuple(ranks.T), spread, permutation_type="samples", n_resamples=ORDERS, alternative="greater", rng=0
    )
    return float(test.pvalue)


def render(every: Sequence[Setting], page: Path) -> str:
    """The page as one HTML text that needs nothing else."""
    ranked = ranking(every)
    methods = _ordered(every, ranked)
    columns = _names(every)
    return (
        environment(page.parent)
        .get_template(TEMPLATE)
        .render(
            headline=headline(every, methods),
            points=list(points(every, ranked)),
            tables=[gains_table(every, methods, columns, ranked), scores_table(every, methods, columns)],
            settings=settings_table(every, columns),
            figure=shown(_figure(every, methods, columns), folded=False),
            studies=list(dict.fromkeys(setting.study for setting in every)),
        )
    )


def _ordered(every: Sequence[Setting], ranked: Ranking) -> list[str]:
    """All methods but BASELINE, the best mean rank first; those without one after them, the ensemble last."""
    means = ranked.ranks.mean()
    names = dict.fromkeys(method for setting in every for method in setting.rows.index if method != BASELINE)
    return sorted(names, key=lambda method: (method == ENSEMBLE, means.get(method, math.inf)))


def _names(every: Sequence[Setting]) -> list[str]:
    """`av_digits, concat` for each setting, and its recipe and study where others have the same name."""
    short = [f"{setting.dataset}, {setting.fusion}" for setting in every]
    return [
        f"{name} ({setting.study})" if short.count(name) > 1 else name
        for name, setting in zip(short, every, strict=True)
    ]


def headline(every: Sequence[Setting], methods: Iterable[str]) -> str:
    """Which methods help anywhere, the one that helps in most settings first."""
    counts = {method: _counts(every, method) for method in methods if method != ENSEMBLE}
    helping = sorted((m for m, (better, _, _) in counts.items() if better), key=lambda m: -counts[m][0])
    if not helping:
        return f"No method is shown to help over {BASELINE} training in any setting."
    each = [f"{method} in {counts[method][0]} of {sum(counts[method])}" for method in helping]
    return f"Significantly better than {BASELINE} training: {', '.join(each)} settings."


def _counts(every: Sequence[Setting], method: str) -> tuple[int, int, int]:
    """The settings in which a method is significantly better than BASELINE, significantly worse, and neither."""
    verdicts = [setting.verdict(method) for setting in every if not math.isnan(setting.gain(method))]
    return verdicts.count(1), verdicts.count(-1), verdicts.count(0)


def points(every: Sequence[Setting], ranked: Ranking) -> Iterator[str]:
    """What the headline rests on, in sentences."""
    n, k = ranked.ranks.shape
    if math.isnan(ranked.p):
        yield "Mean ranks are not tested: it takes two methods in two settings."
    else:
        alpha = 1 - ranked.confidence
        differ = "differ" if ranked.p < alpha else "are not shown to differ"
        yield (
            f"Mean ranks of {k} methods over {n} settings {differ} (Friedman's test, p {p_value(ranked.p)})."
            + (
                f" Two of them differ significantly if they are {ranked.difference:.1f} apart (Nemenyi's test)."
                if ranked.p < alpha and ranked.difference <= k - 1
                else ""
            )
            + " Settings that share a dataset are not independent, so the test flatters."
        )
    yield (
        "Each difference is corrected for the comparisons of its own setting; nothing is corrected for the number of"
        f" settings ({len(every)})."
    )
    if missing := [setting.study for setting in every if not setting.complete]:
        yield f"Not all runs are there: {', '.join(dict.fromkeys(missing))}."
    yield "Settings differ in data, networks and schedule: compare methods within a column, not columns."


def gains_table(every: Sequence[Setting], methods: Sequence[str], columns: list[str], ranked: Ranking) -> Table:
    """Methods x settings: gains over BASELINE, mean gain, mean rank and what is significant."""
    rows = []
    means = ranked.ranks.mean()
    for method in [*methods, BASELINE]:
        gains = [setting.gain(method) for setting in every if setting.primary.metric.unit == "%"]
        gains = [gain for gain in gains if not math.isnan(gain)]
        counts, rank = _counts(every, method), means.get(method, math.nan)
        rows.append(
            [
                Entry(method),
                Entry(NONE if math.isnan(rank) else f"{rank:.1f}"),
                Entry(percent(float(np.mean(gains)), True) if gains else NONE),
                *(Entry(str(count) if any(counts) else NONE) for count in counts),
                *(s.entry(method, s.primary.gain, True, s.verdict(method) != 0) for s in every),
            ]
        )
    n, k = ranked.ranks.shape
    labels = list(dict.fromkeys(setting.primary.metric.label for setting in every))
    caption = (
        f"Test {' or '.join(labels)} minus that of {BASELINE} with the same fusion, paired by seed: mean ± standard"
        f" deviation [{level(ranked.confidence)} interval, corrected for the comparisons of the setting]; percentages"
        " in points. Bold: significant. Mean gain: in points, over the settings that have the method. Better, worse,"
        f" neither: in how many settings it is significantly better or worse than {BASELINE}. Mean rank: 1 is the best,"
        f" among {plural(k, 'method')} over the {plural(n, 'setting')} that have them all. {NONE}: no value."
    )
    heads = ["method", "mean rank", "mean gain", "better", "worse", "neither", *columns]
    return Table("Gains by setting", caption, heads, rows, 1)


def scores_table(every: Sequence[Setting], methods: Sequence[str], columns: list[str]) -> Table:
    """Methods x settings: the primary metric on test."""
    rows = [[Entry(m), *(setting.entry(m, setting.primary.score) for setting in every)] for m in [BASELINE, *methods]]
    labels = [f"{name}: {setting.primary.metric.label}" for name, setting in zip(columns, every, strict=True)]
    same = len({setting.primary.score for setting in every}) == 1
    what = f"Test {every[0].primary.metric.label}" if same else f"On test. {'; '.join(labels)}"
    caption = f"{what}; mean ± standard deviation over seeds [Student t interval]; percentages in percent."
    return Table("Scores by setting", caption, ["method", *columns], rows, 1)


def settings_table(every: Sequence[Setting], columns: list[str]) -> Table:
    """What each setting is, with a link to its study's folder."""
    rows = []
    for setting, name in zip(every, columns, strict=True):
        one = setting.primary
        detectable = setting.rows.get(f"{one.gain}_detectable", pd.Series(dtype=float)).median()
        joint = setting.rows[f"{one.score}_mean"].get(BASELINE, math.nan)
        words: list[Any] = [name, Entry(setting.study, folder=setting.folder.as_posix()), setting.recipe]
        numbers = [str(setting.seeds), str(len(setting.trained))]
        numbers += [f"{one.metric.label} {value(joint, one.metric.unit)}", value(detectable, one.metric.unit)]
        rows.append([one if isinstance(one, Entry) else Entry(one) for one in (*words, *numbers)])
    caption = (
        "A study links to the folder with its report, as long as this page is in its place. Detectable: the median over"
        " methods of the smallest true difference that is significant with 80 % probability."
    )
    heads = ["setting", "study", "recipe", "seeds", "methods", BASELINE, "detectable"]
    return Table("Settings", caption, heads, rows, 3)


def _figure(every: Sequence[Setting], methods: Sequence[str], columns: list[str]) -> Drawing:
    """A row per method, a point per setting."""
    look = looks(columns)
    with styled():
        figure, ((axis, _),) = method_rows({f"gain over {BASELINE}": [("", method) for method in methods]})
        for i, method in enumerate(methods):
            gains = []
            for j, setting in enumerate(every):
                if setting.primary.metric.unit == "%" and not math.isnan(gain := 100 * setting.gain(method)):
                    of, at = look[columns[j]], i + 0.5 * ((j + 0.5) / len(every) - 0.5)
                    filled = of.color if setting.verdict(method) else PAPER
                    axis.plot(gain, at, marker=of.marker, color=of.color, markerfacecolor=filled, linestyle="none")
                    gains.append(gain)
            if gains:
                axis.plot([np.mean(gains)] * 2, [i - 0.33, i + 0.33], color=INK, linewidth=1.6)
        axis.axvline(0, color=INK, linewidth=0.9)
        axis.set(xlabel=f"points above {BASELINE}")
        figure.set_size_inches(5.2, figure.get_figheight())
    caption = (
        "A point is the mean over the seeds of a setting: filled if significant, hollow if not. The bar is their mean."
    )
    return Drawing("gains-by-setting", f"Gain over {BASELINE}, by setting", caption, figure, look, keys="point")
