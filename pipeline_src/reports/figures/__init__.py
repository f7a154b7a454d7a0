"""The figures, drawn with Matplotlib, which is imported only when one is drawn.

Matplotlib, because it draws what papers print, its SVG needs no script and no network, and MLflow installs it anyway.
"""

from pipeline_src.reports.figures.run import history

__all__ = ["history"]
