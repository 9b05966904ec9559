"""The files and pictures of an evaluation.

Conventions: each file is complete or absent. Nothing is written outside of the output folder, whatever a category is
called. Files are named by their path relative to the output folder, with `/` between the parts.
"""

from __future__ import annotations

import json
import os
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, get_args

from aupimo_torchmetrics._files.writing import replacing, write_text
from aupimo_torchmetrics._settings import MetricName, PictureFormat
from aupimo_torchmetrics.evaluate.pairing import Pair
from aupimo_torchmetrics.evaluate.reading import PairReader, photograph
from aupimo_torchmetrics.plotting import plot_distribution, plot_heatmaps, plot_pimo_curves, representative_images
from aupimo_torchmetrics.plotting._figures import CURVES_SIZE, distribution_size, figure_without_pyplot, heatmaps_size
from aupimo_torchmetrics.results import AUPIMOResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["OutputFolder", "SavedFiles", "folder_names", "write_pictures", "write_scores"]

SUMMARY_FILE = "summary.json"
PICTURE_DPI = 100
CAPTION_WIDTH = 28
"""Characters above a photograph."""


class SavedFiles(NamedTuple):
    """Files of an output folder, by their paths in it.

    Example:
        >>> from aupimo_torchmetrics.evaluate import SavedFiles
        >>> saved = SavedFiles(written=["images.csv", "summary.json"], replaced=["images.csv"], left=[])
        >>> sorted({*saved.written} - {*saved.replaced})
        ['summary.json']

    """

    written: list[str]
    """All files that were written, in this order."""
    replaced: list[str]
    """Those of them that had been there before."""
    left: list[str]
    """Files of an earlier evaluation that were not written this time, and lie there still."""


class OutputFolder:
    """A folder to write to, which remembers what was written.

    Attributes:
        path: The folder. It is made when the first file is written.
        written: Files that were written, complete.
        replaced: Those of them that had been there before.

    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.written: list[str] = []
        self.replaced: list[str] = []

    def write(self, write: Callable[[Path], None], name: str, *beside: str) -> None:
        """Let a function write a file, and perhaps others beside it, in a folder that is made if need be."""
        were_there = [each for each in (name, *beside) if (self.path / each).exists()]
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        write(self.path / name)
        self.written += [name, *beside]
        self.replaced += were_there

    def write_text(self, name: str, text: str) -> None:
        """Write a text file in UTF-8."""
        self.write(lambda path: write_text(path, text), name)

    def saved(self) -> SavedFiles:
        """Return what was written, and what is left of an earlier evaluation."""
        below = ["aupimo/*", *(f"{metric}.json" for metric in get_args(MetricName))]
        patterns = ["report.html", *below, *(f"*/{pattern}" for pattern in below)]
        found = {path.relative_to(self.path).as_posix() for pattern in patterns for path in self.path.glob(pattern)}
        return SavedFiles(self.written, self.replaced, sorted(found - {*self.written}))

    def interruption(self) -> str:
        """Say what had been written when writing was stopped."""
        if not self.written:
            return "stopped; nothing was written"
        count, last = len(self.written), self.written[-1]
        return f"stopped; {count} files were written to {self.path}, each complete; the last is {last}"


def folder_names(categories: Iterable[str]) -> dict[str, str]:
    """Name a folder for each category: by its own name, as far as that is the name of one folder inside of another.

    Example:
        >>> from aupimo_torchmetrics.evaluate.output import folder_names
        >>> folder_names(["bottle", "..", "a/b", "a_b"])
        {'bottle': 'bottle', '..': '__', 'a/b': 'a_b', 'a_b': 'a_b-2'}

    """
    taken = {"images.csv", SUMMARY_FILE, "report.html"}
    names = {}
    for category in categories:
        # What Windows allows in no name; its names do not end with a dot or a space either.
        plain = re.sub(r'[/\\:*?"<>|\x00-\x1f]|[. ]+$', lambda match: "_" * len(match[0]), category) or "_"
        name, number = plain, 2
        while name.lower() in taken:
            name, number = f"{plain}-{number}", number + 1
        taken.add(name.lower())
        names[category] = name
    return names


def write_scores(folder: OutputFolder, where: str, result: AUPIMOResult, values: Mapping[str, float]) -> None:
    """Write the scores and curves of a category in the official places and formats; `where` is empty or ends with /."""
    folder.write(result.save, f"{where}aupimo/aupimos.json", f"{where}aupimo/aupimos.safetensors")
    folder.write(lambda path: result.curves().save(path, result.shared_fpr), f"{where}aupimo/curves.pt")
    for name, value in values.items():
        if name != "aupimo":
            folder.write_text(f"{where}{name}.json", json.dumps({"value": value}, indent=4))


def write_pictures(
    folder: OutputFolder,
    where: str,
    result: AUPIMOResult,
    picture_format: PictureFormat,
    heatmaps_of: tuple[PairReader, Sequence[Pair]] | None,
) -> None:
    """Draw the pictures of a category, of which there are none without a score."""
    if bool(result.aupimos.isnan().all()):
        return
    pictures = {
        "distribution": figure_without_pyplot(distribution_size()),
        "curves": figure_without_pyplot(CURVES_SIZE),
    }
    plot_distribution(result, pictures["distribution"].subplots())
    plot_pimo_curves(result.curves(), result, ax=pictures["curves"].subplots())
    if heatmaps_of is not None:
        pictures["heatmaps"] = _heatmaps(result, *heatmaps_of)
    for name, figure in pictures.items():
        folder.write(partial(_save_figure, figure), f"{where}aupimo/{name}.{picture_format}")


def _save_figure(figure: Figure, path: Path) -> None:
    """Write a figure in the format that the suffix says."""
    with replacing(path) as unfinished:
        figure.savefig(unfinished, dpi=PICTURE_DPI, format=path.suffix[1:])


def _heatmaps(result: AUPIMOResult, reader: PairReader, pairs: Sequence[Pair]) -> Figure:
    """Draw heat maps of the images that stand for the distribution of a category."""
    roles = representative_images(result)
    loaded = [reader.read(pairs[index]) for index in roles]
    maps, masks = [each.anomaly_map for each in loaded], [each.mask for each in loaded]
    figure = figure_without_pyplot(heatmaps_size(len(roles)))
    photographs, notes = zip(*map(photograph, loaded), strict=True)
    captions = [
        textwrap.fill(f"{role}; its image cannot be read" if note and pairs[index].image.path else role, CAPTION_WIDTH)
        for (index, role), note in zip(roles.items(), notes, strict=True)
    ]
    plot_heatmaps(list(photographs), maps, result, masks, list(roles), captions, figure)
    return figure
