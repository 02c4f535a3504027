//! From the words of a sampled caption to proposals (LLM2Labels, section 3.3): each noun phrase is one, and its probability
//! is that of its tokens.

use super::{lexicon::Lexicon, proposals::Proposal};

/// Most characters of a caption that are kept; it goes to a language model.
const MAX_CHARS: usize = 300;
/// Most words of a noun phrase where no lexicon tells nouns from other words: the last ones.
const MAX_PHRASE: usize = 3;

/// Words that begin no noun phrase, and without a lexicon end one: articles, pronouns, prepositions, conjunctions,
/// auxiliary verbs, words of place, number, size and colour. Several are nouns too ("a" is a letter, "are" an area).
const FUNCTION_WORDS: [&str; 127] = [
    "a", "about", "above", "across", "all", "along", "an", "and", "another", "are", "around", "as", "at", "back", "be",
    "been", "before", "behind", "being", "below", "beside", "between", "big", "black", "blue", "both", "bottom",
    "brown", "but", "by", "can", "couple", "dark", "do", "does", "down", "each", "eight", "few", "five", "for", "four",
    "from", "front", "full", "gray", "green", "grey", "group", "has", "have", "having", "he", "her", "high", "him",
    "his", "how", "in", "inside", "into", "is", "it", "its", "large", "left", "light", "little", "long", "lot", "lots",
    "many", "middle", "more", "most", "near", "next", "nine", "no", "not", "of", "off", "old", "on", "one", "onto",
    "or", "other", "out", "outside", "over", "pair", "picture", "pink", "purple", "red", "right", "seven", "several",
    "she", "short", "side", "six", "small", "some", "ten", "that", "the", "their", "them", "there", "these", "they",
    "this", "those", "three", "through", "to", "top", "two", "under", "up", "was", "were", "white", "with", "yellow",
];

/// How the probabilities of a phrase's tokens become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PhraseProbability {
    /// Their product, the probability of the phrase (eq. 1).
    #[default]
    Product,
    /// Their geometric mean, which does not fall with the number of tokens.
    GeometricMean,
}

/// A word of a caption.
#[derive(Clone, Debug, PartialEq)]
pub struct CaptionWord {
    /// As the captioner wrote it.
    pub text: String,
    /// Sum of the logarithms of its tokens' probabilities.
    pub log_probability: f32,
    /// Number of its tokens.
    pub tokens: usize,
}

/// Writes WordPiece tokens one after the other as words.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CaptionText {
    /// The words, punctuation among them.
    pub words: Vec<CaptionWord>,
}

impl CaptionText {
    /// Adds a token: `##` continues the last word.
    pub fn push(&mut self, piece: &str, log_probability: f32) {
        match (piece.strip_prefix("##").filter(|rest| !rest.is_empty()), self.words.last_mut()) {
            (Some(rest), Some(word)) => {
                word.text.push_str(rest);
                word.log_probability += log_probability;
                word.tokens += 1;
            }
            (rest, _) => {
                let text = rest.unwrap_or(piece).to_owned();
                self.words.push(CaptionWord { text, log_probability, tokens: 1 });
            }
        }
    }

    /// The caption as a line of text, cut at a bound.
    #[must_use]
    pub fn line(&self) -> String {
        let mut line = String::new();
        for word in &self.words {
            let is_mark = !word.text.contains(char::is_alphanumeric);
            if !line.is_empty() && !is_mark {
                line.push(' ');
            }
            line.extend(word.text.chars().filter(|c| !c.is_control()));
        }
        line.chars().take(MAX_CHARS).collect()
    }

    /// Mean logarithm of its tokens' probabilities; −∞ for no token at all.
    #[must_use]
    pub fn mean_log_probability(&self) -> f32 {
        let (sum, tokens) = sum(&self.words);
        if tokens == 0 { f32::NEG_INFINITY } else { sum / tokens as f32 }
    }

    /// The nouns of the caption, longest match first, as proposals; without a lexicon the runs of words between function
    /// words.
    #[must_use]
    pub fn proposals(&self, lexicon: Option<&Lexicon>, rule: PhraseProbability) -> Vec<Proposal> {
        let lower: Vec<String> = self.words.iter().map(|word| word.text.to_lowercase()).collect();
        let texts: Vec<&str> = lower.iter().map(String::as_str).collect();
        let mut proposals = Vec::new();
        let mut at = 0;
        while at < texts.len() {
            let rest = texts.get(at..).unwrap_or_default();
            let found = if is_separator(texts.get(at).copied().unwrap_or_default()) {
                None
            } else if let Some(lexicon) = lexicon {
                lexicon.leading_noun(rest).map(|(label, words)| (label, words, 0))
            } else {
                let run = rest.iter().take_while(|word| !is_separator(word)).count();
                let cut = run.saturating_sub(MAX_PHRASE);
                rest.get(cut..run).map(|phrase| (phrase.join(" "), run, cut))
            };
            let Some((label, words, cut)) = found else {
                at += 1;
                continue;
            };
            let phrase = self.words.get(at + cut..at + words).unwrap_or_default();
            proposals.push(Proposal { label, probability: probability(phrase, rule) });
            at += words.max(1);
        }
        proposals
    }
}

