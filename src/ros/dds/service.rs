//! Services over DDS topics, with the mapping each vendor's ROS 2 layer uses.
//!
//! `rmw_fastrtps` sends the identity of a request beside the data (*enhanced* mapping of DDS-RPC), `rmw_cyclonedds`
//! puts it in front of them. Topics and types are the same, so a server tells them apart by the vendor in the
//! writer's GUID and answers each client in its own way; a client does the same with the server it finds.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::{BufMut, Bytes, BytesMut};
use crossbeam::channel::{Receiver, RecvTimeoutError, bounded};
use rustdds::{
    GUID, SampleIdentity, SequenceNumber, Timestamp, WriteOptions, WriteOptionsBuilder,
    no_key::{DeserializedCacheChange, SimpleDataReader},
};

use super::{
    Endpoints, Qos, SMALL, TransportError, USUAL,
    graph::Graph,
    names, not_a_type,
    publisher::Writer,
    raw::{Received, ReceivedAdapter},
    subscription::ReaderThread,
};
use crate::ros::{
    cdr::{CdrView, ENCAPSULATION, Endian},
    transport::{RawClient, RawServer, ServiceHandler},
};

/// First two bytes of every GUID of Eclipse Cyclone DDS (the OMG's vendor number).
const CYCLONE_VENDOR: [u8; 2] = [0x01, 0x10];

/// Length of Cyclone's request header: client id and sequence number, eight bytes each.
const CYCLONE_HEADER: usize = 16;

/// How long an answer waits for the reader of a client whose request was faster than its discovery.
const CLIENT_DISCOVERY: Duration = Duration::from_secs(2);

/// How long the first answer to a client is waited for to be acknowledged before it is sent once more.
const FIRST_ANSWER: Duration = Duration::from_millis(100);

/// Where the identity of a request travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mapping {
    /// In the inline QoS of the sample.
    Enhanced,
    /// In front of the data.
    Cyclone,
}

impl Mapping {
    fn of(peer: GUID) -> Self {
        if peer.to_bytes().starts_with(&CYCLONE_VENDOR) { Self::Cyclone } else { Self::Enhanced }
    }
}

/// Client id and sequence number in front of Cyclone's requests and responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct CycloneHeader {
    client: u64,
    sequence: i64,
}

impl CycloneHeader {
    /// Splits a body into header and message. The header is 16 bytes long, so alignment in the rest is unchanged.
    fn split(view: CdrView<'_>) -> Option<(Self, CdrView<'_>)> {
        let (head, body) = view.body.split_first_chunk::<CYCLONE_HEADER>()?;
        let (client, sequence) = head.split_first_chunk::<8>()?;
        let sequence: [u8; 8] = sequence.try_into().ok()?;
        let header = match view.endian {
            Endian::Little => Self { client: u64::from_le_bytes(*client), sequence: i64::from_le_bytes(sequence) },
            Endian::Big => Self { client: u64::from_be_bytes(*client), sequence: i64::from_be_bytes(sequence) },
        };
        Some((header, CdrView { endian: view.endian, body }))
    }

    /// The little-endian body that carries `message` (without its encapsulation header).
    fn join(self, message: &[u8]) -> Bytes {
        let mut body = BytesMut::with_capacity(CYCLONE_HEADER + message.len());
        body.put_u64_le(self.client);
        body.put_i64_le(self.sequence);
        body.put_slice(message);
        body.freeze()
    }
}

/// Takes every waiting sample and gives it to `each`.
fn take_all(
    reader: &SimpleDataReader<Received, ReceivedAdapter>,
    stop: &AtomicBool,
    service: &str,
    mut each: impl FnMut(DeserializedCacheChange<Received>),
) {
    while !stop.load(Ordering::Acquire) {
        match reader.try_take_one() {
            Ok(Some(sample)) => each(sample),
            Ok(None) => break,
            Err(error) => tracing::warn!(service, %error, "skipped a service message"),
        }
    }
}

/// A service on its own named thread.
pub struct DdsServer {
    reader: ReaderThread,
    responses: Arc<Writer>,
    graph: Arc<Graph>,
}

