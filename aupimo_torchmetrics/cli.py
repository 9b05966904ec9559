"""The command `aupimo`, also `python -m aupimo_torchmetrics`.

Conventions: results go to standard output. An error is one line on standard error, and a line for each bad file. Exit
codes are those of `EXIT_CODES`, for all subcommands. A subcommand is a parser with a `run` default, a function that
returns an exit code or raises what the library raises. Errors of the library name parameters in backticks; the command
names its options instead. No subject of the library is imported before its subcommand runs.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import shlex
import sys
from collections.abc import Collection, Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn, get_args

from aupimo_torchmetrics._exports import json_text
from aupimo_torchmetrics._extras import package_of
from aupimo_torchmetrics._files import BadDataError, existing_folder
from aupimo_torchmetrics._settings import (
    DEFAULT_FPR_BOUNDS,
    DEFAULT_FPR_LIMIT,
    TIE_TOLERANCE,
    Alternative,
    Layout,
    MetricName,
    PairedTestName,
    PictureFormat,
    RowsBy,
    SharedFPR,
    Texture,
)
from aupimo_torchmetrics._version import __version__

__all__ = ["EXIT_CODES", "main"]

EXIT_CODES = """exit codes:
  0  done, and a score came out
  1  data that cannot be used, or no score came out: AUPIMO is undefined (NaN) in every category, a package is missing,
     a disk error, too little memory, stopped by Ctrl-C
  2  the command itself is wrong: an unknown option or choice, a number out of range, a path that is not there, a device
     that is not there
"""
"""What the exit codes of all subcommands mean."""
COMPARE_EXAMPLES = """PATH is
  files of two or more models on the same images: A/aupimos.json B/aupimos.json
  folders of two or more models, as `aupimo evaluate --out` writes them: A B, with [CATEGORY/]aupimo/aupimos.json
  one benchmark folder, with MODEL/[COLLECTION/]CATEGORY/aupimo/aupimos.json in it

Seeds of a model lie in folders named `seed` and a number, as MODEL/seed0/CATEGORY/aupimo/aupimos.json. They are summed
up as mean and standard deviation. Images are matched by the ends of their paths, whatever the suffix.
"""
"""What `aupimo compare --help` says of its paths."""
MAX_SEED = 2**63 - 1
MAX_LISTED = 5
"""How many files a hint names."""
DEMO_PACKAGES = frozenset({"lightning", "matplotlib", "PIL", "skimage", "tensorboard", "tifffile"})
EVALUATE_PACKAGES = frozenset({"jinja2", "matplotlib", "PIL", "scipy", "tifffile", "tqdm"})
STATISTICS_PACKAGES = frozenset({"scipy"})
PICTURE_PACKAGES = frozenset({"matplotlib"})


class _Parser(argparse.ArgumentParser):
    """Parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see `{self.prog} --help`)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Arguments without the name of the program. None for those of the process.

    Returns:
        The exit code, as `EXIT_CODES` says.

    Raises:
        SystemExit: With code 2 if the command was not understood, and with 0 after `--help` and `--version`.

    Example:
        >>> from aupimo_torchmetrics.cli import main
        >>> main(["evaluate", "nowhere", "--data", "nowhere"])
        2

    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # a service may have closed it
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  for the whole process
    parser, subparsers = _parsers()
    arguments = parser.parse_args(argv)
    arguments.parser = subparsers[arguments.command]
    try:
        code = int(arguments.run(arguments))
        sys.stdout.flush()
    except BrokenPipeError:  # who read the output has seen enough, as `head` does
        _close_stdout()
        return 0
    except BadDataError as error:
        return _report(arguments, str(error), 1)
    except (ValueError, TypeError) as error:
        return _report(arguments, _first_line(error), 2)
    except (ImportError, OSError, MemoryError, RuntimeError) as error:  # RuntimeError: a GPU without memory
        return _report(arguments, _first_line(error), 1)
    except KeyboardInterrupt as error:
        return _report(arguments, str(error) or "stopped", 1)
    return code


def _report(arguments: argparse.Namespace, message: str, code: int) -> int:
    """Print an error, and return the exit code."""
    print(f"aupimo {arguments.command}: {_with_options(message, arguments.parser)}", file=sys.stderr)  # noqa: T201
    return code


