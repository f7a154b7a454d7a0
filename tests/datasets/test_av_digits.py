import difflib

import numpy as np
import pytest
from pydantic import ValidationError

from pipeline_src.core.errors import UserError
from pipeline_src.datasets.av_digits import (
    DIGITS,
    FORM_STARTS,
    SAMPLE_RATE,
    VOICES,
    AVDigits,
    AVDigitsParams,
    drawn,
    mixed,
    planned,
    writers,
)
from pipeline_src.datasets.base import datasets
from pipeline_src.media.decode import mono
from pipeline_src.media.frames import Frames, FramesParams

CLIPS = 28
CLEAN = {"visual_noise": 0.0, "texture": 0.0, "occlusion": 0.0, "distractors": 0, "contrast": [1.0, 1.0]}


def params(**change):
    block = {
        "kind": "av_digits",
        "recipe": "small",
        "val_fraction": 0.2,
        "split_seed": 0,
        "max_quarantine": 0.0,
        "shards": 1,
        "seed": 3,
        "clips": DIGITS,
        "test_writers": 4,
        "seconds": 1.0,
        "fps": 12,
        "pixels": 48,
        "digit_scale": [0.5, 0.75],
        "contrast": [0.7, 1.0],
        "visual_noise": 0.05,
        "texture": 0.05,
        "occlusion": 0.07,
        "distractors": 0,
        "snr_db": [0.0, 15.0],
    }
    return AVDigitsParams(**block | change)


@pytest.fixture(scope="module")
def fetched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("av_digits")
    AVDigits(params(clips=CLIPS)).fetch(folder)
    return folder


@pytest.fixture(scope="module")
def digits():
    from sklearn.datasets import load_digits

    return load_digits()


# --- writers ----------------------------------------------------------------------------------------------------------


def test_forms_repeat_one_sequence_of_labels(digits):
    labels = "".join(map(str, digits.target))
    for start, end in zip(FORM_STARTS, [*FORM_STARTS[1:], DIGITS], strict=True):
        form = labels[start:end]
        # one form lacks its very first 0: where it starts follows from the end of the form before
        assert form.startswith(("0123456789" * 2, "01234567890123456", "1234567890123456789"))
        assert difflib.SequenceMatcher(None, labels[:130], form, autojunk=False).ratio() > 0.96


def test_forms_are_the_work_of_different_hands(digits):
    """Distance of class means between forms over what chance allows: far above 1 for any two, near 1 within each."""
    writer = writers()

    def excess(first, second):
        distance = chance = 0
        for label in range(10):
            a, b = (digits.data[part & (digits.target == label)] for part in (first, second))
            distance += np.square(a.mean(0) - b.mean(0)).sum()
            chance += (a.var(0, ddof=1) / len(a) + b.var(0, ddof=1) / len(b)).sum()
        return distance / chance

    hands = range(len(FORM_STARTS))
    half = np.zeros(DIGITS, bool)
    for hand in hands:
        half[np.flatnonzero(writer == hand)[:62]] = True
    assert max(excess((writer == hand) & half, (writer == hand) & ~half) for hand in hands) < 3
    assert min(excess(writer == a, writer == b) for a in hands for b in hands if a < b) > 4.5


def test_the_last_writers_are_tested_or_those_that_a_seed_draws():
    def test(**change):
        return {plan.group for plan in planned(params(**change)) if plan.split == "test"}

    last = {f"writer-{writer:02d}" for writer in (10, 11, 12, 13)}
    assert test() == test(seed=4) == last
    drawn = [test(writer_seed=seed) for seed in range(40)]
    assert all(len(writers) == 4 for writers in drawn) and test(writer_seed=3, seed=4) == drawn[3]
    assert len(set.union(*drawn)) == len(FORM_STARTS) and len(set(map(frozenset, drawn))) > 30
    voices = [[(plan.row, plan.voice) for plan in planned(params(writer_seed=seed))] for seed in (None, 1)]
    assert voices[0] == voices[1]  # what is drawn of the clips does not depend on it


@pytest.mark.parametrize("writer_seed", [None, 5])
@pytest.mark.parametrize("test_writers", [1, 4, 12])
def test_writers_voices_and_images_are_disjoint(test_writers, writer_seed):
    plans = planned(params(test_writers=test_writers, writer_seed=writer_seed))
    train, test = ([plan for plan in plans if plan.split == split] for split in ("train", "test"))
    assert len({plan.group for plan in test}) == test_writers
    assert len(train) + len(test) == len({plan.row for plan in plans}) == DIGITS
    for what in ("group", "voice", "row"):
        assert not {getattr(plan, what) for plan in train} & {getattr(plan, what) for plan in test}
    voices = {voice: {plan.group for plan in plans if plan.voice == voice} for voice in VOICES}
    assert all(len(groups) == 1 for groups in voices.values())


