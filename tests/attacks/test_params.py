"""Values that no library can hold, names that no path can hold, and text that is no value: one line each.

A case is a line: the place, what is written there, and what the message says of it.
"""

from pathlib import Path

import pytest

from pipeline_src.study.plan import Plan
from tests.attacks.judge import STUDY, call, line_of, nothing_lost, put, refused

HUGE = "1" + "0" * 30
LONG = "a" * 300

NUMBERS = [
    # what NumPy, scikit-learn, PyTorch, pandas, Arrow, Slurm or a file name cannot hold
    ("study.seeds.0", "-1", "greater than or equal to 0"),
    ("study.seeds.0", "4294967296", "less than or equal to 4294967295"),
    ("study.seeds.0", "18446744073709551616", "less than or equal to 4294967295"),
    ("study.seeds.0", "1" + "0" * 300, "at most 100 digits"),
    ("study.seeds.0", "1.0", "integer"),
    ("study.seeds.0", "true", "integer"),
    ("study.seeds.0", "null", "integer"),
    ("study.seeds.0", "zero", "integer"),
    ("study.seeds", "[]", "at least 1 item"),
    ("study.seeds", "[3, 3]", "each value once"),
    ("study.seeds", "0", "list"),
    ("study.seeds", "{a: 1}", "list"),
    ("study.seeds", str(list(range(10_001))), "at most 10000 items"),
    ("datasets.digits.split_seed", "4294967296", "less than or equal to 4294967295"),
    ("datasets.digits.split_seed", "-1", "greater than or equal to 0"),
    ("datasets.digits.seed", "2147483648", "less than or equal to 2147483647"),
    ("datasets.digits.val_fraction", "5.0e-324", "greater than or equal to 0.001"),
    ("datasets.digits.val_fraction", "0", "greater than or equal to 0.001"),
    ("datasets.digits.val_fraction", "0.5", "less than 0.5"),
    ("datasets.digits.max_quarantine", "1", "less than 1"),
    ("datasets.digits.shards", HUGE, "less than or equal to 10000"),
    ("datasets.digits.clips", "1798", "less than or equal to 1797"),
    ("datasets.digits.seconds", "1.0e+300", "less than or equal to 10"),
    ("datasets.digits.pixels", "33", "multiple of 2"),
    ("datasets.digits.snr_db", "[15.0, 0.0]", "low, high"),
    ("datasets.digits.snr_db", "[0.0]", "at least 2 items"),
    ("datasets.digits.digit_scale", "[0.0, 0.5]", "greater than 0"),
    ("training.epochs", HUGE, "less than or equal to 100000"),
    ("training.epochs", "0", "greater than or equal to 1"),
    ("training.epochs", "-1", "greater than or equal to 1"),
    ("training.epochs", "2.5", "integer"),
    ("training.epochs", "1e1", "integer"),
    ("training.epochs", "9" * 90, "less than or equal to 100000"),
    ("training.epochs", "0x" + "f" * 90, "less than or equal to 100000"),
    ("training.batch_size", "9223372036854775808", "less than or equal to 1048576"),
    ("training.batch_size", "0", "greater than or equal to 1"),
    ("training.lr", "1.0e+300", r"less than or equal to 1e\+30"),
    ("training.lr", "1.0e-300", "greater than or equal to 1e-30"),
    ("training.lr", "0", "greater than or equal to 1e-30"),
    ("training.lr", "-0.1", "greater than or equal to 1e-30"),
    ("training.lr", ".inf", "finite"),
    ("training.lr", ".nan", "finite"),
    ("training.lr", "1e400", "finite"),
    ("training.lr", "'1e-3'", "number"),
    ("training.lr", "1,5", "number"),
    ("training.lr", "[0.1]", "number"),
    ("training.weight_decay", "1.0e+300", r"less than or equal to 1e\+30"),
    ("training.weight_decay", "-1.0e-300", "greater than or equal to 0"),
    ("training.momentum", "1", "less than 1"),
    ("training.momentum", "-.inf", "finite"),
    ("training.lr_step", HUGE, "less than or equal to 100000"),
    ("training.lr_gamma", "1.0e-320", "greater than or equal to 1e-30"),
    ("training.lr_gamma", "1.5", "less than or equal to 1"),
    ("training.checkpoint_minutes", "1.0e+300", "less than or equal to 525600"),
    ("training.checkpoint_minutes", "-1", "greater than or equal to 0"),
    ("training.resident_fraction", "1.01", "less than or equal to 1"),
    ("training.augmentation.audio.roll", "9223372036854775808", "less than or equal to 100000"),
    ("training.augmentation.audio.roll", "-1", "greater than or equal to 0"),
    ("training.augmentation.visual.crop_scale", "[0, 0]", "greater than 0"),
    ("training.augmentation.visual.crop_scale", "[2, 3]", "less than or equal to 1"),
    ("training.augmentation.visual.crop_scale", "[0.5, .nan]", "finite"),
    ("training.augmentation.visual.crop_scale", "[1.0, 0.5]", "low, high"),
    ("training.augmentation.visual.crop_ratio", "[-1, 1]", "greater than or equal to 0.01"),
    ("training.augmentation.visual.crop_ratio", "[0.0, 1.0]", "greater than or equal to 0.01"),
    ("training.augmentation.visual.crop_ratio", "[1.0, 1.0e+9]", "less than or equal to 100"),
    ("training.augmentation.visual.flip", "1.5", "less than or equal to 1"),
    ("evaluation.batch_size", "18446744073709551616", "less than or equal to 1048576"),
    ("evaluation.probe_c", "1.0e-308", "greater than or equal to 1e-06"),
    ("evaluation.probe_c", "1.0e+308", r"less than or equal to 1000000"),
    ("evaluation.probe_iterations", HUGE, "less than or equal to 1000000"),
    ("reporting.confidence", "1", "less than or equal to 0.9999"),
    ("reporting.confidence", "0.9999999999999999", "less than or equal to 0.9999"),
    ("model.encoders.audio.width", "1000000000", "less than or equal to 8192"),
    ("model.encoders.audio.width", "100000", "less than or equal to 8192"),
    ("model.encoders.audio.depth.0", HUGE, "less than or equal to 100"),
    ("model.encoders.audio.depth", "[1, 1, 1, 1, 1, 1, 1, 1, 1]", "at most 8 items"),
    ("model.encoders.audio", f"{{kind: convnet, width: {HUGE}, features: 8}}", "less than or equal to 8192"),
    ("model.encoders.audio", f"{{kind: convnet, width: 8, features: {HUGE}}}", "less than or equal to 65536"),
    ("recipes.small-1.audio.seconds", "1.0e+300", "less than or equal to 600"),
    ("recipes.small-1.audio.floor", "0", "greater than 0"),
    ("recipes.small-1.audio.hop", HUGE, "less than or equal to 16384"),
    ("recipes.small-1.visual.size", HUGE, "less than or equal to 1024"),
    ("recipes.small-1.visual.count", HUGE, "less than or equal to 512"),
    ("methods.ogm.alpha", ".nan", "finite"),
    ("methods.ogm.alpha", "1.0e+300", r"less than or equal to 1e\+30"),
    ("methods.ogm.alpha", "-1", "greater than or equal to 0"),
]

