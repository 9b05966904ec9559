"""The metric of the extra `anomalib` takes anomalib's batches and settings. Needs anomalib, else it is skipped."""

from __future__ import annotations

import doctest
import math
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import matplotlib as mpl
import pytest
import torch
from helpers import COPIES, FPR_BOUNDS, FUNCTIONS, MAX_ERROR, assert_same, make_batch, run_ranks
from torch import Tensor

import aupimo_torchmetrics
from aupimo_torchmetrics import vad_metrics

if find_spec("anomalib") is None:
    pytest.skip("needs anomalib", allow_module_level=True)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of anomalib and what it needs, while they are imported
    import anomalib.metrics
    from anomalib.data import DepthBatch, ImageBatch

    import aupimo_torchmetrics.anomalib
    from aupimo_torchmetrics.anomalib import AUPIMO, PerCategory

mpl.use("agg")

MAPS, MASKS = make_batch("NANAANNNANN", 0)
LABELS = MASKS.flatten(1).any(1)
PATHS = [f"data/test/{kind}.png" for kind in ("b", "d/1", "c", "d/0", "a", "é", "Z", "b0", "e e", "d", "0")]


def batch_of(
    maps: Tensor | None = MAPS, masks: Tensor | None = MASKS, labels: Tensor | None = None, paths: Any = None
) -> ImageBatch:
    """Make a batch of anomalib."""
    images = torch.zeros(next(len(part) for part in (maps, masks, labels, paths) if part is not None), 3, 4, 4)
    paths = None if paths is None else list(paths)
    return ImageBatch(images, anomaly_map=maps, gt_mask=masks, gt_label=labels, image_path=paths)


def batches(size: int = 3) -> list[ImageBatch]:
    """All images with their labels and paths, a few at a time."""
    parts = [slice(start, start + size) for start in range(0, len(MAPS), size)]
    return [batch_of(MAPS[part], MASKS[part], LABELS[part], PATHS[part]) for part in parts]


def updated(metric: Any, *given: ImageBatch) -> Any:
    """Return the metric after an update with each batch, by default with all images."""
    for batch in given or batches():
        metric.update(batch)
    return metric


def expected(**settings: Any) -> aupimo_torchmetrics.AUPIMO:
    """Return the metric of torchmetrics, updated with the same images and their paths."""
    metric = aupimo_torchmetrics.AUPIMO(fpr_bounds=FPR_BOUNDS, **settings)
    metric.update(MAPS, MASKS, image_ids=PATHS)
    return metric


OTHERS = {metric_class.__name__: function for metric_class, function in FUNCTIONS.items()}
"""Metrics beside AUPIMO."""

SETTINGS = [{}, {"num_thresholds": 20_000}, {"shared_fpr": "max"}, {"reduction": "none"}, {"normal_buffer": None}]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_scores_are_those_of_the_metric_of_torchmetrics(settings: dict[str, Any]) -> None:
    """Batches of anomalib give the value, the scores and the paths that maps, masks and paths give."""
    metric, other = updated(AUPIMO(fpr_bounds=FPR_BOUNDS, **settings)), expected(**settings)
    assert_same(metric.compute(), other.compute())
    assert_same(metric.result().aupimos, other.result().aupimos)
    assert_same(metric.curves().per_image_tprs, other.curves().per_image_tprs)
    assert metric.result().paths == other.result().paths == sorted(PATHS)


@pytest.mark.filterwarnings("ignore:AUPIMO may be inaccurate")
@pytest.mark.parametrize("num_thresholds", [1_000, 5_000])
def test_scores_are_those_of_the_metric_of_anomalib(num_thresholds: int) -> None:
    """With the same number of thresholds and bounds, scores and mean are those of anomalib's own metric."""
    settings: dict[str, Any] = {"num_thresholds": num_thresholds, "fpr_bounds": (1e-2, 1e-1)}
    own = updated(AUPIMO(**settings))
    theirs = updated(anomalib.metrics.AUPIMO(**settings, return_average=False, force=True))
    scores = theirs.compute()[1].aupimos
    order = sorted(range(len(PATHS)), key=PATHS.__getitem__)
    assert_same(own.result().aupimos, scores[order].double(), atol=1e-6)  # theirs are float32
    assert 0.1 < own.compute() < 0.9
    assert_same(own.compute(), scores.nanmean().float(), atol=1e-6)


