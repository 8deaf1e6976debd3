"use strict";
// Images go to the service one after the other, so that one page never fills its queue; where it is full, the page waits.

const waiting = [];
const tally = { ok: 0, review: 0, ng: 0, refused: 0 };
let models = [];
let busy = false;

async function loadModels() {
  try {
    const answer = await ask("/v1/models");
    if (!answer.ok) return complain(answer.status === 401 ? "This service asks for its API key." : await reason(answer));
    models = (await answer.json()).models;
  } catch {
    return complain("The service does not answer.");
  }
  complain("");
  const chosen = at("model").value;
  at("model").replaceChildren(...models.map((model) => new Option(model.name, model.name)));
  if (models.some((model) => model.name === chosen)) at("model").value = chosen;
  describeModel();
  scoreNext();
}

function describeModel() {
  const model = models.find((each) => each.name === at("model").value);
  if (!model) return;
  const review = model.review_threshold === null ? "" : `, review above ${figure(model.review_threshold)}`;
  const rate = `${+(100 * model.false_reject_rate).toPrecision(3)} % of good parts aimed at`;
  const drift = model.drift === "shifted" ? ` · ${model.advice}` : "";
  at("model-line").textContent =
    `ng above ${figure(model.threshold)} (${rate}, ${model.method}, ${model.good_parts} good parts)${review}${drift}`;
}

function take(files) {
  for (const file of files) {
    const card = at("card").content.cloneNode(true).firstElementChild;
    card.querySelector(".name").textContent = file.name;
    card.querySelector(".verdict").textContent = "waiting";
    at("results").prepend(card);
    waiting.push({ file, card });
  }
  at("clear").hidden = !at("results").childElementCount;
  scoreNext();
}

async function scoreNext() {
  if (busy || !models.length) return;
  busy = true;
  while (waiting.length) {
    const { file, card } = waiting[0];
    try {
      const answer = await send(file);
      if (answer.status === 401) {
        complain("This service asks for its API key.");
        break; // the image stays; it goes on when the key is there
      }
      if (answer.ok) show(card, await answer.json());
      else refuse(card, await reason(answer));
    } catch {
      refuse(card, "the service does not answer");
    }
    waiting.shift();
  }
  busy = false;
}

async function send(file) {
  const form = new FormData();
  form.append("file", file);
  for (;;) {
    const address = `/v1/score?pictures=true&model=${encodeURIComponent(at("model").value)}`;
    const answer = await ask(address, { method: "POST", body: form });
    if (answer.status !== 429) return answer;
    await pause(Number(answer.headers.get("Retry-After")) || 1);
  }
}

function count(kind) {
  tally[kind] += 1;
  at("tally").textContent = Object.entries(tally).filter(([, n]) => n).map(([name, n]) => `${n} ${name}`).join(" · ");
}

function label(card, kind) {
  const verdict = card.querySelector(".verdict");
  verdict.textContent = kind;
  verdict.className = `verdict ${kind}`;
  count(kind);
}

function refuse(card, text) {
  label(card, "refused");
  facts(card, [["reason", text]]);
}

function facts(card, rows) {
  const cells = rows.flatMap(([name, value]) => [element("dt", name), element("dd", value)]);
  card.querySelector("dl").replaceChildren(...cells);
}

function element(tag, text) {
  const made = document.createElement(tag);
  made.textContent = text;
  return made;
}

function show(card, result) {
  label(card, result.verdict);
  card.querySelector(".stage").hidden = false;
  card.querySelector(".picture").src = result.pictures.image;
  card.querySelector(".picture").alt = `image ${result.image}`;
  card.querySelector(".heat").src = result.pictures.heatmap;
  facts(card, [
    ["score", figure(result.score)],
    ["threshold", figure(result.threshold)],
    ["p-value", figure(result.p_value)],
    ["model", result.model.name],
    ...(result.category === null ? [] : [["category", result.category]]),
    ["size", `${result.width} × ${result.height} px`],
  ]);
  drawRegions(card, result);
  applyView();
}

function drawRegions(card, result) {
  const svg = card.querySelector("svg");
  svg.setAttribute("viewBox", `0 0 ${result.width} ${result.height}`);
  const lines = result.regions.flatMap((region) => ["edge", "line"].map((kind) => {
    const shape = document.createElementNS("http://www.w3.org/2000/svg", "polygon");
    shape.setAttribute("points", region.polygon.map(([x, y]) => `${x + 0.5},${y + 0.5}`).join(" "));
    shape.setAttribute("class", kind);
    return shape;
  }));
  svg.replaceChildren(...lines);
  card.querySelector("table").hidden = !result.regions.length;
  card.querySelector("th:last-child").hidden = !result.regions.some((region) => region.kind);
  card.querySelector("tbody").replaceChildren(...result.regions.map((region, index) => {
    const row = document.createElement("tr");
    const cells = [index + 1, `${region.area} px`, `${figure(region.area_percent)} %`, figure(region.peak),
      figure(region.p_value), region.peak_at.join(", "), kindOf(region)];
    row.replaceChildren(...cells.map((cell) => element("td", cell)));
    return row;
  }));
}

function applyView() {
  const opacity = at("opacity").value;
  at("opacity-shown").textContent = `${opacity} %`;
  for (const heat of document.querySelectorAll(".heat")) heat.style.opacity = opacity / 100;
  for (const svg of document.querySelectorAll(".stage svg")) svg.style.display = at("regions").checked ? "" : "none";
}

function clear() {
  at("results").replaceChildren();
  waiting.length = 0;
  for (const name of Object.keys(tally)) tally[name] = 0;
  at("tally").textContent = "";
  at("clear").hidden = true;
}

at("files").addEventListener("change", (event) => { take(event.target.files); event.target.value = ""; });
at("opacity").addEventListener("input", applyView);
at("regions").addEventListener("change", applyView);
at("model").addEventListener("change", describeModel);
at("key-entry").addEventListener("submit", (event) => { event.preventDefault(); loadModels(); });
at("clear").addEventListener("click", clear);
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => { event.preventDefault(); at("drop").classList.add("over"); });
}
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) at("drop").classList.remove("over"); });
document.addEventListener("drop", (event) => {
  event.preventDefault();
  at("drop").classList.remove("over");
  take(event.dataTransfer.files);
});
loadModels();
