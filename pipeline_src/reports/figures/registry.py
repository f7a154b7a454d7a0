"""The registry of figures, without the reports that they draw: the plan asks it which code the report depends on."""

from pipeline_src.core.registry import Registry

figures = Registry("pipeline_src.reports.figures", "figure")
