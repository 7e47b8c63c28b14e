//! A benchmark as a picture: latency by percentile, and requests a second over time.

use plotters::coord::Shift;
use plotters::element::DashedPathElement;
use plotters::prelude::*;

use super::report::{Latency, Paced, Report};

const WIDTH: u32 = 1100;
const HEIGHT: u32 = 1000;
/// Of the part that shows latency; the rest shows throughput.
const LATENCY_HEIGHT: u32 = 580;
/// Of the names, to the right of the lines, where they cover none.
const NAMES_WIDTH: u32 = 170;
/// From one name to the next.
const NAME_HEIGHT: i32 = 22;

const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
const FAINT: RGBColor = RGBColor(0xd8, 0xd8, 0xd8);
const FAINTER: RGBColor = RGBColor(0xee, 0xee, 0xee);

/// Colours that people with any sight tell apart (Okabe and Ito), the strongest first.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x56, 0xb4, 0xe9),
    RGBColor(0x22, 0x22, 0x22),
];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn<T> = Result<T, Box<dyn std::error::Error>>;

/// A line with a name.
struct Line {
    name: String,
    colour: RGBColor,
    /// Solid, or dashes of such a length.
    dash: Option<u32>,
    points: Vec<(f64, f64)>,
}

/// The picture, as text.
///
/// # Errors
/// In words.
pub(super) fn svg(report: &Report) -> Result<String, String> {
    let mut text = String::new();
    draw(report, &mut text).map_err(|error| format!("cannot draw the plot: {error}"))?;
    Ok(text)
}

fn draw(report: &Report, text: &mut String) -> Drawn<()> {
    let area = SVGBackend::with_string(text, (WIDTH, HEIGHT)).into_drawing_area();
    area.fill(&WHITE)?;
    let (above, below) = area.split_vertically(LATENCY_HEIGHT);
    latency(report, &above)?;
    throughput(report, &below)?;
    area.present()?;
    Ok(())
}

/// Latency grows towards rare requests, so both axes are logarithmic: to the right, each step is ten times as rare.
fn latency(report: &Report, area: &Area<'_>) -> Drawn<()> {
    let lines = latency_lines(report);
    let points = || lines.iter().flat_map(|line| &line.points);
    let rarest = points().map(|point| point.0).fold(10.0, f64::max);
    let least = points().map(|point| point.1).fold(f64::MAX, f64::min);
    let most = points().map(|point| point.1).fold(0.0, f64::max);
    if lines.is_empty() {
        return Ok(());
    }
    let from = match report.runs.first().map(|run| &run.pacing) {
        Some(Paced::Open { .. }) => "from when a request was due to its answer",
        _ => "from sending to answer (what a stall kept from being sent is not in it)",
    };
    let (area, names) = area.split_horizontally(WIDTH - NAMES_WIDTH);
    let mut chart = ChartBuilder::on(&area)
        .caption(format!("Latency by percentile, {from}"), caption())
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(72)
        .build_cartesian_2d(
            (1.0..rarest * 1.1).log_scale(),
            (least * 0.8..most * 1.25).log_scale(),
        )?;
    chart
        .configure_mesh()
        .bold_line_style(FAINT)
        .light_line_style(FAINTER)
        .axis_style(INK)
        .label_style(label())
        .x_desc("share of requests that took no longer")
        .y_desc("latency, ms")
        .x_label_formatter(&|rarity| percentile(*rarity))
        .y_label_formatter(&|ms| plain(*ms))
        .draw()?;
    for line in &lines {
        let points = line.points.iter().copied();
        let style = line.colour.stroke_width(2);
        match line.dash {
            None => chart.draw_series(LineSeries::new(points, style))?,
            Some(dash) => {
                chart.draw_series(DashedLineSeries::new(points, dash, dash / 2, style))?
            }
        };
    }
    name(&lines, &names)
}