fn sum(words: &[CaptionWord]) -> (f32, usize) {
    words.iter().fold((0.0, 0), |(sum, tokens), word| (sum + word.log_probability, tokens + word.tokens))
}

fn probability(phrase: &[CaptionWord], rule: PhraseProbability) -> f32 {
    let (sum, tokens) = sum(phrase);
    match rule {
        PhraseProbability::Product => sum.exp(),
        PhraseProbability::GeometricMean => (sum / tokens.max(1) as f32).exp(),
    }
}

fn is_separator(word: &str) -> bool {
    FUNCTION_WORDS.binary_search(&word).is_ok() || !word.contains(char::is_alphabetic)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words of one token each; a number after a slash is the probability, otherwise 0.5.
    fn caption(text: &str) -> CaptionText {
        let mut caption = CaptionText::default();
        for piece in text.split(' ') {
            let (piece, p) = piece.split_once('/').map_or((piece, 0.5), |(piece, p)| (piece, p.parse().unwrap()));
            caption.push(piece, f32::ln(p));
        }
        caption
    }

    fn labels(text: &str, lexicon: Option<&Lexicon>) -> Vec<String> {
        let proposals = caption(text).proposals(lexicon, PhraseProbability::Product);
        proposals.into_iter().map(|proposal| proposal.label).collect()
    }

    #[test]
    fn function_words_are_sorted() {
        assert!(FUNCTION_WORDS.is_sorted());
    }

    #[test]
    fn tokens_become_words_and_a_line() {
        let caption = caption("two arm/0.5 ##chair/0.25 ##s/1 , a mug .");
        assert_eq!(caption.line(), "two armchairs, a mug.");
        assert_eq!(caption.words.len(), 6);
        let chairs = &caption.words[1];
        assert_eq!((chairs.text.as_str(), chairs.tokens), ("armchairs", 3));
        assert!((chairs.log_probability.exp() - 0.125).abs() < 1e-6);
        assert_eq!(CaptionText::default().mean_log_probability(), f32::NEG_INFINITY);
        let mut control = CaptionText::default();
        control.push("a\u{7}b", 0.0);
        control.push(&"x".repeat(1000), 0.0);
        assert_eq!(control.line().chars().count(), MAX_CHARS);
        assert!(control.line().starts_with("ab x"));
    }

    #[test]
    fn a_phrase_is_as_probable_as_its_tokens() {
        let of = |rule| caption("a wooden/0.5 arm/0.4 ##chair/0.1").proposals(None, rule);
        let product = of(PhraseProbability::Product);
        assert_eq!(product.len(), 1);
        assert_eq!(product[0].label, "wooden armchair");
        assert!((product[0].probability - 0.02).abs() < 1e-6);
        let mean = of(PhraseProbability::GeometricMean);
        assert!((mean[0].probability - 0.02_f32.cbrt()).abs() < 1e-6);
    }

    #[test]
    fn without_a_lexicon_runs_between_function_words_are_phrases() {
        assert_eq!(labels("a red coffee mug on the kitchen table .", None), ["coffee mug", "kitchen table"]);
        assert_eq!(labels("very tall old brick clock tower", None), ["very tall", "brick clock tower"]);
        assert_eq!(labels("a tall young slim happy man", None), ["slim happy man"]);
        assert!(labels("2 , the of", None).is_empty());
        assert!(CaptionText::default().proposals(None, PhraseProbability::Product).is_empty());
    }

    #[test]
    fn nouns_are_found_through_wordnet() {
        let dir = std::path::Path::new(super::super::lexicon::DEBIAN_DIR);
        if !dir.join("data.noun").is_file() {
            println!("skipped: no WordNet in {}", dir.display());
            return;
        }
        let lexicon = Lexicon::open(dir).unwrap();
        let cases = [
            ("a black and white cat sitting on top of a wooden park bench", vec!["cat", "park bench"]),
            (
                "two men riding motorcycles down a street next to parked cars",
                vec!["man", "motorcycle", "street", "car"],
            ),
            ("a bowl of soup and a coffee mug on a dining table", vec!["bowl", "soup", "coffee mug", "dining table"]),
            ("a chest of drawers in front of a brick building", vec!["chest of drawers", "brick", "building"]),
            ("children playing soccer with a soccer ball on the grass", vec!["child", "soccer ball", "grass"]),
            ("a teddy bear holding an umbrella and wearing glasses", vec!["teddy bear", "umbrella", "glasses"]),
        ];
        for (text, expected) in cases {
            assert_eq!(labels(text, Some(&lexicon)), expected, "{text}");
        }
    }
}
