"""Whatever came before, a call that ends well has made the study, made it right, and made nothing else.

Snakemake, Snakefile, shell and command line are real; what the stages compute is replaced (standin.py).
"""

from tests.workflow import drawn


def test_a_call_that_ends_well_has_made_the_study_first_half_of_what_is_drawn(server, base):
    drawn.follow(server, base, 0)
