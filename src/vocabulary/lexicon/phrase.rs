//! From a phrase to a noun of the word net: normalisation, base forms, and the head of a phrase it does not list.
//!
//! Base forms follow morph(7WN): the list of irregular forms first, then endings, then word by word.

use super::{
    Lexicon,
    sense::{self, Meaning},
    store::{Lemma, Store},
};

/// Longer input is no noun; refusing it bounds the work.
const MAX_BYTES: usize = 200;
/// More words are a sentence.
const MAX_WORDS: usize = 10;

/// Words before a noun that do not change what it means.
const DETERMINERS: [&str; 10] = ["a", "an", "the", "some", "this", "that", "these", "those", "one", "several"];
/// What follows one of these describes the noun before it.
const PREPOSITIONS: [&str; 14] =
    ["of", "in", "on", "with", "without", "for", "from", "at", "by", "under", "over", "near", "to", "and"];
/// "A pair of glasses" means glasses, while "a cup of coffee" means the cup.
const MEASURES: [&str; 14] =
    ["bunch", "group", "heap", "herd", "kind", "pair", "piece", "pile", "row", "set", "slice", "sort", "stack", "type"];
/// Endings and their replacements, in the order of morph(7WN).
const ENDINGS: [(&str, &str); 8] =
    [("s", ""), ("ses", "s"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"), ("men", "man"), ("ies", "y")];
/// The word net files people as a group, which no camera sees as such.
const PEOPLE: (&str, &str) = ("people", "person");
/// Shortest part of a word written in one that is looked for as two.
const MIN_PART: usize = 3;

/// The noun a phrase stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseForm {
    /// Singular noun of the word net, with spaces.
    pub noun: String,
    /// Words of the phrase that the noun leaves out, in order: "red" of "red coffee mug".
    pub cut: Vec<String>,
}

/// A phrase as the lexicon reads it.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    /// Canonical spelling: equal for phrases that differ in case, number or separators only.
    pub(super) text: String,
    pub(super) lemma: Lemma,
    pub(super) cut: Vec<String>,
    /// Likeliest first; those of the noun, where words were cut off.
    pub(super) meanings: Vec<Meaning>,
}

impl Reading {
    /// Steps from the phrase to its noun: a phrase with words cut off is a kind of the thing its noun names.
    pub(super) fn extra(&self) -> u32 {
        u32::from(!self.cut.is_empty())
    }
}

/// Lower case with single spaces, without punctuation around it; `None` for what cannot be a noun phrase.
pub(super) fn normalise(text: &str) -> Option<String> {
    if text.len() > MAX_BYTES {
        return None;
    }
    let lower = text.to_lowercase();
    let words: Vec<&str> = lower
        .split(|c: char| c.is_whitespace() || c == '_')
        .map(|word| word.trim_start_matches(|c: char| !c.is_alphanumeric() && c != '\'' && c != '.'))
        .map(|word| word.trim_end_matches(|c: char| !c.is_alphanumeric() && c != '\''))
        .filter(|word| word.contains(char::is_alphanumeric))
        .collect();
    (!words.is_empty() && words.len() <= MAX_WORDS).then(|| words.join(" "))
}

impl Lexicon {
    /// The noun a phrase stands for: its singular, or where the word net does not list the phrase, the longest end of
    /// it that names something visible. "Traffic cones" is a "traffic cone" where listed, else a "cone".
    #[must_use]
    pub fn base_form(&self, phrase: &str) -> Option<BaseForm> {
        let Reading { lemma, cut, .. } = self.read(phrase)?;
        Some(BaseForm { noun: self.store.name(lemma), cut })
    }

    /// Reads a phrase; `None` where not even its last word is known.
    pub(super) fn read(&self, phrase: &str) -> Option<Reading> {
        let text = normalise(phrase)?;
        let words: Vec<&str> = text.split(' ').collect();
        let determiners = words.iter().take_while(|word| DETERMINERS.contains(word)).count();
        let words = words.get(determiners..).filter(|words| !words.is_empty()).unwrap_or(&words);
        if let Some(lemmas) = self.known(words) {
            return Some(self.reading(&lemmas, &[], &[]));
        }
        let (words, after) = split_at_preposition(words);
        for start in 0..words.len() {
            let (modifiers, head) = words.split_at(start);
            let Some(lemmas) = self.known(head) else { continue };
            let reading = self.reading(&lemmas, modifiers, after);
            if !reading.meanings.is_empty() {
                return Some(self.apposition(modifiers, &reading).unwrap_or(reading));
            }
        }
        None
    }

    /// "Banana fruit" means the banana, since that is a fruit; a "fruit bowl" remains a bowl.
    fn apposition(&self, modifiers: &[&str], head: &Reading) -> Option<Reading> {
        let mut splits = (0..modifiers.len()).map(|start| modifiers.split_at(start));
        let reading = splits.find_map(|(before, noun)| Some(self.reading(&self.known(noun)?, before, &[])))?;
        let first = reading.meanings.iter().filter(|meaning| meaning.penalty == 0);
        let is_kind = |meaning: &Meaning| head.meanings.iter().any(|head| meaning.steps_to(head.synset) > Some(0));
        let is_apposition = first.into_iter().any(is_kind);
        is_apposition.then_some(reading)
    }

