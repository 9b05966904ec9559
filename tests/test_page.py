"""The pages `report.html`: what they say is what was scored, whatever files are called, and a browser shows it."""

import base64
import io
import json
import math
import os
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from data_sets import BOUNDS, Known, lowest_scores, normal_scores, write_example, write_image, write_known
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import rankdata

from aupimo_torchmetrics.compare import compare_paths
from aupimo_torchmetrics.evaluate import evaluate

pytestmark = pytest.mark.usefixtures("blank_pictures")

SIZES = {"bottle": (40, 60), "screw": (64, 48)}
COUNTS = {"good": 4, "crack": 6, "hole": 3}
HOSTILE = "<script>document.title='run'<&\"'.png"
"""Name of a file that would run if it were not escaped."""
SHOWN = "#images .card:not([hidden])"
NUM_STEPS = 31
"""Positions of the slider."""
BROWSER = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


def write_data(
    folder: Path, *, offset: float = 0.0, hostile: bool = False, dtype: str = "float32", ignored: int = 0
) -> tuple[Path, Path, list[Known]]:
    """Write two categories with normal images and two types of defects; maps of integers are in hundredths.

    Those of float64 are in tenths, which float32 rounds.
    """

    def draw(random: np.random.Generator, is_defect: NDArray[Any], number: int) -> NDArray[Any]:
        scores = random.normal(size=is_defect.shape) + (1.5 + 0.3 * number + offset) * is_defect
        offset_of = {"uint16": 500, "int32": 20_000_000}  # float32 rounds the larger ones
        scores = scores.round(1) if dtype == "float64" else scores
        return (scores * 100 + offset_of[dtype] if "int" in dtype else scores).astype(dtype)

    maps, data, known = write_known(folder, dict.fromkeys(SIZES, COUNTS), SIZES, draw, ignored)
    for file in [*folder.glob("*/screw/*/hole/000*")] if hostile else ():
        file.rename(file.with_name(file.name.replace("000", HOSTILE.removesuffix(".png"))))
    return maps, data, known


class Parsed(HTMLParser):
    """The tags and attributes of a page, and its texts."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember a tag."""
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        """Remember a text."""
        self.text += data

    def of_class(self, name: str) -> list[dict[str, str | None]]:
        """Return the attributes of all tags of a class."""
        return [attributes for _, attributes in self.tags if attributes.get("class") == name]

    def cards(self) -> list[dict[str, str | None]]:
        """Return the attributes of the cards."""
        return self.of_class("card")

    def fprs(self) -> list[float]:
        """Return the shared FPRs of the slider."""
        return next([float(fpr) for fpr in json.loads(str(a["data-fprs"]))] for tag, a in self.tags if tag == "body")

    def steps(self) -> list[dict[str, Any]]:
        """Return what the slider knows of each view."""
        return [json.loads(str(attributes["data-steps"])) for attributes in self.of_class("view")]


def saved_page(results: Any, folder: Path) -> Parsed:
    """Write the page of an evaluation or a comparison, and return it."""
    results.save(folder, report=True)
    return Parsed(folder / "report.html")


