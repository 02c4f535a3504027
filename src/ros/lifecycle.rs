//! The life cycle of a managed node, as `lifecycle_msgs` numbers it and rcl_lifecycle has it: states, transitions, the five
//! services and `~/transition_event`. Neither transport brings one, so it is served here.
//!
//! Services only ask; the node's own loop carries a transition out ([`Lifecycle::begin`], [`Lifecycle::end`]).

use std::sync::Arc;

use crossbeam::{
    atomic::AtomicCell,
    channel::{Receiver, Sender, bounded},
    select,
};

use super::{
    Qos,
    arguments::NodeIdentity,
    messages::lifecycle::{
        ChangeState, ChangeStateRequest, ChangeStateResponse, GetAvailableStates, GetAvailableStatesResponse,
        GetAvailableTransitions, GetAvailableTransitionsResponse, GetState, GetStateResponse, StateMessage,
        TransitionDescription, TransitionEvent, TransitionMessage,
    },
    node::NodeError,
    transport::{Publisher, RawServer, Transport, serve},
};
use crate::types::Stamp;

/// Requests that may wait.
const WAITING: usize = 4;

/// A state, with the number `lifecycle_msgs/msg/State` gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Nothing is known of it; no node is ever in it.
    Unknown = 0,
    /// On the graph, with its parameters; no models, no topics.
    Unconfigured = 1,
    /// Models are loaded, topics announced; images are not taken.
    Inactive = 2,
    /// Working.
    Active = 3,
    /// Ended for good; what is left is to end the process.
    Finalized = 4,
    /// Models are being loaded.
    Configuring = 10,
    /// Models are being freed.
    CleaningUp = 11,
    /// Everything is being given up.
    ShuttingDown = 12,
    /// The camera is being subscribed to.
    Activating = 13,
    /// The camera is being left.
    Deactivating = 14,
    /// A transition has failed badly.
    ErrorProcessing = 15,
}

use State::{
    Activating, Active, CleaningUp, Configuring, Deactivating, ErrorProcessing, Finalized, Inactive, ShuttingDown,
    Unconfigured, Unknown,
};

const STATES: [State; 11] = [
    Unknown,
    Unconfigured,
    Inactive,
    Active,
    Finalized,
    Configuring,
    CleaningUp,
    ShuttingDown,
    Activating,
    Deactivating,
    ErrorProcessing,
];

impl State {
    /// Its name in lower case.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Unknown => "unknown",
            Unconfigured => "unconfigured",
            Inactive => "inactive",
            Active => "active",
            Finalized => "finalized",
            Configuring => "configuring",
            CleaningUp => "cleaningup",
            ShuttingDown => "shuttingdown",
            Activating => "activating",
            Deactivating => "deactivating",
            ErrorProcessing => "errorprocessing",
        }
    }

    fn message(self) -> StateMessage {
        StateMessage { id: self as u8, label: self.label().to_owned() }
    }
}

/// A way from one state to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    id: u8,
    label: &'static str,
    start: State,
    /// Where it leads; a state in which the work is done, for transitions that can be asked for.
    pub goal: State,
}

const fn way(id: u8, label: &'static str, start: State, goal: State) -> Transition {
    Transition { id, label, start, goal }
}

const SUCCESS: &str = "transition_success";
const FAILURE: &str = "transition_failure";
const ERROR: &str = "transition_error";

/// rcl_lifecycle's default state machine, in its order.
const TRANSITIONS: [Transition; 25] = [
    way(1, "configure", Unconfigured, Configuring),
    way(10, SUCCESS, Configuring, Inactive),
    way(11, FAILURE, Configuring, Unconfigured),
    way(12, ERROR, Configuring, ErrorProcessing),
    way(2, "cleanup", Inactive, CleaningUp),
    way(20, SUCCESS, CleaningUp, Unconfigured),
    way(21, FAILURE, CleaningUp, Inactive),
    way(22, ERROR, CleaningUp, ErrorProcessing),
    way(3, "activate", Inactive, Activating),
    way(30, SUCCESS, Activating, Active),
    way(31, FAILURE, Activating, Inactive),
    way(32, ERROR, Activating, ErrorProcessing),
    way(4, "deactivate", Active, Deactivating),
    way(40, SUCCESS, Deactivating, Inactive),
    way(41, FAILURE, Deactivating, Active),
    way(42, ERROR, Deactivating, ErrorProcessing),
    way(5, "shutdown", Unconfigured, ShuttingDown),
    way(6, "shutdown", Inactive, ShuttingDown),
    way(7, "shutdown", Active, ShuttingDown),
    way(50, SUCCESS, ShuttingDown, Finalized),
    way(51, FAILURE, ShuttingDown, Finalized),
    way(52, ERROR, ShuttingDown, ErrorProcessing),
    way(60, SUCCESS, ErrorProcessing, Unconfigured),
    way(61, FAILURE, ErrorProcessing, Finalized),
    way(62, ERROR, ErrorProcessing, Finalized),
];

