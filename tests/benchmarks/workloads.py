"""Seeded anomaly maps that look like real ones, for the benchmarks: smooth, with a heavy right tail, small defects.

Images come shuffled, as in a data loader that mixes the classes.
"""

import platform
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
import torchmetrics
from torch import Tensor
from torch.nn.functional import interpolate

import aupimo_torchmetrics

DEFECT_SHARE = 0.0029
"""Share of an image that a defect covers: 55 x 55 pixels of 1024 x 1024."""

Batch = tuple[Tensor, Tensor] | tuple[list[Tensor], list[Tensor]]


class Workload(NamedTuple):
    """A data set to score."""

    name: str
    num_normal: int
    num_anomalous: int
    sizes: tuple[tuple[int, int], ...]
    """Height and width of the images; with several, images take them in turn."""
    dtype: torch.dtype = torch.float32

    def batches(self, batch_size: int, seed: int = 0) -> Iterator[Batch]:
        """Yield maps and masks (n, H, W), or lists of them (H, W) if sizes are mixed."""
        generator = torch.Generator().manual_seed(seed)
        num_images = self.num_normal + self.num_anomalous
        is_anomalous = torch.randperm(num_images, generator=generator) >= self.num_normal
        for places in torch.arange(num_images).split(batch_size):
            sizes = [self.sizes[place % len(self.sizes)] for place in places.tolist()]
            images = [
                self._image(bool(is_anomalous[place]), size, generator)
                for place, size in zip(places.tolist(), sizes, strict=True)
            ]
            maps, masks = (list(each) for each in zip(*images, strict=True))
            yield (torch.stack(maps), torch.stack(masks)) if len(self.sizes) == 1 else (maps, masks)

    def _image(self, is_anomalous: bool, size: tuple[int, int], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Map (H, W) and mask (H, W) of one image."""
        height, width = size
        coarse = torch.randn(1, 1, max(2, height // 16), max(2, width // 16), generator=generator)
        anomaly_map = interpolate(coarse, size=size, mode="bilinear")[0, 0].exp()
        anomaly_map += 0.05 * torch.randn(size, generator=generator)
        mask = torch.zeros(size, dtype=torch.bool)
        if is_anomalous:
            side = max(1, round((DEFECT_SHARE * height * width) ** 0.5))
            row, column = (int(torch.randint(0, length - side, (), generator=generator)) for length in size)
            mask[row : row + side, column : column + side] = True
            anomaly_map += 20 * mask * torch.rand(size, generator=generator)
        return anomaly_map.to(self.dtype), mask


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("256", 20, 63, ((256, 256),)),
        Workload("screw", 41, 119, ((1024, 1024),)),
        Workload("visa", 101, 100, ((1562, 960),)),
        Workload("mixed", 41, 119, ((1024, 1024), (768, 1024), (900, 701))),
        Workload("float16", 41, 119, ((1024, 1024),), torch.float16),
        Workload("32", 8, 24, ((1024, 1024),)),
        Workload("96", 24, 72, ((256, 256),)),
        Workload("odd", 8, 24, ((1023, 1023),)),
        Workload("prime", 2, 2, ((4099, 4099),)),
    )
}
"""Sizes of MVTec AD's bottle in small and screw, of VisA, of mixed images, in half precision; small sets, and sizes
without a convenient divisor."""


def updated(metric: Any, batches: Iterable[Batch]) -> Any:
    """Return the metric after an update with each batch."""
    for maps, masks in batches:
        metric.update(maps, masks)
    return metric


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def versions() -> str:
    """What figures depend on."""
    packages = {"aupimo-torchmetrics": aupimo_torchmetrics, "torch": torch, "torchmetrics": torchmetrics}
    found = ", ".join(f"{name} {package.__version__}" for name, package in packages.items())
    return f"{found}, Python {platform.python_version()}, {platform.machine()}, {torch.get_num_threads()} threads"
