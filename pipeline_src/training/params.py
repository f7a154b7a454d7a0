"""The section `training`: types, ranges, units and sources. The values are in params.yaml and nowhere else."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field

from pipeline_src.core.params import CLIPS, EPOCHS, LARGE, SMALL, Affects, Section, ascending


class Augmentation(Section):
    """Random changes to one modality's training batches; evaluation sees the input as it is.

    A mirrored picture of optical flow keeps the sign of its displacements, as in the released code.
    """

    affects = "train"

    crop_scale: Annotated[
        list[Annotated[float, Field(gt=0, le=1)]], Field(min_length=2, max_length=2), AfterValidator(ascending)
    ] = Field(
        default=[1.0, 1.0],
        description="frames: share of the area that a random crop keeps; torchvision's default is [0.08, 1]",
    )
    crop_ratio: Annotated[
        list[Annotated[float, Field(ge=0.01, le=100)]], Field(min_length=2, max_length=2), AfterValidator(ascending)
    ] = Field(
        default=[1.0, 1.0], description="frames: aspect ratio of the crop; torchvision's default is [0.75, 1.3333]"
    )
    flip: float = Field(default=0.0, ge=0, le=1, description="frames: probability of a horizontal flip")
    per: Literal["clip", "frame"] = Field(
        default="clip",
        description="frames: what has a crop and a flip of its own. clip: its frames share them, so that motion stays "
        "motion, as in BML_TPAMI2024; frame: as in the other released loaders",
    )
    roll: int = Field(
        default=0,
        ge=0,
        le=100_000,
        description="spectrograms: largest shift in time, in steps, either way, round the end",
    )
    corruption: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default={}, description="registered corruption -> rate, as the last change; see evaluation.corruptions"
    )


LAYOUTS = {  # that the fields of Augmentation are for
    "crop_scale": "frames",
    "crop_ratio": "frames",
    "flip": "frames",
    "per": "frames",
    "roll": "spectrogram",
}


class Training(Section):
    """One schedule for every run of the study."""

    affects = "train"

    epochs: int = Field(ge=1, le=EPOCHS)
    batch_size: int = Field(ge=1, le=CLIPS, description="clips")
    optimizer: Literal["sgd", "adam", "adamw", "adagrad"]
    lr: float = Field(ge=SMALL, le=LARGE, description="learning rate")
    momentum: float = Field(ge=0, lt=1, description="of sgd; published 0.9")
    beta2: float = Field(
        default=0.999,
        ge=0,
        lt=1,
        description="of adam and adamw: how slowly their mean of squared gradients forgets; PMR's released Adam 0.99",
    )
    weight_decay: float = Field(
        ge=0, le=LARGE, description="published 1e-4 (sgd), 1e-2 (adamw); adam and adagrad add it to the gradient"
    )
    lr_step: int = Field(
        ge=1,
        le=EPOCHS,
        description="epochs after which the learning rate is multiplied by `lr_gamma`; published 70 of 100",
    )
    lr_gamma: float = Field(ge=SMALL, le=1, description="published 0.1")
    augmentation: Annotated[dict[str, Augmentation], Affects(None)] = Field(  # a run has that of its modalities
        description="modality -> random changes"
    )
    normalize: Literal["train", "imagenet", "none"] = Field(
        description="train: by mean and deviation of the training split (per channel, per feature of a sequence, of a "
        "whole spectrogram); imagenet: pictures of three channels by ImageNet's, as published, and else as none; none: "
        "pictures come to [0, 1], all else stays"
    )
    select: Literal["best_val", "last"] = Field(description="the epoch whose weights are kept; test data never chooses")
    track_test: bool = Field(
        description="also score each epoch on test, only to report the papers' best-test-epoch figure beside ours"
    )
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], Affects(None)]
    gpus: Annotated[int, Affects(None)] = Field(
        default=1,
        ge=1,
        le=1024,
        description="GPUs of one machine that a run is trained on together, in a process each; with `device: cpu` so "
        "many processes. As another machine would, another number changes the last digits of results and moves none",
    )
    checkpoint_minutes: Annotated[float, Affects(None)] = Field(
        default=10,
        ge=0,
        le=525_600,
        description="within an epoch, time between two checkpoints; one is also made after every epoch",
    )
    precision: Literal["auto", "fp32", "tf32", "bf16"] = Field(
        description="fp32: float32 throughout; tf32: float32 whose products and convolutions a CUDA GPU computes in "
        "TF32; bf16: autocast. auto: bf16 if `device` is cuda, else fp32, even on a GPU that `device: auto` takes. The "
        "address of a run holds which it is, so it depends on this file alone"
    )
    compile: Literal["none", "kernels", "graphs"] = Field(
        default="none",
        description="how the encoders run in full training batches. none: as PyTorch runs them; kernels: through "
        "torch.compile, which needs a C++ compiler, or Triton on a GPU; graphs: also as CUDA graphs, launched at once. "
        "For small networks on a GPU. Losses differ in their last digits, so the address of a run holds it",
    )
    resident_fraction: Annotated[float, Affects(None)] = Field(
        ge=0, le=1, description="cache is kept on the device if it fits in this share of its free memory"
    )

    def resolved(self) -> Self:
        """With fp32 or bf16 in the place of `auto`."""
        auto = "bf16" if self.device == "cuda" else "fp32"
        return self.model_copy(update={"precision": auto}) if self.precision == "auto" else self
