r"""Which scores of several models are of the same image.

Conventions: N images. Paths are texts of any machine: their parts are separated by `/` or `\`, and both
Unicode forms of a name are the same name. The *end* of a path is its last parts, without the suffix of the file.
"""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from aupimo_torchmetrics._errors import BadDataError
from aupimo_torchmetrics._settings import MatchedBy
from aupimo_torchmetrics.results import AUPIMOResult
from aupimo_torchmetrics.statistics._ties import Scores

__all__ = ["AlignedScores", "align_scores", "match_images"]

FILE_SUFFIXES = frozenset(
    {"bmp", "exr", "gif", "jpeg", "jpg", "npy", "npz", "pgm", "png", "ppm", "pt", "tif", "tiff", "webp"}
)
"""Suffixes of images and of anomaly maps, which do not count when paths are compared."""

TEST_FOLDERS = (("test",), ("test_public",), ("Data", "Images"))
"""Folders of test images in the folder of a category."""

MAX_NAMED = 3
"""How many images an error names."""


class AlignedScores(NamedTuple):
    """Scores of several models, image by image."""

    scores: dict[str, Scores]
    """(N,) of each model, in the order of the first model's images; NaN for a normal image."""
    matched_by: MatchedBy
    """What said which scores are of the same image."""


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
    scores = {first_name: own_scores}
    for name, other in others:
        if matched_by == "path":
            order = match_images(first.paths or (), other.paths or (), first_name, name)
        elif matched_by == "image id":
            order = _match_ids(_ids_of(first), _ids_of(other), first_name, name)
        else:
            _check_equal_numbers(len(own_scores), len(other.aupimos), first_name, name)
            order = list(range(len(own_scores)))
        scores[name] = _as_array(other)[order]
        _check_same_classes(own_scores, scores[name], labels, first_name, name)
    return AlignedScores(scores, matched_by)


