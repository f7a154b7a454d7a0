"""Spoken and written digits: a small audio-visual dataset that is generated on the spot, offline.

Each clip shows one of scikit-learn's 1,797 handwritten digits (the test part of UCI's "Optical Recognition of
Handwritten Digits") moving over a noisy background, while eSpeak NG says it in one of its voices, in white noise.
Parameters set how hard each modality is to read, so that either can be made to dominate.

Writers. scikit-learn ships no writer identities, but it keeps the order of the forms that the writers filled in: the
labels repeat one sequence of 130 digits 14 times, but for a few digits left out, and a form begins with 0 to 9 three
times over (`FORM_STARTS` is where). The forms are 14 different hands: between two of them, the images of a class
differ at least 4.8 times as much as chance allows, between the halves of one form at most 1.6 times. So a form counts
as a writer. Writers, and the voices dealt out to them, are disjoint between train and test, and between train and val
because the writer is the clip's group.

The same parameters give the same content, and the same bytes with the same versions of FFmpeg, x264 and eSpeak NG.
"""

import csv
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import numpy as np
from pydantic import AfterValidator, Field

from pipeline_src.core.errors import UserError, listed
from pipeline_src.core.labels import Label
from pipeline_src.core.params import Varies
from pipeline_src.datasets import lists
from pipeline_src.datasets.base import Clip, Dataset, DatasetParams, datasets
from pipeline_src.datasets.written import write_clip

log = logging.getLogger(__name__)

FORM_STARTS = (0, 130, 256, 386, 516, 646, 776, 906, 1029, 1157, 1287, 1415, 1545, 1667)
DIGITS = 1797
SAMPLE_RATE = 22_050  # Hz, what eSpeak NG gives

# Variants that sound human; of those that sound nearly alike (steph to steph3, adam and benjamin ...) only one, so
# that the test set does not hold a training voice under another name.
VOICES = tuple(
    """
    Alex Alicia Andrea Andy Annie Denis Diogo Gene Jacky Lee Mario Michael Mike Nguyen Reed adam anika antonio aunty
    belinda boris david ed edward f1 f2 f3 f4 f5 grandma grandpa gustave ian iven john linda m1 m2 m3 m4 m5 m6 m7 m8
    marcelo max norbert pablo paul pedro quincy rob sandro shelby steph travis victor zac
    """.split()  # noqa: SIM905
)

COLUMNS = ("id", "label", "split", "group", "file", "voice")
FIX = "fetch the dataset again"


def _ascending(pair: list) -> list:
    if pair[0] > pair[1]:
        raise ValueError(f"expected [low, high] with low <= high, but got {pair}")
    return pair


Bound = TypeVar("Bound")
Range = Annotated[list[Bound], Field(min_length=2, max_length=2), AfterValidator(_ascending)]
Share = Annotated[float, Field(gt=0, le=1)]
Decibels = Annotated[float, Field(ge=-60, le=60)]


class AVDigitsParams(DatasetParams):
    seed: Annotated[int, Varies("data")] = Field(
        ge=0, le=2**31 - 1, description="seed of everything that is drawn when the clips are generated"
    )
    writer_seed: Annotated[int | None, Varies("data")] = Field(
        None, ge=0, le=2**31 - 1, description="seed of the draw of the writers of test; null: the last ones"
    )
    clips: int = Field(
        ge=len(FORM_STARTS), le=DIGITS, description="how many clips, spread evenly over the 14 writers and 10 classes"
    )
    test_writers: int = Field(
        ge=1,
        le=len(FORM_STARTS) - 2,
        description="how many of the 14 writers, with their voices, make up the test split",
    )
    seconds: float = Field(ge=0.5, le=10, description="length of a clip, s")
    fps: int = Field(ge=1, le=60, description="video frames per second")
    pixels: int = Field(
        ge=16, le=512, multiple_of=2, description="side of the square video, pixels (even, as H.264 wants)"
    )
    digit_scale: Range[Share] = Field(description="[low, high] of the digit's side as a fraction of the frame's")
    contrast: Range[Share] = Field(
        description="[low, high] of the ink's brightness above the ground, fraction of full scale"
    )
    texture: float = Field(
        ge=0, le=0.5, description="standard deviation of the still, smooth ground, fraction of full scale"
    )
    visual_noise: float = Field(
        ge=0, le=0.5, description="standard deviation of the white noise in each frame, fraction of full scale"
    )
    occlusion: float = Field(
        ge=0,
        le=0.5,
        description="width of each of the two moving bars (one upright, one level) as a fraction of the frame's side",
    )
    distractors: int = Field(ge=0, le=10, description="moving halves of other digits of the same writer in a clip")
    snr_db: Range[Decibels] = Field(description="[low, high] of the power of the speech over that of white noise, dB")


