"""What determines a run but its seed and its cache: the only thing that training and evaluation see of params.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline_src.methods.base import MethodParams
from pipeline_src.models.base import EncoderParams, FusionParams, Init
from pipeline_src.observers.base import ObserverParams
from pipeline_src.training.params import Augmentation, Training


@dataclass(frozen=True)
class RunSpec:
    """A model and how it is trained. Every parameter has been checked; nothing that reads a spec checks again."""

    modalities: tuple[str, ...]
    encoders: Mapping[str, EncoderParams]  # of every modality
    fusion: str
    method: str
    params: MethodParams  # of the method
    training: Training
    augmentation: Mapping[str, Augmentation]  # of every modality
    task: str = "classification"  # of the dataset
    segments: int = 0  # of a sample, each with a target; see `Task`
    fusion_params: FusionParams = field(default_factory=FusionParams)
    init: Init = "default"  # by which rule weights start
    weights_sha256: Mapping[str, str] = field(default_factory=dict)  # of the files that encoders start from
    requires: Mapping[str, str] = field(default_factory=dict)  # the method's name of a run -> its fingerprint
    observers: Mapping[str, ObserverParams] = field(default_factory=dict)  # those that apply to the run

    def address(self) -> dict[str, Any]:
        """What enters the address of the run, as JSON holds it."""
        values = {
            "modalities": list(self.modalities),
            "encoders": {m: encoder.values("train") for m, encoder in self.encoders.items()},
            "fusion": self.fusion,
            "task": self.task,
            "method": {"name": self.method, **self.params.values("train")},
            "training": self.training.values("train"),
            "augmentation": {m: how.values("train") for m, how in self.augmentation.items()},
        }
        fusion = self.fusion_params.values("train")
        optional: dict[str, Any] = {"fusion_params": fusion if self.fusion_params != FusionParams() else {}}
        optional |= {"init": self.init if self.init != "default" else ""}
        optional |= {"weights_sha256": dict(self.weights_sha256), "requires": dict(self.requires)}
        optional |= {"segments": self.segments}
        optional |= {"observers": {name: params.values("train") for name, params in self.observers.items()}}
        return values | {name: value for name, value in optional.items() if value}

    def record(self) -> dict[str, Any]:
        """The same for the run's record, and where the files of weights were."""
        return self.address() | {"encoders": {m: encoder.model_dump() for m, encoder in self.encoders.items()}}
