"""`AUPIMO` and `PIMO` behave as native metrics of torchmetrics do."""

from __future__ import annotations

import copy
import inspect
import pickle
import warnings
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers import (
    BATCHES,
    FPR_BOUNDS,
    STATE_DTYPES,
    MakeMetric,
    assert_same,
    by_function,
    each_variant,
    join,
    make_aupimo,
    make_batch,
    make_ragged,
    states_of,
    updated,
)
from torch import Tensor
from torchmetrics import Metric

from aupimo_torchmetrics import AUPIMO, PIMO, AUPIMOResult, PIMOResult, metrics


class Subclass(Tensor):
    """A tensor class of somebody else, as the masks of torchvision are."""


def num_normal_scores(metric: Any) -> int:
    """Return how many scores of normal images are kept."""
    num_kept, is_anomalous = torch.cat(metric.aupimo_num_kept), torch.cat(metric.aupimo_is_anomalous)
    return int(num_kept[~is_anomalous].sum())


@pytest.fixture
def num_calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Count the calls of the engine by `AUPIMO.compute`."""
    calls = []

    def counting(*args: Any, **kwargs: Any) -> AUPIMOResult:
        calls.append(1)
        return original(*args, **kwargs)

    original = metrics.aupimo_result
    monkeypatch.setattr(metrics, "aupimo_result", counting)
    return calls


@pytest.mark.parametrize("metric_class", [AUPIMO, PIMO])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("compute_on_cpu", True),
        ("dist_sync_on_step", True),
        ("process_group", None),
        ("dist_sync_fn", None),
        ("distributed_available_fn", lambda: False),
        ("sync_on_compute", False),
        ("compute_with_cache", False),
    ],
)
def test_base_settings_are_accepted(metric_class: type[Any], name: str, value: Any) -> None:
    """Every setting of the base class reaches it."""
    assert getattr(metric_class(**{name: value}), name) is value


@pytest.mark.parametrize("metric_class", [AUPIMO, PIMO])
def test_unknown_setting_is_rejected(metric_class: type[Any]) -> None:
    """A setting that nobody knows raises as in any metric."""
    with pytest.raises(ValueError, match="Unexpected keyword arguments: `normal_bufer`"):
        metric_class(normal_bufer=3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("is_differentiable", False),
        ("higher_is_better", True),
        ("full_state_update", False),
        ("plot_lower_bound", 0.0),
        ("plot_upper_bound", 1.0),
        ("plot_legend_name", "Image"),
    ],
)
def test_class_constants(name: str, value: Any) -> None:
    """The constants of the class say what AUPIMO is, and cannot be set on an instance."""
    metric = AUPIMO()
    assert getattr(metric, name) == value
    with pytest.raises(RuntimeError, match=f"Can't change const `{name}`"):
        setattr(metric, name, None)


@pytest.mark.parametrize("metric_class", [AUPIMO, PIMO])
def test_update_has_the_usual_parameters(metric_class: type[Any]) -> None:
    """Collections and anomalib find `preds` and `target` first, by name and by position."""
    assert list(inspect.signature(metric_class.update).parameters) == ["self", "preds", "target", "image_ids"]


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # torchmetrics still tests it
@pytest.mark.filterwarnings("ignore:This property will be removed in 2.0.0:DeprecationWarning")  # one of torchmetrics
@pytest.mark.parametrize("metric_class", [AUPIMO, PIMO])
def test_metric_is_scriptable(metric_class: type[Any]) -> None:
    """A model that holds the metric can be scripted."""
    torch.jit.script(metric_class())


@pytest.mark.parametrize("metric_class", [AUPIMO, PIMO])
def test_hash_differs_between_metrics(metric_class: type[Any]) -> None:
    """Two metrics are two keys of a dictionary, with and without data."""
    first, second = metric_class(), metric_class()
    assert hash(first)
    assert hash(first) != hash(second)
    assert hash(updated(first)) != hash(updated(second))


@each_variant
def test_batches_are_as_good_as_one_batch(make_metric: MakeMetric) -> None:
    """Updates with parts, an update with the whole and the function give one value."""
    expected = by_function(make_metric(), *join(BATCHES))
    assert_same(updated(make_metric()).compute(), expected)
    assert_same(updated(make_metric(), [join(BATCHES)]).compute(), expected)


@pytest.mark.parametrize("form", ["by keyword", "one channel", "list", "list of parts"])
def test_forms_of_a_batch(form: str) -> None:
    """Arguments by keyword, a channel axis and lists of maps mean the same batch."""
    preds, target = join(BATCHES)
    metric = make_aupimo(reduction="none")
    if form == "by keyword":
        metric.update(target=target, preds=preds)
    elif form == "one channel":
        metric.update(preds[:, None], target[:, None])
    elif form == "list":
        metric.update(list(preds), list(target))
    else:
        updated(metric, [(list(preds[:3]), list(target[:3])), (preds[3:], target[3:])])
    assert_same(metric.compute(), by_function(metric, preds, target))


@pytest.mark.parametrize("shared_fpr", ["mean", "max"])
def test_images_of_different_sizes(shared_fpr: str) -> None:
    """Lists of maps of different sizes accumulate as the function sees them."""
    batches = [make_ragged("NANA", 0), make_ragged("NNA", 1)]
    # the smallest image has 940 pixels, too few for the usual lower bound
    metric = updated(AUPIMO(fpr_bounds=(2e-3, 1e-2), reduction="none", shared_fpr=shared_fpr), batches)
    assert_same(metric.compute(), by_function(metric, *join(batches)))


@pytest.mark.parametrize("preds_dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("target_dtype", [torch.bool, torch.uint8, torch.int64, torch.float32])
@pytest.mark.parametrize("method", ["update", "forward"])
def test_states_have_one_form(preds_dtype: torch.dtype, target_dtype: torch.dtype, method: str) -> None:
    """Whatever the input is, states are plain tensors of fixed dtypes, 1-D in lists, and without gradient."""
    preds, target = join(BATCHES)
    metric = make_aupimo()
    getattr(metric, method)(preds.to(preds_dtype).requires_grad_(), target.to(target_dtype))
    states = states_of(metric)
    assert {name: {part.dtype for part in parts} for name, parts in states.items()} == {
        name: {dtype} for name, dtype in STATE_DTYPES.items()
    }
    for name, parts in states.items():
        assert all(type(part) is Tensor and not part.requires_grad for part in parts)
        assert all(part.ndim == 1 for part in parts) == (name not in {"aupimo_floor", "aupimo_normal_min"})


@each_variant
@pytest.mark.parametrize("method", ["update", "forward"])
def test_gradients_are_left_out(make_metric: MakeMetric, method: str) -> None:
    """Maps that require gradients are scored, and the graph is neither kept nor continued."""
    preds, target = join(BATCHES)
    metric = make_metric()
    returned = getattr(metric, method)((preds.clone().requires_grad_() * 1.0), target)
    value = copy.deepcopy(metric).compute()
    assert_same(value, by_function(metric, preds, target))
    for output in (value, returned):
        parts = output if isinstance(output, tuple) else [output]
        assert not any(part.requires_grad for part in parts if part is not None)


@pytest.mark.parametrize("method", ["update", "forward"])
@pytest.mark.parametrize("as_list", [False, True])
def test_states_own_their_memory(method: str, as_list: bool) -> None:
    """What the caller does to maps, masks and ids afterwards does not change the metric."""
    preds, target = join(BATCHES)
    preds, target, ids = preds.clone(), target.clone(), torch.arange(len(preds)).flip(0)
    expected = by_function(make_aupimo(reduction="none"), preds.flip(0), target.flip(0))
    metric = make_aupimo(reduction="none")
    arguments = (list(preds), list(target)) if as_list else (preds, target)
    getattr(metric, method)(*arguments, image_ids=ids)
    preds.fill_(7.0), target.fill_(True), ids.fill_(3)
    assert_same(metric.compute(), expected)


@pytest.mark.parametrize("method", ["update", "forward"])
def test_states_are_plain_tensors(method: str) -> None:
    """Tensors of a subclass are scored, and nothing of their class is kept."""
    preds, target = join(BATCHES)
    metric = make_aupimo(reduction="none")
    ids = torch.arange(len(preds)).as_subclass(Subclass)
    getattr(metric, method)(preds.as_subclass(Subclass), target.as_subclass(Subclass), image_ids=ids)
    kinds = {name: {type(part) for part in parts} for name, parts in states_of(metric).items()}
    assert kinds == {name: {Tensor} for name in STATE_DTYPES}
    assert type(metric.compute()) is Tensor
    assert_same(metric.compute(), by_function(metric, preds, target))


@each_variant
def test_checks_can_be_skipped(make_metric: MakeMetric) -> None:
    """`validate_args=False` changes no value, and lets through what would raise."""
    metric = make_metric(validate_args=False)
    assert_same(updated(metric).compute(), updated(make_metric()).compute())
    preds, target = make_batch("AN", 3)
    metric.update(preds, 2 * target.long())
    with pytest.raises(ValueError, match="hold only 0 and 1"):
        make_metric().update(preds, 2 * target.long())


COPIES = {"clone": Metric.clone, "deepcopy": copy.deepcopy, "pickle": lambda metric: pickle.loads(pickle.dumps(metric))}  # noqa: S301


@each_variant
@pytest.mark.parametrize("copy_of", COPIES.values(), ids=COPIES.keys())
@pytest.mark.parametrize("when", ["empty", "updated", "computed"])
def test_copies_go_their_own_way(make_metric: MakeMetric, copy_of: Callable[[Any], Any], when: str) -> None:
    """A copy has the data of its original, and what happens to one does not happen to the other."""
    metric = make_metric() if when == "empty" else updated(make_metric())
    if when == "computed":
        metric.compute()
    other = copy_of(metric)
    assert type(other) is type(metric)
    num_before = 0 if when == "empty" else len(BATCHES)
    if when != "empty":
        assert_same(other.compute(), metric.compute())
    extra = make_batch("NNA", 9)
    updated(other, [extra])
    assert_same(other.compute(), by_function(metric, *join([*BATCHES[:num_before], extra])))
    assert metric.update_count == num_before
    metric.reset()
    assert_same(other.compute(), by_function(metric, *join([*BATCHES[:num_before], extra])))


@each_variant
def test_states_are_not_saved_unless_asked_for(make_metric: MakeMetric) -> None:
    """The checkpoint of a model does not grow by the metric."""
    assert updated(make_metric()).state_dict() == {}


@each_variant
@pytest.mark.parametrize("target", ["new", "updated", "computed"])
def test_saved_states_can_be_loaded(make_metric: MakeMetric, target: str) -> None:
    """Loaded states replace what was there, a cached value too, without a warning, and can be updated."""
    source = updated(make_metric())
    source.persistent(mode=True)
    saved = copy.deepcopy(source.state_dict())
    metric = make_metric()
    if target != "new":
        updated(metric, BATCHES[:1])
    if target == "computed":
        metric.compute()
    metric.load_state_dict(saved)
    assert_same(metric.compute(), by_function(metric, *join(BATCHES)))
    extra = make_batch("NNA", 9)
    assert_same(updated(metric, [extra]).compute(), by_function(metric, *join([*BATCHES, extra])))


def test_states_kept_by_other_settings_are_not_loaded() -> None:
    """States of a metric that keeps other scores are refused, and what the metric holds stays."""
    source = AUPIMO(fpr_bounds=FPR_BOUNDS, normal_buffer=10)
    source.persistent(True)
    metric = AUPIMO(fpr_bounds=FPR_BOUNDS)
    metric.update(*make_batch("NA", seed=1))
    expected = metric.compute()
    with pytest.raises(ValueError, match="`state_dict` to come from a metric with the same `normal_buffer`"):
        metric.load_state_dict(source.state_dict())
    metric.update(*make_batch("", seed=1))
    assert_same(metric.compute(), expected)


def test_loaded_states_are_not_shared() -> None:
    """Two metrics that loaded one checkpoint do not see each other's updates and resets."""
    source = updated(make_aupimo())
    source.persistent(mode=True)
    saved = source.state_dict()
    first, second = make_aupimo(), make_aupimo()
    first.load_state_dict(saved)
    second.load_state_dict(saved)
    first.update(*make_batch("NNA", 9))
    assert_same(second.compute(), source.compute())
    first.reset()
    assert_same(second.result().aupimos, source.result().aupimos)
    updated(second, [make_batch("NNA", 9)])
    assert len(saved["aupimo_scores"]) == len(BATCHES)