/// A line for each kind of request in each run. The colour says the run, the stroke the kind; where there is one run, the colour
/// is free to say the kind.
fn latency_lines(report: &Report) -> Vec<Line> {
    let single = report.runs.len() == 1;
    let mut lines = Vec::new();
    for (number, run) in report.runs.iter().enumerate() {
        for (place, (kind, of)) in run.operations.iter().enumerate() {
            let Some(latency) = &of.latency_ms else {
                continue;
            };
            lines.push(Line {
                name: format!("{kind}, {}", run.label()),
                colour: colour(if single { place } else { number }),
                dash: match (single, place) {
                    (true, _) | (_, 0) => None,
                    (_, 1) => Some(8),
                    _ => Some(3),
                },
                points: by_rarity(latency),
            });
        }
    }
    lines
}

/// Points of a distribution: how rare what is slower is (1 is every request, 100 one in a hundred), and the time. The slowest
/// one of all is as rare as there are requests.
fn by_rarity(latency: &Latency) -> Vec<(f64, f64)> {
    let all = latency.percentiles.last().map_or(1, |last| last.2);
    let first = (1.0, latency.min);
    let steps = latency.percentiles.iter().map(|(quantile, ms, _)| {
        let rarity = if *quantile < 1.0 {
            1.0 / (1.0 - quantile)
        } else {
            all as f64
        };
        (rarity.clamp(1.0, all.max(1) as f64), *ms)
    });
    std::iter::once(first).chain(steps).collect()
}

fn throughput(report: &Report, area: &Area<'_>) -> Drawn<()> {
    let lines: Vec<Line> = report
        .runs
        .iter()
        .enumerate()
        .map(|(number, run)| Line {
            name: run.label(),
            colour: colour(number),
            dash: None,
            points: run
                .per_second
                .iter()
                .enumerate()
                .map(|(second, count)| (second as f64 + 0.5, *count as f64))
                .collect(),
        })
        .filter(|line| !line.points.is_empty())
        .collect();
    let seconds = lines.iter().map(|line| line.points.len()).max();
    let Some(seconds) = seconds else {
        return Ok(());
    };
    let counts = lines.iter().flat_map(|line| &line.points);
    let most = counts.map(|point| point.1).fold(1.0, f64::max);
    let (area, names) = area.split_horizontally(WIDTH - NAMES_WIDTH);
    let mut chart = ChartBuilder::on(&area)
        .caption("Requests answered in each second", caption())
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(72)
        .build_cartesian_2d(0.0..seconds as f64, 0.0..most * 1.1)?;
    chart
        .configure_mesh()
        .bold_line_style(FAINT)
        .max_light_lines(0)
        .axis_style(INK)
        .label_style(label())
        .x_desc("seconds since the measurement began")
        .y_desc("requests a second")
        .x_labels(11)
        .y_labels(6)
        .x_label_formatter(&|second| plain(*second))
        .y_label_formatter(&|count| plain(*count))
        .draw()?;
    for line in &lines {
        let style = line.colour.stroke_width(2);
        let points = line.points.iter().copied();
        chart.draw_series(LineSeries::new(points, style).point_size(3))?;
    }
    name(&lines, &names)
}

/// Says which line is which.
fn name(lines: &[Line], area: &Area<'_>) -> Drawn<()> {
    let mut y = 56;
    for line in lines {
        let style = line.colour.stroke_width(2);
        let stroke = [(0, y), (26, y)];
        match line.dash {
            None => area.draw(&PathElement::new(stroke, style))?,
            Some(dash) => {
                let dashed = DashedPathElement::new(stroke, dash, dash / 2, style);
                area.draw(&dashed)?;
            }
        }
        area.draw(&Text::new(line.name.clone(), (34, y - 7), label()))?;
        y += NAME_HEIGHT;
    }
    Ok(())
}

fn colour(number: usize) -> RGBColor {
    COLOURS[number % COLOURS.len()]
}

fn caption() -> TextStyle<'static> {
    (FONT, 19).into_font().color(&INK)
}

fn label() -> TextStyle<'static> {
    (FONT, 14).into_font().color(&INK)
}

/// How a rarity is usually called: one in a hundred is 99 %.
fn percentile(rarity: f64) -> String {
    let percent = 100.0 * (1.0 - 1.0 / rarity);
    // As many digits as there are nines.
    let digits = (rarity.log10().ceil() as usize).saturating_sub(2);
    format!("{percent:.digits$} %")
}

/// A number without digits that say nothing.
fn plain(number: f64) -> String {
    let text = format!("{number:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
