//! The page of one run, and what differs from an older report.

use super::cells::{Column, Matrix, Names, by_pair, list};
use super::compare;
use super::html::{self, Text, push};
use crate::harness::report::Report;

/// What a report states about the run, above its cases.
pub(super) fn facts(report: &Report) -> String {
    let Report { library, device, apis, validated, descriptors, seconds, totals, cases } = report;
    let known = |text: &str| if text.is_empty() { "not recorded".into() } else { text.to_owned() };
    let apis: Vec<_> = apis
        .iter()
        .map(|state| match &state.absent {
            None => state.api.clone(),
            Some(reason) => format!("no {} ({reason})", state.api),
        })
        .collect();
    let took = if *seconds > 0.0 { format!("{seconds:.0} s") } else { known("") };
    let mut html = String::from("<dl>\n");
    for (term, text) in [
        ("GPU", format!("{} ({})", device.name, device.uuid)),
        ("driver", device.driver.clone()),
        ("APIs", apis.join(", ")),
        ("gpu-interop", known(library)),
        ("validation layer", if *validated { "enabled" } else { "not enabled" }.into()),
        ("cases", format!("{}: {totals}", cases.len())),
        ("file descriptors", format!("{} before, {} after", descriptors.before, descriptors.after)),
        ("time", took),
    ] {
        push!(html, "<dt>{term}</dt><dd>{}</dd>\n", Text(&text));
    }
    html.push_str("</dl>\n");
    html
}

/// A report as a column: its GPU and driver.
pub(super) fn column<'a>(report: &'a Report, name: &str) -> Column<'a> {
    let (device, driver) = (Text(&report.device.name), Text(&report.device.driver));
    let heading = format!("{}<small>{device}</small><small>{driver}</small>", Text(name));
    Column {
        heading,
        name: format!("{name}: {}", report.device.name),
        cases: report.cases.iter().collect(),
    }
}

/// The whole page.
pub(crate) fn page(report: &Report, older: Option<&Report>) -> String {
    let mut body = facts(report);
    let failed: Vec<_> = report.cases.iter().filter(|case| case.verdict.is_failure()).collect();
    if !failed.is_empty() {
        push!(body, "<h2>Failures</h2>\n{}", list(&failed, Names::All));
    }
    if let Some(older) = older {
        body.push_str("<h2>Compared with an older report</h2>\n");
        let columns = vec![column(older, "older"), column(report, "newer")];
        let matrix = Matrix::new(false, columns);
        body.push_str(&matrix.table(false));
        body.push_str(&compare::section(older, report));
    }
    let matrix = Matrix::new(true, by_pair(&report.cases));
    body.push_str("<h2>Families and pairs of APIs</h2>\n<p>The number of cases that passed, with a link to the names and reasons of all.</p>\n");
    push!(body, "{}{}", matrix.table(true), matrix.lists(Names::All));
    html::page(&format!("gpu-interop conformance: {}", report.device.name), &body)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::harness::report::{DescriptorCounts, Entry, Totals, Verdict};
    use crate::harness::{ApiState, Device};

    /// A report of cases that have the reason "why".
    pub(in crate::pages) fn report(cases: &[(&str, Verdict)]) -> Report {
        let entry = |&(name, verdict): &(&str, Verdict)| Entry {
            name: name.into(),
            verdict,
            reason: (verdict != Verdict::Passed).then(|| "why".into()),
            seconds: 0.5,
            descriptors: None,
        };
        let cases: Vec<_> = cases.iter().map(entry).collect();
        let device = Device { name: "a <GPU>".into(), uuid: "0".into(), driver: "1 & 2".into() };
        let apis = vec![ApiState { api: "cuda".into(), absent: Some("no libcuda".into()) }];
        Report {
            library: "0.1.0".into(),
            device,
            apis,
            validated: true,
            descriptors: DescriptorCounts::default(),
            seconds: 61.0,
            totals: Totals::of(&cases),
            cases,
        }
    }

    #[test]
    fn the_page_names_the_run_and_its_failures() {
        let older = report(&[("vulkan→gl/a/31", Verdict::Passed)]);
        let newer =
            report(&[("vulkan→gl/a/31", Verdict::Crashed), ("cuda/b/50", Verdict::Skipped)]);
        let alone = page(&newer, None);
        for part in [
            "a &lt;GPU&gt;",
            "1 &amp; 2",
            "0.1.0",
            "no cuda (no libcuda)",
            "61 s",
            "<h2>Failures</h2>",
            "1 crashed",
        ] {
            assert!(alone.contains(part), "{part}: {alone}");
        }
        assert!(!alone.contains("Compared with") && !alone.contains("<GPU>"), "{alone}");
        let compared = page(&newer, Some(&older));
        assert!(compared.contains("1 regressions"), "{compared}");
        assert!(!page(&older, None).contains("<h2>Failures</h2>"));
    }

    /// Each link leads to an identifier of the page, and none occurs twice.
    #[test]
    fn every_link_leads_to_a_list() {
        let newer =
            report(&[("vulkan→gl/a/31", Verdict::Passed), ("ipc/hostile/b/60", Verdict::Skipped)]);
        let page = page(&newer, Some(&newer));
        let after = |mark: &'static str| {
            page.split(mark).skip(1).filter_map(|rest| rest.split('"').next()).collect::<Vec<_>>()
        };
        let (links, mut identifiers) = (after("href=\"#"), after("id=\""));
        assert_eq!(links, identifiers);
        assert_eq!(links.len(), 2);
        identifiers.dedup();
        assert_eq!(identifiers.len(), 2);
    }
}
