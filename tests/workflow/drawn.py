"""Sequences of calls, drawn at random from a seed: studies that grow and shrink, calls killed between and within jobs,
marks and locks that they leave, runs that crash, deleted files of every kind.

    COUNTERPOISE_SEQUENCES=5000 python -m pytest -n 2 tests/workflow -k drawn        for a night
"""

import os

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.workflow.sequences import DAMAGES, Sequence, Server, through

SEQUENCES = int(os.environ.get("COUNTERPOISE_SEQUENCES", 200))
PARTS = 2  # a file of tests each, so that two cores share them


def subsets(*values) -> st.SearchStrategy:
    return st.lists(st.sampled_from(values), min_size=1, max_size=len(values), unique=True)


STUDIES = st.builds(
    lambda seeds, vary, methods, fusions, alpha, probe, confidence: {
        "study": {"seeds": seeds, "vary": vary, "methods": methods, "fusions": fusions},
        "methods": {"ogm": {"alpha": alpha}},
        "evaluation": {"probe_c": probe},
        "reporting": {"confidence": confidence},
    },
    subsets(0, 1, 2),
    st.sampled_from([[], [], [], [], ["split"], ["split", "data"]]),
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


def follow(server: Server, base: dict, part: int) -> None:
    """Take a folder through the sequences of one of PARTS."""

    @seed(part)
    @settings(
        max_examples=-(-SEQUENCES // PARTS),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],  # a sequence is short: making it shorter takes longer than reading it
    )
    @given(STUDIES, st.lists(STEPS, min_size=1, max_size=3))
    def one(study, steps):
        through(Sequence(server, base), study, steps)

    one()