impl DdsServer {
    pub fn new(
        endpoints: &Endpoints,
        graph: &Arc<Graph>,
        service: &str,
        type_name: &str,
        mut handler: ServiceHandler,
    ) -> Result<Self, TransportError> {
        let create = |reason| TransportError::Create { what: "service", name: service.to_owned(), reason };
        let names = names::service(service, type_name).ok_or_else(|| not_a_type("service", service, type_name))?;
        let topic = (names.response_topic.as_str(), names.response_type.as_str());
        let responses = Arc::new(Writer::new(endpoints, topic, Qos::RELIABLE, SMALL).map_err(create)?);
        let (writer, name) = (Arc::clone(&responses), service.to_owned());
        let mut clients = Clients::default();
        let drain = move |reader: &SimpleDataReader<Received, ReceivedAdapter>, stop: &AtomicBool| {
            // Also without a request, so that no change of the readers goes unnoticed.
            clients.update(&writer);
            take_all(reader, stop, &name, |request| {
                let Some((body, options)) = answer(&request, &mut handler, &name) else { return };
                let client = request.writer_guid();
                if !clients.wait_for(client, &writer, stop) {
                    tracing::warn!(service = %name, "the client does not listen to answers (yet); it may not get this one");
                }
                let twice = Mapping::of(client) == Mapping::Cyclone && clients.is_first_answer(client);
                if let Err(error) = respond(&writer, body, options, twice) {
                    tracing::warn!(service = %name, error, "could not send a response");
                }
            });
        };
        let topic = (names.request_topic.as_str(), names.request_type.as_str());
        let reader = ReaderThread::spawn(endpoints, service, topic, Qos::RELIABLE, drain).map_err(create)?;
        graph.add_writer(responses.guid());
        graph.add_reader(reader.guid());
        Ok(Self { reader, responses, graph: Arc::clone(graph) })
    }
}

/// Readers that wait for answers.
#[derive(Default)]
struct Clients(BTreeMap<GUID, Listener>);

#[derive(Default)]
struct Listener {
    /// Whose it is, as far as that has asked.
    client: Option<GUID>,
    answered: bool,
}

impl Clients {
    fn update(&mut self, responses: &Writer) {
        responses.matched(|reader, came| {
            if came {
                self.0.entry(reader).or_default();
            } else {
                self.0.remove(&reader);
            }
        });
    }

    /// Whether the reader of `client` (its writer of requests) is there. Nothing on the wire says which one that is, but it
    /// is of the same participant, and none that another client has asked with: a reader of an earlier client, which may
    /// be on its way out, does not stand for a new one.
    fn listens(&mut self, client: GUID) -> bool {
        if self.of(client).is_some() {
            return true;
        }
        let free =
            |(reader, listener): &(&GUID, &mut Listener)| reader.prefix == client.prefix && listener.client.is_none();
        self.0.iter_mut().find(free).map(|(_, listener)| listener.client = Some(client)).is_some()
    }

    fn of(&mut self, client: GUID) -> Option<&mut Listener> {
        self.0.values_mut().find(|listener| listener.client == Some(client))
    }

    /// Whether the reader of `client` is there and no answer has gone to it; from now on, one has.
    fn is_first_answer(&mut self, client: GUID) -> bool {
        self.of(client).is_some_and(|listener| !std::mem::replace(&mut listener.answered, true))
    }

