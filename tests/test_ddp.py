"""Over several processes the metrics give what one process gives, whatever each of the ranks has seen.

Groups of 2 and 3 gloo processes play each scenario and each metric at least once. In the slow part 3 play every
scenario with every metric, and 1, 2 and 4 a quarter of these each. The tests compare what each rank noted with what one
process notes that is given the data of all ranks, rank by rank.
"""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from helpers import (
    BATCHES,
    FUNCTIONS,
    MAX_ERROR,
    TEXTS,
    assert_same,
    by_function,
    caught_texts,
    ignoring_uncertainty,
    join,
    make_aupimo,
    make_batch,
    make_ragged,
    run_ranks,
    updated,
)
from torch.utils.data import DistributedSampler
from torchmetrics import MetricCollection

from aupimo_torchmetrics import AUPIMO, AUPRO, PIMO, ImageAUROC, PerCategory, PixelAUROC, PixelF1Max

Update = dict[str, Any]
Pair = tuple[str, str]
"""Names of a scenario and of a metric."""

pytestmark = ignoring_uncertainty


class Categorised(PerCategory):
    """Each image is of a category that its map tells."""

    def __init__(self) -> None:
        super().__init__(MetricCollection([make_aupimo(), PixelAUROC(), ImageAUROC()]), ["low", "high", "none"])

    def update(self, preds: Any, target: Any) -> None:
        """Add a batch."""
        super().update(preds, target, categories=["high" if each[0, 0] > 0 else "low" for each in preds])


METRICS: dict[str, Callable[[], Any]] = {
    "mean": make_aupimo,
    "each image": partial(make_aupimo, reduction="none"),
    "small buffer": partial(make_aupimo, reduction="none", normal_buffer=16),
    "sampled": partial(make_aupimo, 20_000, reduction="none"),
    "max": partial(make_aupimo, reduction="none", shared_fpr="max", normal_buffer=16),
    "curves": partial(PIMO, 50),
    "regions": AUPRO,
    "categories": Categorised,
    "regions by bins": partial(AUPRO, num_bins=2**12),
    "pixels by bins": partial(PixelF1Max, num_bins=2**12),
    "images": partial(ImageAUROC, "top_5%"),
}
COLLECTED = [name for name in METRICS if name not in {"curves", "categories"} and "bins" not in name]
"""Metrics that are tried in a collection."""


def batch(classes: str, seed: int, make: Callable[..., Any] = make_batch) -> Update:
    """Arguments of an update with images of one size, or of several."""
    return dict(zip(("preds", "target"), make(classes, seed), strict=True))


def sampled_share(rank: int, world_size: int) -> list[Update]:
    """Images as `DistributedSampler` deals them out, with their index as id; some come twice to fill up the ranks."""
    preds, target = make_batch("NNANA", 5)
    indices = list(DistributedSampler(range(5), world_size, rank, shuffle=False))
    return [{"preds": preds[[i]], "target": target[[i]], "image_ids": torch.tensor([i])} for i in indices]


def with_texts(rank: int, world_size: int) -> list[Update]:
    """Every `world_size`-th image with a text, padded with the first as a sampler does."""
    preds, target = join(BATCHES)
    indices = [*DistributedSampler(range(10), world_size, rank, shuffle=False)][::-1]
    return [{"preds": preds[[i]], "target": target[[i]], "image_ids": [TEXTS[i]]} for i in indices]


def false_alarms_first(rank: int, world_size: int) -> list[Update]:
    """Two normal images with all the highest scores on the first rank, and 248 other normal images on the last."""
    high, low = batch("NN", 0), batch("N" * 248, 1)
    defects = batch("AA", 2)
    first = [{**high, "preds": high["preds"] + 20}] if rank == 0 else []
    last = [low, {**defects, "preds": defects["preds"] + 10}] if rank == world_size - 1 else []
    return first + last


