"""What an encoder is, and the registries of encoders and fusions. Imports no torch; see `fusions/base.py` for
fusions.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from pipeline_src.core.params import LARGE, Section
from pipeline_src.core.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pipeline_src.media.base import Extractor
    from pipeline_src.models.fusions.base import Features

encoders = Registry("pipeline_src.models.encoders", "encoder")
fusions = Registry("pipeline_src.models.fusions", "fusion")
LR_FACTOR = "factor on the learning rate of `training`; one rule for fusion and encoders"
VIEWS = ("unimodal", "removal", "contributions")
Init = Literal["default", "ogm_ge", "relearning"]  # see `models.initial`


class Output(NamedTuple):
    """What the model made of a batch: features {m: (B, D_m)} and the joint logits (B, C)."""

    features: Features
    logits: Tensor


def added(parts: Iterable[Tensor]) -> Tensor:
    """The sum of one tensor or more of a shape."""
    return functools.reduce(operator.add, parts)


class FusionParams(Section):
    """Parameters of the fusion, whichever it is."""

    affects = "train"

    lr_factor: float = Field(default=1.0, ge=0, le=LARGE, description=LR_FACTOR)
    offset: float = Field(
        default=1.0,
        ge=0,
        le=LARGE,
        description="of film and gated: what is added to FiLM's factor gamma, and to what a gate lets through. 1: a "
        "modality can be read where the other is removed, see the fusions; 0: as released by OGM-GE and PMR",
    )


class EncoderParams(Section):
    """Parameters of one modality's encoder; `kind` names it."""

    affects = "train"

    kind: str
    lr_factor: float = Field(default=1.0, ge=0, le=LARGE, description=LR_FACTOR)
    freeze: bool = Field(
        default=False, description="the encoder is not trained: weights and running statistics stay as they start"
    )

    @model_validator(mode="after")
    def _either(self) -> Self:
        if self.freeze and self.lr_factor != 1:
            raise ValueError("expected no `lr_factor` for an encoder that `freeze` leaves untrained")
        return self

    @property
    def pretrained(self) -> bool:
        """Whether the weights start from a file."""
        return False

    def weights_sha256(self) -> str | None:
        """Hash of the file that the weights start from, or None. Raises UserError if there is no such file."""
        return None


class Encoder:
    """Maps one modality to a feature vector. `shape` is that of one clip, `layout` that of its extractor; `layouts` are
    those that the encoder can read.
    """

    Params: ClassVar[type[EncoderParams]] = EncoderParams
    layouts: ClassVar[tuple[str, ...]]
    steps: ClassVar[bool] = False  # whether the states at its taps are steps, see `models.steps`
    name: ClassVar[str]  # that it is registered under

    def __init__(self, params: EncoderParams, layout: str, shape: tuple[int, ...]):
        self.params, self.layout, self.shape = params, layout, shape

    @classmethod
    def refuses(cls, params: Any, extractor: Extractor) -> str | None:
        """Why it cannot read what the extractor gives, or None."""
        if extractor.layout in cls.layouts:
            return None
        return f"expected an encoder of layout {extractor.layout!r}, but got {cls.name!r} of {', '.join(cls.layouts)}"

    @property
    def features(self) -> int:
        """Length D of the feature vector."""
        raise NotImplementedError

    @classmethod
    def taps(cls, params: Any) -> dict[str, int]:
        """Stages after which a fusion may read or exchange the state, in order, and the channels of the state there.

        An encoder without taps works with every fusion but those that need them.
        """
        return {}

    def build(self) -> nn.Module:
        """A module (B, *shape) -> (B, D), its weights drawn from torch's global generator; `Stages` if it has taps."""
        raise NotImplementedError


