"""Metrics of trained runs."""

# How a modality inside a model is scored: a view of metric k is k_view in metrics.json.
VIEWS = ("unimodal", "removal", "probe")
FUSED = "fused"  # the "modality" of the whole model, in metrics.json and all that is made from it
