//! The comparison as a picture: two plots with logarithmic scales, and the names of the lines beside them.

use std::fmt::Write as _;

use super::Case;
use super::document::bytes;
use super::rounds::Results;
use super::system::System;

const WIDTH: f64 = 1080.0;
const HEIGHT: f64 = 470.0;
/// Where the plots are, from the top.
const TOP: f64 = 56.0;
const BOTTOM: f64 = 410.0;
/// Where each of them begins, and how wide it is.
const LEFT: [f64; 2] = [64.0, 500.0];
const PLOT: f64 = 370.0;
/// Room within a plot, left and right of the points.
const MARGIN: f64 = 26.0;
/// Where the names begin.
const NAMES: f64 = 900.0;
/// The payload of the first plot.
const PAYLOAD: usize = 1_024;
/// Colours that are told apart by most eyes, in the order of all systems; the first is greenroom's.
const COLOURS: [&str; 10] =
    ["#117733", "#0077bb", "#cc3311", "#ee7733", "#aa3377", "#555555", "#999933", "#c0a000", "#33bbee", "#8855aa"];
/// So that nobody depends on colours alone.
const DASHES: [&str; 3] = ["none", "7 3", "2 3"];

/// One line of a plot: a value for each place on the horizontal axis, if it was measured.
struct Line {
    /// Its system's place among all, so that it looks the same when others are left out.
    place: usize,
    values: Vec<Option<f64>>,
}

/// One plot.
struct Plot {
    title: String,
    under: &'static str,
    ticks: Vec<String>,
    /// How far each tick is along the axis, from 0 to 1.
    along: Vec<f64>,
    lines: Vec<Line>,
}

/// The picture.
pub fn svg(results: &Results) -> String {
    let plots = [against_calls(results), against_payload(results)];
    let values = || plots.iter().flat_map(|plot| &plot.lines).flat_map(|line| line.values.iter().flatten().copied());
    let scale = Scale::around(values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
    let mut picture = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"Helvetica, Arial, sans-serif\" font-size=\"13\" fill=\"#222\">\n\
         <title>Requests per second of greenroom and others</title>\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n"
    );
    for (plot, left) in plots.iter().zip(LEFT) {
        draw(&mut picture, plot, left, &scale);
    }
    for (line, system) in results.systems.iter().enumerate() {
        let (y, place) = (TOP + 12.0 + 22.0 * line as f64, place(system));
        stroke(&mut picture, place, &[(NAMES, y), (NAMES + 34.0, y)]);
        let weight = if place == 0 { "bold" } else { "normal" };
        text(&mut picture, (NAMES + 42.0, y + 4.5), "start", weight, system.name);
    }
    picture + "</svg>\n"
}

fn against_calls(results: &Results) -> Plot {
    let calls = sorted(results.cases.iter().filter(|case| case.payload == PAYLOAD).map(|case| case.in_flight));
    let cases = calls.iter().map(|in_flight| Case { payload: PAYLOAD, in_flight: *in_flight }).collect::<Vec<_>>();
    Plot {
        title: format!("{} there and back: requests per second", bytes(PAYLOAD)),
        under: "calls in flight",
        ticks: calls.iter().map(usize::to_string).collect(),
        along: logarithmic(&calls),
        lines: lines(results, &cases),
    }
}

fn against_payload(results: &Results) -> Plot {
    let all = sorted(results.cases.iter().map(|case| case.in_flight));
    let in_flight = all.last().copied().unwrap_or_default();
    let payloads = sorted(results.cases.iter().filter(|case| case.in_flight == in_flight).map(|case| case.payload));
    let cases = payloads.iter().map(|payload| Case { payload: *payload, in_flight }).collect::<Vec<_>>();
    Plot {
        title: format!("{in_flight} in flight: requests per second"),
        under: "payload",
        ticks: payloads.iter().map(|payload| bytes(*payload)).collect(),
        along: logarithmic(&payloads),
        lines: lines(results, &cases),
    }
}

