//! Reading the database files: bytes in, a [`Store`] or an error that names the line out.
//!
//! The format is that of wndb(5WN), cntlist(5WN) and the exception lists of morph(7WN). Glosses, verb frames and
//! pointers other than hypernyms and usage marks are passed over.

use std::collections::HashMap;

use super::{
    derive,
    error::LexiconError,
    store::{Kind, Lemma, Rows, Sense, Store, Synset, Word},
};

/// Names of the files.
pub(super) const INDEX: &str = "index.noun";
pub(super) const DATA: &str = "data.noun";
pub(super) const EXCEPTIONS: &str = "noun.exc";
pub(super) const COUNTS: &str = "cntlist.rev";

/// A synset that says how a word is used; what is used so is never proposed.
const MARKS: [&str; 7] = ["archaism", "disparagement", "ethnic_slur", "obscenity", "slang", "trade_name", "trademark"];

/// Contents of the files.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sources<'a> {
    pub(super) index: &'a [u8],
    pub(super) data: &'a [u8],
    pub(super) exceptions: &'a [u8],
    /// Empty where the file is not installed: senses then keep the order of the index.
    pub(super) counts: &'a [u8],
}

/// Reads all nouns.
pub(super) fn read(sources: &Sources<'_>) -> Result<Store, LexiconError> {
    let mut store = Store::default();
    let mentions = read_index(text(INDEX, sources.index)?, &mut store)?;
    read_data(text(DATA, sources.data)?, &mentions, &mut store)?;
    read_exceptions(text(EXCEPTIONS, sources.exceptions)?, &mut store)?;
    read_counts(text(COUNTS, sources.counts)?, &mut store)?;
    store.compounds = derive::compounds(&store);
    store.shrink();
    Ok(store)
}

/// The fields of one line.
struct Line<'a> {
    file: &'static str,
    number: usize,
    /// What is not read yet.
    rest: &'a str,
}

impl<'a> Line<'a> {
    fn error(&self, expected: &'static str, found: &str) -> LexiconError {
        LexiconError::format(self.file, self.number, expected, found.as_bytes())
    }

    fn text(&mut self, expected: &'static str) -> Result<&'a str, LexiconError> {
        // Most fields have less than ten bytes: a plain loop is faster than `str::split` and its search for long texts.
        let end = self.rest.bytes().position(|byte| byte == b' ');
        let (field, rest) = end.and_then(|end| self.rest.split_at_checked(end)).unwrap_or((self.rest, ""));
        self.rest = rest.strip_prefix(' ').unwrap_or_default();
        if field.is_empty() { Err(self.error(expected, "end of line")) } else { Ok(field) }
    }

    fn number(&mut self, radix: u32, expected: &'static str) -> Result<u32, LexiconError> {
        let text = self.text(expected)?;
        u32::from_str_radix(text, radix).map_err(|_| self.error(expected, text))
    }
}

/// A whole file as text.
fn text<'a>(file: &'static str, bytes: &'a [u8]) -> Result<&'a str, LexiconError> {
    std::str::from_utf8(bytes).map_err(|error| {
        let (good, bad) = bytes.split_at(error.valid_up_to());
        let line = good.iter().filter(|&&byte| byte == b'\n').count() + 1;
        LexiconError::format(file, line, "UTF-8", bad)
    })
}

/// The lines of a file without those of the licence, which start with two spaces, and without glosses.
fn lines<'a>(file: &'static str, text: &'a str) -> impl Iterator<Item = Result<Line<'a>, LexiconError>> {
    let lines = text.split_inclusive('\n').enumerate().filter(|(_, line)| !line.starts_with("  "));
    lines.map(move |(at, line)| {
        let number = at + 1;
        let error = |expected| LexiconError::format(file, number, expected, line.as_bytes());
        let content = line.strip_suffix('\n').ok_or_else(|| error("a line end, as the file is cut off"))?;
        let content = match content.split_once('|') {
            Some((content, _)) => content,
            None if file == DATA => return Err(error("'|' and a gloss")),
            None => content,
        };
        Ok(Line { file, number, rest: content.trim_ascii_end() })
    })
}

/// That the index lists a noun for a synset.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Mention {
    offset: u32,
    lemma: Lemma,
    /// Which of the noun's senses it is.
    sense: u32,
    line: u32,
}

