//! The table of targets as a drawing: a bar for each forwarder, as a multiple of the one written by hand, and the
//! target as a line. It is SVG without external resources, and its colours follow the reader's colour scheme.

use crate::goals::{Outcome, Target};
use std::fmt::Write;

/// Sizes, in pixels.
const WIDTH: f64 = 900.0;
/// Space on both sides for the longest words, which have no fixed width.
const MARGIN: f64 = 60.0;
const LEFT: f64 = 330.0;
const RIGHT: f64 = 120.0;
const TOP: f64 = 62.0;
const BAR: f64 = 14.0;
const GAP: f64 = 18.0;
/// Longer bars are cut here, with their number beside them. Targets are near 1, and other forwarders may be far away.
const RATIO_MAX: f64 = 3.0;

const STYLE: &str = "
  text { font: 13px system-ui, sans-serif; fill: #1f2328; }
  .small { font-size: 11px; fill: #59636e; }
  .grid { stroke: #d1d9e0; }
  .ours { fill: #0969da; } .hand { fill: #8c959f; } .peer { fill: #c9a227; }
  .target { stroke: #cf222e; stroke-width: 2; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; } .small { fill: #9198a1; } .grid { stroke: #3d444d; }
    .ours { fill: #4493f8; } .hand { fill: #6e7681; } .peer { fill: #d4b44a; } .target { stroke: #f85149; }
  }
";

/// Returns the drawing.
pub(crate) fn draw(outcomes: &[Outcome], machine: &str) -> String {
    let rows = outcomes.len() as f64;
    let bottom = TOP + rows * (3.0 * BAR + GAP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"-{MARGIN} 0 {} {height}\" role=\"img\" \
         aria-label=\"Processor time of forwarders, as multiples of one written by hand\">\n<style>{STYLE}</style>\n",
        WIDTH + 2.0 * MARGIN,
        height = bottom + 34.0
    );
    legend(&mut svg);
    for ratio in 0..=RATIO_MAX as u32 {
        let x = x_of(f64::from(ratio));
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>"
        );
        text(
            &mut svg,
            x,
            TOP - 6.0,
            "small",
            "middle",
            &format!("{ratio}×"),
        );
    }
    for (number, outcome) in outcomes.iter().enumerate() {
        row(
            &mut svg,
            outcome,
            TOP + GAP / 2.0 + number as f64 * (3.0 * BAR + GAP),
        );
    }
    text(&mut svg, 12.0, bottom + 22.0, "small", "start", machine);
    svg.push_str("</svg>\n");
    svg
}

fn legend(svg: &mut String) {
    text(
        svg,
        12.0,
        22.0,
        "",
        "start",
        "Processor time, as a multiple of a forwarder written by hand; shorter is better",
    );
    let entries = [
        ("ours", "udispatch"),
        ("hand", "by hand"),
        ("peer", "best other forwarder"),
    ];
    let mut x = 12.0;
    for (class, name) in entries {
        let _ = writeln!(
            svg,
            "<rect class=\"{class}\" x=\"{x}\" y=\"34\" width=\"11\" height=\"11\"/>"
        );
        text(svg, x + 16.0, 44.0, "small", "start", name);
        x += 40.0 + 6.0 * name.len() as f64;
    }
    let _ = writeln!(
        svg,
        "<line class=\"target\" x1=\"{x}\" x2=\"{x}\" y1=\"33\" y2=\"46\"/>"
    );
    text(svg, x + 8.0, 44.0, "small", "start", "target");
}

/// The bars of one kind of work.
fn row(svg: &mut String, outcome: &Outcome, y: f64) {
    text(
        svg,
        LEFT - 12.0,
        y + BAR * 2.0 - 2.0,
        "",
        "end",
        outcome.goal.work,
    );
    let Some(base) = outcome.by_hand else { return };
    let (peer_name, peer) = outcome
        .peer
        .map_or(("", None), |(name, ns)| (name, Some(ns)));
    let bars = [
        ("ours", outcome.ours, ""),
        ("hand", Some(base), ""),
        ("peer", peer, peer_name),
    ];
    for (place, (class, ns, name)) in bars.into_iter().enumerate() {
        let y = y + place as f64 * BAR;
        let Some(ns) = ns else { continue };
        let end = x_of((ns / base).min(RATIO_MAX));
        let width = end - LEFT;
        let _ = writeln!(
            svg,
            "<rect class=\"{class}\" x=\"{LEFT}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{}\"/>",
            BAR - 2.0
        );
        let cut = if ns / base > RATIO_MAX { "→ " } else { "" };
        let label = format!("{cut}{:.2}×, {ns:.0} ns {name}", ns / base);
        text(
            svg,
            end + 5.0,
            y + BAR - 4.0,
            "small",
            "start",
            label.trim_end(),
        );
    }
    let target = match outcome.goal.target {
        Target::ByHand(most) => Some(most),
        Target::BestPeer(most) => peer.map(|peer| peer * most / base),
    };
    if let Some(target) = target.filter(|target| *target <= RATIO_MAX) {
        let x = x_of(target);
        let from = y - 3.0;
        let to = y + 3.0 * BAR + 1.0;
        let _ = writeln!(
            svg,
            "<line class=\"target\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{from:.1}\" y2=\"{to:.1}\"/>"
        );
    }
}

fn x_of(ratio: f64) -> f64 {
    LEFT + (WIDTH - LEFT - RIGHT) * ratio / RATIO_MAX
}

fn text(svg: &mut String, x: f64, y: f64, class: &str, anchor: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        svg,
        "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
    );
}