@each_variant
def test_reset_forgets_everything(make_metric: MakeMetric) -> None:
    """After a reset a metric is as new: no data, no value, and the next epoch is right."""
    metric = updated(make_metric())
    metric.compute()
    metric.reset()
    assert_same(metric.metric_state, make_metric().metric_state)
    assert metric.update_count == 0
    assert getattr(metric, "_result", None) is None  # it holds memory
    with pytest.warns(UserWarning, match="there is no image"), pytest.warns(match="before the ``update`` method"):
        value = metric.compute()
    assert all(part.isnan().all() for part in (value if isinstance(value, tuple) else [value]))
    assert_same(updated(metric, BATCHES[1:]).compute(), by_function(metric, *join(BATCHES[1:])))


@each_variant
def test_forward_scores_the_batch_and_adds_it(make_metric: MakeMetric) -> None:
    """Each `forward` returns the value of its batch, and the end value is that of all batches."""
    metric = make_metric()
    for preds, target in BATCHES:
        assert_same(metric(preds, target), by_function(metric, preds, target))
    assert metric.update_count == len(BATCHES)
    assert_same(metric.compute(), by_function(metric, *join(BATCHES)))
    updated(metric, [make_batch("NNA", 9)])
    assert_same(metric.compute(), by_function(metric, *join([*BATCHES, make_batch("NNA", 9)])))


