//! Progress of long work, for a person at a terminal.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// The shortest time between two updates of the line.
const INTERVAL: Duration = Duration::from_millis(100);

/// A line on standard error that shows how much of the work is done and how long the rest will take. It is
/// removed when this is dropped. Shows nothing if standard error is not a terminal.
#[derive(Debug)]
pub struct Progress {
    shown: bool,
    started: Instant,
    drawn: Option<Instant>,
}

impl Progress {
    /// Starts the clock.
    pub fn start() -> Self {
        let shown = std::io::stderr().is_terminal();
        Self { shown, started: Instant::now(), drawn: None }
    }

    /// Shows that `done` of `total` steps of `what` are done.
    pub fn show(&mut self, what: &str, done: u64, total: u64) {
        let is_recent = self.drawn.is_some_and(|drawn| drawn.elapsed() < INTERVAL);
        if self.shown && !is_recent {
            self.drawn = Some(Instant::now());
            let line = line(what, done, total, self.started.elapsed());
            // To the beginning of the line, and erase what is to the right of the new text.
            eprint!("\r{line}\x1b[K");
            let _ = std::io::stderr().flush();
        }
    }
}

impl Progress {
    /// Prints a line on standard error, above the progress.
    pub fn note(&mut self, text: &str) {
        let erase = if self.drawn.take().is_some() { "\r\x1b[K" } else { "" };
        eprintln!("{erase}{text}");
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.drawn.is_some() {
            eprint!("\r\x1b[K");
        }
    }
}

fn line(what: &str, done: u64, total: u64, passed: Duration) -> String {
    let total = total.max(1);
    let percent = 100 * done.min(total) / total;
    let mut line = format!("{what} {percent:3} %");
    if (1..total).contains(&done) {
        let rest = passed.mul_f64((total - done) as f64 / done as f64);
        line += &format!(", {} s left", rest.as_secs().max(1));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_takes_as_long_for_each_step_as_what_is_done() {
        let passed = Duration::from_secs(10);
        assert_eq!(line("vulkan-gl", 1, 4, passed), "vulkan-gl  25 %, 30 s left");
        assert_eq!(line("vulkan-gl", 4, 4, passed), "vulkan-gl 100 %");
        assert_eq!(line("vulkan-gl", 0, 4, passed), "vulkan-gl   0 %");
        assert_eq!(line("frames", 0, 0, passed), "frames   0 %");
    }
}
