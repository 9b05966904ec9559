"""Measure the memory of `aupimo evaluate` as maps grow in number: `python tests/benchmarks/evaluate_memory.py`.

A data set in the layout of MVTec AD is written to a temporary folder: a few maps and images of 1024 x 1024, and links
to them for the rest, so that the disk does not fill up. Each number of maps is evaluated in a process of its own, whose
peak of resident memory and time are printed.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

SIZE = 1024
NUM_DISTINCT = 8


def make_data(root: Path, num_maps: int) -> None:
    """Write a data set of which half is normal, and its maps."""
    random = np.random.default_rng(0)
    mask = np.zeros((SIZE, SIZE), dtype=np.uint8)
    mask[400:460, 300:380] = 255
    for number in range(num_maps):
        is_normal = number % 2 == 0
        defect = "good" if is_normal else "dent"
        files = {
            "image": root / f"data/plate/test/{defect}/{number:05}.png",
            "map": root / f"maps/plate/test/{defect}/{number:05}.tiff",
            "mask": root / f"data/plate/ground_truth/dent/{number:05}_mask.png",
        }
        for name, path in files.items():
            if name == "mask" and is_normal:
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            source = root / f"{name}{number % NUM_DISTINCT}{path.suffix}"
            if not source.exists():
                if name == "map":
                    scores = random.gumbel(size=(SIZE, SIZE)) + (not is_normal) * 8 * (mask > 0)
                    tifffile.imwrite(source, scores.astype(np.float32))
                else:
                    Image.fromarray(mask if name == "mask" else np.zeros_like(mask)).save(source)
            os.link(source, path)


def evaluate(folder: Path, metrics: list[str]) -> None:
    """Evaluate in this process and print peak memory and time."""
    from aupimo_torchmetrics.evaluate import evaluate as evaluate_maps  # noqa: PLC0415

    start_peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    evaluation = evaluate_maps(folder / "maps", folder / "data", metrics=metrics)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    num_maps = len(evaluation.categories[0].pairs)
    print(
        f"{num_maps:5} maps of {SIZE} x {SIZE}, {4 * num_maps * SIZE**2 / 2**30:.1f} GiB: "
        f"peak {peak / 1024:.0f} MiB, {(peak - start_peak) / 1024:.0f} MiB more than after the imports; "
        f"{seconds:.0f} s, {1000 * seconds / num_maps:.0f} ms a map"
    )


def main() -> None:
    """Evaluate each number of maps in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-maps", type=int, nargs="+", default=[100, 500, 2000])
    parser.add_argument("--metrics", nargs="+", default=["aupimo"])
    parser.add_argument("--folder", type=Path, help="evaluate what lies there, in this process")
    arguments = parser.parse_args()
    if arguments.folder is not None:
        evaluate(arguments.folder, arguments.metrics)
        return
    for num_maps in arguments.num_maps:
        with tempfile.TemporaryDirectory() as folder:
            make_data(Path(folder), num_maps)
            command = [sys.executable, __file__, "--folder", folder, "--metrics", *arguments.metrics]
            subprocess.run(command, check=True)  # noqa: S603


if __name__ == "__main__":
    main()
