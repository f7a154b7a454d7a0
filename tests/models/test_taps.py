"""Encoders in stages, and fusions that read or write their hidden states."""

import pytest
import torch

from pipeline_src.models.multimodal import build
from pipeline_src.models.stages import State
from tests import synthetic
from tests.models.tapped import IDLE
from tests.models.test_encoders import EVERY, clips, encoder
from tests.synthetic import SyntheticCache, spec

LAYOUTS = {  # modalities -> layouts, and encoders that are not those of the synthetic cache
    "pictures": (("spectrogram", "frames"), {}),
    "convnets": (("frames", "spectrogram"), {m: {"kind": "convnet", "width": 4, "features": 8} for m in ("m0", "m1")}),
    "texts": (("tokens", "sequence"), {}),
    "mixed": (("frames", "sequence", "spectrogram"), {"m0": {"kind": "resnet", "width": 4, "depth": [1, 1, 1, 1]}}),
    "words": (
        ("tokens", "frames", "sequence"),
        {"m2": {"kind": "transformer", "width": 8, "layers": 2, "heads": 2, "feedforward": 8, "dropout": 0.1}},
    ),
}


def network(name: str, fusion: str, seed: int = 0):
    """A model, and a batch of 6 samples with their cache."""
    layouts, others = LAYOUTS[name]
    cache = SyntheticCache(len(layouts), layouts=layouts)
    small = spec(cache, fusion).encoders | {m: synthetic.encoder(**how) for m, how in others.items()}
    model = build(small, fusion, cache.modalities, len(cache.classes), seed)
    rows = cache.rows("train")[:6]
    inputs = {m: torch.from_numpy(cache.gather(m, rows)) for m in cache.modalities}
    inputs = {m: x.long() if cache.modalities[m]["layout"] == "tokens" else x.float() for m, x in inputs.items()}
    return model.to(memory_format=torch.channels_last), inputs


@pytest.mark.parametrize(("kind", "layout"), EVERY)
def test_taps_are_stages_with_the_channels_that_they_say(kind, layout):
    plugin, x = encoder(kind, layout), clips(layout)
    module, taps = plugin.build().eval(), plugin.taps(plugin.params)
    assert taps and [name for name, _ in module.named_children() if name in taps] == list(taps)
    state, places = x, {"frames": 3, "spectrogram": 2}.get(layout, 1)
    for name, _ in module.named_children():
        state = module.run(state, [name])
        if name in taps:
            seen = module.expose(state)
            assert seen.x.shape[:2] == (4, taps[name]) and seen.x.dim() == 2 + places
            assert seen.mean().shape == (4, taps[name])
            again = module.put(state, seen.x)
            pairs = zip(again, state, strict=True)
            assert all(torch.equal(a, b) and a.stride() == b.stride() for a, b in pairs)
    assert torch.equal(state, module(x))


def test_a_state_is_the_mean_of_what_is_not_padding():
    x = torch.tensor([[[1.0, 2.0, 50.0], [3.0, 5.0, float("nan")]]])  # one sample, two channels, three steps
    state = State(x, torch.tensor([[False, False, True]]))
    assert state.mean().tolist() == [[1.5, 4.0]]
    assert State(x[..., :2]).mean().tolist() == [[1.5, 4.0]]
    assert state.rows(torch.tensor([False])).x.shape == (0, 2, 3)


@pytest.mark.parametrize("name", list(LAYOUTS))
def test_in_lock_step_without_an_exchange_the_numbers_are_those_of_whole_encoders(name):
    found = {}
    for fusion in (IDLE, "sum"):
        model, inputs = network(name, fusion)
        assert bool(model.taps) is (fusion == IDLE)
        torch.manual_seed(0)  # of dropout
        features = model.encode(inputs)
        sum(f.square().sum() for f in features.values()).backward()
        found[fusion] = [*features.values(), *(p.grad for p in model.encoders.parameters()), *model.encoders.buffers()]
    assert all(torch.equal(a, b) for a, b in zip(found[IDLE], found["sum"], strict=True))
    assert len(found[IDLE]) > 10
