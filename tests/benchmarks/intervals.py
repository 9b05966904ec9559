"""How often intervals hold the value of very many images, and how often a test calls equal models different.

Data are drawn from three worlds. In the first, images are alike: what varies is the noise of their pixels. In the
second, each image has a small effect of its own, which moves all of its scores, and a defect is seen more or less well.
In the third the effects are large, so that few normal images carry the FPR. The value to be held is that of a large set
of images of the world. Two models that are equal in law see the same defects with noise of their own, so a test at the
5 % level should call them different in 5 of 100 cases.

    python tests/benchmarks/intervals.py

prints what intervals cost, how often they hold, and how often tests call equal models different. It takes half an hour.
"""

import resource
import time
from collections import Counter
from typing import NamedTuple

import torch
from scipy import stats
from torch import Tensor
from workloads import updated

from aupimo_torchmetrics import AUPIMO, AUPRO, PixelAUROC, PixelAveragePrecision, PixelF1Max
from aupimo_torchmetrics._engine.binning import PixelCounter, bin_edges
from aupimo_torchmetrics._engine.resampling import SEED, Draws, expanded_interval, formula_of, interval_of
from aupimo_torchmetrics._metric_counts import MetricCounts, counts_of_result
from aupimo_torchmetrics.statistics import compare_models

SIZE = 24
"""Height and width of a map."""
FPR_LIMIT = 0.3
METRICS = {
    "auroc": PixelAUROC,
    "aupr": PixelAveragePrecision,
    "f1_max": PixelF1Max,
    "aupro": AUPRO,
}
NUM_TRUE = 10_000
"""Images of each class of the set whose value is to be held."""


class World(NamedTuple):
    """Where images come from."""

    effect: float
    """Standard deviation of what moves all scores of an image; that of a pixel is 1."""
    contrast: float
    """Standard deviation of how well the defect of an image is seen, by all models; the mean is 2."""
    fpr_bounds: tuple[float, float]


WORLDS = {
    "images alike": World(0.0, 0.0, (1e-3, 1e-2)),
    "effects of images": World(0.3, 0.3, (1e-3, 1e-2)),
    "few images carry the FPR": World(1.0, 1.0, (1e-3, 1e-2)),
}


def draw_masks(num_images: int, generator: torch.Generator) -> Tensor:
    """Masks (2n, H, W) of n normal images, and of n with one rectangle or two."""
    masks = torch.zeros(2 * num_images, SIZE, SIZE, dtype=torch.bool)
    places = torch.randint(0, SIZE - 8, (num_images, 4), generator=generator)
    sizes = torch.randint(2, 9, (num_images, 4), generator=generator)
    for mask, (row, column, row_2, column_2), (height, width, height_2, width_2) in zip(
        masks[num_images:], places.tolist(), sizes.tolist(), strict=True
    ):
        mask[row : row + height, column : column + width] = True
        if height_2 % 2:
            mask[row_2 : row_2 + height_2, column_2 : column_2 + width_2] = True
    return masks


def draw_maps(world: World, masks: Tensor, contrast: Tensor, generator: torch.Generator) -> Tensor:
    """Maps (N, H, W) of a model: noise, the effect of the image, and in the mask what makes a defect seen (N,)."""
    maps = torch.randn(masks.shape, generator=generator)
    maps += world.effect * torch.randn((len(masks), 1, 1), generator=generator)
    own = world.contrast / 2 * torch.randn(len(masks), generator=generator)
    return maps + masks * (contrast + own)[:, None, None]


def draw_contrast(world: World, masks: Tensor, generator: torch.Generator) -> Tensor:
    """How well the defect of each image is seen (N,)."""
    return 2 + world.contrast * torch.randn(len(masks), generator=generator)


def count(world: World, maps: Tensor, masks: Tensor) -> dict[str, MetricCounts]:
    """All metrics of some images, with the counts of each image."""
    of_aupimo = counts_of_result(updated(AUPIMO(fpr_bounds=world.fpr_bounds), [(maps, masks)]).result())
    assert of_aupimo is not None
    counter = PixelCounter(bin_edges(maps[~masks], maps[masks], len(maps)))
    for anomaly_map, mask in zip(maps, masks, strict=True):
        counter.add(anomaly_map, mask, None, [])
    counts = counter.counts().of_regions(is_annotated=False)
    found = {"aupimo": of_aupimo}
    for name, of_pixels in METRICS.items():
        value = updated(of_pixels(), [(maps, masks)]).result().value
        found[name] = MetricCounts(name, value, "", counts, formula_of(name, FPR_LIMIT), of_aupimo.units)
    return found


