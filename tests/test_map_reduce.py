"""Shards of a data set, scored by workers and merged, give what one pass over all of it gives.

What a worker returns, the states or the metric itself, is pickled or taken apart in transport, so any engine that maps
will do. Tried are the pickles of `multiprocessing`, in the slow part two of its processes, and Dask where it is
installed.
"""

from __future__ import annotations

import functools
import multiprocessing
import pickle
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.reduction import ForkingPickler
from typing import Any

import pytest
import torch
from helpers import MAX_ERROR, VARIANTS, assert_same, by_function, join, make_batch, make_ragged
from torch import Tensor

SHARDS = [
    [make_batch("NANA", 0), make_batch("NNA", 1)],
    [make_batch("NNN", 2)],
    [make_batch("AA", 3)],
    [],
    [make_ragged("NANNA", 4)],
    [make_batch("NNAN", 5), make_batch("", 6), make_batch("A", 7)],
    [make_batch("NA", 8)],
    [make_batch("NNNNA", 9)],
]
"""Eight parts of a data set: of one or of both classes, of one or of several sizes, one without any image."""
Shard = list[tuple[Any, Any, Tensor | None]]
Map = Callable[[Callable[[Any], Any], Sequence[Any]], Sequence[Any]]


def shards(*, with_ids: bool) -> list[Shard]:
    """Return the arguments of the updates of each shard; with ids they fall from image to image, and shards overlap."""
    ids = iter(range(1000, 0, -1))
    found = [
        [(maps, masks, torch.tensor([next(ids) for _ in maps]) if with_ids else None) for maps, masks in shard]
        for shard in SHARDS
    ]
    if with_ids:
        found[2] += [found[0][1], found[4][0]]
    return found


def score_shard(kind: str, form: str, shard: Shard) -> Any:
    """Update a new metric with a shard, and return the metric or its states; what a worker does."""
    metric = VARIANTS[kind]()
    for maps, masks, ids in shard:
        metric.update(maps, masks, ids)
    return metric if form == "metric" else metric.metric_state


def merge(kind: str, parts: Sequence[Any]) -> Any:
    """Merge metrics or states, the last first, as what is merged comes before what is there."""
    metric = VARIANTS[kind]()
    for part in reversed(parts):
        metric.merge_state(part)
    return metric


@pytest.fixture
def pickles() -> Map:
    """Map here, and send work and answers as `multiprocessing` does."""

    def sent(item: Any) -> Any:
        return pickle.loads(ForkingPickler.dumps(item))  # noqa: S301

    return lambda work, items: [sent(sent(work)(sent(item))) for item in items]


@pytest.fixture(scope="module")
def processes() -> Iterator[Map]:
    """Map in two processes of `multiprocessing`."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        yield functools.partial(pool.map, chunksize=1)


@pytest.fixture(scope="module")
def dask() -> Iterator[Map]:
    """Map in two worker processes of Dask."""
    distributed = pytest.importorskip("distributed")
    with distributed.Client(n_workers=2, threads_per_worker=1, dashboard_address=None) as client:
        yield lambda work, items: client.gather(client.map(work, items, pure=False))


@pytest.fixture(params=["pickles", *(pytest.param(name, marks=pytest.mark.slow) for name in ("processes", "dask"))])
def map_shards(request: pytest.FixtureRequest) -> Map:
    """Return the way to map of each engine."""
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


@pytest.mark.filterwarnings("ignore:AUPIMO may be inaccurate")  # of the sampled variant
@pytest.mark.parametrize(("form", "with_ids"), [("states", True), ("metric", False)], ids=["states", "metric"])
@pytest.mark.parametrize("kind", VARIANTS)
def test_merged_shards_score_as_one_pass(map_shards: Map, kind: str, form: str, with_ids: bool) -> None:
    """Shards, updated in other processes and merged, give scores and curves of all images once, in their order."""
    updates = shards(with_ids=with_ids)
    metric = merge(kind, map_shards(functools.partial(score_shard, kind, form), updates))
    one_pass = score_shard(kind, "metric", [update for shard in updates for update in shard])
    assert_same(metric.compute(), one_pass.compute(), atol=MAX_ERROR)
    images = join([batch for shard in SHARDS for batch in shard if len(batch[0])])
    if with_ids:
        images = images[0][::-1], images[1][::-1]
    assert_same(metric.compute(), by_function(metric, *images), atol=MAX_ERROR)
