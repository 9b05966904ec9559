r"""Which paths are of one image, and what tells paths apart.

A path is a text of any machine: `/` or `\` separates its parts, and both Unicode forms of a name are one name. It
is read without what tells no image from another: the suffix, and folders of a layout such as `test`.

Two paths are of one image if one is the end of the other, folder by folder. The closest fit wins, and it must be the
only one in both directions. All paths fit in the same way: equal, longer or shorter than those of the images, and with
the same addition to the name, such as `_map`. If no path fits so, both sides are read from the folder of the category
on, or else from the last folder that all paths of a side share above their own. If none fits so either, names may hold
the last folders, as words (`crack_000` for `crack/000`). What fits in no such way is not matched.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ["Matches", "as_key", "as_name", "category_in", "distinguishing_names", "match_by_end"]

IMAGE_SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".gif", ".pbm", ".pgm", ".pnm", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip
"""Suffixes of images and masks, in any case."""
OTHER_SUFFIXES = (".avif", ".dcm", ".exr", ".heic", ".jp2", ".npy", ".npz", ".pt", ".pth")
"""Suffixes of maps, and of images that a table may name."""
RESULT_SUFFIX = re.compile(r"\.(json|safetensors)$")
"""Suffix of a result, which is no part of the name of a model."""
SUFFIXES = re.compile(
    rf"(?<=[^/])({'|'.join(map(re.escape, sorted((*IMAGE_SUFFIXES, *OTHER_SUFFIXES), key=len, reverse=True)))})+$",
    re.IGNORECASE,
)
"""One suffix or several, as `.png.npy`."""
TEST_FOLDERS = {"images", "test", "test_public"}
"""Folders, in any case, that lie in the folder of a category."""
LAYOUT_FOLDERS = TEST_FOLDERS | {"1cls", "data", "rgb"}
"""Folders, in any case, that tell no image from another."""
JOINERS = re.compile(r"[/_.-]+")
"""What stands between words."""
ADDITIONS = re.compile(r"(?<=.)[ _.-]")
"""Where an addition to a name begins."""

Parts = tuple[str, ...]
"""Folders or words, and the name."""


class Matches(NamedTuple):
    """Which path is of which image."""

    images: list[int | None]
    """Index of the image of each path; None if there is none, or it is not clear which."""
    several_images: dict[int, list[int]]
    """Images that a path fits equally well, by the index of the path."""
    several_paths: dict[int, list[int]]
    """Paths that fit one image, by the index of the image."""


class _Path(NamedTuple):
    """What counts of a path."""

    folders: Parts
    """Folders but for those of a layout, each with `/`, so that no folder equals a word of a name."""
    name: str
    """Name without suffix."""
    suffix: str
    category: int | None
    """Position of the folder of the category; None if the path does not say it."""


_Fit = tuple[list[int], tuple[str, str]]
"""Images that a path fits: none, one, or several that fit equally well. And in which way: the addition to the name, and
whether the path is equal, longer or shorter."""


def as_name(path: str) -> str:
    """Return a path in the normal form of Unicode that names are compared in, NFC."""
    return path if path.isascii() else unicodedata.normalize("NFC", path)


def as_key(path: str) -> str:
    """Return a path in the normal form of Unicode that names are compared in, without the suffixes of images and maps.

    Example:
        >>> from aupimo_torchmetrics._paths import as_key
        >>> as_key("crack/000.png.npy"), as_key("crack/x.v2")
        ('crack/000', 'crack/x.v2')

    """
    return SUFFIXES.sub("", as_name(path))


def category_in(path: str) -> str:
    """Return the folder in front of `test` or its like, which is that of the category; empty if there is none.

    Example:
        >>> from aupimo_torchmetrics._paths import category_in
        >>> category_in("mvtec/bottle/test/crack/000.png"), category_in("crack/000.png")
        ('bottle', '')

    """
    read = _read(path)
    return "" if read.category is None else read.folders[read.category].rstrip("/")


def match_by_end(paths: Sequence[str], images: Sequence[str], *, have_categories: bool = False) -> Matches:
    """Find the image that each path is of.

    Args:
        paths: Paths of images, or of what is made of them, such as maps, which may have an addition to the name.
        images: Paths of the images.
        have_categories: Whether the first folder of each image is its category. A path of another one does not fit.

    Returns:
        Of each path its image, and what is not clear.

    Example:
        >>> from aupimo_torchmetrics._paths import match_by_end
        >>> match_by_end(["good/0_map.npy", "crack/0_map.npy"], ["p/test/crack/0.png", "p/test/good/0.png"]).images
        [1, 0]

    """
    ours, theirs = [_read(path) for path in paths], [_read(image) for image in images]
    ours_below, theirs_below = (_below_shared(each, has_category=have_categories) for each in (ours, theirs))
    for here, there, by_words in ((ours, theirs, False), (ours_below, theirs_below, False), (ours, theirs, True)):
        fits = _find_fits(here, there, by_words=by_words)
        if any(found for found, _ in fits):
            return _only_clear(fits)
    return Matches([None for _ in paths], {}, {})


def _read(text: str) -> _Path:
    """Read a path of any machine."""
    text = as_name(text.replace("\\", "/"))
    key = as_key(text)
    *all_folders, name = [part for part in key.split("/") if part not in {"", "."}] or [""]
    folders: list[str] = []
    category = None
    for folder in all_folders:
        if folder.casefold() not in LAYOUT_FOLDERS:
            folders.append(f"{folder}/")
        elif folders and folder.casefold() in TEST_FOLDERS:
            category = len(folders) - 1
    return _Path(tuple(folders), name, text[len(key) :].lower(), category)


def _below_shared(paths: Sequence[_Path], *, has_category: bool) -> list[_Path]:
    """Leave out the folders that all paths share, but for that of the category, or else the last above their own."""
    shared = len(os.path.commonprefix([path.folders[:-1] for path in paths]))  # noqa: RUF071  of folders, not letters
    categories = [path.category for path in paths if path.category is not None]
    number = min([shared, *categories]) if categories else 0 if has_category else max(shared - 1, 0)
    return [path._replace(folders=path.folders[number:]) for path in paths]


def _find_fits(paths: Sequence[_Path], images: Sequence[_Path], *, by_words: bool) -> list[_Fit]:
    """Find the images that each path fits, with the least addition to its name."""
    whole: dict[Parts, list[int]] = {}
    ends: dict[Parts, list[int]] = {}
    for number, image in enumerate(images):
        for start, end in _image_ends(image, by_words=by_words):
            (ends if start else whole).setdefault(end, []).append(number)

    def fit(path: _Path) -> _Fit:
        """Images that are equal, or else longer, or else the longest end of a path, from one of its folders on."""
        for cut in (len(path.name), *(match.start() for match in reversed([*ADDITIONS.finditer(path.name)]))):
            parts = (*path.folders, *_in_name(path.name[:cut], by_words=by_words))
            found, way = (whole[parts], "equal") if parts in whole else (ends.get(parts, []), "shorter")
            if not found:
                below = (parts[start:] for start in range(1, len(path.folders) + 1))
                found, way = next((whole[end] for end in below if end in whole), []), "longer"
            if found:
                # Of images that differ in nothing else, it is the one whose suffix the path has, too.
                of_suffix = [number for number in found if path.suffix.startswith(images[number].suffix or "/")]
                return of_suffix or found, (path.name[cut:], way)
        return [], ("", "")

    return [fit(path) for path in paths]


def _image_ends(image: _Path, *, by_words: bool) -> Iterator[tuple[int, Parts]]:
    """Yield the ends of the path of an image, each with its first folder; the name may hold the last folders."""
    num_folders = len(image.folders)
    for num_whole in range(0 if by_words else num_folders, num_folders + 1):
        in_name = _in_name("".join((*image.folders[num_whole:], image.name)), by_words=by_words)
        for start in range(num_whole + 1):
            yield start, (*image.folders[start:num_whole], *in_name)


def _in_name(name: str, *, by_words: bool) -> Parts:
    """Folders and name that a name may hold, as words; or the name itself."""
    words = [word for word in JOINERS.split(name) if word] if by_words else []
    *folders, last = words or [name]
    return (*(folder for folder in folders if folder.casefold() not in LAYOUT_FOLDERS), last)


def _only_clear(fits: Sequence[_Fit]) -> Matches:
    """Keep what fits in the way in which most paths fit, alone in both directions."""
    counts = Counter(way for found, way in fits if found)
    usual = max(counts, key=lambda way: (counts[way], -len(way[0]), way))
    matches = Matches([None for _ in fits], {}, {})
    paths_of_image: dict[int, list[int]] = {}
    for number, (found, way) in enumerate(fits):
        if len(found) == 1:
            paths_of_image.setdefault(found[0], []).append(number)
        elif found and way == usual:
            matches.several_images[number] = found
    for image, numbers in paths_of_image.items():
        is_usual = any(fits[number][1] == usual for number in numbers)
        if is_usual and len(numbers) == 1:
            matches.images[numbers[0]] = image
        elif is_usual:
            matches.several_paths[image] = numbers
    return matches


def distinguishing_names(paths: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Name files or folders by the parts of their paths that differ, such as the folder of the model.

    Parts that all paths have in common are cut at the front and at the end, as far as something remains of each. Equal
    paths get equal names.

    Example:
        >>> from aupimo_torchmetrics._paths import distinguishing_names
        >>> distinguishing_names(["runs/padim/aupimos.json", "runs/uflow/aupimos.json"])
        ['padim', 'uflow']
        >>> distinguishing_names(["padim.json", "runs/uflow.json"])
        ['padim', 'runs/uflow']

    """
    # Not `Path.resolve`, which follows links: a link may be the name that somebody gave a model.
    parts = [Path(RESULT_SUFFIX.sub("", os.path.abspath(path))).parts for path in paths]  # noqa: PTH100
    front = len(os.path.commonprefix([each[:-1] for each in parts]))  # noqa: RUF071  of folders, not letters
    end = len(os.path.commonprefix([each[:front:-1] for each in parts]))  # noqa: RUF071
    return ["/".join(each[front : len(each) - end]) for each in parts]
