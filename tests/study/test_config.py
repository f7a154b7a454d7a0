"""Every mistake in a params file gives one line: where, what was expected, what was found, and the closest name."""

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from pipeline_src.core.errors import UserError
from pipeline_src.methods.base import methods
from pipeline_src.study import config
from pipeline_src.study.schema import SCHEMAS
from pipeline_src.study.yaml import Loader

ROOT = Path(__file__).parents[2]

# As small as a valid file can be, so that the tests hold whatever the shipped values are.
VALID = """\
study:
  datasets: [av_digits]
  fusions: [concat, sum]
  methods: [joint]
  unimodal: true
  seeds: [0, 1]
datasets:
  av_digits:
    recipe: digits-1
    val_fraction: 0.2
    split_seed: 0
    max_quarantine: 0.01
    shards: 2
    seed: 0
    clips: 100
    test_writers: 4
    seconds: 1.0
    fps: 12
    pixels: 48
    digit_scale: [0.5, 0.75]
    contrast: [0.7, 1.0]
    texture: 0.05
    visual_noise: 0.05
    occlusion: 0.07
    distractors: 0
    snr_db: [0.0, 15.0]
recipes:
  digits-1:
    audio: {kind: log_stft, sample_rate: 22050, seconds: 1.0, pad: zero, n_fft: 512, hop: 480, floor: 1e-7}
    visual: {kind: frames, count: 3, size: 48, pick: centers}
model:
  encoders:
    audio: {kind: resnet, width: 16, depth: [1, 1]}
    visual: {kind: resnet, width: 16, depth: [1, 1]}
training:
  epochs: 12
  batch_size: 32
  optimizer: sgd
  lr: 0.02
  momentum: 0.9
  weight_decay: 1.0e-4
  lr_step: 9
  lr_gamma: 0.1
  augmentation:
    audio: {roll: 8}
    visual: {flip: 0.5}
  normalize: train
  select: best_val
  track_test: true
  device: auto
  checkpoint_minutes: 10
  precision: auto
  resident_fraction: 0.5
methods: {}
evaluation: {batch_size: 64, probe_c: 1.0, probe_iterations: 1000}
reporting: {confidence: 0.95}
"""