def test_name_and_fields_are_as_in_anomalib() -> None:
    """A metric is named by its class, after the prefix, and reads the fields that it is told."""
    metric = AUPIMO(20_000, FPR_BOUNDS, fields=["gt_mask", "pred_mask"], prefix="pixel_", strict=False)
    assert (metric.name, metric.fields, metric.strict) == ("pixel_AUPIMO", ["gt_mask", "pred_mask"], False)
    assert (metric.num_thresholds, metric.fpr_bounds) == (20_000, FPR_BOUNDS)
    metric = AUPIMO(fields=("pred_score", "pred_mask"), fpr_bounds=FPR_BOUNDS)
    assert AUPIMO().name == anomalib.metrics.AUPIMO().name == "AUPIMO"
    assert AUPIMO().fields == anomalib.metrics.AUPIMO().fields
    images = batch_of(masks=None)
    images.pred_score, images.pred_mask, images.image_path = MAPS, MASKS, PATHS
    metric.update(images)
    assert_same(metric.compute(), expected().compute())


def test_evaluator_accepts_it() -> None:
    """The evaluator of anomalib takes the metric alone, and in a list, and tells it where to compute."""
    for given in (AUPIMO(), [AUPIMO(), AUPIMO(prefix="max_", shared_fpr="max")]):
        evaluator = anomalib.metrics.Evaluator(val_metrics=given, test_metrics=given)
        evaluator.metrics_to_cpu(evaluator.test_metrics)
        assert all(metric.compute_on_cpu for metric in evaluator.test_metrics)


@pytest.mark.parametrize("missing", ["anomaly_map", "gt_mask"])
def test_a_strict_metric_refuses_a_batch_without_maps_or_masks(missing: str) -> None:
    """By default a batch without maps or masks is an error that names the field, and what was seen before stays."""
    metric = updated(AUPIMO(fpr_bounds=FPR_BOUNDS))
    incomplete = batch_of(paths=[f"other/{path}" for path in PATHS])
    setattr(incomplete, missing, None)
    with pytest.raises(ValueError, match=missing):
        metric.update(incomplete)
    assert_same(metric.compute(), expected().compute())


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric AUPIMO was called before:UserWarning")
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_without_any_mask_nothing_is_logged_and_the_result_says_why(reduction: str) -> None:
    """Not strict and without masks, `compute` is None, and result, curves and plot are there, in silence."""
    metric = AUPIMO(strict=False, reduction=reduction)
    metric.update(batch_of(masks=None))
    assert metric.compute() is None
    result = metric.result()
    assert len(result.aupimos) == 0
    assert math.isnan(result.mean)
    assert "there is no image" in result.warnings[0]
    assert metric.curves().per_image_tprs.shape[0] == 0
    if reduction == "mean":
        assert len(metric.plot()) == 2
    else:
        with pytest.raises(ValueError, match="got a result of none"):
            metric.plot()


def test_batches_without_masks_are_passed_over() -> None:
    """Not strict, the other batches count, in whatever order they come."""
    for position in (0, 2, 4):
        given = batches()
        given.insert(position, batch_of(masks=None, paths=[f"none/{path}" for path in PATHS]))
        metric = updated(AUPIMO(fpr_bounds=FPR_BOUNDS, strict=False), *given)
        assert_same(metric.compute(), expected().compute())
        assert metric.result().paths == sorted(PATHS)
        metric.reset()
        assert_same(updated(metric).compute(), expected().compute())


def test_a_strict_metric_without_any_image_is_undefined() -> None:
    """Strict and never updated, the value is NaN with a warning, not an error as in anomalib's own metric."""
    metric = AUPIMO()
    with (
        pytest.warns(UserWarning, match="AUPIMO is undefined"),
        pytest.warns(UserWarning, match="called before the ``update``"),
    ):
        assert metric.compute().isnan()


