//! The page that merges all committed reports: what works on which driver.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::cells::{Matrix, Names};
use super::html::{self, Text, push};
use super::run::{column, facts};
use crate::harness::report::Report;

/// Where the page is, from the repository's root.
pub const PAGE: &str = "docs/conformance.html";

/// Returns the page of the reports `conformance-NAME.json` in a folder.
///
/// # Errors
/// If a report can't be read, or the folder has no report.
pub fn record(folder: &Path) -> Result<String> {
    let mut reports = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let file = path.file_name().and_then(|name| name.to_str()).context("a name in UTF-8")?;
        let name = file.strip_prefix("conformance-").and_then(|name| name.strip_suffix(".json"));
        if let Some(name) = name {
            reports.push((name.to_owned(), file.to_owned(), Report::read(&path)?));
        }
    }
    ensure!(!reports.is_empty(), "{} contains no report", folder.display());
    reports.sort_by(|(one, ..), (other, ..)| one.cmp(other));

    let columns = reports.iter().map(|(name, _, report)| column(report, name)).collect();
    let matrix = Matrix::new(true, columns);
    let mut body = String::from(
        "<p>What the conformance suite found on each driver: the number of cases that passed, with a link to the \
         reasons of the others. Skipped cases need something that the driver or the machine lacks. Expected failures \
         are known bugs of the driver. Older reports have fewer cases, because the suite has grown.</p>\n",
    );
    body.push_str(&matrix.table(false));
    for (name, file, report) in &reports {
        push!(body, "<h2>{}</h2>\n{}", Text(name), facts(report));
        push!(
            body,
            "<p><a href=\"../interop-tests/results/{0}\">{0}</a> lists every case.</p>\n",
            Text(file)
        );
    }
    body.push_str(&matrix.lists(Names::Failures));
    Ok(html::page("gpu-interop conformance", &body))
}
