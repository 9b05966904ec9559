"""What `compute`, `result` and `curves` give: one computation, undefined data, shapes."""

from __future__ import annotations

import pickle
from typing import Any
from unittest.mock import Mock

import pytest
from helpers import BATCHES, FPR_BOUNDS, assert_same, by_function, each_variant, join, make_aupimo, make_batch, updated

from aupimo_torchmetrics import PIMOResult


@pytest.mark.parametrize("first", ["compute", "result"])
def test_result_and_value_are_computed_once(first: str) -> None:
    """Whichever is asked for first, value and result belong together: no second gathering, no second warning."""
    gathering = Mock(side_effect=lambda state, **_: [state])  # with many processes that is what takes time
    settings: Any = {"dist_sync_fn": gathering, "distributed_available_fn": lambda: True}
    metric = updated(make_aupimo(fpr_bounds=(1e-9, 1e-8), **settings))
    with pytest.warns(UserWarning, match="cannot be resolved"):
        getattr(metric, first)()
    num_states = gathering.call_count
    assert num_states > 0
    value, result = metric.compute(), metric.result()  # a warning would be an error
    assert metric.compute() is value
    assert metric.result() is result
    assert result.mean == pytest.approx(float(value), abs=1e-7)  # the value is rounded to float32
    assert gathering.call_count == num_states
    metric = updated(make_aupimo(compute_with_cache=False, **settings))  # each call anew
    assert metric.result().mean == pytest.approx(float(metric.compute()), abs=1e-7)
    assert_same(metric.compute(), metric.compute())
    assert gathering.call_count == 5 * num_states


def test_thresholds_of_normal_images_come_without_a_warning() -> None:
    """`result` of normal images alone gives thresholds and says nothing, but keeps why there is no score."""
    metric = updated(make_aupimo(), [make_batch("NNN", 0)])
    result = metric.result()  # a warning would be an error
    assert result.threshold_at(FPR_BOUNDS[1]) == result.threshold_bounds[0]
    assert result.operating_point(threshold=result.threshold_bounds[0]).share_of_normal_images_with_alarm > 0
    assert "is anomalous" in result.warnings[0]
    with pytest.warns(UserWarning, match="is anomalous"):
        assert metric.compute().isnan()
    metric.result()  # the score has been told of
    metric = updated(make_aupimo(fpr_bounds=(1e-9, 1e-8)), [make_batch("NNN", 0)])
    with pytest.warns(UserWarning, match="cannot be resolved") as caught:
        result = metric.result()  # of thresholds that are not certain it does tell
    assert (len(caught), len(result.warnings)) == (1, 2)
    with pytest.warns(UserWarning, match="is anomalous") as caught:
        metric.compute()
    assert len(caught) == 1


def test_result_and_value_follow_new_data() -> None:
    """After an update or a `forward` neither the value nor the result is an old one."""
    metric, batches = make_aupimo(), [*BATCHES]
    for call, batch in ((metric.update, join(BATCHES)), (metric.update, make_batch("NNA", 9)), (metric, BATCHES[0])):
        call(*batch)
        batches += [] if len(batch[0]) == 10 else [batch]
        expected = by_function(metric, *join(batches))
        assert metric.result().mean == pytest.approx(float(expected), abs=1e-7)  # the value is rounded to float32
        assert_same(metric.compute(), expected)


