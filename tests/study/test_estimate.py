"""The estimate's counts, by hand."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from pipeline_src import cli
from pipeline_src.core import files
from pipeline_src.datasets.base import datasets
from pipeline_src.models.base import encoders
from pipeline_src.study import estimate
from pipeline_src.study.plan import Plan
from tests.workflow.small import write_params


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """A function: changes -> the small study's plan: two unimodal cells, one joint, two seeds of two epochs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COUNTERPOISE_RESOURCES", str(tmp_path / "resources.yaml"))

    def of(*changes) -> Plan:
        write_params(tmp_path, *changes)
        return Plan("params.yaml")

    return of


def test_operations_of_resnet18_are_the_known_ones():
    """1.81 G multiplications and additions of 224 x 224 pixels (He et al., Table 1), each counted as two."""
    encoder = encoders["resnet"].Params(width=64, depth=[2, 2, 2, 2])
    forward, both = estimate.counted(encoder, "frames", (1, 3, 224, 224))
    assert forward == pytest.approx(2 * 1.81e9, rel=0.01)
    # The backward pass is twice the forward one, but for the gradient of the pictures, which nobody needs.
    first = 2 * 64 * 3 * 49 * 112 * 112
    assert both == pytest.approx(3 * forward - first, rel=0.001)
    assert estimate.counted(encoder, "frames", (2, 3, 224, 224)) == pytest.approx((2 * forward, 2 * both), rel=0.001)


def test_operations_of_a_small_network_by_hand():
    encoder = encoders["convnet"].Params(width=4, features=6)
    forward, _ = estimate.counted(encoder, "frames", (1, 1, 28, 28))
    layers = 25 * 4 * 28 * 28, 9 * 4 * 4 * 14 * 14, 9 * 4 * 8 * 7 * 7, 9 * 8 * 8 * 7 * 7, 8 * 6
    assert forward == 2 * sum(layers)


def test_a_frozen_encoder_has_no_backward_pass():
    forward, both = estimate.counted(
        encoders["convnet"].Params(width=4, features=6, freeze=True), "frames", (1, 1, 28, 28)
    )
    assert forward == both > 0


def test_a_fusion_inside_the_encoders_is_counted_with_them(plan, forgetful):
    def operations(fusion, **others):
        plan()
        values = yaml.safe_load(Path("params.yaml").read_text())
        values["study"]["fusions"] = [fusion]
        values["model"]["encoders"] |= others
        Path("params.yaml").write_text(yaml.safe_dump(values))
        cells = Plan("params.yaml").cells
        cell = next(cell for cell in cells if len(cell.spec.modalities) == 2)
        return estimate.parts(cell), [estimate.operations(cell, part) for part in estimate.parts(cell)]

    names, _ = operations("concat")
    assert names == ["audio", "visual"]
    names, (audio, visual, (forward, both)) = operations("mmtm")
    assert names == ["audio", "visual", ""]
    assert 0 < forward < (audio[0] + visual[0]) / 10 and forward < both
    small = {"kind": "transformer", "width": 8, "layers": 0, "heads": 2, "feedforward": 8, "patch": [8, 8]}
    _, (audio, visual, (forward, both)) = operations("mult", audio=small, visual=small)
    assert forward > audio[0] + visual[0], "all but a linear map of each step"
    assert both > 2 * forward


def test_a_study_takes_what_its_runs_take(plan):
    one = plan()
    (cost,) = estimate.estimate(one, tflops=1e-6, step_ms=1e-9)
    # 84 clips, a fourth of 14 writers for test, a fifth of the others for val
    assert cost.clips == {"train": 48, "val": 12, "test": 24} and not cost.counted and cost.runs == 6
    flop = 0
    for m in ("audio", "visual"):
        forward, both = estimate.operations(one.cells[-1], m)
        flop += 2 * 2 * (2 * (48 * both + 36 * forward) + 84 * forward)  # seeds; alone and joint
    assert cost.flop == pytest.approx(flop)
    assert cost.gpu_seconds == pytest.approx(flop / 1e6)
    assert cost.bytes == 84 * sum(x.row_bytes for x in one.datasets["av_digits"].extractors.values())


