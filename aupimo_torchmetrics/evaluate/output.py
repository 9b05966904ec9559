"""The files and pictures of an evaluation.

Conventions: each file is complete or absent. Nothing is written outside of the output folder, whatever a category is
called. Files are named by their path relative to the output folder, with `/` between the parts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, get_args

from aupimo_torchmetrics import plotting
from aupimo_torchmetrics._files.writing import write_text
from aupimo_torchmetrics._settings import MetricName, PictureFormat
from aupimo_torchmetrics.evaluate.reading import PairReader, photograph
from aupimo_torchmetrics.evaluate.written import saying_what_was_written
from aupimo_torchmetrics.plotting import _figures
from aupimo_torchmetrics.results import AUPIMOResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from aupimo_torchmetrics.evaluate.evaluation import CategoryScores

__all__ = ["SavedFiles", "draw_curves", "draw_scores", "folder_names", "picture_files", "score_files", "write_files"]

SUMMARY_FILE = "summary.json"

Files: TypeAlias = dict[str, Callable[[Path], Any] | None]
"""What writes each file; None for one that is written with the one before."""


class SavedFiles(NamedTuple):
    """Files of an output folder, by their paths in it.

    Example:
        >>> from aupimo_torchmetrics.evaluate import SavedFiles
        >>> saved = SavedFiles(written=["images.csv", "summary.json"], left=["report.html"])
        >>> len(saved.written)
        2

    """

    written: list[str]
    """All files that were written, in this order."""
    left: list[str]
    """Files of an earlier evaluation that were not written this time, and lie there still."""


def write_files(out: Path, files: Files) -> SavedFiles:
    """Write files one after the other, each complete or not at all; on Ctrl-C say how many there are."""
    with saying_what_was_written(out) as written:
        for name, write in files.items():
            if write is not None:
                write(out / name)
            written.append(name)
    below = ["aupimo/*", *(f"{metric}.json" for metric in get_args(MetricName))]
    patterns = ["report.html", *below, *(f"*/{pattern}" for pattern in below)]
    found = {path.relative_to(out).as_posix() for pattern in patterns for path in out.glob(pattern)}
    return SavedFiles(written, sorted(found - {*written}))


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


def score_files(where: str, result: AUPIMOResult, values: Mapping[str, float]) -> Files:
    """Scores and curves of a category in the official places and formats; `where` is empty or ends with /."""
    files: Files = {
        f"{where}aupimo/aupimos.json": result.save,
        f"{where}aupimo/aupimos.safetensors": None,
        f"{where}aupimo/curves.pt": lambda path: result.curves().save(path, result.shared_fpr),
    }
    texts = {name: json.dumps({"value": value}, indent=4) for name, value in values.items() if name != "aupimo"}
    return files | {f"{where}{name}.json": partial(write_text, text=text) for name, text in texts.items()}


def picture_files(
    where: str, scores: CategoryScores, picture_format: PictureFormat, heatmap_reader: PairReader | None
) -> Files:
    """Pictures of a category, of which there are none without a score; heat maps need a reader."""
    if bool(scores.result.aupimos.isnan().all()):
        return {}
    pictures: dict[str, Callable[[], Figure]] = {
        "distribution": partial(draw_scores, {"": scores}),
        "curves": partial(draw_curves, scores.result),
    }
    if heatmap_reader is not None:
        pictures["heatmaps"] = partial(_draw_heatmaps, scores, heatmap_reader)
    return {
        f"{where}aupimo/{name}.{picture_format}": partial(_figures.save_figure, draw) for name, draw in pictures.items()
    }


def draw_scores(categories: Mapping[str, CategoryScores]) -> Figure:
    """Draw the distributions of the scores of categories, by the names that they are to have."""
    results = {name: scores.result for name, scores in categories.items()}
    intervals = {name: scores.interval_of_mean() for name, scores in categories.items()}
    plot = partial(plotting.plot_distribution, intervals=intervals)
    return _figures.drawn_off_screen(_figures.distribution_size(len(results)), plot, results)


def draw_curves(result: AUPIMOResult) -> Figure:
    """Draw the curves of a category, which are computed no sooner."""
    return _figures.drawn_off_screen(_figures.CURVES_SIZE, plotting.plot_pimo_curves, result.curves(), result)


def _draw_heatmaps(scores: CategoryScores, reader: PairReader) -> Figure:
    """Draw heat maps of the images that stand for the distribution of a category."""
    roles = plotting.representative_images(scores.result)
    loaded = [reader.read(scores.pairs[index]) for index in roles]
    photographs, notes = zip(*map(photograph, loaded), strict=True)
    captions = [
        f"{role}; without its image" if note else role for role, note in zip(roles.values(), notes, strict=True)
    ]
    figure = _figures.figure_without_pyplot(_figures.heatmaps_size(len(roles)))
    maps, masks = [each.anomaly_map for each in loaded], [each.mask for each in loaded]
    plotting.plot_heatmaps(photographs, maps, scores.result, masks, list(roles), captions, figure)
    return figure
