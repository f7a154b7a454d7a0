"""Accuracy on corrupted test samples against a plain computation, with and without a fusion that exchanges states."""

import pytest
import torch

from pipeline_src.core.seeding import generator
from pipeline_src.corruptions.base import corruptions
from pipeline_src.evaluation import FUSED
from pipeline_src.evaluation.robustness import Robustness, joined
from pipeline_src.training.assemble import assemble
from pipeline_src.training.loader import Loader
from pipeline_src.training.transform import Transform
from tests.synthetic import SyntheticCache, spec

CPU = torch.device("cpu")
SEED = 3
ASKED = {
    "noise": corruptions["noise"].Params(rates=[0.5, 2.0]),
    "missing": corruptions["missing"].Params(rates=[1.0]),
    "patches": corruptions["patches"].Params(rates=[0.5], modalities=["m1"]),
}


def robustness(fusion: str = "concat", modalities: int = 2, batch_size: int = 5, layouts=("spectrogram", "frames")):
    cache = SyntheticCache(modalities, layouts=layouts)
    what = spec(cache, fusion)
    built = assemble(what, cache.modalities, len(cache.classes), SEED)
    built.model.eval()
    loader = Loader(cache, "test", list(cache.modalities), CPU, resident=False)
    transform = Transform(cache.modalities, what.augmentation, "train", CPU)
    with torch.no_grad():
        clean = joined(built.model.encode(transform(batch.inputs)) for batch in loader.batches(batch_size))
    return Robustness(built, loader, transform, clean, seed=SEED, batch_size=batch_size, precision="fp32")


def found(one: Robustness) -> dict[tuple[str, str], float]:
    rows = list(one.rows(ASKED))
    assert all(row["split"] == "corrupted" for row in rows)
    return {(row["metric"], row["modality"]): row["value"] for row in rows}


@pytest.mark.parametrize("fusion", ["concat", "film", "mmtm"])
def test_accuracies_are_those_of_a_plain_pass(fusion):
    one = robustness(fusion)
    model, _, task = one.built
    expected = {}
    for name, params in ASKED.items():
        for rate in params.rates:
            for of in ("m0", "m1", FUSED) if params.modalities is None else ("m1",):
                draws = {m: generator(SEED, "corruption", name, m) for m in ("m0", "m1")}
                logits = []
                for batch in one.loader.batches(5):
                    inputs = one.transform(batch.inputs)
                    for m in inputs:
                        spoiled = one.transform.corrupted(m, inputs[m], corruptions[name](params), rate, draws[m])
                        inputs[m] = spoiled if of in (m, FUSED) else inputs[m]
                    with torch.no_grad():
                        logits.append(model(inputs).logits)
                key = f"accuracy_{name}_{rate:g}", of
                expected[key] = task.score(torch.cat(logits), one.loader.label)
    assert found(one) == expected


def test_a_missing_modality_at_rate_1_is_an_input_of_zeros():
    one = robustness()
    batch = next(one.loader.batches(100))
    inputs = one.transform(batch.inputs)
    with torch.no_grad():
        logits = one.built.model({**inputs, "m0": torch.zeros_like(inputs["m0"])}).logits
    assert found(one)["accuracy_missing_1", "m0"] == one.built.task.score(logits, batch.label)


def test_a_model_of_one_modality_has_no_row_of_all_together_and_none_of_others():
    rows = found(robustness(modalities=1))
    assert {of for _, of in rows} == {"m0"}
    assert {metric for metric, _ in rows} == {"accuracy_noise_0.5", "accuracy_noise_2", "accuracy_missing_1"}


def test_what_a_corruption_cannot_spoil_is_left_out():
    rows = found(robustness(layouts=("spectrogram", "tokens")))
    assert {of for metric, of in rows if "noise" in metric} == {"m0"}
    assert {of for metric, of in rows if "missing" in metric} == {"m0", "m1", FUSED}
