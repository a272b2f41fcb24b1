//! `MATRIX.md` agrees with the suite's list of cases. With `INTEROP_UPDATE_MATRIX=1` the counts are updated.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

const PAGE: &str = include_str!("../MATRIX.md");

/// Which cases belong to a family.
enum Members {
    Rows(RangeInclusive<u32>),
    /// Those whose names contain one of these.
    Names(Vec<&'static str>),
}

/// The cells of the page's table rows with `count` cells.
fn table(count: usize) -> impl Iterator<Item = Vec<&'static str>> {
    let cells = |line: &'static str| -> Option<Vec<&'static str>> {
        Some(line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ").collect())
    };
    PAGE.lines().filter_map(cells).filter(move |cells| cells.len() == count)
}

/// Each family's letter, members and number of cases.
fn families() -> Vec<(&'static str, Members, usize)> {
    let family = |cells: Vec<&'static str>| {
        let members = match cells[2].strip_prefix("rows ") {
            Some(rows) => {
                let (first, last) = rows.split_once('–').unwrap();
                Members::Rows(first.parse().unwrap()..=last.parse().unwrap())
            }
            None => Members::Names(
                cells[2].split('`').map(str::trim).filter(|n| !n.is_empty()).collect(),
            ),
        };
        Some((cells[0], members, cells[3].parse().ok()?))
    };
    table(4).filter(|cells| cells[0].len() == 1).filter_map(family).collect()
}

/// The number of the row at the end of a case's name.
fn row(name: &str) -> u32 {
    let last = name.rsplit('/').next().unwrap();
    let digits = last.trim_end_matches(|letter: char| letter.is_ascii_lowercase());
    digits.parse().unwrap_or_else(|_| panic!("{name} does not end in a row of the matrix"))
}

fn family_of(name: &str, families: &[(&'static str, Members, usize)]) -> &'static str {
    let by_name = families.iter().find(|(_, members, _)| match members {
        Members::Names(names) => names.iter().any(|part| name.contains(part)),
        Members::Rows(_) => false,
    });
    let by_row = || {
        families.iter().find(|(_, members, _)| match members {
            Members::Rows(rows) => rows.contains(&row(name)),
            Members::Names(_) => false,
        })
    };
    by_name.or_else(by_row).unwrap_or_else(|| panic!("{name} belongs to no family")).0
}

#[test]
fn the_page_states_the_number_of_cases_of_each_family() {
    let families = families();
    let mut counts: BTreeMap<_, _> = families.iter().map(|(letter, ..)| (*letter, 0)).collect();
    for case in interop_tests::cases::all() {
        *counts.get_mut(family_of(case.name(), &families)).unwrap() += 1;
    }
    let stated: BTreeMap<_, _> =
        families.iter().map(|(letter, _, count)| (*letter, *count)).collect();
    if stated != counts && std::env::var_os("INTEROP_UPDATE_MATRIX").is_some() {
        let update =
            |line: &str| match counts.iter().find(|(f, _)| line.starts_with(&format!("| {f} |"))) {
                Some((_, count)) => {
                    let cells: Vec<_> = line.split(" | ").collect();
                    format!("{} | {count} |\n", cells[..3].join(" | "))
                }
                None => format!("{line}\n"),
            };
        let page: String = PAGE.lines().map(update).collect();
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/MATRIX.md"), page).unwrap();
        return;
    }
    assert_eq!(
        stated, counts,
        "left: MATRIX.md; right: the suite; INTEROP_UPDATE_MATRIX=1 updates the page"
    );
}

#[test]
fn every_row_has_a_case_and_every_case_a_row() {
    let rows: BTreeSet<u32> = table(2).filter_map(|cells| cells[0].parse().ok()).collect();
    let used: BTreeSet<u32> =
        interop_tests::cases::all().iter().map(|case| row(case.name())).collect();
    assert_eq!(rows, used, "left: MATRIX.md; right: the suite");
}

#[test]
fn no_two_cases_have_the_same_name() {
    let mut names = BTreeSet::new();
    for case in interop_tests::cases::all() {
        assert!(names.insert(case.name().to_owned()), "{} occurs twice", case.name());
    }
}
