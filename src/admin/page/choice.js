// Which rows the picture shows. A column has room for the busiest few; the others are one node, "N more". Rows that raise an
// alarm and the one that is open always have a place. The choice is looked at again only now and then, so nothing flickers.

const CHOOSE_AGAIN_MS = 5_000;
/** Share of the past in how busy a node is thought to be: half of it is ten seconds old. */
const INERTIA = 0.93;

const TITLES = { listener: "Listeners", route: "Routes", handler: "Handlers", upstream: "Upstreams" };
const WORSE = { good: 0, warn: 1, bad: 2 };

/** One node of the picture: a row, or those rows that have no place of their own. */
class Item {
  constructor(kind, key, nodes, isFolded) {
    Object.assign(this, { kind, key, nodes, isFolded, in: [], out: [] });
    this.level = nodes.reduce((worst, node) => (WORSE[levelOf(node)] > WORSE[worst] ? levelOf(node) : worst), "good");
  }

  get node() {
    return this.nodes[0];
  }

  /** Datagrams a second; null where it is not known yet. */
  get rate() {
    const known = this.nodes.filter((node) => node.rates[0] !== null);
    return known.length > 0 ? known.reduce((total, node) => total + node.rates[0], 0) : null;
  }

  get total() {
    return this.nodes.reduce((total, node) => total + node.counters[0].total, 0);
  }
}

/** A route that stands for its only listener too is as bad as that. */
function levelOf(node) {
  const partner = node.partner?.level ?? "good";
  return WORSE[partner] > WORSE[node.level] ? partner : node.level;
}

/** Whether each route has one listener and each listener one route: then they are drawn as one. */
function areTwins(columns) {
  const single = (edges) => edges.length === 1;
  return (
    columns.listener.length === columns.route.length &&
    columns.listener.every((node) => single(node.out)) &&
    columns.route.every((node) => single(node.in))
  );
}

function matches(node, words) {
  const { row, name } = node;
  const texts = [name, row.kind, row.address, node.kind === "upstream" ? row.handler : ""];
  return texts.some((text) => text?.toLowerCase().includes(words));
}

/** The nodes that match, and all that lead to them or that they lead to. */
function related(model, words) {
  const found = [...model.nodes.values()].filter((node) => matches(node, words));
  const all = new Set(found);
  const walk = (node, edges, end) => {
    for (const edge of node[edges]) {
      const next = edge[end];
      const mark = `${edges} ${next.key}`;
      if (walked.has(mark)) continue;
      walked.add(mark);
      all.add(next);
      walk(next, edges, end);
    }
  };
  const walked = new Set();
  for (const node of found) {
    walk(node, "in", "from");
    walk(node, "out", "to");
  }
  return { found: found.length, all };
}

/** Remembers who was chosen. */
export class Choice {
  #weights = new Map();
  #kept = new Map();
  #reason = "";
  #chosenAt = 0;

  /** Tells how busy the nodes are, once a snapshot. */
  weigh(model) {
    const weights = new Map();
    for (const [key, node] of model.nodes) {
      const flow = node.flow;
      weights.set(key, (this.#weights.get(key) ?? flow) * INERTIA + flow * (1 - INERTIA));
    }
    this.#weights = weights;
  }

  /** How busy a node has been. */
  weight(node) {
    return this.#weights.get(node.key) ?? 0;
  }

  /**
   * Columns of items, and the edges between them. `asked` has the filter's `words`, the `open` key, `rows` a column has
   * room for, whether it is `wide` enough for all four columns, and which is the `left` one if not.
   */
  choose(model, asked, nowMs) {
    const { columns } = model;
    const twins = areTwins(columns);
    for (const route of columns.route) route.partner = twins ? route.in[0].from : null;
    const kinds = ["handler"];
    if (columns.upstream.length > 0) kinds.push("upstream");
    kinds.unshift(...(twins ? ["route"] : asked.wide ? ["listener", "route"] : [asked.left]));
    const words = asked.words.toLowerCase();
    const filtered = words ? related(model, words) : null;
    const sizes = kinds.map((kind) => columns[kind].length);
    const reason = JSON.stringify([kinds, sizes, asked, model.snapshot.generation, model.snapshot.pid]);
    const again = reason !== this.#reason || nowMs - this.#chosenAt > CHOOSE_AGAIN_MS;
    if (again) [this.#reason, this.#chosenAt] = [reason, nowMs];
    const items = new Map();
    const drawn = kinds.map((kind) => {
      const nodes = columns[kind].filter((node) => !filtered || filtered.all.has(node));
      if (again) this.#kept.set(kind, this.#busiest(nodes, asked));
      const title = twins && kind === "route" ? "Destinations" : TITLES[kind];
      return { kind, title, count: nodes.length, items: this.#items(kind, nodes, items) };
    });
    return { columns: drawn, edges: join(drawn, items), twins, found: filtered?.found ?? null };
  }

  #busiest(nodes, { rows, open }) {
    if (nodes.length <= rows) return new Set(nodes.map((node) => node.key));
    const first = (node) => (node.key === open ? 3 : WORSE[levelOf(node)]);
    const ranked = [...nodes].sort((one, other) => first(other) - first(one) || this.weight(other) - this.weight(one));
    return new Set(ranked.slice(0, rows - 1).map((node) => node.key));
  }

  /** In the order of the file, the folded ones last. */
  #items(kind, nodes, items) {
    const kept = this.#kept.get(kind) ?? new Set();
    const list = nodes.filter((node) => kept.has(node.key)).map((node) => new Item(kind, node.key, [node], false));
    const rest = nodes.filter((node) => !kept.has(node.key));
    if (rest.length > 0) list.push(new Item(kind, `more:${kind}`, rest, true));
    for (const item of list) for (const node of item.nodes) items.set(node, item);
    return list;
  }
}

/** The edges between the items of neighbouring columns; a column that is not drawn is passed through. */
function join(columns, items) {
  const edges = new Map();
  const add = (from, to, { rate, shared }) => {
    const [source, target] = [items.get(from), items.get(to)];
    if (!source || !target) return;
    const key = `${source.key} > ${target.key}`;
    let edge = edges.get(key);
    if (!edge) {
      edges.set(key, (edge = { key, from: source, to: target, rate: 0, shared: false }));
      source.out.push(edge);
      target.in.push(edge);
    }
    edge.rate += rate;
    edge.shared ||= shared;
  };
  const isDrawn = (kind) => columns.some((column) => column.kind === kind);
  for (const column of columns) {
    for (const item of column.items) {
      for (const node of item.nodes) {
        for (const edge of node.out) {
          if (isDrawn(edge.to.kind)) add(node, edge.to, edge);
          else for (const next of edge.to.out) add(node, next.to, edge);
        }
      }
    }
  }
  return [...edges.values()];
}
