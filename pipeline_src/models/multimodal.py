"""The model: one encoder per modality and a fusion."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from pipeline_src.core.seeding import seed_of
from pipeline_src.models import base
from pipeline_src.models.base import Encoder, EncoderParams, FusionParams, Init, Output
from pipeline_src.models.fusions.base import Features, Fusion
from pipeline_src.models.initial import start
from pipeline_src.models.parts import Part
from pipeline_src.models.stages import State


def run(encoder: nn.Module, state: Any, stages: tuple[str, ...] | None = None) -> Any:
    """An encoder, or its stages with these names alone, on what came before."""
    return encoder(state) if stages is None else encoder.run(state, stages)


class MultimodalModel(nn.Module):
    """Inputs {m: (B, ...)} -> `Output`. Modalities are the keys of `encoders`.

    `taps` {m: names of the stages after which the fusion reads or writes states} is empty unless the fusion does so;
    every modality has the same number. `extra` holds a method's own modules: empty unless the method adds some.
    `compiled` is None, or the rows of a training batch and what takes the place of `run` on such batches.
    """

    def __init__(
        self, encoders: dict[str, nn.Module], fusion: Fusion, taps: dict[str, tuple[str, ...]] | None = None
    ) -> None:
        super().__init__()
        self.encoders, self.fusion, self.extra = nn.ModuleDict(encoders), fusion, nn.ModuleDict()
        self.taps = dict(taps or {})
        self.frozen: tuple[str, ...] = ()  # modalities whose encoders are not trained
        self.compiled: tuple[int, Callable[..., Any]] | None = None
        self._sections = {m: _sections(encoders[m], names) for m, names in self.taps.items()}

    @property
    def modalities(self) -> list[str]:
        return list(self.encoders)

    def freeze(self, modalities: Collection[str]) -> None:
        """Leave these encoders as they are: no gradients, and evaluation mode, so that running statistics stay."""
        self.frozen = tuple(modalities)
        for m in self.frozen:
            self.encoders[m].requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for m in self.frozen:
            self.encoders[m].eval()
        return self

    def encode(self, inputs: dict[str, Tensor], kept: Collection[str] | None = None) -> Features:
        """Features {m: (B, D_m)} of every modality, and the hidden states that the fusion reads.

        Modalities that are not `kept` (default: all are) are removed: their encoders do not run, they exchange nothing,
        their features are zero. Without taps a feature comes from its own modality alone.

        Of a `Part` of a batch it gives the features of the whole batch.
        """
        if isinstance(inputs, Part):
            return inputs.encode(self, kept)
        states: dict[str, Any] = {m: inputs[m] for m in self.modalities if kept is None or m in kept}
        hidden: dict[str, tuple[State, ...]] = {}
        through = self._through(inputs)
        if self.taps:
            states, hidden = self._staged(states, through)
        else:
            states = {m: through(self.encoders[m], x) for m, x in states.items()}
        dtype = next((f.dtype for f in states.values()), torch.float32)
        for m in set(self.modalities) - set(states):
            states[m] = torch.zeros(len(inputs[m]), self.fusion.dims[m], dtype=dtype, device=inputs[m].device)
        return Features({m: states[m] for m in self.modalities}, hidden)

    def _through(self, inputs: dict[str, Tensor]) -> Callable[..., Any]:
        """What the encoders run through: `run`, or its compiled form where gradients of a full batch are wanted."""
        if self.compiled is None or not (self.training and torch.is_grad_enabled()):
            return run
        rows, compiled = self.compiled
        return compiled if all(len(x) == rows for x in inputs.values()) else run

    def _staged(
        self, states: dict[str, Any], through: Callable[..., Any]
    ) -> tuple[dict[str, Any], dict[str, tuple[State, ...]]]:
        """The encoders stage by stage: what they give, and the states at the taps that the fusion reads."""
        hidden: dict[str, tuple[State, ...]] = {m: () for m in states if self.fusion.reads}
        steps = len(next(iter(self._sections.values())))
        for i in range(steps):
            states = {m: through(self.encoders[m], x, self._sections[m][i]) for m, x in states.items()}
            if i == steps - 1:
                break
            exposed = {m: self.encoders[m].expose(x) for m, x in states.items()}
            if self.fusion.reads:
                hidden = {m: (*seen, exposed[m]) for m, seen in hidden.items()}
            if self.fusion.writes and exposed:
                written = self.fusion.exchange(i, exposed)
                states = {m: self.encoders[m].put(x, written[m]) for m, x in states.items()}
        return states, hidden

    def forward(self, inputs: dict[str, Tensor]) -> Output:
        features = self.encode(inputs)
        return Output(features, self.fusion(features))

    def predict(self, inputs: dict[str, Tensor], kept: Collection[str]) -> Tensor:
        """Joint logits (B, C) of the fusion, with the modalities that are not `kept` removed."""
        return self.fusion(self.encode(inputs, kept))


def _sections(encoder: nn.Module, taps: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Names of an encoder's stages, cut after each tap: one list more than taps."""
    sections: list[list[str]] = [[]]
    for name, _ in encoder.named_children():
        sections[-1].append(name)
        if name in taps:
            sections.append([])
    return [tuple(section) for section in sections]


def paired_taps(most: int, taps: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    """The last taps of each encoder {m: {name: channels}}, as many for each: `most`, or as few as an encoder has."""
    count = min(most, *(len(of) for of in taps.values()))
    return {m: dict(list(of.items())[len(of) - count :]) for m, of in taps.items()} if count else {}


def build(
    encoders: Mapping[str, EncoderParams],
    fusion: str,
    inputs: Mapping[str, dict[str, Any]],
    classes: int,
    seed: int,
    fusion_params: FusionParams | None = None,
    init: Init = "default",
) -> MultimodalModel:
    """A model with the initial weights of `seed`, by the rule `init`, on the CPU. An encoder that starts from a file of
    weights has those.

    `inputs` is {m: {"layout", "shape"}} from the cache. A modality's encoder starts from the same weights in every
    model of the seed, whatever the other modalities, the fusion and the method.
    A model of one modality has no taps: there is nothing to exchange.
    """
    parts, dims, taps = {}, {}, {}
    for m, params in encoders.items():
        encoder: Encoder = base.encoders[params.kind](params, inputs[m]["layout"], tuple(inputs[m]["shape"]))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(seed, "encoder", m))
            parts[m] = encoder.build()
            if not params.pretrained:
                start(parts[m], init)
        dims[m], taps[m] = encoder.features, encoder.taps(encoder.params)
    plugin = base.fusions[fusion]
    used = paired_taps(plugin.taps, taps) if len(parts) > 1 else {}
    widths = {m: tuple(of.values()) for m, of in used.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "head"))
        head = plugin(dims, classes, widths) if widths else plugin(dims, classes)
        start(head, init)
    head.params = fusion_params or head.params
    model = MultimodalModel(parts, head, {m: tuple(of) for m, of in used.items()})
    model.freeze([m for m, params in encoders.items() if params.freeze])
    return model
