// The details of one node, or of the folded rows: rates over time, counters, drops by reason, sessions, errors.

import { Chart } from "./chart.js";
import { html, mark, setText, svg, sync } from "./dom.js";
import { GRAVE } from "./model.js";
import { exact, plural, rate, span } from "./words.js";

/** Largest number of folded rows in the list; the filter finds the others. */
const LISTED_MAX = 200;

const entries = (counts) => Object.entries(counts ?? {}).sort(([, one], [, other]) => other - one);

/** Returns the counters below those that have a line in the chart. `declared` has the counters of the node's kind. */
function furtherCounts({ kind, row, counters }, declared) {
  const rows = [];
  if (kind === "listener" || kind === "handler") rows.push({ name: "handled", of: (all) => all.handled });
  if (row.in_flight !== undefined) rows.push({ name: "in flight now", of: (all) => all.in_flight, isLevel: true });
  for (const { key, label, help, is_gauge: isLevel } of declared) {
    if (counters.some(({ name }) => name === label)) continue;
    rows.push({ name: label, title: help, of: (all) => all[key] ?? 0, isLevel });
  }
  if (kind === "handler") rows.push({ name: "replies dropped", of: (all) => all.replies.dropped });
  return rows;
}

/** Returns the declared counters of a group with their values; nothing if all of them are 0. */
function groupCounts(group, declared) {
  const rows = declared.map(({ key, label, help }) => ({ name: label, title: help, number: group?.[key] ?? 0 }));
  return rows.some(({ number }) => number > 0) ? rows.map((row) => ({ ...row, figures: [exact(row.number)] })) : [];
}

function states({ kind, row }) {
  if (kind === "handler") return [["note", row.kind]];
  if (kind !== "upstream") return [];
  const chips = [row.alive ? ["good", "alive"] : ["bad", "✕ dead"]];
  if (row.dead_in_workers > 0) chips.push(["warn", `dead in ${plural(row.dead_in_workers, "worker")}`]);
  if (row.draining) chips.push(["note", row.drained_by_hand ? "draining, by command" : "draining"]);
  return chips;
}

/** A table that reuses its rows. */
class Table {
  constructor(title, heads) {
    this.body = html("tbody");
    const row = html("tr", {}, ...heads.map((head, at) => html("th", at > 0 ? { scope: "col", class: "figure" } : { scope: "col" }, head)));
    this.heads = row.children;
    this.table = html("table", {}, html("thead", {}, row), this.body);
    this.element = html("section", {}, html("h3", {}, title), this.table);
    this.columns = heads.length;
  }

  /**
   * Shows rows with a `name`, `figures`, and optionally a `text` below the name, a `title` that explains the name, and
   * a line's `style`. A table without rows is hidden.
   */
  show(rows) {
    this.element.hidden = rows.length === 0;
    const make = () => {
      const name = html("th", { scope: "row" }, svg("svg", { class: "swatch", width: 18, height: 8 }), html("bdi"), html("small"));
      name.firstElementChild.append(svg("path", { d: "M0,4H18" }));
      return html("tr", {}, name, ...Array.from({ length: this.columns - 1 }, () => html("td", { class: "figure" })));
    };
    sync(this.body, rows, (row) => row.name, make, (element, { name, text, title, style, figures }) => {
      const [swatch, label, small] = element.firstElementChild.children;
      mark(swatch, "class", style === undefined ? "swatch none" : "swatch");
      mark(swatch.firstElementChild, "class", `line s${style}`);
      setText(label, name);
      mark(label, "title", title ?? null);
      setText(small, text ?? "");
      figures.forEach((figure, at) => setText(element.children[at + 1], figure));
    });
  }
}

