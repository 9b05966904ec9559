"""Test images of a data set, and what layouts and tables share: names, words for normal images, folders.

Conventions: a *category* is a folder with test images of one kind of object, a *collection* is a folder of categories.
The *name* of an image is its path relative to the data set; its *key* is the name without suffix. Names that differ
only in the normal form of Unicode, in which operating systems write accents, are one name. Names that begin with a dot
are no data. Images and masks are listed here, not read.
"""

import os
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from aupimo_torchmetrics._files.folders import find_files
from aupimo_torchmetrics._paths import IMAGE_SUFFIXES, as_key, as_name

__all__ = ["IMAGE_SUFFIXES", "NORMAL_WORDS", "DataFolder", "LabelledImage", "as_key", "as_name"]

NORMAL_WORDS = frozenset(("good", "ok", "normal", "none", "no_defect", "defect_free", "defect-free"))
"""Folders of normal images, and types of defect in a table that are none, in any case."""


class LabelledImage(NamedTuple):
    """A test image, and the masks of its defects.

    Example:
        >>> from pathlib import Path
        >>> from aupimo_torchmetrics.evaluate import LabelledImage
        >>> name, mask = "tile/test/crack/000.png", Path("tile/ground_truth/crack/000_mask.png")
        >>> image = LabelledImage(name, "tile", Path(name), (mask,), has_defect=True, defect="crack")
        >>> image.key
        'tile/test/crack/000'

    """

    name: str
    """Path relative to the data set, with `/` between the parts. It names the image everywhere."""
    category: str
    """Name of the category, which is that of its folder."""
    path: Path | None
    """File of the image; None if it is not on disk, though a table names it or there is a mask of it."""
    masks: tuple[Path, ...]
    """Files of masks. The mask of the image is their union. Empty for a normal image without a file of its mask."""
    has_defect: bool | None
    """Whether the image has a defect, by its folder or the table; None if only the mask says it."""
    defect: str | None = None
    """Type of the defect, or `good` and its like, by its folder or the table; None if it is not known."""
    has_mask_classes: bool = False
    """Whether masks hold a number for each type of defect, as in MVTec LOCO: each value but 0 is a defect."""
    problem: str | None = None
    """Why the image cannot be evaluated, as far as names and places of files say it; None if they are in order."""
    place: str | None = None
    """Row of the table that names the image, as `parts.csv, line 7`; None if no table does."""
    score: float | None = None
    """Score of the whole image that a table gives; None if none does."""
    group: str | None = None
    """What the image is one of several photographs of, if a table says it; None if it does not."""

    @property
    def key(self) -> str:
        """Path relative to the data set, without suffix."""
        return as_key(self.name)

    @property
    def missing_mask(self) -> Path | None:
        """First of the masks that is not on disk; None if all are."""
        return next((mask for mask in self.masks if not is_file(mask)), None)


class DataFolder:
    """A folder with test images, as the layouts see it.

    Args:
        root: Folder of the data set, without links in its path.
        normal_folders: Names of more folders of normal images, in any case.
        follow_links: Whether to go through links to folders.

    """

    def __init__(self, root: Path, normal_folders: Collection[str] = (), *, follow_links: bool = False) -> None:
        self.root = root
        self.normal_words = NORMAL_WORDS | {as_name(name).casefold() for name in normal_folders}
        self.follow_links = follow_links
        self._files: dict[Path, list[tuple[str, Path]]] = {}

    def files(self, folder: Path) -> list[tuple[str, Path]]:
        """List all image files in a folder and the folders in it, each with its path from this folder on."""
        if folder not in self._files:
            paths = find_files(folder, IMAGE_SUFFIXES, follow_links=self.follow_links)
            start = len(str(folder)) - len(folder.name)
            self._files[folder] = [(as_name(str(path)[start:].replace(os.sep, "/")), path) for path in paths]
        return self._files[folder]

    def name_of(self, path: Path) -> str:
        """Return the path of a file relative to the root."""
        return as_name(str(path)[len(str(self.root)) :].lstrip(os.sep).replace(os.sep, "/"))

    def normal_folder(self, path: str) -> str:
        """Return the first folder of a path that is one of normal images, empty if none is."""
        return next((folder for folder in path.split("/")[:-1] if self.is_normal(folder)), "")

    def is_normal(self, folders: str) -> bool:
        """Whether one of these folders, with `/` between them, is one of normal images."""
        return not self.normal_words.isdisjoint(folders.casefold().split("/"))


def folders_in(folder: Path) -> list[Path]:
    """List the folders in a folder, sorted."""
    _, names, _ = next(os.walk(folder), ("", [], []))
    return [folder / name for name in sorted(names) if not name.startswith(".")]


def is_file(path: Path) -> bool:
    """Whether there is a file; there is none if the path is too long or no path at all."""
    return os.path.isfile(path)  # noqa: PTH113  `Path.is_file` raises in these cases