TEXTS = [
    # text that is no value, or no text
    ("study.datasets", "[nothing]", "expected a key of `datasets`"),
    ("study.fusions", "[concat, concat]", "each value once"),
    ("study.methods", "['joint; touch x']", "expected a registered method"),
    ("study.methods", "[../joint]", "expected a registered method"),
    ("study.methods", "[[joint]]", "string"),
    ("study.fusions", f"[{LONG * 20}]", "expected a registered fusion"),
    ("datasets.digits.kind", "pipeline_src.datasets.av_digits", "expected a registered dataset"),
    ("datasets.digits.kind", "[av_digits]", "expected a registered dataset"),
    ("datasets.digits.kind", "{a: b}", "expected a registered dataset"),
    ("datasets.digits.recipe", "../../etc/passwd", "expected a recipe"),
    ("datasets.digits.recipe", LONG * 20, "expected a recipe"),
    ("datasets.digits", "null", "block of keys"),
    ("datasets.digits", "[]", "block of keys"),
    ("datasets", "[]", "block of keys|dictionary"),
    ("recipes.small-1.audio.kind", "__class__", "expected a registered feature extractor"),
    ("recipes.small-1.audio.pad", "wrap", "'zero' or 'tile'"),
    ("model.encoders.audio", "resnet", "block of keys"),
    ("training.optimizer", LONG * 40, "'sgd', 'adam', 'adamw' or 'adagrad'"),
    ("training.optimizer", "SGD", "'sgd', 'adam', 'adamw' or 'adagrad'"),
    ("training.device", "'cuda:0'", "'auto', 'cpu', 'cuda' or 'mps'"),
    ("training.device", "/dev/zero", "'auto', 'cpu', 'cuda' or 'mps'"),
    ("training.precision", "fp16", "'auto', 'fp32', 'tf32' or 'bf16'"),
    ("tracking.experiment", "''", "experiment"),
    ("tracking.experiment", "'a/../../b'", "experiment"),
    ("tracking.experiment", '"a\\nb"', "experiment"),
    ("tracking.experiment", LONG, "at most 200"),
    ("tracking.enabled", "'true'", "boolean"),
    ("tracking.enabled", "1", "boolean"),
    ("model.encoders.audio", '{kind: resnet, width: 4, depth: [1], weights: "a\\0b"}', "control|weights"),
]

FOLDERS = [
    # (what is written as `folder` of a published dataset, what is said)
    ('"a\\0b"', "printable characters"),
    ('"a\\nb"', "printable characters"),
    ('"a\\x1b[2Jb"', "printable characters"),
    ('"a\\ud800b"', "expected text in UTF-8"),
    ("'~no-such-user-here/x'", "home folder"),
    ("x" * 5000, "at most 4000"),
    ("x" * 300, "at most 255 bytes"),
    ("''", "at least 1 character"),
    ("null", "string"),
    ("7", "string"),
]

