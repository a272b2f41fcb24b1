//! Draws a report as a chart: throughput over payload size, one line per benchmark.

use std::path::Path;

use anyhow::{Context, Result};
use plotters::coord::Shift;
use plotters::prelude::*;

use super::lines::{Line, Look, lines};
use super::report::Report;
use interop_gpu::size::human;

/// Pixels of the chart of one path.
const WIDTH: u32 = 1180;
const HEIGHT: u32 = 640;
/// Pixels of the legend.
const LEGEND: u32 = 270;
const INK: RGBColor = RGBColor(40, 40, 40);
const FAINT: RGBColor = RGBColor(225, 225, 225);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws `report` into an SVG file: one chart per path, with one line per benchmark, and the memory's limit
/// if `peak_gb_per_s` is given.
///
/// # Errors
/// For a report without rows, and if the file can't be written.
pub fn plot(report: &Report, peak_gb_per_s: Option<f64>, file: &Path) -> Result<()> {
    let mut paths: Vec<&str> = Vec::new();
    for row in &report.rows {
        if !paths.contains(&&*row.path) {
            paths.push(&row.path);
        }
    }
    let count = u32::try_from(paths.len())?;
    anyhow::ensure!(count > 0, "the report has no rows to draw");
    let root = SVGBackend::new(file, (WIDTH, HEIGHT * count)).into_drawing_area();
    root.fill(&WHITE).with_context(|| file.display().to_string())?;
    for (path, area) in paths.into_iter().zip(root.split_evenly((count as usize, 1))) {
        let title = format!("{path} on {}", report.device);
        draw(&area, &title, &lines(report, path), peak_gb_per_s)
            .map_err(|error| anyhow::anyhow!("{error}"))?;
    }
    root.present().with_context(|| file.display().to_string())
}

fn draw(
    area: &Area<'_>,
    title: &str,
    lines: &[Line],
    peak: Option<f64>,
) -> Result<(), Box<dyn std::error::Error>> {
    let (chart_area, legend_area) = area.split_horizontally(WIDTH - LEGEND);
    let points = || lines.iter().flat_map(|line| &line.points);
    let mut sizes: Vec<u64> = points().map(|point| point.0).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let smallest = sizes.first().copied().unwrap_or(1) as f64;
    let largest = sizes.last().copied().unwrap_or(2) as f64;
    let highest = points().map(|point| point.1).chain(peak).fold(0.0, f64::max);
    // Some room at both ends for the marks.
    let xs = (smallest / 1.3..largest.max(smallest * 2.0) * 1.3).log_scale();
    let xs = xs.with_key_points(sizes.iter().map(|&size| size as f64).collect());
    let mut chart = ChartBuilder::on(&chart_area)
        .caption(title, ("sans-serif", 24).into_font().color(&INK))
        .margin(14)
        .x_label_area_size(52)
        .y_label_area_size(78)
        .build_cartesian_2d(xs, 0.0..highest * 1.04)?;
    let label = ("sans-serif", 15).into_font().color(&INK);
    chart
        .configure_mesh()
        .bold_line_style(FAINT)
        .light_line_style(TRANSPARENT)
        .axis_style(INK)
        .x_desc("size of a payload")
        .y_desc("GB/s, read and written by both kernels of a pair")
        .axis_desc_style(("sans-serif", 16).into_font().color(&INK))
        .x_label_formatter(&|bytes| human(bytes.round() as u64))
        .y_label_formatter(&|value| format!("{value:.0}"))
        .label_style(label)
        .draw()?;
    if let Some(peak) = peak {
        let ends = [(smallest / 1.3, peak), (largest * 1.3, peak)];
        chart.draw_series(DashedLineSeries::new(ends, 9, 6, INK.stroke_width(1)))?;
    }
    // The most important last, so that it is on top.
    for Line { points, look, .. } in lines.iter().rev() {
        let points = points.iter().map(|&(bytes, value)| (bytes as f64, value));
        let style = look.color.stroke_width(look.width);
        if look.dashed {
            chart.draw_series(DashedLineSeries::new(points.clone(), 6, 4, style))?;
        } else {
            chart.draw_series(LineSeries::new(points.clone(), style))?;
        }
        let mark = |point| Circle::new(point, look.width + 1, look.color.filled());
        chart.draw_series(points.map(mark))?;
    }
    draw_legend(&legend_area, lines, peak)
}