    /// Waits until the client has a matched reader for answers: a request may be faster than the discovery of the reader
    /// beside it, and what is written before the match is lost (`rmw_cyclonedds` waits likewise).
    fn wait_for(&mut self, client: GUID, responses: &Writer, stop: &AtomicBool) -> bool {
        let deadline = Instant::now() + CLIENT_DISCOVERY;
        loop {
            self.update(responses);
            if self.listens(client) {
                return true;
            }
            if Instant::now() >= deadline || stop.load(Ordering::Acquire) {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The answer to a request and how it is addressed; `None` where there is nothing to answer.
fn answer(
    request: &DeserializedCacheChange<Received>,
    handler: &mut ServiceHandler,
    service: &str,
) -> Option<(Bytes, WriteOptions)> {
    let client = request.writer_guid();
    let view = request.sample.view();
    let own = SampleIdentity { writer_guid: client, sequence_number: request.sequence_number };
    // Fast DDS names the reader that waits for the response here and leaves the number for us to fill in.
    let identity = match request.related_sample_identity() {
        Some(named) if named.sequence_number != SequenceNumber::UNKNOWN => named,
        Some(named) if named.writer_guid != GUID::GUID_UNKNOWN => {
            SampleIdentity { writer_guid: named.writer_guid, ..own }
        }
        _ => own,
    };
    let body = match Mapping::of(client) {
        Mapping::Enhanced => handler(view).map(|response| response.slice(ENCAPSULATION..)),
        Mapping::Cyclone => match CycloneHeader::split(view) {
            Some((header, message)) => handler(message).and_then(|r| Some(header.join(r.get(ENCAPSULATION..)?))),
            None => {
                tracing::warn!(service, "left a request without its header unanswered");
                None
            }
        },
    }?;
    let options = WriteOptionsBuilder::new().source_timestamp(Timestamp::now());
    let options = match Mapping::of(client) {
        Mapping::Enhanced => options.related_sample_identity(identity),
        // Not only needless: RustDDS 0.15 leaves the identity out of account when it cuts a sample that fills a datagram
        // (64 kB), and the datagram is too long to be sent.
        Mapping::Cyclone => options,
    };
    Some((body, options.build()))
}

/// Sends an answer, the first one to a client on Cyclone `twice`. Cyclone throws away what comes while it still connects a
/// reader with us, and takes the heartbeat that comes along for the beginning of what it has to have. What is sent after it
/// has acknowledged that is not lost, and an answer that comes twice is one that nobody waits for any more.
fn respond(responses: &Writer, body: Bytes, options: WriteOptions, twice: bool) -> Result<(), String> {
    if twice {
        responses.write(body.clone(), options.clone())?;
        responses.flush(FIRST_ANSWER);
    }
    responses.write(body, options).map(|_| ())
}

impl RawServer for DdsServer {}

impl Drop for DdsServer {
    fn drop(&mut self) {
        self.graph.remove_reader(self.reader.guid());
        self.graph.remove_writer(self.responses.guid());
    }
}

/// A response with what tells whose it is.
struct Response {
    identity: Option<SampleIdentity>,
    server: GUID,
    message: Received,
}

/// Calls one service, one call at a time.
pub struct DdsClient {
    service: String,
    requests: Writer,
    server: std::sync::Mutex<Option<GUID>>,
    responses: Receiver<Response>,
    reader: ReaderThread,
    sequence: AtomicI64,
    graph: Arc<Graph>,
}

impl DdsClient {
    pub fn new(
        endpoints: &Endpoints,
        graph: &Arc<Graph>,
        service: &str,
        type_name: &str,
    ) -> Result<Self, TransportError> {
        let create = |reason| TransportError::Create { what: "client", name: service.to_owned(), reason };
        let names = names::service(service, type_name).ok_or_else(|| not_a_type("client", service, type_name))?;
        let topic = (names.request_topic.as_str(), names.request_type.as_str());
        let requests = Writer::new(endpoints, topic, Qos::RELIABLE, USUAL).map_err(create)?;
        let (sender, responses) = bounded(16);
        let name = service.to_owned();
        let drain = move |reader: &SimpleDataReader<Received, ReceivedAdapter>, stop: &AtomicBool| {
            take_all(reader, stop, &name, |sample| {
                let (identity, server) = (sample.related_sample_identity(), sample.writer_guid());
                let response = Response { identity, server, message: sample.into_value() };
                // Full: answers to other clients of the service fill the queue while nobody calls; they may go.
                let _ = sender.try_send(response);
            });
        };
        let topic = (names.response_topic.as_str(), names.response_type.as_str());
        let reader = ReaderThread::spawn(endpoints, service, topic, Qos::RELIABLE, drain).map_err(create)?;
        graph.add_writer(requests.guid());
        graph.add_reader(reader.guid());
        Ok(Self {
            service: service.to_owned(),
            requests,
            server: std::sync::Mutex::new(None),
            responses,
            reader,
            sequence: AtomicI64::new(0),
            graph: Arc::clone(graph),
        })
    }

    /// Waits until both directions are matched and gives the server's GUID.
    fn find_server(&self, deadline: Instant) -> Option<GUID> {
        loop {
            let mut server = self.server.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let changed = |reader, came| {
                if came {
                    *server = Some(reader);
                }
            };
            if self.requests.matched(changed) > 0 && self.reader.matched() > 0 {
                return *server;
            }
            drop(server);
            if Instant::now() >= deadline {
                return None;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl RawClient for DdsClient {
    fn call(&self, request: Bytes, timeout: Duration) -> Result<Vec<u8>, TransportError> {
        let deadline = Instant::now() + timeout;
        let no_answer = || TransportError::NoAnswer { service: self.service.clone(), seconds: timeout.as_secs_f64() };
        CdrView::from_encapsulated(&request)?;
        let server = self.find_server(deadline).ok_or_else(no_answer)?;
        // What is left from calls that timed out and from other clients is not for this one.
        while self.responses.try_recv().is_ok() {}

        let guid = self.requests.guid().to_bytes();
        let client = guid.last_chunk::<8>().map_or(0, |half| u64::from_le_bytes(*half));
        let header = CycloneHeader { client, sequence: self.sequence.fetch_add(1, Ordering::Relaxed) + 1 };
        let body = match Mapping::of(server) {
            Mapping::Enhanced => request.slice(ENCAPSULATION..),
            Mapping::Cyclone => header.join(request.get(ENCAPSULATION..).unwrap_or_default()),
        };
        let options = WriteOptionsBuilder::new().source_timestamp(Timestamp::now()).build();
        let sent = self
            .requests
            .write(body, options)
            .map_err(|reason| TransportError::Publish { topic: self.service.clone(), reason })?;
        loop {
            let response = match self.responses.recv_deadline(deadline) {
                Ok(response) => response,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Err(no_answer()),
            };
            match Mapping::of(response.server) {
                Mapping::Enhanced if response.identity == Some(sent) => {
                    return Ok(response.message.view().to_encapsulated());
                }
                Mapping::Cyclone => match CycloneHeader::split(response.message.view()) {
                    Some((found, message)) if found == header => return Ok(message.to_encapsulated()),
                    _ => {}
                },
                Mapping::Enhanced => {}
            }
        }
    }
}

impl Drop for DdsClient {
    fn drop(&mut self) {
        self.graph.remove_reader(self.reader.guid());
        self.graph.remove_writer(self.requests.guid());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cyclone_headers_survive_both_byte_orders() {
        let header = CycloneHeader { client: 0x0102_0304_0506_0708, sequence: -2 };
        let joined = header.join(&[9, 9]);
        let little = CdrView { endian: Endian::Little, body: &joined };
        let (found, rest) = CycloneHeader::split(little).unwrap();
        assert_eq!((found, rest.body), (header, &[9u8, 9][..]));
        let big = [1, 2, 3, 4, 5, 6, 7, 8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 7];
        let (found, rest) = CycloneHeader::split(CdrView { endian: Endian::Big, body: &big }).unwrap();
        assert_eq!((found, rest.body), (header, &[7u8][..]));
        assert!(CycloneHeader::split(CdrView { endian: Endian::Little, body: &big[..15] }).is_none());
    }

    #[test]
    fn an_earlier_clients_reader_does_not_stand_for_a_new_one() {
        let guid = |participant: u8, entity: u8| {
            let mut bytes = [participant; 16];
            bytes[12..].fill(entity);
            GUID::from_bytes(bytes)
        };
        let (first, second, stranger) = (guid(1, 10), guid(1, 20), guid(2, 10));
        let mut clients = Clients(BTreeMap::from([(guid(1, 11), Listener::default())]));
        assert!(!clients.is_first_answer(first), "nobody hears it");
        assert!(!clients.listens(stranger), "of another participant");
        assert!(clients.listens(first) && clients.listens(first));
        assert!(clients.is_first_answer(first) && !clients.is_first_answer(first));
        assert!(!clients.listens(second), "the reader is the first one's");
        clients.0.insert(guid(1, 21), Listener::default());
        assert!(clients.listens(second) && clients.is_first_answer(second));
        clients.0.remove(&guid(1, 11));
        assert!(!clients.listens(first) && clients.listens(second));
    }
}
