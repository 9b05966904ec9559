"""Thresholds on maps of images without masks; binary masks as pictures, 255 where a pixel is called anomalous."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from torch import Tensor

from aupimo_torchmetrics._errors import BadDataError
from aupimo_torchmetrics._extras import progress
from aupimo_torchmetrics._paths import as_name
from aupimo_torchmetrics._tables import text_table
from aupimo_torchmetrics.evaluate.at_threshold import threshold_text, unit_warning
from aupimo_torchmetrics.evaluate.bad_files import BadFile, BadFilesError, read_all
from aupimo_torchmetrics.evaluate.maps.open import existing_maps, open_maps, read_map
from aupimo_torchmetrics.evaluate.thresholds import ALL, Thresholds
from aupimo_torchmetrics.evaluate.written import check_apart, files_of, saying_what_was_written, write_half, write_mask

__all__ = ["AppliedThreshold", "AppliedThresholds", "apply_thresholds"]


@dataclass
class AppliedThreshold:
    """What a threshold does to the maps of a category.

    Attributes:
        category: Name of the category; empty if the threshold is for all.
        threshold: In the unit of the maps.
        num_images: Maps.
        num_alarms: Those with a pixel that is called anomalous.
        num_pixels: Pixels of all maps.
        num_found: Those that are called anomalous.
        highest: Highest score of all maps.
        num_moved: Pixels of maps written as float16 that overflow there, or change sides of the threshold.
        moved: First map with such a pixel; empty if there is none.

    """

    category: str
    threshold: float
    num_images: int = 0
    num_alarms: int = 0
    num_pixels: int = 0
    num_found: int = 0
    highest: float = -np.inf
    num_moved: int = 0
    moved: str = ""

    def add(self, anomaly_map: Tensor) -> None:
        """Count the pixels of a map (H, W) float32, and those that are called anomalous."""
        is_found = anomaly_map >= self.threshold
        self.num_images += 1
        self.num_alarms += bool(is_found.any())
        self.num_pixels += is_found.numel()
        self.num_found += int(is_found.sum())
        self.highest = max(self.highest, float(anomaly_map.max()))

    def compare(self, name: str, anomaly_map: Tensor) -> None:
        """Count the pixels of a map (H, W) float32 that rounding to float16 changes."""
        rounded = anomaly_map.half()
        moves = (anomaly_map >= self.threshold) != (rounded.float() >= self.threshold)
        num_moved = int((moves | (rounded.isinf() & ~anomaly_map.isinf())).sum())
        self.num_moved += num_moved
        self.moved = self.moved or (name if num_moved else "")

    def warnings(self) -> list[str]:
        """Say what is wrong with the threshold, or with maps as float16."""
        texts = [unit_warning(self.threshold, self.num_found, self.num_pixels, self.highest)]
        if self.num_moved:
            texts.append(
                f"{self.num_moved:,} pixels, as of {self.moved}, overflow or change sides of the threshold in float16, "
                "as maps are written. Please save maps as float16, scaled if need be, before a threshold is chosen."
            )
        return list(filter(None, texts))


@dataclass
class AppliedThresholds:
    """What thresholds do to maps.

    Attributes:
        categories: One for each category.
        files: Masks and maps that were written.

    """

    categories: list[AppliedThreshold]
    files: list[Path] = field(default_factory=list)

    def __repr__(self) -> str:
        """Show the summary."""
        return self.summary()

    def summary(self) -> str:
        """Return a table of alarms, and warnings.

        Returns:
            Lines of text.

        """
        rows = [["category", "images", "threshold", "alarms", "pixels found"]]
        for each in self.categories:
            alarms = f"{each.num_alarms} of {each.num_images}"
            share = f"{each.num_found / each.num_pixels:.3%}"
            rows.append([each.category or "(all)", str(each.num_images), threshold_text(each.threshold), alarms, share])
        lines = [text_table(rows, "<>>>>")]
        lines += [
            f"warning: {each.category or '(all)'}: {text}" for each in self.categories for text in each.warnings()
        ]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers of each category, and its warnings."""
        return {"applied": [{**asdict(each), "warnings": each.warnings()} for each in self.categories]}


