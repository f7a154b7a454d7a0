"""Corruptions by hand-worked numbers: how much a rate spoils, and what it leaves alone."""

import pytest
import torch

from pipeline_src.core.seeding import generator
from pipeline_src.corruptions.base import corruptions, too_much, unfit
from pipeline_src.training.params import Augmentation
from pipeline_src.training.transform import Transform
from tests.synthetic import SyntheticCache

SHAPES = {"frames": (6, 2, 3, 25, 20), "spectrogram": (6, 40, 33), "sequence": (6, 8, 5), "tokens": (6, 12)}
CPU = torch.device("cpu")


def values(layout: str) -> torch.Tensor:
    if layout == "tokens":
        return torch.arange(1, 73).view(6, 12)
    x = torch.randn(SHAPES[layout], generator=generator(0, "values"))
    if layout == "sequence":
        x[:, 6:] = 0  # padding
    return x


def spoilt(name: str, layout: str, rate: float, seed: int = 0, spread: float = 1.0, **params) -> torch.Tensor:
    plugin = corruptions[name]
    one = plugin(plugin.Params(**params))
    return one(values(layout), layout, rate, torch.tensor([spread]), generator(seed, "corruption"))


CASES = [(name, layout) for name in corruptions for layout in corruptions[name].layouts]


@pytest.mark.parametrize(("name", "layout"), CASES)
def test_rate_0_spoils_nothing_and_the_same_draws_give_the_same(name, layout):
    x = values(layout)
    assert torch.equal(spoilt(name, layout, 0.0), x)
    assert torch.equal(spoilt(name, layout, 0.5), spoilt(name, layout, 0.5))
    assert not torch.equal(spoilt(name, layout, 0.5), spoilt(name, layout, 0.5, seed=1))
    assert spoilt(name, layout, 0.5).dtype == x.dtype
    if layout == "sequence":
        assert not spoilt(name, layout, 0.5)[:, 6:].any()  # padding stays padding


@pytest.mark.parametrize("layout", ["frames", "spectrogram"])
def test_noise_has_the_rate_in_standard_deviations_of_train(layout):
    noise = spoilt("noise", layout, 2.0, spread=3.0) - values(layout)
    assert float(noise.std()) == pytest.approx(6.0, rel=0.03)
    assert float(noise.mean()) == pytest.approx(0.0, abs=0.15)
    half = spoilt("noise", layout, 1.0, spread=3.0) - values(layout)
    torch.testing.assert_close(noise, 2 * half)  # the same noise, louder


def test_a_fraction_of_the_patches_is_masked_and_a_larger_rate_masks_these_too():
    x = values("frames").abs() + 1  # 3 x 2 patches of 10 x 10; the last row has 5 pixels
    plugin = corruptions["patches"]

    def masked(rate):
        one = plugin(plugin.Params(size=10))
        return one(x, "frames", rate, torch.ones(1), generator(0, "corruption")) == 0

    half, more = masked(0.5), masked(0.84)
    patches = half[:, 0, 0].unfold(1, 5, 5).unfold(2, 10, 10).flatten(3).float()  # blocks of 5 x 10 pixels
    assert set(patches.mean(3).unique().tolist()) == {0.0, 1.0}
    corners = half[:, 0, 0, ::10, ::10].flatten(1)
    assert corners.sum(1).tolist() == [3] * 6 and more[:, 0, 0, ::10, ::10].flatten(1).sum(1).tolist() == [5] * 6
    assert bool((more >= half).all())
    assert len({tuple(row) for row in corners.tolist()}) > 1  # each sample has a mask of its own
    assert torch.equal(half, half[:, :1, :1].expand_as(half))  # which its frames and channels share
    assert masked(1.0).all()


