"""The figures of the report, one plug-in per file; see `base`."""