fn sorted(numbers: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut numbers: Vec<usize> = numbers.collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

fn lines(results: &Results, cases: &[Case]) -> Vec<Line> {
    let rows = results.rows();
    let value = |system: &str, case: &Case| {
        let mut found = rows.iter().filter(|row| row.system == system);
        found.find(|row| (row.payload_bytes, row.in_flight) == (case.payload, case.in_flight)).map(|row| row.rps_median)
    };
    let line = |system: &System| {
        let values = cases.iter().map(|case| value(system.name, case)).collect();
        Line { place: place(system), values }
    };
    // The first comes last, so that it lies on top.
    results.systems.iter().map(line).rev().collect()
}

fn place(system: &System) -> usize {
    System::ALL.iter().position(|known| known == system).unwrap_or_default()
}

/// How far each of these is between the first and the last, by their logarithms.
fn logarithmic(numbers: &[usize]) -> Vec<f64> {
    let logs: Vec<f64> = numbers.iter().map(|number| (*number as f64).ln()).collect();
    let (first, last) = (logs.first().copied().unwrap_or(0.0), logs.last().copied().unwrap_or(0.0));
    let along = |log: &f64| if last > first { (log - first) / (last - first) } else { 0.5 };
    logs.iter().map(along).collect()
}

/// Rates, from the bottom to the top.
struct Scale {
    low: f64,
    high: f64,
}

impl Scale {
    /// Half decades around everything.
    fn around(least: f64, most: f64) -> Self {
        let (least, most) = if least.is_finite() && most > least { (least, most) } else { (1e3, 1e5) };
        Self { low: (least.log10() * 2.0).floor() / 2.0, high: (most.log10() * 2.0).ceil() / 2.0 }
    }

    fn y(&self, value: f64) -> f64 {
        BOTTOM - (value.log10() - self.low) / (self.high - self.low) * (BOTTOM - TOP)
    }

    /// One, two and five of each decade.
    fn ticks(&self) -> Vec<f64> {
        let decades = (self.low.floor() as i32)..=(self.high.ceil() as i32);
        let all = decades.flat_map(|decade| [1.0, 2.0, 5.0].map(|step| step * 10f64.powi(decade)));
        all.filter(|value| (self.low..=self.high).contains(&value.log10())).collect()
    }
}

/// A round number of requests: `500`, `20 k`, `1 M`.
fn short(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{:.0} M", value / 1e6),
        value if value >= 1e3 => format!("{:.0} k", value / 1e3),
        value => format!("{value:.0}"),
    }
}

fn draw(picture: &mut String, plot: &Plot, left: f64, scale: &Scale) {
    text(picture, (left, TOP - 18.0), "start", "bold", &plot.title);
    for value in scale.ticks() {
        let y = scale.y(value);
        let _ = writeln!(picture, "<path d=\"M{left:.1} {y:.1}h{PLOT}\" stroke=\"#ddd\"/>");
        text(picture, (left - 8.0, y + 4.5), "end", "normal", &short(value));
    }
    let x = |along: f64| left + MARGIN + along * (PLOT - 2.0 * MARGIN);
    for (tick, along) in plot.ticks.iter().zip(&plot.along) {
        let x = x(*along);
        let _ = writeln!(picture, "<path d=\"M{x:.1} {BOTTOM}v5\" stroke=\"#222\"/>");
        text(picture, (x, BOTTOM + 20.0), "middle", "normal", tick);
    }
    let _ = writeln!(picture, "<path d=\"M{left:.1} {BOTTOM}h{PLOT}\" stroke=\"#222\"/>");
    text(picture, (left + PLOT / 2.0, BOTTOM + 42.0), "middle", "normal", plot.under);
    for line in &plot.lines {
        let points =
            plot.along.iter().zip(&line.values).filter_map(|(along, value)| Some((x(*along), scale.y((*value)?))));
        let points: Vec<_> = points.collect();
        stroke(picture, line.place, &points);
        for (x, y) in points {
            let radius = if line.place == 0 { 4.5 } else { 3.0 };
            let _ = writeln!(
                picture,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" fill=\"{}\"/>",
                colour(line.place)
            );
        }
    }
}

fn stroke(picture: &mut String, place: usize, points: &[(f64, f64)]) {
    let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let (width, dash) = if place == 0 { (3.5, "none") } else { (1.8, DASHES[place % DASHES.len()]) };
    let _ = writeln!(
        picture,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{width}\" stroke-dasharray=\"{dash}\"/>",
        points.join(" "),
        colour(place)
    );
}

fn colour(place: usize) -> &'static str {
    COLOURS[place % COLOURS.len()]
}

fn text(picture: &mut String, (x, y): (f64, f64), anchor: &str, weight: &str, said: &str) {
    let _ = writeln!(
        picture,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" font-weight=\"{weight}\">{said}</text>"
    );
}
