//! English nouns and what they are kinds of, from WordNet's database files: the vocabulary's stand-in for a language
//! model where there is no network.
//!
//! Reading order: `read` turns the files into a `store` and `derive` adds what follows; `sense` says which meanings a
//! camera can see; `phrase` finds the noun in a phrase; `relation` compares phrases (the pre- and post-refinement of LLM
//! refinement), `group` builds a hierarchy (LLM2Labels), `listing` proposes nouns, `spot` finds them in captions.
//! Everything is pure after [`Lexicon::open`]: text in, values out, and text that makes no sense gives nothing.

mod derive;
mod error;
#[cfg(test)]
mod fixture;
mod group;
mod listing;
mod phrase;
mod read;
mod relation;
mod sense;
mod spot;
mod store;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_wordnet;

use std::path::Path;

pub use self::{
    error::LexiconError,
    group::Group,
    phrase::BaseForm,
    relation::{Match, Relation},
};
use self::{read::Sources, sense::Traits, store::Store};

/// Where Debian's package `wordnet-base` puts the files.
pub const DEBIAN_DIR: &str = "/usr/share/wordnet";

/// Largest file that is read; WordNet's largest has 15 MB.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// The nouns of a word net. Never changes after loading, so threads share it by reference.
#[derive(Clone, Debug)]
pub struct Lexicon {
    store: Store,
    traits: Traits,
}

impl Lexicon {
    /// Reads `index.noun`, `data.noun`, `noun.exc` and, where it exists, `cntlist.rev` from a folder. Without the last,
    /// meanings keep WordNet's order but lists are not sorted by frequency.
    ///
    /// # Errors
    /// [`LexiconError`] naming the file, and the line where its content is wrong.
    pub fn open(dir: &Path) -> Result<Self, LexiconError> {
        let read = |name| read_file(dir, name);
        let (index, data, exceptions) = (read(read::INDEX)?, read(read::DATA)?, read(read::EXCEPTIONS)?);
        let counts = if dir.join(read::COUNTS).exists() { read(read::COUNTS)? } else { Vec::new() };
        Self::parse(&Sources { index: &index, data: &data, exceptions: &exceptions, counts: &counts })
    }

    fn parse(sources: &Sources<'_>) -> Result<Self, LexiconError> {
        let store = read::read(sources)?;
        let traits = Traits::new(&store);
        Ok(Self { store, traits })
    }
}

fn read_file(dir: &Path, name: &str) -> Result<Vec<u8>, LexiconError> {
    let path = dir.join(name);
    let size = std::fs::metadata(&path).map(|metadata| metadata.len());
    match size.and_then(|size| if size > MAX_FILE_BYTES { Ok(Err(size)) } else { std::fs::read(&path).map(Ok) }) {
        Ok(Ok(text)) => Ok(text),
        Ok(Err(found)) => Err(LexiconError::TooLarge { path, found, limit: MAX_FILE_BYTES }),
        Err(source) => Err(LexiconError::Read { path, source }),
    }
}
