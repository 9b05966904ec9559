"""How paths of maps are read, so that each map belongs to the image that its path says.

A map is matched by its path: the folders and the name that it has in common with the image, counted from the end. All
maps follow one way: the same number of leading folders is ignored everywhere, and what is added to the name of an
image, such as `_map`, is the same everywhere. What fits in another way than the rest is not matched. Names of maps may
hold the folders of their images, as `crack_000` for `crack/000`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import PurePosixPath, PureWindowsPath
from typing import NamedTuple

from aupimo_torchmetrics.evaluate.data.folders import LabelledImage, as_key

__all__ = ["SEPARATORS", "fitting_images"]

LAYOUT_FOLDERS = {"1cls", "data", "images", "rgb", "test", "test_public"}
"""Folders of layouts, in any case, that a tree of maps may do without."""
SEPARATORS = "._- "
"""What stands between the name of an image and what a map appends to it."""
JOINERS = ("_", "-", "__", ".")
"""What may join folders and name of an image in the name of its map."""
MAX_PATTERNS = 6
"""How many ways to append to names are tried, the most frequent first."""

Parts = tuple[str, ...]
"""Folders of a path, and its name without suffix."""
Pattern = Callable[[str], str | None]
"""Gives the name of the image by that of its map, both without suffix; None if the name does not follow the pattern."""


class _Way(NamedTuple):
    """How paths of maps are read: all in the same way."""

    pattern: Pattern
    num_map_folders: int
    """How many leading folders of maps are ignored."""
    num_image_folders: int
    """How many leading folders of images are ignored."""
    num_matches: int
    """Maps that fit one image."""
    num_fitting: int
    """Maps that fit one image or more."""


def fitting_images(names: Sequence[str], images: Sequence[LabelledImage]) -> list[list[int]]:
    """Indices of the images that each map fits."""
    map_parts = [_map_parts(name) for name in names]
    image_parts = [tuple(image.key.split("/")) for image in images]
    # On another machine the folder of a category may have another name.
    has_categories = not all(map(_is_absolute, names))
    meaningful = [_meaningful_folders(image, has_categories=has_categories) for image in images]
    fitting = _match(map_parts, image_parts, meaningful)
    if not any(fitting):
        fitting = _match(_without_layout(map_parts), _without_layout(image_parts), meaningful)
    if all(len(each) == 1 for each in fitting):
        return fitting
    by_bare_name = _by_bare_name(map_parts, images, meaningful)
    if by_bare_name is not None:
        return by_bare_name
    with_category = [_with_category(image) for image in images]
    joiners = [joiner for joiner in JOINERS if any(joiner in parts[-1] for parts in map_parts)]
    joined = [
        _match(folders(map_parts), folders(with_category), meaningful, joiner)
        for joiner in joiners
        for folders in (list, _without_layout, _without_layout_of_images)
    ]
    return max([fitting, *joined], key=lambda fitting: _numbers_of_maps(map(len, fitting)))


def _by_bare_name(
    map_parts: Sequence[Parts], images: Sequence[LabelledImage], meaningful: Sequence[set[str]]
) -> list[list[int]] | None:
    """Indices of images that lie in folders of several depths, which no other way matches, by the name alone.

    None unless each map fits one image, and no two the same. Maps have to lie in one folder, or in one for each
    category, whose names do not contradict those of the images.
    """
    num_folders = {len(parts) - 1 for parts in map_parts}
    num_common = _num_common_folders(map_parts)
    has_depths = len({image.key.count("/") for image in images}) > 1
    if not has_depths or len(num_folders) != 1 or num_folders.pop() - num_common > 1:
        return None
    fitting = _match(
        [parts[num_common:] for parts in map_parts],
        [(image.category, image.key.rpartition("/")[2]) for image in images],
        meaningful,
    )
    if any(len(each) != 1 for each in fitting) or len({each[0] for each in fitting}) < len(fitting):
        return None
    names = set[str]().union(*meaningful)
    contradict = ({*parts[:-1]} & names - meaningful[each[0]] for parts, each in zip(map_parts, fitting, strict=True))
    return None if any(contradict) else fitting


def _numbers_of_maps(numbers_of_images: Iterable[int]) -> tuple[int, int]:
    """How many maps fit one image, and how many fit one or more."""
    counts = Counter(min(number, 2) for number in numbers_of_images)
    return counts[1], counts[1] + counts[2]


def _match(
    map_parts: Sequence[Parts],
    image_parts: Sequence[Parts],
    meaningful: Sequence[set[str]],
    joiner: str | None = None,
) -> list[list[int]]:
    """Indices of the images that each map fits by the way that matches most maps."""
    matcher = _Matcher(map_parts, image_parts, meaningful, joiner)
    patterns = list(matcher.patterns())
    ways = [matcher.best_way(patterns[0])]
    if ways[0].num_matches < len(map_parts):
        ways += [matcher.best_way(pattern) for pattern in patterns[1:]]
    way = max(ways, key=lambda way: (way.num_matches, way.num_fitting))
    fitting = [matcher.lookup(way, parts) for parts in map_parts]
    matched = {image for each in fitting for image in each}
    # A map that fits an image in another way than the rest is a second map of it, or none at all.
    for index, parts in enumerate(map_parts):
        if not fitting[index]:
            others = [matcher.lookup(way._replace(pattern=pattern), parts) for pattern in patterns]
            fitting[index] = next((each for each in others if len(each) == 1 and each[0] in matched), [])
    return fitting


class _Matcher:
    """Looks up images by the ends of their paths.

    Args:
        map_parts: Paths of maps.
        image_parts: Paths of images.
        meaningful: Names of folders of each image that a map of it may not contradict.
        joiner: What joins folders and name of the image in names of maps; None if these are names only.

    """

    def __init__(
        self,
        map_parts: Sequence[Parts],
        image_parts: Sequence[Parts],
        meaningful: Sequence[set[str]],
        joiner: str | None,
    ) -> None:
        self._maps = map_parts
        self._images = image_parts
        self._meaningful = meaningful
        self._joiner = joiner
        self._by_end: dict[int, dict[Parts, list[int]]] = {}

    def lookup(self, way: _Way, parts: Parts) -> list[int]:
        """Return the indices of the images that a map fits."""
        if len(parts) <= way.num_map_folders:
            return []
        stem = way.pattern(parts[-1])
        if stem is None:
            return []
        return self._ends(way.num_image_folders).get(self._joined((*parts[way.num_map_folders : -1], stem)), [])

    def best_way(self, pattern: Pattern) -> _Way:
        """Return the numbers of leading folders by which most maps fit an image, and ignore as few as possible."""
        best = _Way(pattern, 0, 0, 0, 0)
        for num_image_folders, num_map_folders in self._numbers_of_folders():
            way = _Way(pattern, num_map_folders, num_image_folders, 0, 0)
            num_matches, num_fitting = _numbers_of_maps(len(self.lookup(way, parts)) for parts in self._maps)
            way = way._replace(num_matches=num_matches, num_fitting=num_fitting)
            if (way.num_matches, way.num_fitting) > (best.num_matches, best.num_fitting):
                best = way
            if best.num_matches == len(self._maps):
                break
        return best

    def patterns(self) -> Iterator[Pattern]:
        """Yield how names of maps may be made of those of images: equal, with the suffix of the image, or with more."""
        yield lambda stem: stem
        yield lambda stem: None if as_key(stem) == stem else as_key(stem)
        stems = {stem for parts in self._images for stem in self._stems(parts)}
        endings, beginnings = Counter[str](), Counter[str]()
        for stem in {parts[-1] for parts in self._maps} - stems:
            for position, letter in enumerate(stem):
                if letter in SEPARATORS:
                    endings[stem[position:]] += stem[:position] in stems
                    beginnings[stem[: position + 1]] += self._joiner is None and stem[position + 1 :] in stems
        for ending, _ in (+endings).most_common(MAX_PATTERNS):
            yield _without_ending(ending)
        for beginning, _ in (+beginnings).most_common(MAX_PATTERNS):
            yield _without_beginning(beginning)

    def _numbers_of_folders(self) -> Iterator[tuple[int, int]]:
        """Yield how many leading folders to ignore in the paths of images and of maps, the fewest first.

        Folders are ignored in both only if all maps begin alike and all images do, and not as far as the folders of a
        type of defect, or of a category unless paths are absolute: `good/000` is no map of `crack/000`.
        """
        max_maps = max((len(parts) - 1 for parts in self._maps), default=0)
        max_images = max((len(parts) - 1 for parts in self._images), default=0)
        common_maps = _num_common_folders(self._maps)
        common_images = min(
            _num_common_folders(self._images),
            min(map(_num_meaningless_folders, self._images, self._meaningful), default=0),
        )
        for num_images in range(max_images + 1):
            yield num_images, 0
            both = common_maps if num_images <= common_images else 0
            for num_maps in range(1, (max_maps if num_images == 0 else both) + 1):
                yield num_images, num_maps

    def _joined(self, parts: Parts) -> Parts:
        """Folders and name as one name, if names of maps hold folders."""
        return parts if self._joiner is None else (self._joiner.join(parts),)

    def _stems(self, parts: Parts) -> list[str]:
        """Names that a map of an image may have, but for what is appended."""
        return [parts[-1]] if self._joiner is None else [self._joined(parts[i:])[0] for i in range(len(parts) - 1)]

    def _ends(self, num_folders: int) -> dict[Parts, list[int]]:
        """Indices of images by their paths without leading folders."""
        if num_folders not in self._by_end:
            ends: dict[Parts, list[int]] = {}
            for index, parts in enumerate(self._images):
                if len(parts) > num_folders + (self._joiner is not None):  # a joined name holds a folder
                    ends.setdefault(self._joined(parts[num_folders:]), []).append(index)
            self._by_end[num_folders] = ends
        return self._by_end[num_folders]


def _map_parts(name: str) -> Parts:
    """Parts of the path of a map, which may be absolute, and of another operating system."""
    parts = [part for part in as_key(name.replace("\\", "/")).split("/") if part not in {"", "."}]
    return tuple(parts) or ("",)


def _without_layout(paths: Sequence[Parts]) -> list[Parts]:
    """Paths without the folders that belong to a layout."""
    return [(*(part for part in parts[:-1] if part.casefold() not in LAYOUT_FOLDERS), parts[-1]) for parts in paths]


def _without_layout_of_images(paths: Sequence[Parts]) -> list[Parts]:
    """Paths without the folder of images, as `rgb` in `crack/rgb/000`, if it belongs to a layout."""
    return [
        (*parts[:-2], parts[-1]) if len(parts) > 1 and parts[-2].casefold() in LAYOUT_FOLDERS else parts
        for parts in paths
    ]


def _with_category(image: LabelledImage) -> Parts:
    """Parts of the path of an image, with its category also where the data set is one category."""
    parts = tuple(image.key.split("/"))
    return parts if parts[0] == image.category else (image.category, *parts)


def _num_common_folders(paths: Sequence[Parts]) -> int:
    """How many leading folders all paths have in common."""
    if not paths:
        return 0
    first, last = min(paths), max(paths)
    number = next((i for i, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first))
    return min(number, *(len(parts) - 1 for parts in (first, last)))


def _is_absolute(name: str) -> bool:
    """Whether the path of a map begins at the root of a machine, of whichever operating system."""
    return PurePosixPath(name).is_absolute() or PureWindowsPath(name).is_absolute()


def _meaningful_folders(image: LabelledImage, *, has_categories: bool) -> set[str]:
    """Names of folders of an image that a map of it may not contradict: its type of defect, and maybe its category."""
    return {*(image.defect or "").split("/"), *([image.category] if has_categories else [])}


def _num_meaningless_folders(parts: Parts, meaningful: set[str]) -> int:
    """How many leading folders of an image come before one that a map may not contradict."""
    return next((i for i, part in enumerate(parts[:-1]) if part in meaningful), len(parts) - 1)


def _without_ending(ending: str) -> Pattern:
    """Pattern of names with something appended."""
    return lambda stem: stem[: -len(ending)] if stem.endswith(ending) else None


def _without_beginning(beginning: str) -> Pattern:
    """Pattern of names with something before."""
    return lambda stem: stem[len(beginning) :] if stem.startswith(beginning) else None
