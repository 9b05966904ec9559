"""Data sets in folders: the test images of a collection or category, in whichever layout it lies on disk.

`LAYOUTS` is a table with a row for each layout. How a data set lies on disk is documented by its authors: MVTec AD,
AD 2, 3D-AD and LOCO (mvtec.com), VisA (github.com/amazon-science/spot-diff), BTAD (avires.dimi.uniud.it/papers/btad),
KolektorSDD2 (vicos.si/resources/kolektorsdd2), Real-IAD (realiad4ad.github.io), BMAD (github.com/DorisBao/BMAD), and
the folders of anomalib (anomalib.readthedocs.io).
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import NamedTuple

from aupimo_torchmetrics._errors import BadDataError, SettingError
from aupimo_torchmetrics._files.folders import check_inside
from aupimo_torchmetrics._files.writing import existing_folder
from aupimo_torchmetrics._settings import Layout, check_choice
from aupimo_torchmetrics.evaluate.data.folders import (
    DataFolder,
    LabelledImage,
    as_name,
    folders_in,
    is_file,
    missing_mask,
)
from aupimo_torchmetrics.evaluate.data.splits import SplitRow, read_split

__all__ = ["LAYOUTS", "LabelledImage", "find_test_images"]

MASK_FOLDERS = ("mask", "masks", "ground_truth", "groundtruth", "gt", "label", "labels")
"""Names of folders, in any case, that hold masks."""
NO_IMAGES = frozenset((*MASK_FOLDERS, "depth", "xyz"))
"""Names of folders, in any case, whose files are masks or depths, and no images."""
MASK_ENDINGS = ("_mask", "_gt", "_label", "_ground_truth")
"""How the name of a mask ends that lies beside its image, in any case."""
SPLITS = ("train", "val", "valid", "validation", "test", "test_public", "test_private", "test_private_mixed")
"""Names of folders, in any case, that hold splits of a data set."""
NO_CATEGORIES = NO_IMAGES | set(SPLITS)
"""Names of folders, in any case, that are neither a category nor a type of defect."""
PLACES = {
    "{defect}/": "(?:(?P<defect>.+)/)?",
    "{type}/": "(?:(?P<defect>[^/]+)/)?",
    "{name}": "(?P<name>.+?)",
    "{masks}": f"(?:{'|'.join(MASK_FOLDERS)})",
    "[_mask]": "(?:_mask)?",
    "/*": "/[^/]+",
}
"""Parts of paths that stand in templates: the folders of a type of defect, or the first of them alone; the name of an
image; a folder of masks; an ending that may be there; and any file in a folder."""

Key = tuple[str, str]
"""Folders of the type of defect, and name, by which an image and its masks belong together."""


class Form(NamedTuple):
    """Where the files of a category lie in its folder, by templates of their paths in it, in any case."""

    images: tuple[str, ...]
    """Of test images. A category is a folder in which the first folders of these are."""
    masks: str
    """Of masks. If an image has several, it ends in `/*`; if it begins with `{masks}`, they need no folder of a type of
    defect where the names of images are unique."""
    is_class_in_mask: bool = False
    """Whether the mask, and not the folder, says that an image has a defect; folders of normal images hold, though."""
    has_mask_classes: bool = False
    """Whether masks hold a number for each type of defect."""
    below: str = ""
    """Pattern of a folder that may lie between the root and the categories."""
    split: str = ""
    """Pattern of the file that says which are the test images of a `{category}`; without it, all of them are."""


MVTEC = Form(("test/{defect}/{name}",), "ground_truth/{defect}/{name}[_mask]")
VISA = Form(("Data/Images/{defect}/{name}",), "Data/Masks/{defect}/{name}[_mask]", split="split_csv/1cls.csv")
REAL_IAD = Form(("OK/{name}.jpg", "NG/{type}/{name}.jpg"), "NG/{type}/{name}[_mask].png", below="realiad_*")
LAYOUTS: dict[str, tuple[Form, ...]] = {
    "mvtec": (MVTEC,),
    "mvtec_ad_2": (Form(("test_public/{defect}/{name}",), "test_public/ground_truth/{defect}/{name}[_mask]"),),
    "mvtec_3d": (Form(("test/{defect}/rgb/{name}",), "test/{defect}/gt/{name}[_mask]"),),
    "loco": (Form(("test/{defect}/{name}",), "ground_truth/{defect}/{name}/*", has_mask_classes=True),),
    "visa": (VISA._replace(has_mask_classes=True), MVTEC._replace(below="1cls")),
    "btad": (MVTEC,),
    "ksdd2": (Form(("test/{name}",), "test/{name}_GT", is_class_in_mask=True),),
    "real_iad": (REAL_IAD._replace(split="realiad_jsons*/**/{category}.json"),),
    "bmad": (Form(("test/{defect}/img/{name}",), "test/{defect}/label/{name}[_mask]"),),
    "images_and_masks": (
        Form(("test/{defect}/images/{name}", "test/{defect}/{name}"), "test/{defect}/masks/{name}[_mask]"),
    ),
    "anomalib_folder": (
        Form(("{defect}/{name}",), "{masks}/{defect}/{name}[_mask]"),
        Form(("test/{defect}/{name}",), "{masks}/{defect}/{name}[_mask]"),
    ),
    "folder": (Form(("images/{defect}/{name}",), "masks/{defect}/{name}[_mask]", is_class_in_mask=True),),
}
"""Layouts by name, each with its forms: the first of these that finds images counts."""


def find_test_images(
    root: str | os.PathLike[str],
    layout: Layout = "auto",
    normal_folder: str | Sequence[str] = (),
    *,
    follow_links: bool = False,
) -> list[LabelledImage]:
    """List the test images of a collection or of a category, with their masks, sorted by category and name.

    Files and folders whose names begin with a dot are no data. Images in folders `good`, `ok`, `normal`, `defect_free`
    and their like, in any case, are normal. Masks may have any suffix of images, in any case.

    Args:
        root: Folder of a collection, or of a single category of it.
        layout: Name of the layout, such as `"mvtec"`; the table in `aupimo_torchmetrics.evaluate` has all of them.
            `"auto"` for whichever of these is there.
        normal_folder: Names of more folders of normal images, in any case, beside `good` and its like.
        follow_links: Whether links may lead out of the folder, and to folders.

    Returns:
        The test images. A mask that should be there is listed even if its file is missing. What cannot be evaluated for
        the names or places of its files, or for a missing mask, is listed, too, and has a `problem`.

    Raises:
        ValueError: If a layout is not known, there is no such folder, or a `normal_folder` is not there.
        BadDataError: If there is no image in that layout, or masks in another one only; `"auto"` finds no layout or
            several that fit; the root is a category and a collection; a table of the split cannot be read; an image or
            mask is reached by a link that leads out of the root or nowhere; or a folder in a category is a link. If
            folders in the root are data sets, they are named.

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
    images = _images(data, layout)
    if not follow_links:
        check_inside(data.root, (path for image in images for path in (image.path, *image.masks) if path))
    folders = sorted({folder for image in images for folder in (image.defect or "").split("/") if folder})
    for name in normal_folders:
        if as_name(name).casefold() not in map(str.casefold, folders):
            raise SettingError(
                f"Expected `normal_folder` to name folders of images, but there is no {name!r} "
                f"among {', '.join(folders) or 'none'}."
            )
    return sorted(_with_problems(images), key=lambda image: (image.category, image.key, image.name))


