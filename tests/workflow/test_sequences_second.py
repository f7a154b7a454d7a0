"""The other half of the sequences of test_sequences.py, in a file of its own as pytest-xdist divides work by file."""

from tests.workflow import drawn
from tests.workflow.sequences import Sequence, through


def test_a_call_that_ends_well_has_made_the_study_second_half_of_what_is_drawn(server, base):
    drawn.follow(server, base, 1)


def test_seeds_with_data_of_their_own_after_a_kill_with_fewer_seeds_and_without(server, base):
    def study(*seeds: int, vary: tuple[str, ...] = ("split", "data")) -> dict:
        return {"study": {"seeds": list(seeds), "vary": list(vary), "methods": ["joint", "ogm"]}}

    steps = [("kill", 13), ("study", study(1)), ("study", study(0, 2, vary=())), ("damage", [("cache", 0)])]
    through(Sequence(server, base), study(0, 1), [*steps, ("study", study(0, 1, 2)), ("kill", 7)])
