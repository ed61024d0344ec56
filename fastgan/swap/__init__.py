"""accelerate, revert and report: somebody else's network on our operators, in place, and back."""

from fastgan.swap.reporting import Report, report
from fastgan.swap.swapping import accelerate, revert

__all__ = ["Report", "accelerate", "report", "revert"]
