"""Whatever came before, a call that ends well has made the study, made it right, and made nothing else.

Sequences of calls are drawn: studies that grow and shrink, calls killed between and within jobs, marks and locks that
they leave, runs that crash, deleted files of every kind. Snakemake, Snakefile, shell and command line are real; what
the stages compute is replaced (standin.py).

    COUNTERPOISE_SEQUENCES=5000 python -m pytest -n 2 tests/workflow/test_sequences.py
"""

import os

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.workflow.sequences import DAMAGES, Repository, Sequence, Server
from tests.workflow.small import ROOT, merged

SEQUENCES = int(os.environ.get("COUNTERPOISE_SEQUENCES", 200))
PARTS = 4  # which pytest-xdist runs at the same time
SMALL = {"tracking": {"enabled": False}, "datasets": {"av_digits": {"shards": 1}}, "study": {"unimodal": False}}


def subsets(*values) -> st.SearchStrategy:
    return st.lists(st.sampled_from(values), min_size=1, max_size=len(values), unique=True)


STUDIES = st.builds(
    lambda seeds, methods, fusions, alpha, probe, confidence: {
        "study": {"seeds": seeds, "methods": methods, "fusions": fusions},
        "methods": {"ogm": {"alpha": alpha}},
        "evaluation": {"probe_c": probe},
        "reporting": {"confidence": confidence},
    },
    subsets(0, 1, 2),
    subsets("joint", "ogm"),
    st.sampled_from([["concat"], ["concat"], ["sum"], ["concat", "sum"]]),
    st.sampled_from([0.5, 0.5, 0.9]),
    st.sampled_from([1.0, 1.0, 0.1]),
    st.sampled_from([0.95, 0.95, 0.9]),
)
STEPS = st.one_of(
    st.tuples(
        st.just("study"), STUDIES, st.sampled_from(["params.yaml", "params.yaml", "figures.yaml", "b/params.yaml"])
    ),
    st.tuples(st.just("damage"), st.lists(st.tuples(st.sampled_from(DAMAGES), st.integers(0, 11)), max_size=3)),
    st.tuples(st.just("kill"), st.integers(0, 40)),
    st.tuples(st.just("crash"), st.lists(st.integers(0, 11), min_size=1, max_size=2)),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("sequences"), ROOT)
    yield server
    server.end()


@pytest.mark.parametrize("part", range(PARTS))
def test_a_call_that_ends_well_has_made_the_study(server, part):
    base = merged(yaml.safe_load((ROOT / "params.yaml").read_text()), SMALL)

    @seed(part)
    @settings(
        max_examples=-(-SEQUENCES // PARTS),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(STUDIES, st.lists(STEPS, min_size=1, max_size=4))
    def follow(study, steps):
        through(Sequence(server, base), study, steps)

    follow()


def through(folder: Sequence, study: dict, steps: list[tuple]) -> None:
    """Take a folder through a sequence; every call but those that are killed is checked."""
    folder.write(study)
    for what, *how in [*steps, ("end",)]:
        if what == "kill":
            folder.snakemake(kill=how[0])
            continue
        folder.check(how[0] if what == "crash" else ())
        if what == "study":
            folder.write(*how)
        elif what == "damage":
            for damage in how[0]:
                folder.damage(*damage)
    folder.idle()


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
def test_the_same_through_dvc(server, steps):
    base = merged(yaml.safe_load((ROOT / "params.yaml").read_text()), SMALL)
    through(Repository(server, base), grid(0, 1), steps)