def test_result_rides_on_compute(num_calls: list[int]) -> None:
    """`compute` and `result` share one computation until data comes in."""
    metric = updated(make_aupimo())
    value = metric.compute()
    result = metric.result()
    assert metric.result() is result
    assert len(num_calls) == 1
    assert result.mean == pytest.approx(float(value), abs=1e-7)  # the value is rounded to float32
    updated(metric, [make_batch("NNA", 9)])
    assert metric.result().mean != result.mean
    assert_same(metric.compute(), by_function(metric, *join([*BATCHES, make_batch("NNA", 9)])))
    assert len(num_calls) == 2
    metric(*BATCHES[0])
    assert len(metric.result().aupimos) == sum(len(preds) for preds, _ in BATCHES) + 3 + len(BATCHES[0][0])


def test_result_survives_copies() -> None:
    """A copy of a computed metric has its result."""
    metric = updated(make_aupimo())
    expected = metric.result()
    for copy_of in COPIES.values():
        assert_same(copy_of(metric).result().aupimos, expected.aupimos)


def test_result_after_a_cast_of_a_computed_metric() -> None:
    """A cast drops or keeps the value, but never leaves one that no result belongs to."""
    metric = updated(make_aupimo())
    expected = metric.compute()
    metric.set_dtype(torch.float16)
    assert_same(metric.compute(), expected)
    assert metric.result().mean == pytest.approx(float(expected), abs=1e-7)  # the value is rounded to float32


