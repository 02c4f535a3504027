//! Definitions of message types in ROS 2 `.msg` syntax: what a bag carries so that it can be read without the packages.
//!
//! This package's own types come from `msg/`, the standard ones it meets from the table below (fields and constants of
//! ROS 2 Humble to Jazzy and vision_msgs 4), any other from the ROS 2 installation that is sourced.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use thiserror::Error;

/// Why a definition cannot be given.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum DefinitionError {
    /// Not of the form `package/msg/Name`.
    #[error("`{0}` is no message type (expected `package/msg/Name`)")]
    BadName(String),
    /// Neither known nor installed.
    #[error("no definition of `{0}` is known; source the ROS 2 installation that has it")]
    Unknown(String),
}

const OWN: &[(&str, &str)] = &[
    ("scenelex/LabeledMask", include_str!("../../msg/LabeledMask.msg")),
    ("scenelex/LabeledMaskArray", include_str!("../../msg/LabeledMaskArray.msg")),
    ("scenelex/StageDuration", include_str!("../../msg/StageDuration.msg")),
    ("scenelex/Vocabulary", include_str!("../../msg/Vocabulary.msg")),
    ("scenelex/VocabularyEntry", include_str!("../../msg/VocabularyEntry.msg")),
];

const STANDARD: &[(&str, &str)] = &[
    ("builtin_interfaces/Time", "int32 sec\nuint32 nanosec\n"),
    ("builtin_interfaces/Duration", "int32 sec\nuint32 nanosec\n"),
    ("std_msgs/Header", "builtin_interfaces/Time stamp\nstring frame_id\n"),
    ("std_msgs/String", "string data\n"),
    ("rosgraph_msgs/Clock", "builtin_interfaces/Time clock\n"),
    (
        "sensor_msgs/Image",
        "std_msgs/Header header\nuint32 height\nuint32 width\nstring encoding\nuint8 is_bigendian\nuint32 step\n\
         uint8[] data\n",
    ),
    ("sensor_msgs/CompressedImage", "std_msgs/Header header\nstring format\nuint8[] data\n"),
    (
        "sensor_msgs/RegionOfInterest",
        "uint32 x_offset\nuint32 y_offset\nuint32 height\nuint32 width\nbool do_rectify\n",
    ),
    (
        "sensor_msgs/CameraInfo",
        "std_msgs/Header header\nuint32 height\nuint32 width\nstring distortion_model\nfloat64[] d\nfloat64[9] k\n\
         float64[9] r\nfloat64[12] p\nuint32 binning_x\nuint32 binning_y\nsensor_msgs/RegionOfInterest roi\n",
    ),
    ("geometry_msgs/Point", "float64 x\nfloat64 y\nfloat64 z\n"),
    ("geometry_msgs/Vector3", "float64 x\nfloat64 y\nfloat64 z\n"),
    ("geometry_msgs/Quaternion", "float64 x 0\nfloat64 y 0\nfloat64 z 0\nfloat64 w 1\n"),
    ("geometry_msgs/Pose", "geometry_msgs/Point position\ngeometry_msgs/Quaternion orientation\n"),
    ("geometry_msgs/PoseWithCovariance", "geometry_msgs/Pose pose\nfloat64[36] covariance\n"),
    ("geometry_msgs/Transform", "geometry_msgs/Vector3 translation\ngeometry_msgs/Quaternion rotation\n"),
    (
        "geometry_msgs/TransformStamped",
        "std_msgs/Header header\nstring child_frame_id\ngeometry_msgs/Transform transform\n",
    ),
    ("tf2_msgs/TFMessage", "geometry_msgs/TransformStamped[] transforms\n"),
    ("vision_msgs/Point2D", "float64 x\nfloat64 y\n"),
    ("vision_msgs/Pose2D", "vision_msgs/Point2D position\nfloat64 theta\n"),
    ("vision_msgs/BoundingBox2D", "vision_msgs/Pose2D center\nfloat64 size_x\nfloat64 size_y\n"),
    ("vision_msgs/ObjectHypothesis", "string class_id\nfloat64 score\n"),
    (
        "vision_msgs/ObjectHypothesisWithPose",
        "vision_msgs/ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose\n",
    ),
    (
        "vision_msgs/Detection2D",
        "std_msgs/Header header\nvision_msgs/ObjectHypothesisWithPose[] results\nvision_msgs/BoundingBox2D bbox\n\
         string id\n",
    ),
    ("vision_msgs/Detection2DArray", "std_msgs/Header header\nvision_msgs/Detection2D[] detections\n"),
    ("vision_msgs/VisionClass", "uint16 class_id\nstring class_name\n"),
    ("vision_msgs/LabelInfo", "std_msgs/Header header\nvision_msgs/VisionClass[] class_map\nfloat32 threshold\n"),
    ("diagnostic_msgs/KeyValue", "string key\nstring value\n"),
    (
        "diagnostic_msgs/DiagnosticStatus",
        "byte OK=0\nbyte WARN=1\nbyte ERROR=2\nbyte STALE=3\nbyte level\nstring name\nstring message\n\
         string hardware_id\ndiagnostic_msgs/KeyValue[] values\n",
    ),
    ("diagnostic_msgs/DiagnosticArray", "std_msgs/Header header\ndiagnostic_msgs/DiagnosticStatus[] status\n"),
];

