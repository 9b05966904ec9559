"""The command `aupimo`, also `python -m aupimo_torchmetrics`.

Conventions: results go to standard output, errors to standard error, one line each. The exit code is 0 if all went
well, 1 if something is missing, and 2 if the command was not understood or its input cannot be used. A subcommand is a
parser with a `run` default.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn, get_args

from aupimo_torchmetrics._settings import (
    DEFAULT_FPR_BOUNDS,
    TIE_TOLERANCE,
    Alternative,
    Layout,
    MetricName,
    PairedTestName,
    SharedFPR,
    Texture,
)
from aupimo_torchmetrics._version import __version__

MAX_SEED = 2**63 - 1
DEMO_PACKAGES = {
    "lightning": "lightning",
    "tensorboard": "tensorboard",
    "matplotlib": "matplotlib",
    "skimage": "scikit-image",
}
"""Modules that the demo imports, and the packages that hold them."""
EVALUATE_PACKAGES = {
    "PIL": "pillow",
    "matplotlib": "matplotlib",
    "scipy": "scipy",
    "tifffile": "tifffile",
    "tqdm": "tqdm",
}
"""Modules that an evaluation imports, and the packages that hold them."""
STATISTICS_PACKAGES = {"scipy": "scipy"}
PICTURE_PACKAGES = {"matplotlib": "matplotlib"}


class _Parser(argparse.ArgumentParser):
    """Parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see `{self.prog} --help`)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Arguments without the name of the program. None for those of the process.

    Returns:
        The exit code: 0 if all went well, 1 if something is missing, 2 if the input cannot be used.

    Raises:
        SystemExit: With code 2 if the command was not understood, and with 0 after `--help` and `--version`.

    """
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except (ModuleNotFoundError, OSError) as error:
        print(f"aupimo {arguments.command}: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        print(f"aupimo {arguments.command}: stopped", file=sys.stderr)  # noqa: T201
        return 1


def _parser() -> argparse.ArgumentParser:
    """All subcommands and their options."""
    parser = _Parser(prog="aupimo", description="AUPIMO scores of visual anomaly detectors.")
    parser.add_argument("--version", action="version", version=f"aupimo-torchmetrics {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_demo(commands)
    _add_evaluate(commands)
    _add_compare(commands)
    return parser


def _add_demo(commands: argparse._SubParsersAction[_Parser]) -> None:
    """Options of `aupimo demo`."""
    about = "train a small detector on real photographs, on the CPU in about a minute, and log its AUPIMO"
    parser = commands.add_parser("demo", help=about, description=about[0].upper() + about[1:] + ".")
    parser.add_argument(
        "--texture", choices=get_args(Texture), default="brick", help="photograph (default: %(default)s)"
    )
    parser.add_argument("--epochs", type=_positive, help="epochs of training (default: a minute of them)")
    parser.add_argument("--out", default="aupimo_demo", metavar="DIR", help="folder to write to (default: %(default)s)")
    parser.add_argument("--seed", type=_seed, default=0, help="seed of defects and training (default: %(default)s)")
    parser.add_argument("--save-maps", action="store_true", help="write images and maps too, for `aupimo evaluate`")
    parser.set_defaults(run=_run_demo)


def _add_evaluate(commands: argparse._SubParsersAction[_Parser]) -> None:
    """Options of `aupimo evaluate`."""
    about = "score saved anomaly maps against the masks of a data set"
    parser = commands.add_parser("evaluate", help=about, description=about[0].upper() + about[1:] + ".")
    parser.add_argument("maps", type=Path, metavar="MAPS", help="asmaps.pt, or a folder of .tiff, .npy or .png maps")
    parser.add_argument("--data", type=Path, required=True, metavar="ROOT", help="folder of the data set")
    parser.add_argument("--layout", choices=get_args(Layout), default="auto", help="of the data set (default: auto)")
    parser.add_argument("--fpr-bounds", nargs=2, type=float, default=DEFAULT_FPR_BOUNDS, metavar=("L", "U"))
    parser.add_argument(
        "--shared-fpr", choices=get_args(SharedFPR), default="mean", help="of the normal images (default: mean)"
    )
    parser.add_argument("--num-thresholds", type=int, metavar="K", help="sample K thresholds (default: exact)")
    parser.add_argument(
        "--metrics",
        nargs="+",
        choices=get_args(MetricName),
        default=["aupimo"],
        help="(default: aupimo)",
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder to write to (default: beside asmaps.pt, or none)"
    )
    parser.add_argument("--heatmaps", action="store_true", help="draw heat maps of images that stand for the scores")
    parser.add_argument("--no-resize", action="store_true", help="maps must have the size of their masks")
    parser.add_argument("--skip-bad", action="store_true", help="go on without files that cannot be evaluated")
    parser.set_defaults(run=_run_evaluate)


def _run_evaluate(arguments: argparse.Namespace) -> int:
    """Run `aupimo evaluate`."""
    _require(EVALUATE_PACKAGES, "evaluate")
    from aupimo_torchmetrics.evaluate import BadDataError, evaluate  # noqa: PLC0415

    try:
        evaluation = evaluate(
            arguments.maps,
            arguments.data,
            arguments.layout,
            arguments.fpr_bounds,
            arguments.num_thresholds,
            arguments.metrics,
            arguments.device,
            shared_fpr=arguments.shared_fpr,
            is_resizing=not arguments.no_resize,
            is_skipping=arguments.skip_bad,
        )
    except BadDataError as error:
        print(f"aupimo evaluate: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except (ValueError, RuntimeError) as error:  # RuntimeError: a device that is not there
        print(f"aupimo evaluate: {str(error).splitlines()[0]}", file=sys.stderr)  # noqa: T201
        return 2
    print(evaluation.summary())  # noqa: T201
    is_beside_maps = arguments.out is None and arguments.maps.is_file()
    out = arguments.maps.parent if is_beside_maps else arguments.out
    if out is None:
        print("Nothing was written: --out DIR keeps scores, curves and pictures.")  # noqa: T201
        return 0
    has_folders = not is_beside_maps or len(evaluation.categories) > 1
    evaluation.save(out, has_folders=has_folders, has_heatmaps=arguments.heatmaps)
    print(f"Scores, curves and pictures: {out}")  # noqa: T201
    return 0


def _run_demo(arguments: argparse.Namespace) -> int:
    """Run `aupimo demo`."""
    _require(DEMO_PACKAGES, "demo")
    print("Loading PyTorch Lightning ...", flush=True)  # noqa: T201
    from aupimo_torchmetrics.demo.detector import DEFAULT_EPOCHS  # noqa: PLC0415
    from aupimo_torchmetrics.demo.run import run_demo  # noqa: PLC0415

    epochs = DEFAULT_EPOCHS if arguments.epochs is None else arguments.epochs
    report = run_demo(arguments.texture, epochs, arguments.out, arguments.seed, saves_maps=arguments.save_maps)
    print(report.summary())  # noqa: T201
    return 0


def _add_compare(commands: argparse._SubParsersAction[_Parser]) -> None:
    """Options of `aupimo compare`."""
    about = "say which of several models is better, and how sure one may be, from their aupimos.json"
    parser = commands.add_parser("compare", help=about, description=about[0].upper() + about[1:] + ".")
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="files of two or more models on the same images, or one folder of "
        "MODEL/COLLECTION/CATEGORY/aupimo/aupimos.json, or MODEL/CATEGORY/aupimo/aupimos.json",
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
        help="what the confidence is in: that a row's model is ... than a column's (default: %(default)s)",
    )
    parser.add_argument(
        "--atol",
        type=float,
        default=TIE_TOLERANCE,
        metavar="X",
        help="scores that differ by at most this are equal in the Wilcoxon test (default: %(default)s)",
    )
    parser.add_argument("--out", metavar="DIR", help="folder to write tables and pictures to (default: none)")
    parser.set_defaults(run=_run_compare)


def _run_compare(arguments: argparse.Namespace) -> int:
    """Run `aupimo compare`."""
    _require(STATISTICS_PACKAGES if arguments.out is None else STATISTICS_PACKAGES | PICTURE_PACKAGES, "stats,plot")
    from aupimo_torchmetrics.compare import BadDataError, compare_paths  # noqa: PLC0415

    try:
        comparison = compare_paths(
            arguments.paths, arguments.names, arguments.test, arguments.alternative, arguments.atol
        )
    except ValueError as error:
        print(f"aupimo compare: {error}", file=sys.stderr)  # noqa: T201
        return 1 if isinstance(error, BadDataError) else 2
    lines = [comparison.summary()]
    if arguments.out is not None:
        out = Path(arguments.out)
        written = comparison.save(out)
        files = dict.fromkeys(path.name if path.parent == out else f"CATEGORY/{path.name}" for path in written)
        lines.append(f"written to {out}: {', '.join(files)}")
    elif comparison.ranking is not None:
        lines.append("`--out DIR` writes the comparison in each category, and pictures")
    print("\n\n".join(lines))  # noqa: T201
    return 0


def _require(packages: Mapping[str, str], extras: str) -> None:
    """Raise with the remedy unless modules, given with the packages that hold them, are installed."""
    missing = [package for module, package in packages.items() if find_spec(module) is None]
    if missing:
        raise ModuleNotFoundError(
            f'needs {", ".join(missing)}; please install with `pip install "aupimo-torchmetrics[{extras}]"`'
        )


def _positive(text: str) -> int:
    """An integer of at least 1."""
    value = int(text) if text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, but got {text!r}")
    return value


def _seed(text: str) -> int:
    """An integer that torch takes as a seed."""
    value = int(text) if text.isdecimal() else -1
    if not 0 <= value <= MAX_SEED:
        raise argparse.ArgumentTypeError(f"expected an integer from 0 to {MAX_SEED}, but got {text!r}")
    return value