def true_values(world: World) -> dict[str, float]:
    """Metrics of a large set of images."""
    generator = torch.Generator().manual_seed(2**31)
    masks = draw_masks(NUM_TRUE, generator)
    maps = draw_maps(world, masks, draw_contrast(world, masks, generator), generator)
    metrics = {"aupimo": AUPIMO(fpr_bounds=world.fpr_bounds), **{name: make() for name, make in METRICS.items()}}
    return {name: float(updated(metric, [(maps, masks)]).compute()) for name, metric in metrics.items()}


def coverage(world: World, num_images: int, num_sets: int, num_resamples: int) -> dict[str, float]:
    """Share of the sets of images whose 95 % interval holds the value of very many images, by metric."""
    true, held = true_values(world), Counter[str]()
    for index in range(num_sets):
        generator = torch.Generator().manual_seed(index)
        masks = draw_masks(num_images, generator)
        counts = count(world, draw_maps(world, masks, draw_contrast(world, masks, generator), generator), masks)
        draws = Draws(counts["aupimo"].units, num_resamples, SEED)
        for name, each in counts.items():
            lower, upper = expanded_interval(each.resampled(draws), num_images)
            held[name] += lower <= true[name] <= upper
    return {name: held[name] / num_sets for name in true}


def false_alarms(world: World, num_images: int, num_sets: int, num_resamples: int) -> dict[str, float]:
    """Share of the pairs of models, equal in law, that are called different at the 5 % level, by test."""
    found = Counter[str]()
    for index in range(num_sets):
        generator = torch.Generator().manual_seed(index)
        masks = draw_masks(num_images, generator)
        contrast, results = draw_contrast(world, masks, generator), {}
        for name in "ab":
            batch = (draw_maps(world, masks, contrast, generator), masks)
            results[name] = updated(AUPIMO(fpr_bounds=world.fpr_bounds), [batch]).result()
        comparison = compare_models(results, "resampled", "two-sided", num_resamples=num_resamples)
        one, other = (result.aupimos[num_images:].numpy() for result in results.values())
        found["resampled images"] += comparison.confidence["a", "b"] >= 0.95
        found["Wilcoxon test"] += stats.wilcoxon(one, other).pvalue <= 0.05
        found["t-test"] += stats.ttest_rel(one, other).pvalue <= 0.05
    return {test: number / num_sets for test, number in found.items()}


def print_cost() -> None:
    """Print the time and memory of the intervals of four metrics, from 1,000 resamples of 200 images."""
    world, generator = WORLDS["effects of images"], torch.Generator().manual_seed(0)
    masks = draw_masks(100, generator)
    counts = count(world, draw_maps(world, masks, draw_contrast(world, masks, generator), generator), masks)
    draws = Draws(counts["aupimo"].units, 1000, SEED)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    for name in ("aupimo", "auroc", "aupr", "aupro"):
        each = counts[name]
        interval_of(each.resampled(draws), each.bounds(draws), each.units.fewest)
    seconds = time.perf_counter() - start
    megabytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"1,000 resamples of 200 images, four metrics: {seconds:.2f} s, {megabytes:.0f} MiB", flush=True)


def main() -> None:
    """Print what intervals cost, how often they hold, and how often tests are wrong."""
    print_cost()
    torch.set_num_threads(1)  # faster for data as small as these
    for text, shares_of in (("held", coverage), ("called different", false_alarms)):
        for name, world in WORLDS.items():
            for num_images in (20, 50, 100, 200):
                shares = shares_of(world, num_images, 400, 400)
                shown = "  ".join(f"{each} {share:.1%}" for each, share in shares.items())
                print(f"{name}, {num_images} of each class, {text}: {shown}", flush=True)


if __name__ == "__main__":
    main()
