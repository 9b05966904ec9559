"""Whatever goes wrong around a metric, no image is lost, and no number is wrong without a word.

Rejected batches, interrupts, failures, casts of the model, modes of torch, and other processes that die.
"""

from __future__ import annotations

import copy
import inspect
import operator
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
import torchmetrics.metric
from helpers import (
    AS_TWO,
    BATCHES,
    FPR_BOUNDS,
    MAX_ERROR,
    MakeMetric,
    Operations,
    assert_same,
    by_function,
    each_metric,
    each_variant,
    ignoring_uncertainty,
    join,
    make_aupimo,
    make_batch,
    states_of,
    updated,
)
from torch import Tensor, nn
from torchmetrics import MetricCollection

import aupimo_torchmetrics
from aupimo_torchmetrics import AUPIMO, PIMO, PerCategory, vad_metrics


def test_rejected_batch_in_a_group_of_a_collection() -> None:
    """Metrics that share states in a collection share them after a rejected batch too."""
    metrics = MetricCollection({"one": make_aupimo(), "two": make_aupimo(reduction="none", shared_fpr="max")})
    with_nan, target = make_batch("NA", 4)
    with_nan[-1, -1, -1] = torch.nan
    for batch in BATCHES[:2]:
        metrics.update(*batch)
    for call in (metrics.update, metrics):
        with pytest.raises(ValueError, match="no NaN"):
            call(with_nan, target)
    metrics.update(*BATCHES[2])
    assert len(metrics.compute_groups) == 1
    assert_same(dict(metrics.compute()), {name: by_function(each, *join(BATCHES)) for name, each in metrics.items()})


TRACED_CODE = (str(Path(aupimo_torchmetrics.__file__).parent), torchmetrics.metric.__file__)
"""What runs line by line inside of a call to a metric."""
CODE_WITH_STATES = tuple({inspect.getfile(each) for each in AUPIMO.__mro__ if "aupimo_torchmetrics" in each.__module__})
"""Files of the classes of the metric. What they call has no state that could be left half done."""


@contextmanager
def interrupted_at(line: int) -> Iterator[list[str]]:
    """Raise `KeyboardInterrupt` before the traced line at this index is run; give the list of the lines run."""
    lines: list[str] = []

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(TRACED_CODE):
            return None
        if event == "line":
            if len(lines) == line:
                sys.settrace(None)
                raise KeyboardInterrupt
            lines.append(f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}")
        return trace

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        yield lines
    finally:
        sys.settrace(previous)


CALLS: dict[str, tuple[dict[str, Any], Callable[[Any], Any]]] = {
    "update": ({}, lambda metric: metric.update(*BATCHES[2])),
    "update that prunes": ({"normal_buffer": 16}, lambda metric: metric.update(*make_batch("NNNNNNA", 7))),
    "forward": ({}, lambda metric: metric(*BATCHES[2])),
    "forward synchronised": ({"dist_sync_on_step": True, **AS_TWO}, lambda metric: metric(*BATCHES[2])),
    "compute": ({}, lambda metric: metric.compute()),
    "compute synchronised": (AS_TWO, lambda metric: metric.compute()),
    "result synchronised": (AS_TWO, lambda metric: metric.result()),
    "curves synchronised": (AS_TWO, lambda metric: metric.curves()),
    "merge": ({"normal_buffer": 16}, lambda metric: metric.merge_state(updated(make_aupimo(normal_buffer=16)))),
}


def lines_with_states(lines: list[str]) -> list[int]:
    """Return the index of each line of the classes of the metric, where it is run first."""
    return [i for i, line in enumerate(lines) if line.startswith(CODE_WITH_STATES) and lines.index(line) == i]


FEW_CALLS = ("update that prunes", "forward synchronised", "compute synchronised", "result synchronised", "merge")
"""Calls that run the lines of the others, too."""


