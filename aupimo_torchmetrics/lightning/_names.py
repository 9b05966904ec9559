"""Which metrics a LightningModule holds, under which names their scores are logged, and at which step.

Lightning has no public way to ask under which name a metric object is logged, and at which step the scalars of a
validation are. Both are read here, from attributes that are the same in Lightning 2.4 to 2.6. Where they are missing,
the name is made from that of the metric's attribute, and the step is `trainer.global_step`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from torch.nn import Module
from torchmetrics import Metric, MetricCollection, MetricTracker

from aupimo_torchmetrics.metrics import AUPIMO, PIMO
from aupimo_torchmetrics.unified import PerCategory

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


class FoundMetric(NamedTuple):
    """A metric of a module."""

    metric: Any
    """An `AUPIMO`, or a `PIMO`, which may speak for an `AUPIMO`."""
    own_name: str | None
    """The name that it says of itself: its `name` in anomalib, or its name in a collection with a prefix or postfix."""
    speaker: Any
    """The metric that tells what it has kept: itself, or the first of its group in a collection."""
    logged: Any
    """What is logged: itself, or its value in a `PerCategory`, which is computed with those of the other categories."""


Metrics: TypeAlias = Mapping[str, FoundMetric]
"""Metrics by attribute."""


def find_metrics(module: Module) -> dict[str, FoundMetric]:
    """Return the metrics in a module and its collections by attribute, without the copies inside of wrapper metrics.

    A metric of several attributes is there once.
    """
    found: dict[str, FoundMetric] = {}
    wrappers: tuple[str, ...] = ()
    names: dict[str, str] = {}
    speakers: dict[str, Any] = {}
    for path, child in module.named_modules(remove_duplicate=False):
        if path.startswith(wrappers) or any(child is each.metric for each in found.values()):
            continue
        if isinstance(child, PerCategory):
            wrappers += (f"{path}.",)
            found |= {
                f"{path}.{key}": FoundMetric(each.metric, each.name, each.speaker, each.value)
                for key, each in child.members().items()
                if isinstance(each.metric, AUPIMO)
            }
        elif isinstance(child, (AUPIMO, PIMO)):
            own_name = names.get(path) or getattr(child, "name", None)  # a metric of anomalib has a `name`
            own_name = own_name if isinstance(own_name, str) else None
            found[path] = FoundMetric(child, own_name, speakers.get(path, child), child)
        elif isinstance(child, MetricCollection):
            members = dict(child.items(keep_base=True, copy_state=False))  # `items` also updates grouped states
            if child.prefix or child.postfix:
                keys = map(str, child.keys(keep_base=False))
                names.update({f"{path}.{key}": name for key, name in zip(members, keys, strict=True)})
            for group in child.compute_groups.values():
                speakers.update({f"{path}.{key}": members[group[0]] for key in group})
        elif isinstance(child, (Metric, MetricTracker)):
            wrappers += (f"{path}.",)
    return found


def metrics_of_all_ranks(trainer: Trainer, module: Module) -> dict[str, FoundMetric]:
    """Return the AUPIMO metrics in a module that all ranks have: one that a step made may be missing on some."""
    found = {name: each for name, each in find_metrics(module).items() if isinstance(each.metric, AUPIMO)}
    names = trainer.strategy.broadcast([*found])
    return {name: found[name] for name in names if trainer.strategy.reduce_boolean_decision(name in found, all=True)}


def logged_names(trainer: Trainer) -> dict[int, str]:
    """Return the names under which metric objects were logged in the present epoch, by the `id` of the metric."""
    names: dict[int, tuple[str, str]] = {}
    for each in _logged(trainer):
        metric, meta = getattr(each, "value", None), each.meta
        if isinstance(metric, Metric):
            has_index = meta.add_dataloader_idx and meta.dataloader_idx is not None
            suffix = f"/dataloader_idx_{meta.dataloader_idx}" if has_index else ""
            name, known_suffix = names.setdefault(id(metric), (meta.name, suffix))
            if name == meta.name and known_suffix != suffix:  # one score of several loaders
                names[id(metric)] = name, ""
    return {key: name + suffix for key, (name, suffix) in names.items()}


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


def unique_tags(names: Mapping[str, str], attributes: Iterable[str]) -> dict[str, str]:
    """Return the names of some attributes, with the attribute appended where another metric has the same name."""
    tags: dict[str, str] = {}
    for attribute in attributes:
        if (name := names.get(attribute)) is not None:
            tags[attribute] = f"{name}/{attribute.replace('.', '/')}" if name in tags.values() else name
    return tags
