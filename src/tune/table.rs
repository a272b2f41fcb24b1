//! A calibration printed as a table.

use std::fmt;
use std::time::Duration;

use super::calibration::{Calibration, Outcome, SizeResult};

impl fmt::Display for Calibration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.key)?;
        for size in &self.sizes {
            writeln!(f)?;
            write_size(f, size, self.noise)?;
        }
        Ok(())
    }
}

fn write_size(f: &mut fmt::Formatter<'_>, size: &SizeResult, noise: f64) -> fmt::Result {
    let chosen = size.choose(noise, |_| true).map(|choice| choice.config);
    writeln!(
        f,
        "  {:<16} {:>5} {:>5} {:>12} {:>12} {:>12} {:>9}",
        Bytes(size.payload_bytes).to_string(),
        "depth",
        "batch",
        "median",
        "99th",
        "payloads/s",
        "GB/s"
    )?;
    for row in &size.rows {
        let config = row.config;
        let mark = if chosen == Some(config) { '*' } else { ' ' };
        write!(f, "{mark} {:<16} {:>5} {:>5}", config.route, config.depth, config.batch)?;
        match &row.outcome {
            Outcome::Measured(timing) => {
                let rate = timing.payloads_per_second();
                let gb_per_s = rate * size.payload_bytes as f64 / 1e9;
                let (median, p99) = (Micros(timing.median), Micros(timing.p99));
                writeln!(
                    f,
                    " {:>12} {:>12} {rate:>12.0} {gb_per_s:>9.1}",
                    median.to_string(),
                    p99.to_string()
                )?;
            }
            Outcome::Missing(missing) => writeln!(f, "  not supported: {missing}")?,
            Outcome::Failed(error) => writeln!(f, "  failed: {error}")?,
            Outcome::Skipped(reason) => writeln!(f, "  skipped: {reason}")?,
        }
    }
    Ok(())
}

struct Micros(Duration);

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} µs", self.0.as_secs_f64() * 1e6)
    }
}

/// A number of bytes, printed in the largest exact unit.
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match units.into_iter().find(|(unit, _)| self.0 > 0 && self.0.is_multiple_of(*unit)) {
            Some((unit, name)) => write!(f, "{} {name}", self.0 / unit),
            None => write!(f, "{} B", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::calibration::tests::calibration;
    use super::*;

    #[test]
    fn a_table_has_a_title_and_marks_the_choice() {
        let text = calibration().to_string();
        assert!(text.starts_with("Vulkan → CUDA on a GPU"), "{text}");
        let marked: Vec<_> = text.lines().filter(|line| line.starts_with('*')).collect();
        assert_eq!(marked.len(), 2, "{text}");
        assert!(marked[0].contains("in-queue") && marked[0].contains("10.0 µs"), "{text}");
        assert!(marked[1].contains("host-wait") && marked[1].contains("33.6"), "{text}");
        assert!(text.contains("64 KiB") && text.contains("16 MiB"), "{text}");
        assert!(text.contains("not supported: Vulkan lacks VK_NVX_binary_import"), "{text}");
    }

    #[test]
    fn bytes_are_printed_exactly() {
        let shown = |bytes| Bytes(bytes).to_string();
        assert_eq!(shown(3 << 30), "3 GiB");
        assert_eq!(shown((1 << 20) + 1024), "1025 KiB");
        assert_eq!((shown(17), shown(0)), ("17 B".into(), "0 B".into()));
    }
}