SCENARIOS: dict[str, Callable[[int, int], list[Update]]] = {
    "evenly": lambda rank, _: [batch("NANA", rank), batch("NNA", 10 + rank)],
    "one size on each rank, uneven numbers of updates": lambda rank, _: [
        {"preds": torch.cat([maps, maps], 1 + rank % 2), "target": torch.cat([masks, masks], 1 + rank % 2)}
        for maps, masks in [make_batch("NAN", 10 * rank + i) for i in range(rank + 1)]
    ],
    "ragged, uneven numbers of updates": lambda rank, _: [
        batch("NANNA", 10 * rank + i, make_ragged) for i in range(3 - rank)
    ],
    "first rank without update": lambda rank, size: [batch("NANA", 0)] if rank or size == 1 else [],
    "last rank without update": lambda rank, size: [batch("NANA", rank)] if rank < size - 1 or size == 1 else [],
    "half precision on one rank": lambda rank, _: [
        {"preds": maps.half() if rank else maps, "target": masks} for maps, masks in [make_batch("NAN", rank)]
    ],
    "an empty batch": lambda rank, _: [batch("", 0)] if rank == 1 else [batch("NANA", rank)],
    "only an empty batch each": lambda _, __: [batch("", 0)],
    "a rank only normal": lambda rank, _: [batch("NN", 0)] if rank == 0 else [batch("NAA", rank)],
    "a rank only anomalous": lambda rank, _: [batch("AA", 0)] if rank == 0 else [batch("NNA", rank)],
    "one class each": lambda rank, _: [batch("AA" if rank % 2 else "NNN", rank)],
    "only normal": lambda rank, _: [batch("NN", rank)],
    "only anomalous": lambda rank, _: [batch("AA", rank)],
    "no update at all": lambda _, __: [],
    "sampler that fills up": sampled_share,
    "sampler with texts": with_texts,
    "texts on one rank": lambda rank, _: with_texts(0, 1) if rank == 0 else [],
    "one id, other content": lambda rank, _: [{**batch("NANA", rank), "image_ids": torch.arange(4)}],
}


def batches_of(name: str, rank: int, world_size: int) -> list[Any]:
    """Maps and masks of each update of a rank."""
    return [tuple(update.values()) for update in SCENARIOS[name](rank, world_size)]


FOREIGN = re.compile("before the ``update`` method|non-tuple sequence|`torch.load` with")
"""Warnings of torchmetrics and of torch, the latter two of their lowest versions."""
EXTRA = [batch("NA", 70), batch("AAN", 71), batch("N", 72), batch("ANN", 73)]
"""One more update of each rank, after the first `compute`."""


def values_of(metric: Any) -> list[Any]:
    """Return the value of a metric, twice, and what its result holds if it has one."""
    if isinstance(metric, PerCategory):  # one value alone asks all ranks for all
        mean = dict(metric.items())["mean/PixelAUROC"].compute()
        return [mean, metric.compute(), {name: result.aupimos for name, result in metric.results().items()}]
    values = [metric.compute(), metric.compute()]
    if isinstance(metric, AUPIMO):
        result = metric.result()
        values += [result.aupimos, torch.tensor([*result.threshold_bounds, result.mean], dtype=torch.float64)]
        values += [] if result.image_ids is None else [result.image_ids]
        values += [torch.tensor([*"/".join(result.paths or ()).encode("utf-8", "surrogatepass")])]
    if isinstance(metric, AUPRO):
        values += [metric.bounds()]
    return [tuple(value) if isinstance(value, tuple) else value for value in values]


