"""Attention by a guide and the residual network, against plain re-computations; the encoder over segments."""

import pytest
import torch

from pipeline_src.media.array import Array, ArrayParams
from pipeline_src.models.encoders.recurrent import Recurrent, RecurrentParams
from pipeline_src.models.fusions.avga import AVGA, DMRN
from pipeline_src.models.fusions.base import only
from pipeline_src.models.multimodal import build
from pipeline_src.models.stages import State

T, B = 3, 2
AUDIO = RecurrentParams(channels=5, segments=T, width=4)
VISUAL = RecurrentParams(channels=6, places=4, segments=T, width=4)
INPUTS = {"audio": {"layout": "sequence", "shape": [1, 5]}, "visual": {"layout": "sequence", "shape": [1, 24]}}


def model(fusion: str):
    return build({"audio": AUDIO, "visual": VISUAL}, fusion, INPUTS, 7, seed=0).eval()


def inputs():
    generator = torch.Generator().manual_seed(1)
    return {m: torch.randn(B * T, *info["shape"], generator=generator) for m, info in INPUTS.items()}


def attended(net, x: torch.Tensor, guide: torch.Tensor | None) -> torch.Tensor:
    """Row by row and place by place: (R, C), the sum of attended places."""
    found = []
    for i, row in enumerate(x.view(len(x), 4, 6)):
        s = torch.zeros(5) if guide is None else guide[i]
        by = net.of_guide.weight @ torch.relu(net.guide.weight @ s + net.guide.bias)
        scores = [
            net.score.weight[0]
            @ torch.tanh(net.of_state.weight @ torch.relu(net.state.weight @ v + net.state.bias) + by)
            for v in row
        ]
        weight = torch.stack(scores).exp()
        found.append((weight[:, None] * row).sum(0) / weight.sum())
    return torch.stack(found)


def over_time(lstm: torch.nn.LSTM, x: torch.Tensor) -> torch.Tensor:
    """Each sample's segments by themselves, forward and backward, by PyTorch's own cells."""
    rows = []
    for sample in x.view(B, T, -1):
        each = []
        for suffix, steps in (("", range(T)), ("_reverse", reversed(range(T)))):
            cell = torch.nn.LSTMCell(lstm.input_size, lstm.hidden_size)
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                getattr(cell, name).data = getattr(lstm, f"{name}_l0{suffix}").data
            state, out = None, {}
            for t in steps:
                state = cell(sample[t][None], state)
                out[t] = state[0][0]
            each.append(torch.stack([out[t] for t in range(T)]))
        rows.append(torch.cat(each, dim=1))
    return torch.cat(rows)


@pytest.mark.parametrize("fusion", ["avga", "dmrn"])
@pytest.mark.parametrize("kept", [("audio", "visual"), ("visual",), ("audio",)])
@torch.no_grad()
def test_features_and_logits_as_recomputed(fusion, kept):
    net, x = model(fusion), inputs()
    audio = x["audio"][:, 0]
    visual = attended(net.fusion.attention["visual"], x["visual"][:, 0], audio if "audio" in kept else None)
    f = {
        "audio": over_time(net.encoders["audio"].lstm.lstm, audio) * ("audio" in kept),
        "visual": over_time(net.encoders["visual"].lstm.lstm, visual) * ("visual" in kept),
    }
    features = net.encode(x, kept)
    for m in f:
        torch.testing.assert_close(features[m], f[m])
    if fusion == "avga":
        hidden = torch.relu(net.fusion.joint(torch.relu(torch.cat([f["audio"], f["visual"]], 1))))
        expected = net.fusion.out(hidden)
    else:
        g = (net.fusion.residual["audio"](f["audio"]) + net.fusion.residual["visual"](f["visual"])) / 2
        expected = net.fusion.out((torch.tanh(f["audio"] + g) + torch.tanh(f["visual"] + g)) / 2)
    torch.testing.assert_close(net.predict(x, kept), expected)
    alone = net.fusion.unimodal(features)
    torch.testing.assert_close(alone["visual"], net.fusion(only(features, ["visual"])))


@torch.no_grad()
def test_padded_places_get_no_attention():
    net = AVGA({"a": 4, "b": 4}, 3, {"a": (5,), "b": (6,)})
    padding = torch.tensor([[False, False, True, True], [False] * 4])
    x, guide = torch.randn(2, 6, 4), State(torch.randn(2, 5, 1))
    out = net.exchange(0, {"a": guide, "b": State(x, padding)})["b"]
    assert (out[0, :, 2:] == 0).all()
    whole = net.exchange(0, {"a": guide, "b": State(x[:1, :, :2])} | {"a": State(guide.x[:1])})["b"]
    torch.testing.assert_close(State(out, padding).mean()[:1], State(whole).mean())


def test_features_of_other_lengths_are_mapped_to_the_shortest():
    net = DMRN({"a": 4, "b": 6}, 3, {"a": (5,), "b": (6,)})
    assert net({"a": torch.randn(2, 4), "b": torch.randn(2, 6)}).shape == (2, 3)


def test_the_recurrent_encoder_says_what_it_reads():
    extractor = Array(ArrayParams(kind="array", length=T, features=24, non_finite="refuse"))
    assert Recurrent.refuses(VISUAL, extractor) is None
    assert "expected `segments` x (`places` times `channels`) of 3 x 24, but got (3, 5)" in Recurrent.refuses(
        AUDIO, extractor
    )


@pytest.mark.parametrize("width", [4, 64])
@pytest.mark.parametrize("gradients", [True, False])
def test_the_mode_of_an_lstm_without_dropout_changes_no_bit(gradients, width):
    torch.manual_seed(0)
    params = RecurrentParams(channels=6, places=4, segments=T, width=width)
    net, x, found = Recurrent(params, "sequence", (1, 24)).build().eval(), inputs()["visual"], []
    for mode in (True, False):
        net.lstm.lstm.training = mode
        with torch.set_grad_enabled(gradients):
            out = net(x)
        found.append([out, *(torch.autograd.grad(out.sum(), list(net.parameters())) if gradients else ())])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