def apply_thresholds(
    apply: str | os.PathLike[str],
    threshold: float | str | os.PathLike[str] | Thresholds,
    write_masks: str | os.PathLike[str] | None = None,
    write_maps: str | os.PathLike[str] | None = None,
    *,
    split: str | Sequence[str] = (),
    map_suffix: str | None = None,
    follow_links: bool = False,
    quiet: bool = False,
) -> AppliedThresholds:
    """Call the pixels of maps anomalous that reach the threshold of their category; no masks of defects are needed.

    Args:
        apply: File `asmaps.pt` or folder of maps to apply thresholds to. Where there are several thresholds, a folder
            of each map names its category.
        threshold: A number for all maps, or a file `thresholds.json`, as `aupimo threshold` and `Thresholds.save` write
            it.
        write_masks: Folder for binary masks: PNG of 0 and 255, of the size of the map and under its path.
        write_maps: Folder for the maps as TIFF of float16, likewise.
        split: Names of folders: only maps below one of them count, as `"test_private"`.
        map_suffix: Only files with this ending are maps, as `".tiff"`.
        follow_links: Whether links may lead out of the folder.
        quiet: Whether to show no progress bar. There is none either unless standard error is a terminal.

    Returns:
        What the thresholds do, and the files that were written.

    Raises:
        ValueError: If there are no such files, or the threshold is no number.
        BadDataError: If the category of a map is not clear or has no threshold, if two images would share a file, or if
            maps cannot be read, which are all named. Nothing is written then.
        OSError: If a file cannot be written.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from aupimo_torchmetrics.evaluate import apply_thresholds
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder, "maps").mkdir()
        ...     np.save(Path(folder, "maps/000.npy"), np.arange(16.0).reshape(4, 4))
        ...     applied = apply_thresholds(f"{folder}/maps", 12.0, write_masks=f"{folder}/masks")
        >>> applied.files[0].name, applied.categories[0].num_found
        ('000.png', 4)

    """
    thresholds = Thresholds.read(threshold)
    maps = open_maps(existing_maps("apply", apply), map_suffix, split, follow_links=follow_links)
    categories = [_category_of(name, Path(apply), thresholds) for name in maps.names]
    folders = {".png": ("write_masks", write_masks), ".tiff": ("write_maps", write_maps)}
    to_write = {
        suffix: files_of(maps.names, check_apart(name, folder, [apply]), suffix, [Path(apply)])
        for suffix, (name, folder) in folders.items()
        if folder is not None
    }
    applied = {category: AppliedThreshold(category, thresholds.of(category)) for category in sorted({*categories})}
    bad_files: list[BadFile] = []
    indices = range(len(categories))
    with progress(indices, "applying", "map", quiet=quiet) as shown:
        for index, anomaly_map in read_all(shown, lambda index: (index, read_map(maps, index)), bad_files):
            applied[categories[index]].add(anomaly_map)
            if ".tiff" in to_write:
                applied[categories[index]].compare(maps.names[index], anomaly_map)
    if bad_files:
        raise BadFilesError(bad_files, "nothing was written; mend or remove them")
    # Maps are read once more, as nothing is written before all of them are known to be good.
    to_read = progress(indices if to_write else [], "writing", "map", quiet=quiet)
    with saying_what_was_written(write_masks or write_maps or "") as written, to_read as shown:
        for index in shown:
            anomaly_map = read_map(maps, index)
            for suffix, files in to_write.items():
                if suffix == ".png":
                    write_mask(files[index], anomaly_map >= applied[categories[index]].threshold)
                else:
                    write_half(files[index], anomaly_map)
                written.append(files[index])
    return AppliedThresholds(list(applied.values()), written)


def _category_of(name: str, root: Path, thresholds: Thresholds) -> str:
    """Category of a map by the one of its folders that has a threshold; none if one threshold is for all.

    Raises:
        BadDataError: If there is no such folder, or several.

    """
    if {*thresholds.values} == {ALL}:
        return ALL
    folders = [root.absolute().name, *PurePosixPath(as_name(name).replace("\\", "/")).parts[:-1]]
    named = [folder for folder in dict.fromkeys(folders) if folder and folder in thresholds.values]
    if len(named) != 1 and not (ALL in thresholds.values and not named):
        known = ", ".join(thresholds.values)
        raise BadDataError(
            f"Expected one folder of {name} to be a category with a threshold, {known}, but found "
            f"{' and '.join(named) or 'none'}. Give as `apply` a folder below which the categories are."
        )
    return named[0] if named else ALL
