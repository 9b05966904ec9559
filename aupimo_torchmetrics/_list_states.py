"""What every metric here shares with torchmetrics: how states are updated, gathered, merged, moved and saved."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.distributed import gather_all_tensors

from aupimo_torchmetrics._warnings import batch_scores, warn

__all__ = ["ListStatesMetric", "as_before_if_they_fail", "fingerprint", "uncompiled"]

_Args = ParamSpec("_Args")
_Value = TypeVar("_Value")


def fingerprint(form: str, *settings: float) -> list[int]:
    """Code of the settings of `update`: only metrics that keep the same scores may share a compute group.

    The code is split into 16-bit integers because torchmetrics compares states with a relative tolerance of 1e-5.

    Args:
        form: Type of each setting, as in `struct`: `q` for an integer, `d` for a float.
        settings: The settings.

    """
    packed = struct.pack(f"<{form}", *settings)
    return [*struct.unpack(f"<{len(packed) // 2}H", packed)]


@contextmanager
def as_before_if_they_fail(metrics: Iterable[Metric]) -> Iterator[None]:
    """Restore every attribute of some metrics if the code inside fails or is interrupted."""
    before, lists = [], []
    for metric in metrics:
        attributes = metric.__dict__.copy()
        before.append((metric, attributes))
        for name in metric._defaults:  # noqa: SLF001
            if isinstance(attributes[name], list):
                lists.append((attributes[name], attributes[name].copy()))  # noqa: PERF401  each comprehension is a call
    try:
        yield
    except BaseException:
        for metric, attributes in before:
            metric.__dict__.update(attributes)
        for state, items in lists:
            state[:] = items
        raise


def uncompiled(method: Callable[_Args, _Value]) -> Callable[_Args, _Value]:
    """Run a method as it is in a compiled step too: what a metric does is not for a graph, its steps depend on data."""

    @wraps(method)
    def run(*args: _Args.args, **kwargs: _Args.kwargs) -> _Value:
        if torch.compiler.is_compiling():
            return torch.compiler.disable(method)(*args, **kwargs)  # type: ignore[no-any-return, no-untyped-call]
        return method(*args, **kwargs)

    return run


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

    __jit_unused_properties__: ClassVar[list[str]] = [*Metric.__jit_unused_properties__, "device"]

    _list_dtypes: ClassVar[dict[str, torch.dtype]] = {}
    """Dtype of each list state that the metric may have, when it is one tensor; scores may be kept in float64."""
    _settings_of_states: ClassVar[str] = ""
    """The settings in `aupimo_config`, on which the states depend, as a text."""
    _settings: ClassVar[str] = ""
    """All settings on which a value depends, which must be the same on all processes."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._score_dtype = torch.float32
        self._is_scoring_batch = False
        self._has_warned_of_batches = False

    def _add_states(self) -> None:
        """Register the states, without any image, on `_device`; among them `aupimo_config`, by `_add_config`."""
        raise NotImplementedError

    def _add_config(self, form: str, *settings: float, with_lists: bool = True) -> None:
        """Register the list states, and a code of the settings of `update`, see `fingerprint`."""
        code = torch.tensor(fingerprint(form, *settings), dtype=torch.int64, device=self._device)
        self.add_state("aupimo_config", default=code, dist_reduce_fx="max")
        for name in self._list_dtypes if with_lists else ():
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def _begin_on(self, device: torch.device, score_dtype: torch.dtype = torch.float32) -> None:
        """Begin without any image on a device, and keep scores in a dtype."""
        self._device, self._score_dtype = device, score_dtype
        self._add_states()

    @property
    def device(self) -> torch.device:
        """Device of the states; it is known also where the metric was unpickled without the device that it was on."""
        return self.aupimo_config.device if "aupimo_config" in self.__dict__ else self._device

    def _settle(self, name: str) -> None:
        """Check and tidy the states after others were added, which came in by the parameter `name`."""

    def _lists(self) -> dict[str, torch.dtype]:
        """Names and dtypes of the list states that the metric has."""
        dtypes = {}
        for name, dtype in self._list_dtypes.items():
            if name in self._defaults:
                dtypes[name] = self._score_dtype if dtype.is_floating_point else dtype
        return dtypes

    def _parts(self, name: str) -> list[Tensor]:
        """Parts of a list state, all on one device; with `compute_on_cpu` earlier parts are on the CPU."""
        state = getattr(self, name)
        parts = [state] if isinstance(state, Tensor) else state
        is_mixed = self.compute_on_cpu and len({part.device for part in parts}) > 1
        return [part.to(self.device) for part in parts] if is_mixed else parts

    def _joined(self) -> dict[str, Tensor]:
        """Each list state as one tensor of its dtype."""
        joined = {}
        for name, dtype in self._lists().items():
            state = getattr(self, name)
            parts = self._parts(name) if self.compute_on_cpu or isinstance(state, Tensor) else state
            nothing = torch.empty(0, dtype=dtype, device=parts[0].device if parts else self.device)
            joined[name] = parts[0].to(dtype) if len(parts) == 1 else torch.cat([nothing, *parts])
        return joined

    @staticmethod
    def _check_plotted(val: Any) -> None:
        """Raise if the values to plot are an empty list."""
        if isinstance(val, Sequence) and len(val) == 0:
            raise ValueError("Expected `val` to hold at least one value, but got none. Without it the own is plotted.")

    def _wrap_update(self, update: Callable[..., None]) -> Callable[..., None]:
        return uncompiled(super()._wrap_update(update))

    def _wrap_compute(self, compute: Callable[..., Any]) -> Callable[..., Any]:
        return uncompiled(super()._wrap_compute(compute))

    @torch.jit.unused
    @uncompiled
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Add a batch as `update` does, and return what `compute` gives for this batch alone."""
        with as_before_if_they_fail([self]):  # the base class resets the metric before it updates it
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

        States are pickled and merged, so any engine that maps can score parts of a data set; `multiprocessing` and Dask
        are tested. Dask comes with `pip install distributed`.

        ```python
        import torch
        from aupimo_torchmetrics import AUPIMO
        from dask.distributed import Client


        def score(shard):  # runs in a worker, where it would load a part of the data
            torch.manual_seed(shard)
            masks = torch.zeros(4, 256, 256, dtype=torch.bool)
            masks[2:, 100:120, 100:120] = True
            metric = AUPIMO()
            metric.update(torch.randn(4, 256, 256) + 4 * masks, masks, image_ids=range(4 * shard, 4 * shard + 4))
            return metric.metric_state


        if __name__ == "__main__":
            metric = AUPIMO()
            with Client(n_workers=2) as client:
                for state in client.gather(client.map(score, range(8))):
                    metric.merge_state(state)
            print(metric.compute())  # tensor(0.4947)
        ```

        With ids the order of merging does not matter, and images that shards share count once; without, the images that
        are merged come before those that are there. Return the states: Dask takes torch modules apart in transport, and
        a metric of torchmetrics that has gone through it forgets, without a word, what it is updated with afterwards.

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
            lists = {name: _as_list(incoming_state[name]) for name in self._lists()}
            incoming_state = {**incoming_state, **lists}
        with as_before_if_they_fail([self]):
            super().merge_state(incoming_state)
            self._settle("incoming_state")
            self._computed = None
            self._update_count = max(1, self._update_count)

    @contextmanager
    def sync_context(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        """Gather the states of all processes, and restore those of this process afterwards, even after an error."""
        with as_before_if_they_fail([self]), super().sync_context(*args, **kwargs):
            yield

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
        device = self.device
        if has_states:
            self._check_states(state_dict, "state_dict", prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)
        if has_states:
            for name in self._defaults:
                state = getattr(self, name)
                is_list = name in self._list_dtypes
                setattr(self, name, [each.to(device) for each in _as_list(state)] if is_list else state.to(device))
            self._computed = None
            self._update_count = max(1, self._update_count)

    def _sync_dist(self, dist_sync_fn: Callable[..., Any] = gather_all_tensors, process_group: Any = None) -> None:
        # Every list state becomes one tensor on the device of the metric. Without it, a rank without data would send
        # another dtype than the others, which aborts the process, and with `compute_on_cpu` the states would be on the
        # CPU, where NCCL cannot send them. The local states are restored after the sync.
        self._check_same_settings(dist_sync_fn, process_group or self.process_group)
        for name, whole in self._joined().items():
            setattr(self, name, [whole.to(self.device)])
        super()._sync_dist(dist_sync_fn, process_group)

    def _check_same_settings(self, dist_sync_fn: Callable[..., Any], group: Any) -> None:
        """Raise on all processes, before any state is gathered, if the settings of one differ from those of another."""
        own = {"metric": type(self).__name__, **{name: getattr(self, name) for name in self._settings.split()}}
        code = np.frombuffer(bytearray(json.dumps(own).encode()), dtype=np.uint8)
        gathered = dist_sync_fn(torch.from_numpy(code).to(self.device), group=group)
        ranks = [json.loads(each.cpu().numpy().tobytes()) for each in gathered]
        names = dict.fromkeys(name for rank in ranks for name in rank)
        facts = [
            f"`{name}` is {' and '.join(sorted({str(rank.get(name)) for rank in ranks}))}"
            for name in names
            if any(rank.get(name) != ranks[0].get(name) for rank in ranks)
        ]
        if facts:
            raise ValueError(f"Expected all processes to have the same settings, but {', '.join(facts)}.")

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any) -> Any:
        # States follow the module to another device, but a cast to another dtype does not change them. `to_empty` would
        # replace their values by arbitrary ones; here it moves them as they are.
        if self.aupimo_config.is_meta:  # built on the device "meta", there are no values to move
            self._begin_on(torch.device("cpu"), self._score_dtype)
        return super()._apply(lambda part: part.to(fn(part.new_empty(0)).device), *args)


def _as_list(state: Any) -> list[Tensor]:
    """A list state as a list: Dask turns it into a tuple, and it is one tensor while it is gathered."""
    return [state] if isinstance(state, Tensor) else [*state]
