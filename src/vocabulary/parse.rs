//! Reading class lists and normalising labels.

use std::sync::Arc;

/// Bounds of a class list. Lists come from outside (a topic, a service, later a language model) and are data: what
/// exceeds a bound is refused, not cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VocabularyLimits {
    /// Most classes.
    pub max_classes: usize,
    /// Most characters of a label or another name.
    pub max_label_chars: usize,
    /// Most names (label, synonyms, subclasses) of one class.
    pub max_names: usize,
}

impl Default for VocabularyLimits {
    fn default() -> Self {
        Self { max_classes: 256, max_label_chars: 64, max_names: 32 }
    }
}

/// One class as it was asked for, before normalisation.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassSpec {
    /// Canonical name.
    pub label: String,
    /// Label of the parent class, or empty.
    pub parent: String,
    /// Other names for it.
    pub synonyms: Vec<String>,
    /// More special names for it.
    pub subclasses: Vec<String>,
    /// Confidence in [0, 1] that it is in the scene; 1 for given lists.
    pub score: f32,
}

impl ClassSpec {
    /// A class with nothing but a label.
    #[must_use]
    pub fn new(label: impl Into<String>) -> Self {
        Self { label: label.into(), parent: String::new(), synonyms: Vec::new(), subclasses: Vec::new(), score: 1.0 }
    }
}

/// Why a class list was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// No class at all.
    #[error("the class list is empty")]
    Empty,
    /// More classes than allowed.
    #[error("the class list has {found} classes, at most {limit} are allowed")]
    TooManyClasses {
        /// Classes given.
        found: usize,
        /// Bound.
        limit: usize,
    },
    /// More names than allowed.
    #[error("class {label:?} has {found} names, at most {limit} are allowed")]
    TooManyNames {
        /// The class.
        label: String,
        /// Names given.
        found: usize,
        /// Bound.
        limit: usize,
    },
    /// A name without a letter or digit.
    #[error("a class name is empty")]
    EmptyLabel,
    /// A name that is too long.
    #[error("a class name has {found} characters, at most {limit} are allowed")]
    LabelTooLong {
        /// Characters given.
        found: usize,
        /// Bound.
        limit: usize,
    },
    /// A name with a character that would change the meaning of the prompt or of a list.
    #[error("class name {label:?} contains {character:?}")]
    Character {
        /// The name.
        label: String,
        /// The character.
        character: char,
    },
    /// The same name for two classes: a detection of it could not be given to exactly one.
    #[error("{phrase:?} names both {first:?} and {second:?}")]
    Ambiguous {
        /// The name.
        phrase: String,
        /// A class.
        first: String,
        /// Another class.
        second: String,
    },
    /// Every class id is taken by a class of this list.
    #[error("no class id is left")]
    IdsExhausted,
}

/// Reads a list such as `"mug, red ball; traffic cone"`: commas, semicolons and line ends separate, empty parts and
/// repetitions are dropped.
///
/// # Errors
/// [`ListError`] when a bound is exceeded or nothing is left.
pub fn parse_class_list(text: &str, limits: &VocabularyLimits) -> Result<Vec<ClassSpec>, ListError> {
    let mut classes: Vec<ClassSpec> = Vec::new();
    for part in text.split([',', ';', '\n', '\r']).filter(|part| !part.trim().is_empty()) {
        let label = normalise_label(part, limits)?;
        if !classes.iter().any(|class| *class.label == *label) {
            if classes.len() == limits.max_classes {
                let found = classes.len() + 1;
                return Err(ListError::TooManyClasses { found, limit: limits.max_classes });
            }
            classes.push(ClassSpec::new(&*label));
        }
    }
    if classes.is_empty() { Err(ListError::Empty) } else { Ok(classes) }
}

/// Brings a name to its canonical form: lower case, single spaces, no full stop at the end.
///
/// # Errors
/// When nothing is left, it is too long, or it contains a control character, one that shows nothing or changes how others
/// are shown, a list separator, or `.` or `?`, which the detector reads as the end of a phrase.
pub fn normalise_label(text: &str, limits: &VocabularyLimits) -> Result<Arc<str>, ListError> {
    // Refuse huge input before working on it; trimming below can only shorten what a reader would call the name.
    let longest_input = limits.max_label_chars.saturating_mul(8);
    if text.len() > longest_input {
        return Err(ListError::LabelTooLong { found: text.chars().count(), limit: limits.max_label_chars });
    }
    let lower = text.trim().trim_end_matches('.').to_lowercase();
    let label = lower.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some(character) = label.chars().find(|&c| c.is_control() || is_invisible(c) || ".?,;[]".contains(c)) {
        return Err(ListError::Character { label, character });
    }
    if !label.chars().any(char::is_alphanumeric) {
        return Err(ListError::EmptyLabel);
    }
    let length = label.chars().count();
    if length > limits.max_label_chars {
        return Err(ListError::LabelTooLong { found: length, limit: limits.max_label_chars });
    }
    Ok(Arc::from(label))
}

