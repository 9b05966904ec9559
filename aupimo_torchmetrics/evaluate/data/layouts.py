"""Data sets in folders: the test images of a collection or category, in whichever layout it lies on disk."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from glob import escape
from pathlib import Path

from aupimo_torchmetrics._errors import BadDataError, SettingError
from aupimo_torchmetrics._files import check_inside
from aupimo_torchmetrics._files.writing import existing_folder
from aupimo_torchmetrics._settings import Layout, check_choice
from aupimo_torchmetrics.evaluate.data.folders import (
    IMAGE_SUFFIXES,
    DataFolder,
    LabelledImage,
    as_name,
    is_file,
    several_files,
)
from aupimo_torchmetrics.evaluate.data.published import LAYOUTS, MASK_FOLDERS

__all__ = ["LAYOUTS", "LabelledImage", "find_test_images"]

MASK_ENDINGS = ("_mask", "_gt", "_label", "_ground_truth")
"""How the name of a mask ends that lies beside its image, in any case."""


def find_test_images(
    root: str | os.PathLike[str],
    layout: Layout = "auto",
    normal_folder: str | Sequence[str] = (),
    *,
    follow_links: bool = False,
) -> list[LabelledImage]:
    """List the test images of a collection or of a category, with their masks, sorted by category and name.

    Files and folders whose names begin with a dot are no data. Images in folders `good`, `ok`, `normal` and
    `defect_free`, in any case, are normal. Masks may have any suffix of images, in any case.

    Args:
        root: Folder of a collection, or of a single category of it.
        layout: Name of the layout, such as `"mvtec"`; the table in `aupimo_torchmetrics.evaluate` has all of them.
            `"auto"` for whichever of these is there.
        normal_folder: Names of more folders of normal images, in any case, beside `good` and its like.
        follow_links: Whether links may lead out of the folder, and to folders.

    Returns:
        The test images. A mask that should be there is listed even if its file is missing. What cannot be evaluated for
        the names or places of its files is listed, too, and has a `problem`.

    Raises:
        ValueError: If a layout is not known, there is no such folder, or a `normal_folder` is not there.
        BadDataError: If there is no image in that layout, `"auto"` finds no layout or several that fit, a table of the
            split cannot be read, an image or mask is reached by a link that leads out of the root or nowhere, or a
            folder in a category is a link. If folders in the root are data sets, they are named.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from aupimo_torchmetrics.evaluate import find_test_images
        >>> with tempfile.TemporaryDirectory() as root:
        ...     for name in ("test/good/000.png", "test/dirt/000.png", "ground_truth/dirt/000_mask.png"):
        ...         Path(root, "bottle", name).parent.mkdir(parents=True)
        ...         Path(root, "bottle", name).touch()
        ...     [(image.name, image.defect, len(image.masks)) for image in find_test_images(root)]
        [('bottle/test/dirt/000.png', 'dirt', 1), ('bottle/test/good/000.png', 'good', 0)]

    """
    check_choice("layout", layout, Layout)
    normal_folders = [normal_folder] if isinstance(normal_folder, str) else list(normal_folder)
    data = DataFolder(existing_folder("root", root).resolve(), normal_folders, follow_links=follow_links)
    images = _images_of_any_layout(data) if layout == "auto" else _images_of_layout(data, layout)
    if not follow_links:
        check_inside(data.root, (path for image in images for path in (image.path, *image.masks) if path))
    _check_normal_folders(images, normal_folders)
    return sorted(_with_problems(images), key=lambda image: (image.category, image.key, image.name))


def _images_of_layout(data: DataFolder, name: str) -> list[LabelledImage]:
    """Test images in a layout; raise if there is none, and say what else it may be."""
    layout = LAYOUTS[name]
    images = list(layout.find(data))
    if not images and layout.prepared:
        images = list(layout.prepared(data))
    if not images:
        fitting = [other for other in _fitting_layouts(data) if other != name]
        advice = " or ".join(f'`layout="{other}"`' for other in fitting)
        raise BadDataError(
            f"Expected {data.root} to be a data set in the layout {name!r}, but found no test image. "
            f"It needs {layout.needs}.{f' What is there fits {advice}.' if fitting else ''}"
        )
    return images


def _images_of_any_layout(data: DataFolder) -> list[LabelledImage]:
    """Test images in the only layout that fits; raise if there is none, or several."""
    fitting = _fitting_layouts(data)
    if len(fitting) == 1:
        return next(iter(fitting.values()))
    if not fitting and (below := _data_sets_below(data)):
        raise BadDataError(
            "\n  ".join(
                [f"Expected {data.root} to be one data set, but it holds some. Give one of them:", *map(str, below)]
            )
        )
    if fitting:
        found, remedy = f"it fits several: {', '.join(fitting)}", "Give the one that it is as `layout`"
    else:
        found, remedy = "found no test image", "Give another folder, or a `table` of images and masks"
        masks = {name: _mask_among(images) for name, images in _images_by_layout(data).items()}
        for name, mask in masks.items():
            if mask is not None:
                found += f"; as {name!r} there is {mask} among the images, which looks like a mask or a depth"
    needs = "".join(f"\n  {name} needs {LAYOUTS[name].needs}" for name in fitting or LAYOUTS)
    raise BadDataError(f"Expected {data.root} to be a data set in any known layout, but {found}. {remedy}:{needs}")


def _images_by_layout(data: DataFolder) -> dict[str, list[LabelledImage]]:
    """Whatever each layout takes for test images."""
    return {name: list(layout.find(data)) for name, layout in LAYOUTS.items() if layout.is_tried}


def _fitting_layouts(data: DataFolder) -> dict[str, list[LabelledImage]]:
    """Test images by layout, for each that takes no masks for images; if any finds masks, only for those that do."""
    found = _images_by_layout(data)
    fitting = {name: images for name, images in found.items() if images and _mask_among(images) is None}
    with_masks = {name: images for name, images in fitting.items() if any(map(_has_mask, images))}
    return with_masks or fitting


def _data_sets_below(data: DataFolder) -> list[Path]:
    """Folders in the root that are data sets with masks."""
    return [
        folder
        for folder in data.folders(data.root)
        if _is_data_set(DataFolder(folder, data.normal_folders, follow_links=data.follow_links))
    ]


def _is_data_set(data: DataFolder) -> bool:
    """Whether there is a data set with masks in some layout."""
    try:
        return any(_has_mask(image) for images in _fitting_layouts(data).values() for image in images)
    except BadDataError:
        return False


def _has_mask(image: LabelledImage) -> bool:
    """Whether a mask of an image is there."""
    return any(map(is_file, image.masks))


def _mask_among(images: Sequence[LabelledImage]) -> str | None:
    """Name a file among the images that has the name of a mask, or lies in a folder of masks or depths."""
    on_disk = [image for image in images if image.path]
    masks_beside = _masks_beside({image.key for image in on_disk})
    for image in on_disk:
        folders = {folder.casefold() for folder in (image.defect or "").split("/")}
        if image.key in masks_beside or not folders.isdisjoint(MASK_FOLDERS):
            return image.name
    return None


def _masks_beside(keys: Collection[str]) -> set[str]:
    """Return the keys that are another one with the ending of a mask."""
    return {
        key
        for key in keys
        if key.lower().endswith(MASK_ENDINGS)
        and any(key[: -len(ending)] in keys for ending in MASK_ENDINGS if key.lower().endswith(ending))
    }


def _check_normal_folders(images: Sequence[LabelledImage], names: Sequence[str]) -> None:
    """Raise unless each name is that of a folder of images."""
    folders = sorted({folder for image in images for folder in (image.defect or "").split("/") if folder})
    known = {folder.casefold() for folder in folders}
    for name in names:
        if as_name(name).casefold() not in known:
            raise SettingError(
                f"Expected `normal_folder` to name folders of images, but there is no {name!r} "
                f"among {', '.join(folders) or 'none'}."
            )


def _with_problems(images: Sequence[LabelledImage]) -> Iterator[LabelledImage]:
    """Add what is wrong with images that is seen from others only."""
    keys = [image.key for image in images]
    names: dict[str, list[str]] = {}
    for key, image in zip(keys, images, strict=True):
        names.setdefault(key, []).append(image.name)
    masks_beside = _masks_beside({key for key, image in zip(keys, images, strict=True) if image.path})
    groups_with_masks: set[tuple[str, str]] = set()
    for image in images:
        if image.masks and _group(image) not in groups_with_masks and _has_mask(image):
            groups_with_masks.add(_group(image))
    for key, image in zip(keys, images, strict=True):
        problem = image.problem
        if len(names[key]) > 1:
            problem = several_files("images of one name", iter(names[key]))
        elif key in masks_beside:
            problem = "named as the mask of another image, but it lies among the images"
        elif problem is None and image.has_defect and image.masks and _group(image) not in groups_with_masks:
            problem = _without_masks(image)
        yield image if problem is None else image._replace(problem=problem)


def _group(image: LabelledImage) -> tuple[str, str]:
    """Category, and the first folder that the image lies in within it."""
    return image.category, (image.defect or "").partition("/")[0]


def _without_masks(image: LabelledImage) -> str:
    """Say what may be wrong with an image that has no mask and lies in a folder of such."""
    _, folder = _group(image)
    mask = image.masks[0]
    beside = sorted(mask.parent.glob(f"{escape(Path(image.name).stem)}*"))
    others = [path.name for path in beside if path.suffix.lower() not in IMAGE_SUFFIXES]
    if others:
        return f"its mask {mask} is missing; masks are {', '.join(IMAGE_SUFFIXES)}, and not {others[0]}"
    missing = f"its mask {mask} is missing, as are all masks of the folder {folder!r}"
    return f'{missing}; if its images are normal, `normal_folder="{folder}"` says so'
