//! What an ONNX file says of its outputs, without loading the model. Files of one bundle that have to fit each other are
//! loaded in different places, and a text encoder may have hundreds of megabytes.
//!
//! Works on the protobuf encoding of `onnx.proto` (ModelProto.graph = 7; GraphProto.output = 12; ValueInfoProto.name = 1,
//! type = 2; TypeProto.tensor_type = 1; TypeProto.Tensor.shape = 2; TensorShapeProto.dim = 1; Dimension.dim_value = 1),
//! passing over everything else.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek},
    path::Path,
};

/// Numbers of the fields used, by message.
mod field {
    pub const MODEL_GRAPH: u64 = 7;
    pub const GRAPH_OUTPUT: u64 = 12;
    pub const VALUE_NAME: u64 = 1;
    pub const VALUE_TYPE: u64 = 2;
    pub const TYPE_TENSOR: u64 = 1;
    pub const TENSOR_SHAPE: u64 = 2;
    pub const SHAPE_DIM: u64 = 1;
    pub const DIM_VALUE: u64 = 1;
}

/// Longest description of an output; real ones have a few hundred bytes.
const MAX_OUTPUT_BYTES: u64 = 1 << 16;

/// The value of a field.
enum Value {
    Number(u64),
    /// Bytes that follow.
    Length(u64),
    /// Of a kind that is not used here.
    Other,
}

/// Dimensions of the output `name` of an ONNX file, `None` for those that it leaves open; `None` where the file has no such
/// output, says nothing of its shape, or is not understood (loading it tells why).
///
/// # Errors
/// When the file cannot be read.
pub(super) fn output_shape(path: &Path, name: &str) -> io::Result<Option<Vec<Option<usize>>>> {
    let mut file = BufReader::new(File::open(path)?);
    let length = file.get_ref().metadata()?.len();
    Ok(find_output(&mut file, length, name).ok().flatten())
}

fn find_output(file: &mut (impl Read + Seek), length: u64, name: &str) -> io::Result<Option<Vec<Option<usize>>>> {
    let Some((start, end)) = find(file, 0, length, field::MODEL_GRAPH)? else { return Ok(None) };
    let mut at = start;
    while let Some((from, to)) = find(file, at, end, field::GRAPH_OUTPUT)? {
        if to - from > MAX_OUTPUT_BYTES {
            return Ok(None);
        }
        let mut output = Vec::new();
        file.by_ref().take(to - from).read_to_end(&mut output)?;
        if message(&output, field::VALUE_NAME) == Some(name.as_bytes()) {
            return Ok(shape(&output));
        }
        at = to;
    }
    Ok(None)
}

/// Where the content of the next length-delimited field `number` between `at` and `end` begins and ends; `file` stands at
/// its beginning then. It stands at `at` when this is called.
fn find(file: &mut (impl Read + Seek), mut at: u64, end: u64, number: u64) -> io::Result<Option<(u64, u64)>> {
    while at < end {
        let (found, value, size) = read_field(file)?;
        at += size;
        if let Value::Length(length) = value {
            let next = at.checked_add(length).filter(|next| *next <= end).ok_or(io::ErrorKind::InvalidData)?;
            if found == number {
                return Ok(Some((at, next)));
            }
            file.seek_relative(i64::try_from(length).map_err(|_| io::ErrorKind::InvalidData)?)?;
            at = next;
        }
    }
    Ok(None)
}

/// Reads a field up to its content: its number, its value, and how many bytes that took.
fn read_field(file: &mut impl Read) -> io::Result<(u64, Value, u64)> {
    let (key, mut size) = varint(file)?;
    let value = match key & 7 {
        0 | 2 => {
            let (number, more) = varint(file)?;
            size += more;
            if key & 7 == 0 { Value::Number(number) } else { Value::Length(number) }
        }
        kind @ (1 | 5) => {
            let mut fixed = [0; 8];
            let width = if kind == 1 { 8 } else { 4 };
            file.read_exact(&mut fixed[..width])?;
            size += width as u64;
            Value::Other
        }
        _ => return Err(io::ErrorKind::InvalidData.into()),
    };
    Ok((key >> 3, value, size))
}

/// A number of variable length, and its length in bytes.
fn varint(file: &mut impl Read) -> io::Result<(u64, u64)> {
    let mut value = 0_u64;
    for index in 0..10_u32 {
        let mut byte = [0; 1];
        file.read_exact(&mut byte)?;
        value |= u64::from(byte[0] & 0x7F) << (7 * index);
        if byte[0] & 0x80 == 0 {
            return Ok((value, u64::from(index) + 1));
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

/// The fields of a message in memory: number, value of a number, content of a length-delimited field. Ends where it is
/// broken.
fn fields(mut rest: &[u8]) -> impl Iterator<Item = (u64, Option<u64>, &[u8])> {
    std::iter::from_fn(move || {
        let (number, value, _) = read_field(&mut rest).ok()?;
        let length = if let Value::Length(length) = value { usize::try_from(length).ok()? } else { 0 };
        let (content, after) = rest.split_at_checked(length)?;
        rest = after;
        Some((number, if let Value::Number(value) = value { Some(value) } else { None }, content))
    })
}

/// Content of the first field `number` of a message in memory.
fn message(bytes: &[u8], number: u64) -> Option<&[u8]> {
    fields(bytes).find(|(found, ..)| *found == number).map(|(_, _, content)| content)
}

/// The shape in a ValueInfoProto.
fn shape(output: &[u8]) -> Option<Vec<Option<usize>>> {
    let tensor = message(message(output, field::VALUE_TYPE)?, field::TYPE_TENSOR)?;
    let dims = fields(message(tensor, field::TENSOR_SHAPE)?).filter(|(number, ..)| *number == field::SHAPE_DIM);
    let size = |dim: &[u8]| {
        let (_, value, _) = fields(dim).find(|(number, ..)| *number == field::DIM_VALUE)?;
        value.and_then(|value| usize::try_from(value).ok())
    };
    Some(dims.map(|(_, _, dim)| size(dim)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tiny(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny").join(name)
    }

    #[test]
    fn shapes_are_those_of_the_maker() {
        let found = |file: &str, output: &str| output_shape(&tiny(file), output).unwrap();
        let features = found("detector/text_encoder.onnx", "text_features");
        assert_eq!(features, Some(vec![None, None, Some(3)]));
        let boxes = found("detector/detector.onnx", "pred_boxes");
        assert_eq!(boxes, Some(vec![None, Some(12), Some(4)]), "the second output");
        assert_eq!(found("detector/text_encoder.onnx", "pred_boxes"), None);
        assert_eq!(found("detector/tokenizer.json", "pred_boxes"), None, "no model at all");
        assert!(output_shape(&tiny("nowhere.onnx"), "pred_boxes").is_err());
    }

    proptest! {
        #[test]
        fn damage_does_not_panic(at in 0..3000_usize, byte in any::<u8>(), cut in 0..3400_usize) {
            let mut model = std::fs::read(tiny("detector/detector.onnx")).unwrap();
            if let Some(b) = model.get_mut(at) {
                *b = byte;
            }
            model.truncate(cut);
            let length = model.len() as u64;
            let _ = find_output(&mut io::Cursor::new(model), length, "pred_boxes");
        }
    }
}