def _images(data: DataFolder, layout: str) -> list[LabelledImage]:
    """Test images in a layout, or in the only one that fits; raise if there is none, or masks in another one only."""
    images = [] if layout == "auto" else _find(data, layout)
    if any(map(_has_mask, images)):
        return images
    fitting = _fitting_layouts(data)
    if layout == "auto" and len(fitting) == 1:
        return next(iter(fitting.values()))
    others = [name for name, found in fitting.items() if not images or any(map(_has_mask, found))]
    if images and not others:
        return images
    if layout != "auto":
        fits = " or ".join(f'`layout="{name}"`' for name in others)
        raise BadDataError(
            f"Expected {data.root} to be a data set in the layout {layout!r}, but found no "
            f"{'mask of a ' if images else ''}test image. It needs {_needs(layout)}."
            f"{f' What is there fits {fits}.' if fits else ''}"
        )
    is_split = data.root.name.casefold() in SPLITS
    near = [] if fitting else [data.root.parent] if is_split else folders_in(data.root)
    near = [folder for folder in near if _is_data_set(data, folder)]
    if near:
        found = "is part of another. Give that one" if is_split else "holds some. Give one of them"
        lines = [f"Expected {data.root} to be one data set, but it {found}:", *map(str, near)]
        raise BadDataError("\n  ".join(lines))
    text = f"it fits several: {', '.join(fitting)}. Give the one that it is as `layout`"
    if not fitting:
        among = next(filter(None, (_mask_among(_find(data, name)) for name in LAYOUTS)), None)
        seen = f"; {among} among the images looks like a mask or a depth" if among else ""
        text = f"found no test images with masks{seen}. Give another folder, or a `table` of images and masks"
    needs = "".join(f"\n  {name} needs {_needs(name)}" for name in fitting or LAYOUTS)
    raise BadDataError(f"Expected {data.root} to be a data set in any known layout, but {text}:{needs}")


def _needs(layout: str) -> str:
    """Say where images and masks lie in a layout."""
    form = LAYOUTS[layout][0]
    return f"{' and '.join(form.images)} with {form.masks}"