def test_return_average_is_the_reduction() -> None:
    """`return_average=False` gives a score for each image, and True the mean."""
    for average, reduction in ((False, "none"), (True, "mean")):
        metric = AUPIMO(fpr_bounds=FPR_BOUNDS, return_average=average)
        assert metric.reduction == reduction
        assert_same(updated(metric).compute(), expected(reduction=reduction).compute())
        assert AUPIMO(return_average=average, reduction=reduction).reduction == reduction
    for average, reduction in ((True, "none"), (False, "mean")):
        with pytest.raises(ValueError, match=f"but got {average} and '{reduction}'. Use `reduction` only"):
            AUPIMO(return_average=average, reduction=reduction)


def test_force_changes_nothing_and_is_told_once() -> None:
    """`force` has no effect, and a warning says so; with Python's usual filter, several metrics say it once."""
    for force in (True, False):
        with pytest.warns(UserWarning, match="AUPIMO: `force` changes nothing"):
            metric = AUPIMO(fpr_bounds=FPR_BOUNDS, force=force)
        assert_same(updated(metric).compute(), expected().compute())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for prefix in ("a_", "b_", "c_"):
            AUPIMO(prefix=prefix, force=True)
    assert len(caught) == 1


def test_wrong_settings_are_refused() -> None:
    """A setting that is unknown or wrong is an error that names it."""
    with pytest.raises(ValueError, match="bounds"):
        AUPIMO(bounds=(1e-3, 1e-2))
    with pytest.raises(TypeError, match="`num_thresholds`"):
        AUPIMO(["anomaly_map", "gt_mask"])
    with pytest.raises(ValueError, match="`reduction`"):
        AUPIMO(reduction="sum")


def test_repeated_images_count_once() -> None:
    """An image that a sampler repeats, in the same batch or in another, counts once."""
    order = [0, 3, 3, 1, 2, 0, 9, 8, 7, 4, 5, 6, 9, 1, 10]
    again = batch_of(MAPS[order], MASKS[order], LABELS[order], [PATHS[i] for i in order])
    metric = updated(AUPIMO(fpr_bounds=FPR_BOUNDS), again, *batches())
    assert_same(metric.compute(), expected().compute(), atol=MAX_ERROR)
    assert metric.result().paths == sorted(PATHS)


@pytest.mark.parametrize("paths", [None, [""] * len(PATHS)])
def test_batches_without_paths(paths: list[str] | None) -> None:
    """Images without a path are in the order of the batches, and have no ids."""
    metric = updated(AUPIMO(fpr_bounds=FPR_BOUNDS), batch_of(paths=paths))
    result = metric.result()
    assert result.paths is None
    assert result.aupimos[~LABELS].isnan().all()
    assert_same(metric.compute(), expected().compute(), atol=MAX_ERROR)


def test_batches_with_depth() -> None:
    """Batches of images with depth are taken like those without."""
    images, depths = torch.zeros(len(MAPS), 3, 4, 4), torch.zeros(len(MAPS), 4, 4)
    settings = {"image_path": PATHS, "depth_path": PATHS, "anomaly_map": MAPS, "gt_mask": MASKS}
    depth = DepthBatch(image=images, depth_map=depths, **settings)
    assert updated(AUPIMO(fpr_bounds=FPR_BOUNDS), depth).result().paths == sorted(PATHS)


EMPTY_MASK = "AUPIMO: .*have an empty mask, but their `gt_label` says anomalous"


