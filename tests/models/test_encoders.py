"""Encoders of words, sequences and small pictures; what every encoder promises."""

import pytest
import torch

from pipeline_src.media.array import Array, ArrayParams
from pipeline_src.media.image import Image, ImageParams
from pipeline_src.media.tokens import Tokens, TokensParams
from pipeline_src.models.base import encoders
from pipeline_src.models.folders import SavedParams
from pipeline_src.models.steps import sine

SMALL = {
    "resnet": {"width": 4, "depth": [1, 1]},
    "convnet": {"width": 4, "features": 6},
    "transformer": {"width": 8, "layers": 2, "heads": 2, "feedforward": 16},
    "embedding": {"words": 30, "width": 8},
    "recurrent": {"channels": 3, "segments": 5, "width": 4},
}
SHAPES = {"frames": (2, 3, 28, 28), "spectrogram": (17, 12), "sequence": (5, 3), "tokens": (5,)}


def encoder(kind, layout, **how):
    own = {"tokens": {"words": 30}, "frames": {"patch": [9, 8]}, "spectrogram": {"patch": [4, 5]}}
    suits = own.get(layout, {}) if kind == "transformer" else {}
    params = encoders[kind].Params(**SMALL[kind] | suits | how)
    return encoders[kind](params, layout, SHAPES[layout])