def play(metric: Any, updates: Sequence[Update], more: Sequence[Update]) -> dict[str, Any]:
    """Update, compute, update with more, compute again, reset and begin anew; note values, warnings and states.

    After each of the first updates the metric is pickled and read back.
    """
    if not isinstance(metric, AUPIMO | PIMO):  # takes no ids
        updates, more = ([dict([*each.items()][:2]) for each in part] for part in (updates, more))
    with caught_texts() as texts:
        for update in updates:
            metric.update(**update)
            metric = pickle.loads(pickle.dumps(metric))  # noqa: S301
        before = copy.deepcopy(metric.metric_state)
        values = values_of(metric)
        after = copy.deepcopy(metric.metric_state)
    with caught_texts():
        for update in more:
            metric.update(**update)
        values_after_more = values_of(metric)
        metric.reset()
        for update in updates:
            metric.update(**update)
        values_after_reset = values_of(metric)
    return {
        "values": values,
        "states": (before, after),
        "messages": {text for text in texts if not FOREIGN.search(text)},
        "values after more": values_after_more,
        "values after reset": values_after_reset,
    }


def rank_main(pairs: Sequence[Pair], rank: int, world_size: int, note: Callable[[str], Any]) -> dict[Any, Any]:
    """Play pairs of a scenario and a metric on one rank, and what is tried once: a collection, `forward`, curves."""
    notes: dict[Any, Any] = {}
    for name, kind in pairs:
        note(f"{name}, {kind}")
        notes[name, kind] = play(METRICS[kind](), SCENARIOS[name](rank, world_size), [EXTRA[rank]])
    note("false alarms on one rank")
    notes["false alarms"] = play(METRICS["small buffer"](), false_alarms_first(rank, world_size), [])
    note("collection")
    share = batches_of("evenly", rank, world_size)
    collection = MetricCollection({name: METRICS[name]() for name in COLLECTED})
    notes["collection"] = [dict(updated(collection, share).compute()) for _ in range(2)]
    note("forward, synchronised in each step")
    metric = make_aupimo(reduction="none", dist_sync_on_step=True)
    notes["forward"] = [metric(*each) for each in share] + [metric.compute()]
    note("curves around the bounds")
    metric = updated(make_aupimo(), batches_of("ragged, uneven numbers of updates", rank, world_size))
    before = copy.deepcopy(metric.metric_state)
    values = [tuple(metric.curves()), metric.compute(), tuple(metric.curves())]
    notes["curves"] = [values, before, copy.deepcopy(metric.metric_state)]
    return notes


def lose_a_peer(rank: int, world_size: int, note: Callable[[str], Any]) -> Any:
    """Compute while the other rank has left; return the states before and after and the value of the own images."""
    note(f"peers of {world_size}")
    metric = updated(make_aupimo(reduction="none"), [make_batch("NANA", rank), make_batch("NNA", 10 + rank)])
    if rank == 1:
        return None
    before = copy.deepcopy(metric.metric_state)
    with pytest.raises(RuntimeError):
        metric.compute()
    after = copy.deepcopy(metric.metric_state)
    metric._to_sync = False
    return before, after, metric.compute()


def score_mixed_ids(rank: int, world_size: int, note: Any) -> list[Any]:
    """What a rank answers if one has integers as ids, and the others texts."""
    note(f"mixed kinds of {world_size}")
    metric = make_aupimo(reduction="none")
    metric.update(*make_batch("NA", rank), image_ids=["a", "b"] if rank else [0, 1])
    with caught_texts():
        result = metric.result()
    return [result.aupimos, result.warnings, result.image_ids, result.paths]


SETTINGS: list[tuple[type[Any], dict[str, Any], dict[str, Any], str]] = [
    (AUPIMO, {}, {"num_thresholds": 300}, r"`num_thresholds` is 300 and None"),
    (AUPIMO, {}, {"fpr_bounds": (1e-5, 1e-3)}, r"`fpr_bounds` is \[1e-05, 0.0001\] and \[1e-05, 0.001\]"),
    (AUPIMO, {"normal_buffer": 16}, {"normal_buffer": None}, "`normal_buffer` is 16 and None"),
    (AUPIMO, {}, {"reduction": "none"}, "`reduction` is mean and none"),
    (AUPIMO, {}, {"shared_fpr": "max", "ignore_index": 9}, "`shared_fpr` is max and mean, `ignore_index` is 9"),
    (PIMO, {}, {"num_thresholds": 9}, "`num_thresholds` is 9 and None"),
    (AUPRO, {"fpr_limit": 0.1}, {}, "`fpr_limit` is 0.1 and 0.3"),
    *((each, {}, {"num_bins": 64}, "`num_bins` is 64 and None") for each in [*FUNCTIONS][:4]),
    *((each, {}, {"image_score": "mean"}, "`image_score` is max and mean") for each in [*FUNCTIONS][4:]),
]


