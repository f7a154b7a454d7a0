"""Small copies of the published datasets: their layouts, lists, containers and codecs, with noise in them."""

import csv
import gzip
import pickle
import shutil
import struct
from pathlib import Path

import numpy as np
import yaml

from pipeline_src.study.outputs import Data
from pipeline_src.study.plan import Plan
from tests.media import clips

ROOT = Path(__file__).parents[2]
PER_CLASS = {"train": 4, "test": 2}
BLOCK = {"recipe": "small", "val_fraction": 0.25, "split_seed": 0, "max_quarantine": 0.2, "shards": 1}

SOUND = {
    "kind": "log_stft",
    "sample_rate": 16_000,
    "seconds": 1.0,
    "pad": "zero",
    "n_fft": 512,
    "hop": 353,
    "floor": 1e-7,
}
FRAMES = {"kind": "frames", "count": 2, "size": 32, "pick": "centers", "fit": "crop"}


def media(folder: Path, name: str, **content) -> Path:
    """One media file, to be copied."""
    (folder / ".made").mkdir(parents=True, exist_ok=True)
    return clips.write(folder / ".made" / name, **content)


def put(source: Path, *targets: Path) -> None:
    for target in targets:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


def rows(file: Path, lines: list, separator: str = ",") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle, delimiter=separator, lineterminator="\n").writerows(lines)


def both(folder: Path, suffix: str) -> Path:
    return media(folder, f"clip{suffix}", frames=clips.greys(6), fps=12, wave=clips.noise(0.5))


def cremad(folder: Path) -> dict:
    """FLV and WAV as published; ten actors, six emotions."""
    video = media(folder, "clip.flv", frames=clips.greys(6), fps=12)
    sound = media(folder, "clip.wav", wave=clips.noise(0.5, 16_000), rate=16_000)
    lists = {"train": [], "test": []}
    for actor in range(1001, 1011):
        for emotion in ("NEU", "HAP", "SAD", "FEA", "DIS", "ANG"):
            clip = f"{actor}_IEO_{emotion}_XX"
            put(video, folder / f"VideoFlash/{clip}.flv")
            put(sound, folder / f"AudioWAV/{clip}.wav")
            # as published: every actor on both sides
            lists["test" if (actor + len(emotion) + ord(emotion[0])) % 5 == 0 else "train"].append((clip, emotion))
    for split, lines in lists.items():
        rows(folder / f"lists/{split}.csv", lines)
    return {"kind": "cremad", "split": "authors"}


def kinetics_sounds(folder: Path) -> dict:
    """MP4 in folders by class; test names without an end, as in the lists."""
    from pipeline_src.datasets.kinetics_sounds import KineticsSounds

    video, lists = both(folder, ".mp4"), {"train": [], "test": []}
    for number, label in enumerate(KineticsSounds.classes):
        for i in range(PER_CLASS["train"]):
            name = f"-{number:02d}abcdef{i:02d}_000058_000068"
            lists["train"].append((name, 10, number))
            put(video, folder / f"videos/train/{label}/{name}.mp4")
        lists["test"].append((f"_{number:02d}abcdefgh_2", 10, number))
        put(video, folder / f"videos/val/{label}/_{number:02d}abcdefgh_000002_000012.mp4")
    for split, lines in lists.items():
        rows(folder / f"lists/my_{split}.txt", lines)
    return {"kind": "kinetics_sounds"}


def vggsound(folder: Path, files: int = 20) -> dict:
    """MP4; the list has all 309 classes, with commas in some."""
    video, lines = both(folder, ".mp4"), []
    for number in range(309):
        label = f"female speech, woman {number}" if number % 10 == 0 else f"sound {number}"
        lines += [(f"{number:03d}{i}abcdefg", i, label, "test" if i == 2 else "train") for i in range(3)]
    rows(folder / "vggsound.csv", lines)
    for name, start, *_ in lines[:files] if files else lines:
        put(video, folder / f"video/{name}_{start:06d}.mp4")
    return {"kind": "vggsound", "val_fraction": 0.45}


