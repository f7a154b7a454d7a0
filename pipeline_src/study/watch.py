"""A study's progress as it goes: a line every half minute while Snakemake works, and a live table (`status --watch`).

Both read the folders of the runs, so they show what jobs of Slurm do, too.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline_src.core.errors import UserError
from pipeline_src.core.progress import LEVEL, clock
from pipeline_src.core.stages import STAGES
from pipeline_src.study.runs import DIVERGED, EVALUATED, FAILED, MISSING, RUNNING, STOPPED, TRAINED, RunFiles, State
from pipeline_src.study.status import guesses, seconds_left, work

if TYPE_CHECKING:
    from rich.table import Table

    from pipeline_src.study.plan import Plan

log = logging.getLogger(__name__)

INTERVAL = 30.0  # seconds between two lines
REFRESH = 2.0  # seconds between two looks of the table
BAR = 16  # characters
SHOWN = 5  # failures that the table lists
WORDS = {EVALUATED: "done", RUNNING: "running", FAILED: "failed", DIVERGED: "diverged", STOPPED: "stopped"}


def epochs_shown() -> bool:
    """Whether Snakemake is to print what the training jobs say: a line per epoch of every run."""
    return bool(os.environ.get(LEVEL))


class Watch:
    """Looks at a plan's runs again and again; one that is complete is read once."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self._complete: dict[Path, State] = {}  # by evaluation
        self._no_data_left = False
        self._first: tuple[float, list[State]] | None = None  # look after the data were complete, and when

    def states(self) -> list[State]:
        found = []
        for run in self.plan.runs:
            state = self._complete.get(run.evaluation) or RunFiles(run).state()
            if state.complete:
                self._complete[run.evaluation] = state
            found.append(state)
        return found

    def line(self, found: list[State]) -> str:
        """`12 of 80 runs done, 4 running, 1 failed, about 6:40 left`, after what is left of the data, if anything."""
        count, data = Counter(one.state for one in found), self._data()
        parts = [f"{count[EVALUATED]} of {len(found)} runs done"]
        parts += [f"{count[state]} {word}" for state, word in WORDS.items() if count[state] and state != EVALUATED]
        parts += [f"{count[TRAINED]} to be evaluated"] if count[TRAINED] else []
        if any(one.seconds is None for one in found):
            seconds = self._left(found)
            parts.append("time left not known yet" if seconds is None else f"about {clock(seconds)} left")
        return "; ".join(filter(None, [data, ", ".join(parts)]))

    def _left(self, found: list[State]) -> float | None:
        """Seconds of the clock that are left, at the pace since the first look: with start-up, evaluation and the wait
        for a scheduler. Seconds of training alone while there is no pace; None before the first run is done.
        """
        now, guessed = time.monotonic(), guesses(found)
        if self._first is None or not guessed:
            self._first = self._first or ((now, found) if self._no_data_left else None)
            return seconds_left(found)
        since, before = self._first
        left = work(found, guessed)
        made = work(before, guessed) - left
        return left * (now - since) / made if made > 0 else seconds_left(found)

    def _data(self) -> str:
        """`extract: 3 of 8 jobs done`, of the first stage of the data that is not complete."""
        for stage in () if self._no_data_left else STAGES[:4]:
            jobs = self.plan.jobs(stage)
            done = sum(all(path.exists() for path in job) for job in jobs)
            if done < len(jobs):
                return f"{stage}: {done} of {len(jobs)} jobs done"
        self._no_data_left = True
        return ""


class Reporter:
    """Logs a line on the study every half minute, from a thread of Snakemake's process, and one at the end."""

    def __init__(self, plan: Plan, interval: float = INTERVAL):
        self.watch, self.interval = Watch(plan), interval
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._report, daemon=True)

    def start(self) -> None:
        self.thread.start()

    def end(self) -> None:
        """One last line."""
        self.ended.set()
        self.thread.join()
        self._say()

    def _report(self) -> None:
        cost = 0.0
        while not self.ended.wait(max(self.interval, 20 * cost)):  # thousands of runs on a slow disk
            started = time.monotonic()
            self._say()
            cost = time.monotonic() - started

    def _say(self) -> None:
        try:
            log.info(f"study {self.watch.plan.results.name}  {self.watch.line(self.watch.states())}")
        except OSError as error:  # of a file system that is away for a moment
            log.warning(f"study {self.watch.plan.results.name}  {error}")


def show(plan: Plan) -> None:
    """The live table, until every run is complete or Ctrl-C; without a terminal, a line every half minute."""
    watch = Watch(plan)
    if not sys.stdout.isatty():
        while True:
            found = watch.states()
            print(watch.line(found), flush=True)
            if all(one.complete for one in found):
                return
            time.sleep(INTERVAL)
    try:
        from rich.console import Console
        from rich.live import Live
    except ImportError:
        raise UserError(
            "status --watch: expected the package rich, but it is not installed; pip install rich"
        ) from None
    console = Console()
    try:
        with Live(console=console, auto_refresh=False) as live:
            while True:
                found = watch.states()
                live.update(table(watch, found, console.height - 8), refresh=True)
                if all(one.complete for one in found):
                    return
                time.sleep(REFRESH)
    except KeyboardInterrupt:
        return  # the way to leave the table


def table(watch: Watch, found: list[State], rows: int) -> Table:
    """A row per configuration, at most `rows` of them, those at work first; then the last failures."""
    from rich import box
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    groups: dict[tuple[str, str, str], list[State]] = defaultdict(list)
    for one in found:
        names = one.run.names
        groups[names["dataset"], names["fusion"], names["method"]].append(one)
    title = Text(f"{watch.plan.file}: {watch.line(found)}", "bold")
    made = Table(title=title, title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("dataset", "fusion", "method"):
        made.add_column(column, no_wrap=True)
    for column in ("done", "running", "failed"):
        made.add_column(column, justify="right", no_wrap=True)
    made.add_column("", width=BAR)

    def order(group: list[State]) -> int:
        states = {one.state for one in group}
        return 0 if RUNNING in states else 1 if states & {FAILED, DIVERGED} else 2 if MISSING in states else 3

    ranked = sorted(groups.items(), key=lambda item: order(item[1]))
    for key, group in ranked[: max(rows, 1)]:
        count = Counter(one.state for one in group)
        wrong = count[FAILED] + count[DIVERGED]
        bar = ProgressBar(total=len(group), completed=sum(one.fraction for one in group), width=BAR)
        counts = f"{count[EVALUATED]}/{len(group)}", str(count[RUNNING] or ""), str(wrong or "")
        made.add_row(*map(Text, key), *counts, bar, style="red" if wrong else "")
    notes = [f"and {len(ranked) - rows} more configurations"] if len(ranked) > rows > 0 else []
    notes += [f"{one.run.label}: {one.about}" for one in found if one.state in (FAILED, DIVERGED)][-SHOWN:]
    made.caption = Text("\n".join(notes))
    return made
