//! The suite's own options, beside those of libtest.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use super::report::{self, Report};
use crate::pages;

const HELP: &str = "\
Options of the suite:
    --report FILE    write a report as JSON: name, verdict and reason of every case
    --html FILE      write the report as a page that needs no other file
    --compare FILE   list what differs from this older report, on the page too
    --from FILE      don't run cases: use this report instead of a new one

Options of libtest:
";

/// What to write, and what to compare with.
#[derive(Debug, Default)]
pub(super) struct Options {
    report: Option<PathBuf>,
    html: Option<PathBuf>,
    compare: Option<(PathBuf, Report)>,
    from: Option<PathBuf>,
}

impl Options {
    /// Takes the suite's options out of the command line, and returns the other arguments.
    ///
    /// # Errors
    /// If a file's name is missing, or `--compare` names no report.
    pub(super) fn take(arguments: impl Iterator<Item = String>) -> Result<(Self, Vec<String>)> {
        let (mut options, mut others) = (Self::default(), Vec::new());
        let mut arguments = arguments.peekable();
        let mut compare = None;
        while let Some(argument) = arguments.next() {
            let (name, attached) = match argument.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (&*argument, None),
            };
            let slot = match name {
                "--report" => &mut options.report,
                "--html" => &mut options.html,
                "--compare" => &mut compare,
                "--from" => &mut options.from,
                _ => {
                    if matches!(name, "--help" | "-h") {
                        print!("{HELP}");
                    }
                    others.push(argument);
                    continue;
                }
            };
            let value = attached.or_else(|| arguments.next_if(|next| !next.starts_with("--")));
            *slot = Some(value.with_context(|| format!("{name} needs the name of a file"))?.into());
        }
        if options.report.is_none() {
            options.report = std::env::var_os("INTEROP_REPORT").map(PathBuf::from);
        }
        // Now: a run takes minutes.
        if let Some(path) = compare {
            let older = Report::read(&path)?;
            options.compare = Some((path, older));
        }
        Ok((options, others))
    }

    /// Returns the report to use instead of a run, if any.
    ///
    /// # Errors
    /// If the file can't be read.
    pub(super) fn given(&self) -> Result<Option<Report>> {
        let Some(path) = &self.from else { return Ok(None) };
        ensure!(self.html.is_some() || self.compare.is_some(), "--from needs --html or --compare");
        Report::read(path).map(Some)
    }

    /// Writes the files, and prints what differs from the older report.
    ///
    /// # Errors
    /// If a file can't be written.
    pub(super) fn publish(&self, report: &Report) -> Result<()> {
        if let Some(path) = &self.report {
            report.write(path)?;
        }
        let older = self.compare.as_ref().map(|(_, older)| older);
        if let Some(path) = &self.html {
            report::write(path, &pages::run::page(report, older))?;
        }
        if let Some((path, older)) = &self.compare {
            print!("compared with {}: {}", path.display(), pages::compare::text(older, report));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(arguments: &[&str]) -> Result<(Options, Vec<String>)> {
        Options::take(arguments.iter().map(|&argument| argument.to_owned()))
    }

    #[test]
    fn the_suites_options_are_taken_out() {
        let (options, others) =
            take(&["gl", "--html", "a.html", "--from=b.json", "--exact"]).unwrap();
        assert_eq!(options.html, Some("a.html".into()));
        assert_eq!(options.from, Some("b.json".into()));
        assert_eq!(others, ["gl", "--exact"]);
    }

    #[test]
    fn an_option_without_its_file_is_refused() {
        for arguments in [&["--html"][..], &["--html", "--exact"], &["--compare", "/missing"]] {
            assert!(take(arguments).is_err(), "{arguments:?}");
        }
    }
}
