//! The sending side of a topic.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use rustdds::{
    DataWriterStatus, GUID, RTPSEntity, SampleIdentity, StatusEvented, Timestamp, WriteOptions, WriteOptionsBuilder,
    no_key::DataWriter,
};

use super::{
    End, Endpoints, Qos, TransportError,
    graph::Graph,
    names, not_a_type, policies,
    raw::{Outgoing, OutgoingAdapter},
};
use crate::ros::{
    cdr::{CdrError, CdrView, ENCAPSULATION, Endian},
    transport::RawPublisher,
};

/// A DDS writer of raw bytes, in DDS names.
pub struct Writer {
    writer: DataWriter<Outgoing, OutgoingAdapter>,
    matched: AtomicUsize,
}

impl Writer {
    pub fn new(endpoints: &Endpoints, topic: &str, type_name: &str, qos: Qos) -> Result<Self, String> {
        let policies = policies(qos, End::Writer);
        let topic = endpoints.topic(topic, type_name, &policies)?;
        let writer = endpoints.publisher.create_datawriter_no_key(&topic, Some(policies)).map_err(|e| e.to_string())?;
        Ok(Self { writer, matched: AtomicUsize::new(0) })
    }

    pub fn guid(&self) -> GUID {
        self.writer.guid()
    }

    /// Sends a little-endian body without its header; gives the sample's identity.
    pub fn write(&self, body: Bytes, options: WriteOptions) -> Result<SampleIdentity, String> {
        self.writer.write_with_options(Outgoing(body), options).map_err(|e| e.forget_data().to_string())
    }

    /// Readers matched now; `changed` is told of each one that came (`true`) or went since the last call. RustDDS keeps
    /// 16 such events at most: whoever needs them all calls often.
    pub fn matched(&self, mut changed: impl FnMut(GUID, bool)) -> usize {
        while let Some(status) = self.writer.try_recv_status() {
            if let DataWriterStatus::PublicationMatched { current, reader, .. } = status {
                self.matched.store(usize::try_from(current.count()).unwrap_or(0), Ordering::Relaxed);
                changed(reader, current.count_change() > 0);
            }
        }
        self.matched.load(Ordering::Relaxed)
    }

    pub fn flush(&self, timeout: Duration) -> bool {
        self.writer.wait_for_acknowledgments(timeout).unwrap_or(false)
    }
}

/// A publisher on a ROS topic.
pub struct DdsPublisher {
    writer: Writer,
    topic: String,
    graph: Arc<Graph>,
}

impl DdsPublisher {
    pub fn new(
        endpoints: &Endpoints,
        graph: &Arc<Graph>,
        topic: &str,
        type_name: &str,
        qos: Qos,
    ) -> Result<Self, TransportError> {
        let create = |reason| TransportError::Create { what: "publisher", name: topic.to_owned(), reason };
        let dds_type = names::dds_type(type_name).ok_or_else(|| not_a_type("publisher", topic, type_name))?;
        let writer = Writer::new(endpoints, &names::dds_topic(topic), &dds_type, qos).map_err(create)?;
        graph.add_writer(writer.guid());
        Ok(Self { writer, topic: topic.to_owned(), graph: Arc::clone(graph) })
    }
}

impl RawPublisher for DdsPublisher {
    fn publish(&self, message: Bytes) -> Result<(), TransportError> {
        let view = CdrView::from_encapsulated(&message)?;
        if view.endian == Endian::Big {
            // RustDDS fixes the byte order per writer; nothing on this side produces big endian.
            return Err(CdrError::Encapsulation(0).into());
        }
        let options = WriteOptionsBuilder::new().source_timestamp(Timestamp::now()).build();
        self.writer
            .write(message.slice(ENCAPSULATION..), options)
            .map(|_| ())
            .map_err(|reason| TransportError::Publish { topic: self.topic.clone(), reason })
    }

    fn subscribers(&self) -> usize {
        self.writer.matched(|_, _| {})
    }

    fn flush(&self, timeout: Duration) -> bool {
        self.writer.flush(timeout)
    }
}

impl Drop for DdsPublisher {
    fn drop(&mut self) {
        self.graph.remove_writer(self.writer.guid());
    }
}
