"""The metrics for anomalib's `Evaluator`: they take batches of anomalib, and AUPIMO knows each image by its path.

Conventions: a metric is named, and takes `fields`, `prefix` and `strict`, as every metric of anomalib does. Whatever is
not of anomalib is done by the class of the same name in `aupimo_torchmetrics`.

This module needs the extra `anomalib`.

- **Normalisation.** The default post-processor clamps test maps to [0, 1] by the range of the validation set. If that
  holds normal images only, many scores become equal and the result is wrong, in either direction.
  `PostProcessor(enable_normalization=False)` scores the maps as they are.
- **No masks.** `AUPIMO(strict=False)` skips batches without masks.
- **One score an image.** An Engine cannot log `reduction="none"`. Take `callback.results` instead.
- **Checkpoints.** `load_from_checkpoint` loses the evaluator: give it again, `evaluator=...`.
- **Unified models.** `PerCategory` scores each category of a data module with images of several, in the `Evaluator` of
  this module, which logs `bottle/AUPIMO`, ..., `mean/AUPIMO`, ... In YAML both are class paths.
- **Small masks** vanish when anomalib resizes them. A warning says so; a larger `image_size` helps.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.utilities.plot import _AX_TYPE, _PLOT_OUT_TYPE

from aupimo_torchmetrics import image_metrics, metrics, pixel_metrics, unified
from aupimo_torchmetrics._extras import require
from aupimo_torchmetrics._settings import DEFAULT_FPR_BOUNDS
from aupimo_torchmetrics._warnings import warn
from aupimo_torchmetrics.results import AUPIMOResult

require("anomalib", extra="anomalib", needed_by="aupimo_torchmetrics.anomalib")

from anomalib import metrics as of_anomalib  # noqa: E402
from anomalib.data import Batch  # noqa: E402  after the error that says how to install it
from anomalib.metrics import AnomalibMetric  # noqa: E402

__all__ = [
    "AUPIMO",
    "AUPRO",
    "Evaluator",
    "ImageAUROC",
    "ImageAveragePrecision",
    "ImageF1Max",
    "PerCategory",
    "PixelAUROC",
    "PixelAveragePrecision",
    "PixelF1Max",
]


class _OfMaps(AnomalibMetric, Metric):
    """Take maps and masks from a batch of anomalib; a subclass adds a metric, `class X(_OfMaps, its.X)`."""

    default_fields = ("anomaly_map", "gt_mask")
    fields: Sequence[str]
    strict: bool

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._has_told_of_empty_masks = False

    def update(self, batch: Batch) -> None:
        """Add a batch of anomalib.

        Args:
            batch: Batch with the fields that `fields` names. Its `image_path`, where it has one, gives the image ids
                of AUPIMO.

        Raises:
            ValueError: If a field is missing and the metric is `strict`, or if maps and masks do not fit together.

        """
        super().update(batch, **self._ids(batch))  # type: ignore[safe-super]  # that of `AnomalibMetric`
        if not self._has_told_of_empty_masks:
            self._has_told_of_empty_masks = _warn_of_empty_masks(type(self).__name__, batch, self.fields[1])

    def _ids(self, batch: Batch) -> dict[str, list[str] | None]:  # noqa: ARG002  not every metric takes ids
        """What the metric gets of a batch beside maps and masks."""
        return {}


class AUPIMO(_OfMaps, metrics.AUPIMO):  # type: ignore[misc]  # `update` takes a batch, as all of anomalib do
    """Compute AUPIMO in anomalib: `aupimo_torchmetrics.AUPIMO` for `Evaluator`.

    It is logged as `AUPIMO`, with `prefix` before it, and updated with whole batches: maps and masks are what `fields`
    names, `image_ids` are the batch's `image_path`. So images are in the order of their paths, `result` holds `paths`,
    and an image that a `DistributedSampler` repeats counts once. The first time that `gt_label` says anomalous and the
    mask is empty, a warning says so: small masks vanish when anomalib resizes them.

    Scores are used as the model and the post-processor give them. anomalib's default `PostProcessor` normalises the
    maps of a test and clamps them to [0, 1] by the range of the validation set. Scores outside of this range become
    equal: use `PostProcessor(enable_normalization=False)`.

    Lightning resets the metric at the end of an epoch; `aupimo_torchmetrics.lightning.AUPIMOCallback` keeps the result.
    An evaluator is not part of a checkpoint: give it again, `Padim.load_from_checkpoint(path, evaluator=evaluator)`.

    Args:
        num_thresholds: None for the exact score, or how many thresholds to sample, as in anomalib; 300000 there.
        fpr_bounds: Bounds `(L, U)` of the shared FPR, as in anomalib.
        return_average: anomalib's name for `reduction`: True is `"mean"`, False is `"none"`. In place of the pair
            that anomalib then computes, use `curves` and `result`.
        force: A setting of anomalib that changes nothing here, as every score is computed; a warning says so.
        kwargs: Settings of all metrics of anomalib: `fields` (names of maps and masks in the batch), `prefix` (of the
            name) and `strict` (False to skip batches without maps or masks; if all are skipped, nothing is
            logged). Further settings of `aupimo_torchmetrics.AUPIMO`. `reduction="none"` cannot be logged, so an Engine
            with a logger refuses it.

    Raises:
        TypeError: If a setting is of the wrong type.
        ValueError: If a setting is out of its range or not known, or if `return_average` and `reduction` contradict
            each other.

    Example:
        >>> import torch
        >>> from anomalib.data import ImageBatch
        >>> from anomalib.metrics import Evaluator
        >>> from aupimo_torchmetrics.anomalib import AUPIMO
        >>> metric = AUPIMO(fpr_bounds=(0.1, 0.5), prefix="pixel_")
        >>> evaluator = Evaluator(test_metrics=[metric])
        >>> maps, masks = torch.arange(32.0).view(2, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool)
        >>> masks[1, 0] = True
        >>> paths = ["good/000.png", "crack/000.png"]
        >>> metric.update(ImageBatch(torch.rand(2, 3, 4, 4), anomaly_map=maps, gt_mask=masks, image_path=paths))
        >>> metric.name, metric.compute(), metric.result().paths
        ('pixel_AUPIMO', tensor(1.), ['crack/000.png', 'good/000.png'])

    """

    def __init__(
        self,
        num_thresholds: int | None = None,
        fpr_bounds: Sequence[float] = DEFAULT_FPR_BOUNDS,
        *,
        return_average: bool | None = None,
        force: bool | None = None,
        **kwargs: Any,
    ) -> None:
        if return_average is not None:
            reduction = "mean" if return_average else "none"
            if kwargs.setdefault("reduction", reduction) != reduction:
                raise ValueError(
                    f"Expected `return_average` and `reduction` to say the same, but got {return_average} and "
                    f"{kwargs['reduction']!r}. Use `reduction` only."
                )
        super().__init__(num_thresholds=num_thresholds, fpr_bounds=fpr_bounds, **kwargs)
        if force is not None:
            warn(["AUPIMO: `force` changes nothing, leave it out. Warnings say which scores are uncertain."])

    def _ids(self, batch: Batch) -> dict[str, list[str] | None]:
        """Paths of the images, as their ids."""
        return {"image_ids": _paths(batch)}

    def compute(self) -> Tensor | None:  # type: ignore[override]  # None is what anomalib expects of "nothing"
        """Compute what `aupimo_torchmetrics.AUPIMO` computes.

        None, which is not logged, if the metric is not `strict` and no batch of any process had maps and masks.
        """
        return metrics.AUPIMO.compute(self)

    def _value(self, result: AUPIMOResult) -> Tensor | None:  # type: ignore[override]  # as `compute`
        return None if self._is_nothing(result) else super()._value(result)

    def _warn(self, texts: Iterable[str]) -> None:
        if not self._is_nothing(self._result):
            super()._warn(texts)

    def _is_nothing(self, result: AUPIMOResult | None) -> bool:
        """Whether all batches of all processes were skipped."""
        return not self.strict and result is not None and len(result.aupimos) == 0

    def plot(self, val: Tensor | Sequence[Tensor] | None = None, ax: _AX_TYPE | None = None) -> _PLOT_OUT_TYPE:
        """Plot as `aupimo_torchmetrics.AUPIMO.plot` does; the score is NaN where `compute` returns None."""
        if val is None and self.reduction == "mean" and self.compute() is None:
            val = torch.tensor(math.nan)
        return super().plot(val, ax)


class AUPRO(_OfMaps, pixel_metrics.AUPRO):  # type: ignore[misc]  # `update` takes a batch, as all of anomalib do
    """Compute AUPRO in anomalib: `aupimo_torchmetrics.AUPRO` for `Evaluator`, with the same settings."""


class PixelAUROC(_OfMaps, pixel_metrics.PixelAUROC):  # type: ignore[misc]
    """Compute the AUROC of all pixels in anomalib: `aupimo_torchmetrics.PixelAUROC` for `Evaluator`."""


class PixelAveragePrecision(_OfMaps, pixel_metrics.PixelAveragePrecision):  # type: ignore[misc]
    """Compute the average precision of pixels: `aupimo_torchmetrics.PixelAveragePrecision` for `Evaluator`."""


class PixelF1Max(_OfMaps, pixel_metrics.PixelF1Max):  # type: ignore[misc]
    """Compute the highest F1 score of all pixels: `aupimo_torchmetrics.PixelF1Max` for `Evaluator`."""


class ImageAUROC(_OfMaps, image_metrics.ImageAUROC):  # type: ignore[misc]
    """Compute the AUROC of images, scored by their maps: `aupimo_torchmetrics.ImageAUROC` for `Evaluator`."""


class ImageAveragePrecision(_OfMaps, image_metrics.ImageAveragePrecision):  # type: ignore[misc]
    """Compute the average precision of images: `aupimo_torchmetrics.ImageAveragePrecision` for `Evaluator`."""


class ImageF1Max(_OfMaps, image_metrics.ImageF1Max):  # type: ignore[misc]
    """Compute the highest F1 score of images: `aupimo_torchmetrics.ImageF1Max` for `Evaluator`."""


class PerCategory(unified.PerCategory):
    """Score each category on its own in anomalib: `aupimo_torchmetrics.PerCategory` for the `Evaluator` of this module.

    Which category an image is of is said by the attribute `category` of the batch, a text for each image, or else by
    its path, in which one folder has the name of a category, as in `mvtec/bottle/test/crack/000.png`.

    Args:
        categories: All names of categories.
        metric: A metric or a collection, not of anomalib but of `aupimo_torchmetrics` or torchmetrics, of which each
            category gets a copy. None for `vad_metrics`.
        fields: Names of maps and masks in the batch.
        strict: False to skip batches without maps or masks.
        settings: Settings of `vad_metrics`, such as `fpr_bounds` and `prefix`, if there is no `metric`.

    Raises:
        TypeError: If a setting is of the wrong type.
        ValueError: If a setting is out of its range or not known. In `update`: if the category of an image is not
            known, or if a field is missing and `strict` is true.

    Example:
        >>> import torch
        >>> from anomalib.data import ImageBatch
        >>> from aupimo_torchmetrics.anomalib import Evaluator, PerCategory
        >>> metrics = PerCategory(["bottle", "cable"], fpr_bounds=(0.1, 0.5))
        >>> evaluator = Evaluator(test_metrics=metrics)
        >>> maps, masks = torch.arange(32.0).view(2, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool)
        >>> masks[:, 3, 2:] = True
        >>> paths = ["mvtec/cable/test/bent/000.png", "mvtec/bottle/test/crack/000.png"]
        >>> metrics.update(ImageBatch(torch.rand(2, 3, 4, 4), anomaly_map=maps, gt_mask=masks, image_path=paths))
        >>> float(metrics["cable/PixelAUROC"].compute())
        1.0

    """

    def __init__(
        self,
        categories: Sequence[str],
        metric: Metric | MetricCollection | None = None,
        *,
        fields: Sequence[str] = _OfMaps.default_fields,
        strict: bool = True,
        **settings: Any,
    ) -> None:
        if metric is not None and settings:
            raise ValueError(f"Expected settings of `vad_metrics` or a `metric`, but got both: {', '.join(settings)}.")
        super().__init__(unified.vad_metrics(**settings) if metric is None else metric, categories)
        self.fields = fields
        self.strict = strict
        self._has_told_of_empty_masks = False

    def update(self, batch: Batch) -> None:  # type: ignore[override]
        """Add a batch of anomalib."""
        maps, masks = (getattr(batch, field, None) for field in self.fields)
        if maps is None or masks is None:
            if self.strict:
                raise ValueError(
                    f"Expected a batch with the fields {' and '.join(self.fields)}, but one of them is missing. "
                    "`strict=False` skips such batches."
                )
            return
        super().update(maps, masks, categories=self._categories_of(batch), image_ids=_paths(batch))
        if not self._has_told_of_empty_masks:
            self._has_told_of_empty_masks = _warn_of_empty_masks("PerCategory", batch, self.fields[1])

    def _categories_of(self, batch: Batch) -> list[str]:
        """Category of each image."""
        given = getattr(batch, "category", None)
        if given is not None:
            return [given] * len(batch.image) if isinstance(given, str) else [*given]
        names = []
        for path in _paths(batch) or [""]:
            folders = f"/{PurePath(path).parent.as_posix()}/"
            found = [category for category in self.categories if f"/{category}/" in folders]
            if len(found) != 1:
                raise ValueError(
                    "Expected one folder in the path of an image to be one of the categories "
                    f"{', '.join(self.categories)}, but got {path!r}. Or give each batch the attribute `category`, "
                    "a text for each image."
                )
            names += found
        return names


class Evaluator(of_anomalib.Evaluator):
    """The `Evaluator` of anomalib, which also takes `PerCategory`, and logs each of its values.

    Args:
        val_metrics: A metric of anomalib or a `PerCategory`, or several, for validation.
        test_metrics: The same for tests.
        compute_on_cpu: Whether to keep states on the CPU, with one device.

    """

    def __init__(
        self,
        val_metrics: AnomalibMetric | PerCategory | Sequence[AnomalibMetric | PerCategory] | None = None,
        test_metrics: AnomalibMetric | PerCategory | Sequence[AnomalibMetric | PerCategory] | None = None,
        compute_on_cpu: bool = True,
    ) -> None:
        val, test = ([each] if isinstance(each, PerCategory) else each for each in (val_metrics, test_metrics))
        super().__init__(val, test, compute_on_cpu)

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Log all metrics of the validation."""
        self._log(trainer, pl_module, self.val_metrics)

    def on_test_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Log all metrics of the test."""
        self._log(trainer, pl_module, self.test_metrics)

    def _log(self, trainer: Any, pl_module: Any, given: Iterable[Any]) -> None:
        """Log metrics under their names; Lightning refuses to do so in its barebones mode."""
        for each in given:
            for name, metric in each.items() if isinstance(each, PerCategory) else [(each.name, each)]:
                pl_module.log(name, metric)
                if trainer.barebones:
                    trainer.callback_metrics[name] = trainer.logged_metrics[name] = metric.compute()

    def metrics_to_cpu(self, metrics: Any) -> None:
        """Let metrics keep their states on the CPU."""
        if isinstance(metrics, PerCategory):
            super().metrics_to_cpu([each.metric for each in metrics.members().values()])
        else:
            super().metrics_to_cpu(metrics)


def _paths(batch: Batch) -> list[str] | None:
    """Paths of the images of a batch; None if it has none."""
    paths = getattr(batch, "image_path", None)
    return list(paths) if paths and all(paths) else None


def _warn_of_empty_masks(name: str, batch: Batch, field: str) -> bool:
    """Warn if an image is anomalous by its label and normal by its mask; return whether that is so."""
    labels, masks = getattr(batch, "gt_label", None), getattr(batch, field, None)
    if labels is None or masks is None or len(labels.reshape(-1)) != len(masks):
        return False
    is_empty = (labels.reshape(-1) != 0).to(masks.device) & ~(masks != 0).flatten(1).any(1)
    if not bool(is_empty.any()):
        return False
    index = int(is_empty.nonzero()[0])
    paths = _paths(batch)
    first = "" if paths is None else f", such as {paths[index]}"
    warnings.warn(  # on every process: each sees other images
        f"{name}: {int(is_empty.sum())} of {len(masks)} images in a batch have an empty mask, but their `gt_label` "
        f"says anomalous{first}. Images with an empty mask count as normal. Small masks vanish when anomalib resizes "
        "them: use a larger `image_size` in the pre-processor. This is said only once.",
        UserWarning,
        stacklevel=4,
    )
    return True
