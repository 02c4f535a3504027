//! CDR, the encoding of ROS 2 messages on the wire and in bags: a four-byte encapsulation header and the body.
//!
//! Follows OMG DDSI-RTPS 2.3, section 10, as far as ROS 2 uses it (plain CDR, version 1).

use byteorder::{BigEndian, LittleEndian};
use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

/// Length of the encapsulation header in bytes.
pub const ENCAPSULATION: usize = 4;

/// Why bytes could not be turned into a message, or the other way round.
#[derive(Debug, thiserror::Error)]
pub enum CdrError {
    /// Fewer bytes than the encapsulation header has.
    #[error("a CDR message has at least {ENCAPSULATION} bytes, this one has {0}")]
    Short(usize),
    /// An encapsulation other than plain CDR version 1.
    #[error("encapsulation {0:#06x} is not plain CDR (0x0000 or 0x0001)")]
    Encapsulation(u16),
    /// The body does not fit the type.
    #[error("cannot decode {type_name}: {reason}")]
    Decode {
        /// Rust type asked for.
        type_name: &'static str,
        /// What the decoder met.
        reason: String,
    },
    /// The value cannot be expressed in CDR.
    #[error("cannot encode {type_name}: {reason}")]
    Encode {
        /// Rust type given.
        type_name: &'static str,
        /// What the encoder met.
        reason: String,
    },
}

/// Byte order of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endian {
    /// `CDR_BE`, 0x0000.
    Big,
    /// `CDR_LE`, 0x0001.
    Little,
}

/// A borrowed message: byte order and body without the encapsulation header.
#[derive(Clone, Copy, Debug)]
pub struct CdrView<'a> {
    /// Byte order of `body`.
    pub endian: Endian,
    /// Everything after the encapsulation header.
    pub body: &'a [u8],
}

impl<'a> CdrView<'a> {
    /// Reads the encapsulation header of `message`.
    ///
    /// # Errors
    /// [`CdrError::Short`] and [`CdrError::Encapsulation`].
    pub fn from_encapsulated(message: &'a [u8]) -> Result<Self, CdrError> {
        let Some((head, body)) = message.split_first_chunk::<ENCAPSULATION>() else {
            return Err(CdrError::Short(message.len()));
        };
        match u16::from_be_bytes([head[0], head[1]]) {
            0 => Ok(Self { endian: Endian::Big, body }),
            1 => Ok(Self { endian: Endian::Little, body }),
            other => Err(CdrError::Encapsulation(other)),
        }
    }

    /// Decodes the body. Types with borrowed fields (`&[u8]` with `serde_bytes`, `&str`) are read without a copy.
    ///
    /// # Errors
    /// [`CdrError::Decode`] when the body is too short or malformed for `T`. Bytes after the value are ignored.
    pub fn decode<T: Deserialize<'a>>(&self) -> Result<T, CdrError> {
        let decoded = match self.endian {
            Endian::Little => cdr_encoding::from_bytes::<T, LittleEndian>(self.body),
            Endian::Big => cdr_encoding::from_bytes::<T, BigEndian>(self.body),
        };
        decoded
            .map(|(value, _)| value)
            .map_err(|e| CdrError::Decode { type_name: std::any::type_name::<T>(), reason: e.to_string() })
    }

    /// The encapsulation header that goes before `body`.
    #[must_use]
    pub const fn header(&self) -> [u8; ENCAPSULATION] {
        match self.endian {
            Endian::Big => [0, 0, 0, 0],
            Endian::Little => [0, 1, 0, 0],
        }
    }

    /// The whole message, header and body, as bags store it.
    #[must_use]
    pub fn to_encapsulated(&self) -> Vec<u8> {
        let mut message = Vec::with_capacity(ENCAPSULATION + self.body.len());
        message.extend_from_slice(&self.header());
        message.extend_from_slice(self.body);
        message
    }
}

/// Encodes `value` as little-endian CDR with its encapsulation header.
///
/// # Errors
/// [`CdrError::Encode`] for values CDR cannot hold (sequences of unknown length, maps).
pub fn encode<T: Serialize>(value: &T) -> Result<Bytes, CdrError> {
    let mut buffer = BytesMut::with_capacity(256);
    encode_into(value, &mut buffer)?;
    Ok(buffer.freeze())
}

/// As [`encode`], into `buffer`, which is cleared first and keeps its allocation where it is large enough.
///
/// # Errors
/// As [`encode`]; `buffer` is then left with a part of the message.
pub fn encode_into<T: Serialize>(value: &T, buffer: &mut BytesMut) -> Result<(), CdrError> {
    buffer.clear();
    buffer.put_slice(&[0, 1, 0, 0]);
    cdr_encoding::to_writer::<T, LittleEndian, _>(buffer.writer(), value)
        .map_err(|e| CdrError::Encode { type_name: std::any::type_name::<T>(), reason: e.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Serialize, Deserialize, Debug, PartialEq)]
    struct Sample {
        flag: bool,
        name: String,
        value: f64,
        #[serde(with = "serde_bytes")]
        data: Vec<u8>,
        numbers: Vec<u32>,
    }

    /// Bytes written by hand from the alignment rules of the standard.
    const SAMPLE_LE: &[u8] = &[
        0, 1, 0, 0, // encapsulation
        1, 0, 0, 0, // flag, padding
        3, 0, 0, 0, b'h', b'i', 0, 0, // length with terminator, text, padding to 4
        0, 0, 0, 0, // padding to 8 (offset 12 -> 16)
        0, 0, 0, 0, 0, 0, 0xf8, 0x3f, // 1.5
        2, 0, 0, 0, 9, 8, 0, 0, // bytes, padding
        1, 0, 0, 0, 7, 0, 0, 0, // one number
    ];

    fn sample() -> Sample {
        Sample { flag: true, name: "hi".into(), value: 1.5, data: vec![9, 8], numbers: vec![7] }
    }

    #[test]
    fn encodes_by_the_alignment_rules() {
        assert_eq!(encode(&sample()).unwrap().as_ref(), SAMPLE_LE);
    }

    #[test]
    fn decodes_either_byte_order() {
        assert_eq!(CdrView::from_encapsulated(SAMPLE_LE).unwrap().decode::<Sample>().unwrap(), sample());
        let big = [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2];
        assert_eq!(CdrView::from_encapsulated(&big).unwrap().decode::<(u32, u32)>().unwrap(), (1, 2));
    }

    #[test]
    fn refuses_cut_and_foreign_messages() {
        for end in 0..SAMPLE_LE.len() {
            let cut = CdrView::from_encapsulated(&SAMPLE_LE[..end]).and_then(|view| view.decode::<Sample>());
            assert!(cut.is_err(), "{end} bytes were accepted");
        }
        let xcdr2 = [0, 7, 0, 0, 0];
        assert!(matches!(CdrView::from_encapsulated(&xcdr2), Err(CdrError::Encapsulation(7))));
    }

    #[test]
    fn a_length_beyond_the_message_is_an_error_not_an_allocation() {
        let huge = [0, 1, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4];
        let view = CdrView::from_encapsulated(&huge).unwrap();
        assert!(view.decode::<Vec<u32>>().is_err());
        assert!(view.decode::<String>().is_err());
        assert!(view.decode::<serde_bytes::ByteBuf>().is_err());
    }
}
