"""Encoders in stages, and fusions that read or write their hidden states."""

import pytest
import torch

from pipeline_src.models.base import FusionFacts, encoders, fusion_facts, fusion_refuses, fusions
from pipeline_src.models.fusions.base import Features, Fusion, only
from pipeline_src.models.multimodal import build, paired_taps
from pipeline_src.models.stages import State
from tests import synthetic
from tests.models.tapped import IDLE, READS, WRITES
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
    state, places = x, 1 if plugin.steps else {"frames": 3, "spectrogram": 2}[layout]
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


def by_hand(model, inputs, kept) -> torch.Tensor:
    """Joint logits with the modalities that are not `kept` removed, each encoder's stages written out one by one."""
    states, hidden = {m: inputs[m] for m in kept}, dict.fromkeys(kept, ())
    taps = {m: [name for name, _ in model.encoders[m].named_children() if name in model.taps[m]] for m in kept}
    for tap in range(len(next(iter(model.taps.values())))):
        for m in kept:
            names = [name for name, _ in model.encoders[m].named_children()]
            first = names.index(taps[m][tap - 1]) + 1 if tap else 0
            for name in names[first : names.index(taps[m][tap]) + 1]:
                states[m] = getattr(model.encoders[m], name)(states[m])
        seen = {m: model.encoders[m].expose(states[m]) for m in kept}
        hidden = {m: (*hidden[m], seen[m]) for m in kept}
        if model.fusion.writes and kept:
            written = model.fusion.exchange(tap, seen)
            states = {m: model.encoders[m].put(states[m], written[m]) for m in kept}
    for m in kept:
        names = [name for name, _ in model.encoders[m].named_children()]
        for name in names[names.index(taps[m][-1]) + 1 :]:
            states[m] = getattr(model.encoders[m], name)(states[m])
    samples = len(next(iter(inputs.values())))
    features = {m: states[m] if m in kept else torch.zeros(samples, d) for m, d in model.fusion.dims.items()}
    return model.fusion(Features(features, hidden if model.fusion.reads else {}))


@pytest.mark.parametrize("fusion", [READS, WRITES])
@pytest.mark.parametrize("name", list(LAYOUTS))
def test_a_removed_modality_is_encoded_without(name, fusion):
    model, inputs = network(name, fusion)
    model.eval()
    every = model.modalities
    with torch.no_grad():
        features = model.encode(inputs)
        for kept in ([], every[:1], every[1:], every[::-1], every):
            found = model.predict(inputs, kept)
            assert torch.equal(found, by_hand(model, inputs, [m for m in every if m in kept]))
        # A removed modality does not matter; one that is kept reaches the others' features if states are written.
        other = inputs | {every[0]: inputs[every[0]].flip(0)}
        assert torch.equal(model.predict(other, every[1:]), model.predict(inputs, every[1:]))
        assert not torch.allclose(model.predict(other, every), model.predict(inputs, every))
        last = every[-1]
        assert torch.equal(model.encode(other)[last], features[last]) is (fusion == READS)
        assert torch.equal(model.encode(inputs, [last])[last], features[last]) is (fusion == READS)


def test_removed_encoders_do_not_run():
    model, inputs = network("pictures", WRITES)
    before = {name: b.clone() for name, b in model.encoders["m0"].named_buffers()}
    model.train().predict(inputs, ["m1"])
    assert all(torch.equal(b, before[name]) for name, b in model.encoders["m0"].named_buffers())


@pytest.mark.parametrize("fusion", [name for name in fusions if not fusion_facts(name).taps])
def test_removal_without_taps_is_that_of_features(fusion):
    model, inputs = network("mixed", fusion)
    model.eval()
    features = model.encode(inputs)
    for kept in ([], ["m1"], ["m0", "m2"]):
        assert torch.equal(model.predict(inputs, kept), model.fusion(only(features, kept)))
        removed = only(features, kept)
        assert all(torch.equal(f, removed[m]) for m, f in model.encode(inputs, kept).items())


def test_the_exchange_reaches_every_place_of_a_clip():
    """What a coupling sees of frames is one state of all frames; of steps, the mean leaves padding out."""
    model, inputs = network("mixed", WRITES)
    seen = []
    exchange = model.fusion.exchange
    model.fusion.exchange = lambda tap, states: (seen.append(states), exchange(tap, states))[1]
    model.encode(inputs)
    assert [{m: tuple(s.x.shape[:3]) for m, s in states.items()} for states in seen] == [
        {"m0": (6, 32, 2), "m1": (6, 8, 6), "m2": (6, 8, 3)}
    ], "one tap, as the transformer has but one; frames (B, C, T, H, W), steps (B, C, T), pictures (B, C, H, W)"
    frames = seen[0]["m0"].x
    torch.testing.assert_close(seen[0]["m0"].mean(), frames.flatten(2).mean(2))
    assert seen[0]["m1"].padding.any()


