"""Batch normalisation of a batch of which each process of a run has a part, by the statistics of the whole batch.

On a GPU it uses the kernels of PyTorch's SyncBatchNorm, and on a CPU, which that module refuses, the same formulas.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from pipeline_src.models.collective import all_gather, all_reduce


class WholeBatch(TorchFunctionMode):
    """While entered, batch normalisation that trains takes mean and variance of the whole batch, whichever module asks
    for it.
    """

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
