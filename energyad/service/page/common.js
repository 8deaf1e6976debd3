"use strict";
// What the pages share: elements, figures, and questions to the service with its key.

const at = (id) => document.getElementById(id);
const kindOf = ({ kind, kind_probability }) => (!kind || kind === "unknown" ? kind || "" : `${kind} ${Math.round(100 * kind_probability)} %`);
const figure = (value) => (value === null ? "–" : Number(value).toPrecision(4));
const pause = (seconds) => new Promise((ended) => setTimeout(ended, 1000 * seconds));

function complain(text) {
  at("problem").textContent = text;
  at("problem").hidden = !text;
}

async function ask(address, options = {}) {
  const key = at("key").value.trim();
  const headers = { Accept: "application/json", ...options.headers, ...(key ? { "X-API-Key": key } : {}) };
  const answer = await fetch(address, { ...options, headers });
  if (answer.status === 401) at("key-entry").hidden = false;
  return answer;
}

async function reason(answer) {
  try {
    return (await answer.json()).error || `status ${answer.status}`;
  } catch {
    return `status ${answer.status}`;
  }
}
