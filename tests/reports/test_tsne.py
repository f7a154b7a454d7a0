"""t-SNE of test features in the report, beside their principal components."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_src.core import files
from pipeline_src.reports.figures.features import features
from pipeline_src.reports.figures.tsne import tsne
from tests.reports import study as written


class Embedded(written.Study):
    """A study with t-SNE, of which the last 100 test samples were left out."""

    def write_predictions(self, run, accuracy):
        super().write_predictions(run, accuracy)
        file = run.evaluation / "predictions.parquet"
        table = pq.read_table(file)
        for m in run.cell.spec.modalities:
            places = np.arange(604, dtype=np.float32).reshape(302, 2)
            places[200:] = np.nan
            column = pa.FixedSizeListArray.from_arrays(pa.array(places.reshape(-1)), 2)
            table = table.append_column(f"{m}/tsne", column)
        files.write_table(file, table.replace_schema_metadata(None))


def test_a_panel_per_modality_and_method_of_the_samples_that_have_a_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    results = written.results_of(Embedded(methods=("joint",)))
    assert {"coordinates", "neighbours"} <= results.offers
    (drawing,) = tsne(results)
    assert drawing.name == "tsne-av_digits"
    titles = [axes.get_title(loc="left") for axes in drawing.figure.axes]
    assert titles == ["audio: audio-only", "audio: joint", "visual: visual-only", "visual: joint"]
    assert all(len(axes.collections[0].get_offsets()) == 200 for axes in drawing.figure.axes)
    assert "t-SNE" in drawing.caption and list(drawing.legend) == list("0123456789")
    (other,) = features(results)
    assert all(len(axes.collections[0].get_offsets()) == 300 for axes in other.figure.axes)


def test_without_tsne_there_is_no_figure(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    results = written.results_of(written.Study())
    assert "neighbours" not in results.offers and not list(tsne(results))
