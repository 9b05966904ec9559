"""AUPIMO for torchmetrics: exact per-image scores of anomaly maps, in little time and memory.

Metrics, to use as any metric of torchmetrics:

- `AUPIMO`: how much of each defect is found while normal images show (nearly) no false positive.
- `PIMO`: the curves whose area AUPIMO is.
- `AUPRO`: the area under the per-region overlap curve, for comparison.
- `PixelAUROC`: the area under the ROC curve of all pixels.
- `PixelAveragePrecision`: the average precision of all pixels, AP or AUPR.
- `PixelF1Max`: the highest F1 score of any threshold on all pixels.
- `ImageAUROC`: the area under the ROC curve of images, each with one score.
- `ImageAveragePrecision`: the average precision of images.
- `ImageF1Max`: the highest F1 score of any threshold on images.
- `vad_metrics`: all these numbers in a collection.
- `PerCategory`: a metric or a collection for each category of images, and the means.

What they return:

- `AUPIMOResult`: the scores of all images, with thresholds, curves, operating points, files and tables.
- `PIMOResult`: curves of images.
- `PixelResult`: a metric of pixels or images with its certain bounds, and for F1-max the threshold.

Modules:

- `aupimo_torchmetrics.metrics`: `AUPIMO` and `PIMO`; `merge_state` scores parts of a data set in several processes.
- `aupimo_torchmetrics.formulas`: the definition, protocol, source and undefined cases of each metric.
- `aupimo_torchmetrics.pixel_metrics`: the metrics of all pixels that are reported beside AUPIMO.
- `aupimo_torchmetrics.image_metrics`: those of images, each with one score.
- `aupimo_torchmetrics.unified`: all the numbers that papers print, category by category.
- `aupimo_torchmetrics.functional`: the same metrics as functions of tensors or NumPy arrays.
- `aupimo_torchmetrics.results`: what the metrics return.
- `aupimo_torchmetrics.statistics`: images that stand for a distribution, and tests of models, with the extra `stats`.
- `aupimo_torchmetrics.plotting`: pictures of scores, curves, heat maps and models; needs the extra `plot`.
- `aupimo_torchmetrics.lightning`: a callback that logs where a score comes from; needs the extras `lightning`, `plot`.
- `aupimo_torchmetrics.anomalib`: the metrics in the `Evaluator` of anomalib; needs the extra `anomalib`.
- `aupimo_torchmetrics.evaluate`: scores of maps that were saved to disk; needs the extra `evaluate`.
- `aupimo_torchmetrics.compare`: which of several models is better, by saved scores; needs the extra `stats`.
- `aupimo_torchmetrics.demo`: a small detector to try all this with; needs the extra `demo`.
- `aupimo_torchmetrics.cli`: the command `aupimo`.
"""

from aupimo_torchmetrics._version import __version__
from aupimo_torchmetrics.image_metrics import ImageAUROC, ImageAveragePrecision, ImageF1Max
from aupimo_torchmetrics.metrics import AUPIMO, PIMO
from aupimo_torchmetrics.pixel_metrics import AUPRO, PixelAUROC, PixelAveragePrecision, PixelF1Max
from aupimo_torchmetrics.results import AUPIMOResult, PIMOResult, PixelResult
from aupimo_torchmetrics.unified import PerCategory, vad_metrics

__all__ = [
    "AUPIMO",
    "AUPRO",
    "PIMO",
    "AUPIMOResult",
    "ImageAUROC",
    "ImageAveragePrecision",
    "ImageF1Max",
    "PIMOResult",
    "PerCategory",
    "PixelAUROC",
    "PixelAveragePrecision",
    "PixelF1Max",
    "PixelResult",
    "__version__",
    "vad_metrics",
]