def _print(text: str) -> None:
    """Print to standard output. A pipe that the reader has closed is no error: what was printed was not all."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)  # noqa: T201
    except BrokenPipeError:
        _close_stdout()


def _close_stdout() -> None:
    """Let nothing more go to a closed pipe, also when the interpreter ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _first_line(error: Exception) -> str:
    """The first line of an error, or its name if it says nothing."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _with_options(text: str, parser: argparse.ArgumentParser) -> str:
    """Name the options of a subcommand where a text of the library names parameters in backticks.

    `` `num_thresholds` `` becomes `` `--num-thresholds` ``, `` `skip_bad=True` `` becomes `` `--skip-bad` ``,
    `` `resize=False` `` becomes `` `--no-resize` ``, and a positional one becomes what the help calls it, `` `MAPS` ``.
    What no option can say, as `` `skip_bad=False` ``, stays as it is.
    """
    actions = {action.dest: action for action in parser._actions}  # noqa: SLF001  argparse has no public list

    def option(match: re.Match[str]) -> str:
        name, value = match["name"], match["value"]
        opposite, action = actions.get(f"no_{name}"), actions.get(name)
        if opposite is not None and value in {None, "False"}:
            return f"`{opposite.option_strings[-1]}`"
        if action is None or (action.nargs == 0 and value == "False"):
            return match[0]
        if not action.option_strings:
            return f"`{action.metavar}`"
        values = [] if value is None or action.nargs == 0 else _values(value)
        before_each = f" {action.option_strings[-1]} " if action.nargs is None else " "
        return f"`{' '.join([action.option_strings[-1], before_each.join(values)]).rstrip()}`"

    return re.sub(r"`(?P<name>\w+)(?:=(?P<value>[^`]*))?`", option, text)


def _values(text: str) -> list[str]:
    """Values in a text like `(1e-4, 1e-3)` or `['not ok']`, as one types them in a shell."""
    found = re.findall(r"""'([^']*)'|"([^"]*)"|([^\s,()\[\]'"]+)""", text)
    return [shlex.quote("".join(value)) for value in found]


