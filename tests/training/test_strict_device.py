"""Every method with each kind of fusion, and every fusion, task, layout, optimizer and loader, on a device that is not
the CPU, as far as this can be shown without a GPU.

`strict` says what counts as a mistake. Epochs are of two steps, each method's first fusion in bf16 by the casts of a
GPU; a second run goes on from within the second epoch, from a streamed cache where the first had a resident one.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch

from pipeline_src.corruptions.base import corruptions
from pipeline_src.methods.base import methods
from pipeline_src.models.base import EncoderParams, fusion_facts, fusion_refuses, fusions
from pipeline_src.models.parts import Place
from pipeline_src.observers.base import observers
from pipeline_src.tasks.base import tasks
from pipeline_src.training import checkpoint, transform
from pipeline_src.training import run as train
from pipeline_src.training.interrupt import Stop
from pipeline_src.training.loader import Loader
from pipeline_src.training.loop import Trainer
from pipeline_src.training.params import Training
from tests.methods import test_contract_steps as steps
from tests.methods.test_contract import CASES
from tests.synthetic import KINDS, SyntheticCache, encoder, setting, spec, stand_ins
from tests.tasks.tasked import SEGMENTS, cache_of
from tests.training import strict
from tests.training.test_run import PARAMS as PARAMS_OF_RUN
from tests.training.test_run import make_run

SPLITS = {"train": 7, "val": 4, "test": 3}
PARAMS = {"relearning": {"every": 1}}  # so that two epochs reach what it does between them


def trainer(
    watch: strict.Watch,
    cache: SyntheticCache,
    resident: bool,
    task: str = "classification",
    segments: int = 0,
    corrupted: bool = False,
    parts: dict[str, EncoderParams] | None = None,
    place: Place | None = None,
    **what,
) -> Trainer:
    """A run on the device, whose steps are watched; `parts` are other encoders than the smallest."""
    what = {"epochs": 2, "batch_size": 3, "precision": "bf16", **what}
    tiny = {m: encoder("resnet", width=4, depth=[1]) for m, i in cache.modalities.items() if len(i["shape"]) > 2}
    run = spec(cache, **what)
    if corrupted:
        every = dict.fromkeys(corruptions, 0.5)
        changes = run.augmentation["m0"].model_copy(update={"corruption": every})
        run = replace(run, augmentation=dict.fromkeys(cache.modalities, changes))
    run = replace(run, encoders={**run.encoders, **tiny, **(parts or {})}, task=task, segments=segments)
    target, device = tasks[task].target, strict.device()
    loaders = {s: Loader(cache, s, list(cache.modalities), device, resident, target, segments, place) for s in SPLITS}
    runs = stand_ins(run, cache)
    made = Trainer(run, 0, cache, loaders, device, lambda name: runs(name).to(device))
    steps, draw = made._steps, made.transform.draw

    def drawn(*args) -> list[dict]:
        """The last that a pass does before its first batch."""
        found = draw(*args)
        watch.inside = True
        return found

    def watched(*args) -> Iterator[None]:
        """Every batch of a pass, the first included: reading it, the transform and the step."""
        for _ in steps(*args):
            watch.inside = False
            yield
            watch.inside = True
        watch.inside = False

    made._steps, made.transform.draw = watched, drawn
    return made


def copied(run: Trainer):
    tensors, position = run.snapshot()
    return {name: value.clone() for name, value in tensors.items()}, position


def trains_and_goes_on(cache: SyntheticCache, **what) -> None:
    """Two epochs, and the second again from within: nothing is noted, and both end alike."""
    with strict.watched() as watch:
        whole, resumed = (trainer(watch, cache, resident, **what) for resident in (True, False))
        whole.method.on_train_start(whole.context)
        whole.epoch(0)
        kept = []
        whole.epoch(1, lambda: kept.append(copied(whole)))
        resumed.restore(*kept[0])
        resumed.epoch(1)
        ours, theirs = (run.state_dict() for run in (whole, resumed))
        same = ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
        whole.score("val")
    assert same
    assert not watch.problems, "\n".join(watch.problems)


def works(method: str, fusion: str, task: str = "classification") -> bool:
    plugin, asked = methods[method], setting(fusion, epochs=1000)._replace(task=task)
    network = dict.fromkeys(asked.modalities, encoder(**KINDS["spectrogram"][2]))
    return fusion_refuses(fusion, network) is None and plugin.refuses(plugin.Params(), asked) is None


PAIRS = [(method, fusion) for method, fusion, modalities in CASES if modalities == 2]


@pytest.mark.parametrize(("method", "fusion"), PAIRS)
def test_every_method_and_fusion(method, fusion):
    first = next(one for of, one in PAIRS if of == method)
    trains_and_goes_on(
        SyntheticCache(2, splits=SPLITS),
        method=method,
        fusion=fusion,
        params=PARAMS.get(method),
        precision="bf16" if fusion == first else "fp32",
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("fusion", [name for name in fusions if fusion_facts(name).steps])
def test_every_fusion_of_steps(fusion, precision):
    cache = SyntheticCache(3, splits=SPLITS, layouts=steps.LAYOUTS)
    parts = {
        m: encoder("transformer", **steps.SMALL | steps.OWN[about["layout"]]) for m, about in cache.modalities.items()
    }
    trains_and_goes_on(cache, fusion=fusion, parts=parts, precision=precision)


TASKS = [
    (task, method)
    for task, method in itertools.product(tasks, methods)
    if works(method, "concat", task) and (task != "classification" or method == "joint")
]


@pytest.mark.parametrize(("task", "method"), TASKS)
def test_every_task(task, method):
    segments = SEGMENTS.get(task, 0)
    trains_and_goes_on(
        cache_of(task), method=method, task=task, segments=segments, params=PARAMS.get(method), batch_size=13
    )


OPTIMIZERS = get_args(Training.model_fields["optimizer"].annotation)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("layouts", [("spectrogram", "tokens"), ("frames", "sequence")])
def test_every_layout_and_optimizer(layouts, optimizer):
    trains_and_goes_on(SyntheticCache(2, splits=SPLITS, layouts=layouts), optimizer=optimizer, lr=1e-3)


def test_every_corruption_of_training_batches(monkeypatch):
    monkeypatch.setattr(transform, "Generator", strict.Generator)
    trains_and_goes_on(SyntheticCache(2, splits=SPLITS), corrupted=True)


def test_the_numbers_are_those_of_the_cpu():
    found = []
    for device in (strict.NAME, "cpu"):
        with strict.watched() as watch:
            device = torch.device(device)
            cache = SyntheticCache(2)
            loaders = {s: Loader(cache, s, list(cache.modalities), device, False) for s in ("train", "val")}
            run = Trainer(spec(cache), 0, cache, loaders, device)
            found.append([run.epoch(0)["loss"], run.epoch(1)["loss"], *run.score("val").values()])
        assert not watch.problems
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_a_whole_run_with_checkpoints_and_observers(tmp_path):
    cache = SyntheticCache(2, splits=SPLITS)
    cache.folder, cache.info = "cache", {"sha256": "feed"}
    one = make_run(tmp_path, cache, epochs=2, batch_size=3, precision="bf16")
    every = {name: observers[name].Params() for name in observers}
    one.cell.spec = replace(one.cell.spec, observers=every)
    with strict.watched() as watch:
        device = strict.device()
        loaders = {s: Loader(cache, s, list(cache.modalities), device, resident=True) for s in SPLITS}
        train._train(one, cache, loaders, device, PARAMS_OF_RUN, None, Stop())
    assert one.record.exists() and not watch.problems


def test_a_checkpoint_is_read_back_in_one_copy_and_is_what_it_was(tmp_path):
    with strict.watched() as watch:
        run = trainer(watch, SyntheticCache(2, splits=SPLITS), True, method="qmf", optimizer="adamw", lr=1e-3)
        run.method.on_train_start(run.context)
        run.epoch(0)
        tensors, _ = run.snapshot()
        tensors |= {"flag": torch.ones(3, dtype=torch.bool, device=strict.device()), "none": run.context.labels()[:0]}
        before = watch.reads
        checkpoint.save(tmp_path / "file", tensors, {})
        assert watch.reads == before + 1
        expected = {name: x.cpu() for name, x in tensors.items()}
    found, _ = checkpoint.load(tmp_path / "file")
    assert found.keys() == expected.keys()
    for name, x in expected.items():
        assert found[name].dtype == x.dtype and torch.equal(found[name], x)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_optimizer_steps_all_tensors_together(optimizer):
    with strict.watched() as watch:
        run = trainer(watch, SyntheticCache(2, splits=SPLITS), True, optimizer=optimizer, lr=1e-3)
        run.epoch(0)
        before = watch.operations
        for p in run.model.parameters():
            p.grad = torch.zeros_like(p)
        made = watch.operations - before
        run.context.update()
        assert made == len(list(run.model.parameters())) > 20
        assert watch.operations - before - made < 20


def waiting(where: str, batch: int, again: bool) -> list[str]:
    """What is noted of an epoch, or of the rest of one, whose step or transform waits for the device in a batch."""
    with strict.watched() as watch:
        run, other = (trainer(watch, SyntheticCache(2, splits=SPLITS), True) for _ in "12")
        if again:
            kept = []
            other.epoch(0, lambda: kept.append(copied(other)))
            run.restore(*kept[0])
        of, name = {"step": (run.method, "step"), "transform": (run.transform, "_spoiled")}[where]
        asked = getattr(of, name)

        def waits(*args):
            if run.at.batch == batch:
                torch.ones((), device=strict.device()).item()
                torch.ones(3).to(strict.device(), non_blocking=True)
            return asked(*args)

        setattr(of, name, waits)
        run.epoch(0)
    return [text.partition(": ")[2] for text in watch.problems]


WAITED = [
    "aten._local_scalar_dense.default reads a value back inside a step",
    "an upload blocks, as it is not of pinned memory inside a step",
]


@pytest.mark.parametrize("where", ["step", "transform"])
@pytest.mark.parametrize(("batch", "again"), [(0, False), (1, False), (1, True)])
def test_every_batch_of_a_pass_is_watched(where, batch, again):
    assert waiting(where, batch, again) == WAITED


# The device itself: what it notes, where, and what it lets pass.


def noted(mistake, inside: bool = True) -> list[str]:
    with strict.watched() as watch:
        x, index = torch.arange(4.0, device=strict.device()), torch.arange(3, device=strict.device())
        watch.inside = inside
        mistake(x, index)
        watch.inside = False
    return list(watch.problems)


WAITS = {
    "item": lambda x, i: x.sum().item(),
    "float": lambda x, i: float(x.sum()),
    "if": lambda x, i: 1 if x.sum() > 0 else 0,
    "cpu": lambda x, i: x.cpu(),
    "cpu_without_waiting": lambda x, i: x.to("cpu", non_blocking=True),
    "copy_back": lambda x, i: torch.empty(4).copy_(x),
    "tolist": lambda x, i: x.tolist(),
    "mask": lambda x, i: x[x > 1],
    "write_by_mask": lambda x, i: x.__setitem__(x > 1, x[:2].clone()),
    "nonzero": lambda x, i: x.nonzero(),
    "where": lambda x, i: torch.where(x > 1),
    "masked_select": lambda x, i: x.masked_select(x > 1),
    "unique": lambda x, i: x.unique(),
    "bincount": lambda x, i: torch.bincount(i),
    "repeat": lambda x, i: x[:3].repeat_interleave(i),
    "equal": lambda x, i: torch.equal(x, x),
    "multinomial": lambda x, i: torch.multinomial(x, 1),
    "linalg": lambda x, i: torch.linalg.eigvalsh(x.view(2, 2)),
    "upload": lambda x, i: torch.ones(4).to(x.device),
    "upload_unpinned": lambda x, i: torch.ones(4).to(x.device, non_blocking=True),
    "upload_into": lambda x, i: x.copy_(torch.ones(4)),
    "tensor": lambda x, i: torch.tensor([1.0], device=x.device),
    "new_tensor": lambda x, i: x.new_tensor([1.0]),
    "index": lambda x, i: x[torch.arange(2)],
    "synchronize": lambda x, i: torch.get_device_module(x.device).synchronize(),
}


@pytest.mark.parametrize("name", WAITS)
def test_what_waits_is_noted_inside_a_step_with_file_and_line(name):
    said = noted(WAITS[name])
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    line = next(i for i, text in enumerate(lines, 1) if text.strip().startswith(f'"{name}":'))
    assert said and all(text.startswith(f"{__file__}:{line}: ") and text.endswith(" inside a step") for text in said)
    assert not noted(WAITS[name], inside=False)


def rng(device: str) -> torch.Generator:
    return torch.Generator(device).manual_seed(0)


WRONG = {
    "add": lambda x, i: x + torch.ones(4),
    "joined": lambda x, i: torch.cat([x, torch.ones(1)]),
    "select": lambda x, i: torch.ones(4).index_select(0, i),
    "written": lambda x, i: torch.ones(4).add_(x),
    "number": lambda x, i: torch.ones(()).add_(x[0]),
    "generator": lambda x, i: torch.rand(3, device=x.device, generator=rng("cpu")),
    "generator_of_the_device": lambda x, i: torch.rand(3, generator=rng(strict.NAME)),
    "generator_in_place": lambda x, i: x.normal_(generator=rng("cpu")),
    "randperm": lambda x, i: torch.randperm(3, generator=rng(strict.NAME)),
}


@pytest.mark.parametrize("name", WRONG)
def test_mixed_devices_and_wrong_generators_are_noted_anywhere(name):
    for inside in (True, False):
        (said,) = (text for text in noted(WRONG[name], inside) if not text.endswith("inside a step"))
        assert said.startswith(__file__) and "strict" in said and "cpu" in said.lower()


FINE = {
    "arithmetic": lambda x, i: (x * 2 + torch.tensor(3.0)).sum().sqrt().add_(1),
    "index": lambda x, i: (x[i], x.gather(0, i), x[1:3], x.index_select(0, i)),
    "masked": lambda x, i: (torch.where(x > 1, x, 0), x.masked_fill(x > 1, 0), x.__setitem__(x > 1, 0.0)),
    "drawn": lambda x, i: torch.rand(3, device=x.device, generator=rng(strict.NAME)),
    "dropout": lambda x, i: torch.nn.functional.dropout(x, 0.5),
    "upload": lambda x, i: torch.ones(3).pin_memory().to(x.device, non_blocking=True),
    "shapes": lambda x, i: (len(x), x.shape, x.view(2, 2).T.flatten(), x.numel()),
    "on_the_cpu": lambda x, i: (torch.ones(3).sum().item(), torch.ones(3)[torch.ones(3) > 0].tolist()),
}


@pytest.mark.parametrize("name", FINE)
def test_what_a_gpu_does_behind_the_host_is_not_noted(name):
    assert not noted(FINE[name])


def test_another_thread_that_reads_the_device_is_noted():
    for inside in (True, False):
        (said,) = noted(lambda x, i: apart(x.sum), inside)
        assert said.endswith("sum.default in another thread than that which trains")


def apart(task) -> None:
    thread = threading.Thread(target=task)
    thread.start()
    thread.join()


def copies(wait: bool, keep: bool, again: bool) -> list[str]:
    """A pinned buffer goes up on a side stream and is used on the current one; then it goes up `again`."""
    with strict.watched() as watch:
        module, buffer = torch.get_device_module(strict.device()), torch.ones(3).pin_memory()
        side, event = module.Stream(), module.Event()
        for _ in range(2):
            with module.stream(side):
                x = buffer.to(strict.device(), non_blocking=True)
                event.record(side)
            if wait:
                module.current_stream().wait_event(event)
            if keep:
                x.record_stream(module.current_stream())
            x.sum()
            if not again:
                event.synchronize()
    return [text.partition(": ")[2] for text in watch.problems]


def test_copies_on_a_stream_of_their_own_are_waited_for_and_kept():
    assert copies(wait=True, keep=True, again=False) == []
    (said,) = copies(wait=False, keep=True, again=False)
    assert "before the copy that fills it has ended" in said
    (said,) = copies(wait=True, keep=False, again=False)
    assert "without record_stream" in said
    (said,) = copies(wait=True, keep=True, again=True)
    assert "nobody waited for its last copy" in said
