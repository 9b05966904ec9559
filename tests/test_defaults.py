"""Every tensor is made on the device and in the dtype of the data, whatever the defaults of torch are, and states fit.

The default device is "meta" here, which keeps no values: a tensor that is made there by mistake cannot be read.
"""

from __future__ import annotations

import pickle
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import AS_TWO, TEXTS, assert_same, make_batch, run_ranks, updated
from torch import Tensor

import aupimo_torchmetrics
from aupimo_torchmetrics import AUPIMO, AUPRO, PIMO, AUPIMOResult, PIMOResult, functional, image_metrics, pixel_metrics

BOUNDS = {"fpr_bounds": (1e-2, 0.3)}
MAPS, MASKS = make_batch("NANANANA", 0)
ONCE = [(MAPS, MASKS)]
TARGET = MASKS.long().index_fill(2, torch.arange(3), 255)
PIXEL_METRICS = [getattr(pixel_metrics, name) for name in pixel_metrics.__all__]
IMAGE_METRICS = [getattr(image_metrics, name) for name in image_metrics.__all__]

METRICS: dict[str, Callable[[], Any]] = {
    "exact": lambda: AUPIMO(**BOUNDS),
    "each image": lambda: AUPIMO(reduction="none", shared_fpr="max", normal_buffer=None, **BOUNDS),
    "sampled": lambda: AUPIMO(500, normal_buffer=30, **BOUNDS),
    "curves": PIMO,
    "sampled curves": lambda: PIMO(9, shared_fpr="max"),
    **{f"{each.__name__} {num_bins}": lambda each=each, num_bins=num_bins: each(num_bins=num_bins)
       for each in PIXEL_METRICS for num_bins in (None, 2**12)},
    **{f"{each.__name__} {image_score}": lambda each=each, image_score=image_score: each(image_score)
       for each in IMAGE_METRICS for image_score in ("max", "top_5%")},
}  # fmt: skip
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "aupimo": lambda *images, **settings: functional.aupimo(*images, reduction="none", **BOUNDS, **settings),
    "aupimo, sampled": lambda *images, **settings: functional.aupimo(*images, 300, **BOUNDS, **settings),
    **{name: getattr(functional, name) for name in ("pimo", "aupro", "pixel_auroc", "pixel_average_precision")},
    "aupro of regions": lambda *images, **settings: functional.aupro(*images, reduction="none", **settings),
    "image_auroc": lambda *images, **settings: functional.image_auroc(*images, "mean", **settings),
    "image_f1_max": lambda *images, **settings: functional.image_f1_max(*images, return_threshold=True, **settings),
    "pixel_f1_max": lambda *images, **settings: functional.pixel_f1_max(*images, return_threshold=True, **settings),
}
each_metric = pytest.mark.parametrize("make", METRICS.values(), ids=METRICS.keys())
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of few pixels


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Set the default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


DEFAULTS = {
    "device": lambda: torch.device("meta"),
    **{str(dtype): lambda dtype=dtype: default_dtype(dtype) for dtype in (torch.float64, torch.bfloat16)},
}
each_default = pytest.mark.parametrize("default", DEFAULTS.values(), ids=DEFAULTS.keys())


def life_of(metric: Any) -> list[Any]:
    """What a metric answers in its life, from the first update to a reset."""
    is_score = isinstance(metric, AUPIMO | PIMO)
    metric.update(MAPS[:4], MASKS[:4], **({"image_ids": TEXTS[:4]} if is_score else {}))
    metric.update([*MAPS[4:6]], [*MASKS[4:6].float()], **({"image_ids": TEXTS[4:6]} if is_score else {}))
    found = [metric.compute(), metric(MAPS[6:].half(), MASKS[6:]), metric.compute()]
    if isinstance(metric, AUPIMO):
        result = metric.result()
        point = result.operating_point(fpr=0.1)
        found += [result.aupimos, result.threshold_bounds, *result.curves(), *point, result.pixel_aupimo(MAPS)]
        found += [result.to_dataframe()["aupimo"].to_numpy(), str(result), metric.curves().thresholds]
    elif not is_score:
        found += [*(metric.bounds() if hasattr(metric, "bounds") else ()), *vars(metric.result()).values()]
    other = pickle.loads(pickle.dumps(metric))  # noqa: S301
    other.merge_state(metric)
    found.append(other.compute())
    metric.persistent(True)
    other.load_state_dict(metric.state_dict())
    found.append(other.compute())
    metric.reset()
    return found