def test_cache_can_be_switched_off(num_calls: list[int]) -> None:
    """`compute_with_cache=False` computes each time, and gives the same."""
    metric = updated(make_aupimo(compute_with_cache=False))
    assert_same(metric.compute(), metric.compute())
    assert metric.result().mean == pytest.approx(float(metric.compute()), abs=1e-7)  # the value is rounded to float32
    assert len(num_calls) == 4


@each_variant
@pytest.mark.parametrize("form", ["metric", "dict"])
@pytest.mark.parametrize("own", ["nothing", "updated", "computed"])
def test_merged_metrics_are_as_good_as_one(make_metric: MakeMetric, form: str, own: str) -> None:
    """Merging gives the value of the other's and then the own images, no cached one, and no false warning."""
    source, metric = updated(make_metric(), BATCHES[:2]), make_metric()
    own_batches = [] if own == "nothing" else BATCHES[2:]
    updated(metric, own_batches)
    if own == "computed":
        metric.compute()
    metric.merge_state(source if form == "metric" else source.metric_state)
    joint = by_function(metric, *join([*BATCHES[:2], *own_batches]))
    assert_same(metric.compute(), joint)
    source.reset()
    metric._computed = None
    assert_same(metric.compute(), joint)


@pytest.mark.parametrize(
    "other",
    [
        make_aupimo(normal_buffer=None),
        make_aupimo(normal_buffer=2**16 + 1),
        AUPIMO(fpr_bounds=(FPR_BOUNDS[0], FPR_BOUNDS[1] * (1 + 1e-12))),
        PIMO(),
    ],
    ids=["keeps all", "other buffer", "other upper bound", "other class"],
)
@pytest.mark.parametrize("form", ["metric", "dict"])
def test_merge_refuses_other_settings(other: Any, form: str) -> None:
    """States that were kept by other settings are refused before any is merged."""
    metric = updated(make_aupimo())
    before = copy.deepcopy(metric.metric_state)
    updated(other)
    with pytest.raises(ValueError, match="Expected"):
        metric.merge_state(other if form == "metric" else other.metric_state)
    assert_same(metric.metric_state, before)


def test_merge_refuses_an_incomplete_state() -> None:
    """A dict that lacks a state is refused before any of it is merged."""
    metric = updated(make_aupimo())
    before = copy.deepcopy(metric.metric_state)
    state = updated(make_aupimo()).metric_state
    del state["aupimo_config"]
    with pytest.raises(ValueError, match="aupimo_config"):
        metric.merge_state(state)
    assert_same(metric.metric_state, before)


