"""The weights that networks start from, by the rules of the released code.

default     as each module is made: convolutions of a ResNet Kaiming normal (fan out), linear layers of a fusion
            Xavier normal with bias 0, everything else as PyTorch does it
ogm_ge      convolutions Kaiming normal (fan out), linear layers Xavier normal with bias 0, batch normalisation 1
            and 0, in encoders and fusion alike: `weight_init` of OGM-GE_CVPR2022, Modal-Imbalance-PMR and
            BML_TPAMI2024. Of ResNets with a fusion of linear layers, the same distributions as by default
relearning  convolutions Kaiming normal (fan out), the weights of batch normalisation normal with mean 1 and
            deviation 0.02, linear layers as PyTorch does it: Diagnosing_Relearning_ECCV2024, whose `weight_init` is
            defined and not called
"""

from torch import nn

from pipeline_src.models.base import Init

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
DEVIATION = 0.02  # of the weights of batch normalisation, by `relearning`


def start(module: nn.Module, init: Init) -> None:
    """Draw a module's weights anew from torch's global generator, by a rule; `default` leaves them as they are."""
    for layer in module.modules() if init != "default" else ():
        if isinstance(layer, CONVOLUTIONS):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(layer, nn.Linear):
            if init == "ogm_ge":
                nn.init.xavier_normal_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
            else:
                layer.reset_parameters()
        elif isinstance(layer, NORMS) and layer.affine:
            if init == "ogm_ge":
                nn.init.ones_(layer.weight)
            else:
                nn.init.normal_(layer.weight, mean=1, std=DEVIATION)
            nn.init.zeros_(layer.bias)
