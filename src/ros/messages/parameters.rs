//! `rcl_interfaces`: the services every node answers about its parameters.

use serde::{Deserialize, Serialize};

use super::{Octet, Time};

/// Numbers of `rcl_interfaces/msg/ParameterType`.
pub mod parameter_type {
    /// No such parameter.
    pub const NOT_SET: u8 = 0;
    /// `bool_value` holds.
    pub const BOOL: u8 = 1;
    /// `integer_value` holds.
    pub const INTEGER: u8 = 2;
    /// `double_value` holds.
    pub const DOUBLE: u8 = 3;
    /// `string_value` holds.
    pub const STRING: u8 = 4;
    /// `string_array_value` holds.
    pub const STRING_ARRAY: u8 = 9;
}

/// A value of any type; `kind` says which field holds it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename = "rcl_interfaces/msg/ParameterValue")]
#[allow(missing_docs, reason = "fields as in the definition")]
pub struct ParameterValue {
    /// One of [`parameter_type`].
    #[serde(rename = "type")]
    pub kind: u8,
    pub bool_value: bool,
    pub integer_value: i64,
    pub double_value: f64,
    pub string_value: String,
    pub byte_array_value: Vec<Octet>,
    pub bool_array_value: Vec<bool>,
    pub integer_array_value: Vec<i64>,
    pub double_array_value: Vec<f64>,
    pub string_array_value: Vec<String>,
}

impl ParameterValue {
    /// Whether it is a list of any type without elements.
    #[must_use]
    pub fn is_empty_list(&self) -> bool {
        (5..=9).contains(&self.kind)
            && self.byte_array_value.is_empty()
            && self.bool_array_value.is_empty()
            && self.integer_array_value.is_empty()
            && self.double_array_value.is_empty()
            && self.string_array_value.is_empty()
    }
}

/// A name with its value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename = "rcl_interfaces/msg/Parameter")]
#[allow(missing_docs, reason = "fields as in the definition")]
pub struct NamedParameter {
    pub name: String,
    pub value: ParameterValue,
}

/// Allowed doubles, bounds included; step 0 for all in between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename = "rcl_interfaces/msg/FloatingPointRange")]
#[allow(missing_docs, reason = "fields as in the definition")]
pub struct FloatingPointRange {
    pub from_value: f64,
    pub to_value: f64,
    pub step: f64,
}

/// Allowed integers, bounds included; step 0 for all in between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "rcl_interfaces/msg/IntegerRange")]
#[allow(missing_docs, reason = "fields as in the definition")]
pub struct IntegerRange {
    pub from_value: i64,
    pub to_value: i64,
    pub step: u64,
}

/// What a parameter means and which values it takes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename = "rcl_interfaces/msg/ParameterDescriptor")]
#[allow(missing_docs, reason = "fields as in the definition")]
pub struct ParameterDescriptor {
    pub name: String,
    /// One of [`parameter_type`].
    #[serde(rename = "type")]
    pub kind: u8,
    pub description: String,
    pub additional_constraints: String,
    pub read_only: bool,
    pub dynamic_typing: bool,
    /// At most one.
    pub floating_point_range: Vec<FloatingPointRange>,
    /// At most one.
    pub integer_range: Vec<IntegerRange>,
}

/// Whether a parameter was set, and why not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "rcl_interfaces/msg/SetParametersResult")]
#[allow(missing_docs, reason = "fields as in the definition")]
pub struct SetParametersResult {
    pub successful: bool,
    pub reason: String,
}

/// Names, and the groups their dots make.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "rcl_interfaces/msg/ListParametersResult")]
#[allow(missing_docs, reason = "fields as in the definition")]
pub struct ListParametersResult {
    pub names: Vec<String>,
    pub prefixes: Vec<String>,
}

service! {
    /// Names of a node's parameters.
    ListParameters "rcl_interfaces/srv/ListParameters":
    ListParametersRequest "rcl_interfaces/srv/ListParameters_Request" { prefixes: Vec<String>, depth: u64 }
    ListParametersResponse "rcl_interfaces/srv/ListParameters_Response" { result: ListParametersResult }
}
service! {
    /// Values, in the order asked for.
    GetParameters "rcl_interfaces/srv/GetParameters":
    GetParametersRequest "rcl_interfaces/srv/GetParameters_Request" { names: Vec<String> }
    GetParametersResponse "rcl_interfaces/srv/GetParameters_Response" { values: Vec<ParameterValue> }
}
service! {
    /// Types, in the order asked for.
    GetParameterTypes "rcl_interfaces/srv/GetParameterTypes":
    GetParameterTypesRequest "rcl_interfaces/srv/GetParameterTypes_Request" { names: Vec<String> }
    GetParameterTypesResponse "rcl_interfaces/srv/GetParameterTypes_Response" { types: Vec<u8> }
}
service! {
    /// Meanings, in the order asked for.
    DescribeParameters "rcl_interfaces/srv/DescribeParameters":
    DescribeParametersRequest "rcl_interfaces/srv/DescribeParameters_Request" { names: Vec<String> }
    DescribeParametersResponse "rcl_interfaces/srv/DescribeParameters_Response" { descriptors: Vec<ParameterDescriptor> }
}
service! {
    /// Sets parameters one by one.
    SetParameters "rcl_interfaces/srv/SetParameters":
    SetParametersRequest "rcl_interfaces/srv/SetParameters_Request" { parameters: Vec<NamedParameter> }
    SetParametersResponse "rcl_interfaces/srv/SetParameters_Response" { results: Vec<SetParametersResult> }
}
service! {
    /// Sets all parameters or none.
    SetParametersAtomically "rcl_interfaces/srv/SetParametersAtomically":
    SetParametersAtomicallyRequest "rcl_interfaces/srv/SetParametersAtomically_Request" { parameters: Vec<NamedParameter> }
    SetParametersAtomicallyResponse "rcl_interfaces/srv/SetParametersAtomically_Response" { result: SetParametersResult }
}

/// What changed; on `/parameter_events`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename = "rcl_interfaces/msg/ParameterEvent")]
#[allow(missing_docs, reason = "fields as in the definition")]
pub struct ParameterEvent {
    pub stamp: Time,
    /// Fully qualified name of the node.
    pub node: String,
    pub new_parameters: Vec<NamedParameter>,
    pub changed_parameters: Vec<NamedParameter>,
    pub deleted_parameters: Vec<NamedParameter>,
}

message_types! {
    ParameterEvent => "rcl_interfaces/msg/ParameterEvent",
    ParameterValue => "rcl_interfaces/msg/ParameterValue",
    NamedParameter => "rcl_interfaces/msg/Parameter",
    FloatingPointRange => "rcl_interfaces/msg/FloatingPointRange",
    IntegerRange => "rcl_interfaces/msg/IntegerRange",
    ParameterDescriptor => "rcl_interfaces/msg/ParameterDescriptor",
    SetParametersResult => "rcl_interfaces/msg/SetParametersResult",
    ListParametersResult => "rcl_interfaces/msg/ListParametersResult",
}