def test_merge_of_metrics_without_data() -> None:
    """Metrics of ranks or folds that saw nothing merge as well."""
    metric = make_aupimo()
    metric.merge_state(make_aupimo())
    with pytest.warns(UserWarning, match="there is no image"):
        assert metric.compute().isnan()
    updated(metric).merge_state(make_aupimo())
    assert_same(metric.compute(), by_function(metric, *join(BATCHES)))


def test_merge_allows_settings_of_compute() -> None:
    """Metrics that differ only in what `compute` reads keep the same scores and merge."""
    metric = updated(make_aupimo(), BATCHES[2:])
    other = AUPIMO(300, (1e-4, FPR_BOUNDS[1]), reduction="none", shared_fpr="max")
    metric.merge_state(updated(other, BATCHES[:2]))
    assert_same(metric.compute(), by_function(metric, *join(BATCHES)))


UNDEFINED = {
    "an empty batch": ("", "there is no image"),
    "only normal images": ("NNN", "is anomalous"),
    "only anomalous images": ("AA", "is normal"),
}


@each_variant
@pytest.mark.parametrize(("classes", "reason"), UNDEFINED.values(), ids=UNDEFINED.keys())
@pytest.mark.parametrize("method", ["update", "forward"])
def test_undefined_data_is_nan_and_warns(make_metric: MakeMetric, classes: str, reason: str, method: str) -> None:
    """Data without a score gives NaN and a warning that names the cause, and later updates are not lost."""
    metric = make_metric()
    if method == "forward":
        with pytest.warns(UserWarning, match=f"undefined.*{reason}"):
            metric(*make_batch(classes, 0))
    else:
        metric.update(*make_batch(classes, 0))
    with pytest.warns(UserWarning, match=f"undefined.*{reason}"):
        value = metric.compute()
    if isinstance(value, PIMOResult):
        num_levels = metric.num_thresholds or 1000
        assert value.per_image_tprs.shape == (len(classes), num_levels)
        assert value.per_image_tprs.isnan().all()
        assert bool(value.shared_fpr.isnan().all()) == ("N" not in classes)
    else:
        assert value.shape == (() if metric.reduction == "mean" else (len(classes),))
        assert value.isnan().all()
        assert metric.result().aupimos.shape == (len(classes),)
    updated(metric)
    assert_same(metric.compute(), by_function(metric, *join([make_batch(classes, 0), *BATCHES])))


@each_variant
def test_forward_keeps_the_past_when_a_batch_is_undefined(make_metric: MakeMetric) -> None:
    """A batch without a score of its own, in the midst of `forward` calls, loses nothing."""
    metric, normal = make_metric(), make_batch("NN", 9)
    metric(*BATCHES[0])
    with pytest.warns(UserWarning, match="none of the 2 images is anomalous"):
        metric(*normal)
    metric(*BATCHES[1])
    assert_same(metric.compute(), by_function(metric, *join([BATCHES[0], normal, BATCHES[1]])))


def test_shape_of_one_score_an_image() -> None:
    """`reduction="none"` gives (N,) with NaN for normal images, and () for a single image."""
    metric = updated(make_aupimo(reduction="none"))
    scores = metric.compute()
    assert (scores.shape, scores.dtype) == ((10,), torch.float32)
    assert_same(scores.isnan(), ~join(BATCHES)[1].any(2).any(1))
    metric.reset()
    metric.update(*make_batch("A", 0))
    with pytest.warns(UserWarning, match="none of the 1 images is normal"):
        assert metric.compute().shape == ()


def test_ids_order_images_and_count_them_once() -> None:
    """Scores come in the order of the ids, whatever the order of the updates, and an image given twice counts once."""
    preds, target = join(BATCHES)
    metric = make_aupimo(reduction="none")
    for ids in ([7, 3, 9], [0, 1, 2, 3], [8, 5, 4], [6], [7]):
        metric.update(preds[ids], target[ids], image_ids=torch.tensor(ids))
    assert_same(metric.compute(), by_function(metric, preds, target))
    assert_same(metric.result().image_ids, torch.arange(10))


@pytest.mark.parametrize(
    "ids", [[0, 1], (0, 1), torch.tensor([0, 1]), torch.tensor([0, 1], dtype=torch.uint8)], ids=type
)
def test_forms_of_ids(ids: Any) -> None:
    """Ids may be a list, a tuple or a tensor of any integer dtype."""
    preds, target = make_batch("NA", 0)
    metric = make_aupimo(reduction="none")
    metric.update(preds.flip(0), target.flip(0), image_ids=ids[::-1] if isinstance(ids, list | tuple) else ids.flip(0))
    assert_same(metric.compute(), by_function(metric, preds, target))
    assert metric.aupimo_image_ids[0].dtype == torch.int64


