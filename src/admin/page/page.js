// The page: receives a snapshot each second and shows it. model.js computes rates, flow.js draws the picture,
// details.js the panel, and around.js the rest. stream.js is the connection to the daemon.

import { showAlarms, showFoot, showHead, showTiles } from "./around.js";
import { Details } from "./details.js";
import { mark, setText } from "./dom.js";
import { Flow } from "./flow.js";
import { Model } from "./model.js";
import { follow } from "./stream.js";
import { count, plural, rate, roundRate, span } from "./words.js";

const byId = (id) => document.getElementById(id);

const model = new Model();
const meanings = new Map();
const counters = new Map();
let folded = new Map();
let receivedAt = 0;
let retryAt = 0;
let words = "";

const flow = new Flow(byId("flow"), {
  open: (key) => select(key === flow.selected ? null : key),
  filtered: showFiltered,
  scaled: (full, pixels) => {
    const [bar, text] = byId("scale").children;
    mark(bar.firstElementChild, "height", pixels);
    mark(bar, "height", pixels);
    setText(text, `= ${roundRate(full)}`);
  },
});
const details = new Details(byId("details"), {
  open: (key) => select(key),
  close: () => select(null),
  ranked: (nodes) => flow.ranked(nodes),
  meanings,
  counters,
});

/** Opens a node, or closes the open one and returns the focus to that node. */
function select(key) {
  const last = flow.selected;
  flow.selected = key;
  flow.draw();
  details.show(key, model, folded.get(key));
  document.body.classList.toggle("open", key !== null);
  // The panel may have changed the width of the picture.
  flow.draw();
  if (key !== null) details.name.focus({ preventScroll: matchMedia("(min-width: 1100px)").matches });
  else if (last !== null) [...flow.nodes.children].find((node) => node.dataset.key === last)?.focus();
}

function showFiltered(chosen, hasChoice) {
  folded = new Map();
  for (const { items } of chosen.columns) {
    for (const item of items) if (item.isFolded) folded.set(item.key, item.nodes);
  }
  setText(byId("matches"), chosen.found === null ? "" : chosen.found === 0 ? "nothing matches" : plural(chosen.found, "match").replace("matchs", "matches"));
  byId("left").hidden = !hasChoice;
  for (const button of byId("left").children) {
    const { left } = button.dataset;
    mark(button, "aria-pressed", left === flow.left);
    const levels = new Set(model.columns[left].map((node) => node.level));
    const sign = levels.has("bad") ? " ✕" : levels.has("warn") ? " ▲" : "";
    setText(button, (left === "listener" ? "Listeners" : "Routes") + sign);
  }
  const isEmpty = model.nodes.size === 0;
  byId("empty").hidden = !isEmpty;
  if (isEmpty) setText(byId("empty"), "No route is configured.");
}

function showStream(state, text) {
  document.body.dataset.stream = state;
  setText(byId("stream"), text);
}

function take(text) {
  let snapshot;
  try {
    snapshot = JSON.parse(text);
  } catch {
    return trouble("the snapshot from the daemon cannot be parsed");
  }
  receivedAt = performance.now();
  model.take(snapshot);
  byId("broken").hidden = true;
  showStream("live", "● live");
  showHead(snapshot);
  const { alarms } = showAlarms(model, (alarm) => select(model.find(alarm)?.key ?? null));
  showTiles(model);
  showFoot(model);
  flow.take(model);
  details.update(model, folded.get(flow.selected));
  const sign = alarms > 0 ? `(${count(alarms)}!) ` : "";
  document.title = `${sign}${rate(model.totals.received)} – udispatch`;
}

function trouble(text) {
  words = text;
  retryAt = 0;
  showStream("stale", "▲ stale");
  showBroken();
}

function broken(waitMs) {
  words = "The connection to the daemon is lost";
  retryAt = performance.now() + waitMs;
  showStream("stale", receivedAt > 0 ? "▲ stale" : "▲ not connected");
  showBroken();
}

/** Shows how old the picture is, and when the next attempt to connect is made. */
function showBroken() {
  if (document.body.dataset.stream !== "stale") return;
  const now = performance.now();
  const old = receivedAt > 0 ? ` What is shown is ${span((now - receivedAt) / 1000)} old.` : "";
  const wait = Math.ceil((retryAt - now) / 1000);
  const next = retryAt === 0 ? "" : wait > 0 ? ` Trying again in ${span(wait)}.` : " Trying again.";
  byId("broken").hidden = false;
  setText(byId("broken").firstElementChild, `▲ ${words}.${old}${next}`);
}

const retry = follow({ snapshot: take, trouble, broken });
byId("broken").lastElementChild.addEventListener("click", retry);
setInterval(showBroken, 1_000);

byId("filter").addEventListener("input", (event) => {
  flow.words = event.target.value.trim();
  flow.draw();
});
byId("left").addEventListener("click", (event) => {
  const { left } = event.target.dataset;
  if (!left) return;
  flow.left = left;
  flow.draw();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && flow.selected !== null) select(null);
});

/** Fills a map from an object that the daemon sends. If it cannot be loaded, the map stays empty. */
async function load(path, map) {
  const response = await fetch(path).catch(() => null);
  if (response?.ok) for (const [key, value] of Object.entries(await response.json())) map.set(key, value);
}

// If these cannot be loaded, drop reasons are shown without their meanings, and the details lack some counters.
await load("page/drop_reasons.json", meanings);
await load("page/counters.json", counters);