def test_labels_are_those_of_the_images(digits):
    assert [AVDigits.classes.index(plan.label) for plan in planned(params())] == digits.target.tolist()


def test_fewer_clips_are_spread_evenly():
    cells = [(plan.group, plan.label) for plan in planned(params(clips=140))]
    assert len(set(cells)) == 140
    few = planned(params(clips=CLIPS))
    for what, most in (("group", 2), ("label", 4)):
        counts = np.unique([getattr(plan, what) for plan in few], return_counts=True)[1]
        assert len(counts) == {"group": 14, "label": 10}[what]
        assert counts.min() >= 2 and counts.max() <= most


def test_seed_changes_the_voices():
    voices = [[plan.voice for plan in planned(params(seed=seed))] for seed in (0, 0, 1)]
    assert voices[0] == voices[1] != voices[2]


# --- files ------------------------------------------------------------------------------------------------------------


def test_fetch_gives_what_clips_lists(fetched):
    clips = list(AVDigits(params()).clips(fetched))
    assert len(clips) == CLIPS
    assert {clip.split for clip in clips} == {"train", "test"}
    assert {clip.label for clip in clips} == set(AVDigits.classes)
    for clip in clips:
        assert set(clip.files) == set(AVDigits.modalities)
        assert all((fetched / file).is_file() for file in clip.files.values())
    assert len(list((fetched / "media").iterdir())) == CLIPS


def test_clips_decode_to_moving_pictures_and_unclipped_speech(fetched):
    frames = Frames(FramesParams(kind="frames", count=12, size=48, pick="centers"))
    for file in sorted((fetched / "media").iterdir())[::7]:
        assert frames.probe(file) == pytest.approx(1.0)
        array = frames.extract(file).astype(float)
        assert np.abs(array[0] - array[-1]).mean() > 8
        wave = mono(file, SAMPLE_RATE, 2 * SAMPLE_RATE)
        assert len(wave) / SAMPLE_RATE == pytest.approx(1.0, abs=0.05)
        assert 0.4 < np.abs(wave).max() < 1
        assert np.sqrt(np.mean(wave**2)) > 0.02


def test_the_same_seed_gives_the_same_bytes(fetched, tmp_path):
    again = tmp_path / "again"
    again.mkdir()
    AVDigits(params(clips=CLIPS)).fetch(again)
    files = sorted(file.relative_to(fetched) for file in fetched.rglob("*") if file.is_file())
    assert len(files) == CLIPS + 1
    for file in files:
        assert (again / file).read_bytes() == (fetched / file).read_bytes(), file


def test_a_clip_too_short_for_speech_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"av_digits\.seconds: the longest spoken digit takes 0\.\d\d s, but got 0\.5"):
        AVDigits(params(seconds=0.5, clips=700)).fetch(tmp_path)


def test_clips_lists_files_that_are_not_there(fetched, tmp_path):
    (tmp_path / "clips.csv").write_bytes(
        b"\xef\xbb\xbf" + (fetched / "clips.csv").read_bytes()
    )  # as a spreadsheet saves
    assert list(AVDigits(params()).clips(tmp_path)) == list(AVDigits(params()).clips(fetched))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"clips\.csv: expected a list, but got no file"),
        ("", r"clips\.csv: expected rows with id, label, split"),
        ("id,label,split,group,file\n", r":1: expected 6 values \(id, .*voice\) .*, but got 5"),
        ("id,label,split,group,file,sex\n", r":1: expected id,.*voice, but got id,.*sex; fetch the dataset again"),
        ("{head}a,nil,train,w,f.mp4,f1\n", r":2: expected a class, but got 'nil'"),
        ("{head}a,one,val,w,f.mp4,f1\n", r":2: expected train or test, but got 'val'"),
        ("{head}a,one,train,,f.mp4,f1\n", r":2: expected a value for group"),
        ("{head}a,one,train,w,f.mp4,f1\na,two,train,w,g.mp4,f1\n", r":3: expected each clip once, but got 'a'"),
        ("{head}a,one,train,w,f.mp4\n", r":2: expected 6 values .*, but got 5"),
        ("{head}\xe9,one,train,w,f.mp4,f1\n", r"expected UTF-8"),
    ],
)
def test_a_bad_list_is_named_by_line(tmp_path, text, message):
    if text is not None:
        head = "id,label,split,group,file,voice\n"
        (tmp_path / "clips.csv").write_text(text.replace("{head}", head), encoding="latin-1", newline="")
    with pytest.raises(UserError, match=message):
        list(AVDigits(params()).clips(tmp_path))


