"use strict";

// Sort, filter and enlarge. The page is complete without: it only cannot be searched then.

// From the lowest level of an anomaly map to the highest.
const MAP_COLORS = [[10, 10, 40], [70, 20, 110], [170, 50, 100], [240, 120, 40], [255, 220, 80], [255, 255, 235]];
const COLORS = { found: [33, 165, 133, 200], falselyFound: [255, 140, 26, 235], outline: [255, 20, 147, 255] };
const fprs = JSON.parse(document.body.dataset.fprs);
const form = document.querySelector(".filter");
const list = document.querySelector("#images .cards");
const allCards = [...list.children];
const dialog = document.querySelector("dialog");
const slider = dialog.querySelector("input[type=range]");
const showMarks = dialog.querySelector(".show-marks");
const showMap = dialog.querySelector(".show-map");
const atChosen = dialog.querySelector(".at-chosen"); // null if no threshold was chosen
let shown = null; // the card in the dialog
let opener = null; // the button that opened it
let canvases = []; // of the views in the dialog, with what they draw

function element(tag, properties = {}, children = []) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// Tables

function sortTable(button) {
  const head = button.closest("th");
  const table = head.closest("table");
  const isDescending = head.getAttribute("aria-sort") === "ascending";
  for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", isDescending ? "descending" : "ascending");
  const rows = [...table.tBodies[0].rows];
  const column = head.cellIndex;
  const compare = (a, b) => compareCells(a.cells[column], b.cells[column], isDescending ? -1 : 1);
  table.tBodies[0].append(...rows.sort(compare));
}

function compareCells(a, b, sign) {
  if ("value" in a.dataset || "value" in b.dataset) return compareNumbers(a.dataset.value, b.dataset.value, sign);
  return sign * a.textContent.localeCompare(b.textContent, undefined, { numeric: true });
}

// What has no value comes last in either order.
function compareNumbers(a, b, sign) {
  if (!a || !b) return (a ? 0 : 1) - (b ? 0 : 1);
  return sign * (Number(a) - Number(b));
}

// Cards

function compareCards(key) {
  const sign = key.startsWith("-") ? -1 : 1;
  const name = key.replace("-", "");
  if (name === "name") return (a, b) => a.dataset.name.localeCompare(b.dataset.name, undefined, { numeric: true });
  const compare = (a, b, by) => compareNumbers(a.dataset[by], b.dataset[by], sign);
  return (a, b) => compare(a, b, name) || compare(a, b, "peak");
}

function isWanted(card, wanted) {
  const { category, defect, value, name } = card.dataset;
  if (wanted.category && category !== wanted.category) return false;
  if (wanted.defect && defect !== wanted.defect) return false;
  if (wanted.lowest && !(Number(value || NaN) >= Number(wanted.lowest))) return false;
  if (wanted.highest && !(Number(value || NaN) <= Number(wanted.highest))) return false;
  return name.toLowerCase().includes(wanted.name.toLowerCase());
}

function arrangeCards() {
  const wanted = Object.fromEntries(new FormData(form));
  for (const card of allCards) card.hidden = !isWanted(card, wanted);
  list.append(...[...allCards].sort(compareCards(wanted.sort)));
  showMaps(wanted.shown === "map");
  const numShown = allCards.filter((card) => !card.hidden).length;
  form.querySelector("output").textContent = `${numShown} of ${allCards.length} images`;
}

// Anomaly maps in place of the pixel AUPIMO, drawn when a card comes into sight.

const inSight = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (isIntersecting) {
      inSight.unobserve(target);
      addMap(target);
    }
  }
});

function showMaps(areShown) {
  document.body.classList.toggle("maps", areShown);
  if (areShown) document.querySelectorAll(".view:not([data-has-map]) .open").forEach((button) => inSight.observe(button));
}

async function addMap(button) {
  const view = button.closest(".view");
  const photograph = button.querySelector(".photograph");
  view.dataset.hasMap = "";
  const steps = JSON.parse(view.dataset.steps);
  const levels = await readLevels(steps.levels, photograph.getAttribute("width"), photograph.getAttribute("height"));
  const canvas = element("canvas", { className: "map", width: levels.width, height: levels.height });
  const context = canvas.getContext("2d");
  const drawn = context.createImageData(levels.width, levels.height);
  drawMap(levels, steps.thresholds.length, drawn);
  drawOutline(levels, drawn);
  context.putImageData(drawn, 0, 0);
  button.querySelector(".stack").append(canvas);
}

function showOnly(category, defect) {
  form.reset();
  form.elements.category.value = category;
  form.elements.defect.value = defect;
  arrangeCards();
  document.querySelector("#images").scrollIntoView();
  list.querySelector(".card:not([hidden]) .open")?.focus({ preventScroll: true });
}

// The large image

function neighbours() {
  return [...shown.parentElement.children].filter((card) => !card.hidden && card.querySelector(".open"));
}

function open(card) {
  shown = card;
  const cards = neighbours();
  const position = cards.indexOf(card);
  dialog.querySelector("h2").textContent = card.dataset.name;
  dialog.querySelector(".facts").textContent = card.querySelector(":scope > p").textContent;
  dialog.querySelector(".previous").disabled = position === 0;
  dialog.querySelector(".next").disabled = position === cards.length - 1;
  const views = [...card.querySelectorAll(".view")].filter((view) => view.querySelector(".open"));
  canvases = views.map(enlarge);
  dialog.querySelector(".large").replaceChildren(...canvases.map((each) => each.figure));
  if (!dialog.open) dialog.showModal();
  draw();
}