def assert_alike(actual: Any, expected: Any) -> None:
    """Assert the same values, dtypes and devices."""
    if isinstance(expected, list | tuple):
        for one, other in zip(actual, expected, strict=True):
            assert_alike(one, other)
    elif isinstance(expected, Tensor):
        assert (actual.dtype, actual.device) == (expected.dtype, expected.device)
        assert_same(actual, expected)
    else:
        assert str(actual) == str(expected)


@each_default
@each_metric
def test_metrics_under_any_default(default: Callable[[], Any], make: Callable[[], Any]) -> None:
    """Whatever the default device and dtype are around its calls, a metric answers the same."""
    expected, metric = life_of(make()), make()
    with default():
        assert_alike(life_of(metric), expected)
        assert_alike(life_of(make()), expected)  # a metric that is made on "meta" goes to its first data


@each_default
@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS.keys())
def test_functions_under_any_default(default: Callable[[], Any], function: Callable[..., Any]) -> None:
    """Whatever the default device and dtype are, functions answer the same, of tensors and of arrays."""
    settings = [((MAPS, MASKS), {}), ((MAPS.double(), TARGET), {"ignore_index": 255})]
    settings.append((([*MAPS.numpy()], [*MASKS.numpy()]), {}))
    expected = [function(*images, **each) for images, each in settings]
    with default():
        assert_alike([function(*images, **each) for images, each in settings], expected)


@each_default
def test_au_spro_under_any_default(default: Callable[[], Any]) -> None:
    """The same of the function that takes regions."""
    regions = [mask[None][: int(mask.any())] for mask in MASKS]
    areas = [[3] * len(each) for each in regions]
    settings = [(MAPS, regions), (MAPS.double(), regions), ([*MAPS.numpy()], [each.numpy() for each in regions])]
    expected = [functional.au_spro(*each, areas, 0.3, reduction="none") for each in settings]
    with default():
        assert_alike([functional.au_spro(*each, areas, 0.3, reduction="none") for each in settings], expected)


@each_default
def test_files_under_any_default(default: Callable[[], Any], tmp_path: Path) -> None:
    """Saving and loading answer the same, whatever the default device and dtype are."""
    metric = AUPIMO(**BOUNDS)
    metric.update(MAPS, MASKS, image_ids=TEXTS[:8])
    result = metric.result()
    with default():
        result.save(tmp_path / "aupimos.json")
        result.curves().save(tmp_path / "curves.pt")
        for name in ("aupimos.json", "aupimos.safetensors"):
            loaded = AUPIMOResult.load(tmp_path / name)
            assert_alike([loaded.aupimos, *loaded.curves(), loaded.threshold_at(0.1)],
                         [result.aupimos, *result.curves(), result.threshold_at(0.1)])  # fmt: skip
        assert_alike([*PIMOResult.load(tmp_path / "curves.pt")], [*result.curves()])
        (tmp_path / "aupimos.safetensors").unlink()
        assert_alike(AUPIMOResult.load(tmp_path / "aupimos.json").aupimos, result.aupimos)


@each_metric
def test_states_that_were_saved_while_gathered(make: Callable[[], Any]) -> None:
    """States saved inside of `sync_context` are those of all processes, and can be loaded, merged and updated."""
    metric, loaded, merged, expected = updated(make(), ONCE), make(), make(), updated(make(), 2 * ONCE)
    metric.persistent(True)
    with metric.sync_context(dist_sync_fn=AS_TWO["dist_sync_fn"], distributed_available=lambda: True):
        saved = metric.state_dict()
        merged.merge_state(metric.metric_state)
    loaded.load_state_dict(saved)
    for _ in range(2):
        for each in (loaded, merged):
            assert_same(each.compute(), expected.compute(), atol=1e-7)  # order of summation
            updated(each, ONCE)
        updated(expected, ONCE)


