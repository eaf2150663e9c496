// The parts around the picture: the daemon's state, alarms, totals, workers, host and ledger.

import { spark } from "./chart.js";
import { html, mark, setText, svg, sync } from "./dom.js";
import { GRAVE } from "./model.js";
import { count, exact, plural, rate, span } from "./words.js";

/** Largest number of alarms shown at a time. */
const ALARMS_MAX = 6;
const [SPARK_WIDTH, SPARK_HEIGHT] = [120, 28];

const byId = (id) => document.getElementById(id);

const STATES = {
  serving: ["good", "● serving"],
  degraded: ["warn", "▲ degraded"],
  stopping: ["bad", "■ stopping"],
};

const TILES = [
  ["received", "Received", rate],
  ["sent", "Sent", rate],
  ["dropped", "Dropped", rate],
  ["kernel drops", "Kernel drops", rate],
  ["not sent", "Not sent", rate],
  ["sessions", "Sessions", count],
];

/** Shows the daemon's name and state. */
export function showHead({ state, version, config_file: file, generation, uptime_ms: uptime, pid }) {
  const [level, words] = STATES[state] ?? ["warn", `▲ ${state}`];
  const pill = byId("state");
  pill.hidden = false;
  mark(pill, "class", `pill ${level}`);
  setText(pill, words);
  const parts = [`${version}`, file, `up ${span(uptime / 1000)}`, `generation ${exact(generation)}`, `pid ${pid}`];
  const make = () => html("bdi");
  sync(byId("about"), parts.map((text, at) => ({ text, at })), ({ at }) => String(at), make, (part, { text }) => setText(part, text));
}

/** Shows the problems, each with its cure; `open(alarm)` opens the node of an alarm, if it has one. */
export function showAlarms(model, open) {
  const { reasons, alarms, taken_unix_ms: now, balances, workers } = model.snapshot;
  const list = alarms.map((alarm) => ({ ...alarm, level: GRAVE.has(alarm.name) ? "bad" : "warn" }));
  // Unresponsive workers are among the reasons already.
  list.unshift(...reasons.map((text) => ({ name: "degraded", about: text, text, cure: "", level: "warn", since: null })));
  if (!balances) {
    const text = "The ledger does not balance: a defect of udispatch.";
    const cure = "Please report it with the output of /status.";
    list.unshift({ name: "balance", about: "", text, cure, level: "bad", since: null });
  }
  list.sort((one, other) => Number(other.level === "bad") - Number(one.level === "bad"));
  const shown = list.slice(0, ALARMS_MAX);
  if (list.length > shown.length) {
    const more = plural(list.length - shown.length, "alarm");
    shown.push({ name: "more", about: "", text: `${more} more; udispatch status lists them all.`, cure: "", level: "warn", since: null });
  }
  const element = byId("alarms");
  element.hidden = shown.length === 0;
  const make = (alarm) => {
    const body = html("div", {}, html("p", { class: "text" }), html("p", { class: "cure" }));
    const button = html("button", { type: "button" }, "Show");
    button.addEventListener("click", () => open(alarm));
    return html("li", {}, html("span", { class: "glyph", "aria-hidden": "true" }), body, html("span", { class: "since" }), button);
  };
  sync(element, shown, (alarm) => `${alarm.name} ${alarm.about}`, make, (item, alarm) => {
    const { level, text, cure, since } = alarm;
    const [glyph, body, time, button] = item.children;
    mark(item, "class", level);
    setText(glyph, level === "bad" ? "✕" : "▲");
    setText(body.children[0], text);
    setText(body.children[1], cure);
    body.children[1].hidden = cure === "";
    setText(time, since === null ? "" : span(now / 1000 - since));
    button.hidden = !model.find(alarm);
    item.classList.toggle("known", !button.hidden);
  });
  return { alarms: alarms.length, silent: workers.filter((worker) => !worker.responsive).length };
}

/** Shows the totals, each with its last minutes. */
export function showTiles({ totals, history }) {
  const make = ([, title]) => {
    const line = svg("svg", { class: "spark", viewBox: `0 0 ${SPARK_WIDTH} ${SPARK_HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" });
    line.append(svg("path"), svg("path"));
    return html("div", {}, html("dt", {}, title), html("dd"), line);
  };
  const times = history.times();
  sync(byId("tiles"), TILES, ([name]) => name, make, (tile, [name, , words]) => {
    const value = totals[name];
    const isTrouble = name === "kernel drops" || name === "not sent";
    mark(tile, "class", isTrouble && value > 0 ? "bad" : "");
    setText(tile.children[1], words(value));
    spark(tile.children[2], times, history.line(`total ${name}`), SPARK_WIDTH, SPARK_HEIGHT);
  });
}

function facts(id, rows) {
  const element = byId(id);
  if (!element.firstElementChild) element.append(html("dl"));
  const make = () => html("div", {}, html("dt"), html("dd"));
  sync(element.firstElementChild, rows, ([name]) => name, make, (row, [name, value, level]) => {
    mark(row, "class", level ?? "");
    setText(row.children[0], name);
    setText(row.children[1], value);
  });
}

/** Shows the workers, the UDP counters of the host, and whether the ledger balances. */
export function showFoot({ snapshot, before, seconds }) {
  const { workers, host, admin, balances, reloads } = snapshot;
  const speed = (row) => {
    const old = before?.workers.find((one) => one.worker === row.worker);
    const grown = old ? row.received - old.received : -1;
    return grown >= 0 ? grown / seconds : null;
  };
  const worker = (row) => [`worker ${row.worker}`, row.responsive ? rate(speed(row)) : "✕ does not respond", row.responsive ? "" : "bad"];
  facts("workers", workers.map(worker));
  const receive = host.udp_receive_buffer_errors + host.udp6_receive_buffer_errors;
  const send = host.udp_send_buffer_errors + host.udp6_send_buffer_errors;
  facts("host", [
    ["receive buffers full (RcvbufErrors)", exact(receive)],
    ["send buffers full (SndbufErrors)", exact(send)],
  ]);
  facts("ledger", [
    ["balance", balances ? "✓ exact" : "✕ broken", balances ? "" : "bad"],
    ["reloads", `${exact(reloads.applied)} applied, ${exact(reloads.refused)} refused`],
    ["viewers", exact(admin.viewers)],
  ]);
}
