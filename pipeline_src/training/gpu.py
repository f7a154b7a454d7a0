"""The GPUs of one node, shared by processes that know nothing of each other.

Every GPU has as many slots as cells may share it. A slot is a locked file in a folder of the user's; the system lets go
of the lock when its process ends, however it ends. A GPU goes by its UUID, as its number depends on what a process is
shown (CUDA_VISIBLE_DEVICES, which a scheduler sets and which is obeyed).
"""

import fcntl
import logging
import os
import tempfile
import time
from pathlib import Path
from typing import IO

log = logging.getLogger(__name__)


HERE = Path("/proc/driver/nvidia/gpus")  # a folder per GPU of the machine
_held: dict[str, IO] = {}  # this process's slots, by the GPU's UUID, for as long as it lives


def take(
    uuids: list[str], cells_per_gpu: int, folder: Path | None = None, look: float = 0.5, count: int = 1
) -> list[int]:
    """The numbers of `count` GPUs with a free slot, which are this process's from now on; waits until there are as
    many, and holds none while it waits. What the process has already counts.

    The GPU with the fewest cells comes first. `look` is the time in seconds between two looks.
    """
    folder = folder or Path(tempfile.gettempdir()) / f"counterpoise-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    waits = False
    while True:
        for slot in range(cells_per_gpu):
            for uuid in uuids:
                if uuid not in _held and len(_held) < count and (lock := _lock(folder / f"{uuid}-{slot}")):
                    _held[uuid] = lock
        if len(_held) >= count:
            return [uuids.index(uuid) for uuid in _held][:count]
        while _held:  # two processes that each hold what the other one lacks would wait for ever
            _held.popitem()[1].close()
        if not waits:
            wanted = "a GPU" if count == 1 else f"{count} GPUs"
            log.info(
                f"train  waits for {wanted}: {cells_per_gpu} on each of {len(uuids)} (cells_per_gpu, GPUs that show)"
            )
        waits = True
        time.sleep(look)


def _lock(file: Path) -> IO | None:
    opened = file.open("a")
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        opened.close()
        return None
    return opened


def slots(cells_per_gpu: int) -> int | None:
    """How many cells the GPUs that show can take at once; None if there are none. Needs no PyTorch."""
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = len(list(HERE.iterdir())) if HERE.is_dir() else 0
    if shown is not None:
        count = min(count, len([one for one in shown.split(",") if one.strip() not in ("", "-1")]))
    return cells_per_gpu * count or None
