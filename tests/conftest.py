"""Networks of the tests are tiny: a second thread costs them more than it gives."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