@each_metric
def test_a_metric_from_a_machine_with_another_device(make: Callable[[], Any]) -> None:
    """A metric that was unpickled on a machine without its GPU is where its states are."""
    metric, expected = updated(make(), ONCE), updated(make(), 2 * ONCE)
    metric._device = torch.device("cuda:0")  # what `torch.load(..., map_location="cpu")` leaves
    metric = pickle.loads(pickle.dumps(metric))  # noqa: S301
    assert metric.device == torch.device("cpu")
    assert_same(updated(metric, ONCE).compute(), expected.compute())
    assert_same(metric.to("cpu").compute(), expected.compute())
    metric.reset()
    assert_same(updated(metric, ONCE).compute(), updated(make(), ONCE).compute())


SETTINGS: list[tuple[type[Any], dict[str, Any], dict[str, Any], str]] = [
    (AUPIMO, {}, {"num_thresholds": 300}, r"`num_thresholds` is 300 and None"),
    (AUPIMO, {}, {"fpr_bounds": (1e-5, 1e-3)}, r"`fpr_bounds` is \[1e-05, 0.0001\] and \[1e-05, 0.001\]"),
    (AUPIMO, {"normal_buffer": 16}, {"normal_buffer": None}, "`normal_buffer` is 16 and None"),
    (AUPIMO, {}, {"reduction": "none"}, "`reduction` is mean and none"),
    (AUPIMO, {}, {"shared_fpr": "max", "ignore_index": 9}, "`shared_fpr` is max and mean, `ignore_index` is 9"),
    (PIMO, {}, {"num_thresholds": 9}, "`num_thresholds` is 9 and None"),
    (AUPRO, {"fpr_limit": 0.1}, {}, "`fpr_limit` is 0.1 and 0.3"),
    *((each, {}, {"num_bins": 64}, "`num_bins` is 64 and None") for each in PIXEL_METRICS),
    *((each, {}, {"image_score": "mean"}, "`image_score` is max and mean") for each in IMAGE_METRICS),
]


def errors_of_rank(rank: int, world_size: int, note: Callable[[str], Any]) -> list[str]:  # noqa: ARG001
    """What each metric says to rank `rank` if the ranks have other settings; and whether it goes on."""
    texts = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for metric_class, *settings, _ in SETTINGS:
            note(metric_class.__name__)
            metric = updated(metric_class(**settings[rank]), ONCE)
            with pytest.raises(ValueError, match="Expected") as error:
                metric.compute()
            texts.append(str(error.value))
            updated(metric, ONCE)
        texts.append(str(float(updated(AUPIMO(**BOUNDS), ONCE).compute())))  # the same settings are no error
    return texts


def test_ranks_with_other_settings_are_told_by_name() -> None:
    """All ranks get an error that names what differs, before any state is gathered, and the metric goes on."""
    ((first, second),) = run_ranks([(errors_of_rank, 2)])
    assert first == second
    for text, (*_, expected) in zip(first, SETTINGS, strict=False):
        assert re.match(f"Expected all processes to have the same settings, but {expected}", text)
    assert float(first[-1]) == float(updated(AUPIMO(**BOUNDS), 2 * ONCE).compute())


def num_calls(call: Callable[[], Any]) -> int:
    """Count the calls of functions of the package."""
    folder, count = str(Path(aupimo_torchmetrics.__file__).parent), 0

    def note(frame: Any, event: str, _: Any) -> None:
        nonlocal count
        count += event == "call" and frame.f_code.co_filename.startswith(folder)

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("size", [(64, 64), (256, 256), (400, 300)])
@pytest.mark.parametrize("normal_buffer", [None, 1000, 2**16])
def test_an_update_makes_few_calls(size: tuple[int, int], normal_buffer: int | None) -> None:
    """An update makes at most 60 calls of functions of this package, also where it chooses a floor or prunes."""
    metric = AUPIMO(normal_buffer=normal_buffer)
    for seed in range(6):
        maps, masks = make_batch("NNNNNAAA", seed, size)
        assert num_calls(lambda maps=maps, masks=masks: metric.update(maps, masks)) <= 60
