"use strict";
// Answers go to the service in order and are sent again until they are stored: a label is the same however often it is
// sent. Pictures of the next results are fetched ahead, so that the next image is there at once.

const REVIEW = "/v1/review";
const AHEAD = 4;
const BRUSH = 0.012; // radius, as a share of the image's longer side
const queue = []; // results that wait, the one shown first
const done = []; // what was answered here: {item, body, earlier}
const outbox = []; // {address, options} in order
const pictures = new Map(); // by result: a promise
const answered = new Set();
let marks = [];
let tool = "region";
let stroke = null;
let begun = false;
let sending = false;
let filling = false;

const reviewer = () => at("reviewer").value.trim();
const query = () => `reviewer=${encodeURIComponent(reviewer())}`;

async function fill() {
  if (!begun || filling) return;
  filling = true;
  try {
    const answer = await ask(`${REVIEW}?${query()}&limit=40`);
    if (answer.ok) {
      const { waiting, kinds } = await answer.json();
      const known = new Set(queue.map((item) => item.id));
      queue.push(...waiting.filter((item) => !known.has(item.id) && !answered.has(item.id)));
      at("kinds").replaceChildren(...kinds.map((kind) => new Option(kind, kind)));
      if (!outbox.length) complain("");
      if (at("desk").hidden && queue.length) show();
      else describe();
    } else complain(answer.status === 401 ? "This service asks for its API key." : await reason(answer));
  } catch {
    complain("The service does not answer. What you say is kept here and sent when it does.");
  }
  filling = false;
}

function fetched(item) {
  if (!pictures.has(item.id)) {
    pictures.set(item.id, load(item));
    while (pictures.size > 4 * AHEAD) pictures.delete(pictures.keys().next().value);
  }
  return pictures.get(item.id);
}

async function load(item) {
  for (;;) {
    try {
      const answer = await ask(`${REVIEW}/${item.id}/pictures`);
      if (answer.ok) return await answer.json();
      if (answer.status !== 429 && answer.status !== 503) return { problem: await reason(answer) };
    } catch {
      // tried again
    }
    await pause(0.5);
  }
}

