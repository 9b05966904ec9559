"""`vad_metrics` and `PerCategory`: the numbers of a paper are those of separate metrics, category by category."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from helpers import (
    COPIES,
    FPR_BOUNDS,
    FUNCTIONS,
    assert_same,
    caught_texts,
    make_aupimo,
    make_batch,
    make_ragged,
    updated,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryAUROC, BinaryConfusionMatrix
from torchmetrics.wrappers import MetricTracker

from aupimo_torchmetrics import AUPIMO, PIMO, ImageAUROC, PerCategory, PixelAUROC, PixelF1Max, vad_metrics

CLASSES = (AUPIMO, *FUNCTIONS)
NAMES = [each.__name__ for each in CLASSES]
CATEGORIES = ("bottle", "cable", "M 3")
Labelled = tuple[Any, Any, list[str]]
"""Maps, masks and the category of each image."""

pytestmark = pytest.mark.filterwarnings("ignore:.* is uncertain:UserWarning")  # of few pixels


def make_vad(**others: Any) -> MetricCollection:
    """All metrics, with bounds that few images resolve."""
    return vad_metrics(fpr_bounds=FPR_BOUNDS, **others)


def separate(num_bins: int | None = None, image_score: str = "max", **others: Any) -> dict[str, Any]:
    """The same metrics, one by one."""
    metrics: list[Any] = [make_aupimo(**others)]
    metrics += [each(num_bins=num_bins, **others) for each in CLASSES[1:5]]
    metrics += [each(image_score, **others) for each in CLASSES[5:]]
    return {type(each).__name__: each for each in metrics}


def label(batch: tuple[Any, Any], categories: str) -> Labelled:
    """Give each image of a batch a category by its first letter."""
    return *batch, [next(each for each in CATEGORIES if each[0] == letter) for letter in categories]


LABELLED = [
    label(make_batch("NANA", 0), "bcbc"),
    label(make_batch("NNAA", 1), "ccbb"),
    label(make_batch("ANNA", 2), "MMcb"),
    label(make_ragged("NA", 3), "cb"),
]


def updated_by(metric: Any, batches: Sequence[Labelled] = LABELLED) -> Any:
    """Return the metric after an update with each batch."""
    for preds, target, categories in batches:
        metric.update(preds, target, categories=categories)
    return metric


def expected(
    batches: Sequence[Labelled] = LABELLED, metrics: Callable[[], dict[str, Any]] = separate
) -> dict[str, Any]:
    """Values of separate metrics, one for each category, of its images one after the other, and their means."""
    images = [image for batch in batches for image in zip(*batch, strict=True)]
    values = {}
    with caught_texts():
        for category in CATEGORIES:
            for name, metric in metrics().items():
                for preds, target, _ in (image for image in images if image[2] == category):
                    metric.update(preds[None], target[None])
                values[f"{category}/{name}"] = metric.compute()
    for name in metrics():
        known = [values[f"{category}/{name}"] for category in CATEGORIES]
        known = [value for value in known if not value.isnan()]
        values[f"mean/{name}"] = torch.stack(known).mean() if known else torch.tensor(math.nan)
    return values


@pytest.mark.parametrize(("num_bins", "image_score"), [(None, "top_5%"), (2**12, "max")])
def test_vad_metrics_are_the_separate_metrics(num_bins: int | None, image_score: str) -> None:
    """Each value is that of the metric alone to the last bit, whatever came before: updates, forward, reset, a copy."""
    settings_of_both = {"num_bins": num_bins, "image_score": image_score, "ignore_index": 7}
    collection, alone = make_vad(**settings_of_both, prefix="val/"), separate(**settings_of_both)
    assert list(collection) == [f"val/{name}" for name in NAMES]

    def both(batches: Sequence[tuple[Any, Any]]) -> None:
        updated(collection, list(batches))
        for metric in alone.values():
            updated(metric, list(batches))
        assert_same(collection.compute(), {f"val/{name}": metric.compute() for name, metric in alone.items()})

    both([make_batch("NANA", 0)])
    both([make_batch("NNA", 1), make_ragged("NA", 2)])
    one = make_batch("NAAN", 3)
    assert_same(collection(*one), {f"val/{name}": metric(*one) for name, metric in alone.items()})
    both([make_batch("NA", 4)])
    collection = pickle.loads(pickle.dumps(collection)).clone()  # noqa: S301
    both([make_batch("NA", 5)])
    collection.reset()
    for metric in alone.values():
        metric.reset()
    both([make_batch("NNAA", 6)])
    assert len(collection.compute_groups) == 3


def test_vad_metrics_keep_states_once_from_the_first_update() -> None:
    """No state is there twice, and after the first batch, too, only one metric of a group is updated."""
    collection = updated(make_vad(), [make_batch("NANA", 0)])
    members = dict(collection.items(copy_state=False))
    for group in collection.compute_groups.values():
        leader, *others = (members[name] for name in group)
        assert all(
            member.metric_state[name] is state for member in others for name, state in leader.metric_state.items()
        )
    ids = ["b", "a", "d", "c"]
    collection.update(*make_batch("NANA", 1), image_ids=ids)
    assert members["AUPIMO"].result().paths == ["a", "b", "c", "d", "", "", "", ""]


@settings(max_examples=settings.default.max_examples // 5)
@given(
    kinds=st.lists(st.tuples(st.sampled_from("NA"), st.sampled_from("bcM")), min_size=1, max_size=10),
    cut=st.integers(0, 10),
    seed=st.integers(0, 99),
    is_ragged=st.booleans(),
    by_forward=st.booleans(),
)
def test_values_are_those_of_separate_metrics(
    kinds: list[tuple[str, str]], cut: int, seed: int, is_ragged: bool, by_forward: bool
) -> None:
    """However images of categories are mixed and cut into batches, values are those of separate metrics."""
    classes, categories = map("".join, zip(*kinds, strict=True))
    preds, target, labels = label((make_ragged if is_ragged else make_batch)(classes, seed), categories)
    batches = [(preds[part], target[part], labels[part]) for part in (slice(cut), slice(cut, None))]
    metric = PerCategory(make_vad(), CATEGORIES)
    with caught_texts():
        if by_forward:
            of_batches = [metric(maps, masks, categories=names) for maps, masks, names in batches]
            assert_same(of_batches, [expected([batch]) for batch in batches])
        else:
            updated_by(metric, batches)
        assert_same(metric.compute(), expected([(preds, target, labels)]), atol=1e-7)  # order of summation in means


def test_names_and_values() -> None:
    """Values are flat: all categories in their order, then the means, with the prefix of the collection in front."""
    metric = updated_by(PerCategory(make_vad(prefix="val/", postfix="!"), CATEGORIES))
    names = [f"val/{category}/{name}!" for category in (*CATEGORIES, "mean") for name in NAMES]
    assert list(metric.compute()) == list(metric) == names
    wanted = expected()
    assert_same(metric.compute(), {f"val/{name}!": value for name, value in wanted.items()})
    assert next(iter(metric.clone(prefix="test/").compute())) == "test/bottle/AUPIMO!"
    alone = updated_by(PerCategory(PixelAUROC(), CATEGORIES))
    assert_same(alone.compute(), {name: value for name, value in wanted.items() if name.endswith("/PixelAUROC")})
    assert isinstance(metric["val/cable/PixelF1Max!"], PixelF1Max)
    assert_same(metric["val/cable/PixelF1Max!"].compute(), wanted["cable/PixelF1Max"])


def test_any_form_of_a_batch() -> None:
    """Arrays, lists, a tensor with a channel, one text for all and metrics of others are as good."""
    preds, target, categories = label(make_batch("NANA", 0), "bccb")
    bottle = updated(PixelAUROC(), [(preds[[0, 3]], target[[0, 3]])]).compute()
    channel = preds[:, None], target.long()
    arrays = preds.numpy(), target.numpy()
    for maps, masks in ((preds, target), arrays, [[*each] for each in arrays], channel, ([*preds], [*target])):
        metric = PerCategory(PixelAUROC(), CATEGORIES)
        metric.update(maps, masks, categories=tuple(categories), image_ids=range(4))
        assert_same(metric["bottle/PixelAUROC"].compute(), bottle)
    metric = PerCategory(MetricCollection([PixelAUROC(), BinaryAUROC()]), CATEGORIES)
    metric.update(preds, target, categories="cable")
    with pytest.warns(UserWarning, match="PerCategory has no score"):
        values = metric.compute()
    for each in (PixelAUROC(), BinaryAUROC()):
        assert_same(values[f"cable/{type(each).__name__}"], updated(each, [(preds, target)]).compute())


def test_ids_are_those_of_a_category() -> None:
    """An image that comes twice counts once, and the same id in two categories is of two images."""
    ids = [["0", "1", "2", "0"], ["3", "4", "3", "4"]]
    metric = PerCategory(make_vad(), CATEGORIES)
    for (preds, target, categories), names in zip(LABELLED[:2], ids, strict=True):
        for _ in range(2):
            metric.update(preds, target, categories=categories, image_ids=names)
    with pytest.warns(UserWarning, match="PerCategory has no score"):
        results = metric.results()
    assert {name: result.paths for name, result in results.items()} == {
        "bottle/AUPIMO": ["0", "2", "3", "4"],
        "cable/AUPIMO": ["0", "1", "3", "4"],
        "M 3/AUPIMO": None,
    }


def test_one_warning_names_what_has_no_score() -> None:
    """One warning names the categories without a score, of which metrics, and why; means are of the others."""
    metric = PerCategory(make_vad(), CATEGORIES)
    metric.update(*make_batch("NANN", 0), categories=["bottle", "bottle", "cable", "cable"])
    with pytest.warns(UserWarning, match="PerCategory has no score") as caught:
        values = metric.compute()
    text = str(caught[0].message)
    assert len(caught) == 1
    assert "for cable, M 3; `mean/...` is the mean over the categories with a score. " in text
    assert "Of cable: AUPIMO is undefined (NaN): none of the 2 images is anomalous. Add images" in text
    assert_same(values["mean/AUPIMO"], values["bottle/AUPIMO"])
    assert_same(metric.compute(), values)  # it is said once: a warning is an error
    assert metric.results()["cable/AUPIMO"].aupimos.isnan().all()
    with pytest.warns(UserWarning, match=r"Of bottle: AUPIMO is undefined \(NaN\): there is no image") as caught:
        assert all(value.isnan() for value in PerCategory(make_vad(), CATEGORIES).compute().values())
    assert len(caught) == 1
    with pytest.warns(UserWarning, match="This is of a single batch") as caught:
        metric(*make_batch("NN", 0), categories=["cable", "cable"])
    assert len(caught) == 1
    metric(*make_batch("NN", 0), categories=["cable", "cable"])  # further batches are not mentioned


@pytest.mark.filterwarnings("default:.* is uncertain:UserWarning")
def test_an_uncertain_score_is_told_once_with_its_categories() -> None:
    """A warning of a metric names the category, and others in which the like of it is so."""
    metric = updated_by(PerCategory(AUPIMO(), CATEGORIES))
    with pytest.warns(UserWarning, match="^AUPIMO is uncertain") as caught:
        metric.compute()
    assert len(caught) == 1
    assert str(caught[0].message).endswith("This is of bottle, and similarly of cable, M 3.")


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"categories": ["bottle", "wood"]}, "bottle, cable, M 3, but got 'wood'"),
    ({"categories": ["bottle"]}, "of as many images, but got 2, 2 and 1"),
    ({"categories": [*CATEGORIES]}, "of as many images, but got 2, 2 and 3"),
    ({"target": torch.zeros(1, 25, 40)}, "of as many images, but got 2, 1 and 2"),
    ({"image_ids": ["a"]}, "`image_ids` to hold an id for each of 2 images, but got 1"),
    ({"preds": torch.tensor([0.0, math.nan])[:, None, None].expand(2, 25, 40)}, "NaN"),
]


@pytest.mark.parametrize("by_forward", [False, True])
def test_a_rejected_batch_leaves_nothing(by_forward: bool) -> None:
    """An unknown category, another number of anything, or bad data in any category: an error, and nothing is kept."""
    metric = updated_by(PerCategory(make_vad(), CATEGORIES))
    before = copy.deepcopy(metric.metric_state)
    preds, target = make_batch("NA", 9)
    for changed, match in WRONG:
        batch = {"preds": preds, "target": target, "categories": ["bottle", "cable"], **changed}
        with pytest.raises(ValueError, match=match):
            metric(**batch) if by_forward else metric.update(**batch)
        assert_same(metric.metric_state, before)
    assert_same(metric.compute(), expected())


def test_wrong_settings_are_errors() -> None:
    """What is no metric, no category, or computes several numbers is named when it is made."""
    for categories in ([], "bottle", [1]):
        with pytest.raises(TypeError, match="Expected `categories` to be a list of texts"):
            PerCategory(PixelAUROC(), categories)
    for categories in (["a", "a"], ["mean"], [""], ["M2.5"]):
        with pytest.raises(ValueError, match="Expected `categories` to be different texts without a dot, none of them"):
            PerCategory(PixelAUROC(), categories)
    with pytest.raises(TypeError, match="Expected `metric` to be a metric or a collection, but got str"):
        PerCategory("AUPIMO", CATEGORIES)
    for several in (PIMO(), AUPIMO(reduction="none")):
        with pytest.raises(ValueError, match="Expected metrics that compute one number, but got"):
            PerCategory(several, CATEGORIES)
    with pytest.raises(TypeError, match="Expected all metrics when a `PerCategory` is made"):
        PerCategory(PixelAUROC(), CATEGORIES).add_metrics(PixelF1Max())
    matrix = PerCategory(BinaryConfusionMatrix(), CATEGORIES)
    matrix.update(*make_batch("NA", 0), categories=["bottle", "bottle"])
    with pytest.raises(ValueError, match=r"one number, but bottle/BinaryConfusionMatrix computes a tensor \(2, 2\)"):
        matrix.compute()
    metric = PerCategory(PixelAUROC(), CATEGORIES)
    with pytest.raises(TypeError, match="Expected an update of the whole `PerCategory`"):
        dict(metric.items())["mean/PixelAUROC"].update()


def test_life_of_per_category() -> None:
    """Copies, checkpoints, merged states, casts, moves, reset and a tracker give the values of separate metrics."""
    make = lambda: PerCategory(make_vad(), CATEGORIES)  # noqa: E731
    metric = updated_by(make())
    wanted = expected()
    for copied in (lambda each: each.clone(), *[*COPIES.values()][1:]):
        twin = copied(metric)
        assert_same(twin.compute(), wanted)
        updated_by(twin, LABELLED[:1])
        assert_same(twin.compute(), expected([*LABELLED, LABELLED[0]]))
        assert_same(metric.compute(), wanted)
    assert metric.state_dict() == {}
    loaded = nn.ModuleDict({"metrics": make()})
    saved = nn.ModuleDict({"metrics": metric})
    for each in (metric, loaded["metrics"]):
        each.persistent(mode=True)
    loaded.load_state_dict(pickle.loads(pickle.dumps(saved.state_dict())))  # noqa: S301
    assert_same(loaded["metrics"].compute(), wanted)
    assert_same(updated_by(loaded["metrics"], LABELLED[:1]).compute(), expected([*LABELLED, LABELLED[0]]))
    for states in (lambda each: each, lambda each: pickle.loads(pickle.dumps(each.metric_state))):  # noqa: S301
        merged = updated_by(make(), LABELLED[2:])
        merged.merge_state(states(updated_by(make(), LABELLED[:2])))
        assert_same(merged.compute(), wanted)
        assert_same(updated_by(merged, LABELLED[:1]).compute(), expected([*LABELLED, LABELLED[0]]))
    with pytest.raises(ValueError, match=r"but these are in one only: .*, wood/AUPIMO"):
        metric.merge_state(PerCategory(make_vad(), [*CATEGORIES[:2], "wood"]))
    with pytest.raises(ValueError, match="the same `normal_buffer`, upper FPR bound and `ignore_index`"):
        metric.merge_state(PerCategory(make_vad(ignore_index=9), CATEGORIES))
    for changed in (metric.half(), metric.double(), metric.set_dtype(torch.bfloat16), metric.to("cpu")):
        assert_same(changed.compute(), wanted)
    metric.reset()
    assert_same(updated_by(metric, LABELLED[:3]).compute(), expected(LABELLED[:3]))
    fig_ax = metric.plot(together=True)
    assert fig_ax is not None


@pytest.mark.filterwarnings("ignore:The default value for `maximize`:FutureWarning")  # torchmetrics before 1.7
def test_a_tracker_finds_the_best() -> None:
    """`MetricTracker` tracks all values, and knows the best of each."""
    tracker, epochs = MetricTracker(PerCategory(make_vad(), CATEGORIES)), (LABELLED[:3], LABELLED)
    for batches in epochs:
        tracker.increment()
        updated_by(tracker, batches)
    wanted = [expected(batches) for batches in epochs]
    best, steps = tracker.best_metric(return_step=True)
    for name in best:
        values = [float(each[name]) for each in wanted]
        assert (best[name], steps[name]) == (max(values), values.index(max(values)))
    assert_same(tracker.compute_all(), {name: torch.stack([each[name] for each in wanted]) for name in wanted[0]})


def lose_a_peer(*_: Any, **__: Any) -> list[Any]:
    """Gather as where another process has gone."""
    raise RuntimeError("Connection closed by peer")


@pytest.mark.parametrize("batches", [[], LABELLED[:1]])
def test_a_lost_peer_is_an_error_on_every_rank(batches: list[Labelled]) -> None:
    """Also on one without any image: a NaN there would hide that the others have stopped."""
    for metric in (make_aupimo, PixelAUROC, ImageAUROC):
        lost = metric(dist_sync_fn=lose_a_peer, distributed_available_fn=lambda: True)
        with pytest.raises(RuntimeError, match="closed by peer"):
            updated_by(PerCategory(lost, CATEGORIES), batches).compute()
