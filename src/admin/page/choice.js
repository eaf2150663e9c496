// Chooses the rows that the picture shows. A column has room for the busiest few; the others are one node, "N more".
// Rows with an alarm and the open row are always shown. The choice is renewed only occasionally, so that nothing
// flickers.

const CHOOSE_AGAIN_MS = 5_000;
/** Weight of the past in a node's average rate: half of the average is older than ten seconds. */
const INERTIA = 0.93;

const TITLES = { listener: "Listeners", route: "Routes", handler: "Handlers", upstream: "Upstreams" };
const WORSE = { good: 0, warn: 1, bad: 2 };

/** One node of the picture: a row, or the rows that are folded into one node. */
class Item {
  constructor(kind, key, nodes, isFolded) {
    Object.assign(this, { kind, key, nodes, isFolded, in: [], out: [] });
    this.level = nodes.reduce((worst, node) => (WORSE[levelOf(node)] > WORSE[worst] ? levelOf(node) : worst), "good");
  }

  get node() {
    return this.nodes[0];
  }

  /** Datagrams per second; null if unknown. */
  get rate() {
    const known = this.nodes.filter((node) => node.rates[0] !== null);
    return known.length > 0 ? known.reduce((total, node) => total + node.rates[0], 0) : null;
  }

  get total() {
    return this.nodes.reduce((total, node) => total + node.counters[0].total, 0);
  }
}

/** Returns the severity of a node; a route drawn together with its only listener includes that of the listener. */
function levelOf(node) {
  const partner = node.partner?.level ?? "good";
  return WORSE[partner] > WORSE[node.level] ? partner : node.level;
}

/** Returns whether listeners and routes correspond one to one; each pair is then drawn as one node. */
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

/** Returns the nodes that match, and all nodes that lead to them or that they lead to. */
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

/** Keeps the choice between snapshots. */
export class Choice {
  #weights = new Map();
  #kept = new Map();
  #reason = "";
  #chosenAt = 0;

  /** Updates the average rates of the nodes, once per snapshot. */
  weigh(model) {
    const weights = new Map();
    for (const [key, node] of model.nodes) {
      const flow = node.flow;
      weights.set(key, (this.#weights.get(key) ?? flow) * INERTIA + flow * (1 - INERTIA));
    }
    this.#weights = weights;
  }

  /** Returns the average rate of a node. */
  weight(node) {
    return this.#weights.get(node.key) ?? 0;
  }

  /**
   * Returns columns of items, and the edges between them. `query` has the filter's `words`, the `open` key, the number
   * of `rows` in a column, whether the picture is `wide` enough for all four columns, and otherwise which column is the
   * `left` one.
   */
  choose(model, query, nowMs) {
    const { columns } = model;
    const twins = areTwins(columns);
    for (const route of columns.route) route.partner = twins ? route.in[0].from : null;
    const kinds = ["handler"];
    if (columns.upstream.length > 0) kinds.push("upstream");
    kinds.unshift(...(twins ? ["route"] : query.wide ? ["listener", "route"] : [query.left]));
    const words = query.words.toLowerCase();
    const filtered = words ? related(model, words) : null;
    const sizes = kinds.map((kind) => columns[kind].length);
    const reason = JSON.stringify([kinds, sizes, query, model.snapshot.generation, model.snapshot.pid]);
    const again = reason !== this.#reason || nowMs - this.#chosenAt > CHOOSE_AGAIN_MS;
    if (again) [this.#reason, this.#chosenAt] = [reason, nowMs];
    const items = new Map();
    const drawn = kinds.map((kind) => {
      const nodes = columns[kind].filter((node) => !filtered || filtered.all.has(node));
      if (again) this.#kept.set(kind, this.#busiest(nodes, query));
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

  /** Returns the items in the order of the file, with the folded rows last. */
  #items(kind, nodes, items) {
    const kept = this.#kept.get(kind) ?? new Set();
    const list = nodes.filter((node) => kept.has(node.key)).map((node) => new Item(kind, node.key, [node], false));
    const rest = nodes.filter((node) => !kept.has(node.key));
    if (rest.length > 0) list.push(new Item(kind, `more:${kind}`, rest, true));
    for (const item of list) for (const node of item.nodes) items.set(node, item);
    return list;
  }
}

/** Returns the edges between the items of neighbouring columns; edges lead through a column that is not drawn. */
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
