//! The word net in memory: flat arrays that never change after loading.
//!
//! A `HashMap<String, Vec<…>>` of the same nouns takes more than a hundred megabytes and most of a second to fill;
//! rows of indices into one text take about seven megabytes.

use std::collections::HashMap;

/// A noun (a line of `index.noun`), numbered in alphabetical order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Lemma(pub(super) u32);

/// A set of synonyms (a line of `data.noun`), numbered in file order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Synset(pub(super) u32);

/// One meaning of a noun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sense {
    pub(super) synset: Synset,
    /// How often the noun has this meaning in WordNet's tagged texts.
    pub(super) count: u32,
}

/// A noun as a member of a synset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) lemma: Lemma,
    /// Written with a capital letter.
    pub(super) capital: bool,
    /// Marked as slang, an insult, a trade name or out of use: understood, but never proposed.
    pub(super) marked: bool,
}

/// The lexicographer file of a synset, lexnames(5WN): what kind of thing it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Unique beginners such as "entity" and "animal".
    Top,
    Animal,
    Artifact,
    Body,
    /// Messages, and the books and signs that carry them.
    Communication,
    Food,
    Object,
    Person,
    Plant,
    Substance,
    /// Acts, feelings, times and all else that no camera sees.
    Unseen,
}

impl Kind {
    /// By number in lexnames(5WN).
    pub(super) fn from_number(number: u32) -> Self {
        match number {
            3 => Self::Top,
            5 => Self::Animal,
            6 => Self::Artifact,
            8 => Self::Body,
            10 => Self::Communication,
            13 => Self::Food,
            17 => Self::Object,
            18 => Self::Person,
            20 => Self::Plant,
            27 => Self::Substance,
            _ => Self::Unseen,
        }
    }
}

/// Rows of different lengths, one after the other.
#[derive(Clone, Debug)]
pub(super) struct Rows<T> {
    ends: Vec<u32>,
    items: Vec<T>,
}

impl<T> Default for Rows<T> {
    fn default() -> Self {
        Self { ends: Vec::new(), items: Vec::new() }
    }
}

impl<T> Rows<T> {
    /// Adds an item to the row in the making.
    pub(super) fn push(&mut self, item: T) {
        self.items.push(item);
    }

    /// Ends the row in the making.
    pub(super) fn end_row(&mut self) {
        self.ends.push(u32::try_from(self.items.len()).unwrap_or(u32::MAX));
    }

    fn bounds(&self, row: u32) -> Option<std::ops::Range<usize>> {
        let row = row as usize;
        let end = *self.ends.get(row)? as usize;
        let start = if row == 0 { 0 } else { *self.ends.get(row - 1)? as usize };
        Some(start..end)
    }

    /// A row; empty where there is none.
    pub(super) fn row(&self, row: u32) -> &[T] {
        self.bounds(row).and_then(|bounds| self.items.get(bounds)).unwrap_or_default()
    }

    /// A row to be changed; empty where there is none.
    pub(super) fn row_mut(&mut self, row: u32) -> &mut [T] {
        let bounds = self.bounds(row);
        bounds.and_then(|bounds| self.items.get_mut(bounds)).unwrap_or_default()
    }

    /// Number of rows.
    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.ends.len()).unwrap_or(u32::MAX)
    }

    /// Adds items to the row in the making.
    pub(super) fn extend(&mut self, items: impl IntoIterator<Item = T>) {
        self.items.extend(items);
    }

    /// The same rows with every item changed; the first item that cannot be ends it.
    pub(super) fn try_map<U, E>(self, change: impl FnMut(T) -> Result<U, E>) -> Result<Rows<U>, E> {
        let items = self.items.into_iter().map(change).collect::<Result<_, E>>()?;
        Ok(Rows { ends: self.ends, items })
    }

    /// Gives back memory reserved for growth.
    fn shrink(&mut self) {
        self.ends.shrink_to_fit();
        self.items.shrink_to_fit();
    }
}

impl Rows<u8> {
    /// A row as text; the rows hold only text.
    fn text(&self, row: u32) -> &str {
        std::str::from_utf8(self.row(row)).unwrap_or_default()
    }
}

