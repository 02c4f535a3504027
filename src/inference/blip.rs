//! BLIP captioning (Li et al. 2022) through ONNX, as two files without a key-value cache:
//!
//! - `visual_encoder`: pixels f32[b,3,H,W] → image states f32[b,S,D] (base: 384×384 → 577 states of 768);
//! - `textual_decoder`: `input_ids` i64[b,T], `attention_mask` i64[b,T], `encoder_hidden_states` f32[b,S,D],
//!   `encoder_attention_mask` i64[b,S] → logits f32[b,T,V]. Exports that name them otherwise have this order. The last
//!   input may be missing: it is all ones, and exporters remove what has no effect.
//!
//! The image is resized as a whole (bicubic). A caption begins with `[DEC]` and the prompt, and ends at `[SEP]`.

use super::{
    Bundle, BundleKind, Captioner, InferenceError, Value, contract,
    contract::Dim,
    image_input::ImageInput,
    ort::{Element, Input, Model, ModelOptions, TensorSpec},
    text,
};
use crate::types::RgbImage;

const DECODER_INPUTS: [&str; 4] = ["input_ids", "attention_mask", "encoder_hidden_states", "encoder_attention_mask"];

/// A BLIP captioner.
pub struct BlipCaptioner {
    visual: Model,
    input: ImageInput,
    states_output: String,
    textual: Model,
    /// Names in the file of [`DECODER_INPUTS`], without the last where the file has none.
    decoder_inputs: ([String; 3], Option<String>),
    logits_output: String,
    /// D.
    width: usize,
    /// What [`Captioner::look`] saw, and its number of states S.
    seen: Option<(Value, usize)>,
    /// Ones, as many as the longest mask that was needed.
    ones: Vec<i64>,
    prompt: Vec<i64>,
    end: i64,
    max_tokens: usize,
    pieces: Vec<Option<Box<str>>>,
}

impl BlipCaptioner {
    /// Loads `visual_encoder`, `textual_decoder` and `tokenizer` (`tokenizer.json`, or WordPiece's `vocab.txt`, lower case)
    /// of a bundle and checks that they belong together.
    ///
    /// # Errors
    /// When the bundle is of another kind, or a file is missing, broken or against the contract; when the prompt leaves no
    /// room for a caption.
    pub fn load(bundle: &Bundle, options: &ModelOptions) -> Result<Self, InferenceError> {
        bundle.expect_kind(BundleKind::Blip)?;
        let visual = Model::load(bundle.model("visual_encoder", options.provider)?, &[], options)?;
        let [image] = visual.inputs() else {
            let found = contract::names(visual.inputs());
            return Err(contract::error(&visual, "inputs", "exactly one", &found));
        };
        let input = ImageInput::new(&visual, image, bundle)?;
        let states_output = first_output(&visual)?.name.clone();
        // Exporters often leave all of it open.
        let states = contract::output(&visual, &states_output, Element::F32, &[Dim::Batch, Dim::Any, Dim::Any])?;
        let width = states.shape.last().copied().flatten();
        let count = states.shape.get(1).copied().flatten().map_or(Dim::Any, Dim::Is);

        let textual = Model::load(bundle.model("textual_decoder", options.provider)?, &[], options)?;
        let decoder_inputs = decoder_inputs(&textual)?;
        let ([ids, mask, hidden], hidden_mask) = &decoder_inputs;
        for name in [ids, mask] {
            contract::input(&textual, name, Element::I64, &[Dim::Batch, Dim::Open])?;
        }
        if let Some(name) = hidden_mask {
            contract::input(&textual, name, Element::I64, &[Dim::Batch, count])?;
        }
        let taken = [Dim::Batch, count, width.map_or(Dim::Fixed, Dim::Is)];
        let hidden = contract::input(&textual, hidden, Element::F32, &taken)?;
        let width = width.or(hidden.shape.last().copied().flatten()).unwrap_or_default();
        let logits_output = first_output(&textual)?.name.clone();
        let logits = contract::output(&textual, &logits_output, Element::F32, &[Dim::Batch, Dim::Any, Dim::Fixed])?;
        let vocabulary = logits.shape.last().copied().flatten().unwrap_or_default();

        let tokenizer = text::load_tokenizer(bundle.file("tokenizer")?)?;
        let tokens = tokenizer.get_vocab_size(true);
        if tokens > vocabulary {
            let expected = format!("at least the tokenizer's {tokens} tokens");
            return Err(contract::error(&textual, "width of the logits", &expected, &vocabulary.to_string()));
        }
        let rules = &bundle.caption;
        for (name, token) in [("start_token", rules.start_token), ("end_token", rules.end_token)] {
            if token as usize >= vocabulary {
                return Err(bundle
                    .contradiction(format!("caption: {name} is {token}, but the decoder has {vocabulary} tokens")));
            }
        }
        let words = tokenizer.encode(rules.prompt.as_str(), false).map_err(text::broken)?;
        let mut prompt = vec![i64::from(rules.start_token)];
        prompt.extend(words.get_ids().iter().map(|&id| i64::from(id)));
        if prompt.len() >= bundle.max_tokens {
            let (prompt, limit) = (prompt.len(), bundle.max_tokens);
            return Err(
                bundle.contradiction(format!("text: max_tokens is {limit}, but the prompt alone has {prompt} tokens"))
            );
        }
        let piece = |id: usize| u32::try_from(id).ok().and_then(|id| tokenizer.id_to_token(id));
        let pieces = (0..vocabulary).map(|id| piece(id).filter(|piece| is_text(piece)).map(String::into_boxed_str));
        Ok(Self {
            pieces: pieces.collect(),
            visual,
            input,
            states_output,
            textual,
            decoder_inputs,
            logits_output,
            width,
            seen: None,
            ones: Vec::new(),
            prompt,
            end: i64::from(rules.end_token),
            max_tokens: bundle.max_tokens,
        })
    }
}

