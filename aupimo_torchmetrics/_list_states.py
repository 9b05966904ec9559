"""What every metric here shares with torchmetrics: how states are updated, gathered, merged, moved and saved."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from aupimo_torchmetrics._warnings import batch_scores, warn

__all__ = ["ListStatesMetric", "fingerprint"]


def fingerprint(form: str, *settings: float) -> Tensor:
    """Code of the settings of `update`, of int64: only metrics that keep the same scores may share a compute group.

    The code is split into 16-bit integers because torchmetrics compares states with a relative tolerance of 1e-5.

    Args:
        form: Type of each setting, as in `struct`: `q` for an integer, `d` for a float.
        settings: The settings.

    """
    packed = struct.pack(f"<{form}", *settings)
    return torch.tensor(struct.unpack(f"<{len(packed) // 2}H", packed), dtype=torch.int64)


class ListStatesMetric(Metric):
    """A metric whose list states are 1-D with fixed dtypes, and which is as it was before if a call fails.

    So ranks can gather their states even if their images have different sizes, if they have made different numbers of
    updates, or if they have no data at all. A subclass names its list states and adds all states.
    """

    is_differentiable: bool = False
    higher_is_better: bool | None = None
    full_state_update: bool = False

    if TYPE_CHECKING:  # TorchScript does not understand the annotation
        aupimo_config: Tensor

    _list_dtypes: ClassVar[dict[str, torch.dtype]] = {}
    """Dtype of each list state that the metric may have, when it is one tensor."""
    _settings_of_states: ClassVar[str] = ""
    """The settings in `aupimo_config`, on which the states depend, as a text."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._is_scoring_batch = False
        self._has_warned_of_batches = False

    def _add_states(self) -> None:
        """Register the states, without any image; among them `aupimo_config`, a code of the settings of `update`."""
        raise NotImplementedError

    def _settle(self, name: str) -> None:
        """Check and tidy the states after others were added, which came in by the parameter `name`."""

    def _lists(self) -> dict[str, torch.dtype]:
        """Names and dtypes of the list states that the metric has."""
        return {name: dtype for name, dtype in self._list_dtypes.items() if name in self._defaults}

    @staticmethod
    def _check_plotted(val: Any) -> None:
        """Raise if the values to plot are an empty list."""
        if isinstance(val, Sequence) and len(val) == 0:
            raise ValueError("Expected `val` to hold at least one value, but got none. Without it the own is plotted.")

    def _compact(self) -> None:
        """Replace each list state by one tensor of its dtype on the device of the metric."""
        for name, dtype in self._lists().items():
            parts = [part.to(self.device, dtype) for part in getattr(self, name)]
            nothing = torch.empty(0, dtype=dtype, device=self.device)
            setattr(self, name, [torch.cat([nothing, *parts]) if len(parts) != 1 else parts[0]])

    @torch.jit.unused
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Add a batch as `update` does, and return what `compute` gives for this batch alone."""
        with self._as_before_if_it_fails():  # the base class resets the metric before it updates it
            self._is_scoring_batch = True
            value = super().forward(*args, **kwargs)
            self._is_scoring_batch = False
            self._settle("image_ids")
            return value

    def _warn(self, texts: Iterable[str]) -> None:
        """Issue the warnings of a value; of the values of single batches only the first, with the remedy."""
        texts = list(texts)
        if self._is_scoring_batch and texts:
            texts = [] if self._has_warned_of_batches else [batch_scores(texts[0])]
            self._has_warned_of_batches = True
        warn(texts)

    def reset(self) -> None:
        """Forget all images."""
        for name in self._lists():
            setattr(self, name, [])  # the base class would empty the lists in place, and a caller may hold them
        super().reset()

    def merge_state(self, incoming_state: dict[str, Any] | Metric) -> None:
        """Add the images of another metric of the same class, before those of this metric.

        Args:
            incoming_state: The other metric, or its `metric_state`.

        Raises:
            ValueError: If a state is missing, if the other metric has other settings on which the states depend, if it
                is of another class, or if the image ids of one metric are integers and those of the other texts.

        """
        if isinstance(incoming_state, type(self)):
            incoming_state = incoming_state.metric_state
        if isinstance(incoming_state, dict):
            self._check_states(incoming_state, "incoming_state")
            # Dask, for example, turns lists into tuples.
            incoming_state = {
                name: [*state] if isinstance(state, tuple) else state for name, state in incoming_state.items()
            }
        with self._as_before_if_it_fails():
            super().merge_state(incoming_state)
            self._settle("incoming_state")
            self._computed = None
            self._update_count = max(1, self._update_count)

    @contextmanager
    def sync_context(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        """Gather the states of all processes, and restore those of this process afterwards, even after an error."""
        with self._as_before_if_it_fails(), super().sync_context(*args, **kwargs):
            yield

    @contextmanager
    def _as_before_if_it_fails(self) -> Iterator[None]:
        """Restore every attribute if the code inside fails or is interrupted; the lists of states as they were."""
        attributes = self.__dict__.items()
        before = {
            name: [*each] if isinstance(each, list) and name in self._defaults else each for name, each in attributes
        }
        try:
            yield
        except BaseException:
            self.__dict__.update(before)
            raise

    def _check_states(self, states: dict[str, Any], name: str, prefix: str = "") -> None:
        """Raise unless all states are there and come from a metric with the same settings."""
        missing = [state for state in self._defaults if prefix + state not in states]
        if missing:
            raise ValueError(
                f"Expected `{name}` to hold every state of the metric, but it lacks {', '.join(missing)}. The states "
                "of an earlier version cannot be read: start with a new metric and update it with the maps and masks."
            )
        if not torch.equal(states[prefix + "aupimo_config"].to(self.device), self.aupimo_config):
            raise ValueError(
                f"Expected `{name}` to come from a metric with the same {self._settings_of_states}, but got one with "
                "other settings, which has kept other scores."
            )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        has_states = any(prefix + name in state_dict for name in self._defaults)
        if has_states:
            self._check_states(state_dict, "state_dict", prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)
        if has_states:
            for name in self._lists():
                setattr(self, name, list(getattr(self, name)))  # a copy of the list that the caller holds
            self._computed = None
            self._update_count = max(1, self._update_count)

    def _sync_dist(self, *args: Any, **kwargs: Any) -> None:
        # This turns every list state into one tensor on the device of the metric. Without it, a rank without data would
        # send another dtype than the others, which aborts the process, and with `compute_on_cpu` the states would be on
        # the CPU, where NCCL cannot send them. The local states are restored after the sync.
        self._compact()
        super()._sync_dist(*args, **kwargs)

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any) -> Any:
        # States follow the module to another device, but a cast to another dtype does not change them. `to_empty` would
        # replace their values by arbitrary ones; here it moves them as they are.
        if self.aupimo_config.is_meta:  # built on the device "meta", there are no values to move
            self._device = torch.device("cpu")
            self._add_states()
        return super()._apply(lambda part: part.to(fn(part.new_empty(0)).device), *args)
