// Rates of the last minutes, kept in this browser alone.

/** Snapshots that are remembered: five minutes of one a second. */
export const LENGTH = 300;
/** Nodes whose rates are remembered; beyond that, only the first of them. A line takes 1.2 kB. */
const NODES_MAX = 4_000;

/** Lines of rates over common times, the oldest first when read. */
export class History {
  #times = new Float64Array(LENGTH);
  #lines = new Map();
  #next = 0;
  #length = 0;

  /** Adds the rates of one instant. Who is not among these nodes any more is forgotten. */
  add(unixMs, nodes, totals) {
    const at = this.#next;
    this.#times[at] = unixMs;
    this.#next = (at + 1) % LENGTH;
    this.#length = Math.min(this.#length + 1, LENGTH);
    const seen = new Set();
    const put = (id, rate) => {
      seen.add(id);
      let line = this.#lines.get(id);
      if (!line) this.#lines.set(id, (line = new Float32Array(LENGTH).fill(NaN)));
      line[at] = rate ?? NaN;
    };
    for (const [name, rate] of Object.entries(totals)) put(`total ${name}`, rate);
    let left = NODES_MAX;
    for (const node of nodes) {
      if (left === 0) break;
      left -= 1;
      node.counters.forEach(({ name }, index) => put(`${node.key} ${name}`, node.rates[index]));
    }
    for (const id of this.#lines.keys()) if (!seen.has(id)) this.#lines.delete(id);
  }

  /** The instants, in unix milliseconds. */
  times() {
    return this.#ordered(this.#times);
  }

  /** A line's values at these instants; NaN where there is none. */
  line(id) {
    const line = this.#lines.get(id);
    return line ? this.#ordered(line) : new Array(this.#length).fill(NaN);
  }

  #ordered(ring) {
    const start = this.#length < LENGTH ? 0 : this.#next;
    return Array.from({ length: this.#length }, (_, index) => ring[(start + index) % LENGTH]);
  }
}
