//! A matrix of families, whose cells count cases and link to lists of them.

use super::html::{Text, push};
use crate::harness::report::{Entry, Totals, Verdict};
use crate::matrix::{families, family_of};

/// The columns of a run: the APIs that share a payload.
const PAIRS: [&str; 8] = [
    "Vulkan–Vulkan",
    "Vulkan–OpenGL",
    "Vulkan–CUDA",
    "OpenGL–CUDA",
    "CUDA–CUDA",
    "all three",
    "one API",
    "processes",
];

/// Returns the column of a case, by the first part of its name: `vulkan→gl→vulkan`, `vulkan→cuda+gl`, `ipc`.
pub(super) fn pair(name: &str) -> &'static str {
    let path = name.split('/').next().unwrap_or_default();
    let visited: Vec<_> = path.split(['→', '+']).collect();
    let visits = |api| visited.contains(&api);
    match (visits("vulkan"), visits("gl"), visits("cuda")) {
        _ if path == "ipc" => "processes",
        _ if path == "all" => "all three",
        (true, true, true) => "all three",
        (true, true, false) => "Vulkan–OpenGL",
        (true, false, true) => "Vulkan–CUDA",
        (false, true, true) => "OpenGL–CUDA",
        (true, false, false) if path.matches("vulkan").count() > 1 => "Vulkan–Vulkan",
        (false, false, true) if path.matches("cuda").count() > 1 => "CUDA–CUDA",
        _ => "one API",
    }
}

/// Which names a list contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    All,
    /// Those of cases that failed, expected or not. The others are counted.
    Failures,
}

/// A column: its heading as HTML, its name for lists, and its cases.
pub(super) struct Column<'a> {
    pub(super) heading: String,
    pub(super) name: String,
    pub(super) cases: Vec<&'a Entry>,
}

impl Column<'_> {
    /// A column with one name.
    fn named(name: &str) -> Self {
        Self { heading: Text(name).to_string(), name: name.into(), cases: Vec::new() }
    }
}

/// Returns the cases of a run as columns of pairs.
pub(super) fn by_pair(cases: &[Entry]) -> Vec<Column<'_>> {
    let mut columns: Vec<_> = PAIRS.into_iter().map(Column::named).collect();
    for case in cases {
        let name = pair(&case.name);
        let column = columns.iter_mut().find(|column| column.name == name);
        column.into_iter().for_each(|column| column.cases.push(case));
    }
    columns.retain(|column| !column.cases.is_empty());
    columns
}

/// A family, as a row.
struct Row {
    letter: &'static str,
    subject: String,
    /// Its cases in each column.
    cells: Vec<Vec<usize>>,
}

/// Families as rows, columns, and the cases in each cell.
pub(super) struct Matrix<'a> {
    /// Whether its cells link to lists.
    is_linked: bool,
    columns: Vec<Column<'a>>,
    rows: Vec<Row>,
}

impl<'a> Matrix<'a> {
    pub(super) fn new(is_linked: bool, columns: Vec<Column<'a>>) -> Self {
        let families = families();
        let names = families.iter().map(|family| (family.letter, family.subject.replace('`', "")));
        let row = |(letter, subject)| {
            let cells = vec![Vec::new(); columns.len()];
            Row { letter, subject, cells }
        };
        // Reports of other versions may contain rows that the matrix no longer has.
        let mut rows: Vec<_> = names.chain([("–", "Others".to_owned())]).map(row).collect();
        for (at, column) in columns.iter().enumerate() {
            for (number, case) in column.cases.iter().enumerate() {
                let letter = family_of(&case.name, &families).map_or("–", |family| family.letter);
                let row = rows.iter_mut().find(|row| row.letter == letter);
                row.into_iter().for_each(|row| row.cells[at].push(number));
            }
        }
        rows.retain(|row| row.cells.iter().any(|cell| !cell.is_empty()));
        Self { is_linked, columns, rows }
    }

