"""All the numbers that papers on anomaly detection print, in one collection, and category by category.

A unified model detects anomalies in images of several categories. Each category has thresholds of its own, so that its
numbers are those of its images alone: `PerCategory` keeps a metric or a collection for each, and answers their mean.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.utilities.plot import _AX_TYPE, _PLOT_OUT_TYPE
from torchmetrics.wrappers.abstract import WrapperMetric

from aupimo_torchmetrics._engine.image_ids import ImageIds
from aupimo_torchmetrics._engine.inputs import Maps
from aupimo_torchmetrics._list_states import ListStatesMetric, as_before_if_they_fail, uncompiled
from aupimo_torchmetrics._listening import BatchPart, telling_at_the_end, telling_of_part
from aupimo_torchmetrics._settings import DEFAULT_FPR_BOUNDS, DEFAULT_FPR_LIMIT
from aupimo_torchmetrics._warnings import of_categories, warn, without_score
from aupimo_torchmetrics.image_metrics import ImageAUROC, ImageAveragePrecision, ImageF1Max
from aupimo_torchmetrics.metrics import AUPIMO, PIMO
from aupimo_torchmetrics.pixel_metrics import AUPRO, PixelAUROC, PixelAveragePrecision, PixelF1Max
from aupimo_torchmetrics.results import AUPIMOResult

__all__ = ["PerCategory", "vad_metrics"]

MEAN = "mean"
"""What stands in a name in place of a category for the mean over the categories."""


def vad_metrics(
    fpr_bounds: Sequence[float] = DEFAULT_FPR_BOUNDS,
    fpr_limit: float = DEFAULT_FPR_LIMIT,
    *,
    num_thresholds: int | None = None,
    num_bins: int | None = None,
    image_score: str = "max",
    ignore_index: int | None = None,
    validate_args: bool = True,
    prefix: str | None = None,
    postfix: str | None = None,
    **kwargs: Any,
) -> MetricCollection:
    """Return a collection of the metrics that papers on visual anomaly detection print.

    These are `AUPIMO`, `AUPRO`, `PixelAUROC`, `PixelAveragePrecision`, `PixelF1Max`, `ImageAUROC`,
    `ImageAveragePrecision` and `ImageF1Max`, under these names. The collection takes maps and masks, and by keyword
    `image_ids`, which AUPIMO uses. What several of the metrics need is kept once, from the first update on. AUPRO needs
    the extra `stats`. Of several categories pool none: `PerCategory(vad_metrics(), categories)` scores each.

    Args:
        fpr_bounds: Bounds of the shared FPR of AUPIMO.
        fpr_limit: Limit of the FPR of AUPRO.
        num_thresholds: None for the exact AUPIMO, or how many thresholds to sample; 300000 in the paper.
        num_bins: None for exact metrics of pixels, which keep each score, or the bins of a histogram, see `AUPRO`.
        image_score: Score of an image: `"max"`, `"mean"` or a share as `"top_1%"`, see `ImageAUROC`.
        ignore_index: Value of the target pixels that do not count.
        validate_args: Whether to check maps and masks in `update`.
        prefix: What the names in the results begin with, such as `"val/"`.
        postfix: What they end with.
        kwargs: Settings of every metric, such as `sync_on_compute`, see `torchmetrics.Metric`.

    Returns:
        A collection without any image.

    Raises:
        TypeError: If a setting is of the wrong type.
        ValueError: If a setting is out of its range or not known.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics import vad_metrics
        >>> maps, masks = torch.arange(32.0).view(2, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool)
        >>> masks[1, 0] = True
        >>> metrics = vad_metrics(fpr_bounds=(0.1, 0.5))
        >>> metrics.update(maps, masks)
        >>> for name, value in metrics.compute().items():
        ...     print(f"{name}: {value:.2f}")
        AUPIMO: 1.00
        AUPRO: 0.00
        PixelAUROC: 0.57
        PixelAveragePrecision: 0.17
        PixelF1Max: 0.40
        ImageAUROC: 1.00
        ImageAveragePrecision: 1.00
        ImageF1Max: 1.00

    """
    settings = {"ignore_index": ignore_index, "validate_args": validate_args, **kwargs}
    groups: list[list[Metric]] = [
        [AUPIMO(num_thresholds, fpr_bounds, **settings)],
        # The states of the others are among those of AUPRO, which leads.
        [
            AUPRO(fpr_limit, num_bins=num_bins, **settings),
            *(each(num_bins=num_bins, **settings) for each in (PixelAUROC, PixelAveragePrecision, PixelF1Max)),
        ],
        [each(image_score, **settings) for each in (ImageAUROC, ImageAveragePrecision, ImageF1Max)],
    ]
    return MetricCollection(
        [metric for group in groups for metric in group],
        prefix=prefix,
        postfix=postfix,
        compute_groups=[[type(metric).__name__ for metric in group] for group in groups],
    )


class Member(NamedTuple):
    """A metric of a category in a `PerCategory`."""

    name: str
    """Its full name, such as `val/bottle/AUPIMO`."""
    metric: Metric
    """The metric."""
    speaker: Metric
    """The first metric of its compute group, which is updated for all, and tells its listeners."""
    value: Metric
    """What is logged of it."""


class PerCategory(MetricCollection):
    """Score each category of images on its own, with a metric or a collection for each.

    Of a collection `vad_metrics()` and the categories `bottle` and `cable`, `compute` returns a flat dictionary of
    `bottle/AUPIMO`, `bottle/AUPRO`, ..., `cable/AUPIMO`, ... and `mean/AUPIMO`, ..., the mean over the categories that
    have a score. One warning names those that have none (NaN). A prefix or postfix of the collection is that of all
    names, as `val/bottle/AUPIMO`.

    It is a `torchmetrics.MetricCollection` of these values. In Lightning log all of them in `validation_step`, or some,
    as objects: Lightning computes them together when the epoch ends, and resets all.

    ```python
    def validation_step(self, batch, batch_idx):
        self.metrics.update(self.network(batch["image"]), batch["mask"], categories=batch["category"])
        self.log_dict(self.metrics)
    ```

    `self.log_dict(self.metrics.compute())` when the epoch ends is as good; then call `self.metrics.reset()`, too.

    Every process knows all categories, and may see images of none of them. Call `update` on all processes between two
    `compute`, as with any metric. An item, `metrics["bottle/AUPIMO"]`, is the metric of a category.

    Args:
        metric: A metric that computes one number, or a collection of such, of which each category gets a copy: of this
            package, or any whose `update` takes `preds` and `target`. `AUPIMO` also gets `image_ids`.
        categories: All names of categories, such as `["bottle", "cable"]`. A name is not empty, is not
            `"mean"`, and holds no dot.

    Raises:
        TypeError: If `metric` is neither a metric nor a collection, or a category is no text.
        ValueError: If a category is none, or there twice, or a metric computes something else than one number.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics import PerCategory, PixelAUROC
        >>> maps, masks = torch.arange(32.0).view(2, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool)
        >>> masks[:, 3, 2:] = masks[1, 0] = True
        >>> metric = PerCategory(PixelAUROC(), ["bottle", "cable"])
        >>> metric.update(maps, masks, categories=["cable", "bottle"])
        >>> for name, value in metric.compute().items():
        ...     print(f"{name}: {value:.4f}")
        bottle/PixelAUROC: 0.3333
        cable/PixelAUROC: 1.0000
        mean/PixelAUROC: 0.6667

    """

    def __init__(self, metric: Metric | MetricCollection, categories: Sequence[str]) -> None:
        super().__init__({}, compute_groups=False)
        if not isinstance(metric, Metric | MetricCollection):
            raise TypeError(f"Expected `metric` to be a metric or a collection, but got {type(metric).__name__}.")
        if isinstance(metric, Metric):
            metric = MetricCollection({type(metric).__name__: metric})
        self.prefix, self.postfix = metric.prefix, metric.postfix
        names = _checked_names(metric)
        self.categories = _checked_categories(categories)
        self._all = _Categories({category: _empty_copy(metric) for category in self.categories})
        for category in (*self.categories, MEAN):
            for name in names:
                self[f"{category}/{name}"] = _Value(self._all, category, name)

    def add_metrics(self, metrics: Any, *additional_metrics: Any) -> None:
        """Raise: the metrics of a `PerCategory` are those that it was made with."""
        if metrics or additional_metrics:
            raise TypeError(
                "Expected all metrics when a `PerCategory` is made, in a `MetricCollection`, and none later."
            )
        super().add_metrics({})

    @uncompiled
    def update(  # type: ignore[override]
        self, preds: Maps, target: Maps, *, categories: Sequence[str] | str, image_ids: ImageIds | None = None
    ) -> None:
        """Add a batch of anomaly maps and masks, each to the metrics of its category.

        Args:
            preds: Anomaly maps (N, H, W), see `AUPIMO.update`.
            target: Masks (N, H, W).
            categories: Category of each of the N images, or one text if all are of one category.
            image_ids: Ids of the images, for AUPIMO; unique within a category.

        Raises:
            TypeError: If maps, masks, categories or ids are of the wrong type or dtype.
            ValueError: If a category is not known, numbers of images do not fit, or a metric refuses its images.
                Nothing of the batch is kept.

        """
        parts = _parts_of(preds, target, categories, image_ids, self.categories)
        metrics = self._all.members().values()
        with telling_at_the_end(), as_before_if_they_fail(metrics):
            for part in parts:
                with telling_of_part(part.of_batch):
                    self._all.of[part.category].update(part.preds, part.target, **part.ids)
            # The ranks gather the states of all categories together or not at all, also of those that only one updates.
            for metric in metrics:
                metric._computed = None  # noqa: SLF001

    @uncompiled
    def forward(
        self, preds: Maps, target: Maps, *, categories: Sequence[str] | str, image_ids: ImageIds | None = None
    ) -> dict[str, Tensor]:
        """Add a batch as `update` does, and return the values of this batch alone; NaN for a category not in it."""
        parts = _parts_of(preds, target, categories, image_ids, self.categories)
        with telling_at_the_end(), as_before_if_they_fail(self._all.members().values()):
            values = self._all.forward(parts)
        return self._named(values)

    @uncompiled
    def compute(self) -> dict[str, Tensor]:
        """Compute the value () of each metric for each category, and their means; NaN where there is no score."""
        return self._named(self._all.compute())

    def results(self) -> dict[str, AUPIMOResult]:
        """Return what `AUPIMO.result` returns, for each category under its name, such as `bottle/AUPIMO`.

        With several processes call it on every rank. It shares the cache of `compute`.
        """
        self.compute()
        return {each.name: each.metric.result() for each in self.members().values() if isinstance(each.metric, AUPIMO)}

    def members(self) -> dict[str, Member]:
        """Return the metric of each category by its name without a prefix, and what belongs to it."""
        found = {}
        for (category, name), metric in self._all.members().items():
            key, collection = f"{category}/{name}", self._all.of[category]
            leader = next(group[0] for group in collection.compute_groups.values() if name in group)
            found[key] = Member(self._set_name(key), metric, collection._modules[leader], self._modules[key])  # noqa: SLF001
        return found

    def _named(self, values: dict[tuple[str, str], Any]) -> dict[str, Any]:
        """What belongs to categories and metrics, by full names."""
        return {self._set_name(f"{category}/{name}"): value for (category, name), value in values.items()}

    def __getitem__(self, key: str, copy_state: bool = True) -> Metric:
        """Return the metric of a category by its name, such as `bottle/AUPIMO`, or what computes a mean."""
        value = cast("_Value", super().__getitem__(key, copy_state))
        return value if value.metric is None else self._all.of[value.category].__getitem__(value.of, copy_state)

    @property
    def metric_state(self) -> dict[str, dict[str, Any]]:
        """States of each metric of each category by name; `merge_state` takes it."""
        return {key: each.metric.metric_state for key, each in self.members().items()}

    def merge_state(self, incoming_state: dict[str, dict[str, Any]] | PerCategory) -> None:
        """Add the images of another `PerCategory` of the same metrics, before those of this one.

        Args:
            incoming_state: The other one, or its `metric_state`.

        Raises:
            ValueError: If its categories or metrics are others, or have settings with which they keep other scores.

        """
        states = incoming_state.metric_state if isinstance(incoming_state, PerCategory) else incoming_state
        members = {key: each.metric for key, each in self.members().items()}
        if states.keys() != members.keys():
            raise ValueError(
                "Expected `incoming_state` to be of the same categories and metrics, but these are in one only: "
                f"{', '.join(sorted(states.keys() ^ members.keys()))}."
            )
        with as_before_if_they_fail(members.values()):
            for name, metric in members.items():
                metric.merge_state(states[name])

    def reset(self) -> None:
        """Forget all images."""
        self._all.reset()


class _Part(NamedTuple):
    """The images of a batch that are of one category."""

    category: str
    preds: Any
    target: Any
    ids: dict[str, Any]
    of_batch: BatchPart


class _Categories:
    """The collection of each category, whose values are computed together.

    Args:
        of: A collection for each category.

    """

    def __init__(self, of: dict[str, MetricCollection]) -> None:
        self.of = of
        self._latest: tuple[list[Any], dict[tuple[str, str], Tensor]] | None = None
        self._has_warned_of_batches = False

    def members(self) -> dict[tuple[str, str], Metric]:
        """All metrics by category and name; those that share states have the same."""
        return {
            (category, str(name)): metric
            for category, collection in self.of.items()
            for name, metric in collection.items(keep_base=True, copy_state=False)
        }

    def compute(self) -> dict[tuple[str, str], Tensor]:
        """Values by category and name, with the means; warn once of those without a score, and once a metric of more.

        As long as the metrics remember their values, so does this.
        """
        members = self.members()
        remembered = [metric._computed for metric in members.values()]  # noqa: SLF001
        if self._latest and all(
            now is before and now is not None for now, before in zip(remembered, self._latest[0], strict=True)
        ):
            return dict(self._latest[1])
        values, texts = {}, {}
        for key, metric in members.items():
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                values[key] = _value_of(metric, key)
            texts[key] = _texts_of(caught)
        undefined = [key for key, value in values.items() if bool(value.isnan())]
        if undefined:
            # the reason is what is said last: what torch says while states are gathered comes before
            (reason,) = texts[undefined[0]][-1:] or [""]
            warn([without_score(undefined, len(members) // len(self.of), reason)])
        warn(of_categories({key: each for key, each in texts.items() if key not in undefined}))
        values |= _means(values)
        self._latest = [metric._computed for metric in members.values()], values  # noqa: SLF001
        return dict(values)

    def forward(self, parts: Sequence[_Part]) -> dict[tuple[str, str], Tensor]:
        """Add the images of a batch, and return the values of them alone; warn once for all batches."""
        found: dict[tuple[str, str], Tensor] = {}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for part in parts:
                with telling_of_part(part.of_batch):
                    of_part = self.of[part.category](part.preds, part.target, **part.ids)
                found |= {(part.category, name): _checked_value(value, name) for name, value in of_part.items()}
        texts = _texts_of(caught)
        if texts and not self._has_warned_of_batches:
            self._has_warned_of_batches = True
            warn(texts[:1])
        nothing = torch.tensor(torch.nan, device=next(iter(found.values())).device if found else "cpu")
        values = {key: found.get(key, nothing) for key in self.members()}
        return values | _means(values)

    def reset(self) -> None:
        """Forget all images."""
        if any(metric.update_called or metric._computed is not None for metric in self.members().values()):  # noqa: SLF001
            for collection in self.of.values():
                collection.reset()
        self._latest = None


class _Value(WrapperMetric):
    """A value of a metric of a category, or a mean: what Lightning logs, and resets.

    Args:
        all_categories: The categories, whose values are computed together.
        category: The category, or `"mean"`.
        of: Name of the metric.

    """

    plot_lower_bound: float = 0.0
    plot_upper_bound: float = 1.0

    def __init__(self, all_categories: _Categories, category: str, of: str) -> None:
        super().__init__()
        self._all = all_categories
        self.category = category
        self.of = of
        members = all_categories.members()
        self.metric = members.get((category, of))  # None for the mean
        self._is_best_high = next(each.higher_is_better for (_, name), each in members.items() if name == of)

    @property
    def higher_is_better(self) -> bool | None:  # type: ignore[override]
        """That of the metric."""
        return self._is_best_high

    def update(self, *_: Any, **__: Any) -> None:
        """Raise: all categories are updated together."""
        raise TypeError("Expected an update of the whole `PerCategory`, but got one of a single value.")

    def compute(self) -> Tensor:
        """Compute the value with all others."""
        return self._all.compute()[self.category, self.of]

    def reset(self) -> None:
        """Forget all images, as all values are of the same."""
        self._all.reset()

    def persistent(self, mode: bool = False) -> None:
        """Say whether the states are part of a checkpoint."""
        if self.metric is not None:
            self.metric.persistent(mode)

    def set_dtype(self, dst_type: str | torch.dtype) -> _Value:
        """Set the dtype of the states, as the metric does."""
        if self.metric is not None:
            self.metric.set_dtype(dst_type)
        return self

    def plot(self, val: Any = None, ax: _AX_TYPE | None = None) -> _PLOT_OUT_TYPE:
        """Plot the value, or several."""
        return self._plot(val, ax)


def _empty_copy(collection: MetricCollection) -> MetricCollection:
    """A copy of a collection without any image, prefix and postfix."""
    copied = collection.clone()
    copied.prefix = copied.postfix = None
    copied.reset()
    return copied


def _checked_names(collection: MetricCollection) -> list[str]:
    """Names of the metrics of a collection; raise if one is known to compute something else than a number."""
    for name, metric in collection.items(keep_base=True, copy_state=False):
        if isinstance(metric, PIMO) or getattr(metric, "reduction", None) == "none":
            raise ValueError(
                f"Expected metrics that compute one number, but got {name}, which computes several. Use "
                '`AUPIMO(reduction="mean")`; `results()` has the scores of all images, and their curves.'
            )
    return [*map(str, collection.keys(keep_base=True))]


def _checked_categories(categories: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the categories; raise if they cannot be names."""
    names = () if isinstance(categories, str) else tuple(categories)
    if not names or not all(isinstance(name, str) for name in names):
        raise TypeError(
            f'Expected `categories` to be a list of texts, such as `["bottle", "cable"]`, but got {categories!r}.'
        )
    wrong = [name for name in names if name in {"", MEAN} or "." in name or names.count(name) > 1]
    if wrong:
        raise ValueError(
            f"Expected `categories` to be different texts without a dot, none of them {MEAN!r}, but got {wrong[0]!r}."
        )
    return names


