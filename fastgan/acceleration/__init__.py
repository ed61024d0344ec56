"""accelerate, revert and report: somebody else's network on our operators, in place, and back."""

from fastgan.acceleration.reporting import Report, report
from fastgan.acceleration.swapping import accelerate, revert

__all__ = ["Report", "accelerate", "report", "revert"]
