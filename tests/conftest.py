"""How the tests share a machine: one thread each, and on several cores (`pytest -n`) what belongs together stays
together: a file whose tests share an expensive study, a database, a server or the toy cluster.
"""

import os

import pytest

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # networks of the tests are tiny: a second thread costs more than it gives

# Files in one piece, the longest first, so that no core waits for another in the end.
WHOLE = (
    "tests/tracking/test_follow.py",
    "tests/workflow/test_dvc.py",
    "tests/workflow/test_slurm.py",
    "tests/workflow/test_workflow.py",
    "tests/workflow/",
    "tests/tracking/",
    "tests/reports/test_report_browser.py",
)


def _rank(nodeid: str) -> int:
    return next((i for i, start in enumerate(WHOLE) if nodeid.startswith(start)), len(WHOLE))


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the tests and group those of `WHOLE` by file."""
    items.sort(key=lambda item: _rank(item.nodeid))
    for item in items:
        if _rank(item.nodeid) < len(WHOLE):
            item.add_marker(pytest.mark.xdist_group(item.nodeid.split("::")[0]))
