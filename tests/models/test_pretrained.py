"""Encoders of `timm` and Hugging Face `transformers`, from tiny random models saved in their formats.

The libraries are an extra; without it these tests are skipped, unless COUNTERPOISE_PRETRAINED=1 (`make pretrained`).
"""

import importlib.util
import json
import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline_src.core.errors import UserError
from pipeline_src.core.files import sha256
from pipeline_src.media.base import MediaError
from pipeline_src.media.tokenizer import Tokenizer, TokenizerParams
from pipeline_src.models import folders
from pipeline_src.models.base import encoders, fusion_refuses
from pipeline_src.study.estimate import counted
from pipeline_src.training.loader import Loader
from pipeline_src.training.loop import Trainer
from pipeline_src.training.machine import versions
from tests.synthetic import SyntheticCache, encoder, spec

EXTRA = ("timm", "transformers", "tokenizers")
MISSING = [name for name in EXTRA if importlib.util.find_spec(name) is None]
if MISSING and not os.environ.get("COUNTERPOISE_PRETRAINED"):
    pytest.skip(f"{', '.join(MISSING)} not installed: `make pretrained` installs and tests", allow_module_level=True)

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
SPECTROGRAM = {"num_mel_bins": 17, "max_length": 12, "patch_size": 4, "frequency_stride": 4, "time_stride": 4}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders {name: path} of tiny models with random weights."""
    import timm
    import transformers as hf
    from timm.models import save_for_hf

    root = tmp_path_factory.mktemp("saved")
    torch.manual_seed(0)
    images = {
        "resnet": timm.create_model("resnet10t", num_classes=7),
        "vit": timm.create_model("vit_tiny_patch16_224", num_classes=7, img_size=32, depth=2),
    }
    for name, model in images.items():
        (root / name).mkdir()
        own = {"img_size": 32, "depth": 2} if name == "vit" else None
        save_for_hf(model, str(root / name), model_args=own, safe_serialization=name == "vit")
    others = {
        "bert": hf.BertModel(hf.BertConfig(**SMALL, vocab_size=60)),
        "hf_vit": hf.ViTModel(hf.ViTConfig(**SMALL, image_size=16, patch_size=8)),
        "ast": hf.ASTModel(hf.ASTConfig(**SMALL, **SPECTROGRAM)),
        "hf_resnet": hf.ResNetModel(hf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])),
    }
    for name, model in others.items():
        model.save_pretrained(root / name)
    return {path.name: path for path in root.iterdir()}


def made(kind, folder, layout, shape, **how):
    plugin = encoders[kind](encoders[kind].Params(kind=kind, folder=str(folder), **how), layout, shape)
    return plugin, plugin.build()


@pytest.mark.parametrize(("name", "size"), [("resnet", 64), ("vit", 32)])
def test_timms_network_without_its_last_layer(saved, name, size):
    import timm

    plugin, module = made("timm", saved[name], "frames", (2, 3, size, size))
    x = torch.rand(3, 2, 3, size, size)
    own = {"img_size": size, "depth": 2} if name == "vit" else {}
    reference = timm.create_model("vit_tiny_patch16_224" if name == "vit" else "resnet10t", num_classes=7, **own)
    file = plugin.params.weights_file()
    if file.suffix == ".bin":
        reference.load_state_dict(torch.load(file, weights_only=True))
    else:
        from safetensors.torch import load_file

        reference.load_state_dict(load_file(file))
    reference.reset_classifier(0)
    expected = torch.stack([reference.eval()(x[:, t]) for t in range(2)]).mean(0)
    found = module.eval()(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert found.shape == (3, plugin.features)


def test_timm_adapts_channels_and_sizes(saved):
    _, whole = made("timm", saved["resnet"], "frames", (1, 3, 64, 64))
    plugin, module = made("timm", saved["resnet"], "spectrogram", (65, 40))
    first = next(p for n, p in whole.named_parameters() if n.endswith("conv1.0.weight"))
    own = next(p for n, p in module.named_parameters() if n.endswith("conv1.0.weight"))
    torch.testing.assert_close(own, first.sum(1, keepdim=True))
    assert module(torch.rand(2, 65, 40)).shape == (2, plugin.features)
    plugin, module = made("timm", saved["vit"], "frames", (1, 3, 64, 48))
    assert module(torch.rand(2, 1, 3, 64, 48)).shape == (2, plugin.features)


def test_random_weights_are_those_of_the_seed(saved):
    for kind, name, layout, shape in (
        ("timm", "resnet", "frames", (1, 3, 32, 32)),
        ("huggingface", "bert", "tokens", (7,)),
    ):
        states = []
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            states.append(
                torch.cat([p.flatten() for p in made(kind, saved[name], layout, shape, weights=False)[1].parameters()])
            )
        loaded = torch.cat([p.flatten() for p in made(kind, saved[name], layout, shape)[1].parameters()])
        assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])
        assert not torch.equal(states[0], loaded)


@pytest.mark.parametrize("pool", ["first", "mean", "pooler"])
@pytest.mark.parametrize(
    ("name", "layout", "shape"),
    [("bert", "tokens", (7,)), ("hf_vit", "frames", (2, 3, 16, 16)), ("ast", "spectrogram", (17, 12))],
)
def test_transformers_models_are_the_librarys(saved, name, layout, shape, pool):
    from transformers import AutoModel

    plugin, module = made("huggingface", saved[name], layout, shape, pool=pool)
    reference = AutoModel.from_pretrained(saved[name], local_files_only=True).eval()
    generator = torch.Generator().manual_seed(1)
    kept = torch.ones(3, 7)
    if layout == "tokens":
        x = torch.randint(1, 60, (3, *shape), generator=generator)
        x[0, 4:], kept[0, 4:] = 0, 0
        output = reference(input_ids=(x - 1).clamp(min=0), attention_mask=kept.long())
    elif layout == "frames":
        x = torch.rand(3, *shape, generator=generator)
        output = reference(pixel_values=x.flatten(0, 1))
    else:
        x = torch.rand(3, *shape, generator=generator)
        output = reference(input_values=x.transpose(1, 2))
    h = output.last_hidden_state
    if layout == "tokens" and pool == "mean":
        expected = torch.stack([h[i][kept[i].bool()].mean(0) for i in range(3)])
    else:
        expected = {"first": h[:, 0], "mean": h.mean(1), "pooler": output.pooler_output}[pool]
    if layout == "frames":
        expected = expected.unflatten(0, (3, 2)).mean(1)
    found = module.eval()(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert found.shape == (3, plugin.features)


def test_maps_are_pooled_and_a_text_of_padding_is_read(saved):
    plugin, module = made("huggingface", saved["hf_resnet"], "frames", (1, 3, 32, 32), pool="mean")
    assert module(torch.rand(2, 1, 3, 32, 32)).shape == (2, plugin.features) == (2, 16)
    _, texts = made("huggingface", saved["bert"], "tokens", (7,))
    assert torch.isfinite(texts(torch.zeros(2, 7, dtype=torch.long))).all()


def test_what_the_model_does_not_read_is_said(saved):
    with pytest.raises(UserError, match="expected a model of pixel_values, but got a model of input_ids for frames"):
        made("huggingface", saved["bert"], "frames", (1, 3, 16, 16))
    with pytest.raises(
        UserError, match=r"expected an input of \(3, 16, 16\), as the model is made for, but got \(3, 8"
    ):
        made("huggingface", saved["hf_vit"], "frames", (1, 3, 8, 16))
    with pytest.raises(UserError, match=r"expected an input of \(17, 12\)"):
        made("huggingface", saved["ast"], "spectrogram", (17, 13))


@pytest.mark.parametrize("method", ["joint", "ogm_ge", "pmr", "opm", "relearning"])
def test_they_train_with_others_and_resume(saved, method):
    def trainer():
        cache = SyntheticCache(3, layouts=("frames", "tokens", "spectrogram"))
        parts = {
            "m0": encoder("timm", folder=str(saved["resnet"]), lr_factor=0.1),
            "m1": encoder("huggingface", folder=str(saved["bert"]), pool="mean"),
            "m2": encoder("huggingface", folder=str(saved["ast"])),
        }
        what = replace(spec(cache, "concat", method, epochs=2), encoders=parts)
        loaders = {
            s: Loader(cache, s, list(cache.modalities), torch.device("cpu"), resident=True)
            for s in ("train", "val", "test")
        }
        run = Trainer(what, 0, cache, loaders, torch.device("cpu"))
        run.method.on_train_start(run.context)
        return run

    whole = trainer()
    start = {k: v.clone() for k, v in whole.model.encoders.state_dict().items()}
    rows = [whole.epoch(epoch) for epoch in range(2)]
    assert all(np.isfinite(value) for row in rows for value in row.values())
    for m in whole.model.modalities:
        assert any(
            not torch.equal(v, start[k]) for k, v in whole.model.encoders.state_dict().items() if k.startswith(m)
        )
    begun, resumed = trainer(), trainer()
    begun.epoch(0)
    resumed.load_state_dict({name: value.clone() for name, value in begun.state_dict().items()})
    resumed.epoch(1)
    theirs = whole.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in resumed.state_dict().items())


def test_a_record_names_the_versions_that_the_run_has_loaded(saved):
    found = versions()
    assert found["timm"].startswith("1.0") and found["transformers"].startswith("5.")


def test_operations_are_counted_without_the_weights(saved):
    for kind, name, layout, shape in (
        ("timm", "resnet", "frames", (1, 3, 32, 32)),
        ("huggingface", "ast", "spectrogram", (17, 12)),
    ):
        forward, both = counted(encoder(kind, folder=str(saved[name])), layout, shape)
        assert 1e4 < forward < both


def test_a_folder_counts_by_its_content(saved, tmp_path):
    import shutil

    for kind, name in (("timm", "resnet"), ("huggingface", "bert")):
        copy = shutil.copytree(saved[name], tmp_path / name)
        params, other = (encoder(kind, folder=str(folder)) for folder in (saved[name], copy))
        assert (
            params.weights_sha256()
            == other.weights_sha256()
            != encoder(kind, folder=str(copy), weights=False).weights_sha256()
        )
        assert "folder" not in params.values("train")
        config = json.loads((copy / "config.json").read_text()) | {"comment": 1}
        (copy / "config.json").write_text(json.dumps(config))
        assert params.weights_sha256() != other.weights_sha256()


def test_a_fusion_with_taps_refuses_them(saved):
    network = {"a": encoder("timm", folder=str(saved["resnet"])), "b": encoder("timm", folder=str(saved["vit"]))}
    assert fusion_refuses("concat", network) is None
    assert fusion_refuses("mmtm", network) == "expected encoders with taps for fusion 'mmtm', but got none in a, b"


def test_a_text_in_the_numbers_of_its_tokenizer(tmp_path):
    from tokenizers import Tokenizer as Library
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing

    own = Library(WordLevel({"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3, "cat": 4, "sat": 5, "?": 6}, unk_token="?"))
    own.pre_tokenizer = Whitespace()
    own.post_processor = TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    own.save(str(tmp_path / "tokenizer.json"))

    def extractor(length):
        file = tmp_path / "tokenizer.json"
        return Tokenizer(TokenizerParams(kind="tokenizer", length=length, file=str(file), sha256=sha256(file)))

    (tmp_path / "text.txt").write_text("a cat sat there")
    assert extractor(8).extract(tmp_path / "text.txt").tolist() == [2, 4, 5, 6, 7, 3, 0, 0]
    assert extractor(4).extract(tmp_path / "text.txt").tolist() == [2, 4, 5, 3], "cut, its special tokens stay"
    assert extractor(4).vocabulary == 8
    (tmp_path / "blank.txt").write_text(" \n")
    with pytest.raises(MediaError, match="no words"):
        extractor(4).probe(tmp_path / "blank.txt")
    assert "file" not in extractor(4).params.values("extract")
    wrong = extractor(4).params.model_copy(update={"sha256": "0" * 64})
    with pytest.raises(UserError, match="expected the recipe's sha256 0000"):
        Tokenizer(wrong).extract(tmp_path / "text.txt")


def test_the_words_of_the_recipe_must_be_the_models(saved):
    class Numbers:
        layout, name, vocabulary = "tokens", "tokenizer", 62

    params = encoder("huggingface", folder=str(saved["bert"]))
    why = encoders["huggingface"].refuses(params, Numbers())
    assert why == "expected a model of at least 61 tokens, the recipe's numbers, but got 60"
    Numbers.vocabulary = 61
    assert encoders["huggingface"].refuses(params, Numbers()) is None


def test_folders_that_are_not_there_are_one_line(tmp_path):
    with pytest.raises(UserError, match=r"expected a folder with config.json, but got none"):
        encoder("timm", folder=str(tmp_path)).weights_sha256()
    (tmp_path / "config.json").write_text('{"architecture": "resnet_none"}')
    with pytest.raises(UserError, match=r"expected a folder with model.safetensors or pytorch_model.bin, but got none"):
        encoder("timm", folder=str(tmp_path)).weights_sha256()
    with pytest.raises(UserError, match="expected an `architecture` of timm, but got 'resnet_none'"):
        made("timm", tmp_path, "frames", (1, 3, 32, 32), weights=False)


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(folders.importlib.util, "find_spec", lambda name: None)
    why = folders.installed("timm", "timm")
    assert why.startswith(
        "expected the package timm for an encoder of kind 'timm', but got none; install it: python -m"
    )