def _fitting_layouts(data: DataFolder) -> dict[str, list[LabelledImage]]:
    """Test images by layout, for each that fits; of layouts that find the same images and masks, the first.

    A layout fits if it takes no mask for an image, and finds a mask, or normal images where folders say the classes. If
    any layout finds masks, only those fit that do.
    """
    fitting: dict[object, tuple[str, list[LabelledImage]]] = {}
    for name in LAYOUTS:
        images = _find(data, name)
        classes = {image.has_defect for image in images if image.path}
        is_sure = any(map(_has_mask, images)) or (False in classes and None not in classes)
        if is_sure and _mask_among(images) is None:
            files = ((image.name, image.has_defect, *filter(is_file, image.masks)) for image in images if image.path)
            fitting.setdefault(frozenset(files), (name, images))
    with_masks = {name: images for name, images in fitting.values() if any(map(_has_mask, images))}
    return with_masks or dict(fitting.values())


def _is_data_set(data: DataFolder, folder: Path) -> bool:
    """Whether a folder is a data set with masks in some layout."""
    below = DataFolder(folder, data.normal_words, follow_links=data.follow_links)
    try:
        return any(_has_mask(image) for images in _fitting_layouts(below).values() for image in images)
    except BadDataError:
        return False


def _has_mask(image: LabelledImage) -> bool:
    """Whether an image is there with a mask."""
    return image.path is not None and any(map(is_file, image.masks))


def _mask_among(images: Sequence[LabelledImage]) -> str | None:
    """Name a file among the images that has the name of a mask, or lies in a folder of masks or depths."""
    on_disk = [image for image in images if image.path]
    masks = _masks_beside({image.key for image in on_disk})
    folders = ((image, (image.defect or "").casefold().split("/")) for image in on_disk)
    return next((image.name for image, names in folders if image.key in masks or not NO_IMAGES.isdisjoint(names)), None)


def _masks_beside(keys: Collection[str]) -> set[str]:
    """Return the keys that are another one with the ending of a mask."""
    return {key for key in keys for end in MASK_ENDINGS if key.lower().endswith(end) and key[: -len(end)] in keys}


def _find(data: DataFolder, layout: str) -> list[LabelledImage]:
    """Find the test images of a layout."""
    for form in LAYOUTS[layout]:
        inside = [folder for folder in folders_in(data.root) if fnmatch(folder.name, form.below)]
        below = [categories for folder in inside if (categories := _categories(form, data, folder))]
        for categories in (_categories(form, data, data.root), *(below if len(below) == 1 else [])):
            images = [image for category in categories for image in _test_images(form, data, category)]
            if images:
                return images
    return []


def _categories(form: Form, data: DataFolder, root: Path) -> list[Path]:
    """List the folders of categories: the root, or folders in it; none if some of these are of normal images."""
    needed = (*form.images, form.masks) if form.images[0].startswith("{") else form.images

    def is_category(folder: Path) -> bool:
        names = [each.name for each in folders_in(folder)]
        return all(any(map(_first_folder(template).fullmatch, names)) for template in needed)

    inside = [each for each in folders_in(root) if each.name != "Data" and each.name.casefold() not in NO_CATEGORIES]
    categories = [folder for folder in inside if is_category(folder)]
    if not is_category(root):
        return [] if any(data.is_normal(folder.name) for folder in categories) else categories
    if categories and form.images[0].startswith("{"):
        return []
    if categories:
        raise BadDataError(
            f"Expected {root} to be one category or a folder of categories, but it looks like a category and "
            f"holds {categories[0].name}, which does, too. Move one of them away."
        )
    return [root]


@cache
def _first_folder(template: str) -> re.Pattern[str]:
    """Regular expression of the first folder of a template. A type of defect has not the name of another folder."""
    other = "|".join(NO_CATEGORIES)
    first = template.partition("/")[0].replace("{masks}", PLACES["{masks}"]).replace("{defect}", f"(?!(?:{other})$).+")
    return re.compile(first, re.IGNORECASE | re.DOTALL)


@cache
def _whole_path(template: str) -> re.Pattern[str]:
    """Regular expression of a template, which may leave out the suffix."""
    text = template if template.endswith((".jpg", ".png")) else f"{template}\\.[^./]+"
    for place, expression in PLACES.items():
        text = text.replace(place, expression)
    return re.compile(text, re.IGNORECASE | re.DOTALL)


def _key(data: DataFolder, template: str, relative: str) -> Key | None:
    """Read a path in the folder of a category by a template; None if it does not fit."""
    match = _whole_path(template).fullmatch(relative)
    if not match:
        return None
    normal = (folder for folder in relative.split("/")[:-1] if data.is_normal(folder))
    return as_name(match.groupdict().get("defect") or next(normal, "")), as_name(match["name"])


