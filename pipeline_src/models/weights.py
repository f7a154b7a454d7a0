"""Load weights from a file of the user: safetensors, or a state dict that PyTorch saved."""

from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline_src.core.errors import UserError, listed

LAST = ("fc.weight", "fc.bias")  # torchvision's last layer, which belongs to the classes the file was trained on


def load_weights(module: nn.Module, file: str | Path, first: str) -> None:
    """Load `file` into `module`; `first` names the weight of its first convolution, which may have other channels.

    Each of C channels gets the mean of the file's N, times N / C: on equal channels the layer's output stays the same.
    The last layer of a classifier (`fc`) is left out. Raises UserError if the file cannot be read, or if a tensor is
    missing, is not expected or has another shape.
    """
    state = {name: value for name, value in _read(Path(file)).items() if name not in LAST}
    expected = module.state_dict()
    if first in state and first in expected and state[first].shape[:1] == expected[first].shape[:1]:
        state[first] = adapted(state[first], expected[first].shape[1])
    # No result depends on this counter, and old files lack it.
    missing = [name for name in expected.keys() - state.keys() if not name.endswith(".num_batches_tracked")]
    other = {name: f"{name} {tuple(v.shape)}" for name, v in state.items() if name not in expected}
    shapes = [
        f"{name} {tuple(state[name].shape)} for {tuple(value.shape)}"
        for name, value in expected.items()
        if name in state and state[name].shape != value.shape
    ]
    for what, names in (("lacks", sorted(missing)), ("has besides", sorted(other.values())), ("has", shapes)):
        if names:
            raise UserError(f"{file}: expected the weights of this encoder; the file {what} {listed(names)}")
    module.load_state_dict(state, strict=False)


def adapted(weight: Tensor, channels: int) -> Tensor:
    """Weight of a convolution (K, N, h, w) for `channels` input channels; itself if it has as many."""
    if weight.shape[1] == channels:
        return weight
    return (weight.sum(1, keepdim=True) / channels).repeat(1, channels, 1, 1)


def _read(file: Path) -> dict[str, Tensor]:
    """The tensors of a file, by name. Only tensors are unpickled."""
    try:
        file.open("rb").close()  # safetensors takes a file that may not be read for one that is not there
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # every reader has errors of its own
        what = " ".join(str(error).split())[:200]
        raise UserError(
            f"{file}: expected tensors (.safetensors, or a state dict saved by PyTorch), but got none: {what}"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"{file}: expected a state dict of tensors, but got something else; save model.state_dict()")
    return dict(state)
