"""The encoder `recurrent` on a device that notes what cuDNN refuses: gradients through an LSTM in evaluation mode."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline_src.observers.base import observers
from pipeline_src.tasks.base import tasks
from pipeline_src.training.loader import Loader
from pipeline_src.training.loop import Trainer
from pipeline_src.training.observe import Observers
from tests.synthetic import KINDS, SyntheticCache, encoder, spec
from tests.training import strict
from tests.training.test_strict_device import SPLITS, trains_and_goes_on

SEGMENTS, CHANNELS = KINDS["sequence"][0]
READS = {"channels": CHANNELS, "segments": SEGMENTS, "width": 3}
NOTED = "a gradient goes back through an LSTM in evaluation mode"
TASK = {"task": "segments", "segments": SEGMENTS, "precision": "fp32"}


def cache_of_segments() -> SyntheticCache:
    """Two sequences, and a label for each of their steps."""
    cache = SyntheticCache(2, splits=SPLITS, layouts=("sequence",))
    cache.clips["label"] = [np.full(SEGMENTS, i, np.int32) for i in cache.clips.label]
    return cache


def network(**second) -> dict:
    return {"m0": encoder("recurrent", **READS), "m1": encoder("recurrent", **READS, **second)}


@pytest.mark.parametrize("training", [True, False])
def test_a_gradient_through_an_lstm_in_evaluation_mode_is_noted(training):
    lstm = torch.nn.LSTM(2, 3, batch_first=True).train(training)
    with strict.watched() as watch:
        lstm.to(strict.device())
        x = torch.ones(1, 4, 2, device=strict.device())
        with torch.no_grad():
            lstm(x)
        out = lstm(x)[0].sum()
        assert not watch.problems
        out.backward()
    assert [text.partition(": ")[2] for text in watch.problems] == [NOTED] * (not training)


def test_the_devices_lstm_is_pytorchs():
    torch.manual_seed(0)
    lstm, x = torch.nn.LSTM(2, 3, batch_first=True, bidirectional=True), torch.randn(4, 5, 2)
    expected = lstm(x)[0]
    wanted = torch.autograd.grad(expected.square().sum(), list(lstm.parameters()))
    with strict.watched():
        found = lstm.to(strict.device())(x.to(strict.device()))[0]
        found.square().sum().backward()
        grads = [p.grad.cpu() for p in lstm.parameters()]
        found = found.detach().cpu()
    torch.testing.assert_close([found, *grads], [expected.detach(), *wanted])


def test_a_method_that_encodes_in_evaluation_mode_trains():
    trains_and_goes_on(cache_of_segments(), method="agm", parts=network(), **TASK)


def test_a_frozen_encoder_passes_the_gradient_to_what_the_fusion_wrote_before_it():
    trains_and_goes_on(cache_of_segments(), fusion="avga", parts=network(freeze=True), **TASK)


def test_gradients_are_observed():
    cache = cache_of_segments()
    what = replace(spec(cache), encoders=network(), task="segments", segments=SEGMENTS)
    what = replace(what, observers={"gradients": observers["gradients"].Params()})
    with strict.watched() as watch:
        device, names, target = strict.device(), list(cache.modalities), tasks["segments"].target
        loaders = {s: Loader(cache, s, names, device, True, target, SEGMENTS) for s in SPLITS}
        run = Trainer(what, 0, cache, loaders, device)
        row = Observers(run).observe(0)
    assert row["gradient_norm/m0"] > 0 and not watch.problems
