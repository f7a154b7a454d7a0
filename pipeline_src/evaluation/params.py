"""The section `evaluation`: types, ranges and units."""

from pydantic import Field

from pipeline_src.core.params import Section


class Evaluation(Section):
    """How a trained model is looked at."""

    batch_size: int = Field(ge=1, description="clips")
    probe_c: float = Field(gt=0, description="inverse strength of the linear probe's L2 penalty")
    probe_iterations: int = Field(ge=1, description="most L-BFGS steps of the linear probe")