MIRRORS = [
    ("https://me:hunter2@host.example/x", "without a user and a password"),
    ("https://hunter2@host.example/x", "without a user and a password"),
    ("ftp://host.example/x", "https?://"),
    ("file:///etc", "https?://"),
    ("javascript:alert(1)", "https?://"),
    ("//host.example", "https?://"),
    ("'https://host.example/a b'", "https?://|printable"),
    ("'https://[::1'", "https?://|address"),
    ("https://host.example:port/", "https?://|address"),
]

NAMES = [
    # names of datasets, recipes and modalities become parts of paths
    LONG,
    "a" * 65,
    "../up",
    "/etc/passwd",
    ".hidden",
    "-x",
    "''",
    "'a b'",
    "'a/b'",
    "'a\\b'",
    "ä",
    "Digits",
    "'$(touch x)'",
    "'`touch x`'",
    "'a;b'",
    "'{x}'",
    "'*'",
    '"a\\nb"',
    '"a\\0b"',
    "'😀'",
    "1.5",
    "~",
]
SECTIONS = {"dataset": "datasets.digits!", "recipe": "recipes.small-1!", "modality": "recipes.small-1.audio!"}


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """A function: text of a params file -> the outcome of `plan` with it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bystander").write_text("mine")

    def of(text: str):
        Path("p.yaml").write_text(text, encoding="utf-8", errors="surrogatepass")
        with nothing_lost(tmp_path):
            return call("plan", "--params", "p.yaml")

    return of


def short(value) -> str:
    return str(value)[:30]


def test_the_study_itself_is_planned(plan):
    """Else a refusal would show nothing."""
    done = plan(STUDY)
    assert (done.status, done.err) == (0, ""), done.err
    assert "train" in done.out


@pytest.mark.parametrize(("place", "written", "says"), NUMBERS + TEXTS, ids=short)
def test_a_value_that_cannot_be_is_one_line_with_its_place(plan, place, written, says):
    text = put(STUDY, place, written)
    pair = 2 if place.endswith(("scale", "ratio")) else 1  # a line for each number of a pair
    where = f"p.yaml:{line_of(STUDY, place)}: " + ("not valid YAML" if "digits" in says else place)
    refused(plan(text), says, where, lines=pair)


@pytest.mark.parametrize(("written", "says"), FOLDERS, ids=short)
def test_a_folder_that_cannot_be_is_one_line(plan, written, says):
    refused(plan(with_folder(f"folder: {written}")), says, "p.yaml:", "folder")


@pytest.mark.parametrize(("written", "says"), MIRRORS, ids=short)
def test_an_address_of_a_mirror_that_cannot_be_is_one_line_without_a_password(plan, written, says):
    done = plan(with_folder(f"folder: here\n    mirror: {written}"))
    refused(done, says, "p.yaml:", "mirror")
    assert "hunter2" not in done.err + done.out


def with_folder(lines: str) -> str:
    """The study with CREMA-D beside the digits."""
    block = (
        "  cremad:\n    recipe: small-1\n    val_fraction: 0.2\n    split_seed: 0\n    max_quarantine: 0.5\n"
        f"    shards: 1\n    split: authors\n    {lines}\n"
    )
    return STUDY.replace("recipes:\n  small-1", block + "recipes:\n  small-1").replace("[digits]", "[cremad]")


@pytest.mark.parametrize("name", NAMES, ids=short)
@pytest.mark.parametrize("section", SECTIONS)
def test_a_name_that_cannot_be_part_of_a_path_is_one_line(plan, section, name):
    says = "expected a name of at most 64 small letters, digits, '.', '_' and '-'|expected a key that is text"
    done = plan(put(STUDY, SECTIONS[section], name))
    refused(done, says, "p.yaml:", lines=3)  # the old name is then missed as well


def test_a_hundred_mistakes_are_not_a_wall(plan):
    """Every mistake is a line, but no more than a screen of them."""
    wrong = "".join(f"  wrong{i}: {i}\n" for i in range(5000))
    done = plan(STUDY.replace("methods:\n", f"{wrong}methods:\n"))
    refused(done, r"and \d,?\d+ more mistakes", "p.yaml:", lines=52)


def test_the_largest_values_that_are_accepted_are_read_as_written(plan):
    values = {
        "study.seeds": "[4294967295]",
        "training.epochs": "100000",
        "training.batch_size": "1048576",
        "training.lr": "1.0e+30",
        "evaluation.batch_size": "1048576",
        "evaluation.probe_c": "1.0e+6",
        "datasets.digits.split_seed": "4294967295",
        "datasets.digits.val_fraction": "0.001",
        "training.augmentation.audio.roll": "100000",
    }
    text = STUDY
    for place, written in values.items():
        text = put(text, place, written)
    done = plan(text)
    assert done.status == 0, done.err
    params = Plan("p.yaml").params
    assert params.study.seeds == [4294967295] or list(params.study.seeds) == [4294967295]
    assert (params.training.epochs, params.training.lr) == (100_000, 1e30)