class FusionFacts:
    """What a fusion says of itself where it is registered, `@fusions.register("name", additive=True)`: read without
    torch.

    A fusion with `taps` reads or writes the encoders' hidden states: then features depend on the other modalities, or
    do not hold all that the prediction depends on, and a modality is removed by encoding again without it.
    """

    additive: ClassVar[bool] = False  # the joint logits are the sum of the unimodal logits
    linear: ClassVar[bool] = False  # additive, and linear in each modality: `weights()` gives {m: (C, D_m)}
    own_classifiers: ClassVar[bool] = False  # not additive, but each modality has a classifier of its own
    taps: ClassVar[int] = 0  # how many of the last taps of each encoder it uses, at most
    least_taps: ClassVar[int] = 1  # of a fusion with taps: how many an encoder must have
    steps: ClassVar[bool] = False  # it needs states of steps (B, C, T), with as many channels in each encoder
    reads: ClassVar[bool] = False  # it predicts from the hidden states at the taps
    writes: ClassVar[bool] = False  # it exchanges the hidden states at the taps
    widens: ClassVar[bool] = False  # with more than two modalities, features are longer than the encoders'
    unimodal_loss: ClassVar[bool] = False  # it is trained by the loss of its unimodal logits as well
    least: ClassVar[int] = 1  # modalities that it needs, or more
    most: ClassVar[int | None] = None  # modalities that it takes; None: any number
    views: ClassVar[tuple[str, ...]] = VIEWS  # of a modality inside the fused model, that it supports

    @classmethod
    def unimodal_by(cls) -> str:
        """Where unimodal logits come from: "terms" of the joint logits (exact), own "classifiers", or "removal"."""
        return "terms" if cls.additive else "classifiers" if cls.own_classifiers else "removal"


def fusion_facts(name: str) -> type[FusionFacts]:
    """The facts of a registered fusion. Raises UserError if there is no such fusion, ValueError at an unknown fact."""
    facts = fusions.facts(name)
    unknown = facts.keys() - FusionFacts.__annotations__.keys()
    if unknown:
        raise ValueError(f"fusion {name!r}: expected facts of `FusionFacts`, but got {', '.join(sorted(unknown))}")
    return type(name, (FusionFacts,), dict(facts))


def fusion_refuses(name: str, network: dict[str, EncoderParams]) -> str | None:
    """Why a registered fusion cannot join these modalities' encoders {m: params}, or None."""
    facts, count = fusion_facts(name), len(network)
    if count < facts.least or (facts.most is not None and count > facts.most):
        wanted = f"{facts.least} or more" if facts.most is None else f"{facts.least} to {facts.most}"
        return f"expected {wanted} modalities for fusion {name!r}, but got {count}"
    if not facts.taps or count == 1:
        return None
    taps = {m: encoders[params.kind].taps(params) for m, params in network.items()}
    without = [m for m in network if not taps[m]]
    if without:
        return f"expected encoders with taps for fusion {name!r}, but got none in {', '.join(without)}"
    few = [f"{len(of)} in {m}" for m, of in taps.items() if len(of) < facts.least_taps]
    if few:
        return f"expected encoders with {facts.least_taps} taps or more for fusion {name!r}, but got {', '.join(few)}"
    if facts.steps:
        others = [f"{params.kind!r} for {m}" for m, params in network.items() if not encoders[params.kind].steps]
        if others:
            kinds = ", ".join(kind for kind in encoders if encoders[kind].steps)
            return f"expected encoders of steps ({kinds}) for fusion {name!r}, but got {', '.join(others)}"
        widths = {m: next(iter(of.values())) for m, of in taps.items()}
        if len(set(widths.values())) > 1:
            got = ", ".join(f"{width} for {m}" for m, width in widths.items())
            return f"expected encoders of one width for fusion {name!r}, but got {got}"
    return None


def too_few_words(rows: int | None, extractor: Extractor) -> str | None:
    """Why an embedding has too few rows for the numbers that the extractor gives to words, or None."""
    vocabulary = getattr(extractor, "vocabulary", None)
    if rows is None or vocabulary is None or rows >= vocabulary:
        return None
    return f"expected words of at least {vocabulary:,}, the recipe's numbers, but got {rows:,}"
