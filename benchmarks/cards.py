"""`python -m benchmarks cards > docs/methods.md`: a card of every method, from the code, its tests and a tiny run."""

from __future__ import annotations

import inspect
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.methods import EPOCHS, Noise, Passes, passes, refused, takes, trainer
from pipeline_src.methods.base import FAMILIES, Method, Setting, methods
from pipeline_src.models.base import encoders, fusion_facts, fusions
from pipeline_src.study.explain import LEFT_OUT, by_family, idea, words
from pipeline_src.tasks.base import tasks
from pipeline_src.training.params import Training
from pipeline_src.training.spec import RunSpec

if TYPE_CHECKING:
    from pipeline_src.models.base import EncoderParams

LONG = 1000  # epochs, enough for every method
COUNTS = (2, 3, 4)  # modalities that the contract test has
ROOT = Path(__file__).parents[1]
DOUBT = re.compile(r"recalled|second-hand|was read|not read|not given|other source|was found|was not|itself was")
EQUATION = re.compile(r" = | <- ")
SOURCE = re.compile(r"arXiv|DOI|\b(19|20)\d\d\b")

HEAD = """# Methods

`python -m benchmarks cards > docs/methods.md` writes this file from the code, its tests and a tiny run. Do not edit it.
`python -m pipeline_src explain NAME` prints a method's parameters with their published values, and where the released
code differs. [measuring.md](measuring.md) has the time and the memory of a step.

- Passes: samples through all encoders, per sample and epoch, with the default parameters: the mean of epochs 21 to 30
  of 100. Joint training has 1 forward and 1 backward. A pass over val counts as the fraction of train that val is, here
  a quarter.
- Fusions: those that the method takes, with encoders that have taps. It refuses the others before any run.
- Golden: cases made by the authors' own code. The contract test covers every method with a fusion of each kind that it
  takes and two to four modalities (with four, one fusion), including exact resume.
- Not first-hand: what the method's file says of sources that were not read.

""" + "".join(f"`{name}` {why}.\n" for name, why in LEFT_OUT.items())


def cards() -> str:
    """The cards as Markdown, by family."""
    parts = [HEAD]
    for family, names in by_family().items():
        parts.append(f"## {family.capitalize()}: {FAMILIES[family]}\n")
        parts += [card(name) for name in names]
    return "\n".join([*parts, matrix()])


def matrix() -> str:
    """The table of methods and fusions, two modalities and default parameters."""
    rows = []
    for names in by_family().values():
        for name in names:
            plugin = methods[name]
            served = [
                plugin.refuses(plugin.Params(), Setting(("m0", "m1"), fusion, EPOCHS)) is None for fusion in fusions
            ]
            rows.append(f"| `{name}` | {' | '.join('yes' if taken else '' for taken in served)} |")
    head = ["## Methods and fusions", "", "Two modalities, default parameters; all else is refused before any run.", ""]
    columns = [
        f"| method | {' | '.join(f'`{fusion}`' for fusion in fusions)} |",
        "|---" * (len(list(fusions)) + 1) + "|",
    ]
    return "\n".join([*head, *columns, *rows, ""])


def card(name: str) -> str:
    """One method's card."""
    method = methods[name]
    rows = {
        "Passes": cost(name),
        "Modalities": modalities(name),
        "Fusions": "; ".join(taken(name)),
        "Tasks": served(name),
        "Runs required": required(method),
        "Extension of ours": extensions(method),
        "Golden": ", ".join(golden(method)) or "none",
        "Tests": ", ".join(f"[{file.name}](../{file.relative_to(ROOT)})" for file in tests(method)) or "contract test",
        "Not first-hand": " ".join(doubts(method)),
    }
    table = [f"| {what} | {text.replace('|', chr(92) + '|')} |" for what, text in rows.items() if text]
    said = [f"### `{name}`", "", idea(method), "", source(method), ""]
    equations = _equations(method)
    said += ["```text", equations, "```", ""] if equations else []
    return "\n".join([*said, "| | |", "|---|---|", *table, ""])


def source(method: type[Method]) -> str:
    """What the method's file says before its first equation that names a paper."""
    before = re.split(r"\n\n(?= {4})", words(method), maxsplit=1)[0]
    paragraphs = [" ".join(part.split()) for part in before.split("\n\n")]
    return " ".join(part for part in paragraphs if SOURCE.search(part)) or paragraphs[0]


def _equations(method: type[Method]) -> str:
    """The indented blocks of the method's file that have equations; the first one if none has."""
    blocks = [part for part in words(method).split("\n\n") if part.startswith("    ")]
    chosen = [block for block in blocks if EQUATION.search(block)] or blocks[:1]
    return "\n\n".join(inspect.cleandoc("\n" + block) for block in chosen)


def doubts(method: type[Method]) -> list[str]:
    """Sentences of the method's file and of its parameters that say what was not read."""
    texts = [words(method), *(field.description or "" for field in method.Params.model_fields.values())]
    items = [" ".join(item.removeprefix("- ").split()) for text in texts for item in re.split(r"\n\n|\n(?=- )", text)]
    sentences = [s for item in items for s in re.split(r"(?<=[.])\s+(?=[A-Z])", item)]
    return [s if s.endswith(".") else f"{s}." for s in dict.fromkeys(sentences) if DOUBT.search(s)]


