"""One run on several GPUs of a machine, `training.gpus`: its samples per second, and its loss, beside one GPU's."""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch

from benchmarks.gpu import Size, name_of, precisions, spec_of
from pipeline_src.features.read import Cache
from pipeline_src.training import device as devices
from pipeline_src.training import ranks
from pipeline_src.training.interrupt import Stop
from pipeline_src.training.loader import Loader
from pipeline_src.training.loop import Trainer

COUNTS = (1, 2, 4, 8)
ON_CPU = 2  # processes, where there is no GPU: a test of the way, not of its speed


def measure(device: torch.device, size: Size, cache: Path) -> None:
    """Print what one run gives on as many GPUs as the machine shows, with the whole batch divided among them."""
    shown = torch.cuda.device_count() if device.type == "cuda" else ON_CPU
    if shown < 2:
        print("\nOne run on several GPUs: not measured, this machine shows one")
        return
    what = "GPUs" if device.type == "cuda" else "processes"
    print(f"\n| network | precision | {what} of one run | samples/s | over one | loss of an epoch, from one's |")
    print("|---|---|---|---|---|---|")
    for precision in precisions(device):
        one: tuple[float, float] | None = None
        for count in (n for n in COUNTS if n <= shown):
            places = [torch.device("cuda", i) if device.type == "cuda" else device for i in range(count)]
            said = Path(f"several-{precision}-{count}.json").absolute()
            with Stop() as stop:
                ranks.launch("benchmark", places, stop, train, str(cache), size, precision, str(said))
            rate, loss = json.loads(said.read_text())
            one = one or (rate, loss)
            apart = abs(loss - one[1]) / one[1]
            print(
                f"| {name_of(size)} | {precision} | {count} | {rate:,.0f} | {rate / one[0]:.2f} | {apart:.1e} |",
                flush=True,
            )


def train(here: ranks.Ranks, folder: str, size: Size, precision: str, said: str) -> None:
    """One process's part: a first epoch, then epochs for so many seconds; the first one writes rate and loss."""
    devices.deterministic(here.device, 1)
    devices.use_precision(here.device, precision)
    cache, place = Cache(Path(folder)), here.place if here.place.processes > 1 else None
    loaders = {
        s: Loader(cache, s, list(cache.modalities), here.device, resident=True, place=place) for s in ("train", "val")
    }
    run = Trainer(spec_of(cache, size, precision), 0, cache, loaders, here.device)
    loss = run.epoch(0)["loss"]
    here.unite(run)
    started, count, epoch, left = time.perf_counter(), 0, 1, True
    while left:
        run.epoch(epoch)
        here.unite(run)
        count, epoch = count + len(loaders["train"]), epoch + 1
        (left,) = here.agreed(int(time.perf_counter() - started < size.seconds))
    if here.first:
        Path(said).write_text(json.dumps([count / (time.perf_counter() - started), loss]))
