"""AUPIMO for torchmetrics: exact, fast and small per-image scores of anomaly maps."""

from aupimo_torchmetrics._version import __version__
from aupimo_torchmetrics.metrics import AUPIMO, PIMO
from aupimo_torchmetrics.results import AUPIMOResult, PIMOResult

__all__ = ["AUPIMO", "PIMO", "AUPIMOResult", "PIMOResult", "__version__"]
