// The picture: nodes in columns, and ribbons between them.

import { Choice } from "./choice.js";
import { mark, setText, svg, sync } from "./dom.js";
import { fit, fitTwo } from "./fit.js";
import { measures, outline, place, Scale } from "./layout.js";
import { count, plural, rate } from "./words.js";

/** Duration of the animation when ribbons change their widths. */
const GLIDE_MS = 450;
/** Width in pixels below which nothing is drawn, for example while the window opens. */
const WIDTH_MIN = 240;
/** Height in pixels that a ribbon or a gap needs for a number. */
const NUMBER_HEIGHT = 15;
const NUMBER_GAP = 64;

const calm = matchMedia("(prefers-reduced-motion: reduce)");
const FAMILY = getComputedStyle(document.documentElement).getPropertyValue("--sans").trim();
const NAME_FONT = { compact: `600 12px ${FAMILY}`, roomy: `600 13px ${FAMILY}` };
const NOTE_FONT = { compact: `11px ${FAMILY}`, roomy: `12px ${FAMILY}` };
const GLYPHS = { good: "", warn: "▲", bad: "✕" };

/** Returns the note below a node's numbers, the most serious one first. */
function noteOf(item, compact) {
  if (item.isFolded) return item.level === "good" ? "" : "problems inside";
  const { node } = item;
  const lost = (node.rate((row) => row.kernel_drops ?? 0) ?? 0) + (node.partner?.rate((row) => row.kernel_drops) ?? 0);
  if (lost > 0) return `${rate(lost)} ${compact ? "lost" : "lost in kernel"}`;
  const { row } = node;
  if (row.alive === false) return row.address === null ? "no address" : "dead";
  const alarm = node.alarms[0] ?? node.partner?.alarms[0];
  if (alarm) return alarm.name.replaceAll("_", " ");
  const unsent = node.rate((all) => Object.values(all.failed ?? {}).reduce((total, one) => total + one, 0));
  if (unsent > 0) return `${rate(unsent)} not sent`;
  const refused = node.rate((all) => Object.values(all.reported ?? {}).reduce((total, one) => total + one, 0));
  if (refused > 0) return `${rate(refused)} ${compact ? "refused" : "reported as errors"}`;
  if (row.draining) return "draining";
  if (node.wasted > 0) return `${rate(node.wasted)} dropped`;
  if (node.kind === "upstream") {
    const replies = rate(node.rate((all) => all.replies));
    if (row.replies === 0) return "";
    return compact ? `${replies} back` : `replies ${replies}`;
  }
  if (node.kind !== "handler") return "";
  const sessions = row.sessions.open > 0 ? ` · ${plural(row.sessions.open, "session")}` : "";
  return row.kind === node.name ? sessions.slice(3) : row.kind + sessions;
}

function titleOf(item) {
  return item.isFolded ? `${item.nodes.length} more` : item.node.name;
}

/** Draws into an `svg`, and reports which node the user selected. */
export class Flow {
  #choice = new Choice();
  #scale = new Scale();
  #shown = new Map();
  #frame = 0;
  #hover = null;