def ave(folder: Path) -> dict:
    """MP4; lists with '&', labels with commas, a video that stands twice."""
    video = both(folder, ".mp4")
    for split, count in (("train", 3), ("val", 1), ("test", 1)):
        lines = [
            (f"Event {c}, loud", f"{split[:2]}{c:02d}{i}abcdef", "good", 0, 10) for c in range(28) for i in range(count)
        ]
        for line in lines:
            put(video, folder / f"AVE/{line[1]}.mp4")
        if split == "train":
            lines.append((lines[0][0], lines[0][1], "good", 3, 5))
        rows(folder / f"lists/{split}Set.txt", lines, "&")
    return {"kind": "ave"}


def ave_arrays(clips: int = 32) -> dict[str, np.ndarray]:
    """The published features, small: the event of clip i is class i mod 28, from second 2 on; features hold i."""
    labels, number = np.zeros((clips, 10, 29)), np.arange(clips, dtype=np.float32)
    for i in range(clips):
        labels[i, :2, 28], labels[i, 2:, i % 28] = 1, 1
    order = {"train": [3, 0, 1, 2, *range(4, clips - 4)], "val": range(clips - 4, clips - 2)}
    order["test"] = [clips - 1, clips - 2]
    return {
        "labels": labels,
        "audio_feature": np.broadcast_to(number[:, None, None], (clips, 10, 128)).copy(),
        "visual_feature": np.broadcast_to(number[:, None, None, None, None], (clips, 10, 7, 7, 512)).copy(),
    } | {f"{split}_order": np.array(rows) for split, rows in order.items()}


def ave_features(folder: Path, content: dict[str, np.ndarray] | None = None, suffix: str = "npy") -> dict:
    """Arrays as .npy, or as the published HDF5 files."""
    folder.mkdir(exist_ok=True)
    for stem, values in (content or ave_arrays()).items():
        if suffix == "npy":
            np.save(folder / f"{stem}.npy", values)
            continue
        import h5py

        with h5py.File(folder / f"{stem}.h5", "w") as file:
            file["order" if "order" in stem else "avadataset"] = values
    return {"kind": "ave_features"}


def ucf101(folder: Path) -> dict:
    """AVI with MPEG-4 part 2 (Xvid's format); 101 classes, some groups of each, splits by group."""
    video, index = media(folder, "clip.avi", frames=clips.greys(6), fps=25), []
    lists = {split: {1: [], 2: [], 3: []} for split in ("train", "test")}
    for number in range(1, 102):
        label = f"Action{number:03d}"
        index.append((number, label))
        for group in range(1, 6):
            name = f"{label}/v_{label}_g{group:02d}_c01.avi"
            put(video, folder / "UCF-101" / name)
            for split in (1, 2, 3):
                if group == split:
                    lists["test"][split].append((name,))
                else:
                    lists["train"][split].append((name, number))
    rows(folder / "ucfTrainTestlist/classInd.txt", index, " ")
    for side, splits in lists.items():
        for split, lines in splits.items():
            rows(folder / f"ucfTrainTestlist/{side}list{split:02d}.txt", lines, " ")
    return {"kind": "ucf101", "split": 1}


def idx(file: Path, array: np.ndarray) -> None:
    head = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    file.write_bytes(gzip.compress(head + array.tobytes(), mtime=0))


