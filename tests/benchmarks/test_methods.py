"""What the benchmark of methods counts and times, and the cards of docs/methods.md."""

import functools
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import cards
from benchmarks import methods as benchmark
from pipeline_src.core.errors import UserError
from pipeline_src.methods.base import methods
from pipeline_src.study.plan import Plan

CPU = torch.device("cpu")
PICKED = [("mla", "shared"), ("joint", "concat")]


def test_the_file_of_cards_is_what_the_code_gives():
    """Run `python -m benchmarks cards > docs/methods.md` after a change of a method."""
    assert Path("docs/methods.md").read_text(encoding="utf-8") == cards.cards()


def test_every_card_names_a_source_and_says_what_is_checked():
    for name in methods:
        card = cards.card(name)
        assert name == "joint" or cards.SOURCE.search(cards.source(methods[name])), name
        assert f"### `{name}`" in card and "| Fusions |" in card and "| Passes |" in card
        assert name == "joint" or "```text" in card, f"{name}: no equation"
        assert all(file.exists() for file in cards.tests(methods[name]))


def test_passes_of_methods_whose_cost_follows_from_their_definition():
    assert cards.counts("joint") == (1, 1, 0)
    assert cards.counts("ogm_ge") == (1, 1, 0)
    assert cards.counts("mmpareto") == (1, 2, 0)
    assert cards.counts("pmr").forwards > 1, "prototypes are a pass of their own"
    assert cards.counts("umt").forwards == 2, "teachers see every sample"


@pytest.fixture(scope="module")
def specs():
    spec = next(cell.spec for cell in Plan("params.yaml").cells if len(cell.spec.modalities) == 2)
    training = spec.training.model_copy(update={**benchmark.PUBLISHED_TRAINING, "device": "cpu"})
    joint = replace(
        spec, encoders=dict(zip(spec.modalities, cards.network(2).values(), strict=True)), training=training
    )
    return joint, replace(joint, method="mmpareto", params=methods["mmpareto"].Params())


@pytest.fixture(scope="module")
def cache(specs):
    shape = {"layout": "spectrogram", "shape": [33, 32], "dtype": "float32"}
    return benchmark.Noise(dict.fromkeys(specs[0].modalities, shape), 4, 32)


def test_a_step_with_two_backward_passes_takes_longer_and_holds_more(specs, cache):
    joint, mmpareto = specs
    step, between, passes = benchmark.measured(*(benchmark.trainer(s, cache, CPU) for s in (mmpareto, joint)))
    assert 1 < step.middle < 10 and 0 <= between < 0.5 and step.spread > 0
    assert passes == (1, 2, 0)
    peaks = [benchmark.memory(benchmark.trainer(spec, cache, CPU)) for spec in (joint, mmpareto)]
    inputs = 2 * 32 * 33 * 32 * 4
    assert inputs < peaks[0] < peaks[1]


def test_it_prints_a_row_of_every_method(monkeypatch, capsys):
    asked = []

    def measured(own, joint, epochs):
        asked.append((own.schedule.batch_size, len(epochs)))
        return benchmark.Ratio(1.0, 0.1), 0.0, benchmark.Passes(1, 1, 0)

    monkeypatch.setattr(benchmark, "measured", measured)
    monkeypatch.setattr(benchmark, "memory", lambda own: 10)
    benchmark.methods(Plan("params.yaml"))
    rows = [line.split("|")[1].strip() for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert sorted(rows[1:]) == sorted(methods) and set(asked) == {(64, 10)}
    benchmark.methods(Plan("params.yaml"), ["mla", "joint"], epochs=2, batch=16)
    rows = capsys.readouterr().out.splitlines()[-2:]
    assert rows == [f"| {m} | {f} | 1.000 ± 0.100 | 0.000 | 1.00 | 1.00 | 0.00 | 1.00 |" for m, f in PICKED]
    assert asked[-2:] == [(16, 2)] * 2
    with pytest.raises(UserError, match="--only: expected methods, but got ogn"):
        benchmark.methods(Plan("params.yaml"), ["ogn"])


def test_who_comes_first_alternates(specs, cache):
    order = []
    own, joint = (benchmark.trainer(specs[0], cache, CPU) for _ in range(2))
    for name, run in (("own", own), ("joint", joint)):
        run.method.step = functools.partial(lambda name, ctx, batch: order.append(name), name)
    benchmark.measured(own, joint, benchmark.ACTIVE[:2])  # of two batches
    assert order == ["own", "joint", "joint", "own", "own", "joint", "joint", "own"]
