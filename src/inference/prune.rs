//! Taking out of an ONNX file what only unwanted outputs need.
//!
//! ONNX Runtime computes every node of a graph, whichever outputs a run asks for. SAM's mask decoder puts out its masks
//! both small and at image size; bringing all of them to image size takes several times as long as the rest, and is not
//! wanted here. So the nodes that no wanted output depends on are removed before the file is loaded.
//!
//! Works on the protobuf encoding of `onnx.proto` (ModelProto.graph = 7; GraphProto.node = 1, initializer = 5,
//! output = 12; NodeProto.input = 1, output = 2, attribute = 5; AttributeProto.g = 6, graphs = 11), copying what it does
//! not need to understand.

use std::collections::HashSet;

/// Numbers of the fields used, by message.
mod field {
    pub const MODEL_GRAPH: u64 = 7;
    pub const GRAPH_NODE: u64 = 1;
    pub const GRAPH_INITIALIZER: u64 = 5;
    pub const GRAPH_OUTPUT: u64 = 12;
    pub const NODE_INPUT: u64 = 1;
    pub const NODE_OUTPUT: u64 = 2;
    pub const NODE_ATTRIBUTE: u64 = 5;
    pub const ATTRIBUTE_GRAPH: u64 = 6;
    pub const ATTRIBUTE_GRAPHS: u64 = 11;
    pub const VALUE_NAME: u64 = 1;
    pub const TENSOR_NAME: u64 = 8;
}

/// Graphs nested deeper than this are not looked into; exporters do not make them.
const MAX_DEPTH: usize = 16;

/// A field of a message.
struct Field<'a> {
    number: u64,
    /// The whole field, key included.
    whole: &'a [u8],
    /// Content of a length-delimited field, empty for others.
    content: &'a [u8],
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    for (index, &byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7F).checked_shl(7 * u32::try_from(index).ok()?)?;
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(index + 1..)?));
        }
    }
    None
}

/// Splits a message into its fields; `None` if it is none.
fn fields(mut message: &[u8]) -> Option<Vec<Field<'_>>> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let start = message;
        let (key, rest) = varint(message)?;
        let (content, rest) = match key & 7 {
            0 => (&rest[..0], varint(rest)?.1),
            1 => (&rest[..0], rest.get(8..)?),
            2 => {
                let (length, rest) = varint(rest)?;
                rest.split_at_checked(usize::try_from(length).ok()?)?
            }
            5 => (&rest[..0], rest.get(4..)?),
            _ => return None,
        };
        let whole = start.get(..start.len() - rest.len())?;
        fields.push(Field { number: key >> 3, whole, content });
        message = rest;
    }
    Some(fields)
}

/// The first string field with a number.
fn string<'a>(fields: &[Field<'a>], number: u64) -> &'a [u8] {
    fields.iter().find(|f| f.number == number).map_or(&[], |f| f.content)
}

fn put_varint(mut value: usize, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value & 0x7F) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Names a node reads: its inputs, and whatever the graphs in its attributes take from outside (everything they read is
/// counted, their own values too, which does no harm).
fn reads<'a>(node: &'a [u8], depth: usize, out: &mut Vec<&'a [u8]>) -> Option<()> {
    if depth > MAX_DEPTH {
        return None;
    }
    for part in fields(node)? {
        match part.number {
            field::NODE_INPUT => out.push(part.content),
            field::NODE_ATTRIBUTE => {
                for part in fields(part.content)? {
                    if !matches!(part.number, field::ATTRIBUTE_GRAPH | field::ATTRIBUTE_GRAPHS) {
                        continue;
                    }
                    for part in fields(part.content)? {
                        match part.number {
                            field::GRAPH_NODE => reads(part.content, depth + 1, out)?,
                            // A branch may put out a value from outside as it is.
                            field::GRAPH_OUTPUT => out.push(string(&fields(part.content)?, field::VALUE_NAME)),
                            _ => {}
                        }
                    }
                }
            }
            _ => {}
        }
    }
    Some(())
}

