"""Messages: what a person sees of what the modules log."""

import io
import logging
import re
import sys

import pytest

from pipeline_src.core import progress
from pipeline_src.core.errors import UserError

log = logging.getLogger("pipeline_src.some.module")


@pytest.fixture(autouse=True)
def level():
    before = progress.PACKAGE.level
    yield
    progress.PACKAGE.setLevel(before)
    progress.PACKAGE.removeHandler(progress.HANDLER)


def test_a_message_is_one_line_with_the_time_of_day(capsys):
    progress.show()
    progress.show()  # a second call adds no second line
    log.info("train  100 %s of it")
    log.debug("not shown")
    logging.getLogger("another.package").info("not shown")
    assert re.fullmatch(r"\d\d:\d\d:\d\d  train  100 %s of it\n", capsys.readouterr().err)


def test_the_environment_sets_the_level(capsys, monkeypatch):
    monkeypatch.setenv(progress.LEVEL, "warning")
    progress.show()
    log.info("not shown")
    log.warning("shown")
    assert capsys.readouterr().err[8:] == "  shown\n"


def test_a_level_that_does_not_exist_is_named(monkeypatch):
    monkeypatch.setenv(progress.LEVEL, "loud")
    with pytest.raises(UserError, match=r"COUNTERPOISE_LOG: expected DEBUG, .*, but got 'loud'; set one of them"):
        progress.show()


def test_a_reader_that_has_gone_ends_no_job(monkeypatch):
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    progress.show()
    monkeypatch.setattr(sys, "stderr", Closed())
    log.info("nobody reads this")


@pytest.mark.parametrize(("seconds", "text"), [(5, "0:05"), (59.6, "1:00"), (125, "2:05"), (3723, "1:02:03")])
def test_clock(seconds, text):
    assert progress.clock(seconds) == text
