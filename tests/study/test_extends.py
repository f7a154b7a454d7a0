"""A params file that extends another: what is merged, how a key is removed, and which file a mistake is reported in."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from pipeline_src.core.errors import UserError
from pipeline_src.study import config, extends, prune, versioning
from pipeline_src.study.origins import origins
from pipeline_src.study.params import Params
from pipeline_src.study.plan import Plan
from pipeline_src.study.schema import SCHEMAS
from tests.study.test_config import VALID


@pytest.fixture(autouse=True)
def base(tmp_path, monkeypatch) -> Path:
    """The working directory has a whole study in base.yaml."""
    monkeypatch.chdir(tmp_path)
    file = Path("base.yaml")
    file.write_text(VALID)
    return file


def written(text: str, name: str = "own.yaml") -> str:
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text(text)
    return name


def refused(name: str) -> list[str]:
    with pytest.raises(UserError) as error:
        config.load(name)
    return str(error.value).split("\n")


def line_of(file: str | Path, text: str) -> int:
    return 1 + next(i for i, line in enumerate(Path(file).read_text().splitlines()) if text in line)


def values(name: str) -> dict:
    return extends.read(Path(name))[0]


def test_a_file_that_only_extends_is_the_same_study_under_its_own_name():
    own, base = Plan(written("extends: base.yaml\n")), Plan("base.yaml")
    assert [run.folder for run in own.runs] == [run.folder for run in base.runs]
    assert own.results.name == "own" and own.params.extended == (Path("base.yaml"),)


def test_blocks_merge_by_key_and_other_values_replace():
    text = "extends: base.yaml\nstudy:\n  methods: [ogm]\ntraining: {lr: 0.5, augmentation: {audio: {roll: 2}}}\n"
    made, before = values(written(text)), yaml.safe_load(VALID)
    assert made.pop("extends") == "base.yaml"
    before["study"]["methods"] = ["ogm"]
    before["training"] |= {"lr": 0.5, "weight_decay": 1e-4}
    before["training"]["augmentation"]["audio"] = {"roll": 2}
    before["recipes"]["digits-1"]["audio"]["floor"] = 1e-7
    assert made == before


def test_a_block_of_another_kind_replaces_as_a_whole():
    written(VALID.replace("{kind: resnet, width: 16, depth: [1, 1]}", "{kind: resnet, width: 16, depth: [1, 1]}", 1))
    text = "extends: base.yaml\nmodel: {encoders: {audio: {kind: convnet, widths: [4]}, visual: {width: 8}}}\n"
    assert values(written(text))["model"]["encoders"] == {
        "audio": {"kind": "convnet", "widths": [4]},
        "visual": {"kind": "resnet", "width": 8, "depth": [1, 1]},
    }
    text = "extends: base.yaml\ndatasets: {av_digits: {kind: table, folder: media}}\n"
    assert values(written(text))["datasets"]["av_digits"] == {"kind": "table", "folder": "media"}
    text = "extends: base.yaml\ndatasets: {av_digits: {kind: av_digits, clips: 200}}\n"
    assert values(written(text))["datasets"]["av_digits"]["pixels"] == 48


def test_null_removes_a_block_or_a_value_and_its_default_holds():
    written(VALID.replace("methods: {}", "methods: {ogm: {alpha: 0.7}, opm: {q_base: 0.1}}"), "base.yaml")
    text = "extends: base.yaml\nmethods: {ogm: null, opm: {q_base: null}}\ntraining: {checkpoint_minutes: null}\n"
    params = config.load(written(text + "study: {methods: [joint, ogm, opm]}\n"))
    plain = config.load(written(VALID.replace("methods: [joint]", "methods: [joint, ogm, opm]"), "plain.yaml"))
    assert params.methods == plain.methods
    assert params.training.checkpoint_minutes == type(params.training).model_fields["checkpoint_minutes"].default
    lines = refused(written("extends: base.yaml\ntraining:\n  epochs: null\n"))
    assert lines == ["own.yaml:3: training.epochs: expected a value, but got none"]


def test_null_stays_a_value_where_a_parameter_may_be_null():
    written(VALID.replace("methods: {}", "methods: {agm: {cap: 5.0}}"), "base.yaml")
    assert config.load("base.yaml").methods["agm"].cap == 5.0
    assert config.load(written("extends: base.yaml\nmethods: {agm: {cap: null}}\n")).methods["agm"].cap is None


def test_null_that_removes_nothing_is_a_mistake_as_ever():
    lines = refused(written("extends: base.yaml\nmethods: {ogm: {alpha: null}}\n"))
    assert lines == ["own.yaml:2: methods.ogm.alpha: expected a valid number, but got null"]


def test_chains_are_relative_to_the_file_that_names_the_next():
    written("extends: ../base.yaml\ntraining: {lr: 0.5, momentum: 0.5}\n", "some/middle.yaml")
    params = config.load(written("extends: some/middle.yaml\ntraining: {lr: 0.25}\n"))
    assert (params.training.lr, params.training.momentum, params.training.epochs) == (0.25, 0.5, 12)
    assert params.extended == (Path("some/middle.yaml"), Path("base.yaml"))
    written("extends: own.yaml\ntraining: {momentum: null}\n", "last.yaml")
    assert refused("last.yaml") == ["last.yaml:2: training.momentum: expected a value, but got none"]


def test_circles_are_refused(tmp_path):
    written("extends: own.yaml\n")
    assert refused("own.yaml") == [
        "own.yaml:1: extends: expected a file that leads to its end, but got own.yaml -> own.yaml"
    ]
    written("# a comment\nextends: ../own.yaml\n", "some/middle.yaml")
    written("extends: some/middle.yaml\n")
    (line,) = refused("own.yaml")
    assert line.startswith("some/middle.yaml:2: extends: ") and line.endswith(
        "own.yaml -> some/middle.yaml -> own.yaml"
    )
    for i in range(extends.LONGEST + 1):
        written(f"extends: f{i + 1}.yaml\n", f"f{i}.yaml")
    assert refused("f0.yaml")[0].startswith(f"f{extends.LONGEST - 1}.yaml:1: extends: expected at most 20 files")


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ("absent.yaml", "own.yaml:1: extends: absent.yaml: expected a readable params file: No such file or directory"),
        ("some", "own.yaml:1: extends: some: expected a readable params file: Is a directory"),
        ("[base.yaml]", 'own.yaml:1: extends: expected the name of a params file, but got "a block or a list"'),
        ("3", 'own.yaml:1: extends: expected the name of a params file, but got "3"'),
        ('""', 'own.yaml:1: extends: expected the name of a params file, but got ""'),
        ("broken.yaml", "own.yaml:1: extends: broken.yaml:1: not valid YAML: the key 'a' stands twice"),
    ],
)
def test_what_cannot_be_extended_is_one_line(said, error):
    Path("some").mkdir()
    Path("broken.yaml").write_text("{a: 1, a: 2}\n")
    assert refused(written(f"extends: {said}\n")) == [error]


def test_a_mistake_is_reported_in_the_file_and_line_that_has_the_value():
    written(VALID.replace("lr: 0.02", "lr: -1").replace("width: 16", "widht: 16", 1), "base.yaml")
    lines = refused(written("extends: base.yaml\ntraining:\n  momentum: 2\n  epoch: 3\n"))
    assert [line.split(": expected")[0].split(": unknown")[0] for line in lines] == [
        "own.yaml:3: training.momentum",
        "own.yaml:4: training.epoch",
        f"base.yaml:{line_of('base.yaml', 'widht')}: model.encoders.audio.widht",
        f"base.yaml:{line_of('base.yaml', 'widht')}: model.encoders.audio.width",
        f"base.yaml:{line_of('base.yaml', 'lr: -1')}: training.lr",
    ]


def test_what_yaml_merges_and_a_block_overrides_is_reported_where_it_is():
    written("extends: base.yaml\ntraining:\n  <<: {lr: -1, momentum: -1}\n  momentum: 0.5\n  lr: -2\n")
    assert refused("own.yaml")[0].startswith("own.yaml:5: training.lr: ")
    assert len(refused("own.yaml")) == 1


def test_explain_says_where_each_value_is_from():
    written("extends: base.yaml\ntraining:\n  lr: 0.5\nstudy: {methods: [joint, ogm]}\n")
    text = origins(Plan("own.yaml"))
    places = {line.split(" # ")[0].strip(): line.split(" # ")[1] for line in text.splitlines() if " # " in line}
    assert places["lr: 0.5"] == "own.yaml:3"
    assert places["methods: [joint, ogm]"] == "own.yaml:4"
    assert places["epochs: 12"] == f"base.yaml:{line_of('base.yaml', 'epochs: 12')}"
    assert places["precision: auto"] == f"base.yaml:{line_of('base.yaml', 'precision')}; fp32 here"
    assert places["alpha: 0.8"] == places["joint: {}"] == places["tuning: null"] == "default"
    made = yaml.load(text, yaml.SafeLoader)
    assert made["training"]["augmentation"]["audio"]["roll"] == 8 and set(made) == {*Params.model_fields} - {"extends"}
    Path("explained.yaml").write_text(text)  # it is the same study
    assert [run.folder for run in Plan("explained.yaml").runs] == [run.folder for run in Plan("own.yaml").runs]


def test_explain_says_the_kind_of_a_method_under_another_name():
    written("extends: base.yaml\nstudy: {methods: [joint, weak]}\nmethods:\n  weak: {kind: ogm, alpha: 0.1}\n")
    lines = origins(Plan("own.yaml")).splitlines()
    assert lines[lines.index("  weak:") + 1].split() == ["kind:", "ogm", "#", "own.yaml:4"]


def test_explain_says_where_a_shipped_recipe_has_its_values():
    plan = Plan(Path(__file__).parents[2] / "experiments/ogm-ge-2022-cremad.yaml")
    recipe = config.RECIPES / f"{plan.params.datasets['cremad'].recipe}.yaml"
    assert f"# {recipe}:{line_of(recipe, 'kind: ')}\n" in origins(plan)


def test_dvc_must_watch_what_is_extended():
    Path("dvc.yaml").write_text("stages: {features: {deps: [media]}, runs: {deps: [base.yaml]}}\n")
    plan = Plan(written("extends: base.yaml\n", "params.yaml"))
    assert versioning._own(plan, "runs") == {"`extends` of params.yaml": Path("base.yaml")}
    for path in (path for job in plan.jobs("extract") + plan.jobs("cache") for path in job):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    what = r"stages\.features\.deps: expected base\.yaml, which `extends` of params\.yaml"
    with pytest.raises(UserError, match=what):
        versioning.check(plan, "features")


def test_runs_of_a_study_that_only_extends_are_not_pruned():
    written("extends: base.yaml\ntraining: {lr: 0.5}\n")
    assert {str(plan.file) for plan in prune.studies()} == {"base.yaml", "own.yaml"}


def test_its_schema_takes_a_file_with_what_differs():
    schema = json.loads(SCHEMAS["extending"].read_text(encoding="utf-8"))
    own = {"extends": "base.yaml", "study": {"methods": ["ogm"]}, "methods": {"ogm": {"alpha": 0.5}, "pmr": None}}
    jsonschema.validate(own, schema)
    for wrong in ({"study": {}}, {**own, "training": {"epoch": 3}}, {**own, "methods": {"ogm": {"alpha": "high"}}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)
