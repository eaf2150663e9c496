// Charts over time: a small chart for the open node, and a sparkline for each tile.

import { mark, setText, svg, sync } from "./dom.js";
import { nice } from "./layout.js";
import { roundRate, span } from "./words.js";

/** The shortest period that a chart covers. */
const WINDOW_MIN_MS = 60_000;
const HEIGHT = 150;
const LEFT = 58;
const [TOP, BOTTOM] = [10, 22];

function path(times, values, x, y) {
  let isOpen = false;
  let d = "";
  values.forEach((value, index) => {
    if (Number.isNaN(value)) {
      isOpen = false;
      return;
    }
    d += `${isOpen ? "L" : "M"}${x(times[index]).toFixed(1)},${y(value).toFixed(1)}`;
    isOpen = true;
  });
  return d;
}

const largest = (values) => values.reduce((most, value) => (value > most ? value : most), 0);

/** Draws a line without axes, and the area below it. */
export function spark(element, times, values, width, height) {
  const [first, last] = [Math.min(times[0], times.at(-1) - WINDOW_MIN_MS), times.at(-1)];
  const top = largest(values) || 1;
  const x = (time) => ((time - first) / (last - first || 1)) * width;
  const y = (value) => height - 1.5 - (value / top) * (height - 3);
  const line = path(times, values, x, y);
  const begin = values.findIndex((value) => !Number.isNaN(value));
  // The area below a line with gaps is not filled, since it is not one piece.
  const isWhole = begin >= 0 && !values.slice(begin).some(Number.isNaN);
  mark(element.children[0], "d", isWhole ? `${line}V${height}H${x(times[begin]).toFixed(1)}Z` : "");
  mark(element.children[1], "d", line);
}

/** A chart with axes and a cursor that selects a moment. */
export class Chart {
  constructor(pointed) {
    this.pointed = pointed;
    this.index = null;
    this.grid = svg("g", { class: "grid" });
    this.lines = svg("g", { class: "lines" });
    this.hair = svg("line", { class: "hair", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" });
    this.element = svg("svg", { class: "chart", height: HEIGHT, "aria-hidden": "true" }, this.grid, this.lines, this.hair);
    this.element.addEventListener("pointermove", (event) => this.#point(event.offsetX));
    this.element.addEventListener("pointerleave", () => this.#point(null));
  }

  /** Draws lines of values at these times; a value that is not a number leaves a gap. */
  draw(times, lines) {
    const width = this.element.parentElement?.clientWidth ?? 0;
    if (width === 0 || times.length === 0) return;
    const last = times.at(-1);
    const first = Math.min(times[0], last - WINDOW_MIN_MS);
    const full = nice(Math.max(...lines.map((line) => largest(line.values)), 1));
    const [right, floor] = [width - 8, HEIGHT - BOTTOM];
    this.x = (time) => LEFT + ((time - first) / (last - first)) * (right - LEFT);
    const y = (value) => floor - (value / full) * (floor - TOP);
    this.times = times;
    mark(this.element, "viewBox", `0 0 ${width} ${HEIGHT}`);
    mark(this.element, "width", width);
    sync(this.grid, [0, full / 2, full], String, makeRule, (rule, value) => {
      const [line, text] = rule.children;
      for (const [name, place] of Object.entries({ x1: LEFT, x2: right, y1: y(value), y2: y(value) })) mark(line, name, place);
      mark(text, "x", LEFT - 8);
      mark(text, "y", y(value) + 4);
      setText(text, roundRate(value));
    });
    this.#label("from", LEFT, "start", `${span((last - first) / 1000)} ago`);
    this.#label("to", right, "end", "now");
    sync(this.lines, lines, (line) => line.name, () => svg("path"), (element, line) => {
      mark(element, "class", `line s${line.style}`);
      mark(element, "d", path(times, line.values, this.x, y));
    });
    if (this.index !== null) this.#point(this.pointer);
  }

  #label(name, x, anchor, words) {
    this[name] ??= this.element.appendChild(svg("text", { class: "axis", y: HEIGHT - 6, "text-anchor": anchor }));
    mark(this[name], "x", x);
    setText(this[name], words);
  }

  #point(pointer) {
    this.pointer = pointer;
    const was = this.index;
    this.index = null;
    if (pointer !== null && this.times) {
      const near = (time) => Math.abs(this.x(time) - pointer);
      this.index = this.times.reduce((best, time, index) => (near(time) < near(this.times[best]) ? index : best), 0);
      const x = this.x(this.times[this.index]);
      mark(this.hair, "x1", x);
      mark(this.hair, "x2", x);
    }
    mark(this.hair, "visibility", this.index === null ? "hidden" : null);
    if (was !== this.index) this.pointed();
  }
}

function makeRule() {
  return svg("g", {}, svg("line"), svg("text", { class: "axis", "text-anchor": "end" }));
}
