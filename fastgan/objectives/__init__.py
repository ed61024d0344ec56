"""What is trained against what: losses, regularisers, schedules, phases and the standard
adversarial objective."""

from fastgan.objectives.adversarial import Adversarial
from fastgan.objectives.base import Noise, Objective, Phase
from fastgan.objectives.growing import Growing
from fastgan.objectives.information import Information
from fastgan.objectives.losses import LOSSES, Loss
from fastgan.objectives.matching import Matching
from fastgan.objectives.reconstructing import Reconstructing
from fastgan.objectives.regularizers import gradient_penalty, input_gradient, zero_centred_penalty
from fastgan.objectives.schedules import Constant, Cosine, Exponential, Linear
from fastgan.objectives.semi_supervised import SemiSupervised
from fastgan.objectives.staged.autoencoding import Autoencoding, OnMaps
from fastgan.objectives.staged.pyramid import Detail

__all__ = [
    "LOSSES",
    "Adversarial",
    "Autoencoding",
    "Constant",
    "Cosine",
    "Detail",
    "Exponential",
    "Growing",
    "Information",
    "Linear",
    "Loss",
    "Matching",
    "Noise",
    "Objective",
    "OnMaps",
    "Phase",
    "Reconstructing",
    "SemiSupervised",
    "gradient_penalty",
    "input_gradient",
    "zero_centred_penalty",
]
