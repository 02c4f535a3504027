//! From phrases to text features: captions, tokens, and which tokens belong to which phrase.
//!
//! Captions follow Grounding DINO: phrases in lower case, each closed by a full stop ("a cat. a dog."), WordPiece tokens
//! between `[CLS]` and `[SEP]`. A list that needs more tokens than the model reads is cut into several captions.

use std::{
    ops::Range,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokenizers::{
    ModelWrapper, Tokenizer, models::wordpiece::WordPiece, normalizers::BertNormalizer,
    pre_tokenizers::bert::BertPreTokenizer, processors::bert::BertProcessing,
};

use super::{
    Bundle, BundleKind, InferenceError, contract,
    contract::Dim,
    ort::{Element, Input, Model, ModelOptions},
};

/// A caption and where its phrases stand in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caption {
    /// `"a cat. a dog."`
    pub text: String,
    /// Index of each phrase in the list the captions were made from, and its bytes in `text` (without the full stop).
    pub phrases: Vec<(usize, Range<usize>)>,
}

impl Caption {
    fn new() -> Self {
        Self { text: String::new(), phrases: Vec::new() }
    }

    fn push(&mut self, index: usize, phrase: &str) {
        if !self.text.is_empty() {
            self.text.push(' ');
        }
        let start = self.text.len();
        self.text.push_str(phrase);
        self.phrases.push((index, start..self.text.len()));
        self.text.push('.');
    }

    /// One caption of all phrases.
    #[must_use]
    pub fn of(phrases: &[&str]) -> Self {
        let mut caption = Self::new();
        for (index, phrase) in phrases.iter().enumerate() {
            caption.push(index, phrase);
        }
        caption
    }
}

/// The tokens of one phrase within a caption.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PhraseSpan {
    /// Index in the list of phrases.
    pub phrase: usize,
    /// Its tokens, without the full stop that closes it.
    pub tokens: Range<usize>,
}

/// A caption as the detector takes it. Made once per vocabulary, never per frame.
#[derive(Clone, Debug, PartialEq)]
pub struct EncodedText {
    /// Token ids i64[1, T], `[CLS]` first and `[SEP]` last.
    pub input_ids: Vec<i64>,
    /// Ones i64[1, T]; captions are not padded.
    pub attention_mask: Vec<i64>,
    /// Zeros i64[1, T].
    pub token_type_ids: Vec<i64>,
    /// Text features f32[1, T, D]; empty for detectors with the text encoder inside.
    pub features: Vec<f32>,
    /// D; 0 when there are no features.
    pub feature_size: usize,
    /// The phrases, in the order of their tokens.
    pub spans: Vec<PhraseSpan>,
    /// The tokens as the tokenizer spells them, for labels made of tokens.
    pub pieces: Vec<Arc<str>>,
}

impl EncodedText {
    /// Number of tokens T.
    #[must_use]
    pub fn len(&self) -> usize {
        self.input_ids.len()
    }

    /// Whether there is no token at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.input_ids.is_empty()
    }

    /// The text of the tokens at `positions`, joined as the WordPiece decoder of `tokenizers` (with `cleanup`) joins
    /// them; Hugging Face's label of a detection.
    #[must_use]
    pub fn decode(&self, positions: impl Iterator<Item = usize>) -> String {
        let mut text = String::new();
        for piece in positions.filter_map(|p| self.pieces.get(p)) {
            match piece.strip_prefix("##") {
                Some(rest) if !text.is_empty() => text.push_str(rest),
                _ => {
                    // The decoder's clean-up, token by token: punctuation takes no space before it.
                    let closes = matches!(&**piece, "." | "?" | "!" | ",");
                    if !text.is_empty() && !closes {
                        text.push(' ');
                    }
                    text.push_str(piece);
                }
            }
        }
        text
    }
}

/// Tokenizer and, for split detectors, the text encoder
/// (`input_ids`, `attention_mask`, `token_type_ids` i64[b, T] → `text_features` f32[b, T, D]).
pub struct TextEncoder {
    tokenizer: Tokenizer,
    /// What the tokenizer makes of words that it does not know.
    unknown: Option<u32>,
    model: Option<(Model, usize)>,
    max_tokens: usize,
    stop: Arc<AtomicBool>,
}

const TEXT_INPUTS: [&str; 3] = ["input_ids", "attention_mask", "token_type_ids"];

/// BERT's token for what it does not know.
const UNKNOWN: &str = "[UNK]";
/// BERT's tokens before and after a text.
const FRAME: [&str; 2] = ["[CLS]", "[SEP]"];