def errors_of_rank(rank: int, world_size: int, note: Callable[[str], Any]) -> list[str]:
    """What each metric says to rank `rank` if the ranks have other settings; and whether it goes on."""
    texts, once = [], [make_batch("NANANANA", 0)]
    with caught_texts():
        for metric_class, *settings, _ in SETTINGS:
            note(f"{metric_class.__name__} of {world_size}")
            metric = updated(metric_class(**settings[rank]), once)
            with pytest.raises(ValueError, match="Expected") as error:
                metric.compute()
            texts.append(str(error.value))
            updated(metric, once)
        texts.append(str(float(updated(make_aupimo(), once).compute())))  # the same settings are no error
    return texts


UNEVEN = (
    "one size on each rank, uneven numbers of updates",
    "ragged, uneven numbers of updates",
    "first rank without update",
    "last rank without update",
    "sampler that fills up",
    "sampler with texts",
)
KINDS = [*METRICS]
SOME_PAIRS: dict[int, list[Pair]] = {
    2: [*((name, KINDS[i % len(KINDS)]) for i, name in enumerate(SCENARIOS)), ("a rank only anomalous", "categories")],
    3: [*((name, KINDS[i]) for i, name in enumerate(UNEVEN)), ("last rank without update", "categories")],
}
"""Pairs for each size of a group: each scenario and each metric with 2 ranks, and those that are uneven with 3."""
ALL_PAIRS = {
    size: [
        (name, kind)
        for i, name in enumerate(SCENARIOS)
        for j, kind in enumerate(KINDS)
        if size == 3 or (kind != "categories" and (i + j + size) % 4 == 0)
    ]
    for size in (1, 2, 3, 4)
}
"""All pairs with 3 ranks, and a quarter of them with 1, 2 and 4, without categories, which gather most."""


@pytest.fixture(scope="module", params=["some", pytest.param("all", marks=pytest.mark.slow)])
def groups(request: pytest.FixtureRequest) -> list[list[dict[Any, Any]]]:
    """Return what each rank of each group noted of some or of all pairs."""
    pairs_of = SOME_PAIRS if request.param == "some" else ALL_PAIRS
    return run_ranks([(partial(rank_main, pairs), size) for size, pairs in pairs_of.items()], timeout=900)


@pytest.fixture(scope="module")
def others() -> list[list[Any]]:
    """Return what each rank noted with ids of other kinds, with other settings, and when its peer had left."""
    return run_ranks([(score_mixed_ids, 3), (errors_of_rank, 2), (lose_a_peer, 2)])


def assert_ranks_agree_with_one_process(ranks: list[dict[Any, Any]], name: str, kind: str) -> None:
    """Assert that each rank answers as one process does, now and after more updates, and has its states back."""
    world_size = len(ranks)
    shares = [SCENARIOS[name](rank, world_size) for rank in range(world_size)]
    expected = play(METRICS[kind](), [update for share in shares for update in share], [])
    # images are rank by rank, so the extra update of a rank stands behind its others
    more = [update for rank, share in enumerate(shares) for update in [*share, EXTRA[rank]]]
    expected_after_more = play(METRICS[kind](), more, [])
    for outcomes in ranks:
        outcome = outcomes[name, kind]
        before, after = outcome["states"]
        assert_same(after, before)
        assert_same(outcome["values"], expected["values"], atol=MAX_ERROR)
        assert_same(outcome["values after more"], expected_after_more["values"], atol=MAX_ERROR)
        assert_same(outcome["values after reset"], expected["values"], atol=MAX_ERROR)
        assert outcome["messages"] == expected["messages"]