/// The definition of `type_name` (`package/msg/Name`) followed by every definition it depends on, each after a line of
/// 80 `=` and a line `MSG: package/Name`: the `ros2msg` schema encoding of MCAP.
///
/// # Errors
/// [`DefinitionError::BadName`]; [`DefinitionError::Unknown`] for this type or one it depends on.
pub fn concatenated(type_name: &str) -> Result<String, DefinitionError> {
    let prefixes: Vec<PathBuf> =
        std::env::var_os("AMENT_PREFIX_PATH").map(|paths| std::env::split_paths(&paths).collect()).unwrap_or_default();
    concatenated_from(type_name, &prefixes)
}

fn concatenated_from(type_name: &str, prefixes: &[PathBuf]) -> Result<String, DefinitionError> {
    let parts: Vec<&str> = type_name.split('/').collect();
    let root = match parts[..] {
        [package, "msg", name] if !package.is_empty() && !name.is_empty() => format!("{package}/{name}"),
        _ => return Err(DefinitionError::BadName(type_name.to_owned())),
    };
    let mut text = definition(&root, prefixes)?;
    let mut done = BTreeSet::from([root.clone()]);
    let mut waiting: Vec<String> = dependencies(&root, &text);
    waiting.reverse();
    while let Some(name) = waiting.pop() {
        if !done.insert(name.clone()) {
            continue;
        }
        let own = definition(&name, prefixes)?;
        let mut next = dependencies(&name, &own);
        next.reverse();
        waiting.extend(next);
        text.push_str(&"=".repeat(80));
        text.push_str("\nMSG: ");
        text.push_str(&name);
        text.push('\n');
        text.push_str(&own);
    }
    Ok(text)
}

fn definition(name: &str, prefixes: &[PathBuf]) -> Result<String, DefinitionError> {
    let known = OWN.iter().chain(STANDARD).find(|(known, _)| *known == name);
    let text = known.map(|(_, text)| (*text).to_owned()).or_else(|| {
        let (package, message) = name.split_once('/')?;
        let path = Path::new("share").join(package).join("msg").join(format!("{message}.msg"));
        prefixes.iter().find_map(|prefix| std::fs::read_to_string(prefix.join(&path)).ok())
    });
    let mut text = text.ok_or_else(|| DefinitionError::Unknown(name.replacen('/', "/msg/", 1)))?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

const PRIMITIVES: &[&str] = &[
    "bool", "byte", "char", "float32", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64",
    "uint64", "string", "wstring",
];

/// Names of the types the fields of `text` have, as `package/Name`, in order, primitives left out.
fn dependencies(owner: &str, text: &str) -> Vec<String> {
    let package = owner.split('/').next().unwrap_or_default();
    let mut names = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let Some(field_type) = line.split_whitespace().next() else { continue };
        let base = field_type.split(['[', '<']).next().unwrap_or_default();
        if PRIMITIVES.contains(&base) || base.is_empty() {
            continue;
        }
        let name = match base.split('/').collect::<Vec<_>>()[..] {
            [package, "msg", name] | [package, name] => format!("{package}/{name}"),
            _ if base == "Header" => "std_msgs/Header".to_owned(),
            _ => format!("{package}/{base}"),
        };
        names.push(name);
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_type_resolves() {
        for (name, _) in OWN.iter().chain(STANDARD) {
            let type_name = name.replacen('/', "/msg/", 1);
            assert!(concatenated_from(&type_name, &[]).is_ok(), "{type_name}");
        }
    }

    #[test]
    fn dependencies_follow_once_and_in_order() {
        let text = concatenated_from("scenelex/msg/LabeledMaskArray", &[]).unwrap();
        let names: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("MSG: ")).collect();
        let expected = [
            "std_msgs/Header",
            "builtin_interfaces/Time",
            "builtin_interfaces/Duration",
            "scenelex/LabeledMask",
            "sensor_msgs/RegionOfInterest",
            "scenelex/StageDuration",
        ];
        assert_eq!(names, expected);
        assert_eq!(text.matches(&format!("\n{}\n", "=".repeat(80))).count(), expected.len());
    }

    #[test]
    fn installed_packages_are_asked_for_the_rest() {
        let prefix = std::env::temp_dir().join(format!("scenelex-definitions-{}", std::process::id()));
        let folder = prefix.join("share/some_msgs/msg");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("Outer.msg"), "Inner[<=3] inner # of this package\nHeader header").unwrap();
        std::fs::write(folder.join("Inner.msg"), "string<=10 name\nint32 X=1\n").unwrap();
        let text = concatenated_from("some_msgs/msg/Outer", &[PathBuf::from("/nowhere"), prefix.clone()]).unwrap();
        let missing = concatenated_from("some_msgs/msg/Absent", std::slice::from_ref(&prefix));
        std::fs::remove_dir_all(&prefix).unwrap();
        let names: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("MSG: ")).collect();
        assert_eq!(names, ["some_msgs/Inner", "std_msgs/Header", "builtin_interfaces/Time"]);
        assert_eq!(missing, Err(DefinitionError::Unknown("some_msgs/msg/Absent".into())));
        assert!(matches!(concatenated_from("Image", &[]), Err(DefinitionError::BadName(_))));
    }
}
