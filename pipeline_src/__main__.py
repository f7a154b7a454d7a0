"""`python -m pipeline_src`."""

import sys

from pipeline_src.warm.ask import ask

status = ask(sys.argv[1:])
if status is None:
    from pipeline_src.cli import main

    status = main()
sys.exit(status)
