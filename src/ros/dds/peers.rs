//! Who is at the other ends of a topic.
//!
//! RustDDS tells an endpoint who comes, goes or does not fit through a channel that holds few events and silently drops
//! those it has no room for. What discovery knows makes up for them: RustDDS writes it down before it matches anybody.

use std::collections::BTreeSet;

use rustdds::{DataReaderStatus, DataWriterStatus, DomainParticipant, GUID, QosPolicies, qos::QosPolicyId};

use super::names;
use crate::ros::transport::Mismatch;

/// Events that RustDDS holds for an endpoint (`sync_status_channel(4)` in its `pubsub.rs`).
const ROOM: usize = 4;

/// What an endpoint is told of the other ends.
pub enum Event {
    /// This one is matched from now on, or no longer.
    Matched(GUID, bool),
    /// One is not matched for this policy.
    Unfit(QosPolicyId),
    /// Nothing about the other ends.
    Other,
}

impl From<DataWriterStatus> for Event {
    fn from(status: DataWriterStatus) -> Self {
        match status {
            DataWriterStatus::PublicationMatched { current, reader, .. } => {
                Self::Matched(reader, current.count_change() > 0)
            }
            DataWriterStatus::OfferedIncompatibleQos { last_policy_id, .. } => Self::Unfit(last_policy_id),
            _ => Self::Other,
        }
    }
}

impl From<DataReaderStatus> for Event {
    fn from(status: DataReaderStatus) -> Self {
        match status {
            DataReaderStatus::SubscriptionMatched { current, writer, .. } => {
                Self::Matched(writer, current.count_change() > 0)
            }
            DataReaderStatus::RequestedIncompatibleQos { last_policy_id, .. } => Self::Unfit(last_policy_id),
            _ => Self::Other,
        }
    }
}

/// The other ends that an endpoint is matched with.
pub struct Peers {
    own: GUID,
    matched: BTreeSet<GUID>,
    unfit: Option<&'static str>,
}

impl Peers {
    /// Of the endpoint `own`, which is matched with nobody yet.
    pub const fn new(own: GUID) -> Self {
        Self { own, matched: BTreeSet::new(), unfit: None }
    }

    pub fn count(&self) -> usize {
        self.matched.len()
    }

    /// The policy for which the last one that does not fit was not matched.
    pub const fn unfit(&self) -> Option<&'static str> {
        self.unfit
    }

    /// Takes the events that wait; `changed` is told of each other end that came (`true`) or went. `there` gives those
    /// that discovery knows and that fit; it is asked only where events may have been dropped.
    pub fn update(
        &mut self,
        events: impl Iterator<Item = Event>,
        there: impl FnOnce() -> Option<BTreeSet<GUID>>,
        mut changed: impl FnMut(GUID, bool),
    ) {
        let mut taken = 0;
        for event in events {
            taken += 1;
            match event {
                // What discovery was ahead with is no change any more.
                Event::Matched(guid, came) => {
                    let new = if came { self.matched.insert(guid) } else { self.matched.remove(&guid) };
                    if new {
                        changed(guid, came);
                    }
                }
                Event::Unfit(policy) => self.unfit = Some(policy_name(policy)),
                Event::Other => {}
            }
        }
        if taken < ROOM {
            return;
        }
        let Some(mut there) = there() else { return };
        // The process's own ends are matched without discovery.
        there.extend(self.matched.iter().filter(|guid| guid.prefix == self.own.prefix));
        there.difference(&self.matched).for_each(|guid| changed(*guid, true));
        self.matched.difference(&there).for_each(|guid| changed(*guid, false));
        self.matched = there;
    }
}

/// A topic as an endpoint has it, in DDS names.
pub struct Side {
    /// The endpoint.
    pub own: GUID,
    pub topic: String,
    pub type_name: String,
    pub policies: QosPolicies,
}

impl Side {
    /// The readers of other participants that a writer of this side is matched with. RustDDS asks for no type there.
    pub fn readers(&self, participant: &DomainParticipant) -> BTreeSet<GUID> {
        let fitting = participant.discovered_readers().into_iter().filter(|reader| {
            let data = &reader.subscription_topic_data;
            *data.topic_name() == self.topic && self.policies.compliance_failure_wrt(&data.qos()).is_none()
        });
        fitting.map(|reader| reader.reader_proxy.remote_reader_guid).collect()
    }

