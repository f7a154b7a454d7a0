"""Metrics of trained runs."""

# How a modality inside a model is scored: a view of metric k is k_view in metrics.json.
VIEWS = ("unimodal", "removal", "probe")
CORRUPTED = "corrupted"  # the "split" of test samples with corrupted modalities
FUSED = "fused"  # the "modality" of the whole model, in metrics.json and all that is made from it


def corrupted_name(metric: str, corruption: str, rate: float) -> str:
    """The name of a metric of corrupted samples, as in `accuracy_noise_0.5`."""
    return f"{metric}_{corruption}_{rate:g}"
