"""How the tests share a machine: one thread each. On several cores (`pytest -n`) a file is one piece of work, as its
tests may share a study, a database, a server or the toy cluster, and the longest begin first, so that no core waits for
another in the end.
"""

import os

import pytest

# Networks of the tests are tiny: a second thread costs more than it gives.
os.environ.setdefault("OMP_NUM_THREADS", "1")

FIRST = (  # by how long they take
    "tests/tracking/test_follow.py",
    "tests/workflow/test_dvc.py",
    "tests/workflow/test_slurm.py",
    "tests/workflow/test_sequences",
    "tests/workflow/",
    "tests/methods/test_contract",
    "tests/attacks/test_environment.py",
    "tests/reports/test_aggregate.py",
    "tests/training/test_resume.py",
    "tests/tracking/",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest first; the order within a file stays."""
    items.sort(key=lambda item: next((i for i, start in enumerate(FIRST) if item.nodeid.startswith(start)), len(FIRST)))