/// Fills the lemmas and returns what the index says about synsets, in order of their offsets.
fn read_index(text: &str, store: &mut Store) -> Result<Vec<Mention>, LexiconError> {
    let mut mentions = Vec::new();
    let mut last = "";
    for line in lines(INDEX, text) {
        let mut line = line?;
        let name = line.text("a noun")?;
        if name <= last {
            return Err(line.error("nouns in alphabetical order", name));
        }
        last = name;
        let part = line.text("part of speech 'n'")?;
        if part != "n" {
            return Err(line.error("part of speech 'n'", part));
        }
        let synsets = line.number(10, "the number of synsets")?;
        let pointers = line.number(10, "the number of pointer symbols")?;
        for _ in 0..pointers {
            line.text("a pointer symbol")?;
        }
        line.number(10, "the number of senses")?;
        line.number(10, "the number of tagged senses")?;
        let lemma = Lemma(store.lemmas.len());
        for sense in 0..synsets {
            let offset = line.number(10, "a synset offset")?;
            mentions.push(Mention { offset, lemma, sense, line: u32::try_from(line.number).unwrap_or(u32::MAX) });
            store.senses.push(Sense { synset: Synset(u32::MAX), count: 0 });
        }
        store.senses.end_row();
        store.lemmas.extend(name.bytes());
        store.lemmas.end_row();
    }
    mentions.sort_unstable();
    Ok(mentions)
}

/// A pointer of a synset: where it stands and what it points at.
struct Pointer {
    line: usize,
    offset: u32,
}

/// Fills what is stored by synset.
fn read_data(text: &str, mut mentions: &[Mention], store: &mut Store) -> Result<(), LexiconError> {
    let mut offsets: Vec<u32> = Vec::new();
    let mut hypernyms: Rows<Pointer> = Rows::default();
    let mut marks: Vec<(Synset, usize, Pointer)> = Vec::new();
    for line in lines(DATA, text) {
        let mut line = line?;
        let synset = Synset(store.words.len());
        let offset = line.number(10, "the synset's offset")?;
        if offsets.last().is_some_and(|&last| last >= offset) {
            return Err(line.error("offsets in rising order", &offset.to_string()));
        }
        offsets.push(offset);
        store.kinds.push(Kind::from_number(line.number(10, "a lexicographer file number")?));
        let part = line.text("synset type 'n'")?;
        if part != "n" {
            return Err(line.error("synset type 'n'", part));
        }
        // Both files are in order of the offsets, so what the index says about this synset comes first now.
        let (here, later) = mentions.split_at(mentions.iter().take_while(|mention| mention.offset <= offset).count());
        check_offsets(here, offset)?;
        mentions = later;
        for _ in 0..line.number(16, "the number of words")? {
            let name = line.text("a word")?;
            let is_it = |mention: &&Mention| same_noun(store.lemma(mention.lemma), name);
            let &Mention { lemma, sense, .. } =
                here.iter().find(is_it).ok_or_else(|| line.error("a word that index.noun lists here", name))?;
            if let Some(sense) = store.senses.row_mut(lemma.0).get_mut(sense as usize) {
                sense.synset = synset;
            }
            store.words.push(Word { lemma, capital: name.contains(char::is_uppercase), marked: false });
            line.number(16, "a lexical id")?;
        }
        store.words.end_row();
        let mut named = false;
        for _ in 0..line.number(10, "the number of pointers")? {
            let symbol = line.text("a pointer symbol")?;
            let offset = line.text("a synset offset")?;
            let part = line.text("a part of speech")?;
            let ends = line.text("the words that a pointer joins")?;
            let is_mark = symbol == ";u" && part == "n";
            if !is_mark && symbol != "@" && symbol != "@i" {
                continue;
            }
            let error = |found| line.error("a pointer's offset and words", found);
            let pointer = Pointer { line: line.number, offset: offset.parse().map_err(|_| error(offset))? };
            if is_mark {
                let ends = u32::from_str_radix(ends, 16).map_err(|_| error(ends))?;
                marks.push((synset, (ends >> 8) as usize, pointer));
            } else {
                hypernyms.push(pointer);
                named |= symbol == "@i";
            }
        }
        hypernyms.end_row();
        store.named.push(named);
    }
    check_offsets(mentions, u32::MAX)?;
    store.hypernyms = hypernyms.try_map(|pointer| resolve(&offsets, &pointer))?;
    store.hyponyms = derive::reverse(&store.hypernyms);
    if let Some(synset) = derive::find_circle(store) {
        let mut lines = text.lines().enumerate().filter(|(_, line)| !line.starts_with("  "));
        let (line, found) = lines.nth(synset.0 as usize).unwrap_or_default();
        return Err(LexiconError::format(DATA, line + 1, "hypernyms without a circle", found.as_bytes()));
    }
    for (synset, word, pointer) in marks {
        let usage = resolve(&offsets, &pointer)?;
        let is_mark = store.words(usage).iter().any(|word| MARKS.contains(&store.lemma(word.lemma)));
        // Word 0 stands for all of them.
        for (at, entry) in store.words.row_mut(synset.0).iter_mut().enumerate() {
            entry.marked |= is_mark && (word == 0 || word == at + 1);
        }
    }
    Ok(())
}