def test_images_without_ids_follow_those_with() -> None:
    """Images without ids all count, and stand behind the others in the order of their updates."""
    preds, target = join(BATCHES)
    metric = make_aupimo(reduction="none")
    metric.update(preds[6:8], target[6:8])
    metric.update(preds[:6].flip(0), target[:6].flip(0), image_ids=range(5, -1, -1))
    metric.update(preds[8:], target[8:])
    metric.update(preds[:2], target[:2], image_ids=[0, 1])
    assert_same(metric.compute(), by_function(metric, preds, target))
    assert metric.result().image_ids.tolist() == [0, 1, 2, 3, 4, 5, -1, -1, -1, -1]


def test_largest_id_is_an_id() -> None:
    """The largest integer is an id like any other, also behind an image without an id."""
    preds, target = make_batch("NAA", 0)
    metric = make_aupimo(reduction="none")
    metric.update(preds[2:], target[2:])
    metric.update(preds[:2], target[:2], image_ids=[0, 2**63 - 1])
    metric.update(preds[1:2], target[1:2], image_ids=[2**63 - 1])
    assert_same(metric.compute(), by_function(metric, preds, target))
    assert metric.result().image_ids.tolist() == [0, 2**63 - 1, -1]


@pytest.mark.parametrize("classes", ["NA", "AA", "NN"])
def test_ids_of_different_images_conflict(classes: str) -> None:
    """If two images have one id the first counts, and a warning tells of it."""
    preds, target = make_batch("NA", 0)
    other_preds, other_target = make_batch(classes, 5)
    metric = make_aupimo()
    metric.update(preds, target, image_ids=[0, 1])
    metric.update(3 * other_preds, other_target, image_ids=[0, 1])
    with pytest.warns(UserWarning, match="under the same id, for 2 of the `image_ids`"):
        assert_same(metric.compute(), by_function(metric, preds, target))


STREAM = [(torch.full((1, *preds.shape[1:]), 5.0) + preds[:1], target[:1]) for preds, target in [make_batch("N", 50)]]
STREAM += [make_batch("N", 51 + i) for i in range(24)]
DEFECTS = make_batch("AAA", 80)


@pytest.mark.parametrize("normal_buffer", [1, 16, 100, 1000])
@pytest.mark.parametrize("false_alarms_at", ["start", "middle", "end"])
@pytest.mark.parametrize("images_per_batch", [1, 5])
@pytest.mark.parametrize("shared_fpr", ["mean", "max"])
def test_buffer_is_exact_or_says_so(
    normal_buffer: int, false_alarms_at: str, images_per_batch: int, shared_fpr: str
) -> None:
    """With an image full of false alarms anywhere, scores are exact, or lower bounds with a warning."""
    images = {"start": STREAM, "middle": STREAM[1:13] + STREAM[:1] + STREAM[13:], "end": STREAM[1:] + STREAM[:1]}
    order = images[false_alarms_at]
    # bounds at which the image of false alarms decides, or what lies below it
    for fpr_bounds in ((1e-3, 0.03), (0.03, 0.06)):
        metric = AUPIMO(fpr_bounds=fpr_bounds, shared_fpr=shared_fpr, normal_buffer=normal_buffer)
        for start in range(0, len(order), images_per_batch):
            metric.update(*join(order[start : start + images_per_batch]))
        metric.update(*DEFECTS)
        exact = AUPIMO(fpr_bounds=fpr_bounds, reduction="none", shared_fpr=shared_fpr, normal_buffer=None)
        expected = updated(exact, [*order, DEFECTS]).compute()[-3:].double()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            scores = metric.result().aupimos[-3:]
        # the reference is rounded to float32; sums of the same terms in another order
        if caught:
            assert [("AUPIMO is a lower bound" in str(warning.message)) for warning in caught] == [True]
            assert (scores <= expected + 1e-7).all()
        else:
            assert_same(scores, expected, atol=1e-7)


def worst_order() -> list[Any]:
    """Batches of which the first, two of 250 normal images, holds all the highest normal scores; the last has defects.

    A buffer keeps the top of the first batch, and of the other normal images nothing.
    """
    high_preds, high_target = make_batch("NN", 1)
    preds, target = make_batch("AAA", 3)
    preds = torch.stack([preds[0] + 10, preds[1] + 20, preds[2] + 10 * (preds[2] > 2)])  # 10: above all but the first
    return [(high_preds + 20, high_target), *[make_batch("NN", 2)] * 124, (preds, target)]


