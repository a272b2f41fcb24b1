//! The lines of a chart, and how they look.

use plotters::style::RGBColor;

use super::report::{Report, Row};

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Look {
    pub(super) color: RGBColor,
    pub(super) width: u32,
    pub(super) dashed: bool,
}

/// A benchmark's line.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) name: String,
    /// Bytes and GB/s, the smallest payload first.
    pub(super) points: Vec<(u64, f64)>,
    pub(super) look: Look,
}

/// The lines of one path, the most important first.
pub(super) fn lines(report: &Report, path: &str) -> Vec<Line> {
    let rows = || report.rows.iter().filter(|row| row.path == path);
    let mut lines: Vec<(u32, Line)> = Vec::new();
    for row in rows().filter(|row| is_drawn(row)) {
        if lines.iter().any(|(_, line)| line.name == row.benchmark) {
            continue;
        }
        let of_benchmark = rows().filter(|other| other.benchmark == row.benchmark);
        let mut points: Vec<_> =
            of_benchmark.map(|row| (row.payload_bytes, row.gb_per_s)).collect();
        points.sort_by_key(|point| point.0);
        let (rank, look) = look(row);
        lines.push((rank, Line { name: row.benchmark.clone(), points, look }));
    }
    lines.sort_by_key(|(rank, _)| *rank);
    lines.into_iter().map(|(_, line)| line).collect()
}

/// Whether a benchmark has a line: the controls would coincide with the lines that they control, and one
/// ring with batches per depth is enough.
fn is_drawn(row: &Row) -> bool {
    let batch = row.benchmark.split_once('x').and_then(|(_, batch)| batch.parse::<u32>().ok());
    !row.benchmark.starts_with("raw-") && batch.is_none_or(|batch| 2 * batch == row.depth)
}

/// Black for the single API, green for one queue, blue for rings (the deeper the darker), violet for rings
/// with batches, warm colours for the rest.
fn look(row: &Row) -> (u32, Look) {
    let plain =
        |rank, (r, g, b)| (rank, Look { color: RGBColor(r, g, b), width: 2, dashed: false });
    let benchmark = row.benchmark.as_str();
    if benchmark == row.single_api {
        return (0, Look { color: RGBColor(0, 0, 0), width: 3, dashed: false });
    }
    let is_batched = benchmark.starts_with("ring-") && benchmark.contains('x');
    match benchmark {
        "in-queue-16" => plain(1, (0, 120, 60)),
        "in-queue-1" => plain(2, (90, 190, 110)),
        "semaphore" => plain(5, (235, 120, 0)),
        "host-wait-spin" => plain(6, (215, 50, 60)),
        "host-wait-block" => plain(7, (240, 150, 150)),
        "host-copy" => plain(8, (130, 85, 50)),
        _ if is_batched => plain(3, shade(row.depth, (205, 170, 230), (95, 20, 140))),
        _ if benchmark.starts_with("ring-") => {
            plain(4, shade(row.depth, (165, 205, 240), (10, 60, 150)))
        }
        _ => (9, Look { color: RGBColor(120, 120, 120), width: 2, dashed: true }),
    }
}

/// Between `light`, for a ring of two, and `dark`, for one of 32 or more.
fn shade(depth: u32, light: (u8, u8, u8), dark: (u8, u8, u8)) -> (u8, u8, u8) {
    let share = f64::from(depth.clamp(2, 32)).log2() / 4.0 - 0.25;
    let mix = |a: u8, b: u8| (f64::from(a) + (f64::from(b) - f64::from(a)) * share).round() as u8;
    (mix(light.0, dark.0), mix(light.1, dark.1), mix(light.2, dark.2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::made_up;

    #[test]
    fn lines_begin_with_the_single_api_and_leave_out_the_raw_calls() {
        let mut report = made_up();
        report.rows[1].benchmark = "raw-semaphore".into();
        let batched =
            |batch: u32| Row { benchmark: format!("ring-8x{batch}"), ..report.rows[4].clone() };
        let batched = [batched(4), batched(2)];
        report.rows.extend(batched);
        report.rows.reverse();
        let lines = lines(&report, "vulkan-cuda");
        let names: Vec<_> = lines.iter().map(|line| line.name.as_str()).collect();
        assert_eq!(names, ["cuda-alone", "ring-8x4", "ring-8", "semaphore"]);
        assert!(lines[0].points.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert_eq!(lines[2].points.len(), 4);
    }

    #[test]
    fn deeper_rings_are_darker() {
        let light = (200, 200, 200);
        assert_eq!(shade(2, light, (0, 0, 0)), light);
        assert_eq!(shade(8, light, (0, 0, 0)), (100, 100, 100));
        assert_eq!(shade(64, light, (0, 0, 0)), (0, 0, 0));
    }
}
