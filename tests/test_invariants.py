"""Laws that hold of the metric for all data, tried on drawn data: ranks only, order, splits, repeats, ties, precision.

Drawn are maps in four dtypes with scores from the smallest to the largest number of the dtype, infinite ones too, and
masks from one pixel to the whole image. `python -m pytest tests/test_invariants.py --hypothesis-profile long` draws
fifty times as many, other ones each time.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, NamedTuple

import pytest
import reference
import torch
from helpers import as_arrays, assert_close, assert_same, make_images, score
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aupimo_torchmetrics import AUPIMO, functional
from aupimo_torchmetrics.results import AUPIMOResult

# Drawn data are tiny, so most bounds fall between thresholds.
pytestmark = pytest.mark.filterwarnings("ignore:AUPIMO is uncertain:UserWarning")

SUM_TOLERANCE = 1e-12
"""Float64 sums of at most a few hundred terms of at most 1, added in another order."""
TIE_TOLERANCE = 1e-10
"""The slope within a tie of normal pixels multiplies rounding errors by up to the number of pixels, here hundreds."""

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
LEVELS = [-math.inf, -3.0, -0.5, -0.0, 0.0, 0.125, 0.1, 1.0, 2.5, 7.0, math.inf]
"""Few, so that ties are common."""
EXTREME_LEVELS = [-math.inf, -3e38, -6e4, -1e-40, -1e-45, 0.0, 1e-45, 6e-8, 1e-38, 2e-38, 6e4, 3e38, math.inf]
"""Subnormal and huge; in half precision most of them become zero or infinite, and tie."""
NUM_DISTINCT = 257
"""So many integers in a row has every dtype, from -128 to 128, and so many pixels has no drawn set without ties."""
SCALES = {
    torch.float16: (2.0**-24, 1.0, 2.0**8),
    torch.bfloat16: (2.0**-133, 1.0, 2.0**120),
    torch.float32: (2.0**-149, 1.0, 2.0**120),
    torch.float64: (2.0**-149, 1.0, 2.0**120),  # the metric keeps float32
}
"""What these integers may be multiplied by: the smallest number above zero, one, and a large one."""


class Scene(NamedTuple):
    """Images in any sizes, at least one of each class, and settings."""

    maps: list[Tensor]
    masks: list[Tensor]
    fpr_bounds: tuple[float, float]
    shared_fpr: str

    def metric(self, **settings: Any) -> AUPIMO:
        """Return a metric without images."""
        return AUPIMO(fpr_bounds=self.fpr_bounds, shared_fpr=self.shared_fpr, **settings)

    def result(self) -> AUPIMOResult:
        """Scores with what explains them, of one update, with a tensor if all images are of one size."""
        metric = self.metric()
        has_one_size = len({each.shape for each in self.maps}) == 1
        metric.update(*((torch.stack(self.maps), torch.stack(self.masks)) if has_one_size else (self.maps, self.masks)))
        return metric.result()

    def scores(self) -> Tensor:
        """Exact score of each image, float64."""
        return self.result().aupimos

    def take(self, images: list[int]) -> Scene:
        """Return the images with these numbers, in this order."""
        return self._replace(maps=[self.maps[i] for i in images], masks=[self.masks[i] for i in images])


@st.composite
def scenes(
    draw: st.DrawFn, *, is_tied: bool | None = None, max_images: int = 5, max_sides: tuple[int, int] = (5, 6)
) -> Scene:
    """Maps with few or with only distinct levels, of one or of several sizes, in any order of the classes."""
    is_anomalous = draw(st.permutations([True, False, *draw(st.lists(st.booleans(), max_size=max_images - 2))]))
    sizes = st.tuples(*(st.integers(1, side) for side in max_sides))
    one_size = draw(sizes)
    has_one_size = draw(st.booleans())
    is_tied = draw(st.booleans()) if is_tied is None else is_tied
    dtype = draw(st.sampled_from(DTYPES))
    levels = torch.tensor(draw(st.sampled_from([LEVELS, EXTREME_LEVELS])), dtype=torch.float64)
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    distinct = draw(distinct_levels(dtype))[torch.randperm(NUM_DISTINCT, generator=random)]
    maps, masks = [], []
    for has_mask in is_anomalous:
        height, width = one_size if has_one_size else draw(sizes)
        mask = torch.zeros(height * width, dtype=torch.bool)
        if has_mask:
            mask[: draw(st.integers(1, height * width))] = True
            mask = mask[torch.randperm(height * width, generator=random)]
        if is_tied:
            scores = levels[torch.randint(len(levels), (height * width,), generator=random)]
        else:
            scores, distinct = distinct[: height * width], distinct[height * width :]
        maps.append(scores.view(height, width).to(dtype))
        masks.append(mask.view(height, width))
    upper = draw(st.floats(1e-3, 1.0))
    fpr_bounds = upper * draw(st.floats(1e-3, 0.95)), upper
    return Scene(maps, masks, fpr_bounds, draw(st.sampled_from(["mean", "max"])))


@st.composite
def distinct_levels(draw: st.DrawFn, dtype: torch.dtype) -> Tensor:
    """(NUM_DISTINCT,) ascending float64 scores that stay distinct in a dtype."""
    scale = draw(st.sampled_from(SCALES[dtype]))
    return (torch.arange(NUM_DISTINCT, dtype=torch.float64) - NUM_DISTINCT // 2) * scale


def by_definition(scene: Scene) -> list[float]:
    """Scores by the slow reference."""
    rounded = [each.float().double() for each in scene.maps]
    return reference.aupimo(as_arrays(rounded), as_arrays(scene.masks), scene.fpr_bounds, scene.shared_fpr)


@given(scene=scenes())
def test_scores_are_those_of_the_definition(scene: Scene) -> None:
    """Whatever the data, their dtype and the bounds, scores are the integral of the curve of the scores in float32.

    Those of anomalous images are in [0, 1], those of normal images NaN.
    """
    scores = scene.scores()
    assert_close(scores, by_definition(scene), TIE_TOLERANCE)
    is_anomalous = torch.tensor([bool(mask.any()) for mask in scene.masks])
    assert torch.equal((scores >= 0) & (scores <= 1), is_anomalous)
    assert torch.equal(scores.isnan(), ~is_anomalous)


@settings(max_examples=settings.default.max_examples // 3)
@given(scene=scenes(is_tied=True, max_sides=(400, 300)))
def test_scores_of_large_images_are_those_of_the_definition(scene: Scene) -> None:
    """The same for images of up to 120,000 pixels."""
    assert_close(scene.scores(), by_definition(scene), TIE_TOLERANCE)


@given(scene=scenes())
def test_function_answers_what_the_metric_does(scene: Scene) -> None:
    """The function, of tensors and of arrays, gives the scores of the metric, in float64 for float64, else float32."""
    dtype = torch.float64 if scene.maps[0].dtype == torch.float64 else torch.float32
    expected = scene.scores().to(dtype)
    forms: list[Any] = [(scene.maps, scene.masks)]
    if scene.maps[0].dtype != torch.bfloat16:  # which NumPy does not have
        forms.append((as_arrays(scene.maps), as_arrays(scene.masks)))
    for images in forms:
        scores = functional.aupimo(*images, None, scene.fpr_bounds, reduction="none", shared_fpr=scene.shared_fpr)
        assert_same(torch.as_tensor(scores), expected)


@given(scene=scenes(), data=st.data())
def test_only_the_order_of_scores_counts(scene: Scene, data: st.DataObject) -> None:
    """Any strictly rising transformation of the scores, into any dtype, leaves every bit of the result as it was."""
    distinct = torch.cat([each.float().flatten() for each in scene.maps]).unique()
    dtype = data.draw(st.sampled_from(DTYPES))
    random = torch.Generator().manual_seed(data.draw(st.integers(0, 2**32)))
    chosen = torch.randperm(NUM_DISTINCT, generator=random)[: len(distinct)].sort().values
    rescaled = data.draw(distinct_levels(dtype))[chosen].to(dtype)
    assert bool((rescaled[1:] > rescaled[:-1]).all())
    other = scene._replace(maps=[rescaled[torch.searchsorted(distinct, each.float())] for each in scene.maps])
    assert_close(other.scores(), scene.scores(), 0.0)


@given(scene=scenes(), data=st.data())
def test_order_of_images_and_pixels_does_not_matter(scene: Scene, data: st.DataObject) -> None:
    """Permuted images have permuted scores; pixels may be shuffled within an image, together with its mask."""
    seed = data.draw(st.integers(0, 2**32))
    random = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(each.numel(), generator=random) for each in scene.maps]
    maps, masks = (
        [each.view(-1)[order][None] for each, order in zip(images, orders, strict=True)]
        for images in (scene.maps, scene.masks)
    )
    images = data.draw(st.permutations(range(len(maps))))
    assert_close(scene._replace(maps=maps, masks=masks).take(images).scores(), scene.scores()[images], SUM_TOLERANCE)


@given(scene=scenes(), data=st.data(), normal_buffer=st.sampled_from([1, 5, 2**16, None]))
def test_split_into_batches_does_not_matter(scene: Scene, data: st.DataObject, normal_buffer: int | None) -> None:
    """Updates in any batches, with any buffer, give the scores of one update."""
    metric = scene.metric(normal_buffer=normal_buffer)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(scene.maps)), max_size=4)))
    for start, stop in itertools.pairwise([0, *cuts, len(scene.maps)]):
        metric.update(scene.maps[start:stop], scene.masks[start:stop])
    assert_close(metric.result().aupimos, scene.scores(), SUM_TOLERANCE)


@given(scene=scenes(), times=st.integers(2, 3))
def test_repeating_all_images_does_not_matter(scene: Scene, times: int) -> None:
    """Scores of a data set seen several times are the scores of the data set, several times."""
    repeated = scene.take(list(range(len(scene.maps))) * times)
    assert_close(repeated.scores(), scene.scores().repeat(times), SUM_TOLERANCE)


@given(scene=scenes())
def test_the_maximum_and_the_mean(scene: Scene) -> None:
    """By the largest FPR no image scores higher than by the mean, and with one normal image the same, to the bit.

    Normal images that are there already change no bit of the maximum, however often they come again.
    """
    normal = [i for i, mask in enumerate(scene.masks) if not mask.any()]
    single = scene.take([normal[0], *(i for i in range(len(scene.masks)) if i not in normal)])
    by_mean, by_max, single_mean, single_max, repeated = (
        each._replace(shared_fpr=shared_fpr).scores()
        for each, shared_fpr in (
            *((scene, "mean"), (scene, "max"), (single, "mean"), (single, "max")),
            (scene.take([*range(len(scene.maps)), *normal, *normal[:2]]), "max"),
        )
    )
    assert bool((by_max <= by_mean + TIE_TOLERANCE)[~by_mean.isnan()].all())
    assert_close(single_max, single_mean, 0.0)
    assert_close(repeated[: len(by_max)], by_max, 0.0)


@given(scene=scenes())
def test_contribution_of_a_pixel_rises_with_its_score(scene: Scene) -> None:
    """The contribution of a pixel is in [0, 1] and never falls as its score rises."""
    result = scene.result()
    distinct = torch.cat([each.double().flatten() for each in scene.maps]).unique()
    finite = distinct[distinct.isfinite()]
    steps = torch.cat([distinct, (finite[1:] + finite[:-1]) / 2, finite.nextafter(torch.tensor(math.inf).double())])
    contributions = result.pixel_aupimo(steps.sort().values)
    assert bool((contributions.diff() >= -TIE_TOLERANCE).all())
    assert 0 <= float(contributions.min()) <= float(contributions.max()) <= 1


@given(scene=scenes())
def test_nothing_else_of_anomalous_images_matters(scene: Scene) -> None:
    """False positives are counted on normal images only, and an image scores the same without other anomalous ones."""
    scores = scene.scores()
    normal = [i for i, mask in enumerate(scene.masks) if not mask.any()]
    pairs = zip(scene.maps, scene.masks, strict=True)
    changed = [torch.where(mask, each, math.inf) if mask.any() else each for each, mask in pairs]
    assert_close(scene._replace(maps=changed).scores(), scores, 0.0)
    for number in set(range(len(scene.masks))) - set(normal):
        assert_close(scene.take([*normal, number]).scores()[-1], scores[number], 0.0)


def test_ties_broken_at_random_agree_in_the_mean() -> None:
    """The straight line across a tie is what breaking the tie at random gives on average."""
    maps, masks = make_images(0, 6, size=(40, 40), decimals=0)
    bounds = (0.01, 0.5)
    random = torch.Generator().manual_seed(0)
    num_draws = 300
    broken = torch.stack(
        [score(maps + 0.5 * torch.rand(maps.shape, generator=random), masks, bounds).aupimos for _ in range(num_draws)]
    )[:, [1, 3]]
    tied = score(maps, masks, bounds).aupimos[[1, 3]]
    # Four standard errors of the mean; and a tie of n normal pixels has n + 1 places for a mask pixel, where the line
    # has a continuum: half a place at most, in the highest tie that reaches the lower bound.
    num_tied = int((maps[masks.sum((1, 2)) == 0] == 2).sum())
    tolerance = 4 * broken.std(0) / math.sqrt(num_draws) + 0.5 / num_tied
    assert bool(((broken.mean(0) - tied).abs() < tolerance).all())
    # The next smaller error that one could make, to score a tie as recalled or as not recalled, is ten times larger.
    assert float(tolerance.max()) < 0.005


@given(scene=scenes(), shift=st.integers(0, 3))
def test_a_clean_normal_image_never_lowers_a_score(scene: Scene, shift: int) -> None:
    """One more normal image, all of whose pixels score as low as any pixel or lower, lowers no score."""
    lowest = min(float(each.min()) for each in scene.maps)
    clean = torch.full((4, 4), lowest - shift, dtype=torch.float64).to(scene.maps[0].dtype)
    more = scene._replace(maps=[*scene.maps, clean], masks=[*scene.masks, torch.zeros(4, 4, dtype=torch.bool)])
    before, after = scene.scores(), more.scores()[:-1]
    assert bool((after >= before - SUM_TOLERANCE)[~before.isnan()].all())


@given(scene=scenes(), data=st.data())
def test_a_higher_mask_pixel_never_lowers_the_score(scene: Scene, data: st.DataObject) -> None:
    """Raising one mask pixel raises the score of its image or leaves it, and touches no other."""
    number = data.draw(st.sampled_from([i for i, mask in enumerate(scene.masks) if mask.any()]))
    row, column = data.draw(st.sampled_from(scene.masks[number].nonzero().tolist()))
    raised = [each.clone() for each in scene.maps]
    raised[number][row, column] += data.draw(st.sampled_from([0.0, 1e-45, 0.1, 0.625, 3.0, 1e38, math.inf]))
    if bool(raised[number].isnan().any()):  # infinity added to minus infinity
        raised = scene.maps
    before, after = scene.scores(), scene._replace(maps=raised).scores()
    assert float(after[number]) >= float(before[number]) - SUM_TOLERANCE
    before[number] = after[number]
    assert_close(after, before, 0.0)


@given(scene=scenes(is_tied=False), factor=st.floats(0.2, 0.9))
def test_scores_over_adjoining_ranges_add_up(scene: Scene, factor: float) -> None:
    """The integral over two adjoining ranges of the FPR is the sum of the integrals over each."""
    lower, upper = scene.fpr_bounds
    middle = lower * (upper / lower) ** factor
    parts = [
        scene._replace(fpr_bounds=bounds).scores() * math.log(bounds[1] / bounds[0])
        for bounds in ((lower, middle), (middle, upper))
    ]
    assert_close(sum(parts), scene.scores() * math.log(upper / lower), 10 * SUM_TOLERANCE)  # log(U / L) is up to 7
