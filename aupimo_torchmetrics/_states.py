"""The states that AUPIMO and PIMO share: what they keep of the images, and when it is pruned."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from aupimo_torchmetrics import _resampling  # noqa: F401  a metric in a `BootStrapper` is marked
from aupimo_torchmetrics._engine import image_ids as ids
from aupimo_torchmetrics._engine.checks import Maps
from aupimo_torchmetrics._engine.image_ids import ImageIds
from aupimo_torchmetrics._engine.kept import PixelScores, drop_ignored, prune_scores
from aupimo_torchmetrics._engine.selection import keep_scores
from aupimo_torchmetrics._list_states import fingerprint
from aupimo_torchmetrics._listening import TellingMetric
from aupimo_torchmetrics._scoring import Images, distinct_images
from aupimo_torchmetrics._warnings import ignored_images, warn

_STATE_PREFIX = "aupimo_"
MAX_PARTS = 256
"""Parts of a list state, one for each update, before small ones are joined."""


class PixelScoresMetric(TellingMetric):
    """Keep the scores on which a result can depend, of all images seen so far."""

    if TYPE_CHECKING:  # TorchScript does not understand the annotations
        aupimo_normal_scores: list[Tensor] | Tensor
        aupimo_mask_scores: list[Tensor] | Tensor
        aupimo_num_kept: list[Tensor] | Tensor
        aupimo_num_pixels: list[Tensor] | Tensor
        aupimo_is_anomalous: list[Tensor] | Tensor
        aupimo_image_ids: list[Tensor] | Tensor
        aupimo_id_lengths: list[Tensor] | Tensor
        aupimo_id_bytes: list[Tensor] | Tensor
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
        "aupimo_id_lengths": torch.int64,
        "aupimo_id_bytes": torch.uint8,
    }
    _settings_of_states: ClassVar[str] = "`normal_buffer`, upper FPR bound and `ignore_index`"

    def __init__(
        self,
        normal_buffer: int | None,
        upper_fpr: float,
        ignore_index: int | None,
        validate_args: bool,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.normal_buffer = normal_buffer
        self.ignore_index = ignore_index
        self.validate_args = validate_args
        self._upper_fpr = upper_fpr
        self._is_resampled = False  # set by `_resampling`
        self._add_states()

    def _add_states(self) -> None:
        """Register the states, without any image."""
        for name in self._list_dtypes:
            self.add_state(name, default=[], dist_reduce_fx="cat")
        buffer = (-1, 0.0) if self.normal_buffer is None else (self.normal_buffer, self._upper_fpr)
        config = fingerprint("qdq", *buffer, self.ignore_index or 0)
        kinds = torch.zeros(2, dtype=torch.int64)  # 1 if there are integer ids, 1 if there are text ids
        self.add_state("aupimo_floor", default=torch.tensor(-math.inf, dtype=torch.float32), dist_reduce_fx="max")
        self.add_state("aupimo_normal_min", default=torch.tensor(math.inf, dtype=torch.float32), dist_reduce_fx="min")
        self.add_state("aupimo_id_kinds", default=kinds, dist_reduce_fx="max")
        self.add_state("aupimo_config", default=config, dist_reduce_fx="max")

    def update(self, preds: Maps, target: Maps, image_ids: ImageIds | None = None) -> None:
        """Add a batch of anomaly maps and masks.

        Args:
            preds: Anomaly maps: a tensor (N, H, W) or (N, 1, H, W), or a list of N tensors (H, W) of any sizes.
            target: Masks in the same form and of the same shape, holding only 0 and 1, and `ignore_index` if set.
            image_ids: One id for each image, integers of at least 0 or texts such as file paths. None for no ids.

        Raises:
            TypeError: If maps, masks or ids are of the wrong type or dtype.
            ValueError: If shapes, devices or numbers of images do not fit, a map holds NaN, a mask holds anything but 0
                and 1, an id is negative or empty, ids are integers here and texts in another update, or ids are given
                in a `BootStrapper` of torchmetrics, which draws images several times.

        """
        id_list = ids.as_list(image_ids)
        if id_list is not None and self._is_resampled:
            raise ValueError(
                "Expected `image_ids` to be None in a BootStrapper, but got ids. It draws images several times, and an "
                "image whose id was seen before would not count again. Leave `image_ids` out."
            )
        with self._as_before_if_it_fails():
            kept = keep_scores(
                preds,
                target,
                id_list,
                floor=self.aupimo_floor,
                normal_buffer=self.normal_buffer,
                upper_fpr=self._upper_fpr,
                validate_args=self.validate_args,
                ignore_index=self.ignore_index,
            )
            given_ids, is_kept = id_list, [True] * len(kept.num_kept)
            if self.ignore_index is not None:
                is_kept = (kept.num_pixels > 0).tolist() if self.listeners else is_kept
                kept, id_list, num_dropped = drop_ignored(kept, id_list)
                warn(filter(None, [ignored_images("AUPIMO", num_dropped, self.ignore_index)]))
            has_texts = ids.are_texts(id_list)
            lengths, text = ids.encode(id_list) if has_texts else ids.no_texts(kept.num_kept)
            parts = {**kept._asdict(), "id_lengths": lengths, "id_bytes": text}
            for name in self._list_dtypes:
                getattr(self, name).append(parts[name.removeprefix(_STATE_PREFIX)].to(self.device))
            self.aupimo_floor = torch.maximum(self.aupimo_floor, kept.floor.to(self.device))
            self.aupimo_normal_min = torch.minimum(self.aupimo_normal_min, kept.normal_min.to(self.device))
            if id_list is not None and len(kept.num_kept) > 0:
                self.aupimo_id_kinds = self.aupimo_id_kinds.clone()
                self.aupimo_id_kinds[int(has_texts)] = 1
                self._check_id_kinds("image_ids")
            self._prune_when_outgrown()
        self._tell(preds, target, given_ids, is_kept)

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

    def _joined(self) -> dict[str, Tensor]:
        """Each list state as one tensor, all on one device; with `compute_on_cpu` earlier parts are on the CPU."""
        device = self.aupimo_num_kept[0].device if len(self.aupimo_num_kept) else self.device
        joined = {}
        for name, dtype in self._list_dtypes.items():
            state = getattr(self, name)
            parts = [state] if isinstance(state, Tensor) else state
            nothing = torch.empty(0, dtype=dtype, device=device)
            whole = (
                parts[0].to(device) if len(parts) == 1 else torch.cat([nothing, *(part.to(device) for part in parts)])
            )
            joined[name.removeprefix(_STATE_PREFIX)] = whole
            if self.normal_buffer is None and len(parts) > 1:
                setattr(self, name, [whole])  # all normal scores are many: a result shares them with the metric
        return joined

    def _kept(self, joined: dict[str, Tensor]) -> PixelScores:
        """What was kept, from the joined states."""
        lists = {name: state for name, state in joined.items() if name in PixelScores._fields}
        device = lists["num_kept"].device
        return PixelScores(**lists, floor=self.aupimo_floor.to(device), normal_min=self.aupimo_normal_min.to(device))

    def _images(self) -> Images:
        """All distinct images."""
        joined = self._joined()
        texts = ids.decode(joined["id_lengths"], joined["id_bytes"]) if len(joined["id_bytes"]) else None
        return distinct_images(self._kept(joined), texts)

    def _ids_in_order(self) -> list[str] | list[int]:
        """Ids of the images of this process in the order of the updates, "" or -1 for an image without one."""
        joined = self._joined()
        if len(joined["id_bytes"]):
            return ids.decode(joined["id_lengths"], joined["id_bytes"])
        image_ids: list[int] = joined["image_ids"].tolist()
        return image_ids

    def _prune_when_outgrown(self) -> None:
        """Prune if more came in since the last pruning than it left, so that the total cost is linear in the data."""
        if len(self.aupimo_num_kept) > MAX_PARTS:
            self._join_small_parts()
        if self.normal_buffer is None:
            return
        sizes = [part.numel() for part in self.aupimo_normal_scores]
        if sum(sizes[1:]) > max(2 * self.normal_buffer, sum(sizes[:1])):
            self._compact()

    def _join_small_parts(self) -> None:
        """Join all parts of each list state but the first; so no update walks a long list.

        The first part, which is what the last pruning left, is joined when the others are together as large: so each
        score is copied few times, however many updates there are.
        """
        sizes = [part.numel() for part in self.aupimo_normal_scores]
        first = 0 if self.normal_buffer is None and sum(sizes[1:]) >= sizes[0] else 1
        for name in self._list_dtypes:
            parts = getattr(self, name)
            setattr(self, name, [*parts[:first], torch.cat([part.to(parts[0].device) for part in parts[first:]])])

    def _compact(self) -> None:
        """Replace each list state by one tensor, without the normal scores that can no longer matter."""
        joined = self._joined()
        kept = self._kept(joined)
        if self.normal_buffer is not None:
            kept = prune_scores(kept, self.normal_buffer, self._upper_fpr)
        parts = {**joined, **kept._asdict()}
        for name in self._list_dtypes:
            setattr(self, name, [parts[name.removeprefix(_STATE_PREFIX)].to(self.device)])
        self.aupimo_floor = kept.floor.to(self.device)
