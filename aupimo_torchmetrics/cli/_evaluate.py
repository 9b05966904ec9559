"""The command `aupimo evaluate`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from aupimo_torchmetrics._exports import json_text
from aupimo_torchmetrics._extras import require
from aupimo_torchmetrics._files.writing import existing_folder
from aupimo_torchmetrics._settings import (
    DEFAULT_FPR_BOUNDS,
    DEFAULT_FPR_LIMIT,
    Layout,
    MetricName,
    PictureFormat,
    RowsBy,
    SharedFPR,
)
from aupimo_torchmetrics.cli._arguments import (
    COMMAND,
    EVALUATE_PACKAGES,
    Parser,
    check_folder,
    integer_or_none,
)
from aupimo_torchmetrics.cli._output import code_of_scores, print_text, with_options

MAX_LISTED = 5
"""How many files a hint names."""


def add(commands: argparse._SubParsersAction[Parser]) -> None:
    """Options of `aupimo evaluate`."""
    about = "score saved anomaly maps against the masks of a data set"
    parser = commands.add_parser("evaluate", help=about, description=about[0].upper() + about[1:] + ".")
    _add_sources(parser)
    parser.add_argument(
        "--fpr-bounds",
        nargs=2,
        type=float,
        default=DEFAULT_FPR_BOUNDS,
        metavar=("L", "U"),
        help=f"bounds of the shared FPR (default: {' '.join(f'{bound:g}' for bound in DEFAULT_FPR_BOUNDS)})",
    )
    parser.add_argument(
        "--shared-fpr",
        choices=get_args(SharedFPR),
        default="mean",
        help="how the FPRs of the normal images make one: by their mean, or their maximum, which is stricter "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--num-thresholds",
        type=integer_or_none,
        metavar="K",
        help="sample K thresholds (default: None, which is exact)",
    )
    parser.add_argument(
        "--metrics",
        nargs="+",
        choices=get_args(MetricName),
        default=["aupimo"],
        help="beside AUPIMO, of all pixels and of whole images (default: aupimo)",
    )
    parser.add_argument(
        "--fpr-limit",
        type=float,
        default=DEFAULT_FPR_LIMIT,
        metavar="U",
        help="FPR up to which AUPRO is computed (default: %(default)s)",
    )
    parser.add_argument(
        "--bounded-memory",
        action="store_true",
        help="keep a histogram for the metrics of all pixels, which gives certain bounds",
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--no-resize", action="store_true", help="maps must have the size of their masks")
    parser.add_argument("--skip-bad", action="store_true", help="go on without files that cannot be evaluated")
    _add_outputs(parser)
    parser.set_defaults(run=run)


def _add_sources(parser: Parser) -> None:
    """Options of `aupimo evaluate` that say what is evaluated."""
    group = parser.add_argument_group("what is evaluated")
    maps_help = "asmaps.pt, or a folder of maps; not needed if the table of --table names the map of each image"
    group.add_argument("maps", nargs="?", type=Path, metavar="MAPS", help=maps_help)
    group.add_argument("--data", type=Path, metavar="ROOT", help="folder of the data set")
    group.add_argument("--table", type=Path, metavar="FILE", help="table of images and masks, instead of --data")
    group.add_argument("--layout", choices=get_args(Layout), default="auto", help="of the data set (default: auto)")
    group.add_argument(
        "--normal-folder",
        action="append",
        default=[],
        metavar="NAME",
        help="a folder of normal images, beside good and its like; may be given several times",
    )
    group.add_argument("--map-suffix", metavar=".SUFFIX", help="only files with this ending are maps")
    group.add_argument("--mask-threshold", type=float, metavar="T", help="values of masks above T are a defect")
    group.add_argument("--ignore-index", type=int, metavar="V", help="mask pixels with the value V do not count")
    group.add_argument("--follow-links", action="store_true", help="links may lead out of the folders")


def _add_outputs(parser: Parser) -> None:
    """Options of `aupimo evaluate` that say what is printed and written."""
    group = parser.add_argument_group("what is printed and written")
    group.add_argument(
        "--out", type=Path, metavar="DIR", help="folder to write to (default: beside asmaps.pt, or none)"
    )
    group.add_argument("--heatmaps", action="store_true", help="draw heat maps of images that stand for the scores")
    group.add_argument("--report", action="store_true", help="write report.html too, a page with every anomalous image")
    group.add_argument(
        "--format",
        dest="picture_format",
        choices=get_args(PictureFormat),
        default="png",
        help="of the pictures (default: %(default)s)",
    )
    group.add_argument(
        "--by", choices=get_args(RowsBy), default="category", help="rows of the table (default: %(default)s)"
    )
    group.add_argument("--json", action="store_true", help="print summary.json instead of the table")
    group.add_argument("--quiet", action="store_true", help="no progress bar and no hints")
    group.add_argument(
        "--write-table", type=Path, metavar="FILE", help="write the data set as a table, to start from for --table"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run `aupimo evaluate`."""
    require(*sorted(EVALUATE_PACKAGES), extra="evaluate", needed_by=COMMAND)
    from aupimo_torchmetrics.evaluate import evaluate  # noqa: PLC0415

    if arguments.write_table is not None:
        _write_table(arguments)
        if arguments.maps is None:
            return 0
    is_beside_maps = arguments.out is None and arguments.maps is not None and arguments.maps.is_file()
    out = arguments.maps.parent if is_beside_maps else arguments.out
    if out is not None:
        check_folder(out)
    elif arguments.report or arguments.heatmaps:
        name, what = ("report", "the page is") if arguments.report else ("heatmaps", "pictures are")
        raise ValueError(f"Expected `out` with `{name}`, but got none: {what} written there.")
    names = (
        "data", "layout", "fpr_bounds", "num_thresholds", "metrics", "device", "shared_fpr", "fpr_limit",
        "bounded_memory", "skip_bad", "table", "mask_threshold", "ignore_index", "map_suffix", "normal_folder",
        "follow_links", "quiet",
    )  # fmt: skip
    settings = {name: getattr(arguments, name) for name in names}
    try:
        evaluation = evaluate(arguments.maps, resize=not arguments.no_resize, **settings)
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt("stopped; nothing was written") from error
    notes, hints = [], ["Nothing was written: --out DIR keeps scores, curves and pictures."]
    if out is not None:
        has_folders = not is_beside_maps or len(evaluation.categories) > 1
        saved = evaluation.save(
            out,
            has_folders=has_folders,
            heatmaps=arguments.heatmaps,
            picture_format=arguments.picture_format,
            report=arguments.report,
            quiet=arguments.quiet,
        )
        notes, hints = _earlier_files(saved.replaced, saved.left), [f"Scores, curves, tables and pictures: {out}"]
        hints += [f"Open in a browser: {out / 'report.html'}"] if arguments.report else []
    if arguments.json:
        print_text(json_text(evaluation.to_dict()))
    else:
        summary = with_options(evaluation.summary(arguments.by), arguments.parser)
        print_text("\n".join([summary, *notes, *([] if arguments.quiet else hints)]))
    return code_of_scores(arguments, (scores.result.mean for scores in evaluation.categories))