impl Captioner for BlipCaptioner {
    fn look(&mut self, image: &RgbImage) -> Result<(), InferenceError> {
        self.seen = None;
        self.input.prepare(image)?;
        let Self { visual, input, states_output, width, .. } = self;
        let mut outputs = input.with_tensor(|name, tensor| visual.run(&[(name, tensor)]))?;
        let (shape, _) = outputs.f32(states_output)?;
        let states = shape.get(1).and_then(|&states| usize::try_from(states).ok()).unwrap_or_default();
        contract::shape(outputs.model(), states_output, shape, &[1, states, *width])?;
        self.seen = Some((outputs.take(states_output)?, states));
        Ok(())
    }

    fn next_token(&mut self, tokens: &[i64], logits: &mut Vec<f32>) -> Result<(), InferenceError> {
        let Some((value, states)) = &self.seen else {
            let reason = "no image was encoded".to_owned();
            return Err(InferenceError::Session { model: self.textual.name().to_owned(), reason });
        };
        let (length, states) = (tokens.len(), *states);
        if self.ones.len() < length.max(states) {
            self.ones.resize(length.max(states), 1);
        }
        let ones = |count: usize| self.ones.get(..count).unwrap_or_default();
        let ([ids, mask, hidden], hidden_mask) = &self.decoder_inputs;
        let vocabulary = self.pieces.len();
        let (text_shape, states_shape) = ([1, length], [1, states]);
        let text_mask = Input::I64(&text_shape, ones(length));
        let states_mask = Input::I64(&states_shape, ones(states));
        let ids = (ids.as_str(), Input::I64(&text_shape, tokens));
        let (mask, hidden) = ((mask.as_str(), text_mask), (hidden.as_str(), Input::Value(value)));
        let outputs = match hidden_mask {
            Some(name) => self.textual.run(&[ids, mask, hidden, (name, states_mask)]),
            None => self.textual.run(&[ids, mask, hidden]),
        }?;
        let (shape, all) = outputs.f32(&self.logits_output)?;
        contract::shape(outputs.model(), &self.logits_output, shape, &[1, length, vocabulary])?;
        logits.clear();
        logits.extend_from_slice(all.get(length.saturating_sub(1) * vocabulary..).unwrap_or_default());
        Ok(())
    }

    fn prompt(&self) -> &[i64] {
        &self.prompt
    }

    fn end_token(&self) -> i64 {
        self.end
    }

    fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    fn piece(&self, token: i64) -> Option<&str> {
        self.pieces.get(usize::try_from(token).ok()?)?.as_deref()
    }
}

/// Whether a token is text; `[PAD]`, `[unused7]` and their like are not, a bracket is.
fn is_text(piece: &str) -> bool {
    !(piece.len() > 2 && piece.starts_with('[') && piece.ends_with(']'))
}

fn first_output(model: &Model) -> Result<&TensorSpec, InferenceError> {
    model.outputs().first().ok_or_else(|| contract::error(model, "outputs", "at least one", "none"))
}

/// The decoder's inputs by the contract's names or, where the file has none of those, by their order.
fn decoder_inputs(model: &Model) -> Result<([String; 3], Option<String>), InferenceError> {
    let names: Vec<&str> = model.inputs().iter().map(|input| input.name.as_str()).collect();
    let [ids, mask, hidden, hidden_mask] = DECODER_INPUTS;
    let known = DECODER_INPUTS.iter().filter(|name| names.contains(name)).count();
    match names.as_slice() {
        [_, _, _] if known == 3 && !names.contains(&hidden_mask) => Ok(([ids, mask, hidden].map(str::to_owned), None)),
        [_, _, _, _] if known == 4 => Ok(([ids, mask, hidden].map(str::to_owned), Some(hidden_mask.to_owned()))),
        &[ids, mask, hidden, ref rest @ ..] if known == 0 && rest.len() <= 1 => {
            Ok(([ids, mask, hidden].map(str::to_owned), rest.first().map(|&name| name.to_owned())))
        }
        _ => Err(contract::error(model, "inputs", &DECODER_INPUTS.join(", "), &contract::names(model.inputs()))),
    }
}