  constructor(element, { open, filtered, scaled }) {
    Object.assign(this, { element, open, filtered, scaled, words: "", left: "route", selected: null, model: null });
    this.ribbons = svg("g", { class: "ribbons", "aria-hidden": "true" });
    this.numbers = svg("g", { class: "numbers", "aria-hidden": "true" });
    this.heads = svg("g", { class: "heads", "aria-hidden": "true" });
    this.nodes = svg("g", { class: "nodes" });
    element.append(this.ribbons, this.numbers, this.heads, this.nodes);
    const node = (event) => event.target.closest(".node");
    this.nodes.addEventListener("click", (event) => node(event) && this.open(node(event).dataset.key));
    this.nodes.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      this.open(node(event).dataset.key);
    });
    for (const name of ["pointerover", "focusin"]) this.nodes.addEventListener(name, (event) => this.#light(node(event)));
    for (const name of ["pointerleave", "focusout"]) this.nodes.addEventListener(name, () => this.#light(null));
    new ResizeObserver(() => this.draw()).observe(element.parentElement);
  }

  /** Shows an updated model. */
  take(model) {
    this.model = model;
    this.#choice.weigh(model);
    this.#choose(true);
    this.#glide();
  }

  /** Draws the current model again, after a change of width, filter or selection. */
  draw() {
    if (!this.model) return;
    this.#choose(false);
    for (const edge of this.chosen.edges) this.#shown.set(edge.key, edge.rate);
    this.#paint();
  }

  /** Returns the nodes, ordered by their average rates. */
  ranked(nodes) {
    return [...nodes].sort((one, other) => this.#choice.weight(other) - this.#choice.weight(one));
  }

  #choose(isNew) {
    this.width = Math.max(WIDTH_MIN, Math.floor(this.element.getBoundingClientRect().width));
    this.size = measures(this.width);
    const { rows, wide } = this.size;
    const query = { words: this.words, open: this.selected, rows, wide, left: this.left };
    this.chosen = this.#choice.choose(this.model, query, performance.now());
    if (isNew || !this.pixels || this.size.compact !== this.wasCompact) this.pixels = this.#scale.take(this.chosen, this.size);
    this.wasCompact = this.size.compact;
    this.filtered(this.chosen, !wide && !this.chosen.twins);
    this.scaled(this.#scale.full / 10, this.size.ribbons / 10);
  }

  /** Animates the widths from those shown to the current ones. */
  #glide() {
    cancelAnimationFrame(this.#frame);
    const from = new Map(this.chosen.edges.map(({ key }) => [key, this.#shown.get(key) ?? 0]));
    const start = performance.now();
    const duration = calm.matches || document.hidden ? 0 : GLIDE_MS;
    const step = (now) => {
      const part = duration > 0 ? Math.min(1, Math.max(0, (now - start) / duration)) : 1;
      const eased = 1 - (1 - part) ** 3;
      for (const { key, rate: to } of this.chosen.edges) {
        const begin = from.get(key) ?? to;
        this.#shown.set(key, part < 1 ? begin + (to - begin) * eased : to);
      }
      this.#paint();
      if (part < 1) this.#frame = requestAnimationFrame(step);
    };
    step(start);
  }

  #light(node) {
    const key = node?.dataset.key ?? null;
    if (key === this.#hover) return;
    this.#hover = key;
    if (this.model) this.#paint();
  }

  #paint() {
    const { chosen, size } = this;
    for (const edge of chosen.edges) edge.shown = this.#shown.get(edge.key) ?? edge.rate;
    const height = place(chosen, this.width, size, this.pixels);
    mark(this.element, "viewBox", `0 0 ${this.width} ${Math.ceil(height)}`);
    mark(this.element, "height", Math.ceil(height));
    mark(this.element, "class", size.compact ? "compact" : "roomy");
    this.#paintHeads();
    this.#paintRibbons();
    const items = chosen.columns.flatMap((column) => column.items);
    sync(this.nodes, items, (item) => item.key, makeNode, (element, item) => this.#updateNode(element, item));
  }

  #paintHeads() {
    const update = (element, { x, title, count: rows, items, w }) => {
      mark(element, "transform", `translate(${x},14)`);
      const [name, total] = element.children;
      setText(name, items.length === 1 ? title.slice(0, -1) : title);
      mark(total, "x", w);
      setText(total, rows > 1 && !this.size.compact ? count(rows) : "");
    };
    const make = () => svg("g", {}, svg("text", { class: "head" }), svg("text", { class: "number" }));
    sync(this.heads, this.chosen.columns, (column) => column.kind, make, update);
  }

  #paintRibbons() {
    const edges = this.chosen.edges;
    const touches = (edge, key) => key !== null && (edge.from.key === key || edge.to.key === key);
    const isLit = (edge) => touches(edge, this.#hover) || touches(edge, this.selected);
    const key = (edge) => edge.key;
    sync(this.ribbons, edges, key, () => svg("path"), (path, edge) => {
      mark(path, "d", outline(edge));
      const grave = edge.to.kind === "upstream" && edge.to.level === "bad" ? " bad" : "";
      mark(path, "class", (edge.width > 0 ? "ribbon" : "rest") + grave + (isLit(edge) ? " lit" : ""));
    });
    const room = (edge) => edge.end.x - edge.start.x >= NUMBER_GAP;
    const numbered = edges.filter((edge) => room(edge) && edge.rate > 0 && (edge.width >= NUMBER_HEIGHT || isLit(edge)));
    sync(this.numbers, numbered, key, () => svg("text"), (text, edge) => {
      mark(text, "x", (edge.start.x + edge.end.x) / 2);
      mark(text, "y", (edge.start.y + edge.end.y + edge.width) / 2 + 4);
      setText(text, (edge.shared ? "≈ " : "") + rate(edge.rate));
    });
  }

  #updateNode(element, item) {
    const { size } = this;
    const [card, bar, tail, name, second, glyph, number, total, note] = element.children;
    const style = size.compact ? "compact" : "roomy";
    const pad = size.compact ? 9 : 14;
    const room = item.w - 2 * pad - (item.level === "good" ? 0 : 14);
    const lines = size.compact ? fitTwo(titleOf(item), room, NAME_FONT.compact) : [fit(titleOf(item), room, NAME_FONT.roomy)];
    const words = noteOf(item, size.compact);
    // On a small card, the second line of a name replaces the note, unless the note is about a problem, which gets its
    // own line.
    const hasNote = words !== "" && (!size.compact || lines.length === 1 || item.level !== "good");
    const rows = lines.length + 1 + (hasNote ? 1 : 0);
    const leading = size.compact ? 15 : 17;
    const top = (item.h - rows * leading) / 2 + leading - 4;
    mark(element, "transform", `translate(${item.x.toFixed(1)},${item.y.toFixed(1)})`);
    const open = item.key === this.selected ? " open" : "";
    mark(element, "class", `node ${item.kind} ${item.level}${open}${item.isFolded ? " folded" : ""}`);
    mark(element, "aria-pressed", item.key === this.selected);
    mark(card, "width", item.w);
    mark(card, "height", item.h);
    side(bar, item, item.in, "end", 0);
    side(tail, item, item.out, "start", item.w - 3);
    const put = (text, x, line, words) => {
      mark(text, "x", x);
      mark(text, "y", top + line * leading);
      setText(text, words);
    };
    put(name, pad, 0, lines[0]);
    put(second, pad, 1, lines[1] ?? "");
    put(glyph, item.w - pad, 0, GLYPHS[item.level]);
    put(number, pad, lines.length, rate(item.rate));
    put(total, item.w - pad, lines.length, size.compact ? "" : count(item.total));
    put(note, pad, lines.length + 1, hasNote ? fit(words, item.w - 2 * pad, NOTE_FONT[style]) : "");
    mark(note, "class", item.level !== "good" || (!item.isFolded && item.node.wasted > 0) ? "note trouble" : "note");
    const state = { good: "", warn: ", alarm", bad: ", trouble" }[item.level];
    const label = `${item.kind} ${titleOf(item)}, ${rate(item.rate)}, ${count(item.total)} in all${state}${words ? `, ${words}` : ""}`;
    mark(element, "aria-label", label);
    mark(element, "data-total", item.total);
    setText(element.lastElementChild, `${titleOf(item)}\n${words}`.trim());
  }
}

function makeNode() {
  const text = (name) => svg("text", { class: name });
  return svg(
    "g",
    { role: "button", tabindex: "0" },
    svg("rect", { class: "card", rx: 7 }),
    svg("rect", { class: "side", width: 3, rx: 1.5 }),
    svg("rect", { class: "side", width: 3, rx: 1.5 }),
    text("name"),
    text("name"),
    text("glyph"),
    text("rate"),
    text("total"),
    text("note"),
    svg("title"),
  );
}

/** Returns where the ribbons of a card touch it. */
function side(bar, item, edges, end, x) {
  const flowing = edges.filter((edge) => edge.width > 0);
  const height = flowing.reduce((total, edge) => total + edge.width, 0);
  mark(bar, "x", x);
  mark(bar, "y", flowing.length > 0 ? (flowing[0][end].y - item.y).toFixed(1) : 0);
  mark(bar, "height", height.toFixed(1));
}
