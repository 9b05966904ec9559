"""AUPIMO for torchmetrics: exact per-image scores of anomaly maps, in little time and memory.

`metrics` holds the metrics, `functional` the same as functions, and `results` what they return. Further modules need an
extra: `statistics`, `plotting`, `lightning`, `anomalib`, `evaluate`, `compare` and `demo`.
"""

from aupimo_torchmetrics._version import __version__
from aupimo_torchmetrics.metrics import AUPIMO, PIMO
from aupimo_torchmetrics.results import AUPIMOResult, PIMOResult

__all__ = ["AUPIMO", "PIMO", "AUPIMOResult", "PIMOResult", "__version__"]
