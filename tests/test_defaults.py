"""Every tensor is made on the device and in the dtype of the data, whatever the defaults of torch are, and states fit.

The default device is "meta" here, which keeps no values: a tensor that is made there by mistake cannot be read.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import AS_TWO, TEXTS, MakeMetric, assert_same, each_metric, make_batch, updated
from torch import Tensor

import aupimo_torchmetrics
from aupimo_torchmetrics import AUPIMO, PIMO, AUPIMOResult, PIMOResult, functional

BOUNDS = {"fpr_bounds": (1e-2, 0.3)}
MAPS, MASKS = make_batch("NANANANA", 0)
ONCE = [(MAPS, MASKS)]
TARGET = MASKS.long().index_fill(2, torch.arange(3), 255)


def au_spro(maps: Any, masks: Any, ignore_index: int | None = None) -> Any:
    """The function that takes regions; here each image with a mask has one."""
    regions = [mask[None][: int((mask == 1).any())] == 1 for mask in masks]
    del ignore_index  # which it does not know
    return functional.au_spro(maps, regions, [[3] * len(each) for each in regions], 0.3, reduction="none")


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "au_spro": au_spro,
    "aupimo": lambda *images, **settings: functional.aupimo(*images, reduction="none", **BOUNDS, **settings),
    "aupimo, sampled": lambda *images, **settings: functional.aupimo(*images, 300, **BOUNDS, **settings),
    **{name: getattr(functional, name) for name in ("pimo", "aupro", "pixel_auroc", "pixel_average_precision")},
    "aupro of regions": lambda *images, **settings: functional.aupro(*images, reduction="none", **settings),
    "image_auroc": lambda *images, **settings: functional.image_auroc(*images, "mean", **settings),
    "image_f1_max": lambda *images, **settings: functional.image_f1_max(*images, return_threshold=True, **settings),
    "pixel_f1_max": lambda *images, **settings: functional.pixel_f1_max(*images, return_threshold=True, **settings),
}
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of few pixels


@contextmanager
def default(device: str, dtype: torch.dtype) -> Iterator[None]:
    """Set the default device and dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)


DEFAULTS = (("meta", torch.float64), ("cpu", torch.bfloat16))


def life_of(metric: Any) -> list[Any]:
    """What a metric answers in its life, from the first update to a reset."""
    is_score = isinstance(metric, AUPIMO | PIMO)
    metric.update(MAPS[:4], MASKS[:4], **({"image_ids": TEXTS[:4]} if is_score else {}))
    metric.update([*MAPS[4:6]], [*MASKS[4:6].float()], **({"image_ids": TEXTS[4:6]} if is_score else {}))
    found = [metric.compute(), metric(MAPS[6:].half(), MASKS[6:]), metric.compute()]
    if isinstance(metric, AUPIMO):
        result = metric.result()
        point = result.operating_point(fpr=result.fpr_bounds[1])
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


@each_metric
def test_metrics_under_any_default(make_metric: MakeMetric) -> None:
    """Whatever the default device and dtype are around its calls, a metric answers the same."""
    expected = life_of(make_metric())
    for each in DEFAULTS:
        metric = make_metric()
        with default(*each):
            assert_alike(life_of(metric), expected)
            assert_alike(life_of(make_metric()), expected)  # a metric that is made on "meta" goes to its first data


def test_ids_beside_ignored_images_under_any_default() -> None:
    """An image whose every pixel is ignored takes its id along, and the others keep theirs."""
    target = MASKS.long()
    target[2] = 255
    metric = AUPIMO(ignore_index=255, **BOUNDS)
    with default("meta", torch.float64), pytest.warns(UserWarning, match="were skipped"):
        metric.update(MAPS, target, image_ids=range(10, 10 + len(MAPS)))
    assert metric.result().image_ids.tolist() == [index for index in range(10, 10 + len(MAPS)) if index != 12]


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS.keys())
def test_functions_under_any_default(function: Callable[..., Any]) -> None:
    """Whatever the default device and dtype are, functions answer the same, of tensors and of arrays."""
    settings = [((MAPS, MASKS), {}), ((MAPS.double(), TARGET), {"ignore_index": 255})]
    settings.append((([*MAPS.numpy()], [*MASKS.numpy()]), {}))
    expected = [function(*images, **options) for images, options in settings]
    for each in DEFAULTS:
        with default(*each):
            assert_alike([function(*images, **options) for images, options in settings], expected)


@pytest.mark.parametrize(("device", "dtype"), DEFAULTS)
def test_files_under_any_default(device: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """Saving and loading answer the same, whatever the default device and dtype are."""
    metric = AUPIMO(**BOUNDS)
    metric.update(MAPS, MASKS, image_ids=TEXTS[:8])
    result = metric.result()
    with default(device, dtype):
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
def test_states_that_were_saved_while_gathered(make_metric: MakeMetric) -> None:
    """States saved inside of `sync_context` are those of all processes, and can be loaded, merged and updated."""
    metric, loaded, merged, expected = (
        updated(make_metric(), ONCE),
        make_metric(),
        make_metric(),
        updated(make_metric(), 2 * ONCE),
    )
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
def test_a_metric_from_a_machine_with_another_device(make_metric: MakeMetric) -> None:
    """A metric that was unpickled on a machine without its GPU is where its states are."""
    metric, expected = updated(make_metric(), ONCE), updated(make_metric(), 2 * ONCE)
    metric._device = torch.device("cuda:0")  # what `torch.load(..., map_location="cpu")` leaves
    metric = pickle.loads(pickle.dumps(metric))  # noqa: S301
    assert metric.device == torch.device("cpu")
    assert_same(updated(metric, ONCE).compute(), expected.compute())
    assert_same(metric.to("cpu").compute(), expected.compute())
    metric.reset()
    assert_same(updated(metric, ONCE).compute(), updated(make_metric(), ONCE).compute())


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


@pytest.mark.parametrize(("size", "normal_buffer"), [((64, 64), 1000), ((256, 256), None), ((400, 300), 2**16)])
def test_an_update_makes_few_calls(size: tuple[int, int], normal_buffer: int | None) -> None:
    """An update makes at most 60 calls of functions of this package, also where it chooses a floor or prunes."""
    metric = AUPIMO(normal_buffer=normal_buffer)
    for seed in range(6):
        maps, masks = make_batch("NNNNNAAA", seed, size)
        assert num_calls(lambda maps=maps, masks=masks: metric.update(maps, masks)) <= 60
