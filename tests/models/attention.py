"""Transformer layers in NumPy, float64 and one sample, from weights of PyTorch: what networks are checked against."""

import numpy as np
from scipy.special import erf
from torch import nn


def weights(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.detach().double().numpy() for name, value in module.state_dict().items()}


def norm(x: np.ndarray, w: dict[str, np.ndarray], name: str) -> np.ndarray:
    """Layer norm of each row."""
    centred = x - x.mean(-1, keepdims=True)
    return w[f"{name}.weight"] * centred / np.sqrt(centred.var(-1, keepdims=True) + 1e-5) + w[f"{name}.bias"]


def attention(q: np.ndarray, k: np.ndarray, hidden: np.ndarray, w: dict[str, np.ndarray], name: str, heads: int):
    """Queries (T, D) that see the keys (S, D) that are not `hidden` (S,)."""
    d = q.shape[1]
    parts = zip(
        np.split(w[f"{name}.in_proj_weight"], 3), np.split(w[f"{name}.in_proj_bias"], 3), (q, k, k), strict=True
    )
    q, k, v = (x @ a.T + b for a, b, x in parts)
    found, size = [], d // heads
    for h in range(heads):
        at = slice(h * size, (h + 1) * size)
        scores = q[:, at] @ k[:, at].T / np.sqrt(size)
        scores[:, hidden] = -np.inf
        share = np.exp(scores - scores.max(1, keepdims=True))
        found.append(share / share.sum(1, keepdims=True) @ v[:, at])
    return np.concatenate(found, 1) @ w[f"{name}.out_proj.weight"].T + w[f"{name}.out_proj.bias"]


def linear(x: np.ndarray, w: dict[str, np.ndarray], name: str) -> np.ndarray:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def gelu(x: np.ndarray) -> np.ndarray:
    return x * (1 + erf(x / np.sqrt(2))) / 2


def layer(x: np.ndarray, hidden: np.ndarray, module: nn.Module, heads: int, before: bool, inside=relu) -> np.ndarray:
    """PyTorch's encoder layer, its norms after each part or `before` it."""
    w = weights(module)
    if before:
        y = norm(x, w, "norm1")
        x = x + attention(y, y, hidden, w, "self_attn", heads)
        return x + linear(inside(linear(norm(x, w, "norm2"), w, "linear1")), w, "linear2")
    x = norm(x + attention(x, x, hidden, w, "self_attn", heads), w, "norm1")
    return norm(x + linear(inside(linear(x, w, "linear1")), w, "linear2"), w, "norm2")
