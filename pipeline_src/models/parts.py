"""One batch over several processes: each encodes its part, and every one has the features of the whole batch.

    process 0   part 0 of the batch -> encoders --+-> features of the whole batch -> fusion, loss, method
    process 1   part 1 of the batch -> encoders --+-> features of the whole batch -> fusion, loss, method

All that follows the encoders is computed in every process, alike. So each has the whole loss and every statistic of a
method, and a method knows nothing of it. Backward, a process takes the gradients of its own part's features. What the
encoders' parameters get from it is summed over the processes before anything sees it: `.grad`, `Context.gradients` and
the hooks of a method hold the gradients of the whole batch, as in one process.

Inside the encoders, batch normalisation exchanges its sums, by the kernels of PyTorch's SyncBatchNorm on a GPU and by
the same formulas on a CPU, which that module refuses.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from pipeline_src.core.seeding import seed_of
from pipeline_src.models.fusions.base import Features
from pipeline_src.models.stages import State

if TYPE_CHECKING:
    from pipeline_src.models.multimodal import MultimodalModel


class LostError(RuntimeError):
    """Another process of the run cannot be reached."""


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
        with _encoding(self), own_draws(self.rank, x.device), WholeBatch(self.counts, self.rank):
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


class WholeBatch(TorchFunctionMode):
    """While entered, batch normalisation that trains takes mean and variance of the whole batch, whichever module asks
    for it.
    """

    def __init__(self, counts: tuple[int, ...], rank: int):
        super().__init__()
        self.counts, self.rank = counts, rank

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        return self._normalised(*args, **kwargs) if func is functional.batch_norm else func(*args, **kwargs)

    def _normalised(
        self,
        input: Tensor,  # as PyTorch names them
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        if not training:
            return functional.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
        return _Normalised.apply(input, weight, bias, running_mean, running_var, momentum, eps)


class _Normalised(Function):
    """Batch normalisation of x (B_r, C, ...) by the mean and variance of all processes' rows."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        momentum: float,
        eps: float,
    ) -> Tensor:
        x, kernels = dense(x), _kernels(x)
        mean, invstd = kernels.batch_norm_stats(x, eps)
        rows = torch.full((1,), x.numel() / x.shape[1], dtype=mean.dtype, device=x.device)
        of_all = torch.stack(all_gather(torch.cat([mean, invstd, rows])))
        means, invstds, counts = of_all.split([len(mean), len(mean), 1], dim=1)
        counts = counts.reshape(-1)
        mean, invstd = kernels.batch_norm_gather_stats_with_counts(
            x, means.contiguous(), invstds.contiguous(), running_mean, running_var, momentum, eps, counts
        )
        ctx.save_for_backward(x, weight, mean, invstd, counts.to(torch.int32))
        return kernels.batch_norm_elemt(x, weight, bias, mean, invstd, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, invstd, counts = ctx.saved_tensors
        gradient, kernels, needed = dense(gradient), _kernels(x), ctx.needs_input_grad
        sum_dy, sum_dy_xmu, weight_gradient, bias_gradient = kernels.batch_norm_backward_reduce(
            gradient, x, mean, invstd, weight, *needed[:3]
        )
        back = None
        if needed[0]:
            together = torch.cat([sum_dy, sum_dy_xmu])
            all_reduce(together)
            sum_dy, sum_dy_xmu = together.split(len(mean))
            back = kernels.batch_norm_backward_elemt(
                gradient, x, mean, invstd, weight, sum_dy, sum_dy_xmu, counts
            )  # the parameters' gradients are this process's, and summed by `_Sum`
        return back, weight_gradient if needed[1] else None, bias_gradient if needed[2] else None, *[None] * 4


def dense(x: Tensor) -> Tensor:
    """As PyTorch's kernels need it: channels last, or contiguous."""
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.dim())
    return x if last is not None and x.is_contiguous(memory_format=last) else x.contiguous()


def _kernels(x: Tensor) -> Any:
    return torch if x.is_cuda else Formulas


