"""The quarantine: a table of clips that cannot be read, with the reasons. Too many of them stop the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from pipeline_src.core.errors import UserError, listed

if TYPE_CHECKING:
    from pipeline_src.study.outputs import Data


def table(rows: list[tuple[str, str, str, str]], stage: str) -> pd.DataFrame:
    """Rows (id, modality, file, reason) as a table, with the stage that wrote them."""
    bad = pd.DataFrame(rows, columns=["id", "modality", "file", "reason"], dtype="str")
    return bad.assign(stage=pd.Series(stage, index=bad.index, dtype="str"))


def check_fraction(data: Data, bad: pd.DataFrame, clips: int) -> None:
    """Raises UserError if more clips are quarantined than the dataset's parameters allow, or all of them."""
    fraction = len(bad) / clips
    if fraction > data.max_quarantine or fraction == 1:
        reasons = [f"{n} x {reason}" for reason, n in bad.reason.value_counts().items()]
        raise UserError(
            f"{data.name}: {len(bad)} of {clips} clips ({fraction:.1%}) are quarantined, more than "
            f"datasets.{data.name}.max_quarantine = {data.max_quarantine:.1%} allows: {listed(reasons)}; "
            f"first {bad.file.iloc[0]}. Fix the files in {data.raw} or raise max_quarantine"
        )
