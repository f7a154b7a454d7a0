"""Augmentation and normalisation agree with torchvision, clip by clip."""

import pytest
import torch
from torchvision.transforms import v2

from pipeline_src.training.params import Augmentation
from pipeline_src.training.transform import Transform, crop, crop_boxes, roll


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


PER = ("clip", "frame")


def test_crops_equal_torchvisions_on_the_same_boxes():
    x = torch.rand(16, 2, 3, 30, 40, generator=draw())
    boxes = crop_boxes(16, 30, 40, [0.08, 1.0], [0.75, 1.33], draw())
    for got, clip, box in zip(crop(x, boxes[:, None]), x, boxes.int().tolist(), strict=True):
        left, top, right, bottom = box
        expected = v2.functional.resized_crop(clip, top, left, bottom - top, right - left, [30, 40], antialias=True)
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)


def test_boxes_have_torchvisions_distribution():
    count, size = 20_000, (40, 60)
    ours = crop_boxes(count, *size, [0.2, 0.9], [0.5, 2.0], draw())
    torch.manual_seed(0)
    reference = v2.RandomResizedCrop(size, scale=(0.2, 0.9), ratio=(0.5, 2.0))
    drawn = [reference.make_params([torch.empty(3, *size)]) for _ in range(4000)]
    area = torch.tensor([float(d["height"] * d["width"]) for d in drawn])
    aspect = torch.tensor([d["width"] / d["height"] for d in drawn]).log()
    w, h = ours[:, 2] - ours[:, 0], ours[:, 3] - ours[:, 1]
    for mine, other in (((w * h), area), ((w / h).log(), aspect)):
        assert abs(mine.mean() - other.mean()) < 4 * other.std() / len(other) ** 0.5
        assert mine.std() / other.std() == pytest.approx(1, abs=0.05)
    assert (ours[:, :2] >= 0).all() and (ours[:, 2] <= size[1]).all() and (ours[:, 3] <= size[0]).all()


def test_a_box_that_never_fits_becomes_the_largest_centred_one():
    boxes = crop_boxes(3, 10, 40, [1.0, 1.0], [1.0, 1.0], draw())
    assert boxes.tolist() == [[15.0, 0.0, 25.0, 10.0]] * 3


def test_frames_have_a_crop_and_a_flip_of_their_own_where_they_are_asked_for():
    x = torch.rand(40, 3, 2, 12, 16, generator=draw(1))
    info = {"v": {"layout": "frames", "shape": [3, 2, 12, 16], "dtype": "float32", "mean": [0.0], "std": [1.0]}}
    how = {"crop_scale": [0.2, 0.6], "crop_ratio": [0.75, 1.33], "flip": 0.5}
    made = {per: Transform(info, {"v": Augmentation(**how, per=per)}, "none", torch.device("cpu")) for per in PER}
    (by_clip,), (by_frame,) = (made[per].draw([40], {"v": draw(2)}) for per in PER)
    assert by_clip["v"].boxes.shape == (40, 1, 4) and by_clip["v"].flipped.shape == (40, 1)
    assert by_frame["v"].boxes.shape == (40, 3, 4) and by_frame["v"].flipped.shape == (40, 3)
    assert any(len(clip.unique(dim=0)) == 3 for clip in by_frame["v"].boxes)
    assert 0.35 < by_frame["v"].flipped.float().mean() < 0.65
    single = Transform(
        {"v": info["v"] | {"shape": [1, 2, 12, 16]}}, {"v": Augmentation(**how)}, "none", torch.device("cpu")
    )
    (alone,) = single.draw([120], {"v": draw(2)})  # every frame as a clip of its own
    expected = single({"v": x.reshape(120, 1, 2, 12, 16)}, alone)["v"].reshape(x.shape)
    torch.testing.assert_close(made["frame"]({"v": x}, by_frame)["v"], expected)
    one = torch.rand(5, 1, 2, 12, 16, generator=draw(1)).expand(5, 3, 2, 12, 16)
    shared = made["clip"]({"v": one}, *made["clip"].draw([5], {"v": draw(3)}))["v"]
    assert torch.equal(shared[:, 0], shared[:, 1]) and torch.equal(shared[:, 0], shared[:, 2])


def test_roll_shifts_every_clip_by_its_own_whole_steps():
    x = torch.arange(12.0).repeat(200, 2, 1)
    how = {"s": Augmentation(roll=3)}
    info = {"s": {"layout": "spectrogram", "shape": [2, 12], "dtype": "float32", "mean": [0.0], "std": [1.0]}}
    (drawn,) = Transform(info, how, "none", torch.device("cpu")).draw([200], {"s": draw()})
    rolled = roll(x, drawn["s"].shift)
    shifts = (-rolled[:, 0, 0]).long() % 12
    assert set(shifts.tolist()) == {0, 1, 2, 3, 9, 10, 11}
    for clip, shift in zip(rolled, shifts.tolist(), strict=True):
        assert torch.equal(clip, x[0].roll(shift, dims=-1))


