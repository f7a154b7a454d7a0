"""A few sequences of calls as in test_sequences.py, through `dvc repro`."""

import pytest

from tests.workflow.sequences import Repository, through


def grid(*seeds: int, **change) -> dict:
    return {"study": {"seeds": list(seeds), "methods": ["joint", "ogm"], "fusions": ["concat"]}, **change}


@pytest.mark.parametrize(
    "steps",
    [
        [("study", grid(0)), ("study", grid(2, 0, 1))],
        [("study", grid(0, 1, methods={"ogm": {"alpha": 0.9}})), ("study", grid(0, 1))],
        [("kill", 13), ("kill", 9), ("damage", [("mark record", 1), ("mark metrics", 0), ("tables", 0)])],
        [("damage", [("weights", 1), ("figure", 0)]), ("damage", [("run", 0), ("memory", 0)]), ("kill", 6)],
    ],
    ids=["seeds", "parameter", "killed", "deleted"],
)
def test_the_same_through_dvc(server, base, steps):
    through(Repository(server, base), grid(0, 1), steps)
