//! RustDDS adapters that leave CDR bytes as they are.

use std::{cell::RefCell, convert::Infallible};

use bytes::Bytes;
use rustdds::{
    RepresentationIdentifier,
    no_key::{Decode, DefaultDecoder, DeserializerAdapter, SerializerAdapter},
};

use crate::ros::{
    cdr::{CdrView, Endian},
    transport::MessageHandler,
};

/// Plain CDR in both byte orders.
const PLAIN_CDR: [RepresentationIdentifier; 2] = [RepresentationIdentifier::CDR_LE, RepresentationIdentifier::CDR_BE];

fn endian(encoding: RepresentationIdentifier) -> Endian {
    if encoding == RepresentationIdentifier::CDR_BE { Endian::Big } else { Endian::Little }
}

/// A body about to be sent, little endian.
pub struct Outgoing(pub Bytes);

/// Hands [`Outgoing`] bodies through without a copy.
pub struct OutgoingAdapter;

impl SerializerAdapter<Outgoing> for OutgoingAdapter {
    type Error = Infallible;

    fn output_encoding() -> RepresentationIdentifier {
        RepresentationIdentifier::CDR_LE
    }

    fn to_bytes(value: &Outgoing) -> Result<Bytes, Infallible> {
        Ok(value.0.clone())
    }
}

/// A received body, copied out of the middleware.
pub struct Received {
    pub endian: Endian,
    pub body: Vec<u8>,
}

impl Received {
    pub fn view(&self) -> CdrView<'_> {
        CdrView { endian: self.endian, body: &self.body }
    }
}

/// Copies bodies out, for services.
pub struct ReceivedAdapter;

impl DeserializerAdapter<Received> for ReceivedAdapter {
    type Error = Infallible;
    type Decoded = Received;

    fn supported_encodings() -> &'static [RepresentationIdentifier] {
        &PLAIN_CDR
    }

    fn transform_decoded(decoded: Received) -> Received {
        decoded
    }
}

impl DefaultDecoder<Received> for ReceivedAdapter {
    type Decoder = CopyOut;
    const DECODER: CopyOut = CopyOut;
}

/// Decoder of [`ReceivedAdapter`].
#[derive(Clone)]
pub struct CopyOut;

impl Decode<'_, Received> for CopyOut {
    type Error = Infallible;

    fn decode_bytes(self, input: &[u8], encoding: RepresentationIdentifier) -> Result<Received, Infallible> {
        Ok(Received { endian: endian(encoding), body: input.to_vec() })
    }
}

/// Stands for a sample that a handler has seen in place.
pub struct Seen;

/// Shows bodies to a handler where they lie, for subscriptions.
pub struct SeenAdapter;

impl DeserializerAdapter<Seen> for SeenAdapter {
    type Error = Infallible;
    type Decoded = Seen;

    fn supported_encodings() -> &'static [RepresentationIdentifier] {
        &PLAIN_CDR
    }

    fn transform_decoded(decoded: Seen) -> Seen {
        decoded
    }
}

/// Decoder of [`SeenAdapter`]: calls the handler. It has to be `Clone`, hence the cell.
#[derive(Clone)]
pub struct Show<'h>(pub &'h RefCell<MessageHandler>);

impl Decode<'_, Seen> for Show<'_> {
    type Error = Infallible;

    fn decode_bytes(self, input: &[u8], encoding: RepresentationIdentifier) -> Result<Seen, Infallible> {
        (self.0.borrow_mut())(CdrView { endian: endian(encoding), body: input });
        Ok(Seen)
    }
}
