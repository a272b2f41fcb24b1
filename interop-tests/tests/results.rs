//! The committed reports: each one parses, and a document quotes it.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn reports() -> Vec<PathBuf> {
    let folder = root().join("interop-tests/results");
    let mut files: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

#[test]
fn every_json_report_parses() {
    for path in reports() {
        let lines = has_extension(&path, "jsonl");
        if !lines && !has_extension(&path, "json") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let documents: Vec<&str> = if lines { text.lines().collect() } else { vec![&text] };
        for document in documents {
            let parsed = serde_json::from_str::<serde_json::Value>(document);
            assert!(parsed.is_ok(), "{}: {parsed:?}", path.display());
        }
    }
}

#[test]
fn every_report_is_quoted_by_a_document() {
    let documents =
        ["README.md", "BENCHMARKS.md", "interop-tests/README.md", "interop-tests/bench/README.md"];
    let text: String = documents
        .iter()
        .filter_map(|document| fs::read_to_string(root().join(document)).ok())
        .collect();
    for path in reports() {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(text.contains(name), "{name} is quoted by none of {documents:?}");
    }
}

/// With `INTEROP_UPDATE_PAGE=1` the page is written.
#[test]
fn the_page_shows_the_committed_reports() {
    let page = interop_tests::pages::record(&root().join("interop-tests/results")).unwrap();
    let path = root().join(interop_tests::pages::PAGE);
    if std::env::var_os("INTEROP_UPDATE_PAGE").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == page,
        "{} is older than the reports; INTEROP_UPDATE_PAGE=1 writes it",
        path.display()
    );
}

/// Relative links of the documents lead to files that exist.
#[test]
fn every_relative_link_of_the_documents_leads_to_a_file() {
    let mut links = 0;
    for document in [
        "README.md",
        "BENCHMARKS.md",
        "CHANGELOG.md",
        "interop-tests/README.md",
        "interop-tests/MATRIX.md",
    ] {
        let path = root().join(document);
        let Ok(text) = fs::read_to_string(&path) else { panic!("{document} is missing") };
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap_or_default();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            let found = path.parent().unwrap().join(file);
            assert!(found.exists(), "{document} links to {target}, which does not exist");
            links += 1;
        }
    }
    assert!(links > 10, "only {links} links were found");
}