async function show() {
  const item = queue[0];
  at("desk").hidden = !item;
  at("empty").hidden = Boolean(item);
  describe();
  if (!item) return;
  marks = item.marks || [];
  at("kind").value = item.kind || "";
  const { result } = item;
  at("stage").style.aspectRatio = `${result.width} / ${result.height}`;
  at("stage").style.setProperty("--aspect", result.width / result.height);
  at("marks").setAttribute("viewBox", `0 0 ${result.width} ${result.height}`);
  at("marks").setAttribute("preserveAspectRatio", "none");
  at("verdict").textContent = result.verdict;
  at("verdict").className = `verdict ${result.verdict}`;
  at("name").textContent = (result.image || "").split("/").pop();
  const facts = { score: figure(result.score), threshold: figure(result.threshold), "p-value": figure(result.p_value), ...kindFact(result), ...shadowFact(item.shadow), "shown because": REASONS[item.sampling] || `it is ${result.verdict}` };
  at("facts").replaceChildren(...Object.entries(facts).flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
  draw();
  for (const next of queue.slice(0, AHEAD)) fetched(next);
  const shown = await fetched(item);
  if (queue[0] !== item) return;
  at("picture").src = shown.image || "";
  at("heat").src = shown.heatmap || "";
  if (shown.problem) complain(shown.problem);
  at("stage").dataset.result = item.id;
}

const REASONS = { random: "drawn at random", shadow: "the candidate says otherwise" };

function shadowFact(shadow) {
  return shadow ? { candidate: `${shadow.verdict || "unreadable"}, ${figure(shadow.score)}` } : {};
}

function kindFact({ regions }) {
  const kind = regions.length ? kindOf(regions[0]) : "";
  at("kind").placeholder = kind && kind !== "unknown" ? `${regions[0].kind}?` : "optional";
  return kind ? { "likeliest kind": kind } : {};
}

function describe() {
  at("counts").textContent = `${done.length} done · ${queue.length}${queue.length >= 40 ? "+" : ""} waiting${outbox.length ? ` · ${outbox.length} to send` : ""}`;
  at("undo").disabled = !done.length;
}

function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

function draw() {
  const item = queue[0];
  const shapes = item ? item.result.regions.map((region, index) => polygon(region.polygon, "region", index)) : [];
  at("marks").replaceChildren(...shapes, ...marks.map((corners) => polygon(corners, "mark")));
}

function polygon(corners, kind, index) {
  const shape = document.createElementNS("http://www.w3.org/2000/svg", "polygon");
  shape.setAttribute("points", corners.map(([x, y]) => `${x},${y}`).join(" "));
  shape.setAttribute("class", kind);
  if (index !== undefined) shape.dataset.region = index;
  return shape;
}

function answer(label) {
  const item = queue.shift();
  if (!item) return;
  const kind = at("kind").value.trim();
  const isDefect = label === "defect";
  const body = { label, kind: isDefect && kind ? kind : null, marks: isDefect ? marks : [] };
  done.push({ item, body, earlier: item.body });
  answered.add(item.id);
  item.kind = kind;
  item.marks = marks;
  send(`/${item.id}/label?${query()}`, { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });
  show();
  if (queue.length < 2 * AHEAD) fill();
}

function undo() {
  const last = done.pop();
  if (!last) return;
  answered.delete(last.item.id);
  send(`/${last.item.id}/label?${query()}`, { method: "DELETE" });
  queue.unshift(last.item);
  show();
}

async function send(address, options) {
  outbox.push({ address, options });
  if (sending) return;
  sending = true;
  while (outbox.length) {
    describe();
    try {
      const reply = await ask(`${REVIEW}${outbox[0].address}`, outbox[0].options);
      if (reply.ok) {
        outbox.shift();
        complain("");
        continue;
      }
      complain(reply.status === 401 ? "This service asks for its API key." : `Not stored: ${await reason(reply)}`);
      if (reply.status === 404 || reply.status === 400) {
        outbox.shift();
        continue;
      }
    } catch {
      complain("The service does not answer. What you say is kept here and sent when it does.");
    }
    await pause(1);
  }
  sending = false;
  describe();
}

function choose(name) {
  tool = name;
  for (const button of document.querySelectorAll("[data-tool]")) button.setAttribute("aria-pressed", String(button.dataset.tool === name));
}

function place(event) {
  const { width, height } = queue[0].result;
  const stage = at("stage").getBoundingClientRect();
  const inside = (value, size) => Math.max(0, Math.min(size - 1, Math.round(value)));
  return [inside(((event.clientX - stage.left) / stage.width) * width - 0.5, width), inside(((event.clientY - stage.top) / stage.height) * height - 0.5, height)];
}

const boxOf = ([x1, y1], [x2, y2]) => [[Math.min(x1, x2), Math.min(y1, y2)], [Math.max(x1, x2), Math.min(y1, y2)], [Math.max(x1, x2), Math.max(y1, y2)], [Math.min(x1, x2), Math.max(y1, y2)]];

function dab([x, y]) {
  const { width, height } = queue[0].result;
  const radius = Math.max(1, BRUSH * Math.max(width, height));
  return [...Array(12).keys()].map((step) => {
    const angle = (step * Math.PI) / 6;
    return [Math.max(0, Math.min(width - 1, Math.round(x + radius * Math.cos(angle)))), Math.max(0, Math.min(height - 1, Math.round(y + radius * Math.sin(angle))))];
  });
}

function toggleRegion(index) {
  const corners = queue[0].result.regions[index].polygon;
  const same = marks.findIndex((mark) => JSON.stringify(mark) === JSON.stringify(corners));
  marks = same >= 0 ? marks.filter((_, number) => number !== same) : [...marks, corners];
  draw();
}

function startStroke(event) {
  if (!queue.length || event.button > 0) return;
  event.preventDefault();
  document.activeElement.blur();
  if (tool === "region") {
    const region = event.target.dataset ? event.target.dataset.region : undefined;
    if (region !== undefined) return toggleRegion(Number(region));
  }
  stroke = { tool: tool === "region" ? "box" : tool, from: place(event), last: place(event), before: marks };
  at("stage").setPointerCapture(event.pointerId);
  if (stroke.tool === "brush") marks = [...marks, dab(stroke.from)];
  draw();
}

function moveStroke(event) {
  if (!stroke) return;
  const here = place(event);
  if (stroke.tool === "box") marks = [...stroke.before, boxOf(stroke.from, here)];
  else {
    const steps = Math.max(1, Math.ceil(Math.hypot(here[0] - stroke.last[0], here[1] - stroke.last[1]) / Math.max(1, BRUSH * Math.max(queue[0].result.width, queue[0].result.height))));
    for (let step = 1; step <= steps; step += 1) marks = [...marks, dab([0, 1].map((axis) => stroke.last[axis] + ((here[axis] - stroke.last[axis]) * step) / steps))];
    stroke.last = here;
  }
  draw();
}

function endStroke(event) {
  if (stroke && stroke.tool === "box") {
    const [x, y] = place(event);
    if (Math.abs(x - stroke.from[0]) < 2 && Math.abs(y - stroke.from[1]) < 2) marks = stroke.before; // a click
    draw();
  }
  stroke = null;
}

function begin(event) {
  event.preventDefault();
  if (!reviewer()) return;
  localStorage.setItem("reviewer", reviewer());
  begun = true;
  document.activeElement.blur();
  queue.length = 0;
  at("desk").hidden = true;
  fill();
}

const KEYS = {
  f: () => answer("fine"), d: () => answer("defect"), u: () => answer("unsure"), z: undo, x: () => { marks = []; draw(); },
  1: () => choose("region"), 2: () => choose("box"), 3: () => choose("brush"), k: () => at("kind").focus(),
  h: () => { at("heat-shown").checked = !at("heat-shown").checked; heat(); },
};

const heat = () => at("stage").classList.toggle("plain", !at("heat-shown").checked);

document.addEventListener("keydown", (event) => {
  const isTyping = event.target.tagName === "INPUT" && event.target.type !== "checkbox";
  if (isTyping && event.target.id === "kind" && (event.key === "Enter" || event.key === "Escape")) return event.target.blur();
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey || event.repeat || !begun) return;
  const action = KEYS[event.key.toLowerCase()];
  if (!action) return;
  event.preventDefault();
  action();
});
for (const label of ["fine", "defect", "unsure"]) at(label).addEventListener("click", () => answer(label));
at("undo").addEventListener("click", undo);
at("erase").addEventListener("click", KEYS.x);
at("heat-shown").addEventListener("change", heat);
for (const button of document.querySelectorAll("[data-tool]")) button.addEventListener("click", () => choose(button.dataset.tool));
at("stage").addEventListener("pointerdown", startStroke);
at("stage").addEventListener("pointermove", moveStroke);
at("stage").addEventListener("pointerup", endStroke);
at("stage").addEventListener("pointercancel", endStroke);
at("who").addEventListener("submit", begin);
window.addEventListener("beforeunload", (event) => { if (outbox.length) event.preventDefault(); });
// Where the service knows who asks, by a proxy or a key, nobody types a name.
async function introduce() {
  try {
    const answer = await ask(`${REVIEW}/me`);
    if (!answer.ok) return;
    const { name, role } = await answer.json();
    if (!name) return;
    at("reviewer").value = name;
    at("reviewer").readOnly = true;
    at("reviewer").title = role;
  } catch {
    // asked again with the next key
  }
}

at("reviewer").value = localStorage.getItem("reviewer") || "";
at("key").addEventListener("change", introduce);
introduce();
setInterval(() => { if (queue.length < AHEAD) fill(); }, 5000);
