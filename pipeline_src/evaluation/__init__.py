"""Metrics of trained runs."""

FUSED = "fused"  # the "modality" of the whole model, in metrics.json and all that is made from it