def make(normalize: str = "train", **how) -> Transform:
    modalities = {
        "s": {"layout": "spectrogram", "shape": [5, 4], "dtype": "float16", "mean": [2.0], "std": [4.0]},
        "v": {
            "layout": "frames",
            "shape": [1, 3, 4, 4],
            "dtype": "uint8",
            "mean": [10.0, 20.0, 30.0],
            "std": [1.0, 2.0, 5.0],
        },
    }
    how = Augmentation(**how)
    return Transform(modalities, {"s": how, "v": how}, normalize, torch.device("cpu"))


def test_normalisation():
    inputs = {
        "s": torch.full((2, 5, 4), 6.0, dtype=torch.float16),
        "v": torch.full((2, 1, 3, 4, 4), 40, dtype=torch.uint8),
    }
    out = make()(inputs)
    assert out["s"].unique().tolist() == [1.0]
    assert out["v"][0, 0, :, 0, 0].tolist() == [30.0, 10.0, 2.0]
    plain = make("none")(inputs)
    torch.testing.assert_close(plain["v"].unique(), torch.tensor([40 / 255]))
    assert plain["s"].unique().tolist() == [6.0]


def test_imagenet_normalises_pictures_of_three_channels_alone():
    inputs = {"s": torch.full((2, 5, 4), 6.0).half(), "v": torch.full((2, 1, 3, 4, 4), 40, dtype=torch.uint8)}
    out = make("imagenet")(inputs)
    reference = v2.functional.normalize(torch.full((3, 4, 4), 40 / 255), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    torch.testing.assert_close(out["v"][1, 0], reference)
    assert out["s"].unique().tolist() == [6.0]
    flow = {"f": {"layout": "frames", "shape": [1, 2, 4, 4], "dtype": "uint8", "mean": [9.0, 9], "std": [1.0, 1]}}
    how = {"f": Augmentation()}
    values = Transform(flow, how, "imagenet", torch.device("cpu"))({"f": inputs["v"][:, :, :2]})["f"]
    torch.testing.assert_close(values.unique(), torch.tensor([40 / 255]))


def test_sequences_keep_their_padding_and_tokens_their_numbers():
    modalities = {
        "q": {"layout": "sequence", "shape": [3, 2], "dtype": "float32", "mean": [1.0, 2.0], "std": [2.0, 4.0]},
        "w": {"layout": "tokens", "shape": [3], "dtype": "int32", "mean": [0.0], "std": [1.0]},
    }
    how = {m: Augmentation() for m in "qw"}
    inputs = {"q": torch.tensor([[[3.0, 0.0], [0.0, 2.0], [0.0, 0.0]]]), "w": torch.tensor([[7, 2**30 + 1, 0]]).int()}
    transform = Transform(modalities, how, "train", torch.device("cpu"))
    out = transform(inputs, *transform.draw([1], {"q": draw(), "w": draw()}))
    assert out["q"].tolist() == [[[1.0, -0.5], [-0.5, 0.0], [0.0, 0.0]]]
    assert out["w"].dtype == torch.int64 and out["w"].tolist() == [[7, 2**30 + 1, 0]]


def test_only_training_is_augmented_and_the_frames_of_a_clip_alike():
    transform = make(flip=1.0, crop_scale=[0.3, 0.5], roll=2)
    frame = torch.randint(0, 255, (4, 1, 3, 20, 20), dtype=torch.uint8, generator=draw())
    inputs = {"s": torch.randn(4, 3, 9, generator=draw()), "v": frame.expand(4, 2, 3, 20, 20)}
    still = transform(inputs)
    moved = transform(inputs, *transform.draw([4], {"s": draw(1), "v": draw(2)}))
    again = transform(inputs, *transform.draw([4], {"s": draw(3), "v": draw(2)}))
    assert torch.equal(still["v"], transform(inputs)["v"])
    assert not torch.allclose(moved["v"], still["v"])
    torch.testing.assert_close(moved["v"][:, 0], moved["v"][:, 1])
    assert torch.equal(moved["v"], again["v"]), "one modality's draws must not depend on another's"


def test_flip_probability():
    x = torch.arange(4.0).expand(4000, 1, 1, 1, 4).repeat(1, 1, 3, 1, 1)
    transform = make("none", flip=0.25)
    flipped = transform({"v": x}, *transform.draw([4000], {"v": draw()}))["v"][:, 0, 0, 0, 0] > 0
    assert flipped.float().mean() == pytest.approx(0.25, abs=0.03)


def test_the_draws_of_a_pass_are_those_of_its_batches_one_after_the_other():
    transform = make(flip=0.5, crop_scale=[0.3, 0.9], roll=2)
    together = transform.draw([4, 4, 3], {"s": draw(1), "v": draw(2)})
    generators = {"s": draw(1), "v": draw(2)}
    for size, of_pass in zip([4, 4, 3], together, strict=True):
        (alone,) = transform.draw([size], generators)
        for m in "sv":
            for a, b in zip(alone[m], of_pass[m], strict=True):
                assert (a is None) == (b is None) and (a is None or torch.equal(a, b))
        boxes, flipped = of_pass["v"].boxes, of_pass["v"].flipped
        assert len(boxes) == len(flipped) == len(of_pass["s"].shift) == size
