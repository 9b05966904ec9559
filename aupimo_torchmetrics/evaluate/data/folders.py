"""Test images of a data set, and what the layouts share to find them: folders, normal images, and masks by name.

Conventions: a *category* is a folder with test images of one kind of object, a *collection* is a folder of categories.
The *name* of an image is its path relative to the data set; its *key* is the name without suffix. Names that differ
only in the normal form of Unicode, in which operating systems write accents, are one name. Names that begin with a dot
are no data. Images and masks are listed here, not read.
"""

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from aupimo_torchmetrics._errors import BadDataError
from aupimo_torchmetrics._files import find_files
from aupimo_torchmetrics._paths import IMAGE_SUFFIXES, as_key, as_name

__all__ = ["IMAGE_SUFFIXES", "DataFolder", "LabelledImage", "MaskIndex", "as_key", "as_name"]

NORMAL_FOLDERS = ("good", "ok", "normal", "defect_free", "defect-free")
"""Names of folders of normal images, in any case."""


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
    """Whether the image has a defect, by the name of its folder; None if only the mask says it."""
    defect: str | None = None
    """Type of the defect, or `good` and its like, by the name of its folder; None if it is not known."""
    has_mask_classes: bool = False
    """Whether masks hold a number for each type of defect, as in MVTec LOCO: each value but 0 is a defect."""
    problem: str | None = None
    """Why the image cannot be evaluated, as far as names and places of files say it; None if they are in order."""
    place: str | None = None
    """Row of the table that names the image, as `parts.csv, line 7`; None if no table does."""
    score: float | None = None
    """Score of the whole image that a table gives; None if none does."""

    @property
    def key(self) -> str:
        """Path relative to the data set, without suffix."""
        return as_key(self.name)


class MaskIndex:
    """Masks by key, of which some have been found to belong to an image."""

    def __init__(self, files: dict[str, Path]) -> None:
        self._by_key: dict[str, list[Path]] = {}
        for relative, path in files.items():
            self._by_key.setdefault(as_key(relative), []).append(path)
        self._used: set[str] = set()

    def __bool__(self) -> bool:
        """Whether there is any mask."""
        return bool(self._by_key)

    def __contains__(self, key: str) -> bool:
        """Whether there is a mask with this key."""
        return key in self._by_key

    def take(self, *keys: str) -> list[Path]:
        """Return the masks of an image, which may have any of these keys."""
        self._used.update(keys)
        return [path for key in keys for path in self._by_key.get(key, [])]

    def by_folder(self) -> dict[str, list[Path]]:
        """Return all masks by the folder they lie in."""
        folders: dict[str, list[Path]] = {}
        for key, paths in self._by_key.items():
            folders.setdefault(key.rpartition("/")[0], []).extend(paths)
        return folders

    def rest(self) -> Iterator[tuple[str, Path]]:
        """Yield key and file of each mask that belongs to no image."""
        for key, paths in self._by_key.items():
            if key not in self._used:
                for path in paths:
                    yield key, path


