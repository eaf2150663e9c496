// Positions of nodes and ribbons. The widths of all ribbons use one scale, which changes only in steps of 1, 2 and 5,
// so that a ribbon that grows means more datagrams.

/** Smallest rate that fills the scale, in datagrams per second, so that little traffic does not look like much. */
const FULL_MIN = 20;
/** Number of snapshots whose largest column determines the scale. */
const PEAKS = 60;

const HEAD = 34;
const GAP = 12;
const PADDING = 10;

/** Returns the smallest of 1, 2, 5, 10, 20, … that is not below the number. */
export function nice(number) {
  if (!(number > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(number));
  const step = [1, 2, 5].find((one) => one * power >= number * 0.999) ?? 10;
  return step * power;
}

/** Returns the sizes for a width of the picture in pixels. */
export function measures(width) {
  const compact = width < 600;
  return {
    compact,
    wide: width >= 860,
    rows: compact ? 9 : 13,
    card: compact ? 60 : 62,
    ribbons: compact ? 130 : 220,
    gapMin: compact ? 22 : 70,
    cardMax: 228,
  };
}

/** Keeps the recent maxima that determine the scale. */
export class Scale {
  #peaks = [];

  /** Returns the pixels for one datagram per second. */
  take(chosen, size) {
    const flows = chosen.columns.map(({ items }) => items.reduce((total, item) => total + thick(item), 0));
    this.#peaks.push(Math.max(...flows));
    if (this.#peaks.length > PEAKS) this.#peaks.shift();
    this.full = nice(Math.max(FULL_MIN, ...this.#peaks));
    return size.ribbons / this.full;
  }
}

function add(edges) {
  return edges.reduce((total, edge) => total + edge.shown, 0);
}

function thick(item) {
  const of = (edges) => edges.reduce((total, edge) => total + edge.rate, 0);
  return Math.max(of(item.in), of(item.out));
}

/**
 * Sets `x`, `y`, `w`, `h` of each item and the two ends of each edge, whose width follows `shown`. Returns the total
 * height.
 */
export function place(chosen, width, size, pixels) {
  const { columns, edges } = chosen;
  const count = columns.length;
  // Two columns alone must not be too far apart.
  const w = Math.min(count > 2 ? size.cardMax : 1.5 * size.cardMax, Math.floor((width - (count - 1) * size.gapMin - 2) / count));
  const step = count > 1 ? (width - w - 2) / (count - 1) : 0;
  for (const edge of edges) edge.width = edge.shown > 0 ? Math.max(1.5, edge.shown * pixels) : 0;
  for (const { items } of columns) {
    for (const item of items) {
      const card = size.card + (size.compact && item.level !== "good" ? 15 : 0);
      item.h = Math.round(Math.max(card, Math.max(add(item.in), add(item.out)) * pixels + 2 * PADDING));
    }
  }
  const heights = columns.map(({ items }) => items.reduce((total, item) => total + item.h + GAP, -GAP));
  const height = Math.max(size.card, ...heights);
  columns.forEach((column, index) => {
    column.x = 1 + index * step;
    column.w = w;
    let y = HEAD + (height - heights[index]) / 2;
    for (const item of column.items) {
      Object.assign(item, { x: column.x, y, w });
      y += item.h + GAP;
    }
  });
  for (const { items } of columns) {
    for (const item of items) {
      stack(item, item.out, "to", "start", item.x + item.w);
      stack(item, item.in, "from", "end", item.x);
    }
  }
  return HEAD + height + 2;
}

/** Places the ribbons on one side of a node in the order of their other ends. */
function stack(item, edges, other, end, x) {
  edges.sort((one, next) => one[other].y - next[other].y);
  const idle = edges.filter((edge) => edge.width === 0).length;
  const total = edges.reduce((sum, edge) => sum + edge.width, 0);
  // Ribbons without traffic keep a small distance, if there is room.
  const pause = edges.length > 0 ? Math.min(4, (item.h - 2 * PADDING - total) / edges.length) : 0;
  let y = item.y + (item.h - total - idle * pause) / 2;
  for (const edge of edges) {
    edge[end] = { x, y };
    y += edge.width > 0 ? edge.width : pause;
  }
}

/** Returns the outline of a ribbon, or the line of one without traffic. */
export function outline({ start, end, width }) {
  const middle = (start.x + end.x) / 2;
  const n = (number) => number.toFixed(1);
  const there = `M${n(start.x)},${n(start.y)}C${n(middle)},${n(start.y)} ${n(middle)},${n(end.y)} ${n(end.x)},${n(end.y)}`;
  if (width === 0) return there;
  const [low, back] = [end.y + width, start.y + width];
  return `${there}V${n(low)}C${n(middle)},${n(low)} ${n(middle)},${n(back)} ${n(start.x)},${n(back)}Z`;
}