def opened(address: str) -> NDArray[np.uint8]:
    """Read a picture from its address."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, `better` scores of one model and `scores` of another, `again` the same, and all pages."""
    folder = tmp_path_factory.mktemp("pages")
    for name, offset in (("better", 1.0), ("scores", 0.0)):
        maps, data, _ = write_data(folder / f"{name}_data", offset=offset, hostile=True)
        evaluation = evaluate(maps, data, fpr_bounds=BOUNDS)
        evaluation.save(folder / name, report=True)
    evaluation.save(folder / "again", report=True)
    compare_paths([folder / "scores", folder / "better"]).save(folder / "comparison", report=True)
    return folder


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "uint16", "int32"])
def test_slider_counts_pixels_as_a_loop_does(tmp_path: Path, dtype: str) -> None:
    """Shares found, falsely found pixels and levels at each step are those of single comparisons, pixel by pixel.

    They are of the scores in float32, as those of the result and of the table are: 0.7 is reached by 0.7. The steps are
    evenly spaced in log from 1 to the upper FPR bound, and from there to the lower bound; the chosen threshold is one
    more.
    """
    ignored = 300 if dtype == "float32" else 0
    maps, data, known = write_data(tmp_path, dtype=dtype, ignored=ignored)
    chosen = {"int32": 20_000_150.0, "uint16": 650.0, "float64": 0.7}.get(dtype, 1.5)
    evaluation = evaluate(maps, data, fpr_bounds=BOUNDS, ignore_index=128 if ignored else None, threshold=chosen)
    page = saved_page(evaluation, tmp_path / "out")
    fprs = page.fprs()
    at_upper = fprs.index(BOUNDS[1])
    assert (fprs[0], fprs[-1], len(fprs)) == (1, BOUNDS[0], NUM_STEPS)
    for part in (fprs[: at_upper + 1], fprs[at_upper:]):
        assert np.diff(np.log(part)) == pytest.approx(np.log(part[-1] / part[0]) / (len(part) - 1))
    thresholds = {each: sorted([*lowest_scores(normal_scores(known, each), fprs), chosen]) for each in SIZES}
    by_path = {each.path: each for each in known}
    highest = {image["path"]: image["max_score"] for each in evaluation.categories for image in each.images}
    assert 18 < len(page.cards()) <= 26
    for card, steps in zip(page.cards(), page.steps(), strict=True):
        category, path, anomaly_map, mask = by_path[str(card["data-name"])]
        assert (highest[path], category) == (float(anomaly_map[mask != 128].max()), card["data-category"])
        is_found = (anomaly_map[:, :, None] >= np.array(thresholds[category], np.float32)) & (mask != 128)[:, :, None]
        in_mask, outside = (is_found & where[:, :, None] for where in (mask == 255, mask != 255))
        assert thresholds[category][steps["chosen"]] == chosen
        assert steps["numFalsePositives"] == outside.sum((0, 1)).tolist()
        if mask.any():
            assert steps["tprs"] == (in_mask.sum((0, 1)) / (mask == 255).sum()).tolist()
        picture = opened(steps["levels"])
        assert (picture[:, :, 0] == in_mask.sum(2)).all()
        assert (picture[:, :, 1] == outside.sum(2)).all()
        assert ((picture[:, :, 2] > 0) == (mask == 255)).all()
    found = re.findall(r"([\d,]+) pixels falsely found \(.*?at .*?: ([\d,]+) pixels falsely found", page.text)
    assert len(found) == len(page.cards()) - 18
    for (text, text_chosen), steps in zip(found, page.steps()[18:], strict=True):
        step = at_upper + (steps["chosen"] <= at_upper)
        assert int(text.replace(",", "")) == steps["numFalsePositives"][step]
        assert int(text_chosen.replace(",", "")) == steps["numFalsePositives"][steps["chosen"]]


def test_counts_are_those_of_the_result(tmp_path: Path) -> None:
    """Where maps are resized, shares and falsely found pixels at both bounds are those of the operating points."""
    maps, data, _ = write_data(tmp_path)
    for path in maps.rglob("*.tiff"):
        tifffile.imwrite(path, tifffile.imread(path)[::2, ::2])
    evaluation = evaluate(maps, data, fpr_bounds=BOUNDS)
    page = saved_page(evaluation, tmp_path / "out")
    steps = {card["data-name"]: steps for card, steps in zip(page.cards(), page.steps(), strict=True)}
    for each in evaluation.categories:
        for fpr, step in ((BOUNDS[1], page.fprs().index(BOUNDS[1])), (BOUNDS[0], -1)):
            point, num_found = each.result.operating_point(fpr=fpr), 0
            for image, tpr in zip(each.images, point.per_image_tprs.tolist(), strict=True):
                if image["is_anomalous"]:
                    assert steps[image["path"]]["tprs"][step] == pytest.approx(tpr, abs=1e-12)
                elif image["path"] in steps:
                    num_found += steps[image["path"]]["numFalsePositives"][step]
            assert num_found == round(point.shared_fpr * 4 * math.prod(SIZES[each.category]))


