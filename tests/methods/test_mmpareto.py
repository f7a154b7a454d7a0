"""MMPareto: the authors' gradients over two steps, the min-norm point, and the rule for a tensor or an encoder."""

import pytest
import torch
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from pipeline_src.methods.mmpareto import min_norm, mix, share
from tests.methods import golden

ENCODERS = {"audio": "audio_net", "visual": "visual_net"}


def network(values: dict, inputs: dict) -> tuple[torch.Tensor, dict]:
    """Joint and unimodal logits of the golden case's model."""

    def encode(m, x):
        net = torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(x.shape[1], 8), torch.nn.ReLU(), torch.nn.Linear(8, 16)
        )
        return functional_call(net, golden.part(values, f"{ENCODERS[m]}."), (x,))

    features = {m: encode(m, x) for m, x in inputs.items()}
    z = torch.cat(list(features.values()), dim=1) @ values["head.weight"].T + values["head.bias"]
    heads = {"audio": "head_audio", "visual": "head_video"}
    own = {m: f @ values[f"{heads[m]}.weight"].T + values[f"{heads[m]}.bias"] for m, f in features.items()}
    return z, own


def test_two_steps_of_the_authors_code():
    arrays, meta = golden.load("mmpareto_1")
    values = {name: value.clone().requires_grad_() for name, value in golden.part(arrays, "param/").items()}
    optimizer = torch.optim.SGD(values.values(), **meta["optimizer"])
    for i in range(2):
        inputs, label = {m: arrays[f"input_{m}"][i] for m in ENCODERS}, arrays["labels"][i]
        z, own = network(values, inputs)
        joint = torch.autograd.grad(
            cross_entropy(z, label), list(values.values()), retain_graph=True, allow_unused=True
        )
        joint = dict(zip(values, joint, strict=True))
        alone = torch.autograd.grad(
            sum(cross_entropy(x, label) for x in own.values()), list(values.values()), allow_unused=True
        )
        alone = dict(zip(values, alone, strict=True))
        for name, value in values.items():
            value.grad = sum(g for g in (joint[name], alone[name]) if g is not None)
        for m, prefix in ENCODERS.items():
            names = [name for name in values if name.startswith(prefix)]
            g, u = [joint[n] for n in names], [alone[n] for n in names]
            k, cosine = share(g, u)
            assert float(cosine) == pytest.approx(meta["cosine"][i][m], rel=1e-5)
            assert [float(k), 1 - float(k)] == pytest.approx(meta["weights"][i][m], rel=1e-5)
            for name, gradient in zip(names, mix(g, u, k, meta["gamma"]), strict=True):
                values[name].grad = gradient
        for name, expected in golden.part(arrays, f"grad/{i}/").items():
            assert golden.apart(values[name].grad, expected) < 5e-6, name
        optimizer.step()
    for name, expected in golden.part(arrays, "param_last/").items():
        assert golden.apart(values[name].detach(), expected) < 5e-6, name
    assert any(cosine < 0 for step in meta["cosine"] for cosine in step.values()), "one of them conflicts"


@pytest.mark.parametrize(
    ("g", "u", "k"),
    [
        ([2.0, 0.0], [0.0, 1.0], 0.2),  # (1 - 0) / (4 + 1)
        ([1.0, 0.0], [-1.0, 0.0], 0.5),  # 2 / 4: the point 0
        ([1.0, 0.0], [3.0, 0.0], 0.999),  # g is the shortest
        ([3.0, 0.0], [1.0, 0.0], 0.001),
    ],
)
def test_the_shortest_point_between_two_gradients(g, u, k):
    g, u = torch.tensor(g), torch.tensor(u)
    assert float(min_norm(g @ g, u @ u, g @ u)) == pytest.approx(k)


def test_without_conflict_it_is_gamma_times_the_sum():
    g, u = [torch.tensor([1.0, 0.0]), torch.tensor(2.0)], [torch.tensor([0.5, 1.0]), torch.tensor(1.0)]
    k, cosine = share(g, u)
    assert float(k) == 0.5 and float(cosine) > 0
    for norm in ("tensor", "encoder"):
        mixed = mix(g, u, k, 1.5, norm)
        assert [x.tolist() for x in mixed] == [[2.25, 1.5], 4.5]


def test_the_length_is_kept_by_tensor_or_by_encoder():
    """h = (0, 2) and 0 of two tensors; g + u = (0, 2) and 4."""
    g, u = [torch.tensor([1.0, 1.0]), torch.tensor([3.0])], [torch.tensor([-1.0, 1.0]), torch.tensor([1.0])]
    k = torch.tensor(0.5)
    assert [x.tolist() for x in mix(g, u, k, 1.0, "tensor")] == [[0.0, 2.0], [4.0]]
    k = torch.tensor(0.25)  # h = (-1, 2), 3: of length sqrt(14); g + u of length sqrt(20)
    by_tensor, by_encoder = (mix(g, u, k, 1.0, norm) for norm in ("tensor", "encoder"))
    assert [x.tolist() for x in by_tensor] == [[-1.0, 2.0], [4.0]]
    factor = (20 / 14) ** 0.5
    torch.testing.assert_close(torch.cat(by_encoder), factor * torch.tensor([-1.0, 2.0, 3.0]))


def test_gradients_of_nothing_stay_finite():
    nothing = [torch.zeros(3)]
    k, cosine = share(nothing, nothing)
    assert torch.isfinite(cosine) and torch.isfinite(mix(nothing, nothing, k, 1.5)[0]).all()
