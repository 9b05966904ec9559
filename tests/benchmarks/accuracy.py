"""How far sampled AUPIMO lies from the exact score: `python tests/benchmarks/accuracy.py`.

The paper's protocol samples K thresholds evenly from the lowest to the highest normal score, however few of them lie
between the FPR bounds. Its scores are compared with the exact ones, of maps as they are and with an outlier; the
official package is measured alike if it is installed. The exact score itself is compared with a slow integration from
the definition, `tests/reference.py`, by the test suite.

A last table shows what else moves AUPIMO: other protocols on the same maps.
"""

import textwrap
import warnings

import torch
from peers import official
from torch import Tensor
from torch.nn.functional import interpolate
from workloads import Workload, updated, versions

from aupimo_torchmetrics import AUPIMO

NUMBERS_OF_THRESHOLDS = (3_000, 30_000, 300_000)
FPR_BOUNDS = (1e-5, 1e-4)
"""At the lower one lie 84 normal pixels."""
WORKLOAD = Workload("screw, 8 + 8", 8, 8, ((1024, 1024),))


def with_outlier(maps: Tensor, masks: Tensor) -> Tensor:
    """Give one normal pixel 1,000 times the largest score."""
    first_normal = int((~masks.flatten(1).any(1)).long().argmax())
    maps = maps.clone()
    maps[first_normal, 0, 0] = 1000 * maps.amax()
    return maps


def scored(num_thresholds: int | None, maps: Tensor, masks: Tensor) -> tuple[Tensor, int | None]:
    """Scores by this library, and how many thresholds lie between the bounds; None if all that there are count."""
    result = updated(AUPIMO(num_thresholds, FPR_BOUNDS), [(maps, masks)]).result()
    return result.aupimos, result.num_points


def row(name: str, found: tuple[Tensor, int | None], exact: Tensor) -> str:
    """Line of the table."""
    differences = (found[0].double() - exact)[~exact.isnan()].abs()
    num_points = "all" if found[1] is None else f"{found[1]:,}"
    return f"{name:20}{float(differences.amax()):>10.1e}{float(differences.mean()):>10.1e}{num_points:>13}"


def print_protocols(maps: Tensor, masks: Tensor, exact: Tensor) -> None:
    """Print how far the scores of other protocols lie from those of the definition."""
    is_anomalous = masks.flatten(1).any(1)
    # The pixels outside of its mask make another normal image of each anomalous one; 255 does not count.
    rests = masks[is_anomalous].to(torch.uint8) * 255
    both = torch.cat([maps, maps[is_anomalous]]), torch.cat([masks.to(torch.uint8), rests])
    highest = updated(AUPIMO(fpr_bounds=FPR_BOUNDS), [(maps, masks)]).result().threshold_at(FPR_BOUNDS[1])
    small = (
        interpolate(maps[:, None], size=256, mode="bilinear")[:, 0],
        interpolate(masks[:, None].float(), size=256)[:, 0],
    )
    protocols = {
        "300 thresholds": (300, maps, masks),
        "normal pixels of anomalous images, too": (None, *both),
        "maps and masks at 256 x 256": (None, *small),
        "maps clamped at the threshold of the upper bound": (None, maps.clamp(max=highest), masks),
    }
    print(f"\nother protocols; mean of the exact scores {float(exact.nanmean()):.4f}")
    print(f"{'':50}{'mean':>8}{'largest difference':>20}")
    for name, (num_thresholds, scores, target) in protocols.items():
        metric = updated(AUPIMO(num_thresholds, FPR_BOUNDS, ignore_index=255), [(scores, target)])
        found = metric.result().aupimos[: len(exact)]
        difference = float((found - exact)[~exact.isnan()].abs().amax())
        print(f"{name:50}{float(found.nanmean()):>8.4f}{difference:>20.3f}")


def main() -> None:
    """Print tables for the maps as they are, with an outlier, and in other protocols."""
    warnings.simplefilter("ignore")  # the table shows what they warn of
    print(versions())
    maps, masks = (torch.as_tensor(each) for each in next(WORKLOAD.batches(16)))
    stretched = with_outlier(maps, masks)
    for stress, scores in (("as it is", maps), ("one normal pixel at 1,000 times the largest score", stretched)):
        exact, _ = scored(None, scores, masks)
        print(f"\n{WORKLOAD.name}, {stress}; mean of the exact scores {float(exact.nanmean()):.4f}")
        print(f"{'':20}{'largest':>10}{'mean error':>11}{'in range':>12}")
        for number in NUMBERS_OF_THRESHOLDS:
            print(row(f"{number:,} thresholds", scored(number, scores, masks), exact))
        for number in NUMBERS_OF_THRESHOLDS:
            peer = official(number, FPR_BOUNDS)
            if peer is None:
                print("official: not installed")
                break
            try:
                answer = peer([(scores, masks)])
                print(row(f"official, {number:,}", (answer.aupimos, answer.num_threshs), exact))
            except (RuntimeError, TypeError, ValueError) as error:
                print(textwrap.shorten(f"official, {number:,}  raises: {error}", 100))
    print_protocols(maps, masks, scored(None, maps, masks)[0])


if __name__ == "__main__":
    main()