impl TextEncoder {
    /// Loads the text side of a Grounding DINO bundle. Without a `text_encoder` file the detector is a fused one, and
    /// only the tokenizer is loaded.
    ///
    /// # Errors
    /// When a file is missing, broken or against the contract; when the tokenizer puts no special tokens around a text.
    pub fn load(bundle: &Bundle, options: &ModelOptions) -> Result<Self, InferenceError> {
        bundle.expect_kind(BundleKind::GroundingDino)?;
        let path = bundle.file("tokenizer")?;
        let mut tokenizer = load_tokenizer(path)?;
        if is_word_list(path) {
            add_frame(&mut tokenizer, path)?;
        }
        check_frame(&tokenizer, path)?;
        let unknown = match tokenizer.get_model() {
            ModelWrapper::WordPiece(pieces) => tokenizer.token_to_id(&pieces.unk_token),
            _ => tokenizer.token_to_id(UNKNOWN),
        };
        let model = match bundle.optional_file("text_encoder") {
            None => None,
            Some(_) => {
                let path = bundle.model("text_encoder", options.provider)?;
                let model = Model::load(path, &["text_features"], options)?;
                for name in TEXT_INPUTS {
                    contract::input(&model, name, Element::I64, &[Dim::Batch, Dim::Open])?;
                }
                contract::no_other_inputs(&model, &TEXT_INPUTS)?;
                let features =
                    contract::output(&model, "text_features", Element::F32, &[Dim::Batch, Dim::Any, Dim::Fixed])?;
                let size = features.shape.last().copied().flatten().unwrap_or_default();
                Some((model, size))
            }
        };
        Ok(Self { tokenizer, unknown, model, max_tokens: bundle.max_tokens, stop: Arc::default() })
    }

    /// Refuses to encode once `stop` is true: a long list of names takes many runs of the model, and somebody may be waiting
    /// for its end.
    pub fn stop_when(&mut self, stop: Arc<AtomicBool>) {
        self.stop = stop;
    }

    /// Token ids of a phrase on its own; `None` where the tokenizer knows no part of it, so that nothing tells it from
    /// another such phrase.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn known_tokens(&self, phrase: &str) -> Result<Option<Vec<u32>>, InferenceError> {
        let encoding = self.tokenizer.encode(phrase, false).map_err(broken)?;
        let ids = encoding.get_ids();
        let known = ids.iter().any(|id| Some(*id) != self.unknown);
        Ok(known.then(|| ids.to_vec()))
    }

    /// Distributes `phrases` over as few captions as the token limit allows, in their order.
    ///
    /// # Errors
    /// When one phrase alone exceeds the limit.
    pub fn captions<S: AsRef<str>>(&self, phrases: &[S]) -> Result<Vec<Caption>, InferenceError> {
        self.captions_of(phrases.iter().map(|phrase| phrase.as_ref()).enumerate())
    }

    /// As [`Self::captions`], for some phrases of a list, each with its index there.
    ///
    /// # Errors
    /// When one phrase alone exceeds the limit.
    pub fn captions_of<'p>(
        &self,
        phrases: impl IntoIterator<Item = (usize, &'p str)>,
    ) -> Result<Vec<Caption>, InferenceError> {
        let mut captions = Vec::new();
        let mut caption = Caption::new();
        let mut used = FRAME.len();
        for (index, phrase) in phrases {
            // Phrases do not influence each other's tokens: the delimiter between them is a word boundary.
            let encoding = self.tokenizer.encode(format!("{phrase}."), false).map_err(broken)?;
            let tokens = encoding.get_ids().len();
            if tokens + FRAME.len() > self.max_tokens {
                return Err(InferenceError::PhraseTooLong {
                    phrase: phrase.to_owned(),
                    tokens: tokens + FRAME.len(),
                    limit: self.max_tokens,
                });
            }
            if used + tokens > self.max_tokens {
                captions.push(std::mem::replace(&mut caption, Caption::new()));
                used = FRAME.len();
            }
            used += tokens;
            caption.push(index, phrase);
        }
        if !caption.phrases.is_empty() {
            captions.push(caption);
        }
        Ok(captions)
    }

    /// Tokenises a caption, finds the tokens of each phrase, and runs the text encoder if there is one.
    ///
    /// # Errors
    /// When the tokenizer or the model fails, the caption exceeds the token limit, a phrase has no token of its own, or it was
    /// stopped ([`Self::stop_when`]).
    pub fn encode(&mut self, caption: &Caption) -> Result<EncodedText, InferenceError> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(InferenceError::Stopped);
        }
        let encoding = self.tokenizer.encode(caption.text.as_str(), true).map_err(broken)?;
        let input_ids: Vec<i64> = encoding.get_ids().iter().map(|&id| i64::from(id)).collect();
        let length = input_ids.len();
        if length > self.max_tokens {
            return Err(InferenceError::PhraseTooLong {
                phrase: caption.text.clone(),
                tokens: length,
                limit: self.max_tokens,
            });
        }
        let spans = spans(caption, encoding.get_offsets(), encoding.get_special_tokens_mask())?;
        let mut text = EncodedText {
            attention_mask: vec![1; length],
            token_type_ids: vec![0; length],
            features: Vec::new(),
            feature_size: 0,
            spans,
            pieces: encoding.get_tokens().iter().map(|t| Arc::from(t.as_str())).collect(),
            input_ids,
        };
        if let Some((model, size)) = &mut self.model {
            let shape = [1, length];
            let outputs = model.run(&[
                ("input_ids", Input::I64(&shape, &text.input_ids)),
                ("attention_mask", Input::I64(&shape, &text.attention_mask)),
                ("token_type_ids", Input::I64(&shape, &text.token_type_ids)),
            ])?;
            let (found, features) = outputs.f32("text_features")?;
            contract::shape(outputs.model(), "text_features", found, &[1, length, *size])?;
            text.features = features.to_vec();
            text.feature_size = *size;
        }
        Ok(text)
    }
}

