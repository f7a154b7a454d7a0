"""How every attack is judged: exit status, one bounded line that names the place and the fix, nothing lost.

The command line is called in this process (`call`), which is fast; `command` starts a process where the attack could
kill it, needs its own limits, or must receive a signal.
"""

import contextlib
import ctypes
import io
import os
import re
import resource
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

from pipeline_src import cli

ROOT = Path(__file__).parents[2]
HANG = 120  # seconds after which an attack counts as a hang, also where other tests run on the same core
LONGEST = 1000  # characters of a line of an error: as long as a person reads
TRACE = "Traceback (most recent call last)"

# A small study: every section and key is there, so that an attack may replace any value.
STUDY = """\
study:
  datasets: [digits]
  fusions: [concat]
  methods: [joint]
  unimodal: false
  seeds: [0]
datasets:
  digits:
    kind: av_digits
    recipe: small-1
    val_fraction: 0.2
    split_seed: 0
    max_quarantine: 0.01
    shards: 1
    seed: 0
    clips: 84
    test_writers: 4
    seconds: 1.0
    fps: 6
    pixels: 32
    digit_scale: [0.5, 0.75]
    contrast: [0.7, 1.0]
    texture: 0.05
    visual_noise: 0.05
    occlusion: 0.07
    distractors: 0
    snr_db: [0.0, 15.0]
recipes:
  small-1:
    audio: {kind: log_stft, sample_rate: 16000, seconds: 1.0, pad: zero, n_fft: 128, hop: 512, floor: 1.0e-7}
    visual: {kind: frames, count: 2, size: 32, pick: centers}
model:
  encoders:
    audio: {kind: resnet, width: 4, depth: [1, 1]}
    visual: {kind: resnet, width: 4, depth: [1, 1]}
training:
  epochs: 2
  batch_size: 32
  optimizer: sgd
  lr: 0.02
  momentum: 0.9
  weight_decay: 1.0e-4
  lr_step: 7
  lr_gamma: 0.1
  augmentation:
    audio: {roll: 8}
    visual: {crop_scale: [0.7, 1.0], crop_ratio: [0.9, 1.1], flip: 0.0}
  normalize: train
  select: best_val
  track_test: true
  device: cpu
  checkpoint_minutes: 10
  precision: fp32
  resident_fraction: 0.5
methods:
  ogm: {alpha: 0.1}
evaluation:
  batch_size: 64
  probe_c: 1.0
  probe_iterations: 100
reporting:
  confidence: 0.95
tracking:
  enabled: false
  experiment: attacks
"""