@pytest.fixture
def said(tmp_path, monkeypatch):
    """A function: text of a params file -> the lines of the error, without the file's name; none if it is valid."""
    monkeypatch.chdir(tmp_path)

    def of(text: str | bytes) -> list[str]:
        Path("p.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        try:
            config.load("p.yaml")
        except UserError as error:
            lines = str(error).split("\n")
            assert all(line.startswith("p.yaml:") for line in lines), lines
            return [line.removeprefix("p.yaml:") for line in lines]
        return []

    return of


def edited(old: str, new: str) -> str:
    assert VALID.count(old) == 1, old
    return VALID.replace(old, new)


def line_of(text: str) -> int:
    return 1 + next(i for i, line in enumerate(VALID.splitlines()) if text in line)


def test_shipped_params_are_valid():
    params = config.load(ROOT / "params.yaml")
    assert params.study.seeds and set(params.study.datasets) <= set(params.datasets)


def test_valid_file_and_its_plugins_are_typed(said):
    assert said(VALID) == []
    params = config.load("p.yaml")
    assert params.datasets["av_digits"].kind == "av_digits"
    assert params.recipes["digits-1"]["audio"].n_fft == 512
    assert params.methods["joint"].model_dump() == {}


def test_exponents_without_a_point_are_numbers(said):
    assert said(edited("lr: 0.02", "lr: 1e-3")) == []
    params = config.load("p.yaml")
    assert params.training.lr == 0.001
    assert params.recipes["digits-1"]["audio"].floor == 1e-7
    assert said(edited("weight_decay: 1.0e-4", "weight_decay: 0")) == []


# old text, new text, line the message names (text in VALID), dotted place, what it says
MISTAKES = {
    "top-level key": ("reporting:", "reportin:", "reporting:", "reportin", "unknown key; did you mean 'reporting'?"),
    "nested key": (
        "lr: 0.02",
        "lr: 0.02\n  epoch: 3",
        "momentum",
        "training.epoch",
        "unknown key; did you mean 'epochs'?",
    ),
    "deep key": (
        "{roll: 8}",
        "{rol: 8}",
        "roll",
        "training.augmentation.audio.rol",
        "unknown key; did you mean 'roll'?",
    ),
    "key of a dataset": (
        "    fps: 12\n",
        "    fps: 12\n    fpss: 1\n",
        "pixels",
        "datasets.av_digits.fpss",
        "unknown key; did you mean 'fps'?",
    ),
    "key of an extractor": (
        "hop: 480",
        "hop: 480, hopp: 1",
        "log_stft",
        "recipes.digits-1.audio.hopp",
        "unknown key; did you mean 'hop'?",
    ),
    "key of an encoder": (
        "visual: {kind: resnet, width: 16,",
        "visual: {kind: resnet, width: 16, with: 1,",
        "visual: {kind: resnet",
        "model.encoders.visual.with",
        "unknown key; did you mean 'width'?",
    ),
    "key of a method": (
        "methods: {}",
        "methods: {joint: {a: 1}}",
        "methods: {}",
        "methods.joint.a",
        "unknown key (known: none)",
    ),
    "string for int": (
        "epochs: 12",
        'epochs: "12"',
        "epochs",
        "training.epochs",
        'expected a valid integer, but got "12"',
    ),
    "bool for int": (
        "epochs: 12",
        "epochs: true",
        "epochs",
        "training.epochs",
        "expected a valid integer, but got true",
    ),
    "float for int": (
        "epochs: 12",
        "epochs: 12.0",
        "epochs",
        "training.epochs",
        "expected a valid integer, but got 12.0",
    ),
    "string for float": ("lr: 0.02", "lr: fast", "lr:", "training.lr", 'expected a valid number, but got "fast"'),
    "bool for float": ("lr: 0.02", "lr: true", "lr:", "training.lr", "expected a valid number, but got true"),
    "int for bool": (
        "track_test: true",
        "track_test: 1",
        "track_test",
        "training.track_test",
        "expected a valid boolean, but got 1",
    ),
    "infinity": ("lr: 0.02", "lr: .inf", "lr:", "training.lr", "expected a finite number, but got Infinity"),
    "in a list": ("seeds: [0, 1]", "seeds: [0, a]", "seeds:", "study.seeds.1", 'expected a valid integer, but got "a"'),
    "block for a value": ("lr: 0.02", "lr: {a: 1}", "lr:", "training.lr", 'expected a valid number, but got {"a": 1}'),
    "value for a block": (
        "audio: {kind: resnet, width: 16, depth: [1, 1]}",
        "audio: 5",
        "audio: {kind: resnet",
        "model.encoders.audio",
        "expected a block of keys, but got 5",
    ),
    "missing value": ("  epochs: 12\n", "", "training:", "training.epochs", "expected a value, but got none"),
    "below range": (
        "epochs: 12",
        "epochs: 0",
        "epochs",
        "training.epochs",
        "expected greater than or equal to 1, but got 0",
    ),
    "above range": (
        "momentum: 0.9",
        "momentum: 1.0",
        "momentum",
        "training.momentum",
        "expected less than 1, but got 1.0",
    ),
    "out of range in a plug-in": (
        "val_fraction: 0.2",
        "val_fraction: 0.5",
        "val_fraction",
        "datasets.av_digits.val_fraction",
        "expected less than 0.5, but got 0.5",
    ),
    "wrong order": (
        "{flip: 0.5}",
        "{crop_scale: [1.0, 0.5]}",
        "flip",
        "training.augmentation.visual.crop_scale",
        "expected [low, high], but got [1.0, 0.5]",
    ),
    "no such choice": (
        "optimizer: sgd",
        "optimizer: sdg",
        "optimizer",
        "training.optimizer",
        "expected 'sgd', 'adam', 'adamw' or 'adagrad', but got \"sdg\"",
    ),
    "no such method": (
        "[joint]",
        "[jont]",
        "methods: [joint]",
        "study.methods.0",
        "expected a registered method, but got 'jont'; did you mean 'joint'?",
    ),
    "parameters of no such method": (
        "methods: {}",
        "methods: {jont: {}}",
        "methods: {}",
        "methods.jont",
        "expected a registered method, or a block with `kind`, a registered method, but got 'jont'; did you mean",
    ),
    "no such fusion": (
        "[concat, sum]",
        "[concat, summ]",
        "fusions",
        "study.fusions.1",
        "expected a registered fusion, but got 'summ'; did you mean 'sum'?",
    ),
    "no such block of a dataset": (
        "datasets: [av_digits]",
        "datasets: [av_digit]",
        "datasets: [",
        "study.datasets.0",
        "expected a key of `datasets`, but got 'av_digit'; did you mean 'av_digits'?",
    ),
    "no such dataset": (
        "    recipe: digits-1\n",
        "    kind: av_digit\n    recipe: digits-1\n",
        "recipe:",
        "datasets.av_digits.kind",
        "expected a registered dataset, but got 'av_digit'; did you mean 'av_digits'?",
    ),
    "no such extractor": (
        "kind: frames",
        "kind: frame",
        "kind: frames",
        "recipes.digits-1.visual.kind",
        "expected a registered feature extractor, but got 'frame'; did you mean 'frames'?",
    ),
    "no such encoder": (
        "audio: {kind: resnet",
        "audio: {kind: resnt",
        "audio: {kind: resnet",
        "model.encoders.audio.kind",
        "expected a registered encoder, but got 'resnt'; did you mean 'resnet'?",
    ),
    "a list for a kind": (
        "audio: {kind: resnet",
        "audio: {kind: [resnet]",
        "audio: {kind: resnet",
        "model.encoders.audio.kind",
        "expected a registered encoder, but got ['resnet']",
    ),
    "no kind": (
        "audio: {kind: resnet, ",
        "audio: {",
        "audio: {kind: resnet",
        "model.encoders.audio",
        "expected `kind`, a registered encoder (known: ",
    ),
    "no such recipe": (
        "recipe: digits-1",
        "recipe: digits-2",
        "recipe:",
        "datasets.av_digits.recipe",
        "expected a recipe, but got 'digits-2'; did you mean 'digits-1'?",
    ),
    "encoder without a modality": (
        "    visual: {kind: resnet, width: 16, depth: [1, 1]}\n",
        "",
        "encoders:",
        "model.encoders",
        "expected a block for the modality 'visual' of the dataset 'av_digits', but got none",
    ),
    "recipe without a modality": (
        "    visual: {kind: frames, count: 3, size: 48, pick: centers}\n",
        "",
        "digits-1:",
        "recipes.digits-1",
        "expected a block for the modality 'visual' of the dataset 'av_digits', but got none",
    ),
    "augmentation without a modality": (
        "    audio: {roll: 8}\n",
        "",
        "augmentation:",
        "training.augmentation",
        "expected a block for the modality 'audio' of the dataset 'av_digits', but got none",
    ),
    "doubled seeds": (
        "seeds: [0, 1]",
        "seeds: [1, 1]",
        "seeds:",
        "study.seeds",
        "expected each value once, but got [1, 1]",
    ),
    "no seeds": (
        "seeds: [0, 1]",
        "seeds: []",
        "seeds:",
        "study.seeds",
        "expected at least 1 item after validation, not 0, but got []",
    ),
    "a name that is no path": (
        "  digits-1:",
        "  digits/1:",
        "digits-1:",
        "recipes.digits/1",
        "expected a name of at most 64 small letters, digits, '.', '_' and '-'",
    ),
    "nothing to train": (
        "  fusions: [concat, sum]\n  methods: [joint]\n  unimodal: true",
        "  fusions: []\n  methods: []\n  unimodal: false",
        "study:",
        "study",
        "expected fusions and methods, or unimodal: true, but got nothing to train",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_one_line_that_says_where_and_what(said, mistake):
    old, new, at, place, what = MISTAKES[mistake]
    text = edited(old, new)
    if mistake in ("top-level key", "no such recipe", "a name that is no path"):  # the old name is then missed as well
        assert len(said(text)) <= 2
    else:
        assert len(said(text)) == 1, said(text)
    assert [line for line in said(text) if line.startswith(f"{line_of(at)}: {place}: {what}")], said(text)


@pytest.mark.parametrize(
    ("old", "new", "cells_per_gpu", "what"),
    [
        ("batch_size: 32\n", "batch_size: 2\n", 1, "expected at most the clips of a batch, 2, but got 3"),
        ("device: auto\n", "device: mps\n", 1, "expected 1 with device: mps, which has one GPU, but got 3"),
        (
            "device: auto\n",
            "device: auto\n  compile: kernels\n",
            1,
            "expected 1 with compile: kernels, which compiles whole batches, but got 3",
        ),
        ("", "", 2, "expected 1 where GPUs are shared (cells_per_gpu: 2), but got 3"),
        ("", "", 1, None),
    ],
)
def test_a_run_on_several_gpus_is_refused_where_it_cannot_be(old, new, cells_per_gpu, what, said, monkeypatch):
    Path("r.yaml").write_text(f"cells_per_gpu: {cells_per_gpu}\ndefault: {{threads: 1, mem_mb: 1, runtime: 1}}\n")
    monkeypatch.setenv("COUNTERPOISE_RESOURCES", "r.yaml")
    text = VALID.replace("device: auto\n", "device: auto\n  gpus: 3\n").replace(old, new)
    line = 1 + next(i for i, each in enumerate(text.splitlines()) if "gpus: 3" in each)
    assert said(text) == ([f"{line}: training.gpus: {what}"] if what else [])


def test_a_method_can_refuse_several_gpus(said, monkeypatch):
    monkeypatch.setattr(
        methods["joint"], "refuses", lambda params, setting: f"expected one GPU, but got {setting.gpus}"
    )
    lines = said(VALID.replace("device: auto\n", "device: auto\n  gpus: 3\n"))
    assert any(line.endswith("expected one GPU, but got 3") for line in lines)


def test_doubled_key(said):
    assert said(edited("lr: 0.02", "lr: 0.02\n  lr: 0.2")) == [
        f"{line_of('momentum')}: not valid YAML: the key 'lr' stands twice"
    ]
    assert said(VALID + "study: {}\n") == [
        f"{len(VALID.splitlines()) + 1}: not valid YAML: the key 'study' stands twice"
    ]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("study: [\n", "not valid YAML: expected the node content"),
        ("study:\n\t- a\n", "not valid YAML: found character '\\t' that cannot start any token"),
        ("? [a]\n: b\n", "not valid YAML: found unhashable key"),
        ("study: \x00\n", "not valid YAML: unacceptable character"),
        (b"study: \xff\n", "expected UTF-8, but got invalid start byte at byte 7"),
        ("", "expected sections (study, datasets, "),
        ("# nothing\n", "expected sections (study, datasets, "),
        ("- study\n", "expected sections (study, datasets, grids, recipes, model, training, schedules, methods, "),
    ],
)
def test_no_params_file_at_all(said, text, what):
    (line,) = said(text)
    assert what in line


def test_missing_file(tmp_path):
    for place in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(
            UserError, match=r"expected a readable params file: (No such file|Is a directory)"
        ) as raised:
            config.load(place)
        assert str(raised.value).startswith(f"{place}: ")


def test_all_mistakes_are_reported_at_once_by_line(said):
    """Also those of plug-ins, when the sections have mistakes of their own."""
    text = VALID.replace("epochs: 12", "epochs: 0").replace("count: 3", "count: three").replace("fps: 12", "fps: 1000")
    text = text.replace("confidence: 0.95", "confidence: 95").replace("[1, 1]}\n    visual", "[0, 1]}\n    visual")
    lines = [line.split(": ")[:2] for line in said(text)]
    assert [place for _, place in lines] == [
        "datasets.av_digits.fps",
        "recipes.digits-1.visual.count",
        "model.encoders.audio.depth.0",
        "training.epochs",
        "reporting.confidence",
    ]
    assert [int(n) for n, _ in lines] == sorted(int(n) for n, _ in lines)


def test_a_method_that_refuses_is_reported_where_the_file_names_it(said):
    text = edited("[joint]", "[joint, mla]")
    for block, place in (("{}", "study.methods.1"), ("{mla: {}}", "methods.mla")):
        lines = said(text.replace("methods: {}", f"methods: {block}"))
        line = line_of("[joint]" if block == "{}" else "methods: {}")
        assert lines and all(one.startswith(f"{line}: {place}: expected fusion shared") for one in lines), lines


def test_references_and_plugins_are_reported_at_once(said):
    text = (
        VALID.replace("[joint]", "[jont]").replace("count: 3", "count: 0").replace("recipe: digits-1", "recipe: digits")
    )
    assert [line.split(": ")[1] for line in said(text)] == [
        "study.methods.0",
        "datasets.av_digits.recipe",
        "recipes.digits-1.visual.count",
    ]


def test_command_line_prints_the_mistakes_and_exits_with_2(tmp_path):
    (tmp_path / "p.yaml").write_text(edited("epochs: 12", "epochs: 0"))
    done = subprocess.run(
        [sys.executable, "-m", "pipeline_src", "plan", "--params", str(tmp_path / "p.yaml")],
        **{"cwd": ROOT, "capture_output": True, "text": True},
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {tmp_path}/p.yaml:{line_of('epochs')}: training.epochs: expected ")
    assert done.stderr.count("\n") == 1


def test_schema_is_in_step():
    for name, file in SCHEMAS.items():
        # In a process of its own: other tests make plug-ins known to this one.
        made = subprocess.run([sys.executable, "-m", "pipeline_src", "schema", name], capture_output=True, cwd=ROOT)
        assert made.returncode == 0, made.stderr
        assert file.exists() and file.read_bytes() == made.stdout, (
            f"run: python -m pipeline_src schema {name} > {file.relative_to(ROOT)}"
        )


def test_schema_accepts_what_is_valid_and_refuses_what_is_not():
    schema = json.loads(SCHEMAS["params"].read_text())
    validator = jsonschema.validators.validator_for(schema)
    validator.check_schema(schema)
    assert validator(schema).is_valid(yaml.load(VALID, Loader))
    for error in validator(schema).iter_errors(yaml.load((ROOT / "params.yaml").read_text(), Loader)):
        raise error
    for mistake in (
        "nested key",
        "key of a dataset",
        "key of an encoder",
        "string for int",
        "below range",
        "no such fusion",
    ):
        wrong = yaml.load(edited(*MISTAKES[mistake][:2]), Loader)
        assert not validator(schema).is_valid(wrong), mistake


def test_a_fusion_that_does_not_suit_a_dataset_is_refused_before_any_run(said, monkeypatch):
    facts = config.fusions.facts
    monkeypatch.setattr(type(config.fusions), "facts", lambda self, name: facts(name) | {"least": 3})
    lines = said(VALID)
    message = "expected 3 or more modalities for fusion 'concat', but got 2 (dataset 'av_digits')"
    assert lines and lines[0].endswith(f"study.fusions.0: {message}"), lines
