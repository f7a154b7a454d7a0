"""The stages of the pipeline, in order: the one list of them."""

from typing import Literal, get_args

Stage = Literal["fetch", "manifest", "extract", "cache", "train", "evaluate", "aggregate"]
STAGES: tuple[Stage, ...] = get_args(Stage)
