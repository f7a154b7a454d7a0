"""The published recipes: exact shapes, found by name, and determined by their content."""

import pytest
import yaml

from pipeline_src.core.errors import UserError
from pipeline_src.media.base import extractors
from pipeline_src.study import config
from pipeline_src.study.plan import Plan

PARAMS = config.RECIPES.parent / "params.yaml"
FILTERS, SHORT, LONG = (128, 1024), (257, 188), (257, 1004)
SHAPES = {
    "ogm-ge-2022-cremad": {"audio": SHORT, "visual": (1, 3, 224, 224)},
    "ogm-ge-2022-cremad-3fps": {"audio": SHORT, "visual": (3, 3, 224, 224)},
    "ogm-ge-2022-vggsound": {"audio": (129, 626), "visual": (3, 3, 224, 224)},
    "ogm-ge-2022-ks": {"audio": FILTERS, "visual": (3, 3, 224, 224)},
    "opm-2024-ks": {"audio": FILTERS, "visual": (3, 3, 112, 112)},
    "pmr-2023-cremad": {"audio": (257, 299), "visual": (3, 3, 224, 224)},
    "pmr-2023-cremad-1frame": {"audio": (257, 299), "visual": (1, 3, 224, 224)},
    "pmr-2023-ave": {"audio": LONG, "visual": (4, 3, 224, 224)},
    "pmr-2023-cgmnist": {"gray": (1, 1, 28, 28), "colored": (1, 3, 28, 28)},
    "relearning-2024-cremad": {"audio": FILTERS, "visual": (2, 3, 224, 224)},
    "balancebenchmark-2025-cremad": {"audio": FILTERS, "visual": (2, 3, 224, 224)},
    "balancebenchmark-2025-ks": {"audio": FILTERS, "visual": (3, 3, 224, 224)},
    "balancebenchmark-2025-vggsound": {"audio": FILTERS, "visual": (3, 3, 224, 224)},
    "balancebenchmark-2025-ucf101": {"rgb": (3, 3, 224, 224), "flow": (3, 2, 224, 224)},
    "balancebenchmark-2025-mosei": {"audio": (500, 74), "visual": (500, 35), "text": (50, 300)},
    "balancebenchmark-2025-food101": {"image": (1, 3, 224, 224), "text": (40,)},
    "multibench-2021-mosi": {"audio": (50, 74), "visual": (50, 35), "text": (50, 300)},
    "avel-2018-ave": {"audio": (10, 128), "visual": (10, 25_088)},
    "tcmax-2026-ucf101": {"rgb": (3, 3, 224, 224), "flow": (10, 2, 224, 224)},
}


def test_every_recipe_has_the_published_shapes():
    found = {}
    for name in config.shipped_recipes():
        modalities = config.recipe(name).modalities
        found[name] = {m: extractors[params.kind](params).shape for m, params in modalities.items()}
    assert found == SHAPES


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Makes params files out of the shipped one, whose dataset reads `recipe`; shipped recipes are the test's own."""
    monkeypatch.setattr(config, "RECIPES", tmp_path / "recipes")
    (tmp_path / "recipes").mkdir()
    values = yaml.safe_load(PARAMS.read_text())
    own = values.pop("recipes")["av-digits-2"]

    def write(recipe="shared-1", blocks=None, **changes):
        made = {**values, **({"recipes": blocks} if blocks else {})}
        made["datasets"]["av_digits"]["recipe"] = recipe
        for place, value in changes.items():
            block = made
            *path, last = place.split("__")
            for part in path:
                block = block[part]
            block[last] = value
        (tmp_path / "study.yaml").write_text(yaml.safe_dump(made))
        return tmp_path / "study.yaml"

    def ship(name="shared-1", **changes):
        modalities = {m: {**block, **changes.get(m, {})} for m, block in own.items()}
        content = {"source": "s", "choices": [], "training": "t", "modalities": modalities}
        (tmp_path / f"recipes/{name}.yaml").write_text(yaml.safe_dump(content))

    write.ship, write.own = ship, own
    return write


def test_a_recipe_is_found_by_name_and_counts_by_its_content(study):
    study.ship()
    shipped = Plan(study()).datasets["av_digits"]
    own = Plan(study("mine-1", blocks={"mine-1": study.own})).datasets["av_digits"]
    assert shipped.recipe == "shared-1"
    assert shipped.cache_fp == own.cache_fp, "the same content under another name"
    study.ship(visual={"count": 2})
    assert Plan(study()).datasets["av_digits"].cache_fp != shipped.cache_fp


def test_mistakes_name_the_file_and_the_place(study):
    study.ship(visual={"cuont": 2})
    with pytest.raises(UserError, match=r"shared-1.yaml:\d+: modalities.visual.cuont: unknown key; did you mean"):
        config.load(study())
    study.ship()
    with pytest.raises(UserError, match=r"recipe: expected a recipe, but got 'shraed-1'; did you mean 'shared-1'"):
        config.load(study("shraed-1"))
    with pytest.raises(UserError, match=r"recipes.shared-1: expected another name: recipes/shared-1.yaml is"):
        config.load(study(blocks={"shared-1": study.own}))


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (
            "model__encoders__audio",
            {"kind": "embedding", "words": 9, "width": 4},
            r"encoders.audio: expected an encoder of layout 'spectrogram', but got 'embedding' of tokens",
        ),
        (
            "training__augmentation__audio",
            {"flip": 0.5},
            r"augmentation.audio.flip: expected it for .* of layout 'frames' alone, but it is for 'spectrogram'",
        ),
        ("training__augmentation__visual", {"roll": 3}, r"augmentation.visual.roll: expected it for .* 'spectrogram'"),
    ],
)
def test_encoder_and_augmentation_suit_the_recipe(study, place, value, message):
    study.ship()
    with pytest.raises(UserError, match=message):
        config.load(study(**{place: value}))


def test_weights_count_by_their_content_and_stand_in_the_record(study, tmp_path):
    study.ship()
    plain = {m: {"kind": "resnet", "width": 4, "depth": [1]} for m in ("audio", "visual")}
    cells = {}
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).write_bytes(content)
        encoders = {**plain, "visual": {**plain["visual"], "weights": str(tmp_path / name)}}
        cells[name] = Plan(study(model__encoders=encoders)).cells
    without = Plan(study(model__encoders=plain)).cells
    for a, b, c, none in zip(*cells.values(), without, strict=True):
        assert a.fp == b.fp
        reads = "visual" in a.spec.modalities
        assert (a.fp != c.fp) is (a.fp != none.fp) is reads
        assert set(a.spec.weights_sha256) == ({"visual"} if reads else set()) and not none.spec.weights_sha256
