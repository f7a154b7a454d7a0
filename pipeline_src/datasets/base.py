"""Datasets: classes, modalities, and a list of clips with a file for each modality."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, ClassVar, NamedTuple

from pydantic import AfterValidator, Field

from pipeline_src.core.labels import Label
from pipeline_src.core.params import (
    CHARACTERS,
    SEED,
    Affects,
    Section,
    Varies,
    address,
    printable,
    storage_address,
    varying,
)
from pipeline_src.core.registry import Registry

datasets = Registry("pipeline_src.datasets", "dataset")


class Clip(NamedTuple):
    """One labelled example, as the dataset lists it; nothing has been opened yet."""

    id: str
    label: Label  # a class; for other tasks a number, or the classes of its list
    split: str  # "train", "test" or a published "val"; without one, val is cut from train when the manifest is made
    group: str  # clips of a group stay on one side of the val cut (speaker, video); the id if nothing is shared
    files: dict[str, Path]  # modality -> file, relative to the dataset's folder; modalities may share one
    span: tuple[float, float] | None = None  # the part of the files that the clip is, in seconds; None: the whole


class DatasetParams(Section):
    """Parameters that every dataset has; a dataset adds its own in a subclass."""

    affects = "fetch"

    kind: str = Field(description="registered dataset; the block's own name by default")
    recipe: Annotated[str, Affects(None)] = Field(description="preprocessing recipe, a key of `recipes`")
    val_fraction: Annotated[float, Affects("manifest")] = Field(
        default=0.2,
        ge=0.001,
        lt=0.5,
        description="fraction of the training clips held out as val, by group, if no val is published",
    )
    split_seed: Annotated[int, Affects("manifest"), Varies("split")] = Field(
        default=0, ge=0, le=SEED, description="seed of the val cut"
    )
    max_quarantine: Annotated[float, Affects("aggregate")] = Field(
        default=0.01, ge=0, lt=1, description="fraction of unreadable clips above which the run stops"
    )
    shards: Annotated[int, Affects("extract")] = Field(
        default=1, ge=1, le=10_000, description="jobs that the extraction is cut into"
    )
    storage: Annotated[str, AfterValidator(storage_address), Affects(None)] = Field(
        default="",
        max_length=CHARACTERS,
        description="address under which the shards of the cache lie, such as s3://bucket/prefix; none: on this disk",
    )


def _home(folder: str) -> str:
    """Validator: a folder whose `~` this machine knows."""
    if any(len(part.encode()) > 255 for part in Path(folder).parts):
        raise ValueError("expected names of at most 255 bytes")
    try:
        Path(printable(folder)).expanduser()
    except RuntimeError:
        raise ValueError("expected a folder of a user of this machine, whose home folder is known") from None
    return folder


class FolderParams(DatasetParams):
    """Parameters of a dataset whose published files the user keeps in a folder."""

    folder: Annotated[str, AfterValidator(_home), Affects(None)] = Field(
        min_length=1,
        max_length=CHARACTERS,
        description="folder of the published files; `fetch NAME` fills it as far as links allow",
    )
    mirror: Annotated[str, AfterValidator(address), Affects(None)] = Field(
        default="",
        max_length=CHARACTERS,
        description="address that holds copies of what `fetch` downloads, as <mirror>/<host>/<path>; none: the source",
    )


class Download(NamedTuple):
    """A file that its authors publish under a direct link, with its size and checksum."""

    url: str
    file: str  # path relative to the dataset's folder
    sha256: str
    bytes: int


def github(repository: str, commit: str, path: str, file: str, sha256: str, size: int) -> Download:
    """A file of a public repository at a fixed commit."""
    return Download(f"https://raw.githubusercontent.com/{repository}/{commit}/{path}", file, sha256, size)


class Dataset:
    """A dataset. Subclasses are registered, have no state beyond `params`, and implement `clips` (and `fetch`).

    `modalities` lists the keys of `Clip.files`; nothing outside this file and params.yaml knows them. There are three
    kinds: the fetch stage generates the files (`fetch`, no `folder`); the published files are read where the user keeps
    them (`folder`, no `fetch`); the fetch stage converts the published files to a file per clip and modality (both).
    """

    Params: ClassVar[type[DatasetParams]] = DatasetParams
    name: ClassVar[str]  # that it is registered under
    modalities: ClassVar[tuple[str, ...]]
    task: ClassVar[str] = "classification"  # what a label is, by its name in `tasks`

    # What a user must know of published data; `python -m pipeline_src check` prints it.
    title: ClassVar[str] = ""
    homepage: ClassVar[str] = ""
    licence: ClassVar[str] = ""
    citation: ClassVar[str] = ""
    layout: ClassVar[str] = ""  # tree of `folder`, with where to get each part
    downloads: ClassVar[tuple[Download, ...]] = ()
    cut: str = ""  # a sentence: how the test set was cut, where the files do not say it
    shared: ClassVar[str] = ""  # a sentence: what all draws of the data have in common, where seeds draw other data

    def __init__(self, params: DatasetParams):
        self.params = params

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, an attribute unless they come with the data: then they are read when a job runs."""
        raise NotImplementedError

    @property
    def segments(self) -> int:
        """How many segments a sample is cut into, each with a label of its own; 0 where its label is of the whole."""
        return 0

    @property
    def sizes(self) -> dict[str, int]:
        """Clips per published split, an attribute: for `estimate`, and whether val is published."""
        return {}

    @property
    def folder(self) -> Path | None:
        """The user's folder with the published files, or None if there is none."""
        folder = getattr(self.params, "folder", None)
        return None if folder is None else Path(folder).expanduser()

    @property
    def spans(self) -> bool:
        """Whether its clips are parts of files, which extractors must be able to read."""
        return False

    def refuses(self, what: str) -> str | None:
        """Why `what` of the data cannot vary with the seed (a `study.vary`), or None if it can."""
        if what == "split" and "val" in self.sizes:
            return "expected a dataset whose val is cut from train, but got one that publishes its val"
        if not varying(self.Params, what):
            return "expected a dataset that is drawn from a seed, but got one that is published"
        return None

    def fetch(self, folder: Path) -> None:
        """Generate or convert the raw media into `folder`, which is new and empty; renamed into place afterwards."""
        raise NotImplementedError

    def clips(self, folder: Path) -> Iterable[Clip]:
        """Every clip that the dataset's lists name, on disk or not. Raises UserError on a bad list."""
        raise NotImplementedError


class Published(Dataset):
    """A dataset whose published files the user keeps in a folder."""

    Params: ClassVar[type[DatasetParams]] = FolderParams
    params: FolderParams

    @property
    def folder(self) -> Path:
        return Path(self.params.folder).expanduser()


def no_folder(name: str, folder: Path) -> str:
    """The error for a dataset whose folder is missing."""
    return (
        f"{name}: expected its files in {folder}, but there is no such folder; `python -m pipeline_src fetch {name}` "
        "downloads what may be downloaded and lists what you must add"
    )