class Formulas:
    """What PyTorch has for CUDA alone, by the same names: steps of batch normalisation, in float32."""

    @staticmethod
    def batch_norm_stats(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """Mean and 1 / sqrt(variance + eps) of each channel (C,)."""
        variance, mean = torch.var_mean(x.float(), _places(x), correction=0)
        return mean, (variance + eps).rsqrt()

    @staticmethod
    def batch_norm_gather_stats_with_counts(
        x: Tensor,
        means: Tensor,
        invstds: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        momentum: float,
        eps: float,
        counts: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Those of all rows, from those of `counts` (P,) rows each (P, C); the running statistics move towards them."""
        total, weights = counts.sum(), counts[:, None]
        mean = (weights * means).sum(0) / total
        variance = (weights * (invstds**-2 - eps + (means - mean) ** 2)).sum(0) / total
        if running_mean is not None:
            running_mean.lerp_(mean, momentum)
        if running_var is not None:
            running_var.lerp_(variance * total / (total - 1), momentum)
        return mean, (variance + eps).rsqrt()

    @staticmethod
    def batch_norm_elemt(
        x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, invstd: Tensor, eps: float
    ) -> Tensor:
        y = (x.float() - _broad(mean, x)) * _broad(invstd if weight is None else invstd * weight, x)
        return (y if bias is None else y + _broad(bias, x)).to(x.dtype)

    @staticmethod
    def batch_norm_backward_reduce(
        gradient: Tensor, x: Tensor, mean: Tensor, invstd: Tensor, weight: Tensor | None, *needed: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Sums of dy and of dy (x - mean), and the gradients of weight and bias, of each channel (C,)."""
        dy, places = gradient.float(), _places(x)
        sum_dy, sum_dy_xmu = dy.sum(places), (dy * (x.float() - _broad(mean, x))).sum(places)
        return sum_dy, sum_dy_xmu, sum_dy_xmu * invstd, sum_dy

    @staticmethod
    def batch_norm_backward_elemt(
        gradient: Tensor,
        x: Tensor,
        mean: Tensor,
        invstd: Tensor,
        weight: Tensor | None,
        sum_dy: Tensor,
        sum_dy_xmu: Tensor,
        counts: Tensor,
    ) -> Tensor:
        total = counts.sum()
        along = (x.float() - _broad(mean, x)) * _broad(invstd**2 * sum_dy_xmu / total, x)
        back = gradient.float() - _broad(sum_dy / total, x) - along
        return (back * _broad(invstd if weight is None else invstd * weight, x)).to(x.dtype)


def _places(x: Tensor) -> list[int]:
    """The dimensions of (B, C, ...) but the channels."""
    return [0, *range(2, x.dim())]


def _broad(values: Tensor, x: Tensor) -> Tensor:
    """(C,) as it broadcasts to (B, C, ...)."""
    return values.view(1, -1, *[1] * (x.dim() - 2))


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


# What the processes exchange. Each waits for the others, so all of them must ask for the same in the same order.


def all_gather(x: Tensor, rows: int | None = None) -> list[Tensor]:
    """Every process's tensor, of any type; they have one shape, or up to `rows` rows and are filled up to that."""
    rows = x.shape[0] if rows is None else rows
    mine = x.contiguous() if len(x) == rows else torch.cat([x, x.new_zeros(rows - len(x), *x.shape[1:])])
    raw = mine.view(-1).view(torch.uint8)
    found = [torch.empty_like(raw) for _ in range(dist.get_world_size())]
    with _reached():
        dist.all_gather(found, raw)
    return [other.view(x.dtype).view(mine.shape) for other in found]


def all_reduce(x: Tensor) -> None:
    """Sum in place."""
    with _reached():
        dist.all_reduce(x)


def broadcast(x: Tensor) -> None:
    """The first process's values in place of all others'."""
    with _reached():
        dist.broadcast(x, 0)


@contextmanager
def _reached() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise LostError(f"expected to reach the run's other processes, but got: {error}") from error