@pytest.mark.parametrize("name", SCENARIOS)
def test_ranks_agree_with_one_process(groups: list[list[dict[Any, Any]]], name: str) -> None:
    """Each rank answers what one process answers, now and after further updates, and has its own states back."""
    for ranks in groups:
        for kind in METRICS:
            if (name, kind) in ranks[0]:
                assert_ranks_agree_with_one_process(ranks, name, kind)


def test_lower_bound_over_ranks(groups: list[list[dict[Any, Any]]]) -> None:
    """If one rank has dropped scores that matter, all ranks give lower bounds, and say so."""
    for ranks in groups:
        updates = [update for rank in range(len(ranks)) for update in false_alarms_first(rank, len(ranks))]
        batches = join([tuple(update.values()) for update in updates])
        exact = by_function(make_aupimo(reduction="none"), *batches)[-2:]
        for outcomes in ranks:
            scores = outcomes["false alarms"]["values"][0][-2:]
            assert (scores < exact).all()
            assert ["is a lower bound" in message for message in outcomes["false alarms"]["messages"]] == [True]


def test_mixed_kinds_of_ids_over_ranks(others: list[list[Any]]) -> None:
    """Where one rank has integers as ids and others texts, all images count, and a warning says why."""
    for scores, warnings_of_rank, ids, paths in others[0]:
        assert len(scores) == 6
        assert sum("others texts" in text for text in warnings_of_rank) == 1
        assert ids.tolist() == [0, 1, *[-1] * 4]
        assert paths is None


@pytest.mark.parametrize("group", [0, 1])
def test_collection_forward_and_curves_over_ranks(groups: list[list[dict[Any, Any]]], group: int) -> None:
    """Metrics in a collection, `forward` with `dist_sync_on_step`, and `AUPIMO.curves` are of the images of all ranks.

    They are so after a computation in between too, and each rank has its own states back.
    """
    ranks = groups[group]
    size = len(ranks)
    shares = [batches_of("evenly", rank, size) for rank in range(size)]
    everything = [each for share in shares for each in share]
    twice = [each for share in shares for each in 2 * share]
    one = [{kind: updated(METRICS[kind](), each).compute() for kind in COLLECTED} for each in (everything, twice)]
    ragged = [batches_of("ragged, uneven numbers of updates", rank, size) for rank in range(size)]
    metric = updated(make_aupimo(), [each for share in ragged for each in share])
    curves = [tuple(metric.curves()), metric.compute(), tuple(metric.curves())]
    steps = [join([share[step] for share in shares]) for step in range(2)] + [join(everything)]
    forward = [by_function(make_aupimo(reduction="none"), *each) for each in steps]
    for outcomes in ranks:
        assert_same(outcomes["collection"], one, atol=MAX_ERROR)
        assert_same(outcomes["forward"], forward, atol=MAX_ERROR)
        values, before, after = outcomes["curves"]
        assert_same(values, curves, atol=MAX_ERROR)
        assert_same(after, before)


def test_failed_peer_leaves_the_states(others: list[list[Any]]) -> None:
    """If another process has left when states are gathered, a rank has its own states as before, and can score them."""
    before, after, value = others[2][0]
    assert_same(after, before)
    batches = join([make_batch("NANA", 0), make_batch("NNA", 10)])
    assert_same(value, by_function(make_aupimo(reduction="none"), *batches))


def test_ranks_with_other_settings_are_told_by_name(others: list[list[Any]]) -> None:
    """All ranks get an error that names what differs, before any state is gathered, and the metric goes on."""
    first, second = others[1]
    assert first == second
    for text, (*_, expected) in zip(first, SETTINGS, strict=False):
        assert re.match(f"Expected all processes to have the same settings, but {expected}", text)
    assert float(first[-1]) == float(updated(make_aupimo(), 2 * [make_batch("NANANANA", 0)]).compute())
