"""The quarantine: clips that cannot be read are named with their reason, and too many of them stop the run."""

import pandas as pd

from pipeline_src.core.errors import UserError, listed


def table(rows: list[tuple[str, str, str, str]], stage: str) -> pd.DataFrame:
    """Rows (id, modality, file, reason) as a table that also says which stage found them."""
    found = pd.DataFrame(rows, columns=["id", "modality", "file", "reason"], dtype="str")
    return found.assign(stage=pd.Series(stage, index=found.index, dtype="str"))


def check_share(data, bad: pd.DataFrame, clips: int) -> None:
    """Raises UserError if more clips are quarantined than the dataset's parameters allow, or all of them."""
    share = len(bad) / clips
    if share > data.max_quarantine or share == 1:
        reasons = [f"{n} x {reason}" for reason, n in bad.reason.value_counts().items()]
        raise UserError(
            f"{data.name}: {len(bad)} of {clips} clips ({share:.1%}) are quarantined, more than "
            f"datasets.{data.name}.max_quarantine = {data.max_quarantine:.1%} allows: {listed(reasons)}; "
            f"first {bad.file.iloc[0]}. Fix the files in {data.raw} or raise the share"
        )