@datasets.register("av_digits")
class AVDigits(Dataset):
    Params: ClassVar[type[DatasetParams]] = AVDigitsParams
    params: AVDigitsParams
    modalities = ("audio", "visual")
    classes: ClassVar[tuple[str, ...]] = (
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
    )
    shared = (
        "All draws have the same 14 writers, so the training sets of two seeds share images of digits, and intervals"
        " are narrower than for writers never seen."
    )

    def fetch(self, folder: Path) -> None:
        """Generate `clips.csv` and `media/<id>.mp4`. Raises UserError if speech or video cannot be made."""
        plans = planned(self.params)
        # The speech engine carries state from word to word: one fresh process that says all words in order is
        # deterministic. Spawned, as a fork would copy the engine's state and this process's threads.
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            words = pool.submit(spoken, plans, self.params.seed).result()
        longest, room = max(map(len, words)) / SAMPLE_RATE, self.params.seconds / max(1, self.segments)
        if longest > room:
            raise UserError(f"{self.name}.seconds: the longest spoken digit takes {longest:.2f} s, but got {room:g}")
        (folder / "media").mkdir(parents=True)
        files = [folder / plan.file for plan in plans]
        with ProcessPoolExecutor(2, get_context("spawn")) as pool:
            written = pool.map(self.maker, files, plans, words, [self.params] * len(plans), chunksize=10)
            for count, _ in enumerate(written, start=1):
                if count % 200 == 0 or count == len(plans):
                    log.info(f"fetch {self.name}  {count} of {len(plans)} clips")
        with (folder / lists.CLIPS).open("w", encoding="utf-8", newline="") as handle:
            table = csv.writer(handle, lineterminator="\n")
            table.writerow(COLUMNS)
            table.writerows([plan.id, self.labelled(plan), *(getattr(plan, c) for c in COLUMNS[2:])] for plan in plans)

    @property
    def maker(self) -> Callable[..., None]:
        """What makes a clip's file; a function that another process can import."""
        return _make

    def labelled(self, plan: "Plan") -> str:
        """A clip's label in clips.csv."""
        return plan.label

    def label(self, row: lists.Row, text: str) -> Label:
        """A clip's label from clips.csv."""
        return lists.label(row, text, self.classes, FIX)

    @property
    def sizes(self) -> dict[str, int]:
        test = self.params.clips * self.params.test_writers // len(FORM_STARTS)
        return {"train": self.params.clips - test, "test": test}

    def clips(self, folder: Path) -> Iterable[Clip]:
        """One Clip per row of clips.csv. Raises UserError, naming the line, if the list is not what `fetch` writes."""
        rows = lists.read(folder / lists.CLIPS, COLUMNS, FIX, header=True)
        for row in lists.once(rows, lambda row: row.cells[0], FIX):
            clip, label, split, group, file, _ = row.cells
            if split not in ("train", "test"):
                raise UserError(f"{row.place}: expected train or test, but got {split!r}; {FIX}")
            files = dict.fromkeys(self.modalities, Path(file))
            yield Clip(clip, self.label(row, label), split, group, files)


# --- what each clip shows and says -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """One clip before it is made; `row` is the digit's in scikit-learn's table."""

    row: int
    label: str
    split: str
    group: str
    voice: str

    @property
    def id(self) -> str:
        return f"digit-{self.row:04d}"

    @property
    def file(self) -> str:
        return f"media/{self.id}.mp4"


def writers() -> np.ndarray:
    """Writer, 0 to 13, of each row of scikit-learn's digits: int (1797,)."""
    return np.searchsorted(FORM_STARTS, np.arange(DIGITS), side="right") - 1


def tested(params: AVDigitsParams) -> set[int]:
    """The writers of the test split."""
    order = np.arange(len(FORM_STARTS))
    if params.writer_seed is not None:
        order = np.random.default_rng(params.writer_seed).permutation(order)
    return set(order[-params.test_writers :].tolist())