@each_variant
@pytest.mark.parametrize(
    ("method", "classes", "reason"),
    [("update", "", "there is no image"), ("forward", "NNN", "is anomalous"), ("update", "AA", "is normal")],
)
def test_undefined_data_is_nan_and_warns(make_metric: Any, method: str, classes: str, reason: str) -> None:
    """Data without a score gives NaN and a warning that names the cause, of functions too; later updates count."""
    metric = make_metric()
    if method == "forward":
        with pytest.warns(UserWarning, match=f"undefined.*{reason}"):
            metric(*make_batch(classes, 0))
    else:
        metric.update(*make_batch(classes, 0))
    with pytest.warns(UserWarning, match=f"undefined.*{reason}"):
        value = metric.compute()
    for images in (make_batch(classes, 0), [[*each] for each in make_batch(classes, 0)]):
        with pytest.warns(UserWarning, match=f"undefined.*{reason}") as caught:
            assert_same(by_function(metric, *images), value)
        assert len(caught) == 1
    if isinstance(value, PIMOResult):
        num_levels = metric.num_thresholds or 1000
        assert value.per_image_tprs.shape == (len(classes), num_levels)
        assert value.per_image_tprs.isnan().all()
        for each in (value.thresholds, value.shared_fpr):
            assert bool(each.isnan().all()) == ("N" not in classes)
    else:
        assert value.shape == (() if metric.reduction == "mean" else (len(classes),))
        assert value.isnan().all()
        assert metric.result().aupimos.shape == (len(classes),)
    updated(metric)
    assert_same(metric.compute(), by_function(metric, *join([make_batch(classes, 0), *BATCHES])))
    if method == "update":  # one after others of which there is a score
        with pytest.warns(UserWarning, match=f"undefined.*{reason}"):
            metric(*make_batch(classes, 1))
        metric(*BATCHES[0])
        batches = [make_batch(classes, 0), *BATCHES, make_batch(classes, 1), BATCHES[0]]
        assert_same(metric.compute(), by_function(metric, *join(batches)))


def test_the_score_of_a_single_image_has_no_axis() -> None:
    """`reduction="none"` gives () for a single image."""
    metric = updated(make_aupimo(reduction="none"), [make_batch("A", 0)])
    with pytest.warns(UserWarning, match="none of the 1 images is normal"):
        assert metric.compute().shape == ()


@pytest.mark.parametrize(("buffer", "shared_fpr"), [(None, "mean"), (2**16, "max"), (100, "mean"), (100, "max")])
def test_curves_around_the_bounds(buffer: int | None, shared_fpr: str) -> None:
    """`AUPIMO.curves` gives the rates at its thresholds that counting gives, from one normal pixel's FPR on."""
    metric = make_aupimo(normal_buffer=buffer, shared_fpr=shared_fpr)
    preds, target = make_batch("NNANAANN", 3)
    for batch in zip(preds.split(3), target.split(3), strict=True):
        metric.update(*batch)
    curves = metric.curves()
    is_anomalous = target.flatten(1).any(1)
    normal, thresholds = preds[~is_anomalous].flatten(1), curves.thresholds
    fprs = (normal >= thresholds[:, None, None]).double().mean(2)
    expected = fprs.amax(1) if shared_fpr == "max" else fprs.mean(1)
    assert_same(curves.shared_fpr, expected.float(), atol=1e-7)
    for image in is_anomalous.nonzero().flatten():
        recalled = preds[image][target[image]] >= thresholds[:, None]
        assert_same(curves.per_image_tprs[image], recalled.float().mean(1), atol=1e-7)
    assert curves.per_image_tprs[~is_anomalous].isnan().all()
    num_pixels = normal.shape[1] if shared_fpr == "max" else normal.numel()
    assert float(curves.shared_fpr[-1]) == pytest.approx(1 / num_pixels)
    assert (float(curves.shared_fpr[0]) == 1) == (buffer != 100)
    assert float(curves.shared_fpr[0]) >= 10 * FPR_BOUNDS[1]
    assert int((curves.thresholds == thresholds[0]).sum()) < 5  # no points are wasted on what is not known
    assert not metric._is_synced


def test_a_result_shares_all_normal_scores_with_the_metric() -> None:
    """With `normal_buffer=None` a computed metric does not hold the scores of all normal pixels twice."""
    metric = updated(make_aupimo(normal_buffer=None))
    size_before = len(pickle.dumps(metric))
    metric.compute()
    num_scores = sum(len(part) for part in metric.aupimo_normal_scores)
    assert len(pickle.dumps(metric)) < size_before + 2 * num_scores  # bytes; a copy takes four times as many
    assert_same(metric.compute(), by_function(metric, *join(BATCHES)))
    updated(metric, BATCHES[:1])
    assert_same(metric.compute(), by_function(metric, *join([*BATCHES, BATCHES[0]])))
