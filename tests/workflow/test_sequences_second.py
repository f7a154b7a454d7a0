"""The other half of the sequences of test_sequences.py, in a file of its own as pytest-xdist divides work by file."""

from tests.workflow import drawn


def test_a_call_that_ends_well_has_made_the_study_second_half_of_what_is_drawn(server, base):
    drawn.follow(server, base, 1)
