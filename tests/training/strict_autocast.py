"""Autocast on the test device, by the lists of a GPU, which are not those of the CPU.

The lists are those of the documentation of torch.amp, "CUDA Ops that can autocast to float16 / float32 / widest type",
as far as the program can meet them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

LOWER = (
    "addbmm addmm addmv addr baddbmm bmm conv1d conv2d conv3d linear matmul mm mv prelu scaled_dot_product_attention"
)
FLOAT32 = (
    "acos asin cosh cosine_embedding_loss cdist cosine_similarity cross_entropy_loss cumprod cumsum dist erfinv exp"
    " expm1 binary_cross_entropy_with_logits group_norm kl_div l1_loss layer_norm log log10 log_softmax.int log1p log2"
    " mse_loss multilabel_margin_loss nll_loss nll_loss2d nll_loss_nd norm.Scalar pow.Tensor_Scalar pow.Tensor_Tensor"
    " pow.Scalar prod prod.dim_int reciprocal rsqrt sinh smooth_l1_loss softmax.int softplus sum sum.dim_IntList tan"
    " triplet_margin_loss logsumexp"
)
WIDEST = "addcdiv addcmul atan2 bilinear cross dot grid_sampler index_put scatter_add tensordot"
_library: list[torch.library.Library] = []


def register() -> None:
    """Once in a process."""
    everything = torch.library.Library("_", "IMPL")
    everything.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    ops = torch.library.Library("aten", "IMPL")
    for names, dtype in ((LOWER, _lower), (FLOAT32, _float32), (WIDEST, _widest)):
        for name in names.split():
            packet, _, overload = name.partition(".")
            op = getattr(getattr(torch.ops.aten, packet), overload or "default")
            ops.impl(name, _cast(op, dtype), "AutocastPrivateUse1")
    _library.extend((everything, ops))


def _cast(op: Any, dtype: Any) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        keys = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)
        with torch._C._ExcludeDispatchKeyGuard(keys):
            to = dtype([x for x in _tensors(args, kwargs) if x.is_floating_point()])
            cast = tree_map_only(Tensor, lambda x: x.to(to) if x.is_floating_point() else x, (args, kwargs))
            return op(*cast[0], **cast[1])

    return call


def _tensors(args: tuple, kwargs: dict) -> list[Tensor]:
    return [x for x in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor)]


def _lower(of: list[Tensor]) -> torch.dtype:
    return torch.get_autocast_dtype("strict")


def _float32(of: list[Tensor]) -> torch.dtype:
    return torch.float32


def _widest(of: list[Tensor]) -> torch.dtype:
    return torch.float32 if any(x.dtype == torch.float32 for x in of) else of[0].dtype