def test_small_networks_take_the_time_of_their_steps(plan):
    (cost,) = estimate.estimate(plan(), tflops=1e9, step_ms=1000)
    assert cost.gpu_seconds == 6 * 2 * (2 + 2)  # runs, epochs, batches of 32 in train and in val with test


def test_a_manifest_counts_more_than_the_published_lists(plan):
    one = plan()
    folder = one.datasets["av_digits"].manifest
    table = pd.DataFrame({"split": ["train"] * 30 + ["val"] * 5 + ["test"] * 7})
    files.write_table(folder / "manifest.parquet", table)
    (cost,) = estimate.estimate(one)
    assert cost.clips == {"train": 30, "val": 5, "test": 7} and cost.counted


def test_a_data_set_of_unknown_size_is_said_to_be_one(plan, monkeypatch, capsys):
    monkeypatch.setattr(datasets["av_digits"], "sizes", {})
    line = estimate.line(plan())
    assert "6 runs of 2 epochs" in line and "how many clips av_digits has is known once its manifest is made" in line
    estimate.show(plan(), 1, 1)
    assert "known once its manifest is made" in capsys.readouterr().out


def test_the_command_states_its_assumptions(plan, capsys):
    plan()
    assert cli.main(["estimate", "--tflops", "2"]) == 0
    output = capsys.readouterr().out
    assert "48 train, 12 val, 24 test (expected; the manifest will count them)" in output
    assert "2 TFLOP/s sustained and 15 ms or more a step are assumed" in output
    with pytest.raises(SystemExit):
        cli.main(["estimate", "--tflops", "0"])
    assert "expected a number above 0" in capsys.readouterr().err


def test_weights_of_a_file_need_not_be_read(plan, tmp_path):
    (tmp_path / "weights.pt").write_bytes(b"anything")
    before = estimate.estimate(plan())[0].flop
    change = {"model": {"encoders": {"visual": {"weights": str(tmp_path / "weights.pt")}}}}
    assert estimate.estimate(plan(change))[0].flop == before


@pytest.fixture
def forgetful():
    """Nothing is remembered of other tests, or afterwards."""
    estimate._remembered.cache_clear()
    yield
    estimate._remembered.cache_clear()


def test_an_encoder_is_counted_once_on_a_machine(plan, monkeypatch, forgetful):
    asked = []
    real = estimate.counted
    monkeypatch.setattr(estimate, "counted", lambda *how: asked.append(how) or real(*how))
    before = estimate.estimate(plan())[0].flop
    assert len(asked) == 2, "two encoders in three cells"
    estimate._remembered.cache_clear()  # as in another process
    assert estimate.estimate(plan())[0].flop == before and len(asked) == 2
    estimate.estimate(plan({"model": {"encoders": {"visual": {"width": 8}}}}))
    assert [encoder.width for encoder, *_ in asked] == [4, 4, 8], "another network is another count"


@pytest.mark.parametrize("content", ["", "[1]", '{"a": 3}', '{"a": [1, "x"]}'])
def test_a_damaged_memory_is_counted_anew(plan, forgetful, content):
    files.write_text(estimate.COUNTS, content)
    assert estimate.estimate(plan())[0].flop > 0
    estimate._remembered.cache_clear()
    assert len(estimate._remembered()) == 2


def test_a_dry_run_holds_no_torch_and_counts_only_once(plan, tmp_path, forgetful):
    """The estimate's line is what a dry run ends with."""
    plan()
    code = (
        "import sys; from pipeline_src.study import estimate; from pipeline_src.study.plan import Plan;"
        "print(estimate.line(Plan('params.yaml'))); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and "GPU hours" in done.stdout, done.stderr
    counts = estimate.COUNTS.read_bytes()
    code = f"import subprocess; subprocess.run = None; {code}"  # nothing is left to count
    again = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert again.stdout == done.stdout and estimate.COUNTS.read_bytes() == counts


def test_a_dry_run_of_many_runs_counts_nothing_new(plan, monkeypatch, forgetful):
    many = plan()
    monkeypatch.setattr(estimate, "MANY", len(many.runs) - 1)
    monkeypatch.setattr(estimate.subprocess, "run", None)
    expected = "6 runs of 2 epochs; python -m pipeline_src estimate --params=params.yaml says what they take"
    assert estimate.line(many).endswith(expected)
    estimate.estimate(many)
    assert "GPU hours" in estimate.line(many), "what is remembered is shown"
