"""Measures of generated images without any download: class balance, Frechet and kernel distance."""

from fastgan.judges.classifier import Classifier, fit
from fastgan.judges.distances import frechet_distance, kernel_distance
from fastgan.metrics.evaluate import Balance, Report, class_balance, evaluate
from fastgan.metrics.judged import Judged

__all__ = [
    "Balance",
    "Classifier",
    "Judged",
    "Report",
    "class_balance",
    "evaluate",
    "fit",
    "frechet_distance",
    "kernel_distance",
]