/// Reads `tokenizer.json`, or a list of WordPiece tokens (`*.txt`, one a line) as BERT uncased has it.
pub(super) fn load_tokenizer(path: &Path) -> Result<Tokenizer, InferenceError> {
    let read = if is_word_list(path) { word_pieces(path) } else { Tokenizer::from_file(path) };
    let mut tokenizer = read.map_err(|e| InferenceError::Tokenizer(format!("{}: {e}", path.display())))?;
    // Published tokenizer files often cut or pad to the length their model was trained with; captions must come through
    // whole, and too long ones are this module's business.
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(broken)?;
    Ok(tokenizer)
}

/// Whether a tokenizer's file is a plain list of tokens.
fn is_word_list(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "txt")
}

fn word_pieces(path: &Path) -> tokenizers::Result<Tokenizer> {
    let model = WordPiece::from_file(&path.to_string_lossy()).unk_token(UNKNOWN.into()).build()?;
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_normalizer(Some(BertNormalizer::new(true, true, None, true)));
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    Ok(tokenizer)
}

/// Lets a tokenizer made of a list of tokens put BERT's special tokens around a text; the list does not say so.
fn add_frame(tokenizer: &mut Tokenizer, path: &Path) -> Result<(), InferenceError> {
    let token = |name: &str| match tokenizer.token_to_id(name) {
        Some(id) => Ok((name.to_owned(), id)),
        None => {
            let [before, after] = FRAME;
            let reason = format!("{}: expected the tokens {before} and {after}, found no {name}", path.display());
            Err(InferenceError::Tokenizer(reason))
        }
    };
    let [before, after] = FRAME;
    let frame = BertProcessing::new(token(after)?, token(before)?);
    tokenizer.with_post_processor(Some(frame));
    Ok(())
}

/// Checks that a tokenizer puts one special token before a text and one after it: a detector that was trained with them
/// gives other boxes without, and says nothing.
fn check_frame(tokenizer: &Tokenizer, path: &Path) -> Result<(), InferenceError> {
    let encoding = tokenizer.encode("a", true).map_err(broken)?;
    if let [1, text @ .., 1] = encoding.get_special_tokens_mask()
        && !text.is_empty()
        && !text.contains(&1)
    {
        return Ok(());
    }
    let ([before, after], found) = (FRAME, encoding.get_tokens());
    Err(InferenceError::Tokenizer(format!(
        "{}: expected one special token before a text and one after it ({before} and {after}), found {found:?} for the \
         text \"a\"; a tokenizer.json adds them by its post_processor",
        path.display()
    )))
}

/// Finds each phrase's tokens by their bytes in the caption.
fn spans(caption: &Caption, offsets: &[(usize, usize)], special: &[u32]) -> Result<Vec<PhraseSpan>, InferenceError> {
    let mut spans = Vec::with_capacity(caption.phrases.len());
    for (phrase, bytes) in &caption.phrases {
        let inside = |position: &usize| {
            let own = offsets
                .get(*position)
                .is_some_and(|&(start, end)| start < end && start >= bytes.start && end <= bytes.end);
            own && special.get(*position) == Some(&0)
        };
        let first = (0..offsets.len()).find(inside);
        let last = (0..offsets.len()).rev().find(inside);
        let (Some(first), Some(last)) = (first, last) else {
            let text = caption.text.get(bytes.clone()).unwrap_or_default();
            return Err(InferenceError::Tokenizer(format!("the phrase {text:?} has no tokens")));
        };
        spans.push(PhraseSpan { phrase: *phrase, tokens: first..last + 1 });
    }
    Ok(spans)
}

#[allow(clippy::needless_pass_by_value, reason = "the signature map_err wants")]
pub(super) fn broken(error: tokenizers::Error) -> InferenceError {
    InferenceError::Tokenizer(error.to_string())
}