/** The details panel. `open(key)` opens another node, and `close()` closes the panel. */
export class Details {
  constructor(element, { open, close, meanings, counters, ranked }) {
    Object.assign(this, { element, open, meanings, counters, ranked, key: null });
    this.kind = html("p", { class: "kind" });
    this.name = html("h2", { tabindex: "-1" });
    this.chips = html("p", { class: "chips" });
    const shut = html("button", { type: "button", class: "close", "aria-label": "Close details" }, "✕");
    shut.addEventListener("click", close);
    this.alarms = html("div", { class: "cures" });
    this.failure = html("section", { class: "failure" }, html("h3", {}, "Last probe failure"), html("p"), html("p"));
    this.chart = new Chart(() => this.#figures());
    this.plot = html("div", { class: "plot" }, this.chart.element);
    new ResizeObserver(() => this.node && this.#plot()).observe(this.plot);
    this.figures = new Table("Datagrams", ["", "now", "total"]);
    this.drops = new Table("Dropped, by reason", ["reason", "now", "total"]);
    this.lost = new Table("Replies dropped, by reason", ["reason", "now", "total"]);
    this.failed = new Table("Not sent, by errno", ["errno", "now", "total"]);
    this.reported = new Table("Reported errors (ICMP), by errno", ["errno", "now", "total"]);
    this.sessions = new Table("Sessions", ["", "count"]);
    this.shadow = new Table("Shadow: its replies compared", ["", "count"]);
    this.sources = this.#links("Comes from");
    this.targets = this.#links("Goes to");
    this.folded = this.#links("Busiest first");
    const tables = [this.figures, this.drops, this.lost, this.failed, this.reported, this.sessions, this.shadow];
    const head = html("div", { class: "top" }, html("div", {}, this.kind, this.name, this.chips), shut);
    const lists = [this.sources, this.targets, this.folded];
    element.append(head, this.alarms, this.failure, this.plot, ...tables.map((table) => table.element), ...lists);
  }

  #links(title) {
    const list = html("ul", { class: "links" });
    list.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button) this.open(button.parentElement.dataset.key);
    });
    return html("section", {}, html("h3", {}, title), list, html("p", { class: "rest" }));
  }

  /** Shows a node by its key, or the folded rows of its column; null closes the panel. */
  show(key, model, folded) {
    this.key = key;
    this.element.hidden = key === null;
    if (key !== null) this.update(model, folded);
  }

  /** Updates the panel from the model. */
  update(model, folded) {
    if (this.key === null) return;
    this.model = model;
    const node = model.nodes.get(this.key) ?? null;
    const many = this.key.startsWith("more:") ? folded : null;
    this.node = node;
    this.element.classList.toggle("gone", !node && !many);
    for (const part of [this.plot, this.sources, this.targets, this.failure]) part.hidden = !node;
    this.folded.hidden = !many;
    if (many) return this.#showMany(many);
    if (!node) return setText(this.kind, "no longer in the configuration");
    setText(this.kind, node.kind === "upstream" ? `upstream of ${node.row.handler}` : node.kind);
    setText(this.name, node.name);
    const chips = states(node);
    if (node.row.address && node.row.address !== node.name) chips.push(["note", `at ${node.row.address}`]);
    this.chips.hidden = chips.length === 0;
    sync(this.chips, chips, ([, words]) => words, () => html("span"), (chip, [level, words]) => {
      mark(chip, "class", `chip ${level}`);
      setText(chip, words);
    });
    this.#cures(node);
    this.#plot();
    this.#figures();
    this.drops.show(this.#counted(node, "drops", (row) => row.drops, true));
    this.lost.show(this.#counted(node, "replies", (row) => row.replies?.drops, true));
    this.failed.show(this.#counted(node, "failed", (row) => row.failed, false));
    this.reported.show(this.#counted(node, "reported", (row) => row.reported, false));
    const sessions = node.kind === "handler" ? node.row.sessions : null;
    this.sessions.show(groupCounts(sessions, this.#declared("sessions")));
    this.shadow.show(groupCounts(node.row.shadow, this.#declared("shadow")));
    this.#list(this.sources, node.in.map((edge) => [edge.from, edge]));
    this.#list(this.targets, node.out.map((edge) => [edge.to, edge]));
  }

  #showMany(nodes) {
    setText(this.kind, "not shown in the picture, which has no room for them");
    setText(this.name, `${plural(nodes.length, nodes[0]?.kind ?? "row")} more`);
    this.chips.hidden = true;
    sync(this.alarms, [], String);
    for (const table of [this.figures, this.drops, this.lost, this.failed, this.reported, this.sessions, this.shadow]) table.show([]);
    this.#list(this.folded, this.ranked(nodes).map((node) => [node, { rate: node.rates[0] }]));
  }

  #cures(node) {
    const alarms = [...node.alarms, ...(node.partner?.alarms ?? [])];
    const make = () => html("div", { class: "cure" }, html("p"), html("p"));
    sync(this.alarms, alarms, (alarm) => `${alarm.name} ${alarm.about}`, make, (element, alarm) => {
      mark(element, "class", `cure ${GRAVE.has(alarm.name) ? "bad" : "warn"}`);
      setText(element.children[0], alarm.text);
      setText(element.children[1], alarm.cure);
    });
    const failure = node.row.last_failure;
    this.failure.hidden = !failure;
    if (!failure) return;
    const ago = this.model.snapshot.taken_unix_ms / 1000 - failure.at;
    setText(this.failure.children[1], `${span(ago)} ago: ${failure.text}`);
    setText(this.failure.children[2], alarms.some((alarm) => alarm.cure === failure.cure) ? "" : failure.cure);
  }

  #plot() {
    const { history } = this.model;
    const line = ({ name }, style) => ({ name, style, values: history.line(`${this.node.key} ${name}`) });
    this.lines = this.node.counters.map(line).filter(({ values }, at) => at === 0 || values.some((value) => value > 0));
    this.chart.draw(history.times(), this.lines);
  }

  /** Shows the counters, now or at the selected moment. */
  #figures() {
    const { node, chart } = this;
    if (!node) return;
    const at = chart.index;
    const past = at === null ? null : (chart.times.at(-1) - chart.times[at]) / 1000;
    setText(this.figures.heads[1], past === null ? "now" : `${span(past)} ago`);
    const lines = node.counters.map(({ name, total }, style) => {
      const line = this.lines.find((one) => one.name === name);
      const now = at === null ? node.rates[style] : (line?.values[at] ?? 0);
      return { name, style: line ? style : undefined, figures: [rate(now), exact(total)] };
    });
    const further = furtherCounts(node, this.#declared(node.kind)).map(({ name, title, of, isLevel }) => {
      const now = isLevel || at !== null ? "" : rate(node.rate(of));
      return { name, title, figures: [now, exact(of(node.row))] };
    });
    const { partner } = node;
    if (partner) {
      const of = (row) => row.kernel_drops;
      further.push({ name: "kernel drops", figures: [at === null ? rate(partner.rate(of)) : "", exact(of(partner.row))] });
    }
    this.figures.show([...lines, ...further]);
  }

  /** Returns the declarations of a group of counters. There are none until the daemon has sent them. */
  #declared(group) {
    return this.counters.get(group) ?? [];
  }

  #counted(node, what, of, isReason) {
    if (what !== "replies" && node.kind === "upstream" && isReason) return [];
    return entries(of(node.row)).map(([name, total]) => {
      const grown = node.rate((row) => of(row)?.[name] ?? 0);
      return { name, text: isReason ? this.meanings.get(name) : "", figures: [rate(grown), exact(total)] };
    });
  }

  #list(section, links) {
    section.hidden = links.length === 0;
    const shown = links.slice(0, LISTED_MAX);
    const make = () => html("li", {}, html("button", { type: "button" }, html("bdi"), html("span", { class: "figure" })));
    sync(section.children[1], shown, ([node]) => node.key, make, (item, [node, edge]) => {
      const [button] = item.children;
      mark(button, "class", node.level);
      setText(button.children[0], node.name);
      setText(button.children[1], (edge.shared ? "≈ " : "") + rate(edge.rate));
    });
    const rest = links.length - shown.length;
    section.children[2].hidden = rest === 0;
    setText(section.children[2], `and ${exact(rest)} more: the filter finds them`);
  }
}