@pytest.mark.parametrize(
    ("call", "indices_of"),
    [
        *((call, lines_with_states) for call in FEW_CALLS),
        *(pytest.param(call, lambda lines: range(len(lines)), marks=pytest.mark.slow) for call in CALLS),
    ],
)
def test_interrupted_at_any_line_nothing_is_lost_or_left_half_done(
    call: str, indices_of: Callable[[list[str]], Sequence[int]]
) -> None:
    """Wherever Ctrl-C or an error strikes, the metric is as before the call or as after it, and goes on."""
    settings, run = CALLS[call]
    new = partial(make_aupimo, **settings)
    done = updated(new(), BATCHES[:2])
    with interrupted_at(-1) as lines:
        run(done)
    outcomes = [states_of(updated(new(), BATCHES[:2])), states_of(done)]
    values = [new_metric.compute() for new_metric in (updated(new(), BATCHES[:2]), done)]
    indices = indices_of(lines)
    assert len(indices) > 10
    for index in indices:
        metric = updated(new(), BATCHES[:2])
        with pytest.raises(KeyboardInterrupt), interrupted_at(index):
            run(metric)
        where = f"interrupted at {lines[index]}"
        matches = [_is_same(states_of(metric), outcome) for outcome in outcomes]
        assert any(matches), where
        assert not metric._is_synced, where
        assert_same(metric.compute(), values[matches.index(True)])
        metric.reset()
        assert _is_same(states_of(updated(metric, BATCHES[:2])), outcomes[0]), where


def _is_same(actual: dict[str, list[Tensor]], expected: dict[str, list[Tensor]]) -> bool:
    """Whether states hold the same scores; the lists may be cut into other parts."""
    pairs = [[torch.cat([part.reshape(-1) for part in each[name]]) for each in (actual, expected)] for name in expected]
    return all(torch.equal(one, other) for one, other in pairs)