def with_a_floor(floor_by: str, **settings: Any) -> AUPIMO:
    """Return a metric that has seen the worst order of the data and chosen a floor in one of three ways."""
    images = worst_order()
    if floor_by == "first batch":
        return updated(make_aupimo(normal_buffer=1, **settings), images)
    if floor_by == "pruning":
        one_by_one = [(maps[None], masks[None]) for batch in images for maps, masks in zip(*batch, strict=True)]
        # half an image, which is then kept unpruned
        return updated(make_aupimo(normal_buffer=500, **settings), one_by_one)
    metric = updated(make_aupimo(normal_buffer=1, **settings), images[:1])
    metric.merge_state(updated(make_aupimo(normal_buffer=1, **settings), [join(images[1:])]))
    return metric


@pytest.mark.parametrize("floor_by", ["first batch", "pruning", "merge"])
def test_lower_bound_occurs_and_its_warning_bounds_the_error(floor_by: str) -> None:
    """The worst order of the data does lose scores, none is overstated, and the warning says by how much at most."""
    metric = with_a_floor(floor_by)
    with pytest.warns(UserWarning, match="AUPIMO is a lower bound.*A score may be up to") as caught:
        scores = metric.result().aupimos
    scores = scores[~scores.isnan()]
    missing = float(str(caught[0].message).split("may be up to ")[1].split(" ")[0])
    expected = updated(make_aupimo(normal_buffer=None), worst_order()).result().aupimos[-3:]
    assert (scores <= expected).all()
    assert (scores < expected - 0.01).any()
    # the number in the warning has three digits
    assert (expected - scores <= missing * 1.005).all()


@pytest.mark.parametrize("num_thresholds", [None, 20_000])
@pytest.mark.parametrize("floor_by", ["first batch", "pruning", "merge"])
def test_maximum_is_exact_in_the_worst_order(floor_by: str, num_thresholds: int | None) -> None:
    """What decided the maximum once is not made less by images that follow: the smallest buffer loses nothing."""
    settings = {"num_thresholds": num_thresholds, "reduction": "none", "shared_fpr": "max"}
    metric = with_a_floor(floor_by, **settings)
    assert metric.aupimo_floor > -torch.inf
    exact = updated(make_aupimo(normal_buffer=None, **settings), worst_order()).result()
    result = metric.result()
    scores, expected = (aupimos[~aupimos.isnan()] for aupimos in (result.aupimos, exact.aupimos))
    assert_same(scores, expected)
    assert result.threshold_bounds == exact.threshold_bounds
    assert (scores < 0.99).any()


@pytest.mark.parametrize("seed", range(3))
def test_large_buffer_is_exact_in_any_order(seed: int) -> None:
    """A buffer of the top `U * P` scores is enough, wherever in the stream these lie."""
    images = [(preds + 0.3 * i, target) for i, (preds, target) in enumerate(STREAM)]
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed)).tolist()
    if seed == 0:
        order.sort(reverse=True)  # the highest scores first
    num_top_scores = int(FPR_BOUNDS[1] * len(images) * images[0][0].numel())
    metric = make_aupimo(normal_buffer=num_top_scores + 1)
    updated(metric, [*[images[i] for i in order], DEFECTS])
    assert_same(metric.compute(), by_function(metric, *join([*images, DEFECTS])), atol=1e-7)  # order of summation


def test_state_stays_small() -> None:
    """While normal images stream in, the kept normal scores stay below a few times the buffer."""
    normal_buffer = 200
    metric = AUPIMO(fpr_bounds=(1e-5, 1e-4), normal_buffer=normal_buffer)
    for seed in range(60):
        metric.update(*make_batch("N", seed))
        # at most what the last pruning left, as much again twice before the next, and what one image may add
        assert num_normal_scores(metric) <= 4 * normal_buffer
    assert len(torch.cat(metric.aupimo_num_pixels)) == 60


@pytest.mark.parametrize("method", ["update", "forward"])
@pytest.mark.parametrize("num_thresholds", [None, 5000])
def test_pruned_stream_is_as_good_as_all(method: str, num_thresholds: int | None) -> None:
    """A stream that is pruned many times scores as all of its maps at once."""
    stream = [make_batch("NANN", seed) for seed in range(20)]
    metric = make_aupimo(num_thresholds, reduction="none", normal_buffer=16)
    for preds, target in stream:
        getattr(metric, method)(preds, target)
    num_normal_pixels = 60 * stream[0][0][0].numel()
    assert num_normal_scores(metric) < num_normal_pixels / 2
    assert_same(metric.compute(), by_function(metric, *join(stream)), atol=1e-7)  # order of summation


