//! From a detector's logits to detections: which queries are kept, what they are called, and where to point in them.

use std::sync::Arc;

use crate::{
    inference::{EncodedText, RawDetections},
    types::{CenterBox, ImageSize, PixelBox, PixelPoint},
};

/// A query that was kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Index of the caption it was found with.
    pub caption: usize,
    /// Index of the query.
    pub query: usize,
    /// Index of its phrase; `None` where a token label belongs to no single phrase.
    pub phrase: Option<usize>,
    /// Index of its class; filled in by the pipeline.
    pub entry: Option<usize>,
    /// The token label, as Hugging Face spells it; `None` under [`super::LabelRule::PhraseSpans`].
    pub token_label: Option<Arc<str>>,
    /// Score in [0, 1].
    pub score: f32,
    /// Box in image pixels, not clipped.
    pub bbox: PixelBox,
}

/// The logistic function.
#[must_use]
pub fn sigmoid(logit: f32) -> f32 {
    1.0 / (1.0 + (-logit).exp())
}

fn rows(raw: &RawDetections) -> impl Iterator<Item = (usize, &[f32], CenterBox)> {
    let columns = raw.columns.max(1);
    raw.logits.chunks_exact(columns).zip(&raw.boxes).enumerate().map(|(query, (row, bbox))| (query, row, *bbox))
}

fn max(logits: &[f32]) -> f32 {
    logits.iter().copied().fold(f32::NEG_INFINITY, f32::max)
}

fn finite(bbox: &PixelBox) -> bool {
    [bbox.x0, bbox.y0, bbox.x1, bbox.y1].iter().all(|v| v.is_finite())
}

/// Hugging Face's `post_process_grounded_object_detection` for one image and caption: a query is kept when its highest
/// token probability is above `box_threshold`; its label is the text of all tokens above `text_threshold`, the first
/// token (`[CLS]`) and column 255 excluded; boxes are scaled to the image and not clipped.
///
/// Beyond Hugging Face, the label is tied to a phrase by the *positions* of its tokens, never by comparing strings: it
/// belongs to a phrase when all its tokens, special tokens and full stops aside, are that phrase's tokens. "chair" can
/// thus never be read out of "armchair".
pub fn token_labels(
    raw: &RawDetections,
    text: &EncodedText,
    caption: usize,
    (box_threshold, text_threshold): (f32, f32),
    image: ImageSize,
    out: &mut Vec<Candidate>,
) {
    /// The last column of the logits; Hugging Face never reads it for labels.
    const LAST_COLUMN: usize = 255;
    for (query, row, bbox) in rows(raw) {
        let score = sigmoid(max(row));
        if score <= box_threshold || score.is_nan() {
            continue;
        }
        let bbox = bbox.to_pixels(image);
        if !finite(&bbox) {
            continue;
        }
        let positions = || {
            let above = row.iter().enumerate().filter(|&(_, &logit)| sigmoid(logit) > text_threshold);
            above.map(|(position, _)| position).filter(|&p| p != 0 && p < LAST_COLUMN)
        };
        let phrase = sole_phrase(text, positions());
        let token_label = Some(Arc::from(text.decode(positions())));
        out.push(Candidate { caption, query, phrase, entry: None, token_label, score, bbox });
    }
}

/// The phrase all of the tokens at `positions` belong to; tokens outside every phrase (specials and full stops) do not
/// count.
fn sole_phrase(text: &EncodedText, positions: impl Iterator<Item = usize>) -> Option<usize> {
    let mut found = None;
    for position in positions {
        let Some(span) = text.spans.iter().find(|span| span.tokens.contains(&position)) else { continue };
        match found {
            None => found = Some(span.phrase),
            Some(phrase) if phrase == span.phrase => {}
            Some(_) => return None,
        }
    }
    found
}

/// Scenelex's own rule: the score of a phrase at a query is the maximum over the phrase's tokens; each query takes its
/// best phrase and is kept when that score is above `box_threshold`.
pub fn phrase_spans(
    raw: &RawDetections,
    text: &EncodedText,
    caption: usize,
    box_threshold: f32,
    image: ImageSize,
    out: &mut Vec<Candidate>,
) {
    for (query, row, bbox) in rows(raw) {
        let mut best: Option<(usize, f32)> = None;
        for span in &text.spans {
            let logit = max(row.get(span.tokens.clone()).unwrap_or_default());
            if best.is_none_or(|(_, b)| logit > b) {
                best = Some((span.phrase, logit));
            }
        }
        let Some((phrase, logit)) = best else { continue };
        let score = sigmoid(logit);
        if score > box_threshold {
            let bbox = bbox.to_pixels(image);
            if finite(&bbox) {
                out.push(Candidate {
                    caption,
                    query,
                    phrase: Some(phrase),
                    entry: None,
                    token_label: None,
                    score,
                    bbox,
                });
            }
        }
    }
}

/// Class-aware non-maximum suppression, greedy by score: of candidates with the same `class` whose boxes overlap by more
/// than `iou`, the best is kept. Leaves `candidates` ordered by falling score; ties keep their order.
pub fn suppress<C: PartialEq>(candidates: &mut Vec<Candidate>, iou: f32, class: impl Fn(&Candidate) -> C) {
    candidates.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut kept = 0;
    for index in 0..candidates.len() {
        let (before, rest) = candidates.split_at(index);
        let Some(candidate) = rest.first() else { break };
        let own = class(candidate);
        let covered =
            before.iter().take(kept).any(|better| better.bbox.iou(&candidate.bbox) > iou && class(better) == own);
        if !covered {
            candidates.swap(kept, index);
            kept += 1;
        }
    }
    candidates.truncate(kept);
}

/// Point prompts for a candidate: the centres of the `count` queries most probable for its phrase (the maximum over the
/// phrase's tokens; over all tokens where there is no phrase) among those whose centre lies in its box, as in
/// "Training-Free Zero-Shot Semantic Segmentation with LLM Refinement". Most probable first.
pub fn prompt_points(
    raw: &RawDetections,
    text: &EncodedText,
    candidate: &Candidate,
    count: usize,
    image: ImageSize,
    scratch: &mut Vec<(f32, PixelPoint)>,
    out: &mut Vec<PixelPoint>,
) {
    let (width, height) = (image.width as f32, image.height as f32);
    let span = text.spans.iter().find(|span| Some(span.phrase) == candidate.phrase);
    scratch.clear();
    for (_, row, bbox) in rows(raw) {
        let point = PixelPoint { x: bbox.cx * width, y: bbox.cy * height };
        if candidate.bbox.contains(point) {
            let tokens = span.map_or(row, |span| row.get(span.tokens.clone()).unwrap_or_default());
            scratch.push((max(tokens), point));
        }
    }
    // Stable, so that equal probabilities keep the order of the queries and results do not depend on the sort.
    scratch.sort_by(|a, b| b.0.total_cmp(&a.0));
    out.clear();
    out.extend(scratch.iter().take(count).map(|&(_, point)| point));
}
