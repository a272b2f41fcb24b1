//! The families and rows of `MATRIX.md`, and where a case belongs.

use std::ops::RangeInclusive;

/// The page.
pub const PAGE: &str = include_str!("../MATRIX.md");

/// Which cases belong to a family.
#[derive(Debug)]
pub enum Members {
    /// Those of these rows.
    Rows(RangeInclusive<u32>),
    /// Those whose names contain one of these.
    Names(Vec<&'static str>),
}

/// A family of cases.
#[derive(Debug)]
pub struct Family {
    /// Its letter.
    pub letter: &'static str,
    /// What its cases are about.
    pub subject: &'static str,
    /// Its cases.
    pub members: Members,
    /// How many the page states.
    pub count: usize,
}

/// Returns the cells of the page's table rows with `count` cells.
pub fn table(count: usize) -> impl Iterator<Item = Vec<&'static str>> {
    let cells = |line: &'static str| -> Option<Vec<&'static str>> {
        Some(line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ").collect())
    };
    PAGE.lines().filter_map(cells).filter(move |cells| cells.len() == count)
}

/// Returns the families, in the page's order.
pub fn families() -> Vec<Family> {
    let family = |cells: Vec<&'static str>| {
        let members = match cells[2].strip_prefix("rows ") {
            Some(rows) => {
                let (first, last) = rows.split_once('–')?;
                Members::Rows(first.parse().ok()?..=last.parse().ok()?)
            }
            None => Members::Names(
                cells[2].split('`').map(str::trim).filter(|name| !name.is_empty()).collect(),
            ),
        };
        let count = cells[3].parse().ok()?;
        Some(Family { letter: cells[0], subject: cells[1], members, count })
    };
    table(4).filter(|cells| cells[0].len() == 1).filter_map(family).collect()
}

/// Returns the row that a case's name ends in.
pub fn row(name: &str) -> Option<u32> {
    let last = name.rsplit('/').next()?;
    last.trim_end_matches(|letter: char| letter.is_ascii_lowercase()).parse().ok()
}

/// Returns the family that a case belongs to: by its name, otherwise by its row.
pub fn family_of<'a>(name: &str, families: &'a [Family]) -> Option<&'a Family> {
    let by_name = |family: &&Family| match &family.members {
        Members::Names(names) => names.iter().any(|part| name.contains(part)),
        Members::Rows(_) => false,
    };
    let by_row = |family: &&Family| match &family.members {
        Members::Rows(rows) => row(name).is_some_and(|row| rows.contains(&row)),
        Members::Names(_) => false,
    };
    families.iter().find(by_name).or_else(|| families.iter().find(by_row))
}
