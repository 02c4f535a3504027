//! The six services by which ROS 2's tools list, read, describe and set a node's parameters, and `/parameter_events`.

use std::sync::Arc;

use super::{
    Qos,
    arguments::NodeIdentity,
    clock::NodeTime,
    messages::parameters::{
        DescribeParameters, DescribeParametersResponse, FloatingPointRange, GetParameterTypes,
        GetParameterTypesResponse, GetParameters, GetParametersResponse, IntegerRange, ListParameters,
        ListParametersRequest, ListParametersResponse, ListParametersResult, NamedParameter, ParameterDescriptor,
        ParameterEvent, ParameterValue, SetParameters, SetParametersAtomically, SetParametersAtomicallyResponse,
        SetParametersResponse, SetParametersResult, parameter_type,
    },
    names::InvalidName,
    parameter_store::ParameterStore,
    parameters::{Parameter, Range, Takes, Value, Values},
    transport::{Publisher, RawServer, Transport, TransportError, serve},
};

/// The services could not be offered.
#[derive(Debug, thiserror::Error)]
pub enum ParameterServicesError {
    /// A name made of the node's is impossible.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// The transport refused.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

/// Keeps the services on the graph.
pub struct ParameterServices {
    _servers: [Box<dyn RawServer>; 6],
}

impl ParameterServices {
    /// Offers the parameters below the node's name.
    ///
    /// # Errors
    /// [`ParameterServicesError`] for the first service that cannot be made.
    pub fn start(
        transport: &dyn Transport,
        identity: &NodeIdentity,
        store: &Arc<ParameterStore>,
        time: &NodeTime,
    ) -> Result<Self, ParameterServicesError> {
        let name = |service: &str| identity.resolve(&format!("~/{service}"));
        let shared = || Arc::clone(store);
        let (list, get, types, describe) = (shared(), shared(), shared(), shared());
        let one_by_one = Setter {
            store: shared(),
            events: Publisher::new(transport, &identity.resolve("/parameter_events")?, Qos::RELIABLE)?,
            time: time.clone(),
            node: identity.full_name(),
        };
        let together = one_by_one.clone();
        Ok(Self {
            _servers: [
                serve::<ListParameters, _>(transport, &name("list_parameters")?, move |request| {
                    ListParametersResponse { result: listed(&list.values(), &request) }
                })?,
                serve::<GetParameters, _>(transport, &name("get_parameters")?, move |request| {
                    let values = get.values();
                    let values = request.names.iter().map(|name| values.get(name).map(message).unwrap_or_default());
                    GetParametersResponse { values: values.collect() }
                })?,
                serve::<GetParameterTypes, _>(transport, &name("get_parameter_types")?, move |request| {
                    let values = types.values();
                    let types =
                        request.names.iter().map(|name| values.get(name).map_or(0, |value| message(value).kind));
                    GetParameterTypesResponse { types: types.collect() }
                })?,
                serve::<DescribeParameters, _>(transport, &name("describe_parameters")?, move |request| {
                    let values = describe.values();
                    let descriptors = request.names.iter().map(|name| described(&values, name));
                    DescribeParametersResponse { descriptors: descriptors.collect() }
                })?,
                serve::<SetParameters, _>(transport, &name("set_parameters")?, move |request| {
                    let results = request.parameters.into_iter().map(|parameter| one_by_one.set(vec![parameter]));
                    SetParametersResponse { results: results.collect() }
                })?,
                serve::<SetParametersAtomically, _>(transport, &name("set_parameters_atomically")?, move |request| {
                    SetParametersAtomicallyResponse { result: together.set(request.parameters) }
                })?,
            ],
        })
    }
}

/// Sets parameters and tells `/parameter_events`.
#[derive(Clone)]
struct Setter {
    store: Arc<ParameterStore>,
    events: Publisher<ParameterEvent>,
    time: NodeTime,
    node: String,
}

impl Setter {
    fn set(&self, parameters: Vec<NamedParameter>) -> SetParametersResult {
        let typed = parameters.iter().map(|parameter| Ok((parameter.name.clone(), value(parameter)?)));
        match typed.collect::<Result<Vec<_>, _>>().and_then(|wanted| self.store.set(wanted)) {
            Ok(()) => {
                // As the parameters have it: a whole number may have been sent for a double.
                let values = self.store.values();
                let changed = parameters.into_iter().filter_map(|NamedParameter { name, .. }| {
                    let value = message(values.get(&name)?);
                    Some(NamedParameter { name, value })
                });
                let event = ParameterEvent {
                    stamp: self.time.now().into(),
                    node: self.node.clone(),
                    changed_parameters: changed.collect(),
                    ..ParameterEvent::default()
                };
                if let Err(error) = self.events.publish(&event) {
                    tracing::warn!(%error, "could not announce a parameter");
                }
                SetParametersResult { successful: true, reason: String::new() }
            }
            Err(reason) => {
                tracing::warn!(reason, "refused to set a parameter");
                SetParametersResult { successful: false, reason }
            }
        }
    }
}

/// The value of a message.
fn value(parameter: &NamedParameter) -> Result<Value, String> {
    let found = &parameter.value;
    Ok(match found.kind {
        parameter_type::BOOL => Value::Bool(found.bool_value),
        parameter_type::INTEGER => Value::Integer(found.integer_value),
        parameter_type::DOUBLE => Value::Double(found.double_value),
        parameter_type::STRING => Value::Text(found.string_value.clone()),
        parameter_type::STRING_ARRAY => Value::Texts(found.string_array_value.clone()),
        // An empty list has no type of its own: `ros2 param set` sends the first there is.
        _ if parameter.value.is_empty_list() => Value::Texts(Vec::new()),
        parameter_type::NOT_SET => return Err(format!("{} cannot be unset", parameter.name)),
        other => return Err(format!("{}: no parameter of this node is of type {other}", parameter.name)),
    })
}

fn message(value: Value) -> ParameterValue {
    let of = |kind| ParameterValue { kind, ..ParameterValue::default() };
    match value {
        Value::Bool(value) => ParameterValue { bool_value: value, ..of(parameter_type::BOOL) },
        Value::Integer(value) => ParameterValue { integer_value: value, ..of(parameter_type::INTEGER) },
        Value::Double(value) => ParameterValue { double_value: value, ..of(parameter_type::DOUBLE) },
        Value::Text(value) => ParameterValue { string_value: value, ..of(parameter_type::STRING) },
        Value::Texts(value) => ParameterValue { string_array_value: value, ..of(parameter_type::STRING_ARRAY) },
    }
}

fn find(values: &Values, name: &str) -> Option<(&'static Parameter, Value)> {
    values.iter().find(|(parameter, _)| parameter.name == name)
}

/// What a parameter means; one that does not exist has no type, as rclpy has it.
fn described(values: &Values, name: &str) -> ParameterDescriptor {
    let Some((parameter, value)) = find(values, name) else {
        return ParameterDescriptor { name: name.to_owned(), ..ParameterDescriptor::default() };
    };
    let mut descriptor = ParameterDescriptor {
        name: name.to_owned(),
        kind: message(value).kind,
        description: parameter.description.to_owned(),
        read_only: parameter.takes == Takes::AtStart,
        ..ParameterDescriptor::default()
    };
    match parameter.range {
        Range::Any => {}
        Range::Integers(from_value, to_value) => {
            descriptor.integer_range.push(IntegerRange { from_value, to_value, step: 0 });
        }
        Range::Doubles(from_value, to_value) => {
            descriptor.floating_point_range.push(FloatingPointRange { from_value, to_value, step: 0.0 });
        }
        Range::Choice(choices) => descriptor.additional_constraints = format!("One of {}.", choices.join(", ")),
    }
    if parameter.takes == Takes::WhenConfigured {
        let space = if descriptor.additional_constraints.is_empty() { "" } else { " " };
        descriptor.additional_constraints += space;
        descriptor.additional_constraints += "To be set while the node is unconfigured.";
    }
    descriptor
}

/// The names a client asks for, by the rules of rclcpp: below any of the prefixes and at most `depth` levels down, where 0
/// is any number.
fn listed(values: &Values, request: &ListParametersRequest) -> ListParametersResult {
    let shallow = |rest: &str| {
        request.depth == 0 || u64::try_from(rest.matches('.').count()).is_ok_and(|dots| dots < request.depth)
    };
    let mut result = ListParametersResult::default();
    for (parameter, _) in values.iter() {
        let name = parameter.name;
        let below = |prefix: &String| {
            name == prefix
                || name.strip_prefix(prefix.as_str()).and_then(|rest| rest.strip_prefix('.')).is_some_and(shallow)
        };
        let wanted = if request.prefixes.is_empty() { shallow(name) } else { request.prefixes.iter().any(below) };
        if !wanted {
            continue;
        }
        result.names.push(name.to_owned());
        if let Some((prefix, _)) = name.rsplit_once('.')
            && !result.prefixes.iter().any(|known| known == prefix)
        {
            result.prefixes.push(prefix.to_owned());
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use std::{sync::Mutex, time::Duration};

    use bytes::Bytes;

    use super::*;
    use crate::ros::{
        arguments::RosArguments, cdr::CdrView, clock::NodeClock, parameter_table, parameters::Default,
        settings::Settings, testing::OneWay, transport::RawPublisher,
    };

    const TABLE: &[Parameter] = &[
        Parameter {
            name: "rate",
            default: Default::Double(1.0),
            range: Range::Doubles(0.0, 9.0),
            takes: Takes::AtOnce,
            description: "Rate.",
        },
        Parameter {
            name: "qos.image.depth",
            default: Default::Integer(1),
            range: Range::Integers(1, 5),
            takes: Takes::AtStart,
            description: "",
        },
        Parameter {
            name: "qos.kind",
            default: Default::Text("a"),
            range: Range::Choice(&["a", "b"]),
            takes: Takes::WhenConfigured,
            description: "",
        },
    ];

    fn names(prefixes: &[&str], depth: u64) -> Vec<String> {
        let prefixes = prefixes.iter().map(|&prefix| prefix.to_owned()).collect();
        listed(&Values::new(TABLE), &ListParametersRequest { prefixes, depth }).names
    }

    #[test]
    fn names_are_listed_as_rclcpp_lists_them() {
        assert_eq!(names(&[], 0), ["rate", "qos.image.depth", "qos.kind"]);
        assert_eq!(names(&[], 1), ["rate"]);
        assert_eq!(names(&[], 2), ["rate", "qos.kind"]);
        assert_eq!(names(&["qos"], 0), ["qos.image.depth", "qos.kind"]);
        assert_eq!(names(&["qos"], 1), ["qos.kind"]);
        assert_eq!(names(&["rate", "qos.image"], 1), ["rate", "qos.image.depth"]);
        assert!(names(&["qo", "rat"], 0).is_empty());
        let all = listed(&Values::new(TABLE), &ListParametersRequest::default());
        assert_eq!(all.prefixes, ["qos.image", "qos"]);
    }

    /// A wire that ends here, and what came out of it.
    struct Wire(Arc<Mutex<Vec<Bytes>>>);

    impl RawPublisher for Wire {
        fn publish(&self, message: Bytes) -> Result<(), TransportError> {
            self.0.lock().unwrap().push(message);
            Ok(())
        }

        fn subscribers(&self) -> usize {
            0
        }

        fn flush(&self, _: Duration) -> bool {
            true
        }
    }

    #[test]
    fn an_event_has_the_value_as_the_parameter_has_it() {
        let sent = Arc::new(Mutex::new(Vec::new()));
        let wire = Arc::clone(&sent);
        let transport = OneWay::publishing(move |_: &str, _: &str, _: Qos, _: bool| -> Arc<dyn RawPublisher> {
            Arc::new(Wire(Arc::clone(&wire)))
        });
        let values = Values::new(parameter_table::TABLE);
        let settings = Settings::from_values(&values).unwrap();
        let identity = RosArguments::default().identity("scenelex").unwrap();
        let setter = Setter {
            store: Arc::new(ParameterStore::new(values, settings)),
            events: Publisher::new(&transport, "/parameter_events", Qos::RELIABLE).unwrap(),
            time: NodeClock::new(&transport, &identity, false).unwrap().time(),
            node: identity.full_name(),
        };
        let integer = ParameterValue { kind: parameter_type::INTEGER, integer_value: 1, ..ParameterValue::default() };
        let result = setter.set(vec![NamedParameter { name: "box_threshold".to_owned(), value: integer }]);
        assert!(result.successful, "{}", result.reason);
        let sent = sent.lock().unwrap();
        let event: ParameterEvent = CdrView::from_encapsulated(&sent[0]).unwrap().decode().unwrap();
        let expected = NamedParameter { name: "box_threshold".to_owned(), value: message(Value::Double(1.0)) };
        assert_eq!(event.changed_parameters, [expected]);
    }

    #[test]
    fn a_description_has_type_meaning_and_range() {
        let values = Values::new(TABLE);
        let rate = described(&values, "rate");
        assert_eq!((rate.kind, rate.description.as_str(), rate.read_only), (parameter_type::DOUBLE, "Rate.", false));
        assert_eq!(rate.floating_point_range, [FloatingPointRange { from_value: 0.0, to_value: 9.0, step: 0.0 }]);
        let depth = described(&values, "qos.image.depth");
        assert_eq!(depth.integer_range, [IntegerRange { from_value: 1, to_value: 5, step: 0 }]);
        assert_eq!(
            described(&values, "qos.kind").additional_constraints,
            "One of a, b. To be set while the node is unconfigured."
        );
        assert_eq!(described(&values, "nothing").kind, parameter_type::NOT_SET);
    }
}
