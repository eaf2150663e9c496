// The snapshot as nodes and edges with rates. A rate is the difference of a counter between two consecutive snapshots,
// divided by the time between them. This file does not use the DOM.

import { History } from "./history.js";

/** The kinds of nodes, from left to right. */
export const KINDS = ["listener", "route", "handler", "upstream"];

/** Drop reasons that the file requests, or that harm no client: they are shown, but not as problems. */
const AS_CONFIGURED = new Set(["discarded", "duplicate_copy", "not_first", "sampled_out", "shadow"]);
/** Alarms that mean that datagrams are being lost. */
export const GRAVE = new Set(["kernel_drops", "upstream_dead"]);
/** The kind of node that an alarm is about, if it is not a route; nodes of different kinds may have the same name. */
const SUBJECTS = { kernel_drops: "listener", upstream_dead: "upstream", overlap: "listener", interface_gone: "listener" };

const sum = (counts) => Object.values(counts ?? {}).reduce((total, one) => total + one, 0);

/** The counters of a row that have a line in the chart; the picture shows the first. */
const COUNTERS = {
  listener: {
    received: (row) => row.received,
    dropped: (row) => row.dropped,
    "kernel drops": (row) => row.kernel_drops,
  },
  route: { received: (row) => row.received, handled: (row) => row.handled, dropped: (row) => row.dropped },
  handler: {
    received: (row) => row.received,
    sent: (row) => row.sent,
    replies: (row) => row.replies.received,
    dropped: (row) => row.dropped,
    "not sent": (row) => sum(row.failed),
  },
  upstream: {
    sent: (row) => row.sent,
    replies: (row) => row.replies,
    "not sent": (row) => sum(row.failed),
    skipped: (row) => row.skipped,
    "kernel drops": (row) => row.kernel_drops,
  },
};

const NAMES = {
  listener: (row) => row.listener,
  route: (row) => row.route,
  handler: (row) => row.handler,
  upstream: (row) => row.upstream,
};

/** A row of the snapshot, and what is derived from it. */
class Node {
  constructor(kind, row, key) {
    Object.assign(this, { kind, row, key, name: NAMES[kind](row), before: null, seconds: 0, in: [], out: [], alarms: [] });
    this.counters = Object.entries(COUNTERS[kind]).map(([name, of]) => ({ name, total: of(row), of }));
  }

  /** Returns the increase per second of the value that `of` returns for a row; null if it is unknown. */
  rate(of) {
    if (!this.before || !(this.seconds > 0)) return null;
    const grown = (of(this.row) ?? 0) - (of(this.before) ?? 0);
    // A counter that fell belongs to a new process.
    return grown >= 0 ? grown / this.seconds : null;
  }

  /** The rate of the counter that the picture shows. */
  get flow() {
    return this.rates[0] ?? 0;
  }

  /** Datagrams per second that were dropped but should not have been. */
  get wasted() {
    const reasons = Object.keys(this.row.drops ?? {}).filter((reason) => !AS_CONFIGURED.has(reason));
    return reasons.reduce((total, reason) => total + (this.rate((row) => row.drops[reason]) ?? 0), 0);
  }

  finish() {
    this.rates = this.counters.map(({ of }) => this.rate(of));
    const lost = this.rate((row) => row.kernel_drops ?? 0) > 0;
    const unsent = this.rate((row) => sum(row.failed) + sum(row.reported)) > 0;
    const grave = lost || this.row.alive === false || this.alarms.some((alarm) => GRAVE.has(alarm.name));
    this.level = grave ? "bad" : unsent || this.alarms.length > 0 ? "warn" : "good";
  }
}

/** The daemon as of the last snapshot. */
export class Model {
  constructor() {
    this.history = new History();
    this.snapshot = null;
    this.nodes = new Map();
    this.edges = [];
    this.totals = null;
  }