def _parts_of(
    preds: Any, target: Any, categories: Sequence[str] | str, image_ids: Any, known: Sequence[str]
) -> list[_Part]:
    """Part a batch by categories, those of the batch only; raise if it cannot be."""
    num_images = len(preds)
    names = [categories] * num_images if isinstance(categories, str) else [*categories]
    if len(names) != num_images or len(target) != num_images:
        raise ValueError(
            "Expected `preds`, `target` and `categories` to be of as many images, but got "
            f"{num_images}, {len(target)} and {len(names)}."
        )
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(
            f"Expected `categories` to hold names that `PerCategory` was made with, {', '.join(known)}, but got "
            f"{unknown[0]!r}. Give all categories when it is made, on all processes."
        )
    ids = image_ids if image_ids is None or isinstance(image_ids, Tensor | np.ndarray | str) else [*image_ids]
    if ids is not None and len(ids) != num_images:
        raise ValueError(f"Expected `image_ids` to hold an id for each of {num_images} images, but got {len(ids)}.")
    parts = []
    for category in known:
        chosen = [index for index, name in enumerate(names) if name == category]
        if chosen:
            of_part = {} if ids is None else {"image_ids": _take(ids, chosen)}
            place = BatchPart(chosen, num_images)
            parts.append(_Part(category, _take(preds, chosen), _take(target, chosen), of_part, place))
    return parts


