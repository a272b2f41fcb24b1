//! HTML: escaped text, and the frame of a page.

use std::fmt::{self, Write as _};

/// Text in HTML: in an element, or in an attribute with quotes.
pub(super) struct Text<'a>(pub(super) &'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for letter in self.0.chars() {
            match letter {
                '&' => f.write_str("&amp;"),
                '<' => f.write_str("&lt;"),
                '>' => f.write_str("&gt;"),
                '"' => f.write_str("&quot;"),
                '\'' => f.write_str("&#39;"),
                other => f.write_char(other),
            }?;
        }
        Ok(())
    }
}

/// Appends formatted HTML to a `String`, which can't fail.
macro_rules! push {
    ($to:expr, $($format:tt)*) => {{
        use std::fmt::Write as _;
        let _ = write!($to, $($format)*);
    }};
}
pub(super) use push;

/// A whole page.
pub(super) fn page(title: &str, body: &str) -> String {
    let title = Text(title);
    let mut page = String::new();
    push!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n{body}</body>\n</html>\n"
    );
    page
}

const STYLE: &str = include_str!("style.css");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped() {
        let text = Text("<b title=\"it's\">a & b</b>").to_string();
        assert_eq!(text, "&lt;b title=&quot;it&#39;s&quot;&gt;a &amp; b&lt;/b&gt;");
        let page = page("<i>", "");
        assert!(page.contains("<title>&lt;i&gt;</title>") && !page.contains("<i>"), "{page}");
    }

    #[test]
    fn a_page_needs_no_other_file_and_no_script() {
        let page = page("title", "");
        for part in ["<script", "<link", "src=", "url(", "@import"] {
            assert!(!page.contains(part), "{part}");
        }
    }
}
