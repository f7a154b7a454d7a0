"""Syncs: one, of all that is there, for a person; or one after the other while Snakemake works.

Training knows nothing of this. Who follows is a process of its own (see `beside`), and whatever happens to it or to
MLflow, the workflow ends as it would without.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline_src.core.errors import UserError, concealed
from pipeline_src.tracking import store, view
from pipeline_src.tracking.beside import BEHIND, FIX, LAST

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline_src.study.outputs import Run
    from pipeline_src.study.plan import Plan

log = logging.getLogger(__name__)

INTERVAL, LONGEST = 2.0, 30.0  # seconds between two looks at the folders
SHARE = 0.03  # of a core that syncs may take, within these bounds
PAUSE = 60.0  # seconds before the next try after two failures in a row
UNPROVEN = 5.0  # seconds that the last sync may take of a store that has not answered yet; LAST of another
FEW = 8  # runs that are looked up one by one; more are found in one listing


class UnreadableError(UserError):
    """Files of runs that could not be read; all others were mirrored."""


class _Ended(BaseException):
    """The time of the last sync is over. No `except Exception` of a library holds it up."""


def opened(plan: Plan) -> store.Store:
    """The store of the plan's experiment. Raises what MLflow raises, or UserError."""
    return store.Store(store.uri(), plan.params.tracking.experiment)


def sync(plan: Plan, runs: list[Run], at: store.Store, ended: bool = False) -> Counter:
    """Mirror `runs` and, of a complete study, its results; how many were new, brought up to date, already right.
    Every run has the tag of the plan's study; where all of the plan's runs are mirrored, no other run keeps it.

    `ended`: none of them is being trained any more. Raises UnreadableError at the end, and whatever MLflow raises.
    """
    from pipeline_src.tracking.mirror import Mirror

    views, wrong = [], []
    others = view.baselines(plan)
    for run in runs:
        try:
            found = view.read(run, others.get(run.folder))
        except (UserError, OSError) as error:
            wrong.append(str(error))
            continue
        if found:
            found.tags[view.study_tag(plan)] = view.MEMBER
            views.append(view.stopped(found) if ended and found.status == view.RUNNING else found)
    at.check_unlocked()
    mirror = Mirror(at)
    whole = len(runs) == len(plan.runs)
    known = mirror.everything() if whole or len(views) > FEW else None
    done = Counter(mirror.push(one, None if known is None else known.get(one.address, [])) for one in views)
    if whole and known is not None:
        mirror.untag(known, view.study_tag(plan), {run.folder.as_posix() for run in plan.runs})
    if plan.index.exists():
        mirror.summary(plan)
    if wrong:
        raise UnreadableError("\n".join(wrong))
    return done


def track(plan: Plan) -> None:
    """One sync of everything that the plan names. Raises UserError if the store cannot be reached."""
    try:
        done = sync(plan, plan.runs, opened(plan))
    except (UserError, KeyboardInterrupt):
        raise
    except Exception as error:
        raise UserError(
            f"{store.uri()}: expected an MLflow store that answers, but got {said(error)}; "
            "start it or name another in MLFLOW_TRACKING_URI, and run `python -m pipeline_src track` again"
        ) from error
    from pipeline_src.tracking.mirror import NEW, SAME, UPDATED

    print(f"{concealed(store.uri())}: {', '.join(f'{done[what]} {what}' for what in (NEW, UPDATED, SAME))}")


def said(error: Exception) -> str:
    """What went wrong, in a few words on one line."""
    cause: BaseException = error
    while cause.__cause__ and not isinstance(cause, UserError):
        cause = cause.__cause__
    text = " ".join(str(cause).split())
    for sign, words in (
        ("Connection refused", "connection refused"),
        ("timed out", "no answer in time"),
        ("database is locked", "a database that another program has locked"),
    ):
        if sign in text:
            return words
    return text if len(text) <= 200 else f"{text[:197]}..."


def follow(plan: Plan, parent: int) -> int:
    """Mirror what changes until the process `parent` ends or SIGTERM comes; then once more, for seconds at most.

    Returns 0, or BEHIND if the last sync did not succeed.
    """
    at, asked, failures, pause = None, False, 0, 0.0
    seen: dict[Path, tuple] = {}  # the folders' state as it was mirrored
    moved: set[Path] = set()  # what has changed while we looked

    def end(*_: object) -> None:
        nonlocal asked
        if not asked:  # a store that failed a moment ago gets no second chance: the workflow is waiting
            signal.setitimer(signal.ITIMER_REAL, 0.01 if failures else LAST if at else UNPROVEN)
        asked = True

    def over(*_: object) -> None:
        raise _Ended

    signal.signal(signal.SIGALRM, over)
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to us too; the parent's end is what counts
    log.info(f"track  {store.uri()}, experiment {plan.params.tracking.experiment}")
    try:
        while True:
            if os.getppid() != parent:
                end()
            last, started, began = asked, time.monotonic(), time.process_time()
            now = {run.folder: view.state(run) for run in plan.runs}
            cost = time.monotonic() - started
            changed = {folder for folder, state in now.items() if any(state) and state != seen.get(folder)}
            moved |= changed if seen else set()
            wanted = changed | moved if last else changed  # at the end nobody is at them any more
            if (wanted or last or at is None) and started >= pause:
                try:
                    at = at or opened(plan)
                    began = time.process_time()  # without the imports of the first call
                    sync(plan, [run for run in plan.runs if run.folder in wanted], at, ended=last)
                    failures, seen = 0, now
                except UnreadableError as error:  # said again when the file changes
                    log.warning(f"track  {error}")
                    failures, seen = 0, now
                except Exception as error:
                    failures, at = failures + 1, None
                    log.warning(f"track  {store.uri()}: {said(error)}; will try again")
                    pause = time.monotonic() + PAUSE if failures > 1 else 0.0
            if last:
                signal.setitimer(signal.ITIMER_REAL, 0)  # or it would end this process on its way out
                break
            rest = 0.0 if failures else min(LONGEST, (time.process_time() - began) / SHARE)
            _sleep(max(INTERVAL, 50 * cost, rest), lambda: asked or os.getppid() != parent)
    except _Ended:
        failures += 1
    if failures:
        log.warning(f"track  MLflow is behind; {FIX}")
    return BEHIND if failures else 0


def _sleep(seconds: float, disturbed: Callable[[], bool]) -> None:
    until = time.monotonic() + seconds
    while not disturbed() and (left := until - time.monotonic()) > 0:
        time.sleep(min(0.5, left))
