"""Metrics of whole images, by one score each: AUROC, average precision and F1-max of the images' anomaly scores.

The score of an image is made of its anomaly map: the highest score, the mean, or the mean of the highest pixels. An
image is anomalous iff its mask is not empty. All three are functions of the ranks of the images' scores, and exact. In
a `MetricCollection` they keep the scores once.

Sources: P. Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 129, 2021 (AUROC of images); J. Jeong et al.,
"WinCLIP", CVPR 2023 (average precision and F1-max of images).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from aupimo_torchmetrics import _warnings
from aupimo_torchmetrics._engine import ranking
from aupimo_torchmetrics._engine.image_scores import score_images
from aupimo_torchmetrics._engine.inputs import Group
from aupimo_torchmetrics._engine.ranking import Formula, Ranks
from aupimo_torchmetrics._ranked import RankedMetric
from aupimo_torchmetrics._settings import check_image_score
from aupimo_torchmetrics.results import PixelResult

__all__ = ["ImageAUROC", "ImageAveragePrecision", "ImageF1Max"]


class _ImageMetric(RankedMetric):
    """Keep a score and a class for each image."""

    if TYPE_CHECKING:  # TorchScript does not understand the annotations
        aupimo_image_scores: list[Tensor] | Tensor
        aupimo_image_is_anomalous: list[Tensor] | Tensor

    _list_dtypes: ClassVar[dict[str, torch.dtype]] = {
        "aupimo_image_scores": torch.float32,
        "aupimo_image_is_anomalous": torch.bool,
    }
    _settings_of_states: ClassVar[str] = "`image_score` and `ignore_index`"
    _settings: ClassVar[str] = "image_score ignore_index"

    def __init__(
        self, image_score: str = "max", *, ignore_index: int | None = None, validate_args: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(ignore_index, validate_args, **kwargs)
        self._share = check_image_score(image_score)
        self.image_score = image_score
        self._add_states()

    def _add_states(self) -> None:
        """Register the states, without any image."""
        self._add_config("dq", self._share, self.ignore_index or 0)

    def _keep(self, groups: Iterable[tuple[Group, torch.Size]]) -> int:
        num_ignored = 0
        for group, _ in groups:
            scores, is_anomalous = score_images(group, self._share, self._score_dtype)
            self._append(scores, is_anomalous)
            num_ignored += len(group.maps) - len(scores)
        return num_ignored

    def _score(self) -> PixelResult:
        scores = self._joined()["aupimo_image_scores"]
        num_missing = int(scores.isnan().sum())
        if num_missing == 0:
            return super()._score()
        text = _warnings.missing_image_scores(type(self).__name__, len(scores), num_missing)
        return PixelResult(math.nan, (math.nan, math.nan), warnings=(text,))

    def _ranks(self) -> Ranks:
        """Ranks of the scores of the anomalous images among those of the normal ones."""
        scores, is_anomalous = self._joined().values()
        return ranking.rank([scores[~is_anomalous]], [scores[is_anomalous]])

    def _reason(self, ranks: Ranks) -> str:
        num_anomalous = int(ranks.counts.sum())
        return _warnings.missing_class(type(self).__name__, int(ranks.num_normal) + num_anomalous, num_anomalous)


class ImageAUROC(_ImageMetric):
    """Compute the area under the ROC curve of images, each with a score that is made of its anomaly map.

        AUROC = P(anomalous score > normal score) + P(anomalous score = normal score) / 2

    is the chance that a random anomalous image has a higher score than a random normal one; a tie counts half. An image
    is normal iff its mask is empty. A model without any skill scores 0.5. It equals scikit-learn's `roc_auc_score`.

    `forward` and `update` take what `AUPIMO.update` takes, without ids: an image that a `DistributedSampler` repeats
    counts twice. `forward` and `compute` return a float32 `Tensor` () in [0, 1]; NaN, with a warning, if there is no
    normal or no anomalous image. Five bytes are kept of an image.

    Args:
        image_score: Score of an image: the `"max"` or `"mean"` of its map, or the mean of its highest pixels, as
            `"top_1%"`. It is rounded to float32.
        ignore_index: As in `AUPIMO`, and so are `validate_args` and `kwargs`. Such pixels count in no score.

    Raises:
        TypeError: If a setting is of the wrong type.
        ValueError: If a setting is out of its range or not known.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics import ImageAUROC
        >>> maps, masks = torch.tensor([1.0, 3.0, 2.0, 4.0]).view(4, 1, 1).repeat(1, 4, 4), torch.zeros(4, 4, 4)
        >>> masks[2:, 0] = 1
        >>> metric = ImageAUROC()
        >>> metric.update(maps, masks)
        >>> metric.compute()
        tensor(0.7500)

    """

    def _formula(self) -> Formula:
        return ranking.AUROC


class ImageAveragePrecision(_ImageMetric):
    """Compute the average precision of images, also called AP or AUPR, by a score that is made of each anomaly map.

        AP = sum over k of (R_k - R_(k-1)) * P_k

    is the precision `P` at each score as a threshold, weighted by the recall `R` of anomalous images that the threshold
    adds. There is no interpolation. A model without any skill scores the share of the images that are anomalous. It
    equals scikit-learn's `average_precision_score`.

    It takes and returns what `ImageAUROC` does.

    Args:
        image_score: As in `ImageAUROC`, and so are `ignore_index`, `validate_args` and `kwargs`.

    Raises:
        TypeError: If a setting is of the wrong type.
        ValueError: If a setting is out of its range or not known.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics import ImageAveragePrecision
        >>> maps, masks = torch.tensor([1.0, 3.0, 2.0, 4.0]).view(4, 1, 1).repeat(1, 4, 4), torch.zeros(4, 4, 4)
        >>> masks[2:, 0] = 1
        >>> metric = ImageAveragePrecision()
        >>> metric.update(maps, masks)
        >>> metric.compute()
        tensor(0.8333)

    """

    def _formula(self) -> Formula:
        return ranking.AVERAGE_PRECISION


class ImageF1Max(_ImageMetric):
    """Compute the highest F1 score of any threshold on images, by a score that is made of each anomaly map.

        F1-max = maximum over t of 2 * P(t) * R(t) / (P(t) + R(t))

    with the precision `P` and the recall `R` of the anomalous images at the threshold `t`, of which every score is
    tried. Chosen on the test set, it flatters the model. `result().threshold` is the lowest threshold that reaches it.

    It takes and returns what `ImageAUROC` does.

    Args:
        image_score: As in `ImageAUROC`, and so are `ignore_index`, `validate_args` and `kwargs`.

    Raises:
        TypeError: If a setting is of the wrong type.
        ValueError: If a setting is out of its range or not known.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics import ImageF1Max
        >>> maps, masks = torch.tensor([1.0, 3.0, 2.0, 4.0]).view(4, 1, 1).repeat(1, 4, 4), torch.zeros(4, 4, 4)
        >>> masks[2:, 0] = 1
        >>> metric = ImageF1Max()
        >>> metric.update(maps, masks)
        >>> metric.compute()
        tensor(0.8000)
        >>> metric.result().threshold
        2.0

    """

    def _formula(self) -> Formula:
        return ranking.F1_MAX
