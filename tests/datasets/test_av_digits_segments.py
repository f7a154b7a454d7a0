"""The embedded dataset with a label per segment: labels follow what is heard and seen, and nothing else changes."""

import numpy as np
import pytest

from pipeline_src.core.errors import UserError
from pipeline_src.datasets import lists
from pipeline_src.datasets.av_digits import SAMPLE_RATE, AVDigits
from pipeline_src.datasets.av_digits_segments import AVDigitsSegments, AVDigitsSegmentsParams, events, sounded
from pipeline_src.media.decode import mono
from tests.datasets.test_av_digits import CLEAN, params

T = 4


def with_segments(**change) -> AVDigitsSegmentsParams:
    values = {"clips": 28, "seconds": 4.0, "fps": 4, "snr_db": [60.0, 60.0], **CLEAN, **change}
    return AVDigitsSegmentsParams(**params().model_dump() | values | {"kind": "av_digits_segments", "segments": T})


@pytest.fixture(scope="module")
def fetched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("segments")
    AVDigitsSegments(with_segments()).fetch(folder)
    return folder


def test_an_event_is_in_a_row_and_the_rest_has_one_modality_or_none():
    block = with_segments(partial=0.5)
    kinds = np.zeros((2, 2))
    for row in range(400):
        heard, seen = events(block, row)
        both = np.flatnonzero(heard & seen)
        assert len(both) >= 1 and (np.diff(both) == 1).all()
        np.add.at(kinds, (heard.astype(int), seen.astype(int)), 1)
    alone = kinds[0, 1] + kinds[1, 0]
    assert alone / (alone + kinds[0, 0]) == pytest.approx(0.5, abs=0.06)
    assert kinds[0, 1] == pytest.approx(kinds[1, 0], rel=0.3)
    assert all((a == b).all() for a, b in zip(events(block, 7), events(block, 7), strict=True))
    heard, seen = events(with_segments(partial=0.0), 7)
    assert (heard == seen).all()


def test_labels_are_of_the_segments_where_both_are(fetched):
    block = with_segments()
    dataset = AVDigitsSegments(block)
    assert dataset.task == "segments" and dataset.segments == T and dataset.classes[-1] == "background"
    for clip in dataset.clips(fetched):
        heard, seen = events(block, int(clip.id.removeprefix("digit-")))
        names = {name for name in clip.label if name != "background"}
        assert len(names) == 1 and names < set(AVDigits.classes)
        assert [name != "background" for name in clip.label] == (heard & seen).tolist()


def test_the_digit_is_seen_and_heard_where_the_events_say(fetched):
    import av

    block = with_segments()
    for clip in list(AVDigitsSegments(block).clips(fetched))[:6]:
        heard, seen = events(block, int(clip.id.removeprefix("digit-")))
        file = fetched / clip.files["visual"]
        with av.open(str(file)) as container:
            frames = np.stack([frame.to_ndarray(format="gray") for frame in container.decode(video=0)]).astype(float)
        ink = frames.reshape(T, -1, frames[0].size).std(axis=2).max(axis=1)
        assert ((ink > 10) == seen).all()  # a clean ground is even
        wave = mono(file, SAMPLE_RATE, T * SAMPLE_RATE).reshape(T, -1)
        assert ((np.abs(wave).max(axis=1) > 0.1) == heard).all()


def test_a_word_stays_within_its_segment():
    word = np.ones(900, np.int16)
    heard = np.array([False, True, True, False])
    for seed in range(20):
        wave = sounded(word, 4000, heard, 60.0, np.random.default_rng(seed))
        loud = np.abs(wave) > 0.3
        assert loud.reshape(4, 1000).sum(axis=1).tolist() == [0, 900, 900, 0]


def test_a_list_with_another_number_of_labels_names_the_line(fetched, tmp_path):
    text = (fetched / lists.CLIPS).read_text().splitlines()
    cells = text[1].split(",")
    (tmp_path / lists.CLIPS).write_text("\n".join([text[0], ",".join([cells[0], "zero one", *cells[2:]]), *text[2:]]))
    with pytest.raises(UserError, match=r"clips.csv:2: expected 4 labels, but got 2; fetch the dataset again"):
        list(AVDigitsSegments(with_segments()).clips(tmp_path))


def test_words_that_are_longer_than_a_segment_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"seconds: the longest spoken digit takes .* s, but got 0.25"):
        AVDigitsSegments(with_segments(seconds=1.0)).fetch(tmp_path)