@pytest.mark.parametrize("layout", ["sequence", "tokens"])
def test_a_patch_of_a_sequence_is_a_step(layout):
    x = values(layout)
    spoilt_steps = (spoilt("patches", layout, 0.25) == 0).flatten(2).all(2) if layout == "sequence" else None
    if layout == "tokens":
        spoilt_steps = spoilt("patches", layout, 0.25) == 0
    padding = (x == 0).flatten(2).all(2) if layout == "sequence" else torch.zeros_like(spoilt_steps)
    assert ((spoilt_steps & ~padding).sum(1) <= x.shape[1] // 4).all()
    assert spoilt("patches", layout, 1.0).eq(0).all()


@pytest.mark.parametrize("layout", SHAPES)
def test_a_missing_modality_is_zeros_for_the_whole_sample(layout):
    gone = [(spoilt("missing", layout, rate) == 0).flatten(1).all(1) for rate in (0.3, 0.7, 1.0)]
    assert gone[2].all() and (gone[1] >= gone[0]).all() and not gone[0].all()
    kept = ~gone[0]
    assert torch.equal(spoilt("missing", layout, 0.3)[kept], values(layout)[kept])


def test_as_many_samples_are_missing_as_the_rate_says():
    x = torch.ones(20_000, 1)
    lost = corruptions["missing"]()(x, "spectrogram", 0.3, torch.ones(1), generator(0, "x")) == 0
    assert float(lost.float().mean()) == pytest.approx(0.3, abs=0.01)


def test_what_is_refused():
    assert too_much("patches", 1.5) == "expected a rate of at most 1, but got 1.5"
    assert too_much("noise", 20.0) is None
    expected = "expected a modality of frames or spectrogram or sequence for noise, but got tokens"
    assert unfit("noise", "tokens") == expected and unfit("missing", "tokens") is None


# --- of training batches ----------------------------------------------------------------------------------------------


def transform(cache: SyntheticCache, normalize: str = "train", **corruption: dict) -> Transform:
    how = {m: Augmentation(flip=0.5, corruption=corruption.get(m, {})) for m in cache.modalities}
    return Transform(cache.modalities, how, normalize, CPU)


def test_training_batches_are_corrupted_after_their_other_changes_and_evaluation_is_not():
    cache = SyntheticCache(2)
    batch = {m: torch.from_numpy(cache.gather(m, cache.rows("train"))) for m in cache.modalities}
    clean, noisy = transform(cache), transform(cache, m1={"noise": 0.5, "missing": 0.4})

    def augmented(one, epoch=0):
        draws = {m: generator(0, "augment", m, epoch) for m in cache.modalities}
        return one(batch, one.draw([len(batch["m0"])], draws)[0])

    first, again, other, bare = augmented(noisy), augmented(noisy), augmented(noisy, 1), augmented(clean)
    assert torch.equal(first["m1"], again["m1"]) and not torch.equal(first["m1"], other["m1"])
    assert torch.equal(first["m0"], bare["m0"])  # the other modality, and what is drawn for it
    lost = first["m1"].flatten(1).eq(0).all(1)
    assert 0 < int(lost.sum()) < len(lost)
    noise = (first["m1"] - bare["m1"])[~lost]  # the flips are the same
    assert float(noise.std()) == pytest.approx(0.5, rel=0.05)
    assert all(torch.equal(x, clean(batch)[m]) for m, x in noisy(batch).items())  # validation and evaluation


@pytest.mark.parametrize("normalize", ["train", "imagenet", "none"])
def test_a_rate_of_noise_means_the_same_whatever_the_normalisation(normalize):
    cache = SyntheticCache(2)
    batch = {m: torch.from_numpy(cache.gather(m, cache.rows("train"))) for m in cache.modalities}
    one = transform(cache, normalize)
    clean = one(batch)
    for m in cache.modalities:
        spoiled = one.corrupted(m, clean[m], corruptions["noise"](), 1.0, generator(0, m))
        ratio = (spoiled - clean[m]).std() / clean[m].std()
        assert float(ratio) == pytest.approx(1.0, rel=0.1)
