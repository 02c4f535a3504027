//! The key, and texts that may show it.

use std::fmt;

use crate::vocabulary::parse;

/// Keys shorter than this are placeholders ("none", "EMPTY") that ordinary text may contain.
const SHORTEST_SCRUBBED: usize = 8;
/// What stands where the key stood.
const SCRUBBED: &str = "[key]";

/// A key. It has no readable form other than [`Secret::expose`], which only the HTTP header is made with.
#[derive(Clone)]
pub(super) struct Secret(String);

impl Secret {
    /// A key of visible ASCII characters; `None` for anything else, which no header could carry.
    pub(super) fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic())).then(|| Self(text.to_owned()))
    }

    pub(super) fn expose(&self) -> &str {
        &self.0
    }

    /// `text` without the key.
    pub(super) fn scrub(&self, text: String) -> String {
        if self.0.len() >= SHORTEST_SCRUBBED && text.contains(&self.0) { text.replace(&self.0, SCRUBBED) } else { text }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SCRUBBED)
    }
}

/// Longest piece of the endpoint's text in an error, in characters.
const EXCERPT: usize = 200;

/// How `text` begins, without the key.
pub(super) fn excerpt(text: &str, key: Option<&Secret>) -> String {
    // The key goes first: were the text shortened before, half of it could stay.
    let scrubbed = key.map(|key| key.scrub(text.to_owned()));
    parse::excerpt(scrubbed.as_deref().unwrap_or(text), EXCERPT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_shown() {
        let key = Secret::new(" sk-123456789\n").unwrap();
        assert_eq!(key.expose(), "sk-123456789");
        assert_eq!(format!("{key:?}"), "[key]");
        assert_eq!(excerpt("bad key sk-123456789!", Some(&key)), "bad key [key]!");
        // Even where the excerpt ends within the key.
        let long = format!("{}sk-123456789", "x".repeat(EXCERPT - 4));
        assert!(!excerpt(&long, Some(&key)).contains("sk-1"));
        assert_eq!(Secret::new("none").unwrap().scrub("there is none".into()), "there is none");
    }

    #[test]
    fn a_key_fits_into_a_header() {
        for bad in ["", "  ", "two words", "schlüssel", "line\nbreak"] {
            assert!(Secret::new(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn excerpts_are_short_and_plain() {
        assert_eq!(excerpt("a\u{1b}[31m\r\n\tb\u{202e}c", None), "a [31m b c");
        assert_eq!(excerpt(&"é".repeat(1000), None).chars().count(), EXCERPT + 1);
        assert_eq!(excerpt("\0\n ", None), "nothing");
    }
}
