"""The demo: train a small defect detector on real photographs and watch its AUPIMO grow, in about a minute on a CPU.

In the order of the work: `textures` cuts photographs into tiles and plants defects in them, `detector` trains on them,
and `run` is what `aupimo demo` does. This package needs the extra `demo`.
"""

__all__ = ["detector", "run", "textures"]
