"""What of the data varies with the seed of a run: the study's `vary`.

A field of a dataset's parameters that is marked `Varies(what)` is the seed of the val cut (`split`) or of a draw of
the data (`data`). Where the study lets `what` vary, the value that each seed's runs get is derived from the field's own
value and the seed, so all runs of a seed read the same data, and that of another seed is other data.
"""

from collections.abc import Collection

from pipeline_src.core.params import varying
from pipeline_src.core.seeding import seed_of
from pipeline_src.datasets.base import DatasetParams, datasets
from pipeline_src.study.params import Params
from pipeline_src.study.yaml import Mistakes

BITS = 31  # of a derived seed: the smallest limit of a field


def varied(params: DatasetParams, vary: Collection[str], seed: int) -> DatasetParams:
    """The parameters of a dataset for the runs of a seed."""
    fields = [field for what in vary for field in varying(type(params), what)]
    return params.model_copy(update={name: _derived(seed, name, getattr(params, name)) for name in fields})


def _derived(seed: int, name: str, value: object) -> int:
    return seed_of(seed, "vary", name, value) >> (63 - BITS)


def check(params: Params, mistakes: Mistakes) -> None:
    """Note what the study lets vary though a dataset cannot."""
    for i, what in enumerate(params.study.vary):
        refusals: dict[str, str] = {}  # of several datasets the first
        for name in params.study.datasets:
            block = params.datasets.get(name)
            if block is not None and (why := datasets[block.kind](block).refuses(what)):
                refusals.setdefault(why, name)
        for why, name in refusals.items():
            mistakes.add(("study", "vary", i), f"{why} (dataset {name!r}); remove {what!r}")
