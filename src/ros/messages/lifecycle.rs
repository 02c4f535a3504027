//! `lifecycle_msgs`: the states of a managed node and the services that change them.

use serde::{Deserialize, Serialize};

/// A state: its number and its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "lifecycle_msgs/msg/State")]
#[allow(missing_docs, reason = "fields as in the definition")]
pub struct StateMessage {
    pub id: u8,
    pub label: String,
}

/// A transition: its number and its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "lifecycle_msgs/msg/Transition")]
#[allow(missing_docs, reason = "fields as in the definition")]
pub struct TransitionMessage {
    pub id: u8,
    pub label: String,
}

/// A transition with the states it leads from and to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "lifecycle_msgs/msg/TransitionDescription")]
#[allow(missing_docs, reason = "fields as in the definition")]
pub struct TransitionDescription {
    pub transition: TransitionMessage,
    pub start_state: StateMessage,
    pub goal_state: StateMessage,
}

/// A transition that happened, on `~/transition_event`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "lifecycle_msgs/msg/TransitionEvent")]
#[allow(missing_docs, reason = "fields as in the definition")]
pub struct TransitionEvent {
    /// Nanoseconds on the node's clock.
    pub timestamp: u64,
    pub transition: TransitionMessage,
    pub start_state: StateMessage,
    pub goal_state: StateMessage,
}

service! {
    /// Asks for a transition, by its label or, where that is empty, by its number.
    ChangeState "lifecycle_msgs/srv/ChangeState":
    ChangeStateRequest "lifecycle_msgs/srv/ChangeState_Request" { transition: TransitionMessage }
    ChangeStateResponse "lifecycle_msgs/srv/ChangeState_Response" { success: bool }
}
service! {
    /// The state in force.
    GetState "lifecycle_msgs/srv/GetState":
    GetStateRequest "lifecycle_msgs/srv/GetState_Request" { structure_needs_at_least_one_member: u8 }
    GetStateResponse "lifecycle_msgs/srv/GetState_Response" { current_state: StateMessage }
}
service! {
    /// Every state there is.
    GetAvailableStates "lifecycle_msgs/srv/GetAvailableStates":
    GetAvailableStatesRequest "lifecycle_msgs/srv/GetAvailableStates_Request" { structure_needs_at_least_one_member: u8 }
    GetAvailableStatesResponse "lifecycle_msgs/srv/GetAvailableStates_Response" { available_states: Vec<StateMessage> }
}
service! {
    /// Transitions from the state in force, or (`~/get_transition_graph`) all of them.
    GetAvailableTransitions "lifecycle_msgs/srv/GetAvailableTransitions":
    GetAvailableTransitionsRequest "lifecycle_msgs/srv/GetAvailableTransitions_Request" {
        structure_needs_at_least_one_member: u8,
    }
    GetAvailableTransitionsResponse "lifecycle_msgs/srv/GetAvailableTransitions_Response" {
        available_transitions: Vec<TransitionDescription>,
    }
}

message_types! {
    StateMessage => "lifecycle_msgs/msg/State",
    TransitionMessage => "lifecycle_msgs/msg/Transition",
    TransitionDescription => "lifecycle_msgs/msg/TransitionDescription",
    TransitionEvent => "lifecycle_msgs/msg/TransitionEvent",
}