def network(count: int, fusion: str = "concat") -> dict[str, EncoderParams]:
    """Very small encoders with taps: transformers of patches for a fusion of steps, else residual networks."""
    own = {"width": 8, "layers": 2, "heads": 2, "feedforward": 8, "patch": [3, 4]}
    kind, values = ("transformer", own) if fusion_facts(fusion).steps else ("resnet", {"width": 4, "depth": [1, 1]})
    return {f"m{i}": encoders[kind].Params(kind=kind, **values) for i in range(count)}


def modalities(name: str) -> str:
    counts = [str(n) for n in COUNTS if any(takes(name, fusion, network(n, fusion)) for fusion in fusions)]
    return f"{', '.join(counts)} (tested)"


def served(name: str) -> str:
    """Tasks that the method takes with any fusion, and why it refuses the others."""
    taken: list[str] = []
    refused: dict[str, list[str]] = {}
    for task in tasks:
        settings = [Setting(("m0", "m1"), fusion, LONG, task) for fusion in fusions]
        reasons = [methods[name].refuses(methods[name].Params(), setting) for setting in settings]
        if None in reasons:
            taken.append(task)
        else:
            why = next(why for why in reasons if why and task in why)
            refused.setdefault(why.partition(", but got")[0], []).append(task)
    others = [f"not {', '.join(of)} ({why})" for why, of in refused.items()]
    return "; ".join([", ".join(taken), *others])


def taken(name: str) -> list[str]:
    """Fusions that the method takes, those that it takes for fewer modalities only, and why it refuses the others."""
    serves = {fusion: [n for n in COUNTS if takes(name, fusion, network(n, fusion))] for fusion in fusions}
    full = max(serves.values(), key=len)
    said = [", ".join(fusion for fusion, counts in serves.items() if counts == full)]
    for fusion, counts in serves.items():
        if counts and counts != full:
            said.append(f"{fusion} with {' or '.join(map(str, counts))} modalities")
    reasons: dict[str, list[str]] = {}
    for fusion, counts in serves.items():
        if not counts:
            why = refused(name, fusion, network(2, fusion)) or ""
            reasons.setdefault(why.replace(repr(fusion), "this one"), []).append(fusion)
    return said + [f"not {', '.join(names)} ({reason})" for reason, names in reasons.items()]


def required(method: type[Method]) -> str:
    needed = method.requires(method.Params(), _setting(method, 2))
    kinds = dict.fromkeys("joint training" if r.modality is None else "each modality alone" for r in needed.values())
    return " and ".join(kinds)


def extensions(method: type[Method]) -> str:
    said = {n: method.extension(method.Params(), _setting(method, n)) for n in COUNTS}
    if said[2]:
        return said[2]
    return f"with more than two modalities: {said[3]}" if said[3] else ""


def _setting(method: type[Method], count: int) -> Setting:
    fusion = next((f for f in fusions if takes(method.name, f, network(count, f))), "concat")
    return Setting(tuple(network(count, fusion)), fusion, EPOCHS)


def tests(method: type[Method]) -> list[Path]:
    """Test files that import the method's file or have its name."""
    module = method.__module__.rpartition(".")[2]
    wanted = re.compile(rf"methods\.{module} import|methods import ([a-z_]+, )*{module}\b")
    files = sorted((ROOT / "tests/methods").glob("test_*.py"))
    named = {f"test_{module}.py", f"test_{method.name}.py"}
    return [f for f in files if f.name in named or wanted.search(f.read_text(encoding="utf-8"))]


def golden(method: type[Method]) -> list[str]:
    """Golden cases that are named after the method, or that the test file of its own reads."""
    module = method.__module__.rpartition(".")[2]
    file = ROOT / f"tests/methods/test_{module}.py"
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    cases = sorted(case.stem for case in (ROOT / "tests/golden").glob("*.npz"))
    return [case for case in cases if case in text or (text and case.startswith(f"{module}_"))]


def cost(name: str) -> str:
    """`1.00 forward, 1.00 backward`, from a tiny run."""
    if methods[name].samples is not Method.samples:
        return "as many as the samples that it draws need"
    counted = counts(name)
    said = f"{counted.forwards:.2f} forward, {counted.backwards:.2f} backward"
    before = f", and {counted.before:.2f} forward before the first epoch" if counted.before else ""
    required = methods[name].requires(methods[name].Params(), _setting(methods[name], 2))
    return said + before + (", and the runs that it requires" if required else "")


@cache
def counts(name: str) -> Passes:
    """The passes of a method on two modalities of random samples, with very small encoders."""
    import torch

    plugin, setting, batch = methods[name], _setting(methods[name], 2), 16
    shapes = {m: {"layout": "spectrogram", "shape": [9, 8], "dtype": "float32"} for m in setting.modalities}
    schedule = {"batch_size": batch, "optimizer": "sgd", "lr": 1e-3, "momentum": 0.9, "weight_decay": 0.0}
    rest = {"lr_step": EPOCHS, "lr_gamma": 0.1, "augmentation": {}, "normalize": "none", "select": "last"}
    device = {"track_test": False, "device": "cpu", "precision": "fp32", "resident_fraction": 0.5}
    spec = RunSpec(
        modalities=setting.modalities,
        encoders=network(2, setting.fusion),
        fusion=setting.fusion,
        method=name,
        params=plugin.Params(),
        training=Training(epochs=EPOCHS, **schedule, **rest, **device),
        augmentation={},
    )
    return passes(trainer(spec, Noise(shapes, 4, batch), torch.device("cpu")))
