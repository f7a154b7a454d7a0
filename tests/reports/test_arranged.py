"""Published values and ours in the rows and columns of a paper, and the lists of both."""

import os
from pathlib import Path

import pandas as pd
import pytest

from pipeline_src import cli
from pipeline_src.core.errors import UserError
from pipeline_src.datasets.base import datasets
from pipeline_src.methods.base import methods
from pipeline_src.reports import scores
from pipeline_src.reports.arranged import arranged, panels, printed
from pipeline_src.reports.papers import Place, cells, items, own, papers
from pipeline_src.reports.published import values
from pipeline_src.reports.statistics import summary
from pipeline_src.reports.wording import NONE
from pipeline_src.study import config
from pipeline_src.study.naming import study_name
from pipeline_src.study.outputs import STUDY

ROOT = Path(__file__).parents[2]


def accuracies(params, **found):
    """The accuracy table of a study with two scores of each of the cells `<fusion>_<method>`: by val, and by test."""
    rows = []
    for cell in dict.fromkeys(cells(params).values()):
        row = {"dataset": cell.dataset, "fusion": cell.fusion, "method": cell.method, "metric": "accuracy"}
        mean, best = found.get(f"{cell.fusion}_{cell.method}".replace("-", "_"), (float("nan"),) * 2)
        for what, at in (("accuracy", mean), (scores.ACCURACY.best, best)):
            one = summary([at - 0.01, at, at + 0.01], 0.95)
            row |= {f"{what}_{name}": getattr(one, name) for name in scores.STATISTICS}
        rows.append(row)
    return pd.DataFrame(rows)


def test_a_study_is_laid_out_as_the_papers_table():
    params = config.load(ROOT / "experiments/pmr-2023-cremad-fusions.yaml")
    params = params.model_copy(update={"study": params.study.model_copy(update={"seeds": [0, 1, 2]})})
    (table,) = arranged(params, accuracies(params, none_audio_only=(0.5, 0.55), gated_pmr=(0.6, 0.62)))
    assert table.title == "PMR: Fan et al., CVPR 2023 (arXiv:2211.07089), Table 1"
    assert table.columns == ["row", "value", "CREMA-D", "AVE", "CG-MNIST"]
    shown = {(row[0].value, row[1].value): [entry.value for entry in row[2:]] for row in table.rows}
    assert shown["audio, or gray", "published"] == ["54.4", "62.1", "99.3"]
    assert shown["audio, or gray", "here"] == ["50.0 ± 1.0", NONE, NONE]
    assert shown["audio, or gray", "here, best test epoch"] == ["55.0 ± 1.0", NONE, NONE]
    assert shown["Gated with PMR", "published"] == ["59.9", "62.7", "68.7"]
    assert shown["Gated with PMR", "here"] == ["60.0 ± 1.0", NONE, NONE]
    assert shown["Sum", "here"] == [NONE] * 3, "the run has no score"
    assert ("Sum", "here, best test epoch") not in shown
    assert list(dict.fromkeys(row[0].value for row in table.rows)) == list(papers()["pmr-2023"].items["table-1"].rows)
    assert arranged(params.model_copy(update={"reproduces": []}), pd.DataFrame()) == []


def test_the_score_of_a_modality_inside_a_model_is_beside_its_probe():
    params = config.load(ROOT / "experiments/inforeg-2025-cremad.yaml")
    found = accuracies(params, concat_ogm=(0.5, 0.55))
    for m, at in (("audio", float("nan")), ("visual", 0.40)):
        probe = summary([at - 0.01, at, at + 0.01], 0.95)
        found = found.assign(**{f"{m}/accuracy_probe_{name}": getattr(probe, name) for name in scores.STATISTICS})
    table, _ = arranged(params, found)
    shown = {(row[0].value, row[1].value): [entry.value for entry in row[2:]] for row in table.rows}
    assert shown["OGM", "published"] == ["68.7", "56.8", "39.5", "66.6", "53.4", "40.2"]
    assert shown["OGM", "here"][0].startswith("50.0") and shown["OGM", "here"][2].startswith("40.0")
    assert shown["OGM", "here"][1] == NONE and shown["OGM", "here, best test epoch"][2] == NONE


def test_a_figure_is_said_to_be_drawn_by_those_of_the_report():
    params = config.load(ROOT / "experiments/pmr-2023-cremad-figures.yaml")
    assert arranged(params, accuracies(params)) == [], "a figure has no published values"
    first, second = panels(params)
    assert first.startswith("PMR: Fan et al., CVPR 2023 (arXiv:2211.07089), Figure 2. 2a: scores of the fused model")
    assert "by epoch: observed" in second
    assert panels(config.load(ROOT / "experiments/pmr-2023-cremad.yaml")) == []


def test_a_place_with_an_optimizer_is_that_of_the_schedule():
    params = config.load(ROOT / "experiments/pmr-2023-cremad.yaml")
    of, item = cells(params), papers()["pmr-2023"].items["table-6"]
    assert own(item.place("SGD", "CREMA-D, PMR"), of).method == "pmr"
    assert own(item.place("Adam", "CREMA-D, PMR"), of) is None
    assert own(Place("cremad", "concat", "pmr"), of) == own(item.place("SGD", "CREMA-D, PMR"), of)


