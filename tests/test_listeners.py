"""A metric tells its listeners what it has kept of each batch, once, and nobody else hears it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import COPIES, make_aupimo, make_batch, make_ragged
from torchmetrics import MetricCollection, MetricTracker

from aupimo_torchmetrics import AUPIMO, PIMO, PerCategory
from aupimo_torchmetrics.metrics import Update

pytestmark = pytest.mark.filterwarnings("ignore:AUPIMO is undefined")

BATCHES = [make_batch("NANA", 0), make_batch("AN", 1), make_batch("NNA", 2)]
ALL = [[0, 1, 2, 3], [4, 5], [6, 7, 8]]
"""Positions of the images of all batches."""


def listened(metric: Any) -> list[Update]:
    """Listen to a metric, and return the list in which all that it says will stand."""
    heard: list[Update] = []
    metric.listeners.append(heard.append)
    return heard


def hearing(**settings: Any) -> tuple[AUPIMO, list[Update]]:
    """Return a metric, and the list in which all that it says will stand."""
    metric = make_aupimo(**settings)
    return metric, listened(metric)


def positions(heard: list[Update]) -> list[list[int | None]]:
    """Return the positions in all updates."""
    return [update.indices for update in heard]


@pytest.mark.parametrize("make", [make_aupimo, PIMO])
@pytest.mark.parametrize("call", ["update", "forward", "forward with a sync"])
def test_each_batch_is_told_once(make: Any, call: str) -> None:
    """Maps and masks are those of the call, and positions go on, by `update` and by `forward` alike.

    With `dist_sync_on_step` torchmetrics updates twice in `forward`.
    """
    metric = make(dist_sync_on_step="sync" in call)
    heard = listened(metric)
    batches: list[Any] = [*BATCHES, make_ragged("NAN", 0)]  # images of different sizes are told as they came
    for maps, masks in batches:
        getattr(metric, call.split(maxsplit=1)[0])(maps, masks)
    assert positions(heard) == [*ALL, [9, 10, 11]]
    for update, (maps, masks) in zip(heard, batches, strict=True):
        assert update.preds is maps
        assert update.target is masks
        assert update.image_ids is None
    metric.reset()  # a first position of 0 means empty
    metric.update(*BATCHES[0])
    assert heard[-1].indices == ALL[0]


def test_ids_are_told_as_integers_or_texts() -> None:
    """However ids were given, they are told as plain integers or texts."""
    for ids in (torch.tensor([7, 3]), np.array([7, 3]), (np.int64(7), 3), [torch.tensor(7), torch.tensor(3)]):
        metric, heard = hearing()
        metric.update(*BATCHES[1], image_ids=ids)
        assert heard[0].image_ids == [7, 3]
        assert {type(each) for each in heard[0].image_ids} == {int}
    for names in (["a.png", "b.png"], (Path(name) for name in ("a.png", "b.png"))):
        metric, heard = hearing()
        metric.update(*BATCHES[1], image_ids=names)
        assert heard[0].image_ids == ["a.png", "b.png"]


def test_images_that_are_not_kept_have_no_position() -> None:
    """An image of which every pixel is ignored has no position, and the ids of all are told."""
    metric, heard = hearing(ignore_index=255)
    maps, masks = BATCHES[0]
    target = masks.to(torch.uint8)
    target[[0, 2]] = 255
    with pytest.warns(UserWarning, match="2 of the images were skipped"):
        metric.update(maps, target, ["a", "b", "c", "d"])
    metric.update(*make_batch("A", 1), ["e"])
    assert positions(heard) == [[None, 0, None, 1], [2]]
    assert heard[0].image_ids == ["a", "b", "c", "d"]
    with pytest.warns(UserWarning, match="2 of the images were skipped"):
        metric(maps, target)
    assert heard[-1].indices == [None, 3, None, 4]


def test_positions_do_not_depend_on_pruning() -> None:
    """Images keep their positions when scores are pruned, and when many updates are joined."""
    metric, heard = hearing(normal_buffer=10)
    maps, masks = make_batch("NA" * 150, 0)
    for i in range(300):
        metric.update(maps[i : i + 1], masks[i : i + 1])
    assert positions(heard) == [[i] for i in range(300)]


def test_what_is_refused_is_not_told() -> None:
    """A batch that raises, by `update` or by `forward`, is told to nobody, and the next one is."""
    metric = make_aupimo()
    heard, listeners = listened(metric), metric.listeners
    for call in (metric.update, metric.forward):
        with pytest.raises(ValueError, match="NaN"):
            call(torch.full((1, 4, 4), torch.nan), torch.zeros(1, 4, 4))
    metric.update(*BATCHES[0])
    assert positions(heard) == ALL[:1]
    assert metric.listeners is listeners  # a list that somebody may hold


@pytest.mark.parametrize("call", ["update", "forward"])
def test_an_error_of_a_listener_is_not_swallowed_and_costs_no_batch(call: str) -> None:
    """The error comes out of the call, and the batch is kept."""
    metric, same = make_aupimo(), make_aupimo()

    def fail(_: Update) -> None:
        raise RuntimeError("of a listener")

    metric.listeners.append(fail)
    for batch in BATCHES:
        with pytest.raises(RuntimeError, match="of a listener"):
            getattr(metric, call)(*batch)
        same.update(*batch)
    assert metric.compute() == same.compute()


@pytest.mark.parametrize("call", ["update", "forward"])
def test_metrics_of_categories_tell_when_all_have_kept_the_batch(call: str) -> None:
    """An error of one listener takes no image from any of them."""
    metric = PerCategory(make_aupimo(), ["bottle", "cable"])
    bottle, cable = (metric.members()[f"{category}/AUPIMO"].metric for category in ("bottle", "cable"))
    kept: list[int] = []

    def fail(_: Update) -> None:
        kept.extend(sum(map(len, each.aupimo_num_kept)) for each in (bottle, cable))
        raise RuntimeError("of a listener")

    bottle.listeners.append(fail)
    preds, target = make_batch("NANA", 0)
    with pytest.raises(RuntimeError, match="of a listener"):
        getattr(metric, call)(preds, target, categories=["bottle", "cable", "cable", "cable"])
    assert kept == [sum(map(len, each.aupimo_num_kept)) for each in (bottle, cable)] == [1, 3]


def tracked(metric: Any) -> Any:
    """Return the metric that a tracker makes."""
    tracker = MetricTracker(metric)
    tracker.increment()
    return tracker[-1]


MORE = {
    "copy": copy.copy,
    "collection": lambda metric: MetricCollection({"a": metric}).clone()["a"],
    "tracker": tracked,
}


@pytest.mark.filterwarnings("ignore:The default value for `maximize`:FutureWarning")  # torchmetrics before 1.7
@pytest.mark.parametrize("copy_of", [*COPIES.values(), *MORE.values()], ids=[*COPIES, *MORE])
def test_copies_have_no_listeners(copy_of: Any) -> None:
    """A copy tells nobody, even of what its original has told, and the original goes on telling."""
    metric = make_aupimo()
    metric.listeners.append(lambda update: heard.append(update))  # noqa: PLW0108  cannot be pickled
    heard: list[Update] = []
    metric.update(*BATCHES[0])
    copied = copy_of(metric)
    assert copied.listeners == []
    copied.update(*BATCHES[1])
    assert positions(heard) == ALL[:1]
    metric.update(*BATCHES[1])
    assert len(heard) == 2
    metric.persistent(True)
    assert not [name for name in metric.state_dict() if "listen" in name]


@pytest.mark.parametrize("compute_groups", [True, [["curves", "other", "score"]]])
def test_in_a_collection_the_first_of_a_group_speaks(compute_groups: Any) -> None:
    """At first all members speak, unless groups are given; then the first of the group, which may be a PIMO."""
    settings = {"fpr_bounds": (1e-3, 1.0), "normal_buffer": None}
    members = {"curves": PIMO(), "other": AUPIMO(**settings), "score": AUPIMO(**settings)}
    heard = {name: listened(member) for name, member in members.items()}
    metrics = MetricCollection(dict(members), compute_groups=compute_groups)
    for batch in BATCHES:
        metrics.update(*batch)
    assert list(metrics.compute_groups.values()) == [["curves", "other", "score"]]
    assert positions(heard["curves"]) == ALL
    assert positions(heard["other"]) == positions(heard["score"]) == (ALL[:1] if compute_groups is True else [])
