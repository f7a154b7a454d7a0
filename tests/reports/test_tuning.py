"""Equal tuning in the report: two halves, each with its own baseline and family; chosen values, edges, divergence."""

import html
import re
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import pandas as pd
import pytest

from pipeline_src.reports import tuning
from pipeline_src.reports.aggregate import aggregate
from pipeline_src.reports.wording import MINUS, NONE
from pipeline_src.study.choice import Search, choose
from pipeline_src.study.outputs import TRIAL, TUNED, Run
from pipeline_src.study.runs import write_record
from pipeline_src.study.tuning import Tuning
from pipeline_src.tasks.base import tasks
from tests.reports.study import Study, record
from tests.reports.test_ensemble import with_logits

LRS = (0.01, 0.03, 0.1)
# Configuration -> mean accuracy of its tuned runs, val score of each trial (None: diverged).
RESULTS = {
    "audio-only": (0.90, (0.5, 0.7, 0.6)),
    "visual-only": (0.70, (0.5, 0.6, 0.7)),
    "joint": (0.97, (0.6, 0.9, 0.8)),
    "ogm": (0.94, (0.9, 0.6, None)),
}


class Tuned(Study):
    """`Study` with three trials of every configuration and the tuned runs."""

    def __init__(self, **how):
        super().__init__(methods=("joint", "ogm"), **how)
        self.params.tuning = Tuning(trials=3, seeds=[9], spaces={"all": {"training.lr": list(LRS)}})

    @cached_property
    def cells(self):
        cells, made = super().cells, []
        for i, cell in enumerate(cells):
            trials = [replace(cell, role=TRIAL, seeds=(9,), fp=f"{100 * i + j:010x}") for j in range(1, 4)]
            search = Search(tuple({"training.lr": lr} for lr in LRS), tuple((Run(trial, 9),) for trial in trials))
            tuned = replace(cell, role=TUNED, method=f"{cell.method}-tuned", fp=f"{9000 + i:010x}", search=search)
            made += [*trials, tuned]
        return [*cells, *made]

    @cached_property
    def rows(self):
        return [cell for cell in self.cells if not cell.role]

    @cached_property
    def runs(self):
        seeds = self.params.study.seeds
        return [Run(cell, seed) for cell in self.cells for seed in ((9,) if cell.role == TRIAL else seeds)]

    def write_all(self):
        for run in self.runs:
            label = run.cell.method.removesuffix("-tuned")
            accuracy, scores = RESULTS[label]
            jitter = (run.seed % 3 - 1) * (0.011 if label == "joint" else 0.01)
            own = dict.fromkeys(run.cell.spec.modalities, accuracy - 0.1)
            tuned = run.cell.role == TUNED
            self.write(run, accuracy + jitter - (0 if tuned else 0.2 if label == "joint" else 0.05), **own)
            if run.cell.role == TRIAL:
                score = scores[[trial[0].cell for trial in self.search(label).runs].index(run.cell)]
                status = {} if score is not None else {"status": "diverged", "diverged": {"epoch": 2, "reason": "r"}}
                selected = {"epoch": 1, "val_accuracy": score}
                run.record.unlink()
                write_record(run.folder, {**record(run), "selected": selected, **status})
        for run in self.runs:
            if run.cell.role == TUNED:
                outcome = choose(run.cell.search, tasks["classification"].metrics[0], run.label)
                run.record.unlink()
                write_record(run.folder, {**record(run), "tuning": outcome})

    def search(self, label):
        return next(cell.search for cell in self.cells if cell.method == f"{label}-tuned")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The folder of the results of one such study."""
    folder = tmp_path_factory.mktemp("tuned")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        study = Tuned()
        study.write_all()
        study.write_cache()
        with_logits(study)
        aggregate(study)
    return folder / "results"


def words(report: Path) -> str:
    plain = re.sub(r"<style>.*?</style>", "", (report / "report.html").read_text(encoding="utf-8"), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", plain)).split())


def table(report: Path, title: str) -> list[list[str]]:
    """The rows of a table of accuracy.md, the header first."""
    part = (report / "tables/accuracy.md").read_text(encoding="utf-8").split(f"## {title}")[1].split("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if not line.startswith("| --")]


def test_each_half_has_its_own_baseline(report):
    same, tuned = (pd.read_csv(report / "tables" / name).set_index("method") for name in ("accuracy.csv", "tuned.csv"))
    assert list(same.index) == list(tuned.index) == ["audio-only", "visual-only", "joint", "ogm", "ensemble"]
    assert same.accuracy_gain_mean["ogm"] == pytest.approx(0.94 - 0.05 - (0.97 - 0.2))
    assert tuned.accuracy_gain_mean["ogm"] == pytest.approx(0.94 - 0.97)
    assert tuned.accuracy_gain_family["ogm"] == 2  # with the ensemble: a family of its own
    assert pd.isna(tuned.accuracy_gain_mean["joint"])
    assert tuned.accuracy_mean["ensemble"] > 0.99  # each modality knows half of the samples


def test_tuned_rows_have_names_of_their_own_and_trials_none(report):
    metrics = pd.read_parquet(report / "metrics.parquet")
    methods = {name + suffix for name in (*RESULTS, "ensemble") for suffix in ("", "-tuned")}
    assert set(metrics.method) == methods
    assert set(metrics.seed) == {0, 1, 2}
    assert set(pd.read_csv(report / "tables/accuracy.csv").method) == {*RESULTS, "ensemble"}


def test_both_halves_stand_side_by_side(report):
    header, *rows = table(report, "Equal tuning")
    assert header[:3] == ["fusion", "method", "same settings"] and header[5:7] == [
        "equal tuning",
        f"{MINUS} tuned joint",
    ]
    ogm = next(row for row in rows if row[1] == "ogm")
    assert ogm[2].startswith("89.0 ±") and ogm[3].strip("*").startswith("+12.0")
    assert ogm[5].startswith("94.0 ±") and ogm[6].strip("*").startswith(f"{MINUS}3.0")
    assert [row[1] for row in rows] == [*RESULTS, "ensemble"]
    assert header[8] == "change of the difference" and ogm[8].strip("*").startswith(f"{MINUS}15.0 ± ")
    assert "three families of comparisons" in words(report)


def test_a_change_is_paired_over_both_halves_and_corrected_for_its_family():
    seeds = range(4)
    noise, own = (0.0, 0.05, -0.05, 0.02), (0.001, -0.001, 0.002, 0.0)
    same = {("d", "r", "f", m, seed): 0.5 + noise[seed] for m in ("joint", "a", "b") for seed in seeds}
    tuned = {key: value + 0.1 * (key[3] == "a") + own[key[4]] * (key[3] != "joint") for key, value in same.items()}
    found = tuning.changes(same, tuned, list(seeds), 0.95, {})
    assert [key[3] for key in found] == ["a", "b"], "joint training is what the others differ from"
    a, b = found.values()
    assert a.mean == pytest.approx(0.1005) and b.mean == pytest.approx(0.0005)
    assert a.family == b.family == 2 and a.p_corrected == pytest.approx(2 * a.p) and a.p_corrected < 0.001
    assert a.sd == pytest.approx(pd.Series(own).std()), "what the seeds share cancels out"
    del tuned["d", "r", "f", "joint", 3]
    assert tuning.changes(same, tuned, list(seeds), 0.95, {})["d", "r", "f", "a"].n == 3
    rounded = tuning.changes(same, tuned, list(seeds), 0.95, {"d": 0.01})["d", "r", "f", "b"]
    assert rounded.spread == pytest.approx(0.01), "of four values, each rounded to a hundredth"


def test_an_edge_counts_the_values_that_were_tried_of_its_own_parameter():
    points = [{"values": {"lr": lr, "q": q}} for lr, q in zip((0.1, 0.2, 0.3, 0.4), (1, 2, 1, 2), strict=True)]
    assert tuning.edge({"edges": {"q": "highest", "lr": "lowest"}, "trials": points}) == (
        "q is the highest of 2, lr is the lowest of 4"
    )


def test_what_was_chosen_is_shown_with_edges_and_divergence(report):
    header, *rows = table(report, "Chosen values")
    shown = {row[1]: dict(zip(header, row, strict=True)) for row in rows}
    assert shown["joint"]["chosen"] == "training.lr 0.03" and shown["joint"]["on the edge"] == NONE
    assert (shown["joint"]["val, chosen"], shown["joint"]["val, worst"]) == ("90.0", "60.0")
    assert shown["ogm"]["on the edge"] == "training.lr is the lowest of 3" and shown["ogm"]["diverged"] == "1"
    assert shown["visual-only"]["on the edge"] == "training.lr is the highest of 3"
    text = words(report)
    assert "ogm with concat (training.lr is the lowest of 3)" in text
    assert "1 trial diverged, and could not be chosen." in text
    assert "Tuning changes joint training with concat by +20.0 points." in text
    assert f"Tuning changes the difference from joint training for ogm with concat ({MINUS}15.0 points [" in text


def test_every_trial_is_in_a_file(report):
    trials = pd.read_csv(report / "tables/trials.csv")
    assert len(trials) == 4 * 3
    ogm = trials[trials.method == "ogm"]
    assert ogm.trial.tolist() == [1, 2, 3] and ogm["training.lr"].tolist() == list(LRS)
    assert ogm.chosen.tolist() == [True, False, False] and ogm.diverged.tolist() == [False, False, True]
    assert ogm["mean"].tolist()[:2] == ogm.score_seed9.tolist()[:2] == [0.9, 0.6]


def test_the_tables_are_in_latex_and_a_study_that_is_not_tuned_has_none(report, tmp_path, monkeypatch):
    assert "Chosen values" in (report / "tables/accuracy.tex").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    study = Study()
    study.write_all()
    study.write_cache()
    for name in ("tuned.csv", "trials.csv"):
        (tmp_path / "results/tables").mkdir(parents=True, exist_ok=True)
        (tmp_path / "results/tables" / name).touch()  # of the params file as it was
    aggregate(study)
    assert sorted(path.name for path in (tmp_path / "results/tables").glob("*.csv")) == ["accuracy.csv"]
    assert "uning" not in words(tmp_path / "results")


def test_seeds_that_chose_differently_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = Tuned()
    study.write_all()
    study.write_cache()
    run = next(run for run in study.runs if (run.cell.method, run.seed) == ("joint-tuned", 1))
    outcome = choose(run.cell.search, tasks["classification"].metrics[0], run.label)
    run.record.unlink()
    write_record(run.folder, {**record(run), "tuning": outcome | {"chosen": 0, "values": {"training.lr": 0.01}}})
    aggregate(study)
    assert "The seeds of joint with concat did not all train with the same choice" in words(tmp_path / "results")


def test_a_study_that_has_just_begun(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = Tuned()
    study.write_cache()
    study.write(study.run("joint", 0), 0.8, audio=0.8, visual=0.7)
    aggregate(study)
    assert "Equal tuning (3 trials of each configuration, chosen on val): No answer yet" in words(tmp_path / "results")