    fn cases(&self, row: &Row, at: usize) -> Vec<&'a Entry> {
        row.cells[at].iter().map(|&number| self.columns[at].cases[number]).collect()
    }

    /// Identifies the list of a cell.
    fn id(row: &Row, at: usize) -> String {
        format!("{}{at}", if row.letter == "–" { "x" } else { row.letter })
    }

    /// The table. With `sums`, a last column adds up each row.
    pub(super) fn table(&self, sums: bool) -> String {
        let mut html = String::from("<div class=\"wide\"><table>\n<thead><tr><th>family</th>");
        self.columns.iter().for_each(|column| push!(html, "<th>{}</th>", column.heading));
        html.push_str(if sums {
            "<th>all</th></tr></thead>\n<tbody>\n"
        } else {
            "</tr></thead>\n<tbody>\n"
        });
        for row in &self.rows {
            push!(html, "<tr><th>{} {}</th>", row.letter, Text(&row.subject));
            let mut all = Vec::new();
            for at in 0..self.columns.len() {
                let cases = self.cases(row, at);
                let id = self.is_linked.then(|| Self::id(row, at));
                html.push_str(&cell(&cases, id));
                all.extend(cases);
            }
            html.push_str(&if sums { cell(&all, None) } else { String::new() });
            html.push_str("</tr>\n");
        }
        html.push_str("</tbody>\n<tfoot><tr><th>all</th>");
        let columns = self.columns.iter().map(|column| &column.cases);
        columns.clone().for_each(|cases| html.push_str(&cell(cases, None)));
        if sums {
            let all: Vec<_> = columns.flatten().copied().collect();
            html.push_str(&cell(&all, None));
        }
        html.push_str("</tr></tfoot>\n</table></div>\n");
        html
    }

    /// The lists that the cells link to.
    pub(super) fn lists(&self, names: Names) -> String {
        let mut html = String::new();
        for (at, column) in self.columns.iter().enumerate() {
            push!(html, "<h2>{}</h2>\n", Text(&column.name));
            for row in self.rows.iter().filter(|row| !row.cells[at].is_empty()) {
                let cases = self.cases(row, at);
                let (id, subject) = (Self::id(row, at), Text(&row.subject));
                push!(
                    html,
                    "<details><summary>{} {subject} <small>{}</small></summary><div id=\"{id}\">\n{}</div></details>\n",
                    row.letter,
                    counts(&cases),
                    list(&cases, names)
                );
            }
        }
        html
    }
}

/// The numbers of a cell, its colour, and its link to a list.
fn cell(cases: &[&Entry], id: Option<String>) -> String {
    let totals = Totals::of(cases.iter().copied());
    let failures = totals.failures();
    let Totals { passed, skipped, expected_failures, .. } = totals;
    let class = match (failures, expected_failures, passed, skipped) {
        (0, 0, 0, 0) => return "<td></td>".into(),
        (0, 0, passed, skipped) if passed < skipped => "skip",
        (0, 0, ..) => "pass",
        (0, ..) => "known",
        _ => "fail",
    };
    let (open, close) = match id {
        Some(id) => (format!("<a href=\"#{id}\">"), "</a>"),
        None => ("<span>".into(), "</span>"),
    };
    let mut html = format!("<td class=\"{class}\">{open}");
    match passed {
        0 => html.push('–'),
        some => push!(html, "<b>{some}</b>"),
    }
    for (class, count, what) in [
        ("fail", failures, "failed"),
        ("known", expected_failures, "expected"),
        ("", skipped, "skipped"),
    ] {
        if count > 0 {
            push!(html, "<small class=\"{class}\">{count} {what}</small>");
        }
    }
    html.push_str(close);
    html.push_str("</td>");
    html
}

const ORDER: [Verdict; 6] = [
    Verdict::Failed,
    Verdict::Crashed,
    Verdict::TimedOut,
    Verdict::ExpectedFailure,
    Verdict::Skipped,
    Verdict::Passed,
];

/// A number of cases, in words.
fn counted(count: usize, verdict: Verdict) -> String {
    let plural = if verdict == Verdict::ExpectedFailure && count != 1 { "s" } else { "" };
    format!("{count} {verdict}{plural}")
}

/// The number of cases per verdict, in words.
fn counts(cases: &[&Entry]) -> String {
    let count = |verdict| cases.iter().filter(|case| case.verdict == verdict).count();
    let some = ORDER.iter().rev().map(|&verdict| (count(verdict), verdict));
    let words =
        some.filter(|(count, _)| *count > 0).map(|(count, verdict)| counted(count, verdict));
    words.collect::<Vec<_>>().join(", ")
}

