"""A published dataset that no params file names: `fetch` and `check` take its values from a study in experiments/."""

from pathlib import Path

from pydantic import ValidationError

from pipeline_src.core.errors import UserError, plain
from pipeline_src.core.registry import closest
from pipeline_src.study import extends
from pipeline_src.study.plan import Plan

ROOT = Path(__file__).parents[2]


def files() -> dict[str, Path]:
    """{dataset: the first shipped params file that studies it under the name of its kind}."""
    first: dict[str, Path] = {}
    for file in (ROOT / "params.yaml", *sorted((ROOT / "experiments").glob("*.yaml"))):
        values = extends.read(file)[0]
        for name, block in values.get("datasets", {}).items():
            if block.get("kind") == name and name in values["study"]["datasets"]:
                first.setdefault(name, file)
    return first


def plan(name: str, folder: str | None) -> tuple[Plan, str]:
    """A plan with the dataset `name`, read from `folder` if one is given; and a sentence on where its values are from.

    Raises UserError, with the closest name, if no shipped study reads it, or if it is generated and has no folder.
    """
    shipped = files()
    if name not in shipped:
        raise UserError(
            f"expected a dataset of params.yaml or a published one, but got {plain(name)!r}{closest(name, shipped)};"
            " one of another params file needs --params FILE"
        )
    made = Plan(shipped[name])
    block = made.params.datasets[name]
    if folder is not None:
        if not hasattr(block, "folder"):
            raise UserError(f"--folder: expected none for {name}, which is generated, but got {plain(folder)}")
        try:
            block = type(block).model_validate({**block.model_dump(), "folder": folder})
        except ValidationError as error:
            raise UserError(f"--folder: {error.errors()[0]['msg']}, but got {plain(folder)!r}") from None
        made.params = made.params.model_copy(update={"datasets": {**made.params.datasets, name: block}})
    where = getattr(block, "folder", None)
    said = f"{name}: values of {shipped[name].relative_to(ROOT)}"
    return made, said if where is None else f"{said}; folder {where}" + ("" if folder else " (--folder DIR: another)")
