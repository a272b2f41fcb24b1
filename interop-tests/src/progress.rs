//! Progress of long work, for a person who waits at a terminal.

use std::io::IsTerminal as _;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar of `steps` on standard error, laid out by `template` (indicatif's), where that is a terminal;
/// nothing elsewhere. 0 steps where their number is told later.
pub fn bar(template: &str, steps: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(steps);
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        // A bar without its style is better than none.
        Err(_) => bar,
    }
}
