"""The command `aupimo compare`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from aupimo_torchmetrics._exports import json_text
from aupimo_torchmetrics._extras import require
from aupimo_torchmetrics._settings import TIE_TOLERANCE, Alternative, PairedTestName, PictureFormat
from aupimo_torchmetrics.cli._arguments import COMMAND, EVALUATE_PACKAGES, Parser, check_folder
from aupimo_torchmetrics.cli._output import print_text

EXAMPLES = """PATH is
  files of two or more models on the same images: A/aupimos.json B/aupimos.json
  folders of two or more models, as `aupimo evaluate --out` writes them: A B, with [CATEGORY/]aupimo/aupimos.json
  one benchmark folder, with MODEL/[COLLECTION/]CATEGORY/aupimo/aupimos.json in it

Seeds of a model lie in folders named `seed` and a number, as MODEL/seed0/CATEGORY/aupimo/aupimos.json. They are summed
up as mean and standard deviation. Images are matched by the ends of their paths, whatever the suffix.
"""
"""What `aupimo compare --help` says of its paths."""
STATISTICS_PACKAGES = frozenset({"scipy"})
PICTURE_PACKAGES = frozenset({"matplotlib"})


def add(commands: argparse._SubParsersAction[Parser]) -> None:
    """Options of `aupimo compare`."""
    about = "say which of several models is better, and how sure one may be, from their aupimos.json"
    parser = commands.add_parser(
        "compare",
        help=about,
        description=about[0].upper() + about[1:] + ".",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="files or folders of two or more models, or one benchmark folder: see below",
    )
    parser.add_argument(
        "--names", nargs="+", metavar="NAME", help="names of the models (default: what tells the paths apart)"
    )
    parser.add_argument(
        "--test",
        choices=get_args(PairedTestName),
        default="wilcoxon",
        help="paired test of the images' scores (default: %(default)s)",
    )
    parser.add_argument(
        "--alternative",
        choices=get_args(Alternative),
        default="greater",
        help="what the confidence is in: that a row's model is better (greater), worse (less) or different (two-sided) "
        "than a column's (default: %(default)s)",
    )
    parser.add_argument(
        "--atol",
        type=float,
        default=TIE_TOLERANCE,
        metavar="X",
        help="scores that differ by at most this are equal in the Wilcoxon test (default: %(default)s)",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder to write tables and pictures to (default: none)"
    )
    parser.add_argument(
        "--format",
        dest="picture_format",
        choices=get_args(PictureFormat),
        default="png",
        help="of the pictures (default: %(default)s)",
    )
    parser.add_argument(
        "--report",
        action="store_true",
        help="write report.html too, a page that shows the images of all models side by side",
    )
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON instead of tables")
    parser.add_argument("--quiet", action="store_true", help="no progress bar, and nothing but the tables")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run `aupimo compare`."""
    packages = STATISTICS_PACKAGES if arguments.out is None else STATISTICS_PACKAGES | PICTURE_PACKAGES
    require(*sorted(packages), extra="stats,plot", needed_by=COMMAND)
    if arguments.report:
        require(*sorted(EVALUATE_PACKAGES), extra="evaluate", needed_by=COMMAND)
    from aupimo_torchmetrics.compare import compare_paths  # noqa: PLC0415

    if arguments.out is not None:
        check_folder(arguments.out)
    elif arguments.report:
        raise ValueError("Expected `out` with `report`, but got none: the page is written there.")
    comparison = compare_paths(
        arguments.paths,
        arguments.names,
        arguments.test,
        arguments.alternative,
        arguments.atol,
        quiet=arguments.quiet,
    )
    hint = "`--out DIR` writes the comparison in each category, and pictures" if comparison.ranking is not None else ""
    if arguments.out is not None:  # before anything is printed, so that a closed pipe loses nothing
        out = arguments.out
        written = comparison.save(out, arguments.picture_format, report=arguments.report, quiet=arguments.quiet)
        files = dict.fromkeys(path.name if path.parent == out else f"CATEGORY/{path.name}" for path in written)
        hint = f"written to {out}: {', '.join(files)}"
    if arguments.json:
        print_text(json_text(comparison.to_dict()))
    else:
        print_text("\n\n".join([comparison.summary(), *([hint] if hint and not arguments.quiet else [])]))
    return 0