def planned(params: AVDigitsParams) -> list[Plan]:
    """The clips to make, in the table's order."""
    from sklearn.datasets import load_digits

    rng = np.random.default_rng(params.seed)
    labels, writer = load_digits().target, writers()
    if len(labels) != DIGITS:
        raise UserError(f"expected scikit-learn's {DIGITS} digits, but got {len(labels)}; install another version")
    hands, test = len(FORM_STARTS), tested(params)
    voices = rng.permutation(VOICES)
    # Take the first digit of every writer and class, then the second, and so on; diagonally, so that writers and
    # classes stay even wherever `clips` stops.
    rank = np.zeros(DIGITS, int)
    for hand in range(hands):
        for label in range(10):
            cell = (writer == hand) & (labels == label)
            rank[cell] = np.arange(cell.sum())
    order = np.lexsort((writer, (labels - writer) % 10, rank))
    return [
        Plan(
            row=int(row),
            label=AVDigits.classes[labels[row]],
            split="test" if writer[row] in test else "train",
            group=f"writer-{writer[row]:02d}",
            voice=str(rng.choice(voices[writer[row] :: hands])),
        )
        for row in np.sort(order[: params.clips])
    ]


# --- sound -----------------------------------------------------------------------------------------------------------


def spoken(plans: list[Plan], seed: int) -> list[np.ndarray]:
    """Each clip's digit said aloud, without the silence around it: int16 (n,) at SAMPLE_RATE.

    To be called once in a process, as eSpeak NG cannot be set back to its first state. Raises UserError if eSpeak NG
    cannot be used or lacks a voice.
    """
    import ctypes

    import espeakng_loader

    fix = "reinstall espeakng-loader"
    data = Path(espeakng_loader.get_data_path())
    absent = [name for name in VOICES if not (data / "voices" / "!v" / name).is_file()]
    if absent:  # eSpeak NG falls back to its default voice silently
        raise UserError(f"{data}: expected eSpeak NG's voices, but there is no {listed(absent)}; {fix}")
    try:
        engine = ctypes.CDLL(espeakng_loader.get_library_path())
    except OSError as error:
        raise UserError(f"eSpeak NG's library cannot be loaded ({error}); {fix}") from error

    pieces: list[np.ndarray] = []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
    def keep(samples: Any, count: int, _events: Any) -> int:
        if samples and count:
            pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    synchronous, dont_exit, characters, utf8, rate, pitch, pitch_range = 2, 0x8000, 1, 1, 1, 3, 4
    hertz = engine.espeak_Initialize(synchronous, 0, str(data).encode(), dont_exit)
    if hertz != SAMPLE_RATE:
        raise UserError(f"expected {SAMPLE_RATE} Hz from eSpeak NG, but got {hertz}; {fix}")
    engine.espeak_SetSynthCallback(keep)
    engine.espeak_ng_SetRandSeed(ctypes.c_long(seed))
    rng = np.random.default_rng(seed)
    words = []
    for plan in plans:
        text = plan.label.encode() + b"\0"
        pieces.clear()
        engine.espeak_SetVoiceByName(f"en-us+{plan.voice}".encode())
        engine.espeak_SetParameter(rate, int(rng.integers(150, 211)), 0)  # words per minute
        engine.espeak_SetParameter(pitch, int(rng.integers(35, 66)), 0)
        engine.espeak_SetParameter(pitch_range, int(rng.integers(30, 71)), 0)
        engine.espeak_Synth(text, ctypes.c_size_t(len(text)), 0, characters, 0, utf8, None, None)
        word = np.concatenate(pieces) if pieces else np.zeros(0, np.int16)
        loud = np.flatnonzero(np.abs(word.astype(np.int32)) > 0.01 * np.abs(word.astype(np.int32)).max(initial=0))
        if not len(loud):
            raise UserError(
                f"expected speech for {plan.label!r} with voice {plan.voice!r}, but got silence from eSpeak NG; {fix}"
            )
        words.append(word[loud[0] : loud[-1] + 1])
    return words