/// Draws the legend, ordered by the lines' right ends, highest first.
fn draw_legend(
    area: &Area<'_>,
    lines: &[Line],
    peak: Option<f64>,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut entries: Vec<(String, f64, Look)> = lines
        .iter()
        .filter_map(|line| Some((line.name.clone(), line.points.last()?.1, line.look)))
        .collect();
    if let Some(peak) = peak {
        let look = Look { color: INK, width: 1, dashed: true };
        entries.push(("the memory's limit".into(), peak, look));
    }
    entries.sort_by(|a, b| b.1.total_cmp(&a.1));
    let text = ("sans-serif", 15).into_font().color(&INK);
    let head = ("sans-serif", 13).into_font().color(&RGBColor(110, 110, 110));
    area.draw(&Text::new("at the largest size, GB/s", (4, 42), head))?;
    let right = plotters::style::text_anchor::Pos::new(
        plotters::style::text_anchor::HPos::Right,
        plotters::style::text_anchor::VPos::Top,
    );
    let step = ((HEIGHT as i32 - 90) / entries.len().max(1) as i32).min(26);
    for (index, (name, value, look)) in entries.iter().enumerate() {
        let y = 66 + step * index as i32;
        let sample = [(4, y + 7), (38, y + 7)];
        let style = look.color.stroke_width(look.width);
        if look.dashed {
            for x in [4, 18, 32] {
                area.draw(&PathElement::new(vec![(x, y + 7), (x + 8, y + 7)], style))?;
            }
        } else {
            area.draw(&PathElement::new(sample.to_vec(), style))?;
        }
        area.draw(&Text::new(name.clone(), (48, y), text.clone()))?;
        let value = if *value < 100.0 { format!("{value:.1}") } else { format!("{value:.0}") };
        area.draw(&Text::new(value, (LEGEND as i32 - 24, y), text.clone().pos(right)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::made_up;

    fn drawn(report: &Report, peak: Option<f64>) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        plot(report, peak, file.path()).unwrap();
        std::fs::read_to_string(file.path()).unwrap()
    }

    #[test]
    fn every_benchmark_is_a_line_and_every_size_a_mark() {
        let report = made_up();
        let svg = drawn(&report, Some(4800.0));
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        for text in ["cuda-alone", "ring-8", "semaphore", "64 KiB", "1 GiB", "s limit"] {
            assert!(svg.contains(text), "{text}");
        }
        assert_eq!(svg.matches("<circle").count(), report.rows.len());
        assert!(!drawn(&report, None).contains("s limit"));
    }

    #[test]
    fn higher_throughput_is_drawn_higher() {
        let report = made_up();
        let svg = drawn(&report, None);
        let heights: Vec<f64> = svg
            .split("<circle")
            .skip(1)
            .filter_map(|circle| circle.split("cy=\"").nth(1)?.split('"').next()?.parse().ok())
            .collect();
        // The single API is drawn last, and smallest sizes first: each is higher than the one before.
        let single = &heights[heights.len() - 5..];
        assert!(single.windows(2).all(|pair| pair[0] > pair[1]), "{single:?}");
    }

    #[test]
    fn each_path_has_a_chart_of_its_own_and_nothing_is_no_chart() {
        let mut report = made_up();
        let mut others = report.rows.clone();
        others.iter_mut().for_each(|row| row.path = "vulkan-gl".into());
        report.rows.extend(others);
        let svg = drawn(&report, None);
        assert!(svg.contains("vulkan-cuda on A GPU") && svg.contains("vulkan-gl on A GPU"));
        report.rows.clear();
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(plot(&report, None, file.path()).is_err());
    }
}