function enlarge(view) {
  const steps = JSON.parse(view.dataset.steps);
  const photograph = view.querySelector(".photograph").cloneNode();
  const canvas = element("canvas", { width: photograph.width, height: photograph.height });
  canvas.setAttribute("aria-hidden", "true");
  const caption = element("figcaption");
  const stack = element("span", { className: "stack" }, [photograph, canvas]);
  stack.style.maxWidth = `calc(65vh * ${photograph.getAttribute("width") / photograph.getAttribute("height")})`;
  const made = { steps, canvas, caption, view, levels: null, figure: element("figure", {}, [stack, caption]) };
  made.figure.setAttribute("aria-busy", "true");
  readLevels(steps.levels, photograph.getAttribute("width"), photograph.getAttribute("height")).then((levels) => {
    made.levels = levels;
    canvas.width = levels.width;
    canvas.height = levels.height;
    drawOne(made);
    made.figure.setAttribute("aria-busy", "false");
  });
  return made;
}

async function readLevels(address, width, height) {
  const image = new Image();
  image.src = address;
  await image.decode();
  const canvas = new OffscreenCanvas(Number(width), Number(height));
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

function draw() {
  const step = Number(slider.value);
  const fpr = atChosen?.checked ? "At the chosen threshold" : `Shared FPR ${fprs[step].toPrecision(2)}`;
  slider.setAttribute("aria-valuetext", fpr);
  dialog.querySelector(".fpr").textContent = fpr;
  canvases.forEach(drawOne);
}

// Thresholds of a view are ascending, and the chosen one is among them.
function stepOf({ chosen }) {
  const step = Number(slider.value);
  if (chosen === null) return step;
  if (atChosen.checked) return chosen;
  return step < chosen ? step : step + 1;
}

function drawOne(each) {
  each.caption.textContent = describe(each);
  if (!each.levels) return;
  const { width, height } = each.levels;
  const context = each.canvas.getContext("2d");
  const drawn = context.createImageData(width, height);
  if (showMap.checked) drawMap(each.levels, each.steps.thresholds.length, drawn);
  if (showMarks.checked) drawMarks(each.levels, stepOf(each.steps), drawn);
  context.putImageData(drawn, 0, 0);
}

// Red is the level in the mask, green the level outside of it, and blue the mask: see pictures.py.
function drawMap({ data }, numLevels, drawn) {
  for (let at = 0; at < data.length; at += 4) {
    const place = (Math.max(data[at], data[at + 1]) / numLevels) * (MAP_COLORS.length - 1);
    const below = MAP_COLORS[Math.floor(place)];
    const above = MAP_COLORS[Math.ceil(place)];
    for (let i = 0; i < 3; i += 1) drawn.data[at + i] = below[i] + (place % 1) * (above[i] - below[i]);
    drawn.data[at + 3] = 255;
  }
}

function drawMarks(levels, step, drawn) {
  const { width, height, data } = levels;
  for (let at = 0; at < 4 * width * height; at += 4) {
    if (data[at + 1] > step) drawn.data.set(COLORS.falselyFound, at);
    else if (data[at + 2] > 0 && data[at] > step) drawn.data.set(COLORS.found, at);
  }
  drawOutline(levels, drawn, step);
}

// The pixels beside the mask, but for those that are falsely found at a step.
function drawOutline({ width, height, data }, drawn, step = 255) {
  const isMask = (i, j) => i >= 0 && j >= 0 && i < width && j < height && data[4 * (j * width + i) + 2] > 0;
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const at = 4 * (y * width + x);
      if (isMask(x, y) || data[at + 1] > step) continue;
      const isBeside = isMask(x - 1, y) || isMask(x + 1, y) || isMask(x, y - 1) || isMask(x, y + 1);
      if (isBeside) drawn.data.set(COLORS.outline, at);
    }
  }
}

function describe({ steps, view }) {
  const { model, score } = view.dataset;
  const texts = [model, score ? `AUPIMO ${score}` : ""];
  const step = stepOf(steps);
  texts.push(`threshold ${steps.thresholds[step]}`);
  if (steps.tprs[step] !== null) texts.push(`${(100 * steps.tprs[step]).toFixed(1)} % of the defect found`);
  const number = steps.numFalsePositives[step];
  texts.push(`${number} ${number === 1 ? "pixel" : "pixels"} falsely found`);
  return texts.filter(Boolean).join(" · ");
}

function move(distance) {
  const cards = neighbours();
  const card = cards[cards.indexOf(shown) + distance];
  if (card) open(card);
}

document.addEventListener("click", ({ target }) => {
  const button = target.closest("button");
  if (target === dialog) dialog.close(); // a click beside it
  if (!button) return;
  if (button.matches(".sort")) sortTable(button);
  if (button.matches(".show")) showOnly(button.dataset.category, button.dataset.defect);
  if (button.matches(".open")) {
    opener = button;
    open(button.closest(".card"));
  }
  if (button.matches(".close")) dialog.close();
  if (button.matches(".previous")) move(-1);
  if (button.matches(".next")) move(1);
});
dialog.addEventListener("keydown", (event) => {
  if (event.target === slider) return; // there arrows move the slider
  if (event.key === "ArrowLeft") move(-1);
  if (event.key === "ArrowRight") move(1);
});
dialog.addEventListener("close", () => (shown.querySelector(".open") ?? opener).focus());
slider.addEventListener("input", () => {
  if (atChosen) atChosen.checked = false; // who moves the slider leaves the chosen threshold
  draw();
});
for (const box of [showMarks, showMap, atChosen]) box?.addEventListener("change", draw);
form.addEventListener("input", arrangeCards);
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", () => setTimeout(arrangeCards)); // the values are reset after this event
arrangeCards();