def _write_table(arguments: argparse.Namespace) -> None:
    """Write the table that a data set amounts to."""
    from aupimo_torchmetrics.evaluate import find_test_images  # noqa: PLC0415
    from aupimo_torchmetrics.evaluate.data.table import write_table  # noqa: PLC0415

    if arguments.data is None:
        raise ValueError(
            "Expected `data` with `write_table`, but got none: the table is made of a data set in folders."
        )
    existing_folder("data", arguments.data)
    images = find_test_images(
        arguments.data, arguments.layout, arguments.normal_folder, follow_links=arguments.follow_links
    )
    write_table(images, arguments.write_table)
    if not (arguments.quiet or arguments.json):
        print_text(f"Table of {len(images)} images: {arguments.write_table}")


def _earlier_files(replaced: Sequence[str], left: Sequence[str]) -> list[str]:
    """Say what became of the files of an earlier evaluation in the same folder."""
    lines = []
    if replaced:
        folders = ", ".join(dict.fromkeys(name.split("/")[0] for name in replaced))
        lines.append(f"Replaced {len(replaced)} files of an earlier evaluation: {folders}")
    if left:
        more = f", ... (and {len(left) - MAX_LISTED} more)" if len(left) > MAX_LISTED else ""
        lines.append(f"Left of an earlier evaluation, and not of this one: {', '.join(left[:MAX_LISTED])}{more}")
    return lines