def caught_in(call: Callable[[], Any]) -> list[str]:
    """Return the texts of all warnings of a call."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(each.message) for each in caught]


def test_an_empty_mask_of_an_anomalous_image_is_told_once() -> None:
    """The first time that a mask is empty though the label says anomalous, a warning says so, with a path."""
    labels = LABELS.clone()
    labels[5] = labels[7] = True
    whole = batch_of(labels=labels, paths=PATHS)
    metric = AUPIMO(fpr_bounds=FPR_BOUNDS)
    texts = caught_in(lambda: metric.update(whole))
    assert len(texts) == 1
    assert texts[0].startswith("AUPIMO: 2 of 11 images in a batch have an empty mask, but their `gt_label` says anom")
    assert "such as data/test/é.png." in texts[0]
    assert_same(metric.compute(), expected().compute())
    for each in (metric, *(copy_of(metric) for copy_of in COPIES.values())):
        assert not caught_in(lambda each=each: each.update(whole))
        each.reset()
        assert not caught_in(lambda each=each: each.update(whole))
    with pytest.warns(UserWarning, match=EMPTY_MASK):
        AUPIMO().update(batch_of(labels=labels.long()))


def test_labels_that_fit_the_masks_are_not_told() -> None:
    """Nothing is said where label and mask agree, where a normal label has a mask, or where there are no labels."""
    for labels in (LABELS, torch.zeros(len(MAPS), dtype=torch.bool), None):
        assert not caught_in(lambda labels=labels: AUPIMO().update(batch_of(labels=labels)))
    some = torch.ones(len(MAPS), dtype=torch.bool)
    assert not caught_in(lambda: AUPIMO(strict=False).update(batch_of(masks=None, labels=some)))


@pytest.mark.parametrize("copy_of", COPIES.values(), ids=COPIES.keys())
def test_copies_are_as_good(copy_of: Callable[[AUPIMO], AUPIMO]) -> None:
    """A copy before, between or after the updates has the settings, the images and the class of the original."""
    metric = AUPIMO(fpr_bounds=FPR_BOUNDS, prefix="pixel_", strict=False, return_average=False)
    for batch in batches():
        metric = copy_of(metric)
        metric.update(batch)
    metric = copy_of(metric)
    assert type(metric) is AUPIMO
    assert (metric.name, metric.strict, metric.reduction) == ("pixel_AUPIMO", False, "none")
    assert_same(metric.compute(), expected(reduction="none").compute())
    assert metric.result().paths == sorted(PATHS)
    assert copy_of(metric).result().paths == sorted(PATHS)


@pytest.mark.filterwarnings("ignore:AUPIMO is undefined", "ignore:AUPIMO is uncertain")
def test_forward_adds_a_batch() -> None:
    """Calling the metric with a batch adds it, and gives the score of this batch."""
    metric = AUPIMO(fpr_bounds=FPR_BOUNDS)
    values = [metric(batch) for batch in batches(5)]
    assert all(value.shape == () for value in values)
    assert_same(metric.compute(), expected().compute())


def test_the_factory_of_anomalib_works_too() -> None:
    """A metric that anomalib makes of the metric of torchmetrics scores the same, without paths."""
    made = anomalib.metrics.create_anomalib_metric(aupimo_torchmetrics.AUPIMO)
    metric = made(fields=["anomaly_map", "gt_mask"], fpr_bounds=FPR_BOUNDS)
    assert_same(updated(metric).compute(), expected().compute(), atol=MAX_ERROR)
    assert metric.result().paths is None


def test_examples_and_public_names() -> None:
    """The examples of the docstrings hold, and the module names what it gives."""
    assert doctest.testmod(aupimo_torchmetrics.anomalib).failed == 0
    assert doctest.testmod(aupimo_torchmetrics.anomalib).attempted > 5
    names = {"AUPIMO", "Evaluator", "PerCategory", *OTHERS}
    assert {*aupimo_torchmetrics.anomalib.__all__} == names


def score_strided(rank: int, world_size: int, note: Callable[[str], Any]) -> list[Any]:
    """Score every n-th image, as with a `DistributedSampler`, which fills up with the first ones."""
    note("the strided images")
    num_images = len(MAPS)
    indices = [i % num_images for i in range(rank, math.ceil(num_images / world_size) * world_size, world_size)]
    metric = AUPIMO(fpr_bounds=FPR_BOUNDS)
    metric.update(batch_of(MAPS[indices], MASKS[indices], paths=[PATHS[i] for i in indices]))
    return [metric.compute(), metric.result().aupimos, metric.result().paths]


def score_on_one_rank(rank: int, world_size: int, note: Callable[[str], Any]) -> list[Any]:
    """Score where only the last rank has masks, then where none has; the metric is not strict."""
    note("masks on one rank")
    metric = AUPIMO(fpr_bounds=FPR_BOUNDS, strict=False)
    metric.update(batch_of(masks=MASKS if rank == world_size - 1 else None, paths=PATHS))
    scores = [metric.compute(), metric.result().aupimos, metric.result().paths]
    note("masks on no rank")
    metric = updated(AUPIMO(fpr_bounds=FPR_BOUNDS, strict=False), batch_of(masks=None))
    return [*scores, metric.compute(), len(metric.result().aupimos)]


def test_several_processes_agree_with_one() -> None:
    """Each rank answers what one process answers, also where some or all have no masks."""
    one = expected()
    strided, on_one = run_ranks([(score_strided, 2), (score_on_one_rank, 2)])
    for answers in (*strided, *on_one):
        assert_same(answers[0], one.compute(), atol=MAX_ERROR)
        assert_same(answers[1], one.result().aupimos, atol=MAX_ERROR)
        assert answers[2] == sorted(PATHS)
    assert [answers[3:] for answers in on_one] == [[None, 0]] * 2


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric .* was called before:UserWarning")
@pytest.mark.parametrize("name", OTHERS)
def test_metrics_beside_aupimo_take_batches(name: str) -> None:
    """The metrics beside AUPIMO are named as anomalib's are, score batches, and may pass over some without masks."""
    make = getattr(aupimo_torchmetrics.anomalib, name)
    metric = updated(make(prefix="test_"))
    assert metric.name == f"test_{name}"
    assert torch.equal(metric.compute(), OTHERS[name](MAPS, MASKS))
    assert updated(make(strict=False), batch_of(masks=None)).compute() is None


