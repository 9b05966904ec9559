"""The command `aupimo demo`."""

from __future__ import annotations

import argparse
from typing import get_args

from aupimo_torchmetrics._extras import require
from aupimo_torchmetrics._settings import Texture
from aupimo_torchmetrics.cli._arguments import COMMAND, Parser, positive, seed
from aupimo_torchmetrics.cli._output import code_of_scores, print_text

PACKAGES = frozenset({"lightning", "matplotlib", "PIL", "skimage", "tensorboard", "tifffile"})


def add(commands: argparse._SubParsersAction[Parser]) -> None:
    """Options of `aupimo demo`."""
    about = "train a small detector on real photographs, on the CPU in about a minute, and log its AUPIMO"
    parser = commands.add_parser("demo", help=about, description=about[0].upper() + about[1:] + ".")
    parser.add_argument(
        "--texture", choices=get_args(Texture), default="brick", help="photograph (default: %(default)s)"
    )
    parser.add_argument("--epochs", type=positive, help="epochs of training (default: a minute of them)")
    parser.add_argument("--out", default="aupimo_demo", metavar="DIR", help="folder to write to (default: %(default)s)")
    parser.add_argument("--seed", type=seed, default=0, help="seed of defects and training (default: %(default)s)")
    parser.add_argument("--save-maps", action="store_true", help="write images and maps too, for `aupimo evaluate`")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run `aupimo demo`."""
    require(*sorted(PACKAGES), extra="demo", needed_by=COMMAND)
    print("Loading PyTorch Lightning ...", flush=True)  # noqa: T201
    from aupimo_torchmetrics.demo.detector import DEFAULT_EPOCHS  # noqa: PLC0415
    from aupimo_torchmetrics.demo.run import run_demo  # noqa: PLC0415

    epochs = DEFAULT_EPOCHS if arguments.epochs is None else arguments.epochs
    report = run_demo(arguments.texture, epochs, arguments.out, arguments.seed, save_maps=arguments.save_maps)
    print_text(report.summary())
    return code_of_scores(arguments, [report.after.mean])
