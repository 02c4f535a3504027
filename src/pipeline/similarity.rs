//! Sentence similarity: which class a phrase is nearest to in the space of the detector's own language encoder.
//!
//! A name's embedding is the mean of its token features, as all-MiniLM-L6-v2 pools them (without the special tokens); two are
//! compared by their cosine, as in the text-to-text reassignment of Zero-guidance Segmentation (section 4).

use super::PreparedVocabulary;
use crate::inference::{EncodedText, PhraseSpan};

/// Embeddings of every name of a vocabulary's classes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClassEmbeddings {
    /// Index of the class, and a name's embedding of length 1.
    names: Vec<(usize, Vec<f32>)>,
}

impl ClassEmbeddings {
    /// Made of the text features that the detector is prompted with; empty for detectors with the text encoder inside.
    #[must_use]
    pub fn of(prepared: &PreparedVocabulary) -> Self {
        let spans = prepared.captions.iter().flat_map(|text| text.spans.iter().map(move |span| (text, span)));
        let names = spans.filter_map(|(text, span)| {
            let entry = prepared.phrases.get(span.phrase)?.entry;
            Some((entry, embedding(text, span)?))
        });
        Self { names: names.collect() }
    }

    /// The class with the name nearest to the first phrase of `text`, and their cosine in [-1, 1].
    #[must_use]
    pub fn nearest(&self, text: &EncodedText) -> Option<(usize, f32)> {
        let phrase = embedding(text, text.spans.first()?)?;
        let cosine = |name: &[f32]| name.iter().zip(&phrase).map(|(a, b)| a * b).sum::<f32>();
        let all = self.names.iter().filter(|(_, name)| name.len() == phrase.len());
        all.map(|(entry, name)| (*entry, cosine(name))).max_by(|a, b| a.1.total_cmp(&b.1))
    }
}

/// The mean of a phrase's token features, of length 1; `None` without features.
fn embedding(text: &EncodedText, span: &PhraseSpan) -> Option<Vec<f32>> {
    let size = text.feature_size;
    let tokens = text.features.get(span.tokens.start * size..span.tokens.end * size)?;
    let mut sum = vec![0.0; size];
    for token in tokens.chunks_exact(size.max(1)) {
        for (sum, value) in sum.iter_mut().zip(token) {
            *sum += value;
        }
    }
    let length = sum.iter().map(|v| v * v).sum::<f32>().sqrt();
    (length > 0.0).then(|| sum.iter().map(|v| v / length).collect())
}
