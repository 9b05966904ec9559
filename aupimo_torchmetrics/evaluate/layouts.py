"""Data sets in folders: the test images of a collection, and which masks belong to them.

Conventions: a *category* is a folder with test images of one kind of object, a *collection* is a folder of categories.
The *key* of an image is its path relative to the collection, without the suffix and with `/` between the parts. A map
of the image has the same key. An image without masks is normal. Images and masks are listed here, not read.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from aupimo_torchmetrics._files import BadDataError, existing_folder
from aupimo_torchmetrics._settings import Layout, check_choice
from aupimo_torchmetrics._untrusted import check_inside, find_files

__all__ = ["LAYOUTS", "LabelledImage", "find_test_images"]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
MASK_SUFFIX = ".png"
NORMAL_FOLDERS = ("good", "normal", "Normal")
"""Names of folders of normal images."""


class LabelledImage(NamedTuple):
    """A test image, and the masks of its defects."""

    name: str
    """Path relative to the data set, with `/` between the parts. It names the image everywhere."""
    category: str
    """Name of the category, which is that of its folder."""
    path: Path | None
    """File of the image; None if a table names an image that is not on disk."""
    masks: tuple[Path, ...]
    """Files of masks. The mask of the image is their union. Empty for a normal image."""
    has_defect: bool | None
    """Whether the image has a defect, by the name of its folder; None if only the mask says it."""
    defect: str | None = None
    """Type of the defect, or `good` and its like, by the name of its folder; None if it is not known."""
    has_mask_classes: bool = False
    """Whether masks hold a number for each type of defect, as in MVTec LOCO: each value but 0 is a defect."""

    @property
    def key(self) -> str:
        """Path relative to the data set, without suffix."""
        return _key(PurePosixPath(self.name))


def find_test_images(
    root: str | os.PathLike[str],
    layout: Layout = "auto",
    normal_folder: Sequence[str] = (),
    *,
    follow_links: bool = False,
) -> list[LabelledImage]:
    """List the test images of a collection or of a category, with their masks, sorted by key.

    Args:
        root: Folder of a collection, or of a single category of it.
        layout: `"mvtec"`: `CATEGORY/test/DEFECT/000.png` and `CATEGORY/ground_truth/DEFECT/000_mask.png`, or masks
            named as the images, as VisA's prepared form has them; `"visa"`: `CATEGORY/Data/Images/Anomaly/000.JPG` and
            `CATEGORY/Data/Masks/Anomaly/000.png` with the test split of `split_csv/1cls.csv`, or the prepared form;
            `"loco"`: as MVTec AD with several masks an image, `CATEGORY/ground_truth/DEFECT/000/*.png`; `"folder"`:
            `images/...` and `masks/...` with equal names; `"auto"` for whichever of these is there.
        normal_folder: Names of more folders of normal images, beside `good` and its like.
        follow_links: Whether links may lead out of the folder.

    Returns:
        The test images. A mask that should be there is listed even if its file is missing.

    Raises:
        ValueError: If a layout is not known or there is no such folder.
        BadDataError: If there is no image in that layout, the table of the split cannot be read, an image or mask is
            reached by a link that leads out of the root or nowhere, or a folder in a category is a link.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from aupimo_torchmetrics.evaluate import find_test_images
        >>> with tempfile.TemporaryDirectory() as root:
        ...     for name in ("test/good/000.png", "test/dirt/000.png", "ground_truth/dirt/000_mask.png"):
        ...         Path(root, "bottle", name).parent.mkdir(parents=True)
        ...         Path(root, "bottle", name).touch()
        ...     [(image.key, len(image.masks)) for image in find_test_images(root)]
        [('bottle/test/dirt/000', 1), ('bottle/test/good/000', 0)]

    """
    check_choice("layout", layout, Layout)
    root = existing_folder("root", root)
    for name in LAYOUTS if layout == "auto" else [layout]:
        images = sorted(LAYOUTS[name](root), key=lambda image: image.key)
        if images:
            check_inside(root, (path for image in images for path in (image.path, *image.masks)))
            return images
    wanted = "any known layout" if layout == "auto" else f"the layout {layout!r}"
    raise BadDataError(f"Expected {root} to be a data set in {wanted}, but found no test image.")


def _folder_images(root: Path) -> Iterator[LabelledImage]:
    """Images in `images/`, with masks of the same name in `masks/`."""
    for path in _files(root / "images"):
        relative = path.relative_to(root / "images")
        is_normal = bool(set(relative.parts[:-1]) & set(NORMAL_FOLDERS))
        masks = () if is_normal else (_mask_like(root / "masks" / relative, ""),)
        name = path.relative_to(root / "images").as_posix()
        yield LabelledImage(name, root.name, path, masks, False if is_normal else None)


def _mvtec_images(root: Path) -> Iterator[LabelledImage]:
    """Images in `CATEGORY/test/DEFECT/`, with one mask each in `CATEGORY/ground_truth/DEFECT/`."""
    for category in _categories(root, "test"):
        for path in _files(category / "test"):
            defect = path.parent.relative_to(category / "test")
            mask = category / "ground_truth" / defect / path.name
            # In VisA's prepared form a mask is named like its image, without `_mask`.
            masks = (_mask_like(mask, "" if _mask_like(mask, "").exists() else "_mask"),)
            yield _defect_image(root, category, path, masks, is_normal=defect.name in NORMAL_FOLDERS)


def _loco_images(root: Path) -> Iterator[LabelledImage]:
    """Images in `CATEGORY/test/DEFECT/`, with a folder of masks each in `CATEGORY/ground_truth/DEFECT/`."""
    for category in _categories(root, "test"):
        if not any(path.is_dir() for path in (category / "ground_truth").glob("*/*")):
            continue
        for path in _files(category / "test"):
            defect = path.parent.relative_to(category / "test")
            folder = category / "ground_truth" / defect / path.stem
            masks = tuple(_files(folder)) or (folder,)
            yield _defect_image(root, category, path, masks, is_normal=defect.name in NORMAL_FOLDERS)


def _visa_images(root: Path) -> Iterator[LabelledImage]:
    """Test images of VisA as it is published, with its table of the split; or of its prepared form."""
    split = _visa_split(root / "split_csv" / "1cls.csv")
    for category in _categories(root, "Data"):
        for path in _files(category / "Data" / "Images"):
            relative = path.relative_to(category / "Data" / "Images")
            if split is not None and _key(PurePosixPath(category.name, *path.relative_to(category).parts)) not in split:
                continue
            masks = (_mask_like(category / "Data" / "Masks" / relative, ""),)
            yield _defect_image(root, category, path, masks, is_normal=relative.parts[0] in NORMAL_FOLDERS)
    if not (root / "split_csv").exists():
        prepared = root / "1cls"
        yield from _mvtec_images(prepared if prepared.is_dir() else root)


LAYOUTS: dict[str, Callable[[Path], Iterator[LabelledImage]]] = {
    "loco": _loco_images,
    "mvtec": _mvtec_images,
    "visa": _visa_images,
    "folder": _folder_images,
}
"""Layouts by name, in the order in which they are tried."""


def _defect_image(root: Path, category: Path, path: Path, masks: tuple[Path, ...], *, is_normal: bool) -> LabelledImage:
    """Make a test image whose folder says whether it has a defect."""
    name = path.relative_to(root).as_posix()
    return LabelledImage(name, category.name, path, () if is_normal else masks, not is_normal, path.parent.name)


def _categories(root: Path, marker: str) -> list[Path]:
    """The folders of a collection that hold a folder `marker`; the root if it is a category itself."""
    if (root / marker).is_dir():
        return [root]
    return sorted(folder for folder in root.iterdir() if (folder / marker).is_dir())


def _files(folder: Path) -> list[Path]:
    """All image files in a folder and the folders in it, sorted; none if there is no such folder."""
    return find_files(folder, IMAGE_SUFFIXES) if folder.is_dir() else []


def _mask_like(path: Path, ending: str) -> Path:
    """Path of a mask named like an image, with an ending before the suffix."""
    return path.with_name(f"{path.stem}{ending}{MASK_SUFFIX}")


def _key(relative: PurePosixPath | Path) -> str:
    """Key of a relative path."""
    return relative.with_suffix("").as_posix()


def _visa_split(path: Path) -> set[str] | None:
    """Keys of the test images by VisA's table of the split, None if there is no such file."""
    if not path.is_file():
        return None
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, strict=True))
        return {_key(PurePosixPath(row["image"])) for row in rows if row["split"] == "test"}
    except KeyError as error:
        raise BadDataError(f"Expected {path} to be a table with a column {error}, but it has none.") from error
    except (csv.Error, UnicodeDecodeError, TypeError) as error:
        raise BadDataError(f"Expected {path} to be a table in CSV, but could not read it: {error}.") from error
