"""The section `evaluation`: types, ranges and units."""

from typing import Any

from pydantic import Field

from pipeline_src.core.params import CLIPS, Section


class Evaluation(Section):
    """How a trained model is looked at."""

    affects = "evaluate"

    batch_size: int = Field(ge=1, le=CLIPS, description="clips")
    probe_c: float = Field(ge=1e-6, le=1_000_000, description="inverse strength of the linear probe's L2 penalty")
    corruptions: dict[str, Any] = Field(
        default={}, description="registered corruption of test samples -> {rates, modalities, ...}; none by default"
    )
    tsne: float | None = Field(
        default=None, ge=1, le=1000, description="perplexity of the t-SNE of test features; null: none is made"
    )
    probe_iterations: int = Field(ge=1, le=1_000_000, description="most L-BFGS steps of the linear probe")
    probe_samples: int = Field(
        default=200_000,
        ge=1,
        le=1_000_000_000,
        description="most training samples that the linear probe is fitted on, evenly spread over train; its memory"
        " grows with samples times classes",
    )