def _take(images: Any, chosen: list[int]) -> Any:
    """Images at some indices, ascending, of a tensor, an array or a list; without a copy if they follow each other."""
    if chosen[-1] - chosen[0] == len(chosen) - 1:
        return images[chosen[0] : chosen[-1] + 1]
    return images[chosen] if isinstance(images, Tensor | np.ndarray) else [images[index] for index in chosen]


def _value_of(metric: Metric, key: tuple[str, str]) -> Tensor:
    """Value of a metric; where one of somebody else fails without any image, NaN and a warning with the error.

    The metrics of this package give NaN themselves. What they raise has another cause, as a process that is gone.
    """
    try:
        value = metric.compute()
    except Exception as error:
        if metric.update_called or isinstance(metric, ListStatesMetric):
            raise
        warn([f"{key[1]} is undefined (NaN): {error}"])
        return torch.tensor(torch.nan, device=metric.device)
    return _checked_value(value, "/".join(key))


def _checked_value(value: Any, name: str) -> Tensor:
    """Return a value; raise unless it is one number."""
    if not isinstance(value, Tensor) or value.numel() != 1:
        found = f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise ValueError(f"Expected metrics that compute one number, but {name} computes {found}.")
    return value


def _means(values: dict[tuple[str, str], Tensor]) -> dict[tuple[str, str], Tensor]:
    """Mean of each metric over the categories with a score, NaN if there is none."""
    names = dict.fromkeys(name for _, name in values)
    parts = {name: torch.stack([each for (_, of), each in values.items() if of == name]) for name in names}
    return {(MEAN, name): each.nanmean() for name, each in parts.items()}


def _texts_of(caught: Sequence[warnings.WarningMessage]) -> list[str]:
    """Texts of warnings, without that of torchmetrics of a metric that had no update, as any process may have one."""
    texts = [str(each.message) for each in caught]
    return [text for text in texts if "before the ``update`` method" not in text]
