"""Training killed at any moment ends, started again, with the bits of a run that nothing happened to.

`pytest -s` prints what each kill hit.
"""

import json
import random
import signal
from pathlib import Path

import pytest
import torch

from pipeline_src.training import checkpoint
from tests.training.killed import CELLS, FULL, WHERE, dies_while_writing, ended, train

KILLS = 3  # of one run, one after the other
MINUTES = {"every step": 0.0, "every epoch": 1e9}  # when a checkpoint is made
OFTEN = {"a step": 6, "the backward pass": 6, "a score": 3, "flushing to disk": 20, "renaming a file": 10}
RECORDED = ("selected", "forwards", "backwards", "parameters_count")
TIMES = ("seconds", "diagnosis_seconds")


def bits(folder: Path) -> dict:
    """All that must not depend on what happened to a run, times left out."""
    record = json.loads((folder / "record.json").read_text())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    weights, selected = checkpoint.load(folder / "weights.safetensors")
    return {
        "record": {key: record[key] for key in RECORDED},
        "rows": [{key: value for key, value in line.items() if key not in TIMES} for line in lines],
        "weights": {name: tensor.numpy().tobytes() for name, tensor in weights.items()},
        "weights_file": (folder / "weights.safetensors").read_bytes(),
        "selected": selected,
        "predictions": (folder / "evaluation/predictions.parquet").read_bytes(),
    }


@pytest.fixture(scope="module")
def kills():
    """What was killed; printed at the end."""
    table = []
    yield table
    print(f"\n{'method':12}{'checkpoint':14}{'killed before':32}{'left':12}result")
    for row in table:
        print(f"{row[0]:12}{row[1]:14}{row[2]:32}{row[3]:12}{row[4]}")


BESIDE = [(name, False) for name in CELLS] + [("joint", True), ("ogm_ge", True)]


@pytest.mark.parametrize(("name", "apart"), BESIDE)
def test_a_killed_run_ends_as_if_nothing_had_been(name, apart, tmp_path, kills):
    assert ended(train, name, tmp_path / "whole", 1e9) == 0
    expected = bits(tmp_path / "whole")
    draw = random.Random(f"{name} {apart}" if apart else name)
    places = sorted(WHERE)
    draw.shuffle(places)
    for when, minutes in MINUTES.items():
        folder, landed = tmp_path / when, []
        while len(landed) < KILLS:
            place = places[0]
            places.append(places.pop(0))
            count = draw.randint(1, OFTEN.get(place, 2))
            status = ended(train, name, folder, minutes, place, count, signal.SIGKILL, apart)
            assert status in (0, -signal.SIGKILL)
            if status == 0:
                break
            left = sorted(path.name.split(".tmp")[0] for path in folder.iterdir())
            landed.append((name, f"{when}{' *' * apart}", f"{place}, call {count}", f"{len(left)} files"))
        assert landed
        assert ended(train, name, folder, minutes, None, 0, signal.SIGKILL, apart) == 0
        kills += [(*row, "same bits" if bits(folder) == expected else "OTHER BITS") for row in landed]
        assert bits(folder) == expected
        assert {path.name for path in folder.iterdir()} == {
            *("record.json", "metrics.jsonl", "weights.safetensors", "evaluation")
        }


def test_enough_kills(kills):
    assert len(kills) >= 20


STOPS = [("a step", 6, 1, 6), ("a score", 1, 1, 8), ("writing tensors", 2, 2, 9)]  # and after which epoch and step


@pytest.mark.parametrize(
    ("by", "stops", "apart"),
    [(by, STOPS, False) for by in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)]
    + [(signal.SIGTERM, [*STOPS[:2], ("a step", 1, 2, 9)], True)],
)
def test_asked_to_stop_it_saves_what_it_has_done(by, stops, apart, tmp_path):
    assert ended(train, "opm_ogm", tmp_path / "whole", 1e9) == 0
    folder = tmp_path / "cut"
    for place, count, done, step in stops:
        assert ended(train, "opm_ogm", folder, 1e9, place, count, by, apart) == 128 + by
        attempt = json.loads((folder / "attempt.json").read_text())
        assert attempt["status"] == "interrupted"
        assert attempt["error"].endswith(
            f"stopped by {by.name} after epoch {done} of 3, step {step}; goes on when started again"
        )
    assert ended(train, "opm_ogm", folder, 1e9) == 0
    assert bits(folder) == bits(tmp_path / "whole")
    assert json.loads((folder / "record.json").read_text())["resumed"] == 3


def test_what_a_kill_leaves_of_half_a_file_is_removed_by_the_next_one(tmp_path):
    assert ended(dies_while_writing, tmp_path) == -signal.SIGXFSZ
    assert len(list(tmp_path.iterdir())) == 1 and not (tmp_path / "file").exists()
    checkpoint.save(tmp_path / "file", {"x": torch.ones(3)}, {})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_checkpoint_that_is_damaged_is_not_used(tmp_path):
    assert ended(train, "joint", tmp_path / "whole", 1e9) == 0
    expected = bits(tmp_path / "whole")
    for name, spoil in {
        "truncated": lambda content: content[: len(content) // 2],
        "empty": lambda content: b"",
        "changed": lambda content: content[:-3] + bytes([content[-3] ^ 1]) + content[-2:],
        "another format": lambda content: content.replace(f'"format":"{checkpoint.FORMAT}"'.encode(), b'"format":"1"'),
    }.items():
        folder = tmp_path / name
        assert ended(train, "joint", folder, 1e9, "a step", 7) == -signal.SIGKILL
        file = folder / "checkpoint.safetensors"
        before = file.read_bytes()
        file.write_bytes(spoil(before))
        assert file.read_bytes() != before
        assert ended(train, "joint", folder, 1e9) == 0
        assert "cannot be used and the run begins anew: expected" in folder.with_suffix(".log").read_text(), name
        assert bits(folder) == expected


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize(("count", "file"), [(3, "weights-1.safetensors"), (4, "checkpoint.safetensors")])
def test_where_there_is_no_room_it_says_so_and_goes_on_when_there_is(count, file, apart, tmp_path):
    assert ended(train, "joint", tmp_path / "whole", 1e9) == 0
    folder = tmp_path / "cut"
    assert ended(train, "joint", folder, 1e9, "writing tensors", count, FULL, apart) == 2
    said = folder.with_suffix(".log").read_text().splitlines()[-1]
    assert f"{folder / file}: expected to be able to write it, found: File too large" in said
    assert not list(folder.glob(".*"))
    assert ended(train, "joint", folder, 1e9) == 0
    assert "goes on after epoch 1 of 3" in folder.with_suffix(".log").read_text()
    assert bits(folder) == bits(tmp_path / "whole")
