//! The sending side of a topic.

use std::{
    iter,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use rustdds::{
    GUID, RTPSEntity, SampleIdentity, StatusEvented, Timestamp, WriteOptions, WriteOptionsBuilder, no_key::DataWriter,
};

use super::{
    Backlog, End, Endpoints, Qos, TransportError,
    graph::Graph,
    names, not_a_type,
    peers::{Event, Peers, Side},
    policies,
    raw::{Outgoing, OutgoingAdapter},
};
use crate::ros::{
    cdr::{CdrError, CdrView, ENCAPSULATION, Endian},
    transport::{Mismatch, RawPublisher},
};

/// A DDS writer of raw bytes, in DDS names.
pub struct Writer {
    writer: DataWriter<Outgoing, OutgoingAdapter>,
    publisher: rustdds::Publisher,
    side: Side,
    readers: Mutex<Peers>,
}

impl Writer {
    /// Of `topic` (DDS names).
    pub fn new(
        endpoints: &Endpoints,
        (topic, type_name): (&str, &str),
        qos: Qos,
        backlog: Backlog,
    ) -> Result<Self, String> {
        let policies = policies(qos, End::Writer(backlog));
        let on = endpoints.topic(topic, type_name, &policies)?;
        let publisher = endpoints.publisher.clone();
        let writer = publisher.create_datawriter_no_key(&on, Some(policies.clone())).map_err(|e| e.to_string())?;
        let (own, topic, type_name) = (writer.guid(), topic.to_owned(), type_name.to_owned());
        let side = Side { own, topic, type_name, policies };
        Ok(Self { writer, publisher, side, readers: Mutex::new(Peers::new(own)) })
    }

    pub fn guid(&self) -> GUID {
        self.writer.guid()
    }

    /// Sends a little-endian body without its header; gives the sample's identity.
    pub fn write(&self, body: Bytes, options: WriteOptions) -> Result<SampleIdentity, String> {
        self.writer.write_with_options(Outgoing(body), options).map_err(|e| e.forget_data().to_string())
    }

    /// Readers matched now; `changed` is told of each one that came (`true`) or went since the last call, but for those
    /// that did both meanwhile. Called seldom it costs a look at all that discovery knows: RustDDS keeps few events.
    pub fn matched(&self, changed: impl FnMut(GUID, bool)) -> usize {
        let mut readers = self.readers();
        let events = iter::from_fn(|| self.writer.try_recv_status()).map(Event::from);
        readers.update(events, || Some(self.side.readers(&self.publisher.participant()?)), changed);
        readers.count()
    }

    /// The policy for which the last reader that asks for more than is offered was not matched, as of the last call of
    /// [`Self::matched`].
    pub fn unfit(&self) -> Option<&'static str> {
        self.readers().unfit()
    }

    fn readers(&self) -> MutexGuard<'_, Peers> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
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
    /// Of state: whether there was an earlier one.
    earlier: Option<AtomicBool>,
}

impl DdsPublisher {
    pub fn new(
        endpoints: &Endpoints,
        graph: &Arc<Graph>,
        (topic, type_name): (&str, &str),
        qos: Qos,
        backlog: Backlog,
    ) -> Result<Self, TransportError> {
        let create = |reason| TransportError::Create { what: "publisher", name: topic.to_owned(), reason };
        let dds_type = names::dds_type(type_name).ok_or_else(|| not_a_type("publisher", topic, type_name))?;
        let writer = Writer::new(endpoints, (&names::dds_topic(topic), &dds_type), qos, backlog).map_err(create)?;
        graph.add_writer(writer.guid());
        Ok(Self { writer, topic: topic.to_owned(), graph: Arc::clone(graph), earlier: None })
    }

    /// Publishes state. Without a reader RustDDS keeps the sample before the newest too, and who comes late gets it first:
    /// it is the same one then.
    pub fn of_state(mut self) -> Self {
        self.earlier = Some(AtomicBool::new(false));
        self
    }

    fn send(&self, body: Bytes) -> Result<(), TransportError> {
        let options = WriteOptionsBuilder::new().source_timestamp(Timestamp::now()).build();
        let sent = self.writer.write(body, options).map(|_| ());
        sent.map_err(|reason| TransportError::Publish { topic: self.topic.clone(), reason })
    }
}

impl RawPublisher for DdsPublisher {
    fn publish(&self, message: Bytes) -> Result<(), TransportError> {
        let view = CdrView::from_encapsulated(&message)?;
        if view.endian == Endian::Big {
            // RustDDS fixes the byte order per writer; nothing on this side produces big endian.
            return Err(CdrError::Encapsulation(0).into());
        }
        self.graph.catch_up();
        let body = message.slice(ENCAPSULATION..);
        let Some(earlier) = &self.earlier else { return self.send(body) };
        self.send(body.clone())?;
        if earlier.swap(true, Ordering::Relaxed) && self.subscribers() == 0 {
            // Only of use to who comes late; the newest is on its way.
            let _ = self.send(body);
        }
        Ok(())
    }

    fn subscribers(&self) -> usize {
        self.writer.matched(|_, _| {})
    }

    fn mismatch(&self) -> Option<Mismatch> {
        self.writer.unfit().map(Mismatch::Policy)
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