def _parsers() -> tuple[_Parser, dict[str, _Parser]]:
    """The parser of the command, and those of its subcommands by their names."""
    parser = _Parser(
        prog="aupimo",
        description="AUPIMO scores of visual anomaly detectors.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"aupimo-torchmetrics {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_demo(commands)
    _add_evaluate(commands)
    _add_compare(commands)
    return parser, commands.choices


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
    _add_sources(parser)
    parser.add_argument("--fpr-bounds", nargs=2, type=float, default=DEFAULT_FPR_BOUNDS, metavar=("L", "U"))
    parser.add_argument(
        "--shared-fpr", choices=get_args(SharedFPR), default="mean", help="of the normal images (default: mean)"
    )
    parser.add_argument(
        "--num-thresholds",
        type=_integer_or_none,
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
        "--aupro-limit",
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
    parser.set_defaults(run=_run_evaluate)


def _add_sources(parser: _Parser) -> None:
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
    group.add_argument("--ignore-value", type=int, metavar="V", help="mask pixels with the value V do not count")
    group.add_argument("--follow-links", action="store_true", help="links may lead out of the folders")


def _add_outputs(parser: _Parser) -> None:
    """Options of `aupimo evaluate` that say what is printed and written."""
    group = parser.add_argument_group("what is printed and written")
    group.add_argument(
        "--out", type=Path, metavar="DIR", help="folder to write to (default: beside asmaps.pt, or none)"
    )
    group.add_argument("--heatmaps", action="store_true", help="draw heat maps of images that stand for the scores")
    group.add_argument("--report", action="store_true", help="write report.html too, a page that shows every image")
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


def _run_evaluate(arguments: argparse.Namespace) -> int:
    """Run `aupimo evaluate`."""
    _require(EVALUATE_PACKAGES, "evaluate")
    from aupimo_torchmetrics.evaluate import evaluate  # noqa: PLC0415

    if arguments.write_table is not None:
        _write_table(arguments)
        if arguments.maps is None:
            return 0
    is_beside_maps = arguments.out is None and arguments.maps is not None and arguments.maps.is_file()
    out = arguments.maps.parent if is_beside_maps else arguments.out
    if out is not None:
        _check_folder(out)
    elif arguments.report:
        raise ValueError("Expected `out` with `report`, but got none: the page is written there.")
    names = (
        "data", "layout", "fpr_bounds", "num_thresholds", "metrics", "device", "shared_fpr", "aupro_limit",
        "bounded_memory", "skip_bad", "table", "mask_threshold", "ignore_value", "map_suffix", "normal_folder",
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
        _print(json_text(evaluation.to_dict()))
    else:
        summary = _with_options(evaluation.summary(arguments.by), arguments.parser)
        _print("\n".join([summary, *notes, *([] if arguments.quiet else hints)]))
    return _code_of_scores(arguments, (scores.result.mean for scores in evaluation.categories))


def _write_table(arguments: argparse.Namespace) -> None:
    """Write the table that a data set amounts to."""
    from aupimo_torchmetrics.evaluate import find_test_images  # noqa: PLC0415
    from aupimo_torchmetrics.evaluate.tables import write_table  # noqa: PLC0415

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
        _print(f"Table of {len(images)} images: {arguments.write_table}")


def _check_folder(out: Path) -> None:
    """Raise if there can be no such folder, before hours are spent on what is to be written there."""
    nearest = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise NotADirectoryError(f"Expected `out` to be a folder, but {nearest} is a file.")
    if not os.access(nearest, os.W_OK):
        raise PermissionError(f"Expected `out` to be a folder to write to, but {nearest} may not be written to.")


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


def _run_demo(arguments: argparse.Namespace) -> int:
    """Run `aupimo demo`."""
    _require(DEMO_PACKAGES, "demo")
    print("Loading PyTorch Lightning ...", flush=True)  # noqa: T201
    from aupimo_torchmetrics.demo.detector import DEFAULT_EPOCHS  # noqa: PLC0415
    from aupimo_torchmetrics.demo.run import run_demo  # noqa: PLC0415

    epochs = DEFAULT_EPOCHS if arguments.epochs is None else arguments.epochs
    report = run_demo(arguments.texture, epochs, arguments.out, arguments.seed, save_maps=arguments.save_maps)
    _print(report.summary())
    return _code_of_scores(arguments, [report.after.mean])


def _code_of_scores(arguments: argparse.Namespace, means: Iterable[float]) -> int:
    """Return 0 if a score came out; otherwise say that none did, and return 1."""
    if all(math.isnan(mean) for mean in means):
        return _report(arguments, "no score came out: AUPIMO is undefined (NaN); the warnings say why", 1)
    return 0


def _add_compare(commands: argparse._SubParsersAction[_Parser]) -> None:
    """Options of `aupimo compare`."""
    about = "say which of several models is better, and how sure one may be, from their aupimos.json"
    parser = commands.add_parser(
        "compare",
        help=about,
        description=about[0].upper() + about[1:] + ".",
        epilog=COMPARE_EXAMPLES,
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
        help="what the confidence is in: that a row's model is ... than a column's (default: %(default)s)",
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
    parser.set_defaults(run=_run_compare)


def _run_compare(arguments: argparse.Namespace) -> int:
    """Run `aupimo compare`."""
    _require(STATISTICS_PACKAGES if arguments.out is None else STATISTICS_PACKAGES | PICTURE_PACKAGES, "stats,plot")
    if arguments.report:
        _require(EVALUATE_PACKAGES, "evaluate")
    from aupimo_torchmetrics.compare import compare_paths  # noqa: PLC0415

    if arguments.out is not None:
        _check_folder(arguments.out)
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
        _print(json_text(comparison.to_dict()))
    else:
        _print("\n\n".join([comparison.summary(), *([hint] if hint and not arguments.quiet else [])]))
    return 0


def _require(modules: Collection[str], extras: str) -> None:
    """Raise with the remedy unless modules are installed; none of them is imported."""
    missing = sorted(package_of(module) for module in modules if find_spec(module) is None)
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


def _integer_or_none(text: str) -> int | None:
    """An integer, or None, as errors about the number of thresholds advise."""
    if text.lower() == "none":
        return None
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected an integer or None, but got {text!r}") from error


def _seed(text: str) -> int:
    """An integer that torch takes as a seed."""
    value = int(text) if text.isdecimal() else -1
    if not 0 <= value <= MAX_SEED:
        raise argparse.ArgumentTypeError(f"expected an integer from 0 to {MAX_SEED}, but got {text!r}")
    return value