def cg_mnist(folder: Path) -> dict:
    """Gzipped IDX files."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 60), ("t10k", 30)):
        idx(folder / f"{part}-images-idx3-ubyte.gz", rng.integers(256, size=(count, 28, 28), dtype=np.uint8))
        idx(folder / f"{part}-labels-idx1-ubyte.gz", np.arange(count, dtype=np.uint8) % 10)
    return {"kind": "cg_mnist", "colors": "made", "variance": 0.03, "seed": 0}


def sentiment(folder: Path, kind: str, file: str) -> dict:
    """A pickle of features, protocol 2, with the -inf that the published sound has."""
    rng, content = np.random.default_rng(0), {}
    for split, count in (("train", 24), ("valid", 8), ("test", 8)):
        arrays = {name: rng.normal(size=(count, 6, size)) for name, size in (("vision", 5), ("audio", 4), ("text", 7))}
        arrays["audio"][0, 0, 0] = -np.inf
        labels = np.where(np.arange(count) % 2, 1.5, -0.5).reshape(-1, 1, 1)
        ids = [[f"-{split}{i // 3}[{i % 3}]"] for i in range(count)]
        content[split] = {**arrays, "labels": labels, "id": np.array(ids, dtype=object)}
    (folder / file).write_bytes(pickle.dumps(content, protocol=2))
    return {"kind": kind, "file": file}


def food101(folder: Path) -> dict:
    """JPEG by split and class; titles with commas, quotes, line ends and other alphabets."""
    import cv2

    (folder / ".made").mkdir(exist_ok=True)
    cv2.imwrite(str(folder / ".made/picture.jpg"), np.full((40, 60, 3), 90, np.uint8))
    for split, count in PER_CLASS.items():
        lines = []
        for number in range(101):
            for i in range(count):
                name = f"dish_{number:03d}_{split}{i}.jpg"
                lines.append((name, f'Dish {number}, "the best" | crème\nand more', f"dish_{number:03d}"))
                put(folder / ".made/picture.jpg", folder / f"images/{split}/dish_{number:03d}/{name}")
        rows(folder / f"texts/{split}_titles.csv", lines)
    return {"kind": "food101"}


MADE = {
    "cremad": cremad,
    "kinetics_sounds": kinetics_sounds,
    "vggsound": lambda folder: vggsound(folder, 0),
    "ave": ave,
    "ave_segments": lambda folder: ave(folder) | {"kind": "ave_segments"},
    "ave_features": ave_features,
    "ucf101": ucf101,
    "cg_mnist": cg_mnist,
    "cmu_mosi": lambda folder: sentiment(folder, "cmu_mosi", "mosi_data.pkl"),
    "cmu_mosei": lambda folder: sentiment(folder, "cmu_mosei", "mosei_senti_data.pkl"),
    "food101": food101,
}

EXTRACTORS = {
    "audio": SOUND,
    "visual": FRAMES,
    "rgb": FRAMES,
    "flow": {"kind": "flow", "count": 1, "size": 32, "pick": "centers", "fit": "crop"},
    "gray": {"kind": "image", "size": 28, "color": "grey", "fit": "crop"},
    "colored": {"kind": "image", "size": 28, "color": "rgb", "fit": "crop"},
    "image": {"kind": "image", "size": 32, "color": "rgb", "fit": "crop"},
    "text": {"kind": "tokens", "length": 8, "buckets": 100},
}
FEATURES = {
    name: {"kind": "array", "length": 6, "features": size, "non_finite": "zero"}
    for name, size in (("visual", 5), ("audio", 4), ("text", 7))
}
SECONDS = {
    name: {"kind": "array", "length": 10, "features": size, "non_finite": "refuse"}
    for name, size in (("visual", 7 * 7 * 512), ("audio", 128))
}
BY_SECOND = {"audio": SOUND, "visual": FRAMES | {"count": 10}}  # cut into ten
SMALL = {"kind": "resnet", "width": 4, "depth": [1, 1]}
ENCODERS = {
    "array": {"kind": "transformer", "width": 8, "layers": 1, "heads": 2, "feedforward": 8},
    "tokens": {"kind": "embedding", "words": 101, "width": 8},
}


def params(folder: Path, kind: str, **block) -> dict:
    """params.yaml for one dataset in `folder`, of the shipped one's other values."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    from pipeline_src.datasets.base import datasets

    modalities = datasets[kind].modalities
    own = {"ave_features": SECONDS, "ave_segments": BY_SECOND, "cmu_mosi": FEATURES, "cmu_mosei": FEATURES}
    recipe = {m: own.get(kind, EXTRACTORS)[m] for m in modalities}
    values["study"] |= {"datasets": [kind], "fusions": ["concat"], "methods": ["joint"], "seeds": [0]}
    values["datasets"] = {kind: {**BLOCK, "folder": str(folder), **block}}
    values["recipes"] = {"small": recipe}
    values["model"]["encoders"] = {m: ENCODERS.get(recipe[m]["kind"], SMALL) for m in modalities}
    values["training"] |= {"augmentation": {m: {} for m in modalities}, "epochs": 1}
    values["methods"] = {}
    return values


def plan(tmp_path: Path, folder: Path, kind: str, **block) -> Data:
    """The plan's entry of the dataset, from a params file in `tmp_path`, the working directory."""
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params(folder, kind, **block)))
    return Plan(tmp_path / "params.yaml").named(kind)[0]