def match_images(
    paths: Sequence[str], others: Sequence[str], name: str = "the first", other_name: str = "the second"
) -> list[int]:
    r"""Find the image of each path among other paths, by the common end of the two.

    Two paths fit if one is the end of the other, such as `crack/000.png` and `C:\mvtec\tile\test\crack\000.tiff`. They
    fit, too, if file and folder have the same names and only the folders before differ: in the same way for all images,
    and not in the category, which is the folder that holds `test`. Of several that fit, the one with the longest common
    end is the image, or else the one with the same suffix.

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
    own, foreign = _parse_paths(paths, name), _parse_paths(others, other_name)
    fitting = _find_fitting(own, foreign)
    _check_unambiguous(own, foreign, fitting, name, other_name)
    found = {index for indices in fitting for index in indices}
    alone = [path.text for path, indices in zip(own, fitting, strict=True) if not indices]
    alone += [path.text for index, path in enumerate(foreign) if index not in found]
    _check_equal_numbers(len(own), len(foreign), name, other_name, alone)
    _check_none_is_alone(alone, name, other_name)
    order = [index for (index,) in fitting]
    _check_folders([(path, foreign[index]) for path, index in zip(own, order, strict=True)], name, other_name)
    return order


class _Path(NamedTuple):
    """What counts of a path when it is compared."""

    text: str
    """The path as it was given."""
    parts: tuple[str, ...]
    """Folders and name without suffix."""
    suffix: str
    """Suffix of the name in lower case; empty if there is none."""

    def category(self) -> tuple[str, ...]:
        """Folders down to that of the category, which holds the folder of test images; empty if there is none."""
        for index in range(len(self.parts) - 2, 0, -1):
            if any(self.parts[index : index + len(folders)] == folders for folders in TEST_FOLDERS):
                return self.parts[:index]
        return ()


def _parse_paths(texts: Sequence[str], name: str) -> list[_Path]:
    """Paths of the distinct images of a model."""
    paths = [_parse_path(text) for text in texts]
    num_missing = sum(not path.parts for path in paths)
    if num_missing:
        raise BadDataError(
            f"Expected the images of {name!r} to have paths, but {num_missing} of {len(paths)} have none. Score all "
            "images with their paths as `image_ids`, or none."
        )
    _check_distinct([path[1:] for path in paths], texts, name)
    return paths


def _parse_path(text: str) -> _Path:
    """Folders, name and suffix of a path of any machine."""
    parts = [part for part in unicodedata.normalize("NFC", text).replace("\\", "/").split("/") if part not in {"", "."}]
    suffix = ""
    while parts:
        stem, _, last = parts[-1].rpartition(".")
        if not stem or last.lower() not in FILE_SUFFIXES:
            break
        parts[-1], suffix = stem, f".{last.lower()}{suffix}"
    return _Path(text, tuple(parts), suffix)


def _find_fitting(own: Sequence[_Path], foreign: Sequence[_Path]) -> list[list[int]]:
    """Indices of the foreign paths that fit each own one best: none, one, or several that fit equally well."""
    by_end: dict[tuple[str, ...], list[int]] = {}
    by_name: dict[tuple[str, ...], list[int]] = {}  # foreign paths without folders
    for index, path in enumerate(foreign):
        for first in range(len(path.parts)):
            by_end.setdefault(path.parts[first:], []).append(index)
        if len(path.parts) == 1:
            by_name.setdefault(path.parts, []).append(index)

    def fitting(path: _Path) -> list[int]:
        for first in range(len(path.parts)):
            end = path.parts[first:]
            # A name alone is enough only if one of the two paths is no more than that.
            indices = (by_name if len(end) == 1 and first > 0 else by_end).get(end, [])
            if indices:
                of_same_suffix = [index for index in indices if foreign[index].suffix == path.suffix]
                return of_same_suffix or indices
        return []

    return [fitting(path) for path in own]


def _check_unambiguous(
    own: Sequence[_Path], foreign: Sequence[_Path], fitting: Sequence[Sequence[int]], name: str, other_name: str
) -> None:
    """Raise if two images fit one."""
    owners: dict[int, _Path] = {}
    for path, indices in zip(own, fitting, strict=True):
        if len(indices) > 1:
            two = " and ".join(repr(foreign[index].text) for index in indices[:2])
            raise _not_the_same(f"{path.text!r} of {name!r} fits both {two} of {other_name!r}")
        for index in indices:
            if index in owners:
                two = f"{owners[index].text!r} and {path.text!r}"
                raise _not_the_same(f"both {two} of {name!r} fit {foreign[index].text!r} of {other_name!r}")
            owners[index] = path


def _check_folders(pairs: Sequence[tuple[_Path, _Path]], name: str, other_name: str) -> None:
    """Raise if the folders before the common ends are of other categories, or differ in several ways."""
    first_pairs: dict[tuple[tuple[str, ...], tuple[str, ...]], tuple[_Path, _Path]] = {}
    for own, foreign in pairs:
        ours, theirs = own.category(), foreign.category()
        has_other_root = ours[-2:-1] and theirs[-2:-1] and ours[-2].casefold() != theirs[-2].casefold()
        if ours and theirs and ours[-1] != theirs[-1] and not has_other_root:
            raise _not_the_same(
                f"{own.text!r} of {name!r} is of the category {ours[-1]!r} and {foreign.text!r} of {other_name!r} of "
                f"{theirs[-1]!r}"
            )
        num_common = _num_common_at_the_end(own.parts, foreign.parts)
        before = own.parts[: len(own.parts) - num_common], foreign.parts[: len(foreign.parts) - num_common]
        first_pairs.setdefault(before, (own, foreign))
    if len(first_pairs) > 1 and any(ours and theirs for ours, theirs in first_pairs):
        (a, b), (c, d), *_ = first_pairs.values()
        raise _not_the_same(
            f"the folders differ in more than one way: {a.text!r} of {name!r} and {b.text!r} of {other_name!r}, but "
            f"{c.text!r} and {d.text!r}"
        )


def _num_common_at_the_end(parts: Sequence[str], others: Sequence[str]) -> int:
    """How many of the last parts are equal."""
    pairs = zip(reversed(parts), reversed(others), strict=False)
    return next((number for number, (a, b) in enumerate(pairs) if a != b), min(len(parts), len(others)))


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
    _check_none_is_alone(sorted({*ids} ^ {*others}), name, other_name)
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


def _check_none_is_alone(alone: Sequence[object], name: str, other_name: str) -> None:
    """Raise if images have no partner."""
    if alone:
        more = f", as {'are' if alone[2:] else 'is'} {_as_list(alone[1:])}" if alone[1:] else ""
        raise _not_the_same(f"{alone[0]!r} is in only one of {name!r} and {other_name!r}{more}")


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
