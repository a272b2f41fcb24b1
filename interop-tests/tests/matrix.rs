//! `MATRIX.md` agrees with the suite's list of cases. With `INTEROP_UPDATE_MATRIX=1` the counts are updated.

use std::collections::{BTreeMap, BTreeSet};

use interop_tests::matrix::{PAGE, families, family_of, row, table};

#[test]
fn the_page_states_the_number_of_cases_of_each_family() {
    let families = families();
    let mut counts: BTreeMap<_, _> = families.iter().map(|family| (family.letter, 0)).collect();
    for case in interop_tests::cases::all() {
        let family = family_of(case.name(), &families);
        let family = family.unwrap_or_else(|| panic!("{} belongs to no family", case.name()));
        *counts.get_mut(family.letter).unwrap() += 1;
    }
    let stated: BTreeMap<_, _> =
        families.iter().map(|family| (family.letter, family.count)).collect();
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
    let row_of = |name: &str| {
        row(name).unwrap_or_else(|| panic!("{name} does not end in a row of the matrix"))
    };
    let used: BTreeSet<u32> =
        interop_tests::cases::all().iter().map(|case| row_of(case.name())).collect();
    assert_eq!(rows, used, "left: MATRIX.md; right: the suite");
}

#[test]
fn no_two_cases_have_the_same_name() {
    let mut names = BTreeSet::new();
    for case in interop_tests::cases::all() {
        assert!(names.insert(case.name().to_owned()), "{} occurs twice", case.name());
    }
}
