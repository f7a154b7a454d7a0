"""Any network of images of `timm` (Wightman, 2019, DOI 10.5281/zenodo.4414861), from a folder in timm's format.

The folder is what `timm.models.save_for_hf` writes: config.json, which names the architecture and its arguments, and
model.safetensors or pytorch_model.bin. Its last layer is left out; the features are what timm pools before it. If the
modality has other channels or (a vision transformer) another size than the saved network, timm adapts the first layer
and the positions. Checked: a clip of several frames is the mean over them, as with `resnet`; timm makes one channel the
sum of the file's, and repeats them for more than three. Files in pickle format are read for tensors alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline_src.core.errors import UserError
from pipeline_src.models.base import Encoder, encoders
from pipeline_src.models.folders import CONFIG, SavedParams, installed

if TYPE_CHECKING:
    from torch import nn

    from pipeline_src.media.base import Extractor


class TimmParams(SavedParams):
    kind: Literal["timm"] = "timm"

    def weights_file(self) -> Path:
        return self.file("model.safetensors", "pytorch_model.bin")


@encoders.register("timm")
class Timm(Encoder):
    """Frames (B, T, C, H, W) or spectrograms (B, F, T) -> features (B, D), D as the network has."""

    Params = TimmParams
    params: TimmParams
    layouts = ("frames", "spectrogram")

    @classmethod
    def refuses(cls, params: TimmParams, extractor: Extractor) -> str | None:
        return super().refuses(params, extractor) or installed("timm", cls.name)

    @property
    def features(self) -> int:
        import torch

        with torch.device("meta"):
            network = self._network(weights=False)
        return int(getattr(network, "head_hidden_size", None) or network.num_features)

    def build(self) -> nn.Module:
        from pipeline_src.models.stages import pictures

        return pictures(self.layout, self.shape, [("network", self._network(self.params.weights))])

    def _network(self, weights: bool) -> Any:
        import timm

        from pipeline_src.models.stages import image_channels

        config, folder = self.params.config(), self.params.folder
        name, arguments = config.get("architecture"), dict(config.get("model_args") or {})
        if name not in timm.list_models():
            raise UserError(f"{folder}/{CONFIG}: expected an `architecture` of timm, but got {name!r}")
        arguments |= {"num_classes": 0, "in_chans": image_channels(self.layout, self.shape)}
        if "img_size" in arguments or (config.get("pretrained_cfg") or {}).get("fixed_input_size"):
            arguments["img_size"] = tuple(self.shape[-2:])
        overlay = {"file": str(self.params.weights_file())} if weights else None
        try:
            return timm.create_model(name, pretrained=weights, pretrained_cfg_overlay=overlay, **arguments)
        except (RuntimeError, TypeError, ValueError, AssertionError) as error:
            what = " ".join(str(error).split())[:300]
            raise UserError(f"{folder}: expected a network that timm can build here, but got: {what}") from error