impl Transition {
    fn message(self) -> TransitionMessage {
        TransitionMessage { id: self.id, label: self.label.to_owned() }
    }

    fn description(&self) -> TransitionDescription {
        TransitionDescription {
            transition: self.message(),
            start_state: self.start.message(),
            goal_state: self.goal.message(),
        }
    }
}

fn ways_from(state: State) -> impl Iterator<Item = &'static Transition> {
    TRANSITIONS.iter().filter(move |transition| transition.start == state)
}

/// The transition that `asked` names and `state` allows: by its label or, without one, by its number. What a transition
/// ends with cannot be asked for.
fn allowed(state: State, asked: &TransitionMessage) -> Option<Transition> {
    let named = |transition: &&Transition| match asked.label.as_str() {
        "" => transition.id == asked.id,
        label => transition.label == label,
    };
    ways_from(state).find(named).copied().filter(|transition| ![SUCCESS, FAILURE, ERROR].contains(&transition.label))
}

/// A transition that somebody asks for.
#[derive(Debug)]
pub struct Change {
    /// Which one. It was allowed when it was asked for.
    pub transition: Transition,
    reply: Sender<bool>,
}

/// The node's state, and the services about it.
pub struct Lifecycle {
    state: Arc<AtomicCell<State>>,
    /// What others ask for.
    pub changes: Receiver<Change>,
    events: Publisher<TransitionEvent>,
    // Field order is drop order: who waits for an answer is sent away before the services wait for their last calls.
    _stop: Sender<()>,
    _servers: [Box<dyn RawServer>; 5],
}

impl Lifecycle {
    /// Offers the services of an unconfigured node.
    ///
    /// # Errors
    /// [`NodeError`] for the first topic or service that cannot be made.
    pub fn start(transport: &dyn Transport, identity: &NodeIdentity) -> Result<Self, NodeError> {
        let state = Arc::new(AtomicCell::new(Unconfigured));
        let (sender, changes) = bounded(WAITING);
        let (stop, stopped) = bounded::<()>(0);
        let name = |service: &str| identity.resolve(&format!("~/{service}"));
        let (changing, getting, listing) = (Arc::clone(&state), Arc::clone(&state), Arc::clone(&state));
        let described = |ways: &mut dyn Iterator<Item = &'static Transition>| GetAvailableTransitionsResponse {
            available_transitions: ways.map(Transition::description).collect(),
        };
        Ok(Self {
            state,
            changes,
            events: Publisher::new(transport, &name("transition_event")?, Qos::RELIABLE)?,
            _stop: stop,
            _servers: [
                serve::<GetState, _>(transport, &name("get_state")?, move |_| GetStateResponse {
                    current_state: getting.load().message(),
                })?,
                serve::<GetAvailableStates, _>(transport, &name("get_available_states")?, |_| {
                    GetAvailableStatesResponse { available_states: STATES.map(State::message).into() }
                })?,
                serve::<GetAvailableTransitions, _>(transport, &name("get_available_transitions")?, move |_| {
                    described(&mut ways_from(listing.load()))
                })?,
                serve::<GetAvailableTransitions, _>(transport, &name("get_transition_graph")?, move |_| {
                    described(&mut TRANSITIONS.iter())
                })?,
                // Last: where another cannot be made, nobody waits for the answer of this one.
                serve::<ChangeState, _>(transport, &name("change_state")?, move |request| ChangeStateResponse {
                    success: ask(changing.load(), &request, &sender, &stopped),
                })?,
            ],
        })
    }

    /// The state in force.
    #[must_use]
    pub fn state(&self) -> State {
        self.state.load()
    }

    /// The transition with this label from the state in force.
    #[must_use]
    pub fn way(&self, label: &str) -> Option<Transition> {
        ways_from(self.state()).find(|transition| transition.label == label).copied()
    }

    /// Goes into the state in which a transition's work is done; false where the state in force does not allow it.
    pub fn begin(&self, transition: Transition, now: Stamp) -> bool {
        let allowed = transition.start == self.state();
        if allowed {
            self.go(transition, now);
        }
        allowed
    }

    /// Leaves that state for the one that the work's success or failure leads to.
    pub fn end(&self, success: bool, now: Stamp) {
        let transition = self.way(if success { SUCCESS } else { FAILURE });
        if let Some(transition) = transition {
            self.go(transition, now);
        }
    }

    fn go(&self, transition: Transition, now: Stamp) {
        self.state.store(transition.goal);
        let TransitionDescription { transition, start_state, goal_state } = transition.description();
        tracing::info!(transition = transition.label, from = start_state.label, to = goal_state.label, "life cycle");
        let timestamp = u64::try_from(now.as_nanos()).unwrap_or(0);
        if let Err(error) = self.events.publish(&TransitionEvent { timestamp, transition, start_state, goal_state }) {
            tracing::warn!(%error, "could not announce a transition");
        }
    }
}

