"""The states that AUPIMO and PIMO share: what they keep of the images, and when it is pruned."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from aupimo_torchmetrics import _resampling  # noqa: F401  a metric in a `BootStrapper` is marked
from aupimo_torchmetrics._engine import image_ids as ids
from aupimo_torchmetrics._engine.image_ids import ImageIds
from aupimo_torchmetrics._engine.inputs import Maps, as_pairs
from aupimo_torchmetrics._engine.kept import PixelScores, lowest_of, prune_scores, take_images, true_indices
from aupimo_torchmetrics._engine.select import select_scores
from aupimo_torchmetrics._list_states import as_before_if_they_fail
from aupimo_torchmetrics._listening import TellingMetric
from aupimo_torchmetrics._scoring import Images, distinct_images
from aupimo_torchmetrics._warnings import ignored_images, warn

_STATE_PREFIX = "aupimo_"
_NUM_LISTS = 7
"""List states that are the first fields of `PixelScores`, in their order."""
MAX_PARTS = 64
"""Parts of a list state, one for each update, before small ones are joined."""


class PixelScoresMetric(TellingMetric):
    """Keep the scores on which a result can depend, of all images seen so far."""

    if TYPE_CHECKING:  # TorchScript does not understand the annotations
        aupimo_normal_scores: list[Tensor] | Tensor
        aupimo_num_kept: list[Tensor] | Tensor
        aupimo_is_anomalous: list[Tensor] | Tensor
        aupimo_id_kinds: Tensor
        aupimo_floor: Tensor
        aupimo_normal_min: Tensor

    _list_dtypes: ClassVar[dict[str, torch.dtype]] = {
        "aupimo_normal_scores": torch.float32,
        "aupimo_mask_scores": torch.float32,
        "aupimo_num_kept": torch.int64,
        "aupimo_num_pixels": torch.int64,
        "aupimo_is_anomalous": torch.bool,
        "aupimo_image_ids": torch.int64,
        "aupimo_max_scores": torch.float32,
        "aupimo_id_lengths": torch.int64,
        "aupimo_id_bytes": torch.uint8,
    }
    _settings_of_states: ClassVar[str] = "`normal_buffer`, upper FPR bound and `ignore_index`"

    def __init__(
        self,
        num_thresholds: int | None,
        normal_buffer: int | None,
        upper_fpr: float,
        ignore_index: int | None,
        validate_args: bool,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_thresholds = num_thresholds
        self.normal_buffer = normal_buffer
        self.ignore_index = ignore_index
        self.validate_args = validate_args
        self._upper_fpr = upper_fpr
        self._is_resampled = False  # set by `_resampling`
        self._add_states()

    def _add_states(self) -> None:
        """Register the states, without any image.

        The lowest normal score is that of all pixels, and to find it takes as long as all else. So there is a state for
        it only where it is needed, to sample thresholds, and is not among the scores that are kept anyway.
        """
        buffer = (-1, 0.0) if self.normal_buffer is None else (self.normal_buffer, self._upper_fpr)
        self._add_config("qdq", *buffer, self.ignore_index or 0)
        floor = torch.tensor(-math.inf, dtype=self._score_dtype, device=self._device)
        kinds = torch.zeros(2, dtype=torch.int64, device=self._device)  # 1 if there are integer ids, 1 if text ids
        self.add_state("aupimo_floor", default=floor, dist_reduce_fx="max")
        self.add_state("aupimo_id_kinds", default=kinds, dist_reduce_fx="max")
        if self.num_thresholds is not None and self.normal_buffer is not None:
            self.add_state("aupimo_normal_min", default=-floor, dist_reduce_fx="min")

    def update(self, preds: Maps, target: Maps, image_ids: ImageIds | None = None) -> None:
        """Add a batch of anomaly maps and masks. This is what all metrics and functions here take.

        Args:
            preds: Anomaly maps (N, H, W) or (N, 1, H, W) of dtype float16, bfloat16, float32 or float64, or a list of N
                maps (H, W) of any sizes: tensors or NumPy arrays. A higher score means more anomalous. Scores are used
                as they are, without sigmoid, clamping or rescaling; metrics round those of float64 to float32.
            target: Masks of the same shape, bool, integer or floating, holding only 0 (normal) and 1 (anomalous), and
                `ignore_index` if one is set. Either may have an axis of one channel that the other lacks.
            image_ids: One id for each image, unique in the data set: integers of at least 0, or texts such as file
                paths, which become the `paths` of the result. An image whose id was seen before is not counted again; a
                `DistributedSampler` repeats images, to give all ranks equally many. If images with the same id differ,
                the first counts, and a warning says so. None if every image counts.

        Raises:
            TypeError: If maps, masks or ids are of the wrong type or dtype.
            ValueError: If shapes, devices or numbers of images do not fit, a map holds NaN, a mask holds anything but 0
                and 1, an id is negative or empty, ids are integers here and texts in another update, or ids are given
                in a `BootStrapper` of torchmetrics, which draws images several times. Nothing of the batch is kept.

        """
        if image_ids is not None and self._is_resampled:
            raise ValueError(
                "Expected `image_ids` to be None in a BootStrapper, but got ids. It draws images several times, and an "
                "image whose id was seen before would not count again. Leave `image_ids` out."
            )
        with as_before_if_they_fail([self]):
            pairs = as_pairs(preds, target, validate_args=self.validate_args)
            if self.aupimo_config.is_meta and pairs:  # built on the device "meta", which keeps no values
                self._begin_on(pairs[0][0].device, self._score_dtype)
            kept = select_scores(
                pairs,
                self.aupimo_floor,
                normal_buffer=self.normal_buffer,
                upper_fpr=self._upper_fpr,
                ignore_index=self.ignore_index,
                validate_args=self.validate_args,
                with_lowest="aupimo_normal_min" in self._defaults,
            )
            id_list: Any = None if image_ids is None else ids.read_ids(image_ids, len(kept.num_kept))
            given_ids, is_kept = id_list, [True] * len(kept.num_kept)
            if self.ignore_index is not None:
                counted = true_indices(kept.num_pixels)
                num_dropped = len(kept.num_pixels) - len(counted)
                if num_dropped:
                    is_kept = (kept.num_pixels > 0).tolist()
                    kept = take_images(kept, counted)
                    warn([ignored_images("AUPIMO", num_dropped, self.ignore_index)])
                    if isinstance(id_list, list):
                        id_list = [id_list[index] for index in counted.tolist()]
                    elif id_list is not None:
                        id_list = id_list[counted.to(id_list.device)]
            self._keep(kept, id_list)
        if self.listeners:
            self._tell(preds, target, given_ids, is_kept)

    def _keep(self, kept: PixelScores, id_list: Any) -> None:
        """Add what is kept of images and their ids, if they have any, to the states."""
        parts = kept._asdict()
        parts["id_lengths"] = torch.zeros_like(kept.num_kept)
        parts["id_bytes"] = kept.num_kept.new_empty(0, dtype=torch.uint8)
        if id_list is not None and len(id_list):
            has_texts = isinstance(id_list[0], str)
            if has_texts:
                parts["id_lengths"], parts["id_bytes"] = ids.encode(id_list)
            else:
                parts["image_ids"] = id_list
            self.aupimo_id_kinds = self.aupimo_id_kinds.clone()
            self.aupimo_id_kinds[int(has_texts)] = 1
            self._check_id_kinds("image_ids")
        device = self.device
        for name in self._list_dtypes:
            getattr(self, name).append(parts[name.removeprefix(_STATE_PREFIX)].to(device))
        self.aupimo_floor = torch.maximum(self.aupimo_floor, kept.floor.to(device))
        if "aupimo_normal_min" in self._defaults:
            self.aupimo_normal_min = torch.minimum(self.aupimo_normal_min, kept.normal_min.to(device))
        self._prune_when_outgrown()

    def _settle(self, name: str) -> None:
        self._check_id_kinds(name)
        self._prune_when_outgrown()

    def _check_id_kinds(self, name: str) -> None:
        """Raise if some image ids are integers and others texts."""
        if bool(self.aupimo_id_kinds.all()):
            raise ValueError(
                f"Expected `{name}` to be all integers or all texts in one metric, but got one kind after the other. "
                "Give the same kind in every update."
            )

    def _kept(self, joined: dict[str, Tensor]) -> PixelScores:
        """What was kept, of all images, from the joined list states."""
        scores = joined["aupimo_normal_scores"]
        if self.normal_buffer is None and isinstance(self.aupimo_normal_scores, list):
            for name, whole in joined.items():  # all normal scores are many: a result shares them with the metric
                setattr(self, name, [whole])
        has_lowest = "aupimo_normal_min" in self._defaults
        lowest = self.aupimo_normal_min.to(scores.device) if has_lowest else lowest_of(scores)
        return PixelScores._make([*[*joined.values()][:_NUM_LISTS], self.aupimo_floor.to(scores.device), lowest])

    def _text_ids(self, joined: dict[str, Tensor]) -> list[str] | None:
        """Ids of all images that are texts, "" for an image without one; None if none has a text."""
        lengths, as_bytes = joined["aupimo_id_lengths"], joined["aupimo_id_bytes"]
        return ids.decode(lengths, as_bytes) if len(as_bytes) else None

    def _images(self) -> Images:
        """All distinct images."""
        joined = self._joined()
        return distinct_images(self._kept(joined), self._text_ids(joined))

    def _prune_when_outgrown(self) -> None:
        """Prune if more came in since the last pruning than it left, so that the total cost is linear in the data.

        However many updates there are, a list of many parts becomes a short one. The first part, which is what the last
        pruning left, is joined with the others when these are together as large: so each score is copied few times.
        """
        sizes = [part.numel() for part in self.aupimo_normal_scores]  # many times as fast as `len`
        first, others = sum(sizes[:1]), sum(sizes[1:])
        if self.normal_buffer is not None and others > max(2 * self.normal_buffer, first):
            self._compact()
        elif len(sizes) > MAX_PARTS:
            num_left = 0 if self.normal_buffer is None and others >= first else 1
            for name in self._list_dtypes:
                parts = self._parts(name)
                setattr(self, name, [*parts[:num_left], torch.cat(parts[num_left:])])

    def _compact(self) -> None:
        """Replace each list state by one tensor, without the normal scores that can no longer matter."""
        joined, device = self._joined(), self.device
        kept = self._kept(joined)
        if self.normal_buffer is not None:
            kept = prune_scores(kept, self.normal_buffer, self._upper_fpr)
        for name, whole in zip(joined, [*kept[:_NUM_LISTS], *[*joined.values()][_NUM_LISTS:]], strict=True):
            setattr(self, name, [whole.to(device)])
        self.aupimo_floor = kept.floor.to(device)
