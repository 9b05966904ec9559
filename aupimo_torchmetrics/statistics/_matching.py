"""Which scores of several models are of the same image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from aupimo_torchmetrics._errors import BadDataError
from aupimo_torchmetrics._paths import match_by_end
from aupimo_torchmetrics._settings import MatchedBy
from aupimo_torchmetrics.results import AUPIMOResult
from aupimo_torchmetrics.statistics._ties import Scores

__all__ = ["AlignedScores", "align_scores", "match_images"]


class AlignedScores(NamedTuple):
    """Scores of several models, image by image."""

    scores: dict[str, Scores]
    """(N,) of each model, in the order of the first model's images; NaN for a normal image."""
    matched_by: MatchedBy
    """What said which scores are of the same image."""
    orders: dict[str, list[int]]
    """Index in the result of each model of each of the first model's images."""


def align_scores(results: Mapping[str, AUPIMOResult]) -> AlignedScores:
    """Put the scores of several models in the order of the first model's images.

    Images are matched by their paths if all results have them (see `match_images`), else by their image ids if all
    results have these, else by their positions.

    Args:
        results: One result or more, by the name of the model.

    Returns:
        Scores of each model, which are NaN for the same images.

    Raises:
        BadDataError: If the results are not of the same images, or if they disagree about which of them are normal.

    """
    paths = {name: result.paths for name, result in results.items() if result.paths is not None}
    ids = {
        name: [f"image id {number}" for number in result.image_ids.tolist()]
        for name, result in results.items()
        if result.image_ids is not None and bool((result.image_ids >= 0).all())
    }
    positions = {name: [f"image {index}" for index in range(len(each.aupimos))] for name, each in results.items()}
    ways: dict[MatchedBy, dict[str, list[str]]] = {"path": paths, "image id": ids, "position": positions}
    matched_by, keys = next((way, keys) for way, keys in ways.items() if len(keys) == len(results))
    for name in paths if matched_by == "position" else ():
        (start, *_) = paths
        if match_images(paths[start], paths[name], start, name) != list(range(len(paths[name]))):
            raise BadDataError(
                "Expected `results` to have paths, but not all of them have, and the images of "
                f"{start!r} and {name!r} are in different orders."
            )
    (first, *_) = results
    orders = {name: match_images(keys[first], keys[name], first, name) for name in results}
    scores = {name: np.asarray(results[name].aupimos.double().cpu().numpy())[orders[name]] for name in results}
    for name in results:
        for index in np.flatnonzero(np.isnan(scores[first]) != np.isnan(scores[name])):
            normal, other = (first, name) if np.isnan(scores[first][index]) else (name, first)
            raise BadDataError(
                f"Expected `results` to have the same normal images, but {keys[first][index]!r} is normal (NaN) for "
                f"{normal!r} and has a score for {other!r}."
            )
    return AlignedScores(scores, matched_by, orders)


def match_images(
    paths: Sequence[str], others: Sequence[str], name: str = "the first", other_name: str = "the second"
) -> list[int]:
    r"""Find the image of each path among other paths by the end that both share, see `aupimo_torchmetrics._paths`.

    Args:
        paths: N paths of distinct images.
        others: N paths of the same images in any order.
        name: Whose the first paths are, for errors.
        other_name: Whose the others are.

    Returns:
        N indices: element i is the index in `others` of the image with path i. Each occurs once.

    Raises:
        BadDataError: If an image has no partner, or if two would fit, as they do where two images have the same path.

    Example:
        >>> from aupimo_torchmetrics.statistics._matching import match_images
        >>> match_images(["tile/test/crack/000.png", "tile/test/good/000.png"], ["good/000.npy", "crack/000.npy"])
        [1, 0]

    """
    matches = match_by_end(paths, others)
    if None in matches.images:  # those of the first may have an addition to the name, or hold folders in it
        back = {number: index for index, number in enumerate(match_by_end(others, paths).images)}
        if {*back} == {*range(len(paths))}:
            return [back[number] for number in range(len(paths))]
    ours, theirs = (paths, name), (others, other_name)
    unclear = [(index, numbers, ours, theirs) for index, numbers in matches.several_images.items()]
    unclear += [(number, indices, theirs, ours) for number, indices in matches.several_paths.items()]
    unclear += [(index, [], ours, theirs) for index, number in enumerate(matches.images) if number is None]
    unclear += [(number, [], theirs, ours) for number in sorted({*range(len(others))} - {*matches.images})]
    for index, fitting, (own, whose), (of_other, other) in unclear:
        fits = (
            " and ".join(repr(of_other[number]) for number in fitting[:2])
            or f"none, such as {', '.join(map(repr, of_other[:1]))},"
        )
        raise BadDataError(
            f"Expected `results` to be of the same images, but {own[index]!r} of {whose!r} ({len(own)} images) fits "
            f"{fits} of {other!r} ({len(of_other)} images)."
        )
    return [number for number in matches.images if number is not None]