def test_unimodal_cells_have_no_coupling():
    for fusion in (READS, WRITES):
        layouts, _ = LAYOUTS["pictures"]
        cache = SyntheticCache(1, layouts=layouts)
        model, plain = (build(spec(cache).encoders, name, cache.modalities, 3, seed=0) for name in (fusion, "concat"))
        assert model.taps == {} and model.fusion.widths == {}
        x = {"m0": torch.from_numpy(cache.gather("m0", cache.rows("val"))).float()}
        assert torch.equal(model.encode(x)["m0"], plain.encode(x)["m0"])
        assert torch.equal(model(x).logits, model.fusion.unimodal(model.encode(x))["m0"])


def test_taps_are_paired_from_the_last_one():
    taps = {"a": {"x": 1, "y": 2, "z": 3}, "b": {"p": 4, "q": 5}}
    assert paired_taps(3, taps) == {"a": {"y": 2, "z": 3}, "b": {"p": 4, "q": 5}}
    assert paired_taps(1, taps) == {"a": {"z": 3}, "b": {"q": 5}}
    assert paired_taps(0, taps) == paired_taps(2, taps | {"c": {}}) == {}


def test_features_keep_the_hidden_states_that_belong_to_them():
    model, inputs = network("texts", READS)
    features = model.encode(inputs)
    kept = torch.tensor([True, False, True, True, False, False])
    fewer = features.replaced({m: 2 * f for m, f in features.items()}).rows(kept)
    assert torch.equal(fewer["m0"], 2 * features["m0"][kept])
    assert torch.equal(fewer.hidden["m1"][-1].x, features.hidden["m1"][-1].x[kept])
    assert torch.equal(fewer.hidden["m1"][-1].padding, features.hidden["m1"][-1].padding[kept])
    assert set(only(features, ["m1"]).hidden) == {"m1"}
    assert torch.equal(model.fusion(only(features, ["m1"])), model.predict(inputs, ["m1"])), "read, but not written"


def test_the_exchange_belongs_to_no_modality_and_learns():
    for fusion in (READS, WRITES):
        model, inputs = network("words", fusion)
        of_fusion = {id(p) for p in model.fusion.parameters()}
        assert not of_fusion & {id(p) for p in model.encoders.parameters()}
        model(inputs).logits.square().sum().backward()
        assert all(p.grad is not None for p in model.parameters())


def test_encoders_start_alike_with_and_without_taps():
    a, b = (network("mixed", fusion)[0] for fusion in (WRITES, "concat"))
    pairs = zip(a.encoders.state_dict().items(), b.encoders.state_dict().items(), strict=True)
    assert all(m == n and torch.equal(x, y) for (m, x), (n, y) in pairs)


def test_modules_of_a_method_are_saved_if_there_are_any():
    model, _ = network("texts", "sum")
    assert not any(name.startswith("extra") for name in model.state_dict())
    model.extra["probe"] = torch.nn.Linear(2, 2)
    saved = {name for name in model.state_dict() if name.startswith("extra")}
    assert saved == {"extra.probe.weight", "extra.probe.bias"}


def test_a_fusion_with_taps_must_give_unimodal_logits():
    class Silent(Fusion):
        taps, name = 1, "silent"

    with pytest.raises(NotImplementedError, match="fusion 'silent': expected unimodal logits of its own"):
        Silent({"a": 2, "b": 2}, 3).unimodal({"a": torch.zeros(1, 2), "b": torch.zeros(1, 2)})


@pytest.mark.parametrize("name", list(fusions))
def test_facts_of_a_fusion_are_those_of_its_class(name):
    facts, plugin = fusion_facts(name), fusions[name]
    for fact in FusionFacts.__annotations__:
        assert getattr(facts, fact) == getattr(plugin, fact), fact
    assert facts.unimodal_by() == plugin.unimodal_by()
    assert bool(facts.taps) == (facts.reads or facts.writes)


def test_unknown_facts_are_an_error(monkeypatch):
    monkeypatch.setattr(type(fusions), "facts", lambda self, name: {"aditive": True})
    with pytest.raises(ValueError, match="fusion 'concat': expected facts of `FusionFacts`, but got aditive"):
        fusion_facts("concat")


def test_what_a_fusion_cannot_join_is_refused_before_a_run(monkeypatch):
    params = encoders["convnet"].Params(width=4, features=4)
    network = {"a": params, "b": params, "c": params}
    assert all((fusion_refuses(name, network) is None) is not fusion_facts(name).steps for name in fusions)

    def refusal(**facts):
        monkeypatch.setattr(type(fusions), "facts", lambda self, name: facts)
        return fusion_refuses("concat", network)

    assert refusal(most=2) == "expected 1 to 2 modalities for fusion 'concat', but got 3"
    assert refusal(least=4) == "expected 4 or more modalities for fusion 'concat', but got 3"
    assert refusal(taps=2, writes=True) is None
    monkeypatch.setattr(encoders["convnet"], "taps", classmethod(lambda cls, params: {}))
    assert refusal(taps=2) == "expected encoders with taps for fusion 'concat', but got none in a, b, c"
    assert refusal(taps=0) is None
