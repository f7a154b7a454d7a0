"""What a data set is to the pipeline: classes, modalities, and a list of clips with the file of each modality."""

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from pipeline_src.registry import Registry

datasets = Registry("pipeline_src.datasets", "data set")


class Clip(NamedTuple):
    """One labelled example, as the data set lists it; nothing has been opened yet."""

    id: str
    label: str
    split: str  # "train" or "test"; val is cut from train when the manifest is made
    group: str  # who or what may not be on both sides of the val cut (speaker, video); the id where nothing is shared
    files: dict[str, Path]  # modality -> file, relative to the data set's folder; modalities may share one


class DatasetParams(BaseModel):
    """Parameters that every data set has; a data set adds its own in a subclass."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    kind: str = Field(description="registered data set; the block's own name by default")
    recipe: str = Field(description="preprocessing recipe, a key of `recipes`")
    val_share: float = Field(gt=0, lt=0.5, description="share of the training clips held out as val, by group")
    split_seed: int = Field(ge=0, description="seed of the val cut")
    max_quarantine: float = Field(ge=0, lt=1, description="share of unreadable clips above which the run stops")
    shards: int = Field(ge=1, le=10_000, description="jobs that the extraction is cut into")


class Dataset:
    """A data set. Subclasses are registered, have no state beyond `params`, and implement `clips` (and `fetch`).

    `modalities` lists the keys of `Clip.files`; nothing outside this file and params.yaml knows them.
    """

    Params: ClassVar[type[DatasetParams]] = DatasetParams
    modalities: ClassVar[tuple[str, ...]]
    classes: ClassVar[tuple[str, ...]]

    def __init__(self, params: DatasetParams):
        self.params = params

    @property
    def folder(self) -> Path | None:
        """The user's folder with the raw media, or None if the fetch stage makes it."""
        return None

    def fetch(self, folder: Path) -> None:
        """Generate or download the raw media into `folder`, which is new and empty; renamed into place afterwards."""
        raise NotImplementedError

    def clips(self, folder: Path) -> Iterable[Clip]:
        """Every clip that the data set's own lists name, present on disk or not. Raises UserError on a bad list."""
        raise NotImplementedError