/// All nouns.
#[derive(Clone, Debug, Default)]
pub(super) struct Store {
    /// Nouns in lower case with `_` between words, in alphabetical order.
    pub(super) lemmas: Rows<u8>,
    /// By lemma, commonest first.
    pub(super) senses: Rows<Sense>,
    /// By lemma: how many nouns of several words it is a part of ("coffee mug" and "beer mug" for "mug").
    pub(super) compounds: Vec<u16>,
    /// By synset.
    pub(super) kinds: Vec<Kind>,
    /// By synset: whether it is one named thing ("the Eiffel Tower") rather than a kind of thing.
    pub(super) named: Vec<bool>,
    /// By synset.
    pub(super) words: Rows<Word>,
    /// By synset: what it is a kind or an instance of.
    pub(super) hypernyms: Rows<Synset>,
    /// By synset: its kinds and instances.
    pub(super) hyponyms: Rows<Synset>,
    /// Irregular plurals.
    pub(super) exceptions: HashMap<Box<str>, Box<[Lemma]>>,
}

impl Store {
    /// Gives back memory reserved for growth.
    pub(super) fn shrink(&mut self) {
        self.lemmas.shrink();
        self.senses.shrink();
        self.words.shrink();
        self.hypernyms.shrink();
        self.hyponyms.shrink();
        self.kinds.shrink_to_fit();
        self.named.shrink_to_fit();
    }

    /// The number of a noun written as in the files.
    pub(super) fn find(&self, lemma: &str) -> Option<Lemma> {
        let (mut low, mut high) = (0, self.lemmas.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.lemmas.row(middle).cmp(lemma.as_bytes()) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Some(Lemma(middle)),
            }
        }
        None
    }

    /// A noun by its spelling, whichever way it joins its words.
    pub(super) fn find_spelling(&self, spelling: &str) -> Option<Lemma> {
        self.find(spelling).or_else(|| {
            if !spelling.contains(['_', '-', '.']) {
                return None;
            }
            let hyphens = spelling.replace('_', "-");
            let spaces = spelling.replace('-', "_");
            let joined = spelling.replace(['_', '-'], "");
            let plain = spelling.replace('.', "");
            [hyphens, spaces, joined, plain].iter().find_map(|spelling| self.find(spelling))
        })
    }

    /// A noun as the files write it.
    pub(super) fn lemma(&self, lemma: Lemma) -> &str {
        self.lemmas.text(lemma.0)
    }

    /// A noun as people write it.
    pub(super) fn name(&self, lemma: Lemma) -> String {
        self.lemma(lemma).replace('_', " ")
    }

    pub(super) fn senses(&self, lemma: Lemma) -> &[Sense] {
        self.senses.row(lemma.0)
    }

    pub(super) fn words(&self, synset: Synset) -> &[Word] {
        self.words.row(synset.0)
    }

    pub(super) fn hypernyms(&self, synset: Synset) -> &[Synset] {
        self.hypernyms.row(synset.0)
    }

    pub(super) fn hyponyms(&self, synset: Synset) -> &[Synset] {
        self.hyponyms.row(synset.0)
    }

    pub(super) fn kind(&self, synset: Synset) -> Kind {
        self.kinds.get(synset.0 as usize).copied().unwrap_or(Kind::Unseen)
    }

    pub(super) fn is_named(&self, synset: Synset) -> bool {
        self.named.get(synset.0 as usize).copied().unwrap_or(false)
    }

    /// How often a noun stands for a synset in the tagged texts.
    pub(super) fn count(&self, lemma: Lemma, synset: Synset) -> u32 {
        self.senses(lemma).iter().find(|sense| sense.synset == synset).map_or(0, |sense| sense.count)
    }

    /// Number of nouns of several words that this one is a part of.
    pub(super) fn compounds(&self, lemma: Lemma) -> u16 {
        self.compounds.get(lemma.0 as usize).copied().unwrap_or(0)
    }

    /// Whether a noun of several words ends in another.
    pub(super) fn is_compound_of(&self, lemma: Lemma, noun: Lemma) -> bool {
        let modifiers = self.lemma(lemma).strip_suffix(self.lemma(noun));
        modifiers.is_some_and(|modifiers| modifiers.ends_with('_'))
    }
}