@pytest.fixture
def axis() -> Iterator[Any]:
    """A matplotlib axis without a screen; closes all figures afterwards."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("Agg")
    yield pyplot.subplots()[1]
    pyplot.close("all")


@pytest.mark.parametrize("value", ["computed", "scalar", "list of scalars", "NaN"])
def test_plot_draws_any_value(value: str, axis: Any) -> None:
    """`plot` shows the own value, a given one, and one for each step."""
    scores = torch.tensor([0.2, torch.nan, 0.7])
    values = {"computed": None, "scalar": scores[0], "list of scalars": [scores[0], scores[2]], "NaN": scores[1]}
    metric = updated(make_aupimo())
    figure, new_axis = metric.plot(values[value])
    assert new_axis.get_figure() is figure
    assert new_axis.get_ylim() == pytest.approx((-0.1, 1.1), abs=0.2)  # margins are a matter of taste
    assert metric.plot(values[value], ax=axis) == (axis.get_figure(), axis)
    assert axis.lines


def test_plot_of_each_image_is_the_distribution(axis: Any) -> None:
    """With `reduction="none"` the points are the own scores, given ones, or those of each step in turn."""
    metric = updated(make_aupimo(reduction="none"))
    first, second = torch.tensor([0.2, torch.nan, 0.7]), torch.tensor(0.5)  # of a single image the score is 0-d
    for value, expected in ((None, [metric.compute()]), (first, [first]), ([first, second], [first, second])):
        axis.clear()
        assert metric.plot(value, axis) == (axis.get_figure(), axis)
        drawn = [points.get_offsets()[:, 0] for points in axis.collections]
        for scores, points in zip(expected, drawn, strict=True):
            assert sorted(points) == pytest.approx(sorted(scores[~scores.isnan()].reshape(-1).tolist()))
    assert [label.get_text().splitlines()[0] for label in axis.get_yticklabels()] == ["step 0", "step 1"]


def test_plot_of_curves(axis: Any) -> None:
    """`PIMO.plot` draws the own curves or given ones, and with scores the range that these average over."""
    metric = updated(PIMO())
    figure, own = metric.plot()
    assert own.get_figure() is figure
    result = updated(make_aupimo()).result()
    assert metric.plot(metric.compute(), axis, result) == (axis.get_figure(), axis)
    assert len(axis.patches) == 1
    assert axis.get_legend().get_texts()[0].get_text() == "AUPIMO averages here: FPR 0.001 to 0.01"


@pytest.mark.parametrize("shared_fpr", ["mean", "max"])
@pytest.mark.parametrize("buffer", [None, 2**16, 100])
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
    assert float(curves.shared_fpr[-1]) == pytest.approx(
        1 / (normal.shape[1] if shared_fpr == "max" else normal.numel())
    )
    assert (float(curves.shared_fpr[0]) == 1) == (buffer != 100)
    assert float(curves.shared_fpr[0]) >= 10 * FPR_BOUNDS[1]
    assert int((curves.thresholds == thresholds[0]).sum()) < 5  # no points are wasted on what is not known
    assert not metric._is_synced


@pytest.mark.parametrize(("num_thresholds", "num_levels"), [(None, 1000), (7, 7)])
def test_curves_have_their_shapes(num_thresholds: int | None, num_levels: int) -> None:
    """Curves are a named tuple of float32: ascending thresholds, falling rates, NaN for normal images."""
    curves = updated(PIMO(num_thresholds)).compute()
    assert isinstance(curves, PIMOResult)
    assert [part.dtype for part in curves] == [torch.float32] * 3
    assert [tuple(part.shape) for part in curves] == [(num_levels,), (num_levels,), (10, num_levels)]
    is_anomalous = join(BATCHES)[1].any(2).any(1)
    assert curves.per_image_tprs[~is_anomalous].isnan().all()
    assert (curves.thresholds.diff() >= 0).all()
    for rates in (curves.shared_fpr[None], curves.per_image_tprs[is_anomalous]):
        assert (rates.diff(dim=1) <= 0).all()
        assert ((rates >= 0) & (rates <= 1)).all()
    assert curves.shared_fpr[0] == 1


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