class DataFolder:
    """A folder with test images, as the layouts see it.

    Args:
        root: Folder of the data set, without links in its path.
        normal_folders: Names of more folders of normal images, in any case.
        follow_links: Whether to go through links to folders.

    """

    def __init__(self, root: Path, normal_folders: Collection[str] = (), *, follow_links: bool = False) -> None:
        self.root = root
        self.normal_folders = {name.casefold() for name in (*NORMAL_FOLDERS, *map(as_name, normal_folders))}
        self.follow_links = follow_links
        self._files: dict[Path, dict[str, Path]] = {}

    def files(self, folder: Path) -> dict[str, Path]:
        """Return all image files in a folder and the folders in it, by path relative to it; none without a folder."""
        if folder not in self._files:
            paths = find_files(folder, IMAGE_SUFFIXES, follow_links=self.follow_links) if folder.is_dir() else []
            start = len(str(folder)) + 1
            self._files[folder] = {as_posix(str(path)[start:]): path for path in paths}
        return self._files[folder]

    def folders(self, folder: Path) -> list[Path]:
        """Return the folders in a folder, sorted."""
        return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.is_dir())

    def categories(self, is_category: Callable[[Path], bool]) -> list[Path]:
        """Return the root if it is a category itself, and otherwise the folders in it that are; raise if both are."""
        categories = [folder for folder in self.folders(self.root) if is_category(folder)]
        if not is_category(self.root):
            return categories
        if categories:
            raise BadDataError(
                f"Expected {self.root} to be one category or a folder of categories, but it looks like a category and "
                f"holds {categories[0].name}, which does, too. Move one of them away."
            )
        return [self.root]

    def name_of(self, path: Path) -> str:
        """Return the path of a file relative to the root."""
        return as_name(as_posix(str(path)[len(str(self.root)) :].lstrip("/\\")))

    def is_normal(self, folders: Sequence[str]) -> bool:
        """Whether one of these names of folders is that of normal images."""
        return any(as_name(folder).casefold() in self.normal_folders for folder in folders)

    def image(
        self,
        category: Path,
        path: Path,
        folders: Sequence[str],
        found: Sequence[Path],
        expected: Path,
    ) -> LabelledImage:
        """Make a test image whose folder says whether it has a defect, and which has one mask at most.

        Args:
            category: Folder of the category.
            path: File of the image.
            folders: Names of the folders that the image lies in, as far as they are no part of the layout.
            found: Masks that are there.
            expected: Where a mask would be.

        """
        is_normal = self.is_normal(folders)
        masks = tuple(found) or (() if is_normal else (expected,))
        defect = as_name("/".join(folders)) or None
        image = LabelledImage(self.name_of(path), as_name(category.name), path, masks, not is_normal, defect)
        return image if len(found) < 2 else image._replace(problem=several_files("masks", map(self.name_of, found)))

    def images(
        self, category: Path, images_in: Path, masks_in: Path, folders: tuple[str, ...] = (), skip: str = ""
    ) -> Iterator[LabelledImage]:
        """Find images in folders of defects, and masks of the same name, or with `_mask`, in folders of the same names.

        Args:
            category: Folder of the category.
            images_in: Folder of the folders of images.
            masks_in: Folder of the folders of masks.
            folders: Names of folders of defects that are part of `images_in` and `masks_in`.
            skip: Name of a folder in `images_in` that holds no images.

        """
        masks = MaskIndex(self.files(masks_in))
        ending = "" if any(as_key(relative) in masks for relative in self.files(images_in)) else "_mask"
        for relative, path in self.files(images_in).items():
            within = (*folders, *relative.split("/")[:-1])
            if within[:1] == (skip,):
                continue
            key = as_key(relative)
            expected = masks_in / f"{key}{ending}.png"
            image = self.image(category, path, within, masks.take(key, f"{key}_mask"), expected)
            yield image if within else image._replace(problem="no folder says whether it has a defect")
        yield from self.masks_without_image(category, masks, folders)

    def masks_without_image(
        self, category: Path, masks: MaskIndex, folders: tuple[str, ...] = ()
    ) -> Iterator[LabelledImage]:
        """Name the masks of which there is no image: it may have been lost. Normal images need not be there."""
        for key, path in masks.rest():
            within = (*folders, *key.split("/")[:-1])
            if not self.is_normal(within):
                yield missing_image(self.name_of(path), category, path, within)


def missing_image(name: str, category: Path, mask: Path, folders: Sequence[str]) -> LabelledImage:
    """Stand for an image that is not there, though a mask of it is; it has the name of the mask."""
    defect = as_name("/".join(folders)) or None
    return LabelledImage(name, as_name(category.name), None, (mask,), True, defect, problem="a mask without an image")


def several_files(kind: str, names: Iterator[str]) -> str:
    """Say that an image has several files where it should have one."""
    return f"several {kind}, of which one has to go: {', '.join(sorted(names))}"


def as_posix(path: str) -> str:
    """Return a path with `/` between its parts."""
    return path if "\\" not in path else Path(path).as_posix()


def is_file(path: Path) -> bool:
    """Whether there is a file; there is none if the path is too long or no path at all."""
    return os.path.isfile(path)  # noqa: PTH113  `Path.is_file` raises in these cases


def read_text(path: Path) -> str:
    """Read a text that comes with a data set; raise a BadDataError if it is none."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            text = file.read()
    except UnicodeDecodeError as error:
        raise BadDataError(
            f"Expected {path} to be a text in UTF-8, but could not read it: {error}. Please save it in UTF-8."
        ) from error
    if "\0" in text:
        raise BadDataError(f"Expected {path} to be a text in UTF-8, but it holds other data. Please save it as text.")
    return text