@each_variant
def test_failure_of_the_engine_is_not_the_end(make_metric: MakeMetric, monkeypatch: pytest.MonkeyPatch) -> None:
    """If `compute` fails under several processes, for lack of memory say, the metric has its own states back."""
    metric = updated(make_metric(**AS_TWO))
    before = copy.deepcopy(states_of(metric))

    def fail_as_an_allocation(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError

    with monkeypatch.context() as patch:
        patch.setattr(torch, "searchsorted", fail_as_an_allocation)
        for call in (metric.compute, partial(metric, *BATCHES[0])):
            with pytest.raises(torch.OutOfMemoryError):
                call()
    assert _is_same(states_of(metric), before)
    expected = by_function(metric, *join(2 * BATCHES))
    assert_same(metric.compute(), expected, atol=MAX_ERROR)


CASTS = [
    *(operator.methodcaller(name) for name in ("half", "double", "float", "bfloat16")),
    *(operator.methodcaller("to", each) for each in (torch.bfloat16, torch.float64, "cpu")),
]
OWN_CASTS = [
    operator.methodcaller("set_dtype", dtype) for dtype in (torch.half, torch.float64, torch.int32, torch.float32)
]
MODEL_CASTS = [*CASTS, operator.methodcaller("to_empty", device="cpu")]  # which gives the weights of a model any values


@each_metric
@ignoring_uncertainty
def test_casts_leave_states_exact(make_metric: MakeMetric) -> None:
    """Casts of a metric or of its model, before, between or after updates, change neither states nor value."""
    metric = make_metric()

    def cast() -> None:
        before = copy.deepcopy(states_of(metric))
        for each in (*CASTS, *OWN_CASTS, *MODEL_CASTS):
            each(nn.ModuleList([metric]) if each in MODEL_CASTS else metric)
            assert_same(states_of(metric), before)  # their dtypes, too

    cast()
    updated(metric, BATCHES[:1])
    cast()
    updated(metric, BATCHES[1:])
    for _ in range(2):
        assert_same(metric.compute(), by_function(metric, *join(BATCHES)))
        cast()
    metric.update(*make_batch("NNA", 9))
    expected = by_function(metric, *join([*BATCHES, make_batch("NNA", 9)]))
    assert_same(metric.compute(), expected)
    metric.reset()
    assert_same(metric.metric_state, make_metric().metric_state)


@each_metric
@pytest.mark.parametrize("inside", ["construction", "first update", "reset", "all but the last update"])
@ignoring_uncertainty
def test_inference_mode_around_any_call(make_metric: MakeMetric, inside: str) -> None:
    """States from inference mode can be updated outside of it, after a reset too."""
    in_all = inside == "all but the last update"
    with torch.inference_mode(in_all or inside == "construction"):
        metric = make_metric()
    with torch.inference_mode(in_all or inside == "first update"):
        updated(metric, BATCHES[:1])
        metric.compute()
    with torch.inference_mode(in_all or inside == "reset"):
        metric.reset()
        updated(metric, BATCHES[:1] if in_all else [])
    updated(metric, BATCHES[1:] if in_all else BATCHES)
    assert_same(metric.compute(), by_function(metric, *join(BATCHES)))
    metric(*BATCHES[0])
    metric.reset()


@each_metric
@ignoring_uncertainty
def test_compute_on_cpu_and_autocast(make_metric: MakeMetric) -> None:
    """`compute_on_cpu` works from the start, and set later as anomalib does; mixed precision reaches no value."""
    for method, at_construction, dtype in (("update", True, torch.float16), ("forward", False, torch.bfloat16)):
        metric = make_metric(compute_on_cpu=at_construction)
        metric.compute_on_cpu = True
        expected = by_function(metric, *join(BATCHES))
        with torch.autocast("cpu", dtype):
            for preds, target in BATCHES:
                getattr(metric, method)(preds, target)
            assert_same(metric.compute(), expected)
            assert_same(by_function(metric, *join(BATCHES)), expected)


def new_model(device: str = "cpu") -> nn.ModuleList:
    """Return a model with a metric; one that is built on "meta", without memory, as large models are."""
    with torch.device(device):
        return nn.ModuleList([nn.Linear(1, 1), make_aupimo()])


def filled_by_assignment() -> nn.ModuleList:
    """Give a model without memory the weights of another."""
    model = new_model("meta")
    model.load_state_dict(new_model().state_dict(), assign=True)
    return model.to("cpu")


@pytest.mark.parametrize(
    "build",
    [
        lambda: new_model("meta").to_empty(device="cpu"),
        filled_by_assignment,
        lambda: new_model().to_empty(device="cpu"),
        lambda: new_model().half().to_empty(device="cpu"),
    ],
)
def test_models_that_are_filled_later(build: Callable[[], nn.ModuleList]) -> None:
    """A metric in a model that was built without memory, or that gets new memory, starts without images."""
    metric: Any = build()[1]
    fresh = make_aupimo()
    for each in (metric, metric.clone()):
        assert_same(each.metric_state, fresh.metric_state)
        assert_same(updated(each).compute(), by_function(fresh, *join(BATCHES)))
        each.reset()
        assert_same(each.metric_state, fresh.metric_state)


REFUSED_BY_CUDA = {"bincount", "cumsum", "histc", "index_copy", "kthvalue", "median", "put_", "scatter_add"}
"""Those that raise there on data like ours in the deterministic mode; `cumsum` of floating numbers only."""


@pytest.fixture
def deterministic() -> Iterator[None]:
    """Ask torch for deterministic algorithms, as Lightning's `deterministic=True` does."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("deterministic")
@each_variant
def test_deterministic_algorithms(make_metric: MakeMetric) -> None:
    """The mode changes no value, and no operation is used that CUDA refuses in it."""
    metric = make_metric(**{"normal_buffer": 16} if isinstance(make_metric(), AUPIMO) else {})
    ids = iter(range(100))
    with Operations() as operations:
        for preds, target in BATCHES:
            metric.update(preds, target, image_ids=[next(ids) for _ in preds])
        value = metric.compute()
    torch.use_deterministic_algorithms(False)
    assert_same(value, by_function(metric, *join(BATCHES)), atol=MAX_ERROR)
    assert "searchsorted" in operations.names
    # of integers; and torchmetrics sums floating numbers on the CPU then
    assert {*operations.names} & REFUSED_BY_CUDA <= {"cumsum"}


@pytest.mark.filterwarnings("ignore:Guards may run slower on Python 3.13.0")
@pytest.mark.parametrize("call", ["update", "forward"])
def test_compiled_step(call: str) -> None:
    """A compiled step may update any metric, with the same values, and nothing of a metric is compiled."""
    compiled: list[str] = []

    def backend(graph: torch.fx.GraphModule, _: object) -> Any:
        compiled.extend(str(node.target) for node in graph.graph.nodes if node.op.startswith("call"))
        return graph.forward

    batches = [make_batch("NANA", seed) for seed in (0, 1)]
    all_metrics = partial(vad_metrics, fpr_bounds=FPR_BOUNDS)
    for make in (make_aupimo, PIMO, all_metrics, partial(PerCategory, make_aupimo(), ["a", "b"])):
        metric, plain = make(), make()
        options = {"categories": ["a", "a", "b", "b"]} if isinstance(metric, PerCategory) else {}
        add = metric.update if call == "update" else metric

        @partial(torch.compile, backend=backend)
        def step(maps: Tensor, masks: Tensor, add: Any = add, options: Any = options) -> Tensor:
            maps = maps * 2
            add(maps, masks, **options)
            return maps + 1

        torch.compiler.reset()
        compiled.clear()
        for preds, target in batches:
            assert torch.equal(step(preds, target), preds * 2 + 1)
            plain.update(preds * 2, target, **options)
        assert_same(metric.compute(), plain.compute())
        assert {*compiled} == {str(operator.mul), str(operator.add)}
