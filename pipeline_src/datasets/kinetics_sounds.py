"""Kinetics-Sounds: 31 classes of Kinetics-400 that can be both seen and heard (Arandjelovic & Zisserman, 2017).

The split is that of OGM-GE's lists: 14,799 train, 2,597 test. Rows are `<name>,<seconds>,<class number>`; numbers are
those of the classes in alphabetical order (as OPM's repository names them). Training names are `<video>_<start>_<end>`
as Kinetics' files are, test names `<video>_<start>`; either names its file. The group is the YouTube video.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from pipeline_src.core.errors import UserError
from pipeline_src.datasets import lists
from pipeline_src.datasets.base import Clip, Published, datasets, github

OGM_GE = ("GeWu-Lab/OGM-GE_CVPR2022", "343dc1d95c9bda88f105c0da8d24f185e0e98b54")
FIX = "fetch the lists again"
VIDEOS = (".mp4", ".mkv", ".webm")


@datasets.register("kinetics_sounds")
class KineticsSounds(Published):
    modalities = ("audio", "visual")
    classes = tuple(
        """
        blowing_nose blowing_out_candles bowling chopping_wood dribbling_basketball laughing mowing_lawn
        playing_accordion playing_bagpipes playing_bass_guitar playing_clarinet playing_drums playing_guitar
        playing_harmonica playing_keyboard playing_organ playing_piano playing_saxophone playing_trombone
        playing_trumpet playing_violin playing_xylophone ripping_paper shoveling_snow shuffling_cards singing
        stomping_grapes tap_dancing tapping_guitar tapping_pen tickling
        """.split()  # noqa: SIM905
    )
    title = "Kinetics-Sounds"
    homepage = "https://github.com/cvdfoundation/kinetics-dataset (Kinetics-400)"
    licence = "annotations CC BY 4.0; videos under YouTube's terms"
    citation = "Arandjelovic and Zisserman, Look, Listen and Learn, ICCV 2017; Kay et al., arXiv:1705.06950"
    sizes: ClassVar = {"train": 14_799, "test": 2_597}
    layout = """
videos/**/--4-0ihtnBU_000058_000068.mp4 ...    the listed clips of Kinetics-400's train and val parts, in any folders
lists/                                         fetched
"""
    downloads = (
        github(
            *OGM_GE,
            "data/KineticSound/my_train.txt",
            "lists/my_train.txt",
            "e75bb596c30bf839adb3c2dc73b4a4617add66b36c2f416f96ac2e56a251751f",
            483_173,
        ),
        github(
            *OGM_GE,
            "data/KineticSound/my_test.txt",
            "lists/my_test.txt",
            "3bb1fee2c9d30919cec6887a3e2fa27b7936cc3f46dff447d85ea21892a80a58",
            56_016,
        ),
    )

    def clips(self, folder: Path) -> Iterable[Clip]:
        rows = [
            (row, split)
            for split in ("train", "test")
            for row in lists.read(folder / f"lists/my_{split}.txt", ("id", "seconds", "label"), FIX)
        ]
        lists.once([row for row, _ in rows], lambda row: row.cells[0], FIX)
        present = lists.stems(folder, VIDEOS)
        for row, split in rows:
            clip, _, number = row.cells
            if not (number.isdecimal() and int(number) < len(self.classes)):
                raise UserError(
                    f"{row.place}: expected a class number from 0 to {len(self.classes) - 1}, but got {number!r}; {FIX}"
                )
            video, names = _names(clip)
            file = next((present[name] for name in names if name in present), Path(f"videos/{names[0]}.mp4"))
            yield Clip(clip, self.classes[int(number)], split, video, dict.fromkeys(self.modalities, file))


def _names(clip: str) -> tuple[str, list[str]]:
    """YouTube's name of the video, and the names that a clip's file may have."""
    video, numbers = clip[:11], clip[12:].split("_")
    if numbers[0].isdecimal():
        start = int(numbers[0])
        return video, [f"{video}_{start:06d}_{start + 10:06d}", clip, f"{video}_{start}", f"{video}_{start:06d}"]
    return clip, [clip]