/// Whether a word of data.noun, which keeps its capitals, is a noun of index.noun.
fn same_noun(lemma: &str, word: &str) -> bool {
    lemma.eq_ignore_ascii_case(word) || (!word.is_ascii() && lemma == word.to_lowercase())
}

/// What the index lists must be in data.noun.
fn check_offsets(mentions: &[Mention], offset: u32) -> Result<(), LexiconError> {
    match mentions.iter().find(|mention| mention.offset != offset) {
        Some(mention) => {
            let found = format!("{:08}", mention.offset);
            let expected = "the offset of a line of data.noun";
            Err(LexiconError::format(INDEX, mention.line as usize, expected, found.as_bytes()))
        }
        None => Ok(()),
    }
}

fn resolve(offsets: &[u32], pointer: &Pointer) -> Result<Synset, LexiconError> {
    let found = offsets.binary_search(&pointer.offset).ok().and_then(|at| u32::try_from(at).ok());
    found.map(Synset).ok_or_else(|| {
        let found = format!("{:08}", pointer.offset);
        LexiconError::format(DATA, pointer.line, "a pointer to a synset of this file", found.as_bytes())
    })
}

fn read_exceptions(text: &str, store: &mut Store) -> Result<(), LexiconError> {
    let mut exceptions = HashMap::new();
    for line in lines(EXCEPTIONS, text) {
        let mut line = line?;
        let plural = line.text("an irregular form")?;
        let first = line.text("a base form")?;
        // Some base forms are not in the index; they mean nothing here.
        let bases = std::iter::once(first).chain(line.rest.split(' ')).filter_map(|base| store.find_spelling(base));
        exceptions.insert(Box::from(plural), bases.collect());
    }
    store.exceptions = exceptions;
    Ok(())
}

/// Lines are `lemma%1:06:00:: 4 12`: the noun, its lexicographer file, the number of the sense, its count.
fn read_counts(text: &str, store: &mut Store) -> Result<(), LexiconError> {
    for line in lines(COUNTS, text) {
        let mut line = line?;
        let key = line.text("a sense key")?;
        let number = line.number(10, "a sense number")?;
        let count = line.number(10, "a count")?;
        let (lemma, rest) = key.split_once('%').ok_or_else(|| line.error("a sense key", key))?;
        let Some(kind) = rest.strip_prefix("1:") else { continue };
        let kind = kind.split(':').next().and_then(|kind| kind.parse().ok()).map(Kind::from_number);
        let kind = kind.ok_or_else(|| line.error("a sense key", key))?;
        let Some(lemma) = store.find(lemma) else { continue };
        let at = (number as usize).wrapping_sub(1);
        let Some(synset) = store.senses(lemma).get(at).map(|sense| sense.synset) else { continue };
        // Counts of another edition of the database may number the senses otherwise.
        if store.kind(synset) == kind
            && let Some(sense) = store.senses.row_mut(lemma.0).get_mut(at)
        {
            sense.count = count;
        }
    }
    Ok(())
}
