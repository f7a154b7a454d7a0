"""One batch over several processes: each encodes its part, and every one has the features of the whole batch.

    process 0   part 0 of the batch -> encoders --+-> features of the whole batch -> fusion, loss, method
    process 1   part 1 of the batch -> encoders --+-> features of the whole batch -> fusion, loss, method

All that follows the encoders is computed in every process, alike. So each has the whole loss and every statistic of a
method, and a method knows nothing of it. Backward, a process takes the gradients of its own part's features. What the
encoders' parameters get from it is summed over the processes before anything sees it: `.grad`, `Context.gradients` and
the hooks of a method hold the gradients of the whole batch, as in one process.

Inside the encoders, batch normalisation takes the statistics of the whole batch (`models.batch_norm`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from pipeline_src.core.seeding import seed_of
from pipeline_src.models.batch_norm import WholeBatch
from pipeline_src.models.collective import all_gather, all_reduce
from pipeline_src.models.fusions.base import Features
from pipeline_src.models.stages import State

if TYPE_CHECKING:
    from pipeline_src.models.multimodal import MultimodalModel


class Place(NamedTuple):
    """Which of how many processes this one is."""

    rank: int
    processes: int

    def counts(self, rows: int) -> tuple[int, ...] | None:
        """How many rows of a batch each process has; None if every process has the whole batch, as it is too small."""
        if rows < self.processes:
            return None
        whole, more = divmod(rows, self.processes)
        return tuple(whole + (i < more) for i in range(self.processes))


class Part(dict[str, Tensor]):
    """Inputs {m: (B_r, ...)} of this process's part of a batch; `counts` has the rows B_r of every process's part."""

    def __init__(self, inputs: Mapping[str, Tensor], counts: tuple[int, ...], rank: int):
        super().__init__(inputs)
        self.counts, self.rank = counts, rank

    @property
    def own(self) -> slice:
        """The rows of the batch that this process has."""
        return own(self.counts, self.rank)

    def made(self, inputs: Mapping[str, Tensor], rows: int = 1) -> Part:
        """The same part after a transform that made so many rows of each."""
        return Part(inputs, tuple(rows * count for count in self.counts), self.rank)

    def rows(self, kept: Tensor) -> Part:
        """The samples that `kept` (B,) bool selects, of the whole batch."""
        counts = torch.stack([part.sum() for part in kept.split(self.counts)]).tolist()
        mask = kept[self.own]
        return Part({m: x[mask] for m, x in self.items()}, tuple(counts), self.rank)

    def followed_by_zeros(self, rows: int) -> Part:
        """The batch and so many rows of zeros, which the last process has."""
        counts = (*self.counts[:-1], self.counts[-1] + rows)
        if self.rank < len(counts) - 1:
            return Part(self, counts, self.rank)
        return Part({m: torch.cat([x, x.new_zeros(rows, *x.shape[1:])]) for m, x in self.items()}, counts, self.rank)

    def encode(self, model: MultimodalModel, kept: Collection[str] | None) -> Features:
        """`MultimodalModel.encode` of the whole batch."""
        x = next(iter(self.values()))
        with _encoding(self), own_draws(self.rank, x.device), WholeBatch():
            found: Features = torch.func.functional_call(_Encode(model), summed(model), (dict(self), kept))
        gather = self._gathered
        features = {
            m: gather(f) if kept is None or m in kept else f.new_zeros(sum(self.counts), *f.shape[1:])
            for m, f in found.items()
        }
        hidden = {
            m: tuple(State(gather(s.x), None if s.padding is None else gather(s.padding)) for s in states)
            for m, states in found.hidden.items()
        }
        return Features(features, hidden)

    def _gathered(self, x: Tensor) -> Tensor:
        """Rows (B_r, ...) of every process's part, as the whole batch's (B, ...)."""
        return _Gather.apply(x, self.counts, self.rank)


_now: list[Part] = []  # the part that is being encoded


@contextmanager
def _encoding(part: Part) -> Iterator[None]:
    _now.append(part)
    try:
        yield
    finally:
        _now.pop()


def whole_batch(x: Tensor) -> Tensor:
    """Rows (B, ...) of the whole batch from those of what is being encoded, which may be a part of it: for what takes
    statistics over samples inside of the encoders.
    """
    return _now[-1]._gathered(x) if _now else x


def own(counts: tuple[int, ...], rank: int) -> slice:
    """The rows of a batch that a process has."""
    first = sum(counts[:rank])
    return slice(first, first + counts[rank])


class _Encode(nn.Module):
    """The encoding of a plain batch as a module's `forward`, so that it can be called with other parameters."""

    def __init__(self, model: MultimodalModel):
        super().__init__()
        self.model = model

    def forward(self, inputs: dict[str, Tensor], kept: Collection[str] | None) -> Features:
        return type(self.model).encode(self.model, inputs, kept)


def summed(model: MultimodalModel) -> dict[str, Tensor]:
    """The parameters that encode, by their names in `_Encode`, their gradients summed over the processes. One sum for
    each encoder, and one for a fusion that changes hidden states; its parameters count here as far as they do that.
    """
    if not torch.is_grad_enabled():
        return {}
    parts: dict[str, nn.Module] = {f"model.encoders.{m}": encoder for m, encoder in model.encoders.items()}
    if model.taps and model.fusion.writes:
        parts["model.fusion"] = model.fusion
    found: dict[str, Tensor] = {}
    for place, part in parts.items():
        trained = {name: p for name, p in part.named_parameters() if p.requires_grad}
        if trained:
            outside = _Sum.apply(*trained.values())
            found |= {f"{place}.{name}": p for name, p in zip(trained, outside, strict=True)}
    return found


class _Sum(Function):
    """Parameters as they are; backward, the sum of their gradients over the processes. One that got none gets none."""

    @staticmethod
    def forward(ctx: Any, *parameters: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        return parameters

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        there = [g for g in gradients if g is not None]
        if not there:
            return gradients
        together = torch.cat([g.reshape(-1) for g in there])
        all_reduce(together)
        parts = iter(together.split([g.numel() for g in there]))
        return tuple(None if g is None else next(parts).view(g.shape) for g in gradients)


class _Gather(Function):
    """Rows (B_r, ...) of every process -> rows (B, ...); backward, this process's rows of the gradient, as every
    process has that of the same loss.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, counts: tuple[int, ...], rank: int) -> Tensor:
        ctx.own = own(counts, rank)
        return torch.cat([part[:count] for part, count in zip(all_gather(x, max(counts)), counts, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient[ctx.own], None, None


@contextmanager
def own_draws(rank: int, device: torch.device) -> Iterator[None]:
    """What the encoders draw from PyTorch's global generators, dropout, differs between the processes, and follows from
    the state that the generators have in all of them. Afterwards they are alike again, and as before if nothing was
    drawn.
    """
    generators = [torch.default_generator]
    if device.type == "cuda":
        generators.append(torch.cuda.default_generators[device.index or 0])
    before = [g.get_state() for g in generators]
    seed = seed_of(int(torch.randint(2**62, ())), "part", rank)
    for generator in generators:
        generator.manual_seed(seed)
    began = [g.get_state() for g in generators]
    try:
        yield
    finally:
        drawn = any(not torch.equal(g.get_state(), state) for g, state in zip(generators, began, strict=True))
        for generator, state in zip(generators, before, strict=True):
            generator.set_state(state)
        if drawn:
            torch.rand(())  # another seed next time
