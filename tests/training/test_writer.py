"""Checkpoints that are written while training goes on, as on a GPU; here on a CPU, which writes between two steps."""

import json
import threading
import time

import pytest
import torch

from pipeline_src.training import checkpoint, run, writer
from pipeline_src.training.writer import Writer
from tests.training.test_run import Killed, bare, make_run, same, tensors, train

GPU = torch.device("cuda")  # only its name is asked


@pytest.fixture
def apart(monkeypatch):
    monkeypatch.setattr(writer, "INLINE", ())


def write_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "writes"]


def test_tasks_are_done_in_order_and_one_at_a_time():
    done, now = [], []

    def task(number: int) -> None:
        now.append(number)
        assert len(now) == 1 and threading.current_thread() is not threading.main_thread()
        done.append(now.pop())

    with Writer(GPU) as one:
        for number in range(20):
            one.give(lambda number=number: task(number))
    assert done == list(range(20)) and not write_threads()


def test_a_task_is_done_while_its_giver_goes_on_and_leaving_waits_for_it():
    going, done = threading.Event(), []
    with Writer(GPU) as one:
        one.give(lambda: done.append(going.wait(30)))
        assert not done and len(write_threads()) == 1
        going.set()
    assert done == [True] and not write_threads()


def test_on_a_cpu_there_is_no_thread():
    seen = []
    with Writer(torch.device("cpu")) as one:
        one.give(lambda: seen.append(threading.current_thread()))
        assert seen == [threading.main_thread()]


def fails() -> None:
    raise OSError("no room")


@pytest.mark.parametrize("device", [GPU, torch.device("cpu")])
def test_an_error_reaches_who_gives_the_next_task_which_is_not_done(device):
    done = []
    with pytest.raises(OSError, match="no room"), Writer(device) as one:
        one.give(fails)
        one.give(lambda: done.append(1))
    assert not done


def test_an_error_of_the_last_task_is_raised_at_the_end_and_again_by_who_asks():
    one = Writer(GPU)
    for _ in range(2):
        with pytest.raises(OSError, match="no room"), one:
            if one._thread is None and one._error is None:
                one.give(fails)
    with pytest.raises(OSError, match="no room"), one:
        raise ValueError("what training met since")


def slow_writes(monkeypatch, trained: list[int], epochs: int) -> list[tuple[int, str]]:
    """Checkpoints are written when the epoch after theirs is trained; the epochs and threads of those written."""
    epoch, write = run.Trainer.epoch, checkpoint.write
    more, written = threading.Condition(), []

    def trains(self, number, pulse):
        row = epoch(self, number, pulse)
        with more:
            trained.append(number)
            more.notify_all()
        return row

    def waits(file, state, text):
        if file.name == "checkpoint.safetensors":
            of = json.loads(text)["epoch"]
            with more:
                assert more.wait_for(lambda: of == epochs - 1 or max(trained) > of, 30)
            written.append((of, threading.current_thread().name))
        write(file, state, text)

    monkeypatch.setattr(run.Trainer, "epoch", trains)
    monkeypatch.setattr(checkpoint, "write", waits)
    return written


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_checkpoint_holds_the_state_of_its_epoch_though_it_is_written_in_the_next(
    tmp_path, monkeypatch, apart, optimizer
):
    how = {"optimizer": optimizer, "lr": 0.01, "epochs": 4}
    expected = {}
    write = checkpoint.write

    def keeps(file, state, text):
        write(file, state, text)
        if file.name == "checkpoint.safetensors":
            found = checkpoint.load(file)
            expected[found[1]["epoch"]] = found

    whole, cut = make_run(tmp_path / "whole", **how), make_run(tmp_path / "cut", **how)
    with monkeypatch.context() as inline:
        inline.setattr(writer, "INLINE", ("cpu",))
        inline.setattr(checkpoint, "write", keeps)
        train(whole)
    with monkeypatch.context() as patch:
        written = slow_writes(patch, [], how["epochs"])
        epoch = run.Trainer.epoch

        def dies(self, number, pulse):
            row = epoch(self, number, pulse)
            if number == 2:
                raise Killed
            return row

        patch.setattr(run.Trainer, "epoch", dies)
        with pytest.raises(Killed):
            train(cut)
    assert written == [(0, "writes"), (1, "writes")] and not write_threads()
    state, about = checkpoint.load(cut.folder / "checkpoint.safetensors")
    assert same(state, expected[1][0])
    for of in (about, expected[1][1]):
        of.pop("seconds"), of["at"].pop("seconds"), [row.pop("seconds") for row in of["rows"]]
    assert about == expected[1][1]
    train(cut)
    assert bare(cut) == bare(whole) and same(tensors(cut), tensors(whole))


def test_the_record_is_written_after_all_else(tmp_path, monkeypatch, apart):
    whole, one = make_run(tmp_path / "whole"), make_run(tmp_path / "one")
    train(whole)
    written = slow_writes(monkeypatch, [], 3)
    record = run.states.write_record

    def last(folder, values):
        assert [of for of, _ in written] == [0, 1, 2] and not write_threads()
        record(folder, values)

    monkeypatch.setattr(run.states, "write_record", last)
    train(one)
    assert {path.name for path in one.folder.iterdir()} == {"record.json", "metrics.jsonl", "weights.safetensors"}
    assert (one.folder / "weights.safetensors").read_bytes() == (whole.folder / "weights.safetensors").read_bytes()
    assert bare(one) == bare(whole)


def test_a_diverged_run_waits_for_what_is_being_written(tmp_path, monkeypatch, apart):
    one = make_run(tmp_path)
    epoch, write, going = run.Trainer.epoch, checkpoint.write, threading.Event()

    def late(self, number, pulse):
        if number:
            next(self.model.parameters()).data.fill_(float("nan"))
            going.set()
        return epoch(self, number, pulse)

    def waits(file, state, text):
        if threading.current_thread() is not threading.main_thread():
            assert going.wait(30)
            time.sleep(0.3)  # in which training ends
        write(file, state, text)

    monkeypatch.setattr(run.Trainer, "epoch", late)
    monkeypatch.setattr(checkpoint, "write", waits)
    train(one)
    assert json.loads(one.record.read_text())["status"] == "diverged" and len(bare(one)) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"record.json", "metrics.jsonl", "weights.safetensors"}
