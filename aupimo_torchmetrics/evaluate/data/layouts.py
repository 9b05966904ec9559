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

from aupimo_torchmetrics._errors import BadDataError
from aupimo_torchmetrics._files import check_inside
from aupimo_torchmetrics._files.writing import existing_folder
from aupimo_torchmetrics._settings import Layout, check_choice
from aupimo_torchmetrics.evaluate.data.folders import DataFolder, LabelledImage, as_name, is_file, missing_mask
from aupimo_torchmetrics.evaluate.data.splits import SplitReader, SplitRow, real_iad_split, visa_split

__all__ = ["LAYOUTS", "LabelledImage", "find_test_images"]

MASK_FOLDERS = ("mask", "masks", "ground_truth", "groundtruth", "gt", "label", "labels")
"""Names of folders, in any case, that hold masks."""
MASK_ENDINGS = ("_mask", "_gt", "_label", "_ground_truth")
"""How the name of a mask ends that lies beside its image, in any case."""
NO_IMAGES = frozenset((*MASK_FOLDERS, "depth", "xyz"))
"""Names of folders, in any case, whose files are masks or depths, and no images."""
SPLITS = ("train", "val", "valid", "validation", "test", "test_public", "test_private", "test_private_mixed")
"""Names of folders, in any case, that hold splits of a data set, and so are neither category nor type of defect."""
PLACES = {
    "{defect}/": "(?:(?P<defect>.+)/)?",
    "{type}/": "(?:(?P<defect>[^/]+)/)?",
    "{name}": "(?P<name>.+)",
    "{file}": "(?P<name>[^/]+)",
    "{masks}": f"(?:{'|'.join(MASK_FOLDERS)})",
    "/*": "/[^/]+",
}
"""Parts of paths that stand in templates: the folders of a type of defect, or the first of them alone; the name of an
image with folders, or without; a folder of masks; and any file in a folder."""

Key = tuple[str, str]
"""Folders of the type of defect, and name, by which an image and its masks belong together."""


class Form(NamedTuple):
    """How the files of a category lie in its folder: templates of their paths in it, in any case."""

    images: tuple[str, ...]
    """Of test images. A category is a folder in which the first folders of these are."""
    masks: tuple[str, ...]
    """Of masks. All that one image has, in a folder, end in `/*`."""
    is_class_in_mask: bool = False
    """Whether the mask, and not the folder, says that an image has a defect; folders of normal images hold, though."""
    has_mask_classes: bool = False
    """Whether masks hold a number for each type of defect."""
    has_loose_masks: bool = False
    """Whether masks need no folder of defects where their names are unique."""
    below: str = ""
    """Pattern of the one folder that may lie between the root and the categories."""
    split: SplitReader | None = None
    """Reads which are the test images, and their masks, where it is written; if it is not, the folders say it."""