impl Change {
    /// Tells whoever asked.
    pub fn reply(&self, success: bool) {
        // Who has gone meanwhile needs no answer.
        let _ = self.reply.try_send(success);
    }
}

/// Has the node's loop carry out what is asked for, and waits until it has or the other end of `stopped` is gone.
fn ask(state: State, request: &ChangeStateRequest, changes: &Sender<Change>, stopped: &Receiver<()>) -> bool {
    let asked = &request.transition;
    let Some(transition) = allowed(state, asked) else {
        let ways: Vec<&str> = ways_from(state).map(|transition| transition.label).collect();
        tracing::warn!(
            id = asked.id,
            label = asked.label,
            "refused a transition: a node that is {} allows {}",
            state.label(),
            ways.join(", ")
        );
        return false;
    };
    let (reply, answer) = bounded(1);
    if changes.try_send(Change { transition, reply }).is_err() {
        return false;
    }
    // What still waits when the loop ends is never answered: its queue lives as long as we hold its sender.
    select! {
        recv(answer) -> success => success.unwrap_or(false),
        recv(stopped) -> _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(id: u8, label: &str) -> TransitionMessage {
        TransitionMessage { id, label: label.to_owned() }
    }

    #[test]
    fn labels_go_before_numbers_and_only_what_may_be_asked_for_is_allowed() {
        let goal = |state, id, label| allowed(state, &asked(id, label)).map(|transition| transition.goal);
        assert_eq!(goal(Unconfigured, 1, ""), Some(Configuring));
        assert_eq!(goal(Unconfigured, 9, "configure"), Some(Configuring));
        assert_eq!(goal(Active, 0, "shutdown"), Some(ShuttingDown));
        assert_eq!(goal(Active, 4, ""), Some(Deactivating));
        for (state, id, label) in [
            (Unconfigured, 3, ""),
            (Active, 1, "configure"),
            (Inactive, 1, "fly"),
            (Configuring, 10, ""),
            (Configuring, 0, SUCCESS),
            (Finalized, 2, "cleanup"),
        ] {
            assert_eq!(goal(state, id, label), None, "{state:?} {id} {label}");
        }
    }

    #[test]
    fn who_asks_for_a_transition_is_told_how_it_went_or_sent_away() {
        let (changes, waiting) = bounded(WAITING);
        let (stop, stopped) = bounded::<()>(0);
        let request = ChangeStateRequest { transition: asked(1, "") };
        std::thread::scope(|scope| {
            for success in [true, false] {
                let asking = scope.spawn(|| ask(Unconfigured, &request, &changes, &stopped));
                waiting.recv().unwrap().reply(success);
                assert_eq!(asking.join().unwrap(), success);
            }
            let asking = scope.spawn(|| ask(Unconfigured, &request, &changes, &stopped));
            // Nobody carries it out, and nobody throws it away.
            let _change = waiting.recv().unwrap();
            drop(stop);
            assert!(!asking.join().unwrap());
        });
    }

    #[test]
    fn work_that_was_begun_always_ends_somewhere() {
        for begun in TRANSITIONS.iter().filter(|t| ![SUCCESS, FAILURE, ERROR].contains(&t.label)) {
            for end in [SUCCESS, FAILURE, ERROR] {
                let ways: Vec<_> = ways_from(begun.goal).filter(|t| t.label == end).collect();
                assert_eq!(ways.len(), 1, "{begun:?} {end}");
            }
        }
    }
}