/// How a text from outside begins: at most so many characters on one line, without anything that could play tricks on a
/// terminal or a log.
pub(super) fn excerpt(text: &str, most: usize) -> String {
    let mut out = String::new();
    let mut length = 0;
    let odd = |c: char| c.is_whitespace() || c.is_control() || is_invisible(c);
    for c in text.chars().map(|c| if odd(c) { ' ' } else { c }) {
        if c == ' ' && (out.is_empty() || out.ends_with(' ')) {
            continue;
        }
        if length == most {
            out.push('…');
            break;
        }
        out.push(c);
        length += 1;
    }
    out.truncate(out.trim_end().len());
    if out.is_empty() { "nothing".into() } else { out }
}

/// Whether a character that is no control character shows nothing, or changes the direction or the form of others: with it
/// two names would look alike. These are Unicode's `Default_Ignorable_Code_Point` (`DerivedCoreProperties.txt`), the line
/// and paragraph separators and the marks of interlinear annotations.
pub(super) const fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn labels(text: &str) -> Result<Vec<String>, ListError> {
        Ok(parse_class_list(text, &VocabularyLimits::default())?.into_iter().map(|c| c.label).collect())
    }

    #[test]
    fn separators_case_and_repetitions() {
        assert_eq!(labels("Mug,  red\tBall ; traffic cone.\nmug,,").unwrap(), ["mug", "red ball", "traffic cone"]);
    }

    #[test]
    fn bounds_are_errors() {
        assert_eq!(labels(" ,;\n"), Err(ListError::Empty));
        assert_eq!(labels("a, -"), Err(ListError::EmptyLabel));
        assert!(matches!(labels(&"x".repeat(65)), Err(ListError::LabelTooLong { found: 65, limit: 64 })));
        assert!(matches!(labels(&"x".repeat(100_000)), Err(ListError::LabelTooLong { .. })));
        assert!(matches!(labels("what? mug"), Err(ListError::Character { character: '?', .. })));
        assert!(matches!(labels("e.g. mug"), Err(ListError::Character { character: '.', .. })));
        assert!(matches!(labels("[cls]"), Err(ListError::Character { character: '[', .. })));
        assert!(matches!(labels("a\u{7}b"), Err(ListError::Character { character: '\u{7}', .. })));
        let many = (0..257).map(|i| format!("class {i}")).collect::<Vec<_>>().join(",");
        assert!(matches!(labels(&many), Err(ListError::TooManyClasses { limit: 256, .. })));
    }

    #[test]
    fn no_name_differs_from_another_by_what_nobody_sees() {
        // Soft hyphen, zero-width space and joiner, right-to-left override and isolates, word joiner, byte order mark, Hangul
        // filler, variation selector, a tag character.
        for hidden in [
            '\u{ad}',
            '\u{200b}',
            '\u{200d}',
            '\u{202e}',
            '\u{2066}',
            '\u{2069}',
            '\u{2060}',
            '\u{feff}',
            '\u{3164}',
            '\u{fe0f}',
            '\u{e0041}',
        ] {
            for name in [format!("mug{hidden}"), format!("{hidden}mug"), format!("m{hidden}ug")] {
                let found = normalise_label(&name, &VocabularyLimits::default());
                let refused = matches!(found, Err(ListError::Character { character, .. }) if character == hidden);
                assert!(refused, "{name:?}");
            }
        }
        for name in ["café", "杯子", "стол", "toddler's chair", "t-shirt"] {
            assert_eq!(normalise_label(name, &VocabularyLimits::default()).as_deref(), Ok(name));
        }
    }

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing(text in "\\PC{0,80}") {
            let limits = VocabularyLimits::default();
            if let Ok(once) = normalise_label(&text, &limits) {
                prop_assert_eq!(normalise_label(&once, &limits), Ok(once.clone()));
                prop_assert!(once.chars().count() <= limits.max_label_chars);
            }
        }

        #[test]
        fn any_text_is_a_list_or_an_error(text in any::<String>()) {
            if let Ok(classes) = parse_class_list(&text, &VocabularyLimits::default()) {
                prop_assert!(!classes.is_empty());
                let mut names: Vec<_> = classes.iter().map(|c| &c.label).collect();
                names.sort();
                names.dedup();
                prop_assert_eq!(names.len(), classes.len());
            }
        }
    }
}
