"""What a job took, in the columns of Snakemake's benchmark files that the report reads.

Snakemake's own look at a job every few seconds, and not at one that runs in a copy of another process (see `warm`).
"""

import resource
import sys
import time
from datetime import timedelta
from pathlib import Path

from pipeline_src.core import files

MB = 2**20 if sys.platform == "darwin" else 2**10  # of the unit in which the system gives memory


def write(file: Path, started: float) -> None:
    """Write what this process has taken since `started` (Unix time): seconds, most memory in MB, CPU seconds."""
    seconds, took = time.time() - started, resource.getrusage(resource.RUSAGE_SELF)
    values = {
        "s": f"{seconds:.4f}",
        "h:m:s": str(timedelta(seconds=int(seconds))),
        "max_rss": f"{took.ru_maxrss / MB:.2f}",
        "cpu_time": f"{took.ru_utime + took.ru_stime:.2f}",
    }
    files.write_text(file, "\t".join(values) + "\n" + "\t".join(values.values()) + "\n")