MVTEC = Form(("test/{defect}/{name}",), ("ground_truth/{defect}/{name}_mask", "ground_truth/{defect}/{name}"))
REAL_IAD = Form(
    ("OK/{name}.jpg", "NG/{type}/{name}.jpg"),
    ("NG/{type}/{name}_mask", "NG/{type}/{name}.png"),
    below="realiad_*",
    split=real_iad_split,
)
LOOSE_MASKS = ("{masks}/{defect}/{name}", "{masks}/{defect}/{name}_mask")
LAYOUTS: dict[str, tuple[Form, ...]] = {
    "mvtec": (MVTEC,),
    "mvtec_ad_2": (
        Form(
            ("test_public/{defect}/{name}",),
            ("test_public/ground_truth/{defect}/{name}_mask", "test_public/ground_truth/{defect}/{name}"),
        ),
    ),
    "mvtec_3d": (Form(("test/{defect}/rgb/{name}",), ("test/{defect}/gt/{name}", "test/{defect}/gt/{name}_mask")),),
    "loco": (Form(("test/{defect}/{name}",), ("ground_truth/{defect}/{name}/*",), has_mask_classes=True),),
    "visa": (
        Form(
            ("Data/Images/{defect}/{name}",),
            ("Data/Masks/{defect}/{name}", "Data/Masks/{defect}/{name}_mask"),
            has_mask_classes=True,
            split=visa_split,
        ),
        MVTEC._replace(below="1cls"),
    ),
    "btad": (MVTEC,),
    "ksdd2": (Form(("test/{file}",), ("test/{file}_GT",), is_class_in_mask=True),),
    "real_iad": (
        REAL_IAD,
        REAL_IAD._replace(images=("OK/{name}", "NG/{type}/{name}"), masks=("OK/{name}_mask", "NG/{type}/{name}_mask")),
    ),
    "bmad": (Form(("test/{defect}/img/{name}",), ("test/{defect}/label/{name}", "test/{defect}/label/{name}_mask")),),
    "images_and_masks": (
        Form(("test/{defect}/images/{name}",), ("test/{defect}/masks/{name}", "test/{defect}/masks/{name}_mask")),
    ),
    "anomalib_folder": (
        Form(("test/{defect}/{name}",), LOOSE_MASKS, has_loose_masks=True),
        Form(("{defect}/{name}",), LOOSE_MASKS, has_loose_masks=True),
    ),
    "folder": (
        Form(
            ("images/{defect}/{name}",), ("masks/{defect}/{name}", "masks/{defect}/{name}_mask"), is_class_in_mask=True
        ),
    ),
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
    images = _images_of_any_layout(data) if layout == "auto" else _images_of_layout(data, layout)
    if not follow_links:
        check_inside(data.root, (path for image in images for path in (image.path, *image.masks) if path))
    _check_normal_folders(images, normal_folders)
    return sorted(_with_problems(images), key=lambda image: (image.category, image.key, image.name))


def _images_of_layout(data: DataFolder, name: str) -> list[LabelledImage]:
    """Test images in a layout; raise if there is none, or if their masks are there in another layout only."""
    images = _find(data, name)
    if any(map(_has_mask, images)):
        return images
    fitting = _fitting_layouts(data)
    others = [other for other, found in fitting.items() if other != name and any(map(_has_mask, found))]
    if images and not others:
        return images
    found = "found no mask of a test image" if images else "found no test image"
    advice = " or ".join(f'`layout="{other}"`' for other in others or fitting)
    raise BadDataError(
        f"Expected {data.root} to be a data set in the layout {name!r}, but {found}. "
        f"It needs {_needs(name)}.{f' What is there fits {advice}.' if advice else ''}"
    )


def _images_of_any_layout(data: DataFolder) -> list[LabelledImage]:
    """Test images in the only layout that fits; raise if there is none, or several."""
    fitting = _fitting_layouts(data)
    if len(fitting) == 1:
        return next(iter(fitting.values()))
    below = [] if fitting else [folder for folder in data.folders(data.root) if _is_data_set(data, folder)]
    if below:
        lines = [f"Expected {data.root} to be one data set, but it holds some. Give one of them:", *map(str, below)]
        raise BadDataError("\n  ".join(lines))
    if fitting:
        found, remedy = f"it fits several: {', '.join(fitting)}", "Give the one that it is as `layout`"
    else:
        found, remedy = "found no test image", "Give another folder, or a `table` of images and masks"
        masks = ((name, _mask_among(_find(data, name, is_tried=True))) for name in LAYOUTS)
        for name, mask in [each for each in masks if each[1]][:1]:
            found += f"; as {name!r} there is {mask} among the images, which looks like a mask or a depth"
    needs = "".join(f"\n  {name} needs {_needs(name)}" for name in fitting or LAYOUTS)
    raise BadDataError(f"Expected {data.root} to be a data set in any known layout, but {found}. {remedy}:{needs}")


def _needs(name: str) -> str:
    """Say where images and masks lie in a layout."""
    form = LAYOUTS[name][0]
    text = f"{' and '.join(form.images)}, with masks {' or '.join(form.masks)}, in the folder of a category"
    for place, words in {"defect": "DEFECT", "type": "DEFECT", "name": "000", "file": "000", "masks": "mask"}.items():
        text = text.replace(f"{{{place}}}", words)
    return text


def _fitting_layouts(data: DataFolder) -> dict[str, list[LabelledImage]]:
    """Test images by layout, for each that fits; of layouts that find the same images and masks, the first.

    A layout fits if it takes no mask for an image, and finds a mask or, by its folder, a normal image. If any layout
    finds masks, only those fit that do.
    """
    distinct: dict[object, str] = {}
    found = {name: _find(data, name, is_tried=True) for name in LAYOUTS}
    for name, images in found.items():
        has_classes = any(_has_mask(image) or image.has_defect is False for image in images)
        if has_classes and _mask_among(images) is None:
            on_disk = [image for image in images if image.path]
            distinct.setdefault(
                frozenset(
                    (image.name, image.has_defect, tuple(sorted(filter(is_file, image.masks)))) for image in on_disk
                ),
                name,
            )
    with_masks = [name for name in distinct.values() if any(map(_has_mask, found[name]))]
    return {name: found[name] for name in with_masks or distinct.values()}


def _is_data_set(data: DataFolder, folder: Path) -> bool:
    """Whether a folder is a data set with masks in some layout."""
    below = DataFolder(folder, data.normal_words, follow_links=data.follow_links)
    try:
        return any(_has_mask(image) for images in _fitting_layouts(below).values() for image in images)
    except BadDataError:
        return False


def _find(data: DataFolder, name: str, *, is_tried: bool = False) -> list[LabelledImage]:
    """Find the test images of a layout; if it is only tried, none where the root is both category and collection."""
    for form in LAYOUTS[name]:
        below = [
            _categories(form, data, folder) for folder in data.folders(data.root) if fnmatch(folder.name, form.below)
        ]
        below = [categories for categories in below if categories]
        for categories in (_categories(form, data, data.root, is_tried=is_tried), *(below if len(below) == 1 else [])):
            images = [image for category in categories for image in _images_of_category(form, data, category)]
            if images:
                return images
    return []


def _categories(form: Form, data: DataFolder, root: Path, *, is_tried: bool = True) -> list[Path]:
    """List the folders of categories: the root, or folders in it, none of which is a folder of normal images."""
    inside = [folder for folder in data.folders(root) if folder.name != "Data" and folder.name.casefold() not in SPLITS]
    categories = [folder for folder in inside if _is_category(form, data, folder)]
    if any(data.is_normal(folder.name) for folder in categories):
        categories = []
    if not _is_category(form, data, root):
        return categories
    if categories and not is_tried:
        raise BadDataError(
            f"Expected {root} to be one category or a folder of categories, but it looks like a category and "
            f"holds {categories[0].name}, which does, too. Move one of them away."
        )
    return [] if categories else [root]


def _is_category(form: Form, data: DataFolder, folder: Path) -> bool:
    """Whether the first folders of the images, or of the masks where those may have any name, are in a folder."""
    names = [each.name for each in data.folders(folder)]
    templates = form.masks if form.images[0].startswith("{") else form.images
    return all(any(_first_folder(template).fullmatch(name) for name in names) for template in templates)


@cache
def _first_folder(template: str) -> re.Pattern[str]:
    """Regular expression of the first folder of a template. A type of defect has no name of a split or of masks."""
    other = "|".join((*SPLITS, *NO_IMAGES, "images"))
    first = template.partition("/")[0].replace("{masks}", PLACES["{masks}"]).replace("{defect}", f"(?!(?:{other})$).+")
    return re.compile(first, re.IGNORECASE | re.DOTALL)


@cache
def _whole_path(template: str) -> re.Pattern[str]:
    """Regular expression of a template, which may leave out the suffix."""
    text = template if template.endswith((".jpg", ".png")) else f"{template}\\.[^./]+"
    for place, expression in PLACES.items():
        text = text.replace(place, expression)
    return re.compile(text, re.IGNORECASE | re.DOTALL)


def _keys(data: DataFolder, templates: Sequence[str], relative: str) -> dict[str, Key]:
    """Read a path in the folder of a category by each template that fits it."""
    keys = {}
    for template in templates:
        match = _whole_path(template).fullmatch(relative)
        if match:
            parts = match.groupdict()
            normal = (folder for folder in relative.split("/")[:-1] if data.is_normal(folder))
            keys[template] = as_name(parts.get("defect") or next(normal, "")), as_name(parts["name"])
    return keys


def _images_of_category(form: Form, data: DataFolder, category: Path) -> Iterator[LabelledImage]:
    """Yield the test images of a category, and the masks without an image."""
    rows = form.split(data.root, category.name) if form.split else None
    if rows is not None:
        yield from _images_of_split(form, data, category, rows)
        return
    images: dict[Key, list[Path]] = {}
    masks: dict[str, dict[Key, list[Path]]] = {template: {} for template in form.masks}
    for relative, path in _files(form, data, category):
        keys = _keys(data, form.masks, relative)
        for template, key in keys.items():
            masks[template].setdefault(key, []).append(path)
        for key in [] if keys else list(_keys(data, form.images, relative).values())[:1]:
            images.setdefault(key, []).append(path)
    usual = max(form.masks, key=lambda template: len(masks[template].keys() & images.keys()))
    loose = _loose_masks(data, masks[usual], images) if form.has_loose_masks else {}
    used: set[Path] = set()
    for key, paths in images.items():
        found = [*(mask for by_key in masks.values() for mask in by_key.get(key, [])), *loose.get(key, [])]
        used.update(found)
        for path in paths:
            yield _image(form, data, category, path, key, found or [_path(category, usual, key)])
    of_no_image = {mask: key for by_key in masks.values() for key, paths in by_key.items() for mask in paths}
    for mask, (defect, _) in of_no_image.items():
        if mask not in used and not data.is_normal(defect):
            name, kind = data.name_of(mask), as_name(category.name)
            yield LabelledImage(name, kind, None, (mask,), True, defect or None, problem="a mask without an image")


def _files(form: Form, data: DataFolder, category: Path) -> Iterator[tuple[str, Path]]:
    """Yield path in the folder of a category and file, of each file in the folders that a form names."""
    for folder in data.folders(category):
        if any(_first_folder(template).fullmatch(folder.name) for template in (*form.images, *form.masks)):
            yield from data.files(folder).items()


def _loose_masks(
    data: DataFolder, masks: dict[Key, list[Path]], images: dict[Key, list[Path]]
) -> dict[Key, list[Path]]:
    """Masks that lie in no folder of a type of defect, for images with a defect whose names are unique.

    There must be normal images, or else these folders may be no types of defect.
    """
    anomalous = [key for key in images if not data.is_normal(key[0])]
    counts = Counter(name for _, name in anomalous)
    if len(anomalous) == len(images):
        return {}
    return {key: masks.get(("", key[1]), []) for key in anomalous if counts[key[1]] == 1}


def _image(  # noqa: PLR0917
    form: Form, data: DataFolder, category: Path, path: Path, key: Key, masks: Sequence[Path]
) -> LabelledImage:
    """Make a test image of a file, and of its masks, or of where its mask would be."""
    defect, is_normal = key[0], data.is_normal(key[0])
    on_disk = [mask for mask in masks if is_file(mask)]
    problem = None
    if not (defect or form.is_class_in_mask):
        problem = "no folder says whether it has a defect"
    elif len(on_disk) > 1 and not form.masks[0].endswith("/*"):
        problem = _several("masks", map(data.name_of, on_disk))
    return LabelledImage(
        name=data.name_of(path),
        category=as_name(category.name),
        path=path,
        masks=tuple(on_disk if is_normal else masks),
        has_defect=None if form.is_class_in_mask and not is_normal else not is_normal,
        defect=defect or None,
        has_mask_classes=form.has_mask_classes,
        problem=problem,
    )


def _path(category: Path, template: str, key: Key) -> Path:
    """Where the mask of an image would be."""
    defect, name = key
    text = template.replace("/*", "").replace("{masks}", "mask")
    for place in ("{defect}/", "{type}/"):
        text = text.replace(place, f"{defect}/" if defect else "")
    text = text.replace("{name}", name).replace("{file}", name)
    return category / (text if template.endswith(("/*", ".png")) else f"{text}.png")


def _images_of_split(form: Form, data: DataFolder, category: Path, rows: Sequence[SplitRow]) -> Iterator[LabelledImage]:
    """Yield the test images that a split names."""
    for row in rows:
        base = category.parent if row.image.startswith(f"{category.name}/") else category
        path = base / row.image
        image = LabelledImage(
            name=data.name_of(path),
            category=as_name(category.name),
            path=path,
            masks=(base / row.mask,) if row.mask else (),
            has_defect=row.has_defect,
            defect=as_name(row.defect) or None,
            has_mask_classes=form.has_mask_classes,
        )
        if not is_file(path):
            image = image._replace(path=None, problem="in the split, but not on disk")
        elif row.has_defect and not row.mask:
            image = image._replace(problem="an image with a defect, but the split names no mask of it")
        yield image


def _has_mask(image: LabelledImage) -> bool:
    """Whether an image is there with a mask."""
    return image.path is not None and any(map(is_file, image.masks))


def _mask_among(images: Sequence[LabelledImage]) -> str | None:
    """Name a file among the images that has the name of a mask, or lies in a folder of masks or depths."""
    on_disk = [image for image in images if image.path]
    masks = _masks_beside({image.key for image in on_disk})
    for image in on_disk:
        if image.key in masks or not NO_IMAGES.isdisjoint((image.defect or "").casefold().split("/")):
            return image.name
    return None


def _masks_beside(keys: Collection[str]) -> set[str]:
    """Return the keys that are another one with the ending of a mask."""
    return {
        key for key in keys for ending in MASK_ENDINGS if key.lower().endswith(ending) and key[: -len(ending)] in keys
    }


def _check_normal_folders(images: Sequence[LabelledImage], names: Sequence[str]) -> None:
    """Raise unless each name is that of a folder of images."""
    folders = sorted({folder for image in images for folder in (image.defect or "").split("/") if folder})
    known = {folder.casefold() for folder in folders}
    for name in names:
        if as_name(name).casefold() not in known:
            raise ValueError(
                f"Expected `normal_folder` to name folders of images, but there is no {name!r} "
                f"among {', '.join(folders) or 'none'}."
            )


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
