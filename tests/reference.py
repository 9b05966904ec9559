"""Slow reference of AUPIMO: loops over thresholds and images in float64, written from the definition of the metric.

A threshold `t` calls a pixel anomalous iff its score is at least `t`; an image is normal iff its mask is empty. Nothing
of the library is imported. Images are lists of arrays (H, W) in any sizes; scores of normal images are NaN.

Source: arXiv 2401.01984.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Images: TypeAlias = list[NDArray[Any]]


def shared_fpr(maps: Images, masks: Images, threshold: float, shared_by: str = "mean") -> float:
    """Mean or maximum over the normal images of the share of their pixels at or above the threshold."""
    shares = []
    for anomaly_map, mask in zip(maps, masks, strict=True):
        if not mask.any():
            shares.append(np.count_nonzero(anomaly_map >= threshold) / anomaly_map.size)
    return max(shares) if shared_by == "max" else math.fsum(shares) / len(shares)


def tpr(anomaly_map: NDArray[Any], mask: NDArray[Any], threshold: float) -> float:
    """Share of the mask pixels at or above the threshold."""
    return np.count_nonzero(anomaly_map[mask] >= threshold) / np.count_nonzero(mask)


def distinct_scores(maps: Images) -> list[float]:
    """All distinct scores of all images, falling."""
    scores: set[float] = set()
    for anomaly_map in maps:
        scores.update(anomaly_map.astype(np.float64).ravel().tolist())
    return sorted(scores, reverse=True)


def aupimo(maps: Images, masks: Images, fpr_bounds: tuple[float, float], shared_by: str = "mean") -> list[float]:
    """Score each image by the area under its curve, a polyline through all of its points, over the log of the FPR."""
    thresholds = distinct_scores(maps)
    fpr = [0.0] + [shared_fpr(maps, masks, threshold, shared_by) for threshold in thresholds]
    scores = []
    for anomaly_map, mask in zip(maps, masks, strict=True):
        if mask.any():
            recall = [0.0] + [tpr(anomaly_map, mask, threshold) for threshold in thresholds]
            scores.append(area_over_log(fpr, recall, fpr_bounds) / math.log(fpr_bounds[1] / fpr_bounds[0]))
        else:
            scores.append(math.nan)
    return scores


def area_over_log(x: list[float], y: list[float], bounds: tuple[float, float]) -> float:
    """Integrate `y(x) dx / x` between the bounds, segment by segment, for a polyline of ascending `x`."""
    area = 0.0
    for i in range(len(x) - 1):
        start, end = max(x[i], bounds[0]), min(x[i + 1], bounds[1])
        if end > start:  # a jump has no width
            slope = (y[i + 1] - y[i]) / (x[i + 1] - x[i])
            log_width = math.log(end / start)
            area += y[i] * log_width + slope * ((end - start) - x[i] * log_width)
    return area


def sampled_thresholds(maps: Images, masks: Images, num_thresholds: int) -> NDArray[Any]:
    """Thresholds of the paper's protocol: evenly from the lowest to the highest normal score, in the maps' dtype."""
    normal_maps = [anomaly_map for anomaly_map, mask in zip(maps, masks, strict=True) if not mask.any()]
    lowest = min(float(anomaly_map.min()) for anomaly_map in normal_maps)
    highest = max(float(anomaly_map.max()) for anomaly_map in normal_maps)
    return np.linspace(lowest, highest, num_thresholds, dtype=np.float64).astype(maps[0].dtype)


def sampled_range(fpr: list[float], fpr_bounds: tuple[float, float]) -> tuple[int, int]:
    """Numbers of the thresholds whose shared FPR is nearest to the upper and to the lower bound, first of equals."""
    lower, upper = fpr_bounds
    to_upper = [abs(level - upper) for level in fpr]
    to_lower = [abs(level - lower) for level in fpr]
    return to_upper.index(min(to_upper)), to_lower.index(min(to_lower))


def sampled_aupimo(
    maps: Images, masks: Images, fpr_bounds: tuple[float, float], num_thresholds: int, shared_by: str = "mean"
) -> tuple[list[float], tuple[float, float], int]:
    """Return the scores of the paper's protocol, the thresholds at the upper and lower bound, and how many it uses."""
    thresholds = sampled_thresholds(maps, masks, num_thresholds)
    fpr = [shared_fpr(maps, masks, threshold, shared_by) for threshold in thresholds]
    first, last = sampled_range(fpr, fpr_bounds)
    used = [k for k in range(first, last + 1) if fpr[k] > 0]
    scores = []
    for anomaly_map, mask in zip(maps, masks, strict=True):
        if not mask.any():
            scores.append(math.nan)
            continue
        area = 0.0
        for k, next_k in itertools.pairwise(used):
            mean_recall = (tpr(anomaly_map, mask, thresholds[k]) + tpr(anomaly_map, mask, thresholds[next_k])) / 2
            area += mean_recall * math.log(fpr[k] / fpr[next_k])
        scores.append(min(1.0, max(0.0, area / math.log(fpr_bounds[1] / fpr_bounds[0]))))
    return scores, (float(thresholds[first]), float(thresholds[last])), len(used)


