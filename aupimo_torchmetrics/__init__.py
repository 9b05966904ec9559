"""AUPIMO for torchmetrics: exact per-image scores of anomaly maps, in little time and memory.

`metrics` holds AUPIMO and PIMO, `pixel_metrics` what is reported beside them, `functional` the same as functions, and
`results` what they return. Further modules need an extra: `statistics`, `plotting`, `lightning`, `anomalib`,
`evaluate`, `compare` and `demo`.
"""

from aupimo_torchmetrics._version import __version__
from aupimo_torchmetrics.metrics import AUPIMO, PIMO
from aupimo_torchmetrics.pixel_metrics import AUPRO, PixelAUROC, PixelAveragePrecision, PixelF1Max
from aupimo_torchmetrics.results import AUPIMOResult, PIMOResult

__all__ = [
    "AUPIMO",
    "AUPRO",
    "PIMO",
    "AUPIMOResult",
    "PIMOResult",
    "PixelAUROC",
    "PixelAveragePrecision",
    "PixelF1Max",
    "__version__",
]