# --- knobs ------------------------------------------------------------------------------------------------------------


def picture(digits, seed=0, **change):
    others = digits.images[1:10] / 16
    frames = drawn(digits.images[0] / 16, others, params(**CLEAN | change), np.random.default_rng(seed))
    return frames.astype(float) / 255


def test_a_clean_picture_is_the_digit_alone_moving_inside_the_frame(digits):
    frames = picture(digits, digit_scale=[0.5, 0.5])
    assert frames.shape == (12, 48, 48)
    ink = frames.sum((1, 2))
    # 8 x 8 pixels enlarged threefold; linear interpolation keeps the amount of ink wherever the digit is
    np.testing.assert_allclose(ink, 9 * digits.images[0].sum() / 16, rtol=0.03)
    centre = (frames * np.arange(48)).sum((1, 2)) / ink
    steps = np.diff(centre)
    assert np.abs(steps).min() > 0.1 and np.ptp(steps) < 0.1


def test_scale_contrast_and_distractors(digits):
    plain = picture(digits, digit_scale=[0.5, 0.5])
    assert picture(digits, digit_scale=[0.75, 0.75])[0].sum() == pytest.approx(2.25 * plain[0].sum(), rel=0.03)
    faint = picture(digits, contrast=[0.3, 0.3])
    assert np.ptp(faint) == pytest.approx(0.3, abs=0.03)
    assert picture(digits, digit_scale=[0.5, 0.5], distractors=3).sum() > 1.5 * plain.sum()


def test_noise_and_texture(digits):
    change = {"contrast": [0.01, 0.01], "seed": 5}  # next to no ink on a grey ground
    assert 0.3 < picture(digits, **change).mean() < 0.7
    noisy = picture(digits, **change, visual_noise=0.1)
    assert noisy.std(axis=0).mean() == pytest.approx(0.1, rel=0.1)
    textured = picture(digits, **change, texture=0.1)
    assert textured[0].std() == pytest.approx(0.1, rel=0.1)
    assert textured.std(axis=0).max() < 0.02  # the ground stands still


def test_bars_hide_the_share_of_the_frame_that_was_asked(digits):
    def hidden(occlusion):
        pairs = [(picture(digits, seed), picture(digits, seed, occlusion=occlusion)) for seed in range(30)]
        return np.mean([(plain != barred).mean() for plain, barred in pairs])

    assert hidden(0.1) == pytest.approx(1 - 0.9**2, rel=0.25)
    assert hidden(0.3) > 2 * hidden(0.1)


@pytest.mark.parametrize("snr", [-5.0, 0.0, 15.0])
def test_noise_lies_below_the_speech_as_asked(snr):
    samples = SAMPLE_RATE
    word = (8000 * np.sin(np.arange(samples // 2))).astype(np.int16)
    rng = np.random.default_rng(1)
    wave = mixed(word, samples, snr, rng).astype(float)
    assert wave.dtype == float and np.abs(wave).max() == pytest.approx(0.7)
    # where the word is: the place at which it fits best
    start = np.correlate(wave, word, "valid").argmax()
    inside = np.zeros(samples, bool)
    inside[start : start + len(word)] = True
    noise = np.mean(wave[~inside] ** 2)
    speech = np.mean(wave[inside] ** 2) - noise
    assert 10 * np.log10(speech / noise) == pytest.approx(snr, abs=0.5)


# --- parameters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"snr_db": [15, 0]},
        {"snr_db": [0]},
        {"digit_scale": [0.5, 1.2]},
        {"pixels": 47},
        {"clips": DIGITS + 1},
        {"test_writers": 14},
        {"occlussion": 0.1},
    ],
)
def test_parameters_are_checked(change):
    with pytest.raises(ValidationError):
        params(**change)


def test_whole_numbers_are_taken_for_ranges():
    assert params(snr_db=[0, 15], contrast=[1, 1]).snr_db == [0, 15]


def test_is_registered():
    assert datasets["av_digits"] is AVDigits