def write_one_image(folder: Path, normal: NDArray[Any], anomalous: NDArray[Any]) -> tuple[Path, Path]:
    """Write the map of a normal and of an anomalous image, whose first hundredth is a defect, and busy photographs."""
    random = np.random.default_rng(0)
    for key, scores in (("tile/test/good/000", normal), ("tile/test/crack/000", anomalous)):
        mask = np.zeros(scores.shape, dtype=np.uint8)
        mask.reshape(-1)[: mask.size // 100] = 255 * ("crack" in key)
        write_example(folder, key, scores.astype(np.float32), mask)
        write_image(folder / f"data/{key}.png", random.integers(0, 255, scores.shape, dtype=np.uint8))
    return folder / "maps", folder / "data"


@pytest.mark.parametrize("is_busy", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.slow
def test_single_pixels_survive_when_a_picture_shrinks(tmp_path: Path, is_busy: bool) -> None:
    """One falsely found pixel of a large image is still one on its small picture; all pictures of it are small."""
    normal, anomalous = np.random.default_rng(0).uniform(size=(2, 900, 1500))
    anomalous *= is_busy
    anomalous[333, 777] = 2
    evaluation = evaluate(*write_one_image(tmp_path, normal, anomalous), fpr_bounds=BOUNDS)
    page = saved_page(evaluation, tmp_path / "out")
    steps = page.steps()[0]
    if not is_busy:
        assert (opened(steps["levels"])[:, :, 1] > 0).sum() == 1
        assert steps["numFalsePositives"] == [1] * NUM_STEPS
    pictures = [str(a["src"]) for tag, a in page.tags if tag == "img" and a.get("class") != "drawing"][:2]
    assert len(steps["levels"]) + sum(map(len, pictures)) <= 90_000


@pytest.mark.filterwarnings("ignore:AUPIMO is uncertain")
@pytest.mark.parametrize("num_infinite", [2, 100])
def test_infinite_normal_scores_cost_no_picture(tmp_path: Path, num_infinite: int) -> None:
    """Where no threshold is strict enough, as too many normal scores are +inf, the slider counts the infinite ones."""
    normal, anomalous = np.random.default_rng(0).uniform(size=(2, 100, 100))
    normal[:num_infinite] = math.inf  # an FPR of 0.02 is between the bounds
    evaluation = evaluate(*write_one_image(tmp_path, normal, anomalous), fpr_bounds=BOUNDS)
    page = saved_page(evaluation, tmp_path / "out")
    assert ("no threshold is known" in page.text) == (num_infinite == 100)
    if num_infinite == 2:
        thresholds = [float(text) for text in page.steps()[0]["thresholds"]]
        assert 0 < thresholds[0] < 1
        assert thresholds == [*sorted(thresholds)[:-1], math.inf]


@pytest.mark.parametrize("name", ["scores", "comparison"])
def test_page_needs_nothing_else_and_runs_no_name(folder: Path, name: str) -> None:
    """A page loads nothing, and holds no script, handler or style but its own, though a file is called `<script>`."""
    page = Parsed(folder / name / "report.html")
    assert [tag for tag, _ in page.tags if tag in {"script", "style"}] == ["style", "script"]
    for tag, attributes in page.tags:
        assert not any(attribute.startswith("on") or attribute == "style" for attribute in attributes)
        for attribute in ("src", "href", "data", "action", "srcset"):
            assert (attributes.get(attribute) or "#").startswith(("data:image/", "#")), (tag, attributes)
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in str(policy)
    assert "<script>document" not in page.source
    assert len(page.of_class("drawing")) == 3  # distribution and curves, or ranks and confidences
    assert any(str(card["data-name"]).endswith(HOSTILE) for card in page.cards())


def test_an_image_that_cannot_be_read_is_named_and_the_others_are_there(tmp_path: Path) -> None:
    """A broken photograph, and a map that has gone since, cost their pictures only, and the page says why."""
    maps, data, _ = write_data(tmp_path)
    evaluation = evaluate(maps, data, fpr_bounds=BOUNDS)
    (data / "bottle/test/crack/001.png").write_bytes(b"no image")
    (maps / "bottle/test/crack/002.tiff").unlink()
    page = saved_page(evaluation, tmp_path / "out")
    assert (page.text.count("The image cannot be read"), page.text.count("No picture: ")) == (1, 1)
    assert sum(not steps for steps in page.steps()) == 1
    assert len([card for card in page.cards() if card["data-value"]]) == 18


def test_page_without_a_score_says_why(tmp_path: Path) -> None:
    """Without normal images there is a page all the same, with the warning and without pictures."""
    maps, data, _ = write_data(tmp_path)
    for good in [*tmp_path.glob("*/*/test/good")]:
        shutil.rmtree(good)
    page = saved_page(evaluate(maps, data, fpr_bounds=BOUNDS), tmp_path / "out")
    assert "none of the 9 images is normal" in page.text
    assert [bool(steps) for steps in page.steps()] == [False] * 18


@pytest.mark.slow
def test_images_are_read_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is ready is written before the next image is read."""
    evaluation = evaluate(*write_data(tmp_path)[:2], fpr_bounds=BOUNDS)
    open_image, sizes = Image.open, list[int]()

    def watched(*arguments: Any, **settings: Any) -> Any:
        sizes.extend(path.stat().st_size for path in (tmp_path / "out").glob(".report.html.*"))
        return open_image(*arguments, **settings)

    monkeypatch.setattr(Image, "open", watched)
    evaluation.save(tmp_path / "out", report=True)
    assert len(set(sizes)) >= 18
    assert sizes[-1] > (tmp_path / "out/report.html").stat().st_size / 2


def test_comparison_shows_models_side_by_side_by_their_difference(folder: Path) -> None:
    """Each image has a view of each model; within a category the one with the largest difference comes first."""
    page = Parsed(folder / "comparison/report.html")
    for category in SIZES:
        cards = [card for card in page.cards() if card["data-category"] == category]
        differences = [float(str(card["data-value"])) for card in cards]
        assert (len(cards), differences) == (9, sorted(differences, reverse=True))
        assert {card["data-defect"] for card in cards} == {"crack", "hole"}
    assert [view["data-model"] for view in page.of_class("view")] == ["better", "scores"] * 18
    assert all(page.steps())


def test_commands_write_pages(folder: Path, tmp_path: Path, printed: Any) -> None:
    """`aupimo evaluate --report` and `aupimo compare --report` write `report.html` and name it."""
    maps, data, out = folder / "scores_data/maps", folder / "scores_data/data", tmp_path / "a"
    told = printed("evaluate --fpr-bounds 1e-2 1e-1 --report --out", out, "--data", data, maps)
    assert f"Open in a browser: {out / 'report.html'}" in told
    assert "report.html" in printed("compare --report --out", tmp_path / "c", out, folder / "better")
    assert len(Parsed(tmp_path / "c/report.html").steps()) == 36


def test_page_holds_the_worst_images_first(folder: Path) -> None:
    """Anomalous images come by their score, normal ones by the share of falsely found pixels; and always the same."""
    page = Parsed(folder / "scores/report.html")
    evaluation = evaluate(folder / "scores_data/maps", folder / "scores_data/data", fpr_bounds=BOUNDS)
    images = {image["path"]: image for scores in evaluation.categories for image in scores.images}
    worst = sorted((each for each in images.values() if each["is_anomalous"]), key=lambda image: image["aupimo"])
    assert len(worst) == 18
    for card, image in zip(page.cards(), worst, strict=False):
        facts = (image["path"], str(image["mask_pixels"]), image["defect"])
        assert (card["data-name"], card["data-size"], card["data-defect"]) == facts
        assert float(str(card["data-value"])) == pytest.approx(image["aupimo"], abs=1e-12)
    normal = zip(page.cards()[18:], page.steps()[18:], strict=True)
    at_upper = page.fprs().index(BOUNDS[1])
    shares = [steps["numFalsePositives"][at_upper] / images[card["data-name"]]["num_pixels"] for card, steps in normal]
    assert shares == sorted(shares, reverse=True)
    assert min(shares) > 0
    for text in (evaluation.categories[0].result.protocol, "screw", "fpr_bounds", "torchmetrics"):
        assert text in page.text
    assert (folder / "again/report.html").read_bytes() == (folder / "scores/report.html").read_bytes()


def test_comparison_shows_scores_of_what_has_no_pictures(folder: Path, tmp_path: Path) -> None:
    """Models without maps or thresholds, and means over seeds, have scores, and the page says why no pictures."""
    for name in ("without summary", "moved", "official", "damaged", "seeds/seed0", "seeds/seed1"):
        shutil.copytree(folder / "better", tmp_path / name)
    (tmp_path / "without summary/summary.json").unlink()
    summary = tmp_path / "moved/summary.json"
    summary.write_text(summary.read_text().replace(str(folder / "better_data/maps"), str(tmp_path / "nowhere")))
    for file in (tmp_path / "official").rglob("aupimos.safetensors"):
        file.unlink()
    names = ["scores", "without summary", "moved", "official", "damaged", "seeds"]
    models = [folder / "scores", *(tmp_path / name for name in names[1:])]
    comparison = compare_paths(models, names)
    for file in (tmp_path / "damaged").rglob("aupimos.safetensors"):  # after it was compared
        file.write_bytes(file.read_bytes()[:100])
    page = saved_page(comparison, tmp_path / "out")
    assert "No pictures of without summary: there is no summary.json" in page.text
    assert re.search(r"No pictures of moved: .*there is no .*nowhere", page.text)
    assert "No pictures of seeds: a model with seeds" in page.text
    assert page.text.count("no threshold is known") == page.text.count("No picture: ") == 18
    assert sorted(bool(steps) for steps in page.steps()) == [False] * 5 * 18 + [True] * 18


@pytest.mark.parametrize("num_thresholds", [None, 1000])
def test_pages_show_no_map_that_was_not_scored(tmp_path: Path, num_thresholds: int | None) -> None:
    """Maps that another model has overwritten, or masks that were changed, have no picture, and the page says so."""
    maps, data, _ = write_data(tmp_path)
    for name in ("one", "two"):
        evaluate(maps, data, fpr_bounds=BOUNDS, num_thresholds=num_thresholds).save(tmp_path / name)
        write_data(tmp_path, offset=0.5)
    for file in (data / "bottle/ground_truth/crack").iterdir():
        write_image(file, np.roll(np.asarray(Image.open(file)), 3, 0))
    page = saved_page(compare_paths([tmp_path / "one", tmp_path / "two"]), tmp_path / "both")
    assert page.text.count("No picture: map or mask are not those that were scored.") == 18 + 6
    assert [bool(steps) for steps in page.steps()].count(True) == 12


def test_equal_scores_come_by_the_highest_score_in_the_mask(tmp_path: Path) -> None:
    """Of images of which nothing is found, those come first whose defects score lowest; a browser sorts so, too."""
    evaluation = evaluate(*write_data(tmp_path, offset=-9)[:2], fpr_bounds=BOUNDS)
    page = saved_page(evaluation, tmp_path / "out")
    highest = {image["path"]: image["mask_max_score"] for scores in evaluation.categories for image in scores.images}
    cards = page.cards()[:18]
    assert {card["data-value"] for card in cards} == {"0.00000000000000000"}
    peaks = [highest[card["data-name"]] for card in cards]
    assert peaks == sorted(peaks)
    assert len({*peaks}) == 18
    assert [float(str(card["data-peak"])) for card in cards] == pytest.approx(peaks, abs=1e-6)


@pytest.mark.slow
def test_many_pixels_leave_the_slider_near_its_rates(tmp_path: Path) -> None:
    """Where not all normal scores are kept, thresholds above the bounds are of a sample, near their rates."""
    normal, anomalous = np.random.default_rng(0).normal(size=(2, 700, 700))
    evaluation = evaluate(*write_one_image(tmp_path, normal, anomalous), fpr_bounds=(1e-4, 1e-3))
    page = saved_page(evaluation, tmp_path / "out")
    thresholds = evaluation.categories[0].slider_thresholds
    assert thresholds == sorted(thresholds)
    assert thresholds[0] == np.float32(normal.min())
    rates = [float((normal.astype(np.float32) >= np.float32(threshold)).mean()) for threshold in thresholds]
    for fpr, rate in zip(page.fprs(), rates, strict=True):
        assert rate == pytest.approx(fpr, rel=0.15)


@pytest.fixture
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    if BROWSER is None:
        pytest.skip("needs Chromium, in the PATH or at the path that the variable CHROMIUM says")
    from playwright.sync_api import sync_playwright  # noqa: PLC0415

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Any]:
    """Opens a page, which may neither complain nor ask for anything."""
    complaints: list[str] = []

    def visit(path: Path, **settings: Any) -> Any:
        page = browser.new_context(**settings).new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: complaints.append(request.url) if is_foreign(request.url, path) else None)
        page.goto(path.as_uri())
        return page

    yield visit
    assert complaints == []


def is_foreign(address: str, path: Path) -> bool:
    """Whether an address is neither the page nor a part of it."""
    return not address.startswith("data:") and address.split("#", maxsplit=1)[0] != path.as_uri()


def wait_until(part: Any) -> Any:
    """What to expect of a part of a page soon. Playwright's `wait_for_function` meets the page's rule for scripts."""
    from playwright.sync_api import expect  # noqa: PLC0415

    return expect(part)


def shown_names(page: Any) -> list[str]:
    """Names of the anomalous images that a page shows, in their order."""
    names = page.eval_on_selector_all(SHOWN, "cards => cards.map(card => card.dataset.name)")
    return [str(name) for name in names]


@pytest.mark.slow
def test_browser_sorts_and_filters(folder: Path, visit: Any) -> None:
    """A click leads to the worst images of a type of defect, by name; other filters and orders do as they say."""
    page = visit(folder / "scores/report.html")
    assert page.title() == "AUPIMO of 2 categories"
    everything = shown_names(page)
    assert len(everything) == 18
    page.get_by_role("button", name="Show the images of screw hole").click()
    assert shown_names(page) == [name for name in everything if name.startswith("screw/test/hole/")]
    page.get_by_role("button", name="Show all").click()
    wait_until(page.locator(SHOWN)).to_have_count(18)
    page.get_by_label("Type of defect").select_option("crack")
    assert shown_names(page) == [name for name in everything if "/crack/" in name]
    page.get_by_label("Sort by").select_option("-value")
    assert shown_names(page) == [name for name in reversed(everything) if "/crack/" in name]
    page.get_by_label("Name contains").fill("bottle")
    assert shown_names(page) == [name for name in reversed(everything) if "bottle/test/crack/" in name]
    assert page.get_by_role("status").inner_text() == "6 of 18 images"
    scores = page.eval_on_selector_all("#images .card", "cards => cards.map(card => Number(card.dataset.value))")
    page.get_by_role("button", name="Show all").click()
    page.get_by_label("AUPIMO from").fill("0.5")
    assert page.get_by_role("status").inner_text() == f"{sum(score >= 0.5 for score in scores)} of 18 images"


@pytest.mark.slow
def test_browser_sorts_tables(folder: Path, visit: Any) -> None:
    """A click on a heading sorts the rows, a second one the other way round, and a reader of screens is told."""
    page = visit(folder / "scores/report.html")
    heading = page.get_by_role("columnheader", name="AUPIMO")
    for order in ("ascending", "descending"):
        heading.get_by_role("button").click()
        scores = [float(text) for text in page.locator("tbody tr td:nth-child(3)").all_inner_texts()]
        assert scores == sorted(scores, reverse=order == "descending")
        assert heading.get_attribute("aria-sort") == order


@pytest.mark.slow
@pytest.mark.parametrize("name", ["scores", "comparison"])
def test_browser_shows_an_image_large_with_a_slider(folder: Path, visit: Any, name: str) -> None:
    """By keyboard alone an image opens, the slider says and draws what each threshold finds, and Escape leads back."""
    page = visit(folder / name / "report.html")
    card = page.locator("#images .card").first
    texts = card.locator(".view").evaluate_all("views => views.map(view => view.dataset.steps)")
    views = [json.loads(text) for text in texts]
    card.locator(".open").first.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    assert dialog.locator("h2").inner_text() == card.get_attribute("data-name")
    drawn = []
    start = dialog.get_by_role("slider").input_value()
    assert page.locator("body").evaluate("body => JSON.parse(body.dataset.fprs)")[int(start)] == BOUNDS[1]
    for step, key in ((0, "Home"), (NUM_STEPS - 1, "End")):
        dialog.get_by_role("slider").focus()
        page.keyboard.press(key)
        for place, view in enumerate(views):
            caption = dialog.locator("figcaption").nth(place).inner_text()
            assert f"threshold {view['thresholds'][step]}" in caption
            assert f"{100 * view['tprs'][step]:.1f} % of the defect found" in caption
            assert f"{view['numFalsePositives'][step]} pixel" in caption
        for figure in dialog.locator("figure").all():
            wait_until(figure).to_have_attribute("aria-busy", "false")
        drawn.append([num_drawn(dialog, place) for place in range(len(views))])
    for place, view in enumerate(views):
        levels = opened(view["levels"]).astype(int)
        for step, counts in ((0, drawn[0][place]), (NUM_STEPS - 1, drawn[1][place])):
            assert counts["found"] == int(((levels[:, :, 0] > step) & (levels[:, :, 1] <= step)).sum())
            assert counts["falselyFound"] == int((levels[:, :, 1] > step).sum())
    dialog.get_by_role("button", name="Next").click()
    assert dialog.locator("h2").inner_text() == page.locator("#images .card").nth(1).get_attribute("data-name")
    page.keyboard.press("ArrowLeft")
    assert dialog.locator("h2").inner_text() == card.get_attribute("data-name")
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert page.evaluate("document.activeElement.className") == "open"


@pytest.mark.slow
def test_browser_shows_the_chosen_threshold_and_the_anomaly_map(folder: Path, tmp_path: Path, visit: Any) -> None:
    """The dialog begins at the chosen threshold, and the slider leaves it; maps take the place of the pixel AUPIMO."""
    maps, data = folder / "scores_data/maps", folder / "scores_data/data"
    evaluate(maps, data, fpr_bounds=BOUNDS, threshold=0.75).save(tmp_path, report=True)
    page = visit(tmp_path / "report.html")
    card = page.locator("#images .card").first
    steps = json.loads(str(card.locator(".view").get_attribute("data-steps")))
    card.locator(".open").click()
    dialog = page.get_by_role("dialog")
    figure = dialog.locator("figure")
    assert "threshold 0.75" in dialog.locator("figcaption").inner_text()
    assert steps["thresholds"][steps["chosen"]] == "0.75"
    dialog.get_by_role("slider").focus()
    page.keyboard.press("Home")
    assert f"threshold {steps['thresholds'][0]}" in dialog.locator("figcaption").inner_text()
    assert not dialog.get_by_label("at the chosen threshold").is_checked()
    wait_until(figure).to_have_attribute("aria-busy", "false")
    dialog.get_by_label("marks").uncheck()
    dialog.get_by_label("anomaly map").check()
    assert brightness(dialog.locator("canvas")) == pytest.approx(level_ranks(steps), abs=1e-9)
    page.keyboard.press("Escape")
    page.locator("select[name=shown]").select_option("map")
    wait_until(card.locator("canvas.map")).to_be_visible()
    assert not card.locator(".marks").is_visible()
    page.get_by_role("button", name="Show all").click()
    wait_until(card.locator(".marks")).to_be_visible()
    assert not card.locator("canvas.map").is_visible()


def brightness(canvas: Any) -> list[float]:
    """Ranks of the brightness of the pixels of a canvas, ties by their mean."""
    script = """canvas => {
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        return Array.from({ length: data.length / 4 }, (_, i) => data[4 * i] + data[4 * i + 1] + data[4 * i + 2]);
    }"""
    return list(rankdata(canvas.evaluate(script)))


def level_ranks(steps: dict[str, Any]) -> list[float]:
    """Ranks of the levels of the pixels of a picture."""
    return list(rankdata(opened(steps["levels"])[:, :, :2].max(2).ravel()))


def num_drawn(dialog: Any, place: int) -> dict[str, int]:
    """Count the pixels of each colour on a canvas of the dialog."""
    script = """canvas => {
        const context = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
        context.drawImage(canvas, 0, 0);
        const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
        const counts = { found: 0, falselyFound: 0 };
        for (let at = 0; at < data.length; at += 4) {
            if (data[at + 3] > 0 && data[at] < 60) counts.found += 1;
            if (data[at + 3] > 0 && data[at] > 200 && data[at + 2] < 60) counts.falselyFound += 1;
        }
        return counts;
    }"""
    return dict(dialog.locator("canvas").nth(place).evaluate(script))


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "width"), [("light", 390), ("dark", 1400)])
def test_browser_fits_the_page_into_its_window(folder: Path, visit: Any, scheme: str, width: int) -> None:
    """Nothing is wider than the window, the background is as the reader wants it, and a print has every image."""
    for name in ("scores", "comparison"):
        page = visit(folder / name / "report.html", viewport={"width": width, "height": 800}, color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        red = int(page.evaluate("getComputedStyle(document.body).backgroundColor").split("(")[1].split(",")[0])
        assert (red < 60) == (scheme == "dark")
        page.emulate_media(media="print")
        assert not page.locator(".filter").is_visible()
        assert page.locator("#images .card").count() == 18
