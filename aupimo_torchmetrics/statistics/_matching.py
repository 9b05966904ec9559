"""Which scores of several models are of the same image."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from aupimo_torchmetrics._errors import BadDataError
from aupimo_torchmetrics._paths import as_name, match_by_end
from aupimo_torchmetrics._settings import MatchedBy
from aupimo_torchmetrics.results import AUPIMOResult
from aupimo_torchmetrics.statistics._ties import Scores

__all__ = ["AlignedScores", "align_scores", "match_images"]

MAX_NAMED = 3
"""How many images an error names."""


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
    (first_name, first), *others = results.items()
    matched_by = _what_to_match_by(results)
    if matched_by == "position":
        _check_same_order(results)
    orders = {first_name: list(range(len(first.aupimos)))}
    for name, other in others:
        if matched_by == "path":
            orders[name] = match_images(first.paths or (), other.paths or (), first_name, name)
        elif matched_by == "image id":
            orders[name] = _match_keys(_ids_of(first), _ids_of(other), first_name, name)
        else:
            orders[name] = _match_keys(orders[first_name], range(len(other.aupimos)), first_name, name)
    scores = {name: np.asarray(results[name].aupimos.double().cpu().numpy())[orders[name]] for name in orders}
    labels = first.paths or [f"image {index}" for index in orders[first_name]]
    for name, _ in others:
        _check_same_classes(scores[first_name], scores[name], labels, first_name, name)
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
        BadDataError: If an image has no path or no partner, if two would fit, if two images have the same path, or if
            the images are of different categories.

    Example:
        >>> from aupimo_torchmetrics.statistics._matching import match_images
        >>> match_images(["tile/test/crack/000.png", "tile/test/good/000.png"], ["good/000.npy", "crack/000.npy"])
        [1, 0]

    """
    for texts, whose in ((paths, name), (others, other_name)):
        num_missing = sum(not text for text in texts)
        if num_missing:
            raise BadDataError(
                f"Expected the images of {whose!r} to have paths, but {num_missing} of {len(texts)} have none. Score "
                "all images with their paths as `image_ids`, or none."
            )
        _check_distinct([as_name(text.replace("\\", "/")) for text in texts], texts, whose)
    matches = match_by_end(paths, others)
    if None in matches.images:  # those of the first may have an addition to the name, or hold folders in it
        back = {number: index for index, number in enumerate(match_by_end(others, paths).images)}
        if {*back} == {*range(len(paths))}:
            return [back[number] for number in range(len(paths))]
    for number, (index, second, *_) in matches.several_images.items():
        two = f"{others[index]!r} and {others[second]!r}"
        raise _not_the_same(f"{paths[number]!r} of {name!r} fits both {two} of {other_name!r}")
    for index, (number, second, *_) in matches.several_paths.items():
        two = f"{paths[number]!r} and {paths[second]!r}"
        raise _not_the_same(f"both {two} of {name!r} fit {others[index]!r} of {other_name!r}")
    if paths and others and not any(index is not None for index in matches.images):
        raise _not_the_same(
            f"no path of {name!r} fits one of {other_name!r}, as {paths[0]!r} and {others[0]!r}. Evaluate both on one "
            "data set, or score both with the same paths as `image_ids`"
        )
    return _checked_order(matches.images, paths, others, name, other_name)


def _what_to_match_by(results: Mapping[str, AUPIMOResult]) -> MatchedBy:
    """What all results have that tells their images apart."""
    if all(result.paths is not None for result in results.values()):
        return "path"
    ids = [result.image_ids for result in results.values()]
    return "image id" if all(each is not None and bool((each >= 0).all()) for each in ids) else "position"


def _check_same_order(results: Mapping[str, AUPIMOResult]) -> None:
    """Raise if results are to be matched by position, but the paths of those that have some are in different orders."""
    paths = {name: result.paths for name, result in results.items() if result.paths is not None}
    without = next(name for name in results if name not in paths)
    for (name, own), (other_name, others) in itertools.pairwise(paths.items()):
        if match_images(own, others, name, other_name) != list(range(len(own))):
            raise BadDataError(
                f"Expected `results` to have paths, but {without!r} has none, and the images of {name!r} and "
                f"{other_name!r} are in different orders."
            )


def _ids_of(result: AUPIMOResult) -> list[int]:
    """Image ids of a result."""
    return [] if result.image_ids is None else result.image_ids.tolist()


def _match_keys(keys: Sequence[int], others: Sequence[int], name: str, other_name: str) -> list[int]:
    """Index of each image id or position among the others."""
    for each, whose in ((keys, name), (others, other_name)):
        _check_distinct(each, each, whose)
    indices = {each: index for index, each in enumerate(others)}
    return _checked_order([indices.get(each) for each in keys], keys, others, name, other_name)


def _check_distinct(keys: Sequence[object], labels: Sequence[object], name: str) -> None:
    """Raise if two images have the same key."""
    first = dict(zip(reversed(keys), reversed(range(len(keys))), strict=True))
    twice = [label for index, (key, label) in enumerate(zip(keys, labels, strict=True)) if first[key] != index]
    if twice:
        raise BadDataError(
            f"Expected the images of {name!r} to be distinct, but some have the same path or id: {twice[0]!r}."
        )


def _checked_order(
    order: Sequence[int | None], labels: Sequence[object], others: Sequence[object], name: str, other_name: str
) -> list[int]:
    """Return the order; raise if images of either side have no partner."""
    alone = [label for label, index in zip(labels, order, strict=True) if index is None]
    alone += [others[index] for index in sorted({*range(len(others))} - {*order})]
    if alone:
        numbers = f"got {len(labels)} of {name!r} and {len(others)} of {other_name!r}; "
        named = ", ".join(map(repr, alone[1 : MAX_NAMED + 1]))
        rest = f" and {len(alone) - MAX_NAMED - 1} more" if len(alone) > MAX_NAMED + 1 else ""
        raise _not_the_same(
            f"{numbers if len(labels) != len(others) else ''}{alone[0]!r} is in only one of {name!r} and {other_name!r}"
            f"{f', as are {named}{rest}' if named else ''}"
        )
    return [index for index in order if index is not None]


def _check_same_classes(scores: Scores, others: Scores, labels: Sequence[str], name: str, other_name: str) -> None:
    """Raise if an image has a score of one model and none of the other."""
    is_normal, is_normal_there = np.isnan(scores), np.isnan(others)
    differing = np.flatnonzero(is_normal != is_normal_there)
    for is_all_normal, whose in ((is_normal.all(), name), (is_normal_there.all(), other_name)):
        if is_all_normal and len(differing):
            raise BadDataError(
                f"Expected `results` to have scores, but all of {whose!r} are undefined (NaN). Evaluate with normal "
                "and anomalous images."
            )
    for index in differing[:1]:
        with_score, without = (other_name, name) if is_normal[index] else (name, other_name)
        rest = f"{len(differing) - 1} other images differ" if len(differing) > 2 else "another image differs"
        more = f", and {rest}" if len(differing) > 1 else ""
        raise BadDataError(
            f"Expected `results` to have the same normal images, but {labels[index]!r} is normal (NaN) for {without!r} "
            f"and has a score for {with_score!r}{more}."
        )


def _not_the_same(reason: str) -> BadDataError:
    """Error of results that are not of the same images."""
    return BadDataError(f"Expected `results` to be of the same images, but {reason}.")
