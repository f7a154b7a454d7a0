"""DGL: the authors' gradients of a step, and which loss reaches what."""

from types import SimpleNamespace

import torch
from torch import nn

from pipeline_src.methods.base import Batch, Output
from pipeline_src.methods.dgl import DGL
from pipeline_src.models.base import fusions
from pipeline_src.models.fusions.base import Features
from pipeline_src.models.multimodal import MultimodalModel
from pipeline_src.tasks.base import tasks
from tests.methods import golden

SIZES = {"audio": 7, "visual": 9}
TASK = tasks["classification"](6)


def model(arrays: dict) -> MultimodalModel:
    """The golden case's model, of our parts."""
    encoders = {
        m: nn.Sequential(nn.Flatten(), nn.Linear(n, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 16))
        for m, n in SIZES.items()
    }
    for m, encoder in encoders.items():
        encoder.load_state_dict(golden.part(arrays, f"param/{m}_net."))
    fusion = fusions["concat"](dict.fromkeys(SIZES, 16), 6)
    fusion.joint.load_state_dict(golden.part(arrays, "param/fusion_module.fc_out."))
    return MultimodalModel(encoders, fusion)


def losses(method: DGL, net: MultimodalModel, arrays: dict) -> tuple[dict, SimpleNamespace, Batch]:
    ctx = SimpleNamespace(model=net, task=TASK, parameters=lambda: dict(net.named_parameters()))
    label = arrays["labels"]
    features = Features(net.encode({m: arrays[f"input_{m}"] for m in SIZES}))
    batch = Batch({}, label, torch.arange(len(label)), torch.arange(len(label)))
    return method.loss(ctx, Output(features, net.fusion(features)), batch), ctx, batch


def test_gradients_of_a_step():
    arrays, meta = golden.load("dgl_1")
    net = model(arrays).train()
    method = DGL(DGL.Params(alpha=meta["alpha"], clip=meta["clip"]))
    named, ctx, batch = losses(method, net, arrays)
    assert abs(float(named["loss"].detach()) - meta["losses"]["joint"]) < 1e-6
    for m in SIZES:
        assert abs(float(named[f"unimodal_loss/{m}"].detach()) / meta["alpha"] - meta["losses"][m]) < 1e-6
    sum(named.values()).backward()
    method.after_backward(ctx, None, batch)
    names = {f"encoders.{m}.": f"{m}_net." for m in SIZES} | {"fusion.joint.": "fusion_module.fc_out."}
    for name, parameter in net.named_parameters():
        theirs = next(name.replace(ours, other) for ours, other in names.items() if name.startswith(ours))
        assert golden.apart(parameter.grad, arrays[f"grad/{theirs}"]) < 5e-6, name


def test_the_joint_loss_reaches_the_fusion_alone_and_the_others_the_encoders_alone():
    arrays, _ = golden.load("dgl_1")
    for which in ("loss", "unimodal_loss/audio"):
        net = model(arrays).train()
        named, *_ = losses(DGL(DGL.Params()), net, arrays)
        named[which].backward()
        reached = {name.split(".")[0] + name.split(".")[1] for name, p in net.named_parameters() if p.grad is not None}
        assert reached == ({"fusionjoint"} if which == "loss" else {"encodersaudio"})


def test_all_gradients_together_are_clipped():
    arrays, _ = golden.load("dgl_1")
    net = model(arrays).train()
    method = DGL(DGL.Params(clip=0.01))
    named, ctx, batch = losses(method, net, arrays)
    sum(named.values()).backward()
    method.after_backward(ctx, None, batch)
    norm = torch.stack([p.grad.norm() for p in net.parameters()]).norm()
    assert abs(float(norm) - 0.01) < 1e-6