/// The ONNX file `model` without the outputs that are not in `wanted` and without what only they need.
///
/// `None` where there is nothing to take out, an output of `wanted` is not there, or the file is not understood; it is
/// then best given to ONNX Runtime as it is.
#[must_use]
pub fn for_outputs(model: &[u8], wanted: &[&str]) -> Option<Vec<u8>> {
    let model = fields(model)?;
    let graph = fields(model.iter().find(|f| f.number == field::MODEL_GRAPH)?.content)?;

    let mut outputs: Vec<&[u8]> = Vec::new();
    for part in graph.iter().filter(|f| f.number == field::GRAPH_OUTPUT) {
        outputs.push(string(&fields(part.content)?, field::VALUE_NAME));
    }
    let is_wanted = |name: &[u8]| wanted.iter().any(|w| w.as_bytes() == name);
    if outputs.iter().all(|name| is_wanted(name)) || !wanted.iter().all(|w| outputs.contains(&w.as_bytes())) {
        return None;
    }

    // Nodes are in topological order, so one pass from the end finds all that is needed.
    let mut needed: HashSet<&[u8]> = outputs.into_iter().filter(|name| is_wanted(name)).collect();
    let mut kept = vec![true; graph.len()];
    for (part, keep) in graph.iter().zip(&mut kept).rev() {
        if part.number == field::GRAPH_NODE {
            let node = fields(part.content)?;
            *keep = node.iter().any(|f| f.number == field::NODE_OUTPUT && needed.contains(f.content));
            if *keep {
                let mut names = Vec::new();
                reads(part.content, 0, &mut names)?;
                needed.extend(names);
            }
        }
    }
    for (part, keep) in graph.iter().zip(&mut kept) {
        *keep = match part.number {
            field::GRAPH_INITIALIZER => needed.contains(string(&fields(part.content)?, field::TENSOR_NAME)),
            field::GRAPH_OUTPUT => is_wanted(string(&fields(part.content)?, field::VALUE_NAME)),
            _ => *keep,
        };
    }

    let body: Vec<&[u8]> = graph.iter().zip(&kept).filter(|(_, keep)| **keep).map(|(f, _)| f.whole).collect();
    let mut pruned = Vec::with_capacity(body.iter().map(|b| b.len()).sum::<usize>() + 1024);
    for part in &model {
        if part.number == field::MODEL_GRAPH {
            // Key: field number and wire type 2.
            put_varint((field::MODEL_GRAPH << 3 | 2) as usize, &mut pruned);
            put_varint(body.iter().map(|b| b.len()).sum(), &mut pruned);
            body.iter().for_each(|bytes| pruned.extend_from_slice(bytes));
        } else {
            pruned.extend_from_slice(part.whole);
        }
    }
    Some(pruned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tiny(name: &str) -> Vec<u8> {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny").join(name);
        std::fs::read(path).unwrap()
    }

    /// Number of nodes of a model.
    fn nodes(model: &[u8]) -> usize {
        let model = fields(model).unwrap();
        let graph = fields(model.iter().find(|f| f.number == field::MODEL_GRAPH).unwrap().content).unwrap();
        graph.iter().filter(|f| f.number == field::GRAPH_NODE).count()
    }

    fn contains(model: &[u8], text: &str) -> bool {
        model.windows(text.len()).any(|w| w == text.as_bytes())
    }

    #[test]
    fn the_full_size_masks_go() {
        let model = tiny("segmenter/mask_decoder.onnx");
        assert!(contains(&model, "Resize"));
        let pruned = for_outputs(&model, &["low_res_masks", "iou_predictions"]).unwrap();
        assert!(!contains(&pruned, "Resize"));
        // Cast, Shape, Slice, Concat and Resize.
        assert_eq!(nodes(&pruned), nodes(&model) - 5);
        let scores = for_outputs(&model, &["iou_predictions"]).unwrap();
        assert!(nodes(&scores) < 10 && contains(&scores, "penalty"));
    }

    #[test]
    fn what_a_branch_reads_from_outside_stays() {
        let model = tiny("branch.onnx");
        let branch = for_outputs(&model, &["chosen"]).unwrap();
        assert!(contains(&branch, "outside") && !contains(&branch, "unrelated"));
        let other = for_outputs(&model, &["unrelated"]).unwrap();
        assert_eq!(nodes(&other), 1);
        assert!(!contains(&other, "outside"));
    }

    #[test]
    fn nothing_to_do_is_none() {
        let model = tiny("segmenter/image_encoder.onnx");
        assert_eq!(for_outputs(&model, &["image_embeddings"]), None);
        assert_eq!(for_outputs(&model, &["something_else"]), None);
        assert_eq!(for_outputs(b"not a model", &["x"]), None);
        assert_eq!(for_outputs(&[], &["x"]), None);
    }

    proptest! {
        #[test]
        fn damage_does_not_panic(at in 0..3000_usize, byte in any::<u8>(), cut in 0..3400_usize) {
            let mut model = tiny("segmenter/mask_decoder.onnx");
            if let Some(b) = model.get_mut(at) {
                *b = byte;
            }
            model.truncate(cut);
            let _ = for_outputs(&model, &["low_res_masks"]);
        }
    }
}
