"""A run that has diverged: its loss or its weights are no longer finite. A finding about a method, not a crash."""

import torch

from pipeline_src.training.loop import Trainer

EVERY = 50  # steps between two looks at the loss on a GPU, each of which waits for it; on a CPU every step is looked at


class DivergedError(Exception):
    """Training has ended because a value is not finite: `about` names the epoch (from 1), the step and the value."""

    def __init__(self, trainer: Trainer, reason: str):
        self.about = {"epoch": trainer.at.epoch + 1, "step": trainer.context.step, "reason": reason}
        super().__init__(f"diverged in epoch {self.about['epoch']}, step {self.about['step']}: {reason}")


def check_loss(trainer: Trainer) -> None:
    """Between two steps. The epoch's sum of losses shows what was not finite since it began."""
    if trainer.device.type == "cpu" or trainer.context.step % EVERY == 0:
        _check_loss(trainer)


def _check_loss(trainer: Trainer) -> None:
    for name, total in trainer.context.sums.items():
        if name.startswith("loss") and not bool(torch.isfinite(total).all()):
            raise DivergedError(trainer, f"the {name} is not finite")


def check_epoch(trainer: Trainer) -> None:
    """At the end of an epoch: its loss, and all that is evaluated later. The host waits for the model once."""
    _check_loss(trainer)
    state = {name: value for name, value in trainer.model.state_dict().items() if value.is_floating_point()}
    finite = torch.stack([torch.isfinite(value).all() for value in state.values()]).tolist()
    if not all(finite):
        raise DivergedError(trainer, f"{list(state)[finite.index(False)]} is not finite")
