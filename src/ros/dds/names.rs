//! ROS names and types as DDS sees them, and back
//! (<https://design.ros2.org/articles/topic_and_service_names.html>).

/// `/camera/image` → `rt/camera/image`.
pub fn dds_topic(ros: &str) -> String {
    format!("rt{ros}")
}

/// `rt/camera/image` → `/camera/image`; `None` for topics that are not ROS topics.
pub fn ros_topic(dds: &str) -> Option<String> {
    dds.strip_prefix("rt").filter(|name| name.starts_with('/')).map(str::to_owned)
}

/// `sensor_msgs/msg/Image` → `sensor_msgs::msg::dds_::Image_`.
pub fn dds_type(ros: &str) -> Option<String> {
    let mut parts = ros.split('/');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(package), Some(kind), Some(name), None) if !name.is_empty() => {
            Some(format!("{package}::{kind}::dds_::{name}_"))
        }
        _ => None,
    }
}

/// `sensor_msgs::msg::dds_::Image_` → `sensor_msgs/msg/Image`; `None` for types that are not ROS types.
pub fn ros_type(dds: &str) -> Option<String> {
    let mut parts = dds.split("::");
    match (parts.next(), parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(package), Some(kind), Some("dds_"), Some(name), None) => {
            Some(format!("{package}/{kind}/{}", name.strip_suffix('_')?))
        }
        _ => None,
    }
}

/// The two topics and two types of a service, in DDS names.
pub struct ServiceNames {
    pub request_topic: String,
    pub response_topic: String,
    pub request_type: String,
    pub response_type: String,
}

/// `/node/set`, `pkg/srv/Set` → `rq/node/setRequest`, `rr/node/setReply` and the types of the halves.
pub fn service(name: &str, ros: &str) -> Option<ServiceNames> {
    Some(ServiceNames {
        request_topic: format!("rq{name}Request"),
        response_topic: format!("rr{name}Reply"),
        request_type: dds_type(&format!("{ros}_Request"))?,
        response_type: dds_type(&format!("{ros}_Response"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_mangled_as_ros_does() {
        assert_eq!(dds_topic("/camera/image"), "rt/camera/image");
        assert_eq!(ros_topic("rt/camera/image").as_deref(), Some("/camera/image"));
        assert_eq!(ros_topic("ros_discovery_info"), None);
        assert_eq!(ros_topic("rq/a/bRequest"), None);
        assert_eq!(dds_type("sensor_msgs/msg/Image").as_deref(), Some("sensor_msgs::msg::dds_::Image_"));
        assert_eq!(dds_type("Image"), None);
        assert_eq!(ros_type("sensor_msgs::msg::dds_::Image_").as_deref(), Some("sensor_msgs/msg/Image"));
        assert_eq!(ros_type("ShapeType"), None);
        let names = service("/scenelex/set_vocabulary", "scenelex/srv/SetVocabulary").unwrap();
        assert_eq!(names.request_topic, "rq/scenelex/set_vocabularyRequest");
        assert_eq!(names.response_topic, "rr/scenelex/set_vocabularyReply");
        assert_eq!(names.request_type, "scenelex::srv::dds_::SetVocabulary_Request_");
        assert_eq!(names.response_type, "scenelex::srv::dds_::SetVocabulary_Response_");
    }
}
