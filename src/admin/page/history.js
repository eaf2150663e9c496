// Rates of the last minutes, kept in this browser only.

/** Number of snapshots in the history: five minutes at one per second. */
export const LENGTH = 300;
/** Largest number of nodes with a history; further nodes have none. A line takes 1.2 kB. */
const NODES_MAX = 4_000;

/** Lines of rates over common times, the oldest first. */
export class History {
  #times = new Float64Array(LENGTH);
  #lines = new Map();
  #next = 0;
  #length = 0;

  /** Adds the rates of one moment. The lines of nodes that are not among these are removed. */
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

  /** Returns the times in unix milliseconds. */
  times() {
    return this.#ordered(this.#times);
  }

  /** Returns the values of a line at these times; NaN where there is none. */
  line(id) {
    const line = this.#lines.get(id);
    return line ? this.#ordered(line) : new Array(this.#length).fill(NaN);
  }

  #ordered(ring) {
    const start = this.#length < LENGTH ? 0 : this.#next;
    return Array.from({ length: this.#length }, (_, index) => ring[(start + index) % LENGTH]);
  }
}
