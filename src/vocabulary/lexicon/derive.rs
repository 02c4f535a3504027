//! What follows from the files once they are read.

use super::store::{Lemma, Rows, Store, Synset};

/// By lemma: the number of nouns of several words that it is a part of ("coffee mug" for "coffee" and for "mug").
pub(super) fn compounds(store: &Store) -> Vec<u16> {
    let mut compounds = vec![0_u16; store.lemmas.len() as usize];
    for lemma in (0..store.lemmas.len()).map(Lemma) {
        let name = store.lemma(lemma);
        for part in name.split('_').filter(|part| part.len() < name.len()).filter_map(|part| store.find(part)) {
            if let Some(count) = compounds.get_mut(part.0 as usize) {
                *count = count.saturating_add(1);
            }
        }
    }
    compounds
}

/// A synset that is a kind of itself, or below one: groups of labels would be each other's parents.
pub(super) fn find_circle(store: &Store) -> Option<Synset> {
    let synsets = store.words.len();
    let mut waiting: Vec<usize> = (0..synsets).map(|synset| store.hypernyms.row(synset).len()).collect();
    let mut ready: Vec<Synset> = (0..synsets).map(Synset).filter(|&s| store.hypernyms(s).is_empty()).collect();
    while let Some(synset) = ready.pop() {
        for &below in store.hyponyms(synset) {
            if let Some(count) = waiting.get_mut(below.0 as usize) {
                *count -= 1;
                if *count == 0 {
                    ready.push(below);
                }
            }
        }
    }
    let at = waiting.iter().position(|&count| count > 0)?;
    u32::try_from(at).ok().map(Synset)
}

/// Turns "is a kind of" round.
pub(super) fn reverse(hypernyms: &Rows<Synset>) -> Rows<Synset> {
    let rows = (0..hypernyms.len()).map(|synset| (synset, hypernyms.row(synset)));
    let mut pairs: Vec<(Synset, Synset)> =
        rows.flat_map(|(synset, above)| above.iter().map(move |&above| (above, Synset(synset)))).collect();
    pairs.sort_unstable();
    let mut pairs = pairs.into_iter().peekable();
    let mut below = Rows::default();
    for synset in 0..hypernyms.len() {
        while let Some((_, hyponym)) = pairs.next_if(|&(above, _)| above.0 == synset) {
            below.push(hyponym);
        }
        below.end_row();
    }
    below
}
