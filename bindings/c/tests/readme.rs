//! The README's code is that of the examples, which CI compiles and runs.

use std::fs;
use std::path::Path;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn read(name: &str) -> Result<String> {
    Ok(fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name))?)
}

/// Returns the text between two markers.
fn between<'a>(text: &'a str, begin: &str, end: &str) -> Result<&'a str> {
    let (_, rest) = text.split_once(begin).ok_or_else(|| format!("no {begin:?}"))?;
    let (found, _) = rest.split_once(end).ok_or_else(|| format!("no {end:?}"))?;
    Ok(found)
}

#[test]
fn the_first_buffer_is_the_example_and_short() -> Result<()> {
    let (readme, example) = (read("README.md")?, read("examples/first_buffer.c")?);
    let example = between(&example, "/* BEGIN README */\n", "    /* END README */")?;
    let dedented: Vec<_> =
        example.lines().map(|line| line.strip_prefix("    ").unwrap_or(line)).collect();
    let shown = between(&readme, "```c\n#include <gpu_interop.h>\n\n", "```")?;
    assert_eq!(shown.trim_end(), dedented.join("\n").trim_end());

    // Statements that call the library or make one of its values.
    let statements = shown.split(';').filter(|statement| statement.contains("gi_"));
    let is_own = |statement: &&str| !statement.contains("vkCmd") && !statement.contains("glBind");
    let count = statements.filter(is_own).count();
    assert!(count <= 20, "{count} statements");
    Ok(())
}

#[test]
fn the_lines_in_cpp_are_in_the_example() -> Result<()> {
    let (readme, example) = (read("README.md")?, read("examples/raii.cpp")?);
    for line in between(&readme, "```cpp\n", "```")?.lines() {
        assert!(example.contains(line), "{line}");
    }
    Ok(())
}
