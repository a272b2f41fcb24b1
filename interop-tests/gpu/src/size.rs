//! Human-readable sizes: `256MiB`.

use anyhow::{Result, bail};

const UNITS: [(&str, u64); 7] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

/// Bytes of a text like `256MiB`, `1GiB` or `4096`.
///
/// # Errors
/// If the text is not a size, or is more than 2⁶⁴ bytes.
pub fn parse(text: &str) -> Result<u64> {
    let text = text.trim();
    let unit = UNITS.iter().find_map(|(name, factor)| Some((text.strip_suffix(name)?, *factor)));
    let (number, factor) = unit.unwrap_or((text, 1));
    let bytes = number.trim().parse::<u64>().ok().and_then(|n| n.checked_mul(factor));
    let Some(bytes) = bytes else {
        bail!("'{text}' is not a size; write one like 256MiB, 64KiB, 1GiB or 4096");
    };
    Ok(bytes)
}

/// Parses a payload's size: like [`parse`], and checks that the kernels support the size.
///
/// # Errors
/// Those of [`parse`], and if the size is 0 or not a multiple of 16 bytes.
pub fn parse_payload(text: &str) -> Result<u64> {
    let bytes = parse(text)?;
    if bytes == 0 || !bytes.is_multiple_of(16) {
        bail!("{bytes} bytes: the size must be a multiple of 16 bytes and not 0");
    }
    Ok(bytes)
}

/// Formats a human-readable size: `256 MiB`.
pub fn human(bytes: u64) -> String {
    for (name, factor) in [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes >= factor && bytes.is_multiple_of(factor) {
            return format!("{} {name}", bytes / factor);
        }
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_nonsense_is_refused() {
        assert_eq!(parse("256MiB").unwrap(), 256 << 20);
        assert_eq!(parse(" 1 GiB ").unwrap(), 1 << 30);
        assert_eq!(parse("4096").unwrap(), 4096);
        assert_eq!(parse("4096B").unwrap(), 4096);
        for nonsense in ["", "MiB", "-1", "1.5GiB", "99999999999GiB", "3 parsecs"] {
            assert!(parse(nonsense).is_err(), "{nonsense}");
        }
        for nonsense in ["0", "17", "1000MiB1"] {
            assert!(parse_payload(nonsense).is_err(), "{nonsense}");
        }
        assert_eq!(human(256 << 20), "256 MiB");
        assert_eq!(human(1000), "1000 B");
    }
}