def _test_images(form: Form, data: DataFolder, category: Path) -> Iterator[LabelledImage]:
    """Yield the test images of a category, and the masks without an image."""
    images: dict[Key, list[Path]] = defaultdict(list)
    masks: dict[Key, list[Path]] = defaultdict(list)
    first = [_first_folder(template) for template in (*form.images, form.masks)]
    folders = [each for each in folders_in(category) if any(pattern.fullmatch(each.name) for pattern in first)]
    for relative, path in (file for folder in folders for file in data.files(folder).items()):
        if of_mask := _key(data, form.masks, relative):
            masks[of_mask].append(path)
        elif of_image := next(filter(None, (_key(data, template, relative) for template in form.images)), None):
            images[of_image].append(path)
    found = _labelled(form, data, category, images, masks)
    rows = read_split(data.root, category.name, form.split) if form.split else None
    return found if rows is None else _of_split(data, category, found, rows)


def _labelled(
    form: Form, data: DataFolder, category: Path, images: dict[Key, list[Path]], masks: dict[Key, list[Path]]
) -> Iterator[LabelledImage]:
    """Yield images with their masks, and masks without an image."""
    title, used = as_name(category.name), set()
    ending = "_mask" if any(path.stem.endswith("_mask") for paths in masks.values() for path in paths) else ""
    with_defect = Counter(name for defect, name in images if not data.is_normal(defect))
    # Without normal images, the folders may be no types of defect.
    is_loose = form.masks.startswith("{masks}") and with_defect.total() < len(images)
    for (defect, name), paths in images.items():
        is_normal = data.is_normal(defect)
        keys = {(defect, name)} | ({("", name)} if is_loose and not is_normal and with_defect[name] == 1 else set())
        used |= keys
        found = sorted(path for key in keys for path in masks.get(key, []))
        problem = None
        if not (defect or form.is_class_in_mask):
            problem = "no folder says whether it has a defect"
        elif len(found) > 1 and not form.masks.endswith("/*"):
            problem = _several("masks", map(data.name_of, found))
        if not (found or is_normal):
            text = form.masks.replace("[_mask]", ending).format(defect=defect, type=defect, name=name, masks="mask")
            found = [category / (text if text.endswith(".png") else f"{text}.png")]
        has_defect = None if form.is_class_in_mask and not is_normal else not is_normal
        facts = (tuple(found), has_defect, defect or None, form.has_mask_classes, problem)
        yield from (LabelledImage(data.name_of(path), title, path, *facts) for path in paths)
    for defect, name in masks.keys() - used:
        for path in [] if data.is_normal(defect) else masks[defect, name]:
            lost = LabelledImage(data.name_of(path), title, None, (path,), True, defect or None)
            yield lost._replace(problem="a mask without an image")


def _of_split(
    data: DataFolder, category: Path, images: Iterable[LabelledImage], rows: Sequence[SplitRow]
) -> Iterator[LabelledImage]:
    """Yield the images that a split names, as it names them, and the masks without an image."""
    wanted: dict[str, tuple[SplitRow, LabelledImage]] = {}
    for row in rows:
        base = category.parent if row.image.startswith(f"{category.name}/") else category
        path, masks = base / row.image, (base / row.mask,) if row.mask else ()
        defect = row.defect and as_name(row.defect)
        named = LabelledImage(data.name_of(path), as_name(category.name), path, masks, row.has_defect, defect)
        wanted[named.key] = row, named
    for image in images:
        row, named = wanted.pop(image.key, (SplitRow(""), image))
        if row.defect:
            of_row = named.masks or (image.masks if row.has_defect else ())
            yield image._replace(masks=of_row, has_defect=row.has_defect, defect=named.defect, problem=None)
        elif row.image or image.path is None:
            yield image
    for _, named in wanted.values():
        is_there = named.path is not None and is_file(named.path)
        yield named if is_there else named._replace(path=None, problem="in the split, but not on disk")


def _with_problems(images: Sequence[LabelledImage]) -> Iterator[LabelledImage]:
    """Add what is wrong with images that is seen from others, or from the files of their masks."""
    names: dict[str, list[str]] = defaultdict(list)
    for image in images:
        names[image.key].append(image.name)
    masks_beside = _masks_beside({image.key for image in images if image.path})
    for image in images:
        problem = image.problem or missing_mask(image)
        if len(names[image.key]) > 1:
            problem = _several("images of one name", names[image.key])
        elif image.key in masks_beside:
            problem = "named as the mask of another image, but it lies among the images"
        yield image._replace(problem=problem)


def _several(kind: str, names: Iterable[str]) -> str:
    """Say that an image has several files where it should have one."""
    return f"several {kind}, of which one has to go: {', '.join(sorted(names))}"
