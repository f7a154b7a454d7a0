"""Joint training: cross-entropy of the fused prediction, nothing balanced. The baseline of every paper.

With one modality it is the unimodal baseline.
"""

from pipeline_src.methods.base import Method, methods


@methods.register("joint")
class Joint(Method):
    """Plain joint training (baseline)."""

    family = "baseline"
