"""Studies on disk to attack: one of the user's own files, and one that is finished."""

import contextlib
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from tests.attacks.judge import STUDY, Outcome, call
from tests.media import clips

CREMAD = """\
  cremad:
    folder: media
    recipe: small-1
    val_fraction: 0.4
    split_seed: 0
    max_quarantine: 0.5
    shards: 2
    split: authors
"""
TRAIN, TEST = [f"{actor}_DFA_ANG_XX" for actor in range(1001, 1007)], ["1007_DFA_ANG_XX", "1008_DFA_ANG_XX"]
BAD = TRAIN[0]  # the clip that is attacked
FOLDERS = {"audio": "AudioWAV/{}.wav", "visual": "VideoFlash/{}.mp4"}


def params(block: str = CREMAD, name: str = "cremad") -> str:
    """The small study of a folder of the user's."""
    return STUDY.replace("recipes:\n  small-1", block + "recipes:\n  small-1").replace("[digits]", f"[{name}]")


def cremad(folder: Path) -> Path:
    """`p.yaml` and the files of eight clips of CREMA-D in `folder`, as the published lists name them."""
    media = folder / "media"
    for name in ("lists", "AudioWAV", "VideoFlash"):
        (media / name).mkdir(parents=True)
    for split, names in (("train", TRAIN), ("test", TEST)):
        (media / f"lists/{split}.csv").write_text("".join(f"{name},ANG\n" for name in names))
    for i, name in enumerate([*TRAIN, *TEST]):
        clips.write(media / FOLDERS["audio"].format(name), wave=clips.noise(1, 16_000, seed=i), rate=16_000)
        clips.write(media / FOLDERS["visual"].format(name), frames=clips.greys(12))
    (folder / "p.yaml").write_text(params())
    return folder


def copy(template: Path, folder: Path) -> Path:
    """A copy to attack; the current folder is to be this one, as paths of a study are relative."""
    shutil.copytree(template, folder, symlinks=True, dirs_exist_ok=True)
    return folder


def made() -> Outcome:
    """The outcome of manifest, extract and cache in the current folder: of the first that fails, or of the last."""
    outcome = Outcome(1, "", "nothing was run")
    for stage in ("manifest", "extract", "cache"):
        outcome = call(stage, "--params", "p.yaml")
        if outcome.status:
            break
    return outcome


def quarantined() -> dict[str, str]:
    """{clip: reason} of the cache in the current folder."""
    (file,) = Path("data/cache").glob("*/*/quarantine.parquet")
    table = pd.read_parquet(file)
    return dict(zip(table["id"], table["reason"], strict=True))


def finished(folder: Path) -> Path:
    """The small study of digits, from fetch to the tables."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "p.yaml").write_text(STUDY)
    with contextlib.chdir(folder):
        for stage in ("fetch", "manifest", "extract", "cache", "train", "evaluate", "aggregate"):
            done = call(stage, "--params", "p.yaml", *targets(stage))
            assert done.status == 0, (stage, done.err)
    return folder


def targets(stage: str) -> list[str]:
    """What the plan of the current folder lists for a stage."""
    lines = call("plan", "--params", "p.yaml").out.splitlines()
    return [line.split()[-1] for line in lines if stage in line.split()[:2]]


def random_bytes(count: int) -> bytes:
    return np.random.default_rng(0).bytes(count)