class Outcome(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        """The lines of the message: those from `error: ` on, without what was said of the progress before."""
        lines = self.err.splitlines()
        first = next((i for i, line in enumerate(lines) if line.startswith("error: ")), len(lines))
        return lines[first:]


def put(text: str, place: str, written: str) -> str:
    """The YAML text with the value at a dotted place replaced by other text; the last part of a place may be a number
    of a list, and `key!` stands for the key itself.
    """
    node, parent = yaml.compose(text, Loader=yaml.SafeLoader), None
    *names, last = place.split(".") if place else [""]
    for name in (*names, last.removesuffix("!")):
        parent = node
        if isinstance(node, yaml.SequenceNode):
            node = node.value[int(name)]
        else:
            key, node = next((key, value) for key, value in node.value if key.value == name)
    target = key if last.endswith("!") else node
    assert parent is not None
    start, end = target.start_mark.index, target.end_mark.index
    while isinstance(target, yaml.MappingNode) and text[end - 1] in "\n ":  # a block ends where the next one begins
        end -= 1
    return text[:start] + written + text[end:]


def line_of(text: str, place: str) -> int:
    """The line at which the key of a dotted place is written, from 1."""
    node, line = yaml.compose(text, Loader=yaml.SafeLoader), 1
    for name in place.split("."):
        if isinstance(node, yaml.SequenceNode):
            node = node.value[int(name)]
            line = node.start_mark.line + 1
        else:
            key, node = next((key, value) for key, value in node.value if key.value == name)
            line = key.start_mark.line + 1
    return line


def call(*arguments: str | os.PathLike) -> Outcome:
    """The command line in this process; an exception that it lets through counts as a crash with status 1."""
    out, err = io.StringIO(), io.StringIO()
    before = {number: signal.getsignal(number) for number in (*cli.SIGNALS, signal.SIGALRM)}
    signal.signal(signal.SIGALRM, _late)
    signal.alarm(HANG)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status = cli.main(list(map(str, arguments)))
            except SystemExit as error:
                status = error.code if isinstance(error.code, int) else 1
            except BaseException:
                traceback.print_exc(file=err)
                status = 1
    finally:
        signal.alarm(0)
        for number, handler in before.items():
            signal.signal(number, handler)
    return Outcome(status, out.getvalue(), err.getvalue())


def _late(*_):
    raise TimeoutError(f"no end after {HANG} s")


def environment(**more: str) -> dict[str, str]:
    """The environment of a process that finds this repository's package."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


def command(*arguments: str | os.PathLike, prepare=None, seconds: float = HANG, **more: str) -> Outcome:
    """The command line in a process of its own; `prepare` runs in it before Python starts."""
    done = subprocess.run(
        [sys.executable, "-m", "pipeline_src", *map(str, arguments)],
        preexec_fn=prepare,
        capture_output=True,
        env=environment(**more),
        timeout=seconds,
    )
    return Outcome(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))


def refused(outcome: Outcome, says: str, *names: str, lines: int = 1) -> None:
    """The attack was refused as a user wants it: status 2, so many lines of bounded length, of which one says what is
    written in `says` (a regular expression) and each of `names` is named.
    """
    assert TRACE not in outcome.err, outcome.err[-3000:]
    assert outcome.status == 2, f"exit status {outcome.status}: {outcome.err[-2000:]}"
    assert 1 <= len(outcome.errors) <= lines, f"{len(outcome.errors)} lines:\n" + outcome.err[-2000:]
    longest = max(map(len, outcome.errors))
    assert longest <= LONGEST, f"a line of {longest} characters: {max(outcome.errors, key=len)[:300]}..."
    message = "\n".join(outcome.errors)
    assert re.search(says, message), f"expected {says!r} in: {message}"
    for name in names:
        assert name in message, f"expected {name!r} in: {message}"
    assert message.isprintable() or (set(message) - {"\n"} and all(c.isprintable() or c == "\n" for c in message)), (
        message
    )


def contents(folder: Path) -> dict[str, bytes | str]:
    """{path: content, or target of a link} of everything below a folder that is no special file."""
    found: dict[str, bytes | str] = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent) / name
            if path.is_symlink():
                found[str(path)] = str(path.readlink())
            elif path.is_file():
                found[str(path)] = path.read_bytes()
    return found


@contextlib.contextmanager
def nothing_lost(folder: Path, may_change: str = "", may_appear: str = r"^$", may_go: str = r"^$") -> Iterator[None]:
    """Every file below the folder is there with the same content afterwards, and no other appears, but for those whose
    paths match the regular expressions.
    """
    before = contents(folder)
    yield
    after = contents(folder)
    lost = [name for name in before if name not in after and not re.search(may_go, name)]
    assert not lost, lost
    kept = [name for name in before if name in after and not (may_change and re.search(may_change, name))]
    changed = [name for name in kept if before[name] != after[name]]
    assert not changed, changed
    allowed = rf"data/seen/|{may_appear}"  # what the plan remembers of a folder
    left = [name for name in after if name not in before and not re.search(allowed, name)]
    assert not left, left


# --- limits of a process ---------------------------------------------------------------------------------------------

OVERRIDES = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH: what lets root read and write everything


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable"))


@contextlib.contextmanager
def as_a_user() -> Iterator[None]:
    """File permissions count in this thread (and those it starts), for root as for everybody else."""
    if os.geteuid():
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = _Header(0x20080522, 0), (_Sets * 2)()
    assert libc.capget(ctypes.byref(header), sets) == 0, ctypes.get_errno()
    sets[0].effective &= ~OVERRIDES
    assert libc.capset(ctypes.byref(header), sets) == 0, ctypes.get_errno()
    try:
        yield
    finally:
        sets[0].effective |= OVERRIDES & sets[0].permitted
        assert libc.capset(ctypes.byref(header), sets) == 0, ctypes.get_errno()


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The system writes no file beyond `size` bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
