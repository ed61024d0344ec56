"""Measures of generated images without any download: class balance, Frechet and kernel distance."""

from fastgan.judges.classifier import Classifier, fit
from fastgan.judges.distances import frechet_distance, kernel_distance
from fastgan.metrics.evaluate import Balance, Distances, Report, class_balance, evaluate

__all__ = [
    "Balance",
    "Classifier",
    "Distances",
    "Report",
    "class_balance",
    "evaluate",
    "fit",
    "frechet_distance",
    "kernel_distance",
]