def threshold_at(maps: Images, masks: Images, fpr: float, shared_by: str = "mean") -> float:
    """Smallest normal score with a shared FPR of at most `fpr`, or the next float above the highest; NaN above +inf."""
    normal_maps = [anomaly_map for anomaly_map, mask in zip(maps, masks, strict=True) if not mask.any()]
    candidates = [score for score in distinct_scores(normal_maps) if shared_fpr(maps, masks, score, shared_by) <= fpr]
    if candidates:
        return min(candidates)
    highest = max(anomaly_map.max() for anomaly_map in normal_maps)
    return math.nan if highest == math.inf else float(np.nextafter(highest, highest.dtype.type(math.inf)))


def regions(mask: NDArray[Any]) -> list[set[tuple[int, int]]]:
    """Sets of the pixels of a mask that hang together by edges or corners, in the order of their first pixels."""
    left = {(int(row), int(column)) for row, column in zip(*np.nonzero(mask), strict=True)}
    found = []
    for first in sorted(left):
        if first not in left:
            continue
        region, border = set(), [first]
        left.remove(first)
        while border:
            row, column = border.pop()
            region.add((row, column))
            for step in itertools.product((-1, 0, 1), repeat=2):
                neighbour = (row + step[0], column + step[1])
                if neighbour in left:
                    left.remove(neighbour)
                    border.append(neighbour)
        found.append(region)
    return found


def aupro(maps: Images, masks: Images, fpr_limit: float) -> list[float]:
    """Score each region by the area under its curve of recall over the share of all pixels outside of masks."""
    thresholds = distinct_scores(maps)
    outside = np.concatenate([anomaly_map[~mask].ravel() for anomaly_map, mask in zip(maps, masks, strict=True)])
    fpr = [0.0] + [np.count_nonzero(outside >= threshold) / outside.size for threshold in thresholds]
    scores = []
    for anomaly_map, mask in zip(maps, masks, strict=True):
        for region in regions(mask):
            inside = np.array([anomaly_map[pixel] for pixel in region])
            recall = [0.0] + [np.count_nonzero(inside >= threshold) / inside.size for threshold in thresholds]
            scores.append(area(fpr, recall, fpr_limit) / fpr_limit)
    return scores


def au_spro(maps: Images, regions: list[Images], areas: list[list[int]], fpr_limit: float) -> list[float]:
    """Score each region by the area under its curve of saturated overlap, at every threshold."""
    thresholds = distinct_scores(maps)
    unions = [np.any([np.zeros_like(each, dtype=bool), *of], axis=0) for each, of in zip(maps, regions, strict=True)]
    outside = np.concatenate([each[~union].ravel() for each, union in zip(maps, unions, strict=True)])
    fpr = [0.0] + [np.count_nonzero(outside >= threshold) / outside.size for threshold in thresholds]
    scores = []
    for anomaly_map, masks, saturations in zip(maps, regions, areas, strict=True):
        for mask, saturation in zip(masks, saturations, strict=True):
            whole = min(saturation, np.count_nonzero(mask))
            found = [np.count_nonzero(anomaly_map[mask] >= threshold) for threshold in thresholds]
            scores.append(area(fpr, [0.0] + [min(number, whole) / whole for number in found], fpr_limit) / fpr_limit)
    return scores


