"""Which scores of several models are of the same image."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
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
    own_scores = _as_array(first)
    labels = first.paths if first.paths is not None else [f"image {index}" for index in range(len(own_scores))]
    aligned = AlignedScores({first_name: own_scores}, matched_by, {first_name: list(range(len(own_scores)))})
    for name, other in others:
        if matched_by == "path":
            order = match_images(first.paths or (), other.paths or (), first_name, name)
        elif matched_by == "image id":
            order = _match_ids(_ids_of(first), _ids_of(other), first_name, name)
        else:
            _check_equal_numbers(len(own_scores), len(other.aupimos), first_name, name)
            order = aligned.orders[first_name]
        aligned.orders[name] = order
        aligned.scores[name] = _as_array(other)[order]
        _check_same_classes(own_scores, aligned.scores[name], labels, first_name, name)
    return aligned


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
    order = [index for index in matches.images if index is not None]
    if not order:  # those of the first may have an addition to the name, or hold folders in it
        back = [index for index in match_by_end(others, paths).images if index is not None]
        order = [back.index(number) for number in range(len(paths))] if len({*back}) == len(paths) else []
    if len(order) == len(paths) == len(others):
        return order
    for number, (index, *more) in matches.several_images.items():
        two = f"{others[index]!r} and {others[more[0]]!r}"
        raise _not_the_same(f"{paths[number]!r} of {name!r} fits both {two} of {other_name!r}")
    for index, (number, *more) in matches.several_paths.items():
        two = f"{paths[number]!r} and {paths[more[0]]!r}"
        raise _not_the_same(f"both {two} of {name!r} fit {others[index]!r} of {other_name!r}")
    alone = [path for path, index in zip(paths, matches.images, strict=True) if index is None]
    alone += [other for index, other in enumerate(others) if index not in {*order}]
    _check_equal_numbers(len(paths), len(others), name, other_name, alone)
    if not order:
        raise _not_the_same(
            f"no path of {name!r} fits one of {other_name!r}, as {paths[0]!r} and {others[0]!r}. Evaluate both on one "
            "data set, or score both with the same paths as `image_ids`"
        )
    raise _alone(alone, name, other_name)


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


def _match_ids(ids: Sequence[int], others: Sequence[int], name: str, other_name: str) -> list[int]:
    """Index of each id among the others."""
    for each, whose in ((ids, name), (others, other_name)):
        _check_distinct(each, each, whose)
    _check_equal_numbers(len(ids), len(others), name, other_name)
    alone = sorted({*ids} ^ {*others})
    if alone:
        raise _alone(alone, name, other_name)
    indices = {each: index for index, each in enumerate(others)}
    return [indices[each] for each in ids]


def _as_array(result: AUPIMOResult) -> Scores:
    """Scores (N,) of a result as float64."""
    return np.asarray(result.aupimos.double().cpu().numpy())


def _check_distinct(keys: Iterable[object], labels: Sequence[object], name: str) -> None:
    """Raise if two images have the same key."""
    seen = set()
    for key, label in zip(keys, labels, strict=True):
        if key in seen:
            raise BadDataError(
                f"Expected the images of {name!r} to be distinct, but some have the same path or id: {label!r}."
            )
        seen.add(key)


def _check_equal_numbers(
    number: int, other_number: int, name: str, other_name: str, alone: Sequence[object] = ()
) -> None:
    """Raise if the numbers of images differ; images without a partner are named."""
    if number != other_number:
        named = f"; {_as_list(alone)} {'are' if alone[1:] else 'is'} in only one of them" if alone else ""
        raise _not_the_same(f"got {number} of {name!r} and {other_number} of {other_name!r}{named}")


def _alone(alone: Sequence[object], name: str, other_name: str) -> BadDataError:
    """Error of images that have no partner."""
    more = f", as {'are' if alone[2:] else 'is'} {_as_list(alone[1:])}" if alone[1:] else ""
    return _not_the_same(f"{alone[0]!r} is in only one of {name!r} and {other_name!r}{more}")


def _as_list(labels: Sequence[object]) -> str:
    """Some images by name, and how many there are beside them."""
    named = ", ".join(repr(label) for label in labels[:MAX_NAMED])
    return f"{named} and {len(labels) - MAX_NAMED} more" if labels[MAX_NAMED:] else named


def _check_same_classes(scores: Scores, others: Scores, labels: Sequence[str], name: str, other_name: str) -> None:
    """Raise if an image has a score of one model and none of the other."""
    is_normal, is_normal_there = np.isnan(scores), np.isnan(others)
    differing = np.flatnonzero(is_normal != is_normal_there)
    if len(differing) == 0:
        return
    for is_all_normal, whose in ((is_normal.all(), name), (is_normal_there.all(), other_name)):
        if is_all_normal:
            raise BadDataError(
                f"Expected `results` to have scores, but all of {whose!r} are undefined (NaN). Evaluate with normal "
                "and anomalous images."
            )
    index = int(differing[0])
    with_score, without = (other_name, name) if is_normal[index] else (name, other_name)
    rest = f"{len(differing) - 1} other images differ" if len(differing) > 2 else "another image differs"
    more = f", and {rest}" if len(differing) > 1 else ""
    raise BadDataError(
        f"Expected `results` to have the same normal images, but {labels[index]!r} is normal (NaN) for {without!r} and "
        f"has a score for {with_score!r}{more}."
    )


def _not_the_same(reason: str) -> BadDataError:
    """Error of results that are not of the same images."""
    return BadDataError(f"Expected `results` to be of the same images, but {reason}.")