/// Cases by verdict and reason.
pub(super) fn list(cases: &[&Entry], names: Names) -> String {
    let mut html = String::new();
    for verdict in ORDER {
        let of_verdict: Vec<_> = cases.iter().filter(|case| case.verdict == verdict).collect();
        if of_verdict.is_empty() {
            continue;
        }
        push!(html, "<h3>{}</h3>\n", counted(of_verdict.len(), verdict));
        let mut reasons: Vec<(Option<&str>, Vec<&str>)> = Vec::new();
        for case in of_verdict {
            let (reason, name) = (case.reason.as_deref(), &*case.name);
            match reasons.iter_mut().find(|(known, _)| *known == reason) {
                Some((_, names)) => names.push(name),
                None => reasons.push((reason, vec![name])),
            }
        }
        let is_brief =
            names == Names::Failures && matches!(verdict, Verdict::Passed | Verdict::Skipped);
        for (reason, names) in reasons {
            match reason {
                Some(reason) if is_brief => {
                    push!(html, "<p class=\"reason\">{} × {}</p>\n", names.len(), Text(reason));
                }
                Some(reason) => push!(html, "<p class=\"reason\">{}</p>\n", Text(reason)),
                None => {}
            }
            if !is_brief {
                push!(html, "<p class=\"names\">{}</p>\n", Text(&names.join("\n")));
            }
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(name: &str, verdict: Verdict, reason: Option<&str>) -> Entry {
        let reason = reason.map(Into::into);
        Entry { name: name.into(), verdict, reason, seconds: 0.0, descriptors: None }
    }

    #[test]
    fn a_case_is_in_the_column_of_the_apis_that_it_visits() {
        for (path, column) in [
            ("vulkan→vulkan", "Vulkan–Vulkan"),
            ("vulkan→vulkan→vulkan", "Vulkan–Vulkan"),
            ("gl→vulkan", "Vulkan–OpenGL"),
            ("vulkan→gl→vulkan", "Vulkan–OpenGL"),
            ("vulkan→vulkan+gl", "Vulkan–OpenGL"),
            ("cuda→gl→cuda", "OpenGL–CUDA"),
            ("cuda→cuda", "CUDA–CUDA"),
            ("vulkan→cuda+gl", "all three"),
            ("all", "all three"),
            ("vulkan", "one API"),
            ("vulkan→host", "one API"),
            ("headless", "one API"),
            ("ipc", "processes"),
        ] {
            assert_eq!(pair(&format!("{path}/opaque_fd/1")), column, "{path}");
            assert!(PAIRS.contains(&column), "{column}");
        }
    }

    #[test]
    fn every_case_of_the_suite_is_in_one_cell() {
        let cases: Vec<_> = crate::cases::all()
            .iter()
            .map(|listed| case(listed.name(), Verdict::Passed, None))
            .collect();
        let matrix = Matrix::new(true, by_pair(&cases));
        let cells = matrix.rows.iter().flat_map(|row| &row.cells);
        assert_eq!(cells.map(Vec::len).sum::<usize>(), cases.len());
        assert!(matrix.rows.iter().all(|row| row.letter != "–"));
    }

    #[test]
    fn a_cell_counts_each_verdict_and_links_to_its_list() {
        let cases = [
            case("vulkan→gl/a/31", Verdict::Passed, None),
            case("vulkan→gl/b/31", Verdict::Crashed, Some("SIGSEGV <1>")),
            case("vulkan→gl/c/31", Verdict::ExpectedFailure, Some("the driver")),
            case("vulkan→gl/d/31", Verdict::Skipped, Some("no GPU")),
            case("vulkan→gl/e/31", Verdict::Skipped, Some("no GPU")),
            case("vulkan→gl/f/99999", Verdict::Passed, None),
        ];
        let matrix = Matrix::new(true, by_pair(&cases));
        let table = matrix.table(true);
        assert!(
            table.contains(
                "<td class=\"fail\"><a href=\"#D0\"><b>1</b><small class=\"fail\">1 failed</small>\
             <small class=\"known\">1 expected</small><small class=\"\">2 skipped</small></a></td>"
            ),
            "{table}"
        );
        assert!(table.contains("– Others") && table.contains("#x0"), "{table}");
        let lists = matrix.lists(Names::All);
        assert!(lists.contains("<div id=\"D0\">"), "{lists}");
        assert!(lists.contains("SIGSEGV &lt;1&gt;"), "{lists}");
        assert!(lists.contains("vulkan→gl/d/31\nvulkan→gl/e/31"), "one list per reason: {lists}");
        let brief = matrix.lists(Names::Failures);
        assert!(brief.contains("2 × no GPU") && !brief.contains("vulkan→gl/d/31"), "{brief}");
        assert!(brief.contains("vulkan→gl/b/31") && brief.contains("vulkan→gl/c/31"), "{brief}");
    }
}