def area(x: list[float], y: list[float], limit: float) -> float:
    """Integrate `y(x) dx` from 0 to a limit, segment by segment, for a polyline of ascending `x`."""
    total = 0.0
    for i in range(len(x) - 1):
        end = min(x[i + 1], limit)
        if end > x[i]:  # a jump has no width
            slope = (y[i + 1] - y[i]) / (x[i + 1] - x[i])
            total += (end - x[i]) * (y[i] + slope * (end - x[i]) / 2)
    return total


def auroc(scores: NDArray[Any], is_anomalous: NDArray[Any]) -> float:
    """Share of the pairs of an anomalous and another pixel of which the anomalous one scores higher; a tie is half."""
    wins = 0.0
    for score in scores[is_anomalous]:
        wins += np.count_nonzero(scores[~is_anomalous] < score) + np.count_nonzero(scores[~is_anomalous] == score) / 2
    return wins / (np.count_nonzero(is_anomalous) * np.count_nonzero(~is_anomalous))


def average_precision(scores: NDArray[Any], is_anomalous: NDArray[Any]) -> float:
    """Precision at each distinct threshold, weighted by how much recall it adds."""
    total, recall = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        found = scores >= threshold
        next_recall = np.count_nonzero(found & is_anomalous) / np.count_nonzero(is_anomalous)
        total += (next_recall - recall) * np.count_nonzero(found & is_anomalous) / np.count_nonzero(found)
        recall = next_recall
    return total


def f1_max(scores: NDArray[Any], is_anomalous: NDArray[Any]) -> tuple[float, float]:
    """Highest F1 score of the thresholds at all distinct scores, and the lowest threshold that reaches it."""
    best = (0.0, math.inf)
    for threshold in sorted(set(scores.tolist()), reverse=True):
        found = scores >= threshold
        num_right = np.count_nonzero(found & is_anomalous)
        score = 2 * num_right / (np.count_nonzero(found) + np.count_nonzero(is_anomalous))
        if score >= best[0]:
            best = (score, threshold)
    return best


def resize(image: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Resize bilinearly, with the corners of the outermost pixels, not their centres, in line."""
    resized = np.empty((height, width))
    for row, column in itertools.product(range(height), range(width)):
        y = min(max((row + 0.5) * image.shape[0] / height - 0.5, 0), image.shape[0] - 1)
        x = min(max((column + 0.5) * image.shape[1] / width - 0.5, 0), image.shape[1] - 1)
        top, left = int(y), int(x)
        bottom, right = min(top + 1, image.shape[0] - 1), min(left + 1, image.shape[1] - 1)
        above = image[top, left] * (1 - (x - left)) + image[top, right] * (x - left)
        below = image[bottom, left] * (1 - (x - left)) + image[bottom, right] * (x - left)
        resized[row, column] = above * (1 - (y - top)) + below * (y - top)
    return resized


def all_metrics(
    maps: Images, masks: Images, fpr_limit: float = 0.3, image_scores: list[float] | None = None
) -> dict[str, float]:
    """Each metric of pixels and of images by its name; the score of an image is its highest, unless it is given."""
    found = {"aupro": sum(regions := aupro(maps, masks, fpr_limit)) / len(regions)}
    pixels = np.concatenate([each.ravel() for each in maps]), np.concatenate([each.ravel() for each in masks])
    highest = [each.max() for each in maps] if image_scores is None else image_scores
    for prefix, both in (("", pixels), ("image_", (np.array(highest), np.array([each.any() for each in masks])))):
        found[f"{prefix}auroc"] = auroc(*both)
        found[f"{prefix}aupr"] = average_precision(*both)
        found[f"{prefix}f1_max"] = f1_max(*both)[0]
    return found
