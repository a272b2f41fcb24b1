//! What differs between two reports: of two runs, or of two drivers.

use std::collections::{HashMap, HashSet};

use super::html::{Text, push};
use crate::harness::report::{Entry, Report, Verdict};

/// A case whose verdict is not the same in both reports, or that is only in one of them.
#[derive(Clone, Copy)]
struct Change<'a> {
    older: Option<&'a Entry>,
    newer: Option<&'a Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Regression,
    Fix,
    NoLongerRuns,
    NowRuns,
    Added,
    Removed,
}

const KINDS: [(Kind, &str); 6] = [
    (Kind::Regression, "regressions"),
    (Kind::Fix, "fixes"),
    (Kind::NoLongerRuns, "no longer run"),
    (Kind::NowRuns, "now run"),
    (Kind::Added, "only in the newer report"),
    (Kind::Removed, "only in the older report"),
];

impl Change<'_> {
    /// What kind of difference it is; `None` if the verdict is the same, or fails in another way.
    fn kind(&self) -> Option<Kind> {
        use Verdict::{ExpectedFailure, Passed, Skipped};
        let verdict = |entry: Option<&Entry>| entry.map(|entry| entry.verdict);
        let (older, newer) = (verdict(self.older), verdict(self.newer));
        let is_failure = |verdict: Option<Verdict>| verdict.is_some_and(Verdict::is_failure);
        match (older, newer) {
            _ if is_failure(newer) => (!is_failure(older)).then_some(Kind::Regression),
            (None, _) => Some(Kind::Added),
            (_, None) => Some(Kind::Removed),
            (Some(older), Some(newer)) if older == newer => None,
            (_, Some(Skipped)) => Some(Kind::NoLongerRuns),
            (Some(Skipped), _) => Some(Kind::NowRuns),
            (Some(Passed), Some(ExpectedFailure)) => Some(Kind::Regression),
            _ => Some(Kind::Fix),
        }
    }

    fn name(&self) -> &str {
        self.newer.or(self.older).map_or("", |entry| &entry.name)
    }

    /// Both verdicts, and the reason of the one that is not a pass.
    fn text(&self) -> String {
        let verdict = |entry: Option<&Entry>| {
            entry.map_or("absent".into(), |entry| entry.verdict.to_string())
        };
        let reason = |entry: Option<&Entry>| entry.and_then(|entry| entry.reason.clone());
        let reason = reason(self.newer).or_else(|| reason(self.older));
        let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        format!("{} → {}{reason}", verdict(self.older), verdict(self.newer))
    }
}

/// The changes of each kind, in the order of the newer report.
fn changes<'a>(older: &'a Report, newer: &'a Report) -> Vec<(Kind, &'static str, Vec<Change<'a>>)> {
    let before: HashMap<_, _> = older.cases.iter().map(|entry| (&*entry.name, entry)).collect();
    let now: HashSet<_> = newer.cases.iter().map(|entry| &*entry.name).collect();
    let of_newer = newer
        .cases
        .iter()
        .map(|entry| Change { older: before.get(&*entry.name).copied(), newer: Some(entry) });
    let gone = older.cases.iter().filter(|entry| !now.contains(&*entry.name));
    let gone = gone.map(|entry| Change { older: Some(entry), newer: None });
    let mut found = KINDS.map(|(kind, title)| (kind, title, Vec::new()));
    for change in of_newer.chain(gone) {
        let Some(kind) = change.kind() else { continue };
        let list = found.iter_mut().find(|(of, ..)| *of == kind);
        list.into_iter().for_each(|(.., list)| list.push(change));
    }
    found.into()
}

/// The number of changes, and the regressions and fixes by name.
pub(crate) fn text(older: &Report, newer: &Report) -> String {
    let found = changes(older, newer);
    let counts: Vec<_> =
        found.iter().map(|(_, title, list)| format!("{} {title}", list.len())).collect();
    let mut text = format!("{}\n", counts.join(", "));
    for (kind, title, list) in found {
        if matches!(kind, Kind::Regression | Kind::Fix) && !list.is_empty() {
            push!(text, "{title}:\n");
            list.iter()
                .for_each(|change| push!(text, "    {}: {}\n", change.name(), change.text()));
        }
    }
    text
}

/// The same as HTML, with all names.
pub(super) fn section(older: &Report, newer: &Report) -> String {
    let mut html = String::new();
    for (kind, title, list) in changes(older, newer) {
        let open = if kind == Kind::Regression && !list.is_empty() { " open" } else { "" };
        push!(html, "<details{open}><summary>{} {title}</summary>\n", list.len());
        let mut texts: Vec<(String, Vec<&str>)> = Vec::new();
        for change in &list {
            let (text, name) = (change.text(), change.name());
            match texts.iter_mut().find(|(known, _)| *known == text) {
                Some((_, names)) => names.push(name),
                None => texts.push((text, vec![name])),
            }
        }
        for (text, names) in texts {
            push!(html, "<p class=\"reason\">{}</p>\n", Text(&text));
            push!(html, "<p class=\"names\">{}</p>\n", Text(&names.join("\n")));
        }
        html.push_str("</details>\n");
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::run::tests::report;

    #[test]
    fn changes_are_regressions_fixes_or_neither() {
        use Verdict::{Crashed, ExpectedFailure, Failed, Passed, Skipped, TimedOut};
        let all = [Passed, Failed, Crashed, TimedOut, Skipped, ExpectedFailure];
        for older in all {
            for newer in all {
                let (before, after) = (report(&[("a/1", older)]), report(&[("a/1", newer)]));
                let change = Change { older: before.cases.first(), newer: after.cases.first() };
                let expected = match (older, newer) {
                    _ if older == newer || (older.is_failure() && newer.is_failure()) => None,
                    (_, Failed | Crashed | TimedOut) | (Passed, ExpectedFailure) => {
                        Some(Kind::Regression)
                    }
                    (_, Skipped) => Some(Kind::NoLongerRuns),
                    (Skipped, _) => Some(Kind::NowRuns),
                    _ => Some(Kind::Fix),
                };
                assert_eq!(change.kind(), expected, "{older} → {newer}");
            }
        }
    }

    #[test]
    fn differences_are_named() {
        let older = report(&[
            ("a/1", Verdict::Passed),
            ("b/1", Verdict::Failed),
            ("gone/1", Verdict::Passed),
        ]);
        let newer = report(&[
            ("a/1", Verdict::TimedOut),
            ("b/1", Verdict::Passed),
            ("new/1", Verdict::Passed),
        ]);
        let text = text(&older, &newer);
        assert!(
            text.starts_with(
                "1 regressions, 1 fixes, 0 no longer run, 0 now run, 1 only in the newer"
            ),
            "{text}"
        );
        assert!(text.contains("    a/1: passed → timed out: why\n"), "{text}");
        assert!(text.contains("    b/1: failed → passed: why\n"), "{text}");
        let section = section(&older, &newer);
        assert!(section.contains("<details open><summary>1 regressions"), "{section}");
        assert!(section.contains("new/1") && section.contains("gone/1"), "{section}");
    }
}