  /** Updates the model from the next snapshot. */
  take(snapshot) {
    const seconds = this.#secondsSince(snapshot);
    const before = this.nodes;
    this.seconds = seconds;
    this.before = seconds > 0 ? this.snapshot : null;
    this.snapshot = snapshot;
    this.nodes = new Map();
    this.columns = {};
    for (const kind of KINDS) this.columns[kind] = snapshot[`${kind}s`].map((row) => this.#node(kind, row, before, seconds));
    this.#raise(snapshot.alarms);
    for (const node of this.nodes.values()) node.finish();
    this.#connect(snapshot.flows);
    this.totals = this.#total();
    this.history.add(snapshot.taken_unix_ms, this.nodes.values(), this.totals);
  }

  /** Returns the node that an alarm is about, if it is drawn. */
  find(alarm) {
    return [...this.nodes.values()].find((node) => node.alarms.some((one) => one.name === alarm.name && one.about === alarm.about)) ?? null;
  }

  #secondsSince(snapshot) {
    const last = this.snapshot;
    if (!last) return 0;
    // Another process has another start time, so only the wall clock is common to both.
    const [now, then] =
      last.pid === snapshot.pid && last.started === snapshot.started
        ? [snapshot.uptime_ms, last.uptime_ms]
        : [snapshot.taken_unix_ms, last.taken_unix_ms];
    return (now - then) / 1000;
  }

  #node(kind, row, before, seconds) {
    const subject = kind === "upstream" ? `${row.handler}/${row.upstream}` : NAMES[kind](row);
    let key = `${kind}:${subject}`;
    for (let twin = 2; this.nodes.has(key); twin += 1) key = `${kind}:${subject}#${twin}`;
    const node = new Node(kind, row, key);
    node.subject = subject;
    node.before = before.get(key)?.row ?? null;
    node.seconds = seconds;
    this.nodes.set(key, node);
    return node;
  }

  /**
   * Assigns the alarms to nodes. A listener and a route may have the same name; the type of an alarm shows which one
   * it means.
   */
  #raise(alarms) {
    const about = new Map();
    for (const node of this.nodes.values()) about.set(node.subject, [...(about.get(node.subject) ?? []), node]);
    for (const alarm of alarms) {
      const named = about.get(alarm.about) ?? [];
      const meant = named.find((node) => node.kind === (SUBJECTS[alarm.name] ?? "route")) ?? named[0];
      meant?.alarms.push(alarm);
    }
  }

  #connect(flows) {
    const { listener, route, handler, upstream } = this.columns;
    this.edges = [];
    const join = (from, to, rate) => {
      if (!from || !to) return;
      const edge = { from, to, rate, shared: false };
      from.out.push(edge);
      to.in.push(edge);
      this.edges.push(edge);
    };
    for (const { from, to } of flows.listener_to_route) join(listener[from], route[to], 1);
    share(listener, route);
    // Each handler of a route receives each datagram; each upstream has one handler.
    for (const { from, to } of flows.route_to_handler) join(route[from], handler[to], route[from]?.flow ?? 0);
    for (const { from, to } of flows.handler_to_upstream) join(handler[from], upstream[to], upstream[to]?.flow ?? 0);
  }

  #total() {
    const all = (kind, of) => this.columns[kind].reduce((total, node) => total + (node.rate(of) ?? 0), 0);
    const known = this.before !== null;
    const total = (kind, of) => (known ? all(kind, of) : null);
    return {
      received: total("listener", (row) => row.received),
      sent: total("handler", (row) => row.sent),
      dropped: total("listener", (row) => row.dropped),
      "kernel drops": known ? all("listener", (row) => row.kernel_drops) + all("upstream", (row) => row.kernel_drops) : null,
      "not sent": total("handler", (row) => sum(row.failed)),
      sessions: this.columns.handler.reduce((open, node) => open + node.row.sessions.open, 0),
    };
  }
}

/**
 * Divides what routes received among the listeners that lead to them, where the daemon does not count it. Every route
 * gets what it received, and listeners contribute in proportion to what they have (iterative proportional fitting).
 */
function share(listeners, routes) {
  const scale = (edges, target) => {
    const have = edges.reduce((total, edge) => total + edge.rate, 0);
    for (const edge of edges) edge.rate = have > 0 ? (edge.rate * target) / have : 0;
  };
  for (const listener of listeners) for (const edge of listener.out) edge.rate = listener.flow;
  for (let round = 0; round < 8; round += 1) {
    for (const route of routes) scale(route.in, route.flow);
    if (round < 7) for (const listener of listeners) scale(listener.out, listener.flow);
  }
  for (const route of routes) for (const edge of route.in) edge.shared = route.in.length > 1 && edge.from.out.length > 1;
}
