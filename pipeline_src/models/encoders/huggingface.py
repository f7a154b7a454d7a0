"""Encoders of text, images and sound of Hugging Face `transformers` (Wolf et al., EMNLP 2020, arXiv:1910.03771), from a
folder in its format: config.json and model.safetensors, as `save_pretrained` writes them. Nothing is downloaded.

    tokens        models of `input_ids`, such as BERT; token n of ours is their number n - 1, and 0 is padding. The
                  extractor `tokenizer` gives the numbers of the model's own tokenizer
    frames        models of `pixel_values`, such as ViT; a clip is the mean over its frames
    spectrogram   models of `input_values` (steps, bins), such as AST, for as many steps and bins as they are made for

The features are the `first` step of the last hidden state (the class token), the `mean` over steps that are no padding,
or what the model's own `pooler` makes of them. Checked: forward passes of BERT, ViT and AST against the library's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from pipeline_src.core.errors import UserError
from pipeline_src.models.base import Encoder, encoders
from pipeline_src.models.folders import SavedParams, installed

if TYPE_CHECKING:
    from torch import nn

    from pipeline_src.media.base import Extractor

INPUTS = {"tokens": "input_ids", "frames": "pixel_values", "spectrogram": "input_values"}


class HuggingFaceParams(SavedParams):
    kind: Literal["huggingface"] = "huggingface"
    pool: Literal["first", "mean", "pooler"] = Field(
        default="first", description="the features: the first step (class token), the mean, or the model's own pooling"
    )


@encoders.register("huggingface")
class HuggingFace(Encoder):
    """Tokens (B, T), frames (B, T, C, H, W) or spectrograms (B, F, T) -> features (B, D), D as the model has."""

    Params = HuggingFaceParams
    params: HuggingFaceParams
    layouts = ("frames", "spectrogram", "tokens")

    @classmethod
    def refuses(cls, params: HuggingFaceParams, extractor: Extractor) -> str | None:
        why = super().refuses(params, extractor) or installed("transformers", cls.name)
        words, numbers = getattr(extractor, "vocabulary", None), None if why else params.config().get("vocab_size")
        if words is not None and numbers is not None and words - 1 > numbers:
            return f"expected a model of at least {words - 1:,} tokens, the recipe's numbers, but got {numbers:,}"
        return why

    @property
    def features(self) -> int:
        config = self.params.config()
        sizes = config.get("hidden_sizes") or [config.get("hidden_size", config.get("dim"))]
        if not isinstance(sizes[-1], int):
            raise UserError(f"{self.params.folder}: expected `hidden_size` in the model's configuration, but got none")
        return sizes[-1]

    def build(self) -> nn.Module:
        from pipeline_src.models.pretrained import Pictures, Sound, Texts
        from pipeline_src.models.stages import Stages, pictures

        model, pool = self._model(), self.params.pool
        if self.layout == "tokens":
            return Stages([("network", Texts(model, pool))])
        if self.layout == "spectrogram":
            return Stages([("network", Sound(model, pool))])
        return pictures(self.layout, self.shape, [("network", Pictures(model, pool))])

    def _model(self) -> Any:
        """The library's model. Raises UserError if it does not read the modality."""
        from transformers import AutoConfig, AutoModel
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        folder = self.params.folder
        try:
            config = AutoConfig.from_pretrained(folder, local_files_only=True)
            if self.params.weights:
                model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
            else:
                model = AutoModel.from_config(config)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            what = " ".join(str(error).split())[:300]
            raise UserError(f"{folder}: expected a model that transformers can load, but got: {what}") from error
        if model.main_input_name != INPUTS[self.layout]:
            got = f"a model of {model.main_input_name} for {self.layout}"
            raise UserError(f"{folder}: expected a model of {INPUTS[self.layout]}, but got {got}")
        made, shape = _sizes(config, self.layout), tuple(self.shape[-3:])
        if made is not None and made != shape:
            raise UserError(f"{folder}: expected an input of {made}, as the model is made for, but got {shape}")
        if self.params.pool != "pooler" and getattr(model, "pooler", None) is not None:
            model.pooler.requires_grad_(False)  # no loss reaches it
        return model.train()


def _sizes(config: Any, layout: str) -> tuple[int, ...] | None:
    """(C, H, W) of a picture or (F, T) of a spectrogram that the model is made for; None if it takes any."""
    if layout == "spectrogram":
        return (getattr(config, "num_mel_bins", 0), getattr(config, "max_length", 0))
    size = getattr(config, "image_size", None)
    if layout == "frames" and size is not None:
        height, width = size if isinstance(size, list | tuple) else (size, size)
        return (getattr(config, "num_channels", 3), height, width)
    return None