# The values of PMR as coverage of the paper lists them, row by row, once more and by hand.
PMR = {
    "table-1": """54.4 62.1 99.3 | 58.0 31.0 60.4 | 53.2 65.4 58.4 | 52.9 65.1 59.1 | 57.2 64.4 60.0 | 58.4 63.5 59.8 |
        61.1 67.1 77.2 | 59.4 68.1 78.5 | 61.8 66.4 76.3 | 59.9 62.7 68.7""",
    "table-2": """53.2 57.2 65.4 64.4 | 55.8 58.3 66.4 63.9 | 56.7 58.7 65.5 65.2 | 57.7 58.0 65.9 65.1 |
        60.3 61.3 67.2 65.6 | 61.1 61.8 67.1 66.4""",
    "table-3": "51.6 71.4 | 50.2 69.3 | 55.1 74.2 | 52.9 72.1",
    "table-4": "72.7 74.3 | 73.1 74.2",
    "table-5": "53.2 65.4 | 54.1 62.1 | 58.4 65.8 | 61.1 67.1 | 61.2 67.7 | 61.5 67.3",
    "table-6": "53.2 61.1 65.4 67.1 | 58.8 61.5 65.1 66.2 | 59.8 65.3 64.4 66.5",
}


@pytest.mark.parametrize("table", PMR)
def test_every_cell_of_pmrs_tables_has_its_published_value(table):
    paper = papers()["pmr-2023"]
    item = paper.items[table]
    found = [[printed(paper, item, item.place(row, column)) for column in item.columns] for row in item.rows]
    assert found == [row.split() for row in PMR[table].split("|")]


def test_every_item_is_told_apart_and_asks_for_what_there_can_be():
    known = values()
    for name, (paper, item) in items().items():
        assert bool(item.rows) == bool(item.columns), name
        assert item.schematic or item.rows or item.lacks or item.unread, name
        places = list(item.places())
        assert all(place.dataset in {*datasets, "balanced_av"} and place.fusion and place.method for place in places)
        if not item.unread and not item.panels and not item.schematic:
            shown = [printed(paper, item, place) for place in places]
            assert paper.source in set(known.source) and len(set(shown)) > 2, name
    sources = {paper.source for paper, _ in items().values()}
    assert len(sources) == len(papers())


def test_a_value_of_a_table_that_is_listed_is_at_one_of_its_places():
    """What is in published.csv with the table's name is shown by the table."""
    known = values()
    for name, (paper, item) in items().items():
        if not item.rows or item.panels or not item.named:
            continue
        shown = {(place.dataset, place.printed or place.fusion, place.method) for place in item.places()}
        rows = known[(known.source == paper.source) & (known.metric == item.metric)]
        rows = rows[rows.table.map(lambda text, title=item.named: title in text.split("; "))]
        missing = {(row.dataset, row.fusion, row.method) for row in rows.itertuples()} - shown
        assert not {cell for cell in missing if not cell[2].startswith("unimodal_")} or name == OTHER, (name, missing)


OTHER = "balancebenchmark-2025/main"  # CMU-MOSEI has a third modality


def test_an_unknown_table_is_named_with_the_closest_one(tmp_path):
    text = (ROOT / "experiments/pmr-2023-cremad.yaml").read_text()
    (tmp_path / "own.yaml").write_text(text.replace("pmr-2023/table-2", "pmr-2023/tabel-2"))
    with pytest.raises(UserError, match=r"own.yaml:\d+: reproduces.0: expected a table .* mean 'pmr-2023/table-2'"):
        config.load(tmp_path / "own.yaml")


def test_a_method_under_a_name_of_its_own_is_in_a_table_that_the_experiment_declares():
    for file in ROOT.glob("experiments/*.yaml"):
        params = config.load(file)
        declared = {place.method for name in params.reproduces for place in items()[name][1].places()}
        assert not params.reproduces or set(params.study.methods) - {*methods} <= declared, file


def test_a_table_is_printed_from_the_studies_that_are_there(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    file = Path(os.path.relpath(ROOT / "experiments/pmr-2023-cremad-fusions.yaml"))
    params = config.load(file)
    folder = tmp_path / STUDY.format(study=study_name(file)) / "tables"
    folder.mkdir(parents=True)
    accuracies(params, gated_pmr=(0.6, 0.62)).to_csv(folder / "accuracy.csv", index=False)
    assert cli.main(["table", "pmr-2023/table-1"]) == 0
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if line.startswith("| Gated with PMR") and " here  " in line]
    assert [cell.strip().partition(" ")[0] for cell in line.split("|")[3:6]] == ["60.0", NONE, NONE]
    assert "pmr-2023-ave-fusions.yaml" in out.split("Not there yet:")[1]
    assert "pmr-2023-cremad-fusions" not in out.split("Not there yet:")[1]


def test_all_tables_are_listed_and_another_name_is_an_error(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["table"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(items())
    assert any("pmr-2023-ave-prototypes, pmr-2023-cremad-prototypes" in line for line in lines)
    assert cli.main(["table", "pmr-2023/tabel-5"]) == 2
    assert "did you mean 'pmr-2023/table-5'" in capsys.readouterr().err
    assert cli.main(["table", "pmr-2023/figure-4"]) == 0
    assert "by epoch: observed" in capsys.readouterr().out
