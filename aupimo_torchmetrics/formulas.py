"""The metrics by their definitions: formula, protocol, source, and where they are undefined.

A map holds a score for each pixel, a mask says which pixels are a defect. An image is normal iff its mask is empty. A
threshold `t` calls the pixels with a score of at least `t` anomalous. Pixels that are ignored count nowhere. Only the
order of the scores counts; scores of 16 bits count as they are, and those of float64 are rounded to float32 first, but
for the functions, which keep float64.

## AUPIMO

    AUPIMO_i = 1 / log(U / L) * integral from L to U of TPR_i(F) / F dF

- `TPR_i(F)`: share of the mask of image `i` at or above the threshold whose shared FPR is `F`.
- `F`: mean (or maximum, `shared_fpr="max"`) over the normal images of the share of their pixels at or above `t`.
- Between two distinct normal scores the curve is a step. Across a tie of normal and mask pixels it is a straight line.
- Protocol: bounds `L, U = 1e-5, 1e-4`; the exact integral, or with `num_thresholds=K` the trapezoid rule over K
  thresholds between the lowest and the highest normal score, as in the paper (K = 300,000). The result is the mean over
  the anomalous images.
- Undefined (NaN): no normal image, no anomalous image, and for a normal image its own score.
- Source: J. P. C. Bertoldo et al., BMVC 2024, arXiv 2401.01984.

## Pixel AUROC, average precision and F1-max

Over all pixels of all images, with `P(t)` the precision and `R(t)` the recall of the mask pixels at a threshold:

    AUROC  = P(mask score > normal score) + P(mask score = normal score) / 2
    AP     = sum over the thresholds t_k, descending, of (R(t_k) - R(t_(k-1))) * P(t_k)
    F1-max = maximum over t of 2 * P(t) * R(t) / (P(t) + R(t))

- Protocol: exact, or with `num_bins` from a histogram, with certain bounds; normal pixels of anomalous images count.
- Undefined: all pixels are in masks, or none is.
- Sources: T. Fawcett, Pattern Recognition Letters 27, 2006; scikit-learn's `average_precision_score`.

## AUPRO

    AUPRO = mean over the regions of 1 / U * integral from 0 to U of TPR_region(FPR) dFPR

- A region is a set of mask pixels that touch at edges or corners. `FPR` is of all pixels outside of masks.
- Protocol: limit `U = 0.3` (`fpr_limit`); ties are straight lines.
- Undefined: there is no region, or no pixel outside of masks.
- Source: P. Bergmann et al., IJCV 129, 2021.

## AU-sPRO

    AU-sPRO = mean over the regions of 1 / U * integral from 0 to U of min(found(FPR), s) / s dFPR

- Regions are those of the annotation and may overlap; `found` is their number of pixels at or above the threshold, `s`
  the saturation area. Only `aupimo evaluate --metrics au_spro` computes it.
- Undefined: as AUPRO. Source: P. Bergmann et al., IJCV 130, 2022.

## Image AUROC, average precision and F1-max

The formulas of pixels with one score for each image: the highest score of its map, the mean, or the mean of a share of
the highest (`image_score`). Undefined: there is no normal or no anomalous image.

## Several categories

`aupimo_torchmetrics.PerCategory` and `aupimo evaluate` compute each metric of each category alone. The mean is over the
categories in which it is defined, and a warning names the others.

## Intervals

Images are drawn with replacement, as many normal and as many anomalous ones as there are, 1,000 times. The 95 %
interval is between the quantiles `Phi(sqrt(n / (n - 1)) * t)` of the resampled values, with `t` the quantiles of
Student's t with `n - 1` degrees of freedom and `n` the number of images of the smaller class. Undefined: fewer than
five of a class. Source: T. Hesterberg, The American Statistician 69, 2015.
"""

__all__: list[str] = []
