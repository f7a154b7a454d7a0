"""CREMA-D: 7,442 clips of 91 actors who say one of 12 sentences in one of 6 emotions (Cao et al., 2014).

Splits (`split`):

authors     Published by OGM-GE, used by PMR, MMPareto and others: 6,698 train, 744 test. All 91 actors occur
            on both sides, so it measures emotion recognition of known speakers. Val is cut from train, by actor.
relearning  The same test clips, with the val of Diagnosing & Re-learning: 5,954 train, 744 val. Actors occur in all
            three.
speakers    Ours: the clips of every tenth actor (1005, 1015 ... 1085) are the test split, so that no speaker is on two
            sides.

The group of a clip is its actor, the first four digits of its name.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import Field

from pipeline_src.datasets import lists
from pipeline_src.datasets.base import Clip, FolderParams, Published, datasets, github

OGM_GE = ("GeWu-Lab/OGM-GE_CVPR2022", "343dc1d95c9bda88f105c0da8d24f185e0e98b54", "data/CREMAD")
RELEARNING = (
    "GeWu-Lab/Diagnosing_Relearning_ECCV2024",
    "025085ea82ed784c6ab6e5fb1b08bfe498dd0fc7",
    "code/dataset/cremad",
)
FIX = "fetch the lists again"
COLUMNS = ("clip", "label")


class CremadParams(FolderParams):
    split: Literal["authors", "relearning", "speakers"] = Field(
        description="`authors` of OGM-GE, `relearning` with the published val, `speakers`: no actor on two sides"
    )


@datasets.register("cremad")
class Cremad(Published):
    Params = CremadParams
    params: CremadParams
    modalities = ("audio", "visual")
    classes = ("NEU", "HAP", "SAD", "FEA", "DIS", "ANG")
    title = "CREMA-D"
    homepage = "https://github.com/CheyneyComputerScience/CREMA-D"
    licence = "Open Database License (ODbL) and Database Contents License (DbCL)"
    citation = "Cao et al., CREMA-D: Crowd-sourced Emotional Multimodal Actors Dataset, IEEE TAC 5(4), 2014"
    layout = """
AudioWAV/1001_DFA_ANG_XX.wav ...    git lfs clone the repository above, both folders are in it
VideoFlash/1001_DFA_ANG_XX.flv ...
lists/                              fetched
"""
    downloads = (
        github(
            *OGM_GE[:2],
            f"{OGM_GE[2]}/train.csv",
            "lists/train.csv",
            "68d0d3fd253830328fc92c68f3cf2e215db8c5b86757ad9c5112d2c76ba68bde",
            140_658,
        ),
        github(
            *OGM_GE[:2],
            f"{OGM_GE[2]}/test.csv",
            "lists/test.csv",
            "14866c99301fd56fb4a16f8a7048a8a6372a47069aee9f216443bc718be45f1f",
            15_624,
        ),
        github(
            *RELEARNING[:2],
            f"{RELEARNING[2]}/my_train.csv",
            "lists/relearning_train.csv",
            "eaf4d9332c743a8e0a0538e53f15f86552fb961858a8347588f6ffc09071b232",
            119_080,
        ),
        github(
            *RELEARNING[:2],
            f"{RELEARNING[2]}/val.csv",
            "lists/relearning_val.csv",
            "ecbd82453caca8a7126df010d67b33813387af3cbe32efe5eb5a94ed2d161291",
            14_880,
        ),
    )

    @property
    def sizes(self) -> dict[str, int]:
        if self.params.split == "relearning":
            return {"train": 5_954, "val": 744, "test": 744}
        return {"train": 6_698, "test": 744}  # of `speakers` about

    def clips(self, folder: Path) -> Iterable[Clip]:
        names = {"train": "relearning_train", "val": "relearning_val"} if self.params.split == "relearning" else {}
        rows = []
        for split in ("train", *(["val"] if names else []), "test"):
            file = folder / "lists" / f"{names.get(split, split)}.csv"
            rows += [(row, split) for row in lists.read(file, COLUMNS, FIX)]
        lists.once([row for row, _ in rows], lambda row: row.cells[0], FIX)
        actors = sorted({row.cells[0].split("_")[0] for row, _ in rows})
        tested = set(actors[4::10])
        sound, video = lists.stems(folder, (".wav",)), lists.stems(folder, (".flv", ".mp4"))
        for row, split in rows:
            clip, label = row.cells[0], lists.label(row, row.cells[1], self.classes, FIX)
            actor = clip.split("_")[0]
            if self.params.split == "speakers":
                split = "test" if actor in tested else "train"
            paths = {
                "audio": sound.get(clip, Path(f"AudioWAV/{clip}.wav")),
                "visual": video.get(clip, Path(f"VideoFlash/{clip}.flv")),
            }
            yield Clip(clip, label, split, actor, paths)
