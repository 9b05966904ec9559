"""Which metrics a LightningModule holds, under which names their scores are logged, and at which step.

Lightning has no public way to ask under which name a metric object is logged, and at which step the scalars of a
validation are. Both are read here, from attributes that are the same in Lightning 2.4 to 2.6. Where they are missing,
the name is made from that of the metric's attribute, and the step is `trainer.global_step`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torchmetrics import Metric, MetricCollection, MetricTracker

from aupimo_torchmetrics.metrics import AUPIMO

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

__all__ = ["FoundMetric", "find_metrics", "logged_names", "logged_step", "stage_of", "unique_tags"]


class FoundMetric(NamedTuple):
    """A metric of a module."""

    metric: AUPIMO
    own_name: str | None
    """The name that it says of itself: its `name` in anomalib, or its name in a collection with a prefix or postfix."""


def find_metrics(module: torch.nn.Module) -> dict[str, FoundMetric]:
    """Return the metrics in a module and its collections by attribute, without the copies inside of wrapper metrics."""
    found: dict[str, FoundMetric] = {}
    seen: set[int] = set()
    for attribute, each in _walk(module, ""):
        if id(each.metric) not in seen:
            found[attribute] = each
            seen.add(id(each.metric))
    return found


def _walk(module: torch.nn.Module, prefix: str) -> Iterator[tuple[str, FoundMetric]]:
    """Attributes and metrics in a module."""
    for name, child, own_name in _children(module):
        if isinstance(child, AUPIMO):
            yield prefix + name, FoundMetric(child, own_name or _name_of(child))
        elif isinstance(child, MetricCollection) or not isinstance(child, (Metric, MetricTracker)):
            yield from _walk(child, f"{prefix}{name}.")


def _children(module: torch.nn.Module) -> Iterable[tuple[str, torch.nn.Module, str | None]]:
    """Name, child and, in a collection that gives names, its name there."""
    if not isinstance(module, MetricCollection):
        return [(name, child, None) for name, child in module.named_children()]
    members = module.items(keep_base=True, copy_state=False)  # `items` also updates grouped states
    has_names = bool(module.prefix or module.postfix)
    keys = module.keys(keep_base=False)
    return [(name, child, str(key) if has_names else None) for (name, child), key in zip(members, keys, strict=True)]


def _name_of(metric: AUPIMO) -> str | None:
    """The `name` of a metric of anomalib; metrics of torchmetrics have none."""
    name = getattr(metric, "name", None)
    return name if isinstance(name, str) and name else None


def logged_names(trainer: Trainer) -> dict[int, str]:
    """Return the names under which metric objects were logged in the present epoch, by the `id` of the metric."""
    names: dict[int, dict[str, str]] = defaultdict(dict)
    for each in _logged(trainer):
        metric, meta = getattr(each, "value", None), each.meta
        if isinstance(metric, Metric):
            suffix = ""
            if meta.add_dataloader_idx and meta.dataloader_idx is not None:
                suffix = f"/dataloader_idx_{meta.dataloader_idx}"
            names[id(metric)].setdefault(meta.name, suffix)
            if names[id(metric)][meta.name] != suffix:  # one score of several loaders
                names[id(metric)][meta.name] = ""
    return {key: next(name + suffix for name, suffix in each.items()) for key, each in names.items()}


def logged_step(trainer: Trainer) -> int:
    """Return the step at which Lightning logs the scalars of the present validation or test epoch."""
    is_logged = any(each.meta.name == "step" and each.meta.logger for each in _logged(trainer))
    if is_logged and "step" in trainer.logged_metrics:  # `self.log("step", ...)` sets the step of all scalars
        return int(trainer.logged_metrics["step"])
    step = getattr(trainer.fit_loop.epoch_loop, "_batches_that_stepped", None)
    return trainer.global_step if step is None else int(step)


def _logged(trainer: Trainer) -> list[Any]:
    """What was logged in the present epoch, as Lightning keeps it."""
    kept = getattr(trainer, "_results", None) or {}
    return [each for each in kept.values() if hasattr(each, "meta") and not getattr(each, "has_reset", False)]


def stage_of(trainer: Trainer) -> str:
    """Return the usual beginning of a name."""
    return "test" if trainer.testing else "val"


def unique_tags(names: Mapping[str, str]) -> dict[str, str]:
    """Return names by attribute, with the attribute appended where another metric has the same name."""
    tags: dict[str, str] = {}
    for attribute, name in names.items():
        tags[attribute] = f"{name}/{attribute.replace('.', '/')}" if name in tags.values() else name
    return tags
