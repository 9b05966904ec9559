"""`AUPIMO` works in the base class that anomalib gives its metrics."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from helpers import BATCHES, COPIES, FPR_BOUNDS, Subclass, assert_same, by_function, join
from torchmetrics import Metric

from aupimo_torchmetrics import AUPIMO


class AnomalibBase(Metric):
    """What anomalib's own base class of metrics does with its batches."""

    default_fields: tuple[str, ...] = ()

    def __init__(self, fields: tuple[str, ...] | None = None, prefix: str = "", **kwargs: Any) -> None:
        self.fields = fields or self.default_fields
        super().__init__(**kwargs)
        self.name = prefix + self.__class__.__name__

    def update(self, batch: Any) -> None:
        """Pass the fields of a batch on by position."""
        super().update(*[getattr(batch, name) for name in self.fields])

    def compute(self) -> Any:
        """Compute without arguments."""
        return super().compute()


class AnomalibLike(AnomalibBase, AUPIMO):
    """The one line that makes it a metric of anomalib."""

    default_fields = ("anomaly_map", "gt_mask")


def test_metric_in_the_base_class_of_anomalib() -> None:
    """The subclass gets its batches by position, computes on the CPU when told later, and can be pickled."""
    metric = AnomalibLike(prefix="pixel_", fpr_bounds=FPR_BOUNDS)
    metric.compute_on_cpu = True
    for preds, target in BATCHES:
        metric.update(SimpleNamespace(anomaly_map=preds.as_subclass(Subclass), gt_mask=target.as_subclass(Subclass)))
    expected = by_function(metric, *join(BATCHES))
    assert metric.name == "pixel_AnomalibLike"
    for each in (metric, *(copy_of(metric) for copy_of in COPIES.values())):
        assert type(each) is AnomalibLike
        assert_same(each.compute(), expected)
        assert len(each.result().aupimos) == 10