CATEGORIES = ("wood", "tile")
OF = [CATEGORIES[index % 3 == 0] for index in range(len(MAPS))]


@pytest.mark.filterwarnings("ignore:AUPIMO is uncertain")
@pytest.mark.parametrize("is_named", [False, True])
def test_categories_are_told_by_batches(is_named: bool) -> None:
    """A batch names the category of each image, or its path does, as one folder; other paths are refused."""
    metric = PerCategory(CATEGORIES, fpr_bounds=FPR_BOUNDS, prefix="test_")
    other = aupimo_torchmetrics.PerCategory(vad_metrics(FPR_BOUNDS, prefix="test_"), CATEGORIES)
    paths = PATHS if is_named else [f"data/{of}/test/{path}" for of, path in zip(OF, PATHS, strict=True)]
    for part in (slice(5), slice(5, None)):
        batch = batch_of(MAPS[part], MASKS[part], LABELS[part], paths[part])
        if is_named:
            batch.category = OF[part]
        metric.update(batch)
        other.update(MAPS[part], MASKS[part], categories=OF[part], image_ids=paths[part])
    before = other.compute()
    assert_same(metric.compute(), before)
    for name, result in metric.results().items():
        assert_same(result.aupimos, other.results()[name].aupimos)
        assert result.paths == sorted(path for of, path in zip(OF, paths, strict=True) if of in name)
    for wrong in ("data/brick/0.png", "data/wood/tile/0.png", "wood.png"):
        with pytest.raises(ValueError, match="Expected one folder in the path of an image to be one of the categories"):
            metric.update(batch_of(MAPS[:1], MASKS[:1], paths=[wrong]))
    with pytest.raises(ValueError, match="Expected a batch with the fields anomaly_map and gt_mask"):
        metric.update(batch_of(masks=None))
    assert_same(metric.compute(), before)
    PerCategory(CATEGORIES, strict=False).update(batch_of(masks=None))
    with pytest.raises(ValueError, match="or a `metric`, but got both: prefix"):
        PerCategory(CATEGORIES, AUPIMO(), prefix="test_")
    with pytest.warns(UserWarning, match="PerCategory: 1 of 1 images in a batch have an empty mask"):
        metric.update(batch_of(MAPS[:1], MASKS[:1] & False, torch.ones(1).long(), ["wood/0.png"]))