def mixed(word: np.ndarray, samples: int, snr_db: float, rng: np.random.Generator) -> np.ndarray:
    """Word at a random place in white noise: float32 (samples,), its peak at 0.7.

    `snr_db` is the mean power of the word, while it lasts, over that of the noise.
    """
    word = word / np.sqrt(np.mean(np.square(word, dtype=np.float64)))
    wave = rng.normal(0, 10 ** (-snr_db / 20), samples)
    start = rng.integers(0, samples - len(word) + 1)
    wave[start : start + len(word)] += word
    return (0.7 * wave / np.abs(wave).max()).astype(np.float32)  # room for the overshoot of a lossy codec


# --- pictures --------------------------------------------------------------------------------------------------------


def drawn(
    digit: np.ndarray,
    others: np.ndarray,
    params: AVDigitsParams,
    rng: np.random.Generator,
    seen: np.ndarray | None = None,
) -> np.ndarray:
    """Moving digit as grey uint8 (frames, pixels, pixels), in the frames where it is `seen` (frames,); None: in all.

    `digit` is (8, 8) in [0, 1]; `others` (n, 8, 8) are digits of other classes by the same writer, for the distractors.
    """
    frames, side = max(1, round(params.seconds * params.fps)), params.pixels
    scale = rng.uniform(*params.digit_scale)
    contrast = rng.uniform(*params.contrast)
    ground = rng.uniform(0, 1 - contrast)

    ink = _moving(digit, scale, frames, side, rng)
    for _ in range(params.distractors):
        piece = others[rng.integers(len(others))].copy()
        keep = rng.integers(4)  # left, right, upper or lower half
        piece = np.rot90(piece, keep)
        piece[:, 4:] = 0
        ink = np.maximum(ink, _moving(np.rot90(piece, -keep), scale, frames, side, rng))
    ink = ink if seen is None else ink * seen[:, None, None]
    picture = ground + params.texture * _smooth(side, rng) + contrast * ink

    reach = np.arange(side) + 0.5
    for axis in (1, 2):
        centre = np.linspace(*rng.uniform(0, side, 2), frames)[:, None]
        bar = (np.abs(reach - centre) < params.occlusion * side / 2).astype(float)
        bar = np.expand_dims(bar, 3 - axis)
        picture = picture * (1 - bar) + bar * rng.uniform(0, 1)

    picture = picture + rng.normal(0, params.visual_noise, picture.shape)
    return (255 * picture.clip(0, 1)).round().astype(np.uint8)


def _moving(image: np.ndarray, scale: float, frames: int, side: int, rng: np.random.Generator) -> np.ndarray:
    """Image (8, 8) enlarged to `scale` of the frame, gliding between two random places: (frames, side, side)."""
    size = scale * side
    places = rng.uniform(size / 2, side - size / 2, (2, 2))  # (begin or end, y or x)
    centre = np.linspace(places[0], places[1], frames)
    # Linear interpolation is separable: weights of the 8 rows (columns) for each output row (column).
    where = (np.arange(side) + 0.5 - centre[..., None]) / (size / 8) + 3.5
    weights = np.maximum(0, 1 - np.abs(where[..., None] - np.arange(8)))
    return weights[:, 0] @ image @ weights[:, 1].transpose(0, 2, 1)


def _smooth(side: int, rng: np.random.Generator) -> np.ndarray:
    """Random field (side, side) of mean 0 and standard deviation 1 that varies over a sixth of the frame."""
    where = np.linspace(0, 6, side)[:, None]
    weights = np.maximum(0, 1 - np.abs(where - np.arange(7)))
    field = weights @ rng.normal(size=(7, 7)) @ weights.T
    return (field - field.mean()) / field.std()


# --- files -----------------------------------------------------------------------------------------------------------


def _make(file: Path, plan: Plan, word: np.ndarray, params: AVDigitsParams) -> None:
    """Draw, mix and write one clip; depends on nothing but its arguments."""
    images, labels, writer = _digits()
    rng = np.random.default_rng([params.seed, plan.row])
    others = images[(writer == writer[plan.row]) & (labels != labels[plan.row])]
    frames = drawn(images[plan.row], others, params, rng)
    wave = mixed(word, round(params.seconds * SAMPLE_RATE), rng.uniform(*params.snr_db), rng)
    write_clip(file, frames, params.fps, wave, SAMPLE_RATE)


_cache: list = []


def _digits() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images (1797, 8, 8) in [0, 1], labels and writers, read once per process."""
    if not _cache:
        from sklearn.datasets import load_digits

        table = load_digits()
        _cache.append((table.images / 16, table.target, writers()))
    return _cache[0]