    /// The nouns that words may be a form of, none if unknown. Something visible comes first: "men" is listed as
    /// workforce.
    pub(super) fn known(&self, words: &[&str]) -> Option<Vec<Lemma>> {
        let mut lemmas = forms(&self.store, &words.join("_"));
        lemmas.sort_by_key(|&lemma| sense::visible_synsets(&self.store, &self.traits, lemma).is_empty());
        (!lemmas.is_empty()).then_some(lemmas)
    }

    fn reading(&self, lemmas: &[Lemma], before: &[&str], after: &[&str]) -> Reading {
        let lemma = lemmas.first().copied().unwrap_or(Lemma(0));
        let cut: Vec<String> = before.iter().chain(after).map(ToString::to_string).collect();
        let noun = self.store.lemma(lemma);
        let text = before.iter().copied().chain([noun]).chain(after.iter().copied()).collect::<Vec<_>>().join(" ");
        let mut meanings: Vec<Meaning> = Vec::new();
        for (form, &lemma) in lemmas.iter().enumerate() {
            for (synset, penalty) in sense::visible_synsets(&self.store, &self.traits, lemma) {
                if !meanings.iter().any(|meaning| meaning.synset == synset) {
                    // "Glasses" are spectacles before they are several a "glass".
                    let penalty = penalty + u32::from(form > 0);
                    meanings.push(Meaning { synset, penalty, above: sense::above(&self.store, synset) });
                }
            }
        }
        Reading { text, lemma, cut, meanings }
    }
}

/// Splits a phrase into its noun phrase and what stands after it.
fn split_at_preposition<'a, 'w>(words: &'a [&'w str]) -> (&'a [&'w str], &'a [&'w str]) {
    let Some(at) = words.iter().position(|word| PREPOSITIONS.contains(word)).filter(|&at| at > 0) else {
        return (words, &[]);
    };
    let (head, rest) = words.split_at(at);
    let measure = head.last().map(|word| word.strip_suffix('s').unwrap_or(word));
    match rest.split_first() {
        Some((&"of", content)) if !content.is_empty() && measure.is_some_and(|m| MEASURES.contains(&m)) => {
            (content, &[])
        }
        _ => (head, rest),
    }
}

/// All nouns that a spelling (words joined by `_`) may be a form of, likeliest first.
pub(super) fn forms(store: &Store, spelling: &str) -> Vec<Lemma> {
    let mut found: Vec<Lemma> = store.find_spelling(spelling).into_iter().collect();
    found.extend(morphy(store, spelling));
    if spelling == PEOPLE.0 {
        found.extend(store.find(PEOPLE.1));
    }
    if found.is_empty() {
        found.extend(find_apart(store, spelling));
    }
    let mut seen = Vec::with_capacity(found.len());
    found.retain(|lemma| {
        !seen.contains(lemma) && {
            seen.push(*lemma);
            true
        }
    });
    found
}

/// Base forms other than the spelling itself, as morph(7WN) finds them.
pub(super) fn morphy(store: &Store, spelling: &str) -> Vec<Lemma> {
    if let Some(bases) = store.exceptions.get(spelling) {
        return bases.to_vec();
    }
    let whole: Vec<Lemma> = endings(spelling).filter_map(|form| store.find_spelling(&form)).collect();
    if !whole.is_empty() || !spelling.contains(['_', '-']) {
        return whole;
    }
    let mut joined = String::with_capacity(spelling.len());
    for part in spelling.split_inclusive(['_', '-']) {
        let word = part.trim_end_matches(['_', '-']);
        match morphy(store, word).first() {
            Some(&base) => joined.push_str(store.lemma(base)),
            None => joined.push_str(word),
        }
        joined.push_str(part.get(word.len()..).unwrap_or_default());
    }
    if joined == spelling { Vec::new() } else { store.find_spelling(&joined).into_iter().collect() }
}

/// What a regular plural may be the plural of.
fn endings(word: &str) -> impl Iterator<Item = String> {
    // "Boxesful" is the plural of "boxful".
    let (stem, tail) = match word.strip_suffix("ful") {
        Some(stem) => (stem, "ful"),
        None => (word, ""),
    };
    let applies = !stem.ends_with("ss") && stem.len() > 2;
    ENDINGS.into_iter().filter(move |_| applies).filter_map(move |(ending, replacement)| {
        let root = stem.strip_suffix(ending).filter(|root| !root.is_empty())?;
        Some(format!("{root}{replacement}{tail}"))
    })
}

/// "Barstool" where only "bar stool" is listed.
fn find_apart(store: &Store, spelling: &str) -> Option<Lemma> {
    if spelling.contains(['_', '-']) {
        return None;
    }
    let ends = spelling.len().saturating_sub(MIN_PART);
    (MIN_PART..=ends).find_map(|at| {
        let (first, second) = spelling.split_at_checked(at)?;
        store.find(&format!("{first}_{second}"))
    })
}
