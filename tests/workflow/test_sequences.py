"""Whatever came before, a call that ends well has made the study, made it right, and made nothing else.

Snakemake, Snakefile, shell and command line are real; what the stages compute is replaced (standin.py).
"""

import socket
import time

import psutil

from tests.workflow import drawn
from tests.workflow.sequences import Sequence
from tests.workflow.small import merged

ONE = {"fusions": ["concat"], "methods": ["joint"], "seeds": [0]}


def test_a_call_that_ends_well_has_made_the_study_first_half_of_what_is_drawn(server, base):
    drawn.follow(server, base, 0)


def test_the_longer_runs_come_first(server, base):
    folder = Sequence(server, merged(base, {"study": {**ONE, "unimodal": True}}))
    folder.write({})
    status, trace = folder.snakemake()
    trained = [what for event, what in trace if event == "trained"]
    assert status == 0 and ["/concat/" in what for what in trained] == [True, False, False]


def test_a_client_that_is_killed_before_it_has_spoken_leaves_no_process_behind(server):
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"/tmp\0")
    time.sleep(1)  # the server has forked for it
    until = time.time() + 30
    while psutil.Process(server.process.pid).children():
        assert time.time() < until, "it waits for the rest of the request for ever"
        time.sleep(0.1)