    /// The writers of other participants that a reader of this side is matched with.
    pub fn writers(&self, participant: &DomainParticipant) -> BTreeSet<GUID> {
        let fitting = participant.discovered_writers().into_iter().filter(|writer| {
            let data = &writer.publication_topic_data;
            data.topic_name == self.topic && data.qos().compliance_failure_wrt(&self.policies).is_none()
        });
        fitting.map(|writer| writer.writer_proxy.remote_writer_guid).collect()
    }

    /// Why a reader of this side hears no writer of another participant; `None` where one fits or there is none.
    pub fn mismatch(&self, participant: &DomainParticipant) -> Option<Mismatch> {
        let (mut unfit, mut foreign) = (None, None);
        for writer in participant.discovered_writers() {
            let data = &writer.publication_topic_data;
            if data.topic_name != self.topic || data.key.prefix == self.own.prefix {
                continue;
            }
            if data.type_name != self.type_name {
                let type_name = names::ros_type(&data.type_name).unwrap_or_else(|| data.type_name.clone());
                foreign = Some(Mismatch::Type(type_name));
            } else if let Some(policy) = data.qos().compliance_failure_wrt(&self.policies) {
                unfit = Some(Mismatch::Policy(policy_name(policy)));
            } else {
                return None;
            }
        }
        unfit.or(foreign)
    }
}

/// The policy as ROS 2 spells it.
const fn policy_name(policy: QosPolicyId) -> &'static str {
    match policy {
        QosPolicyId::Durability => "durability",
        QosPolicyId::Presentation => "presentation",
        QosPolicyId::Deadline => "deadline",
        QosPolicyId::LatencyBudget => "latency_budget",
        QosPolicyId::Ownership => "ownership",
        QosPolicyId::Liveliness => "liveliness",
        QosPolicyId::Reliability => "reliability",
        QosPolicyId::DestinationOrder => "destination_order",
        QosPolicyId::Representation => "data_representation",
        _ => "another policy",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guid(participant: u8, entity: u8) -> GUID {
        let mut bytes = [participant; 16];
        bytes[12..].fill(entity);
        GUID::from_bytes(bytes)
    }

    /// What `changed` is told.
    fn update(peers: &mut Peers, events: Vec<Event>, there: Option<&[GUID]>) -> Vec<(GUID, bool)> {
        let mut told = Vec::new();
        let there = || Some(there.expect("discovery was asked").iter().copied().collect());
        peers.update(events.into_iter(), there, |guid, came| told.push((guid, came)));
        told
    }

    #[test]
    fn events_tell_who_is_there() {
        let (one, other) = (guid(2, 1), guid(3, 1));
        let mut peers = Peers::new(guid(1, 1));
        let events = vec![Event::Matched(one, true), Event::Matched(other, true), Event::Matched(one, false)];
        assert_eq!(update(&mut peers, events, None), [(one, true), (other, true), (one, false)]);
        assert_eq!((peers.count(), peers.unfit()), (1, None));
        assert!(update(&mut peers, vec![Event::Unfit(QosPolicyId::Reliability), Event::Other], None).is_empty());
        assert_eq!((peers.count(), peers.unfit()), (1, Some("reliability")));
    }

    #[test]
    fn where_events_may_be_missing_discovery_is_asked() {
        let (gone, own, real) = (guid(2, 1), guid(1, 2), guid(3, 1));
        let mut peers = Peers::new(guid(1, 1));
        update(&mut peers, vec![Event::Matched(own, true)], None);
        // One that comes and goes twice fills the channel; what came after that was dropped.
        let flips = [true, false, true, false].map(|came| Event::Matched(gone, came));
        let told = update(&mut peers, flips.into(), Some(&[real]));
        assert_eq!(told.last(), Some(&(real, true)));
        assert_eq!(peers.count(), 2, "the process's own, which discovery does not know, and the real one");
        // Events that discovery was ahead of change nothing.
        assert!(update(&mut peers, vec![Event::Matched(real, true)], None).is_empty());
        assert_eq!(update(&mut peers, vec![Event::Matched(real, false)], None), [(real, false)]);
        // One that went unnoticed is told too.
        update(&mut peers, vec![Event::Matched(gone, true)], None);
        let others = [Event::Other, Event::Other, Event::Other, Event::Other];
        assert_eq!(update(&mut peers, others.into(), Some(&[])), [(gone, false)]);
        assert_eq!(peers.count(), 1);
    }
}
