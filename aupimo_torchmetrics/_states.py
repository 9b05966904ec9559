"""What the metrics share: states that any number of processes gather, merge and save, and how they are kept small.

Conventions: a state is 1-D or 0-d and of one dtype fixed at construction, whatever the inputs are.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from lightning_utilities import apply_to_collection
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from aupimo_torchmetrics._engine.checks import ImageIds, Maps
from aupimo_torchmetrics._engine.kept import PixelScores, prune_scores
from aupimo_torchmetrics._engine.selection import keep_scores
from aupimo_torchmetrics._scoring import pimo_result
from aupimo_torchmetrics._settings import SharedFPR
from aupimo_torchmetrics.results import PIMOResult

_STATE_PREFIX = "aupimo_"


class PixelScoresMetric(Metric):
    """Keep of the images seen so far the scores that a result can depend on.

    Every state is 1-D or 0-d and of one dtype fixed here, whatever the inputs are, so that ranks with other sizes of
    images, with uneven numbers of updates or with no data at all gather alike. A call that fails, for whatever reason
    and wherever it is interrupted, leaves the metric as it was before.
    """

    is_differentiable: bool = False
    higher_is_better: bool | None = None
    full_state_update: bool = False

    if TYPE_CHECKING:  # TorchScript would trip over the annotations
        aupimo_scores: list[Tensor] | Tensor
        aupimo_num_kept: list[Tensor] | Tensor
        aupimo_num_pixels: list[Tensor] | Tensor
        aupimo_is_anomalous: list[Tensor] | Tensor
        aupimo_image_ids: list[Tensor] | Tensor
        aupimo_floor: Tensor
        aupimo_normal_min: Tensor
        aupimo_config: Tensor

    _list_dtypes: ClassVar[dict[str, torch.dtype]] = {
        "aupimo_scores": torch.float32,
        "aupimo_num_kept": torch.int64,
        "aupimo_num_pixels": torch.int64,
        "aupimo_is_anomalous": torch.bool,
        "aupimo_image_ids": torch.int64,
    }

    def __init__(self, normal_buffer: int | None, upper_fpr: float, validate_args: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.normal_buffer = normal_buffer
        self.validate_args = validate_args
        self._upper_fpr = upper_fpr
        self._add_states()

    def _add_states(self) -> None:
        """Register the states, without any image."""
        for name in self._list_dtypes:
            self.add_state(name, default=[], dist_reduce_fx="cat")
        config = _fingerprint(self.normal_buffer, self._upper_fpr)
        self.add_state("aupimo_floor", default=torch.tensor(-math.inf, dtype=torch.float32), dist_reduce_fx="max")
        self.add_state("aupimo_normal_min", default=torch.tensor(math.inf, dtype=torch.float32), dist_reduce_fx="min")
        self.add_state("aupimo_config", default=config, dist_reduce_fx="max")

    def update(self, preds: Maps, target: Maps, image_ids: ImageIds | None = None) -> None:
        """Add a batch of anomaly maps and masks."""
        with self._as_before_if_it_fails():
            kept = keep_scores(
                preds,
                target,
                image_ids,
                floor=self.aupimo_floor,
                normal_buffer=self.normal_buffer,
                upper_fpr=self._upper_fpr,
                validate_args=self.validate_args,
            )
            for name in self._list_dtypes:
                getattr(self, name).append(getattr(kept, name.removeprefix(_STATE_PREFIX)).to(self.device))
            self.aupimo_floor = torch.maximum(self.aupimo_floor, kept.floor.to(self.device))
            self.aupimo_normal_min = torch.minimum(self.aupimo_normal_min, kept.normal_min.to(self.device))
            self._prune_when_outgrown()

    @torch.jit.unused
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Add a batch of anomaly maps and masks, and score it on its own."""
        with self._as_before_if_it_fails():  # the base class resets the metric first
            return super().forward(*args, **kwargs)

    def reset(self) -> None:
        """Forget all images."""
        for name in self._list_dtypes:
            setattr(self, name, [])  # the base class would also empty the lists that somebody else holds
        super().reset()

    def merge_state(self, incoming_state: dict[str, Any] | Metric) -> None:
        """Add the images of another metric of this kind and of the same settings, before the own ones.

        Raises:
            ValueError: If a state is missing, or if the other metric keeps its scores by other settings.

        """
        state: Any = incoming_state.metric_state if isinstance(incoming_state, Metric) else incoming_state
        if isinstance(state, dict):
            missing = [name for name in self._defaults if name not in state]
            if missing:
                raise ValueError(
                    f"Expected `incoming_state` to hold every state of the metric, but {missing} is missing."
                )
            self._check_config(state["aupimo_config"], "incoming_state")
        with self._as_before_if_it_fails():
            super().merge_state(incoming_state)
        self._update_count = max(1, self._update_count)

    @contextmanager
    def sync_context(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        """Gather the states of all processes, and have the own ones back afterwards, whatever happens in between."""
        with self._as_before_if_it_fails(), super().sync_context(*args, **kwargs):
            yield

    @contextmanager
    def _as_before_if_it_fails(self) -> Iterator[None]:
        """Put every attribute back as it was if what is done inside fails or is interrupted."""
        before = {name: [*value] if isinstance(value, list) else value for name, value in self.__dict__.items()}
        try:
            yield
        except BaseException:
            self.__dict__.update(before)
            raise

    def _check_config(self, config: Tensor, name: str) -> None:
        """Raise unless scores kept with this fingerprint are those that this metric keeps."""
        if not torch.equal(config.to(self.device), self.aupimo_config):
            raise ValueError(
                f"Expected `{name}` to come from a metric with the same `normal_buffer` and upper FPR bound, "
                "but got one with other settings, which has kept other scores."
            )

    def _reduce_states(self, incoming_state: dict[str, Any]) -> None:
        # Dask, for one, makes tuples of lists
        lists = {name: [*state] for name, state in incoming_state.items() if isinstance(state, tuple)}
        super()._reduce_states({**incoming_state, **lists})
        self._computed = None
        self._prune_when_outgrown()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        has_states = prefix + "aupimo_config" in state_dict
        if has_states:
            self._check_config(state_dict[prefix + "aupimo_config"], "state_dict")
        super()._load_from_state_dict(state_dict, prefix, *args)
        if has_states:
            for name in self._list_dtypes:
                setattr(self, name, list(getattr(self, name)))  # not the list that the caller holds
            self._computed = None
            self._update_count = max(1, self._update_count)

    def _kept(self) -> PixelScores:
        """All states as tensors on one device: with `compute_on_cpu` what came in earlier lies on the CPU."""
        device = self.aupimo_scores[0].device if len(self.aupimo_scores) else self.device
        lists = {}
        for name, dtype in self._list_dtypes.items():
            state = getattr(self, name)
            parts = [state] if isinstance(state, Tensor) else state
            nothing = torch.empty(0, dtype=dtype, device=device)
            lists[name.removeprefix(_STATE_PREFIX)] = dim_zero_cat([nothing, *(part.to(device) for part in parts)])
        return PixelScores(**lists, floor=self.aupimo_floor.to(device), normal_min=self.aupimo_normal_min.to(device))

    def _curves(self, num_thresholds: int | None, shared_fpr: SharedFPR) -> PIMOResult:
        """Curves of all images, on the device of the metric."""
        return PIMOResult(*(part.to(self.device) for part in pimo_result(self._kept(), num_thresholds, shared_fpr)))

    def _prune_when_outgrown(self) -> None:
        """Prune when more has come in than the last pruning left, so that all prunings cost little more than one."""
        if self.normal_buffer is None:
            return
        sizes = [len(scores) for scores in self.aupimo_scores]
        if sum(sizes[1:]) > max(2 * self.normal_buffer, sum(sizes[:1])):
            self._compact()

    def _compact(self) -> None:
        """Replace each list state by one tensor, without the normal scores that no result depends on any more."""
        kept = self._kept()
        if self.normal_buffer is not None:
            kept = prune_scores(kept, self.normal_buffer, self._upper_fpr)
        for name in self._list_dtypes:
            setattr(self, name, [getattr(kept, name.removeprefix(_STATE_PREFIX)).to(self.device)])
        self.aupimo_floor = kept.floor.to(self.device)

    def _sync_dist(self, *args: Any, **kwargs: Any) -> None:
        # A rank without data must send tensors of the same dtype as the others, or the process aborts. What is local is
        # restored after the sync. With `compute_on_cpu` the lists lie where NCCL cannot reach them.
        self._compact()
        super()._sync_dist(*args, **kwargs)

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> Any:
        # Only a move between devices reaches states, defaults and the value, not a cast of the module to another dtype,
        # nor `to_empty`, which fills what it moves with anything.
        if self.aupimo_floor.is_meta:  # where the module was built to be filled later; there is nothing to move
            self._device = torch.device("cpu")
            self._add_states()
        values, self._computed, self._forward_cache = (self._computed, self._forward_cache), None, None
        this = super()._apply(fn, [*self._defaults, *exclude_state])

        def moved(value: Any) -> Any:
            return apply_to_collection(value, Tensor, lambda part: part.to(self.device))

        self._computed, self._forward_cache = moved(values)
        self._defaults = moved(self._defaults)
        for name in self._defaults:
            setattr(self, name, moved(getattr(self, name)))
        return this


def _fingerprint(normal_buffer: int | None, upper_fpr: float) -> Tensor:
    """(8,) int64 code of what `update` depends on: only metrics that keep the same scores may share a compute group.

    The code is in 16-bit pieces because torchmetrics compares states with a relative tolerance of 1e-5.
    """
    settings = struct.pack("<qd", -1, 0.0) if normal_buffer is None else struct.pack("<qd", normal_buffer, upper_fpr)
    return torch.tensor(struct.unpack("<8H", settings), dtype=torch.int64)
