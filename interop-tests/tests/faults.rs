//! The planted faults agree with `FAULTS.md`, which states the test that catches each of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const PAGE: &str = include_str!("../FAULTS.md");

/// What the headers of the patches state: each fault's description and tests.
fn patches() -> BTreeMap<String, (String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("faults");
    let patch = |path: &Path| {
        let text = fs::read_to_string(path).unwrap();
        let header = |name: &str| {
            let line = text.lines().take(3).find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("{} has no '{name}'", path.display())).to_owned()
        };
        assert!(text.contains("\n--- a/src/"), "{} changes the library", path.display());
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        (name, (header("Fault: "), header("Tests: ")))
    };
    fs::read_dir(folder).unwrap().map(|entry| patch(&entry.unwrap().path())).collect()
}

#[test]
fn every_fault_is_caught_according_to_the_page() {
    let rows = PAGE.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let rows = rows.map(|row| row.split(" | ").collect::<Vec<_>>()).filter(|row| row[0] != "fault");
    let mut stated = BTreeMap::new();
    for row in rows {
        let [name, what, tests, caught] = row[..] else { panic!("{row:?}") };
        assert!(!caught.contains("**"), "{name}: {caught}");
        let tests = tests.trim_matches('`').to_owned();
        stated.insert(name.to_owned(), (what.to_owned(), tests));
    }
    assert_eq!(stated, patches(), "left: FAULTS.md; right: the patches; run scripts/faults.sh");
    assert!(stated.len() >= 60, "{} faults", stated.len());
}