def clips(layout, count=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    if layout == "tokens":
        return torch.randint(1, 30, (count, *SHAPES[layout]), generator=generator)
    return torch.randn(count, *SHAPES[layout], generator=generator)


SAVED = [kind for kind in encoders if issubclass(encoders[kind].Params, SavedParams)]  # see test_pretrained
BY_SEGMENT = ["recurrent"]  # reads the segments of samples, see test_avga
EVERY = [(kind, of) for kind in encoders if kind not in (*SAVED, *BY_SEGMENT) for of in encoders[kind].layouts]


def test_every_encoder_is_tested():
    assert set(SMALL) == set(encoders) - set(SAVED) and set(SAVED) == {"huggingface", "timm"}


@pytest.mark.parametrize(("kind", "layout"), EVERY)
def test_every_encoder_gives_its_features_and_learns(kind, layout):
    plugin, x = encoder(kind, layout), clips(layout)
    torch.manual_seed(0)
    module = plugin.build()
    out = module(x)
    assert out.shape == (4, plugin.features) and out.dtype == torch.float32 and torch.isfinite(out).all()
    out.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in module.parameters())
    torch.manual_seed(0)
    again = plugin.build()
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), again.parameters(), strict=True))
    module.eval()
    torch.testing.assert_close(module(x)[1:2], module(x[1:2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", SMALL)
def test_recurrent_layers_stay_in_training_mode_and_have_no_dropout(kind):
    module = encoder(kind, encoders[kind].layouts[0]).build()
    layers = [part for part in module.modules() if isinstance(part, torch.nn.RNNBase)]
    assert bool(layers) is (kind == "recurrent")
    for mode in (False, True):
        module.train(mode)
        assert module.training is mode and all(part.training and part.dropout == 0 for part in layers)


def test_convnet_is_the_published_one():
    module = encoders["convnet"](encoders["convnet"].Params(width=32, features=512), "frames", (1, 1, 28, 28)).build()
    # By hand: 2 + (25 + 1) 32 + (9 * 32 + 1) 32 + (9 * 32 + 1) 64 + (9 * 64 + 1) 64 + (64 + 1) 512
    assert sum(p.numel() for p in module.parameters()) == 2 + 832 + 9248 + 18_496 + 36_928 + 33_280
    seen = {}
    module.avgpool.register_forward_hook(lambda _, inputs, out: seen.update(before=inputs[0].shape))
    assert module(torch.randn(2, 1, 1, 28, 28)).shape == (2, 512)
    assert seen["before"] == (2, 64, 7, 7)


@pytest.mark.parametrize("where", ["end", "start"])
@pytest.mark.parametrize(
    ("kind", "layout"), [("transformer", "sequence"), ("transformer", "tokens"), ("embedding", "tokens")]
)
@pytest.mark.parametrize("pool", ["mean", "first"])
def test_padding_changes_nothing(kind, layout, where, pool):
    how = {"pool": pool, "positions": "none"} if kind == "transformer" else {}
    module = encoder(kind, layout, **how).build().eval()
    x = clips(layout)
    room = torch.zeros_like(x)[:, :3]
    padded = torch.cat([x, room] if where == "end" else [room, x], dim=1)
    torch.testing.assert_close(module(padded), module(x), rtol=1e-4, atol=1e-5)
    whole = module(torch.zeros_like(x))
    assert torch.isfinite(whole).all(), "a clip of padding alone"


def test_padding_that_is_read_counts():
    module = encoder("transformer", "sequence", padding="read", positions="none").build().eval()
    x = clips("sequence")
    assert not torch.allclose(module(torch.cat([x, torch.zeros(4, 3, 3)], 1)), module(x), atol=1e-3)


def test_positions_tell_the_order_and_nothing_else_does():
    x = clips("sequence")
    for positions, same in (("none", True), ("sine", False)):
        module = encoder("transformer", "sequence", positions=positions).build().eval()
        assert torch.allclose(module(x), module(x.flip(1)), atol=1e-5) is same


def test_sines_by_hand():
    found = sine(3, 4)
    expected = torch.tensor([[t, t / 100] for t in (0.0, 1.0, 2.0)])
    torch.testing.assert_close(found[:, ::2], expected.sin())
    torch.testing.assert_close(found[:, 1::2], expected.cos())


def test_an_embedding_is_the_mean_of_its_words():
    module = encoder("embedding", "tokens").build()
    table = module.read.weight
    torch.testing.assert_close(module(torch.tensor([[3, 5, 0, 0, 3]])), (2 * table[3:4] + table[5:6]) / 3)


def test_patches_are_read_in_order_and_what_is_left_over_is_not():
    module = encoder("transformer", "frames", positions="none").build()
    x = clips("frames")  # (4, 2, 3, 28, 28) in patches of 9 x 8: 3 rows and 3 columns of each frame
    h, padding = module.read(x)
    assert h.shape == (4, 18, 8) and not padding.any()
    weight, bias = module.read.weight, module.read.bias
    for step, (frame, row, column) in enumerate((t, r, c) for t in range(2) for r in range(3) for c in range(3)):
        patch = x[:, frame, :, 9 * row : 9 * row + 9, 8 * column : 8 * column + 8]
        expected = patch.flatten(1) @ weight.flatten(1).T + bias
        torch.testing.assert_close(h[:, step], expected, rtol=1e-4, atol=1e-5)
    other = x.clone()
    other[..., 27:, :] = other[..., 24:] = 0
    assert torch.equal(module.read(other)[0], h)


def test_the_last_step_and_the_class_token_are_the_features():
    x = clips("sequence")
    x[0, 3:] = x[1, 1:4] = 0
    last = encoder("transformer", "sequence", pool="last", layers=0).build()
    read = last.read(x)[0]
    torch.testing.assert_close(last(x), torch.stack([read[0, 2], read[1, 4], read[2, 4], read[3, 4]]))
    module = encoder("transformer", "sequence", pool="class", norm="before", activation="gelu", dropout=0.0).build()
    with torch.no_grad():
        module.read.token.token.normal_()
    h, padding = state = module.read(x)
    assert h.shape == (4, 6, 8) and not padding[:, 0].any()
    assert torch.equal(h[:, 0], module.read.token.token.expand(4, -1))
    for name in ("layer1", "layer2"):
        state = module.run(state, [name])
    torch.testing.assert_close(module(x), state[0][:, 0])
    torch.testing.assert_close(state[0], torch.nn.functional.layer_norm(state[0], (8,)), rtol=1e-3, atol=1e-4)


def test_layers_of_a_transformer_start_apart():
    module = encoder("transformer", "sequence").build()
    assert not torch.equal(module.layer1.linear1.weight, module.layer2.linear1.weight)


def test_what_does_not_suit_the_recipe_is_refused():
    tokens = Tokens(TokensParams(kind="tokens", length=5, buckets=30))
    array = Array(ArrayParams(kind="array", length=5, features=3, non_finite="zero"))

    def refusal(kind, extractor, **how):
        return encoders[kind].refuses(encoders[kind].Params(**SMALL[kind] | how), extractor)

    assert (
        refusal("resnet", tokens) == "expected an encoder of layout 'tokens', but got 'resnet' of frames, spectrogram"
    )
    assert refusal("embedding", tokens) == "expected words of at least 31, the recipe's numbers, but got 30"
    assert refusal("embedding", tokens, words=31) is None
    assert refusal("transformer", tokens) == "expected `words` for tokens, and for them alone"
    assert refusal("transformer", array, words=31) == "expected `words` for tokens, and for them alone"
    assert refusal("transformer", tokens, words=31) is None and refusal("transformer", array) is None
    image = Image(ImageParams(kind="image", size=8, color="rgb", fit="squash"))
    assert refusal("transformer", image) == "expected `patch` for frames and spectrograms, and for them alone"
    assert refusal("transformer", array, patch=[2, 2]) == refusal("transformer", image)
    assert refusal("transformer", image, patch=[4, 9]) == "expected a patch of at most 8 x 8 pixels, but got 4 x 9"
    assert refusal("transformer", image, patch=[4, 8]) is None


@pytest.mark.parametrize(
    "change", [{"heads": 3}, {"width": 7, "heads": 1}, {"dropout": 1.0}, {"pool": "max"}, {"patch": [3]}]
)
def test_parameters_are_checked(change):
    with pytest.raises(ValueError):
        encoder("transformer", "sequence", **change)
