//! Every message struct against its definition: the `.msg` and `.srv` files of this package, and fields and type hashes
//! that an independent implementation computed (`golden/ros/types.json`, written by `golden/ros/make.py`).

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::{collections::BTreeMap, path::Path};

use scenelex::ros::{
    describe::{TypeDescription, describe},
    messages::*,
};
use serde::Deserialize;

fn check<'de, M: RosMessage + Deserialize<'de>>(all: &mut BTreeMap<String, TypeDescription>) {
    let description = describe::<M>().unwrap();
    assert_eq!(description.name, M::TYPE, "the struct's serde name and its ROS name differ");
    all.insert(M::TYPE.to_owned(), description);
}

macro_rules! described {
    ($($message:ty),+ $(,)?) => {{
        let mut all = BTreeMap::new();
        $(check::<$message>(&mut all);)+
        all
    }};
}

fn described() -> BTreeMap<String, TypeDescription> {
    described![
        BoundingBox2D,
        CameraInfo,
        Clock,
        CompressedImage,
        Detection2D,
        Detection2DArray,
        DiagnosticArray,
        DiagnosticStatus,
        Duration,
        Header,
        Image,
        KeyValue,
        LabelInfo,
        LabeledMask,
        LabeledMaskArray,
        ObjectHypothesis,
        ObjectHypothesisWithPose,
        Point,
        Point2D,
        Pose,
        Pose2D,
        PoseWithCovariance,
        Quaternion,
        RegionOfInterest,
        SetVocabularyRequest,
        SetVocabularyResponse,
        SegmentPrompt,
        SegmentRequest,
        SegmentResponse,
        SetBoolRequest,
        SetBoolResponse,
        StageDuration,
        StringMessage,
        Time,
        TriggerRequest,
        TriggerResponse,
        log::Log,
        lifecycle::StateMessage,
        lifecycle::TransitionMessage,
        lifecycle::TransitionDescription,
        lifecycle::TransitionEvent,
        lifecycle::ChangeStateRequest,
        lifecycle::ChangeStateResponse,
        lifecycle::GetStateRequest,
        lifecycle::GetStateResponse,
        lifecycle::GetAvailableStatesRequest,
        lifecycle::GetAvailableStatesResponse,
        lifecycle::GetAvailableTransitionsRequest,
        lifecycle::GetAvailableTransitionsResponse,
        parameters::ParameterValue,
        parameters::NamedParameter,
        parameters::FloatingPointRange,
        parameters::IntegerRange,
        parameters::ParameterDescriptor,
        parameters::ParameterEvent,
        parameters::SetParametersResult,
        parameters::ListParametersResult,
        parameters::ListParametersRequest,
        parameters::ListParametersResponse,
        parameters::GetParametersRequest,
        parameters::GetParametersResponse,
        parameters::GetParameterTypesRequest,
        parameters::GetParameterTypesResponse,
        parameters::DescribeParametersRequest,
        parameters::DescribeParametersResponse,
        parameters::SetParametersRequest,
        parameters::SetParametersResponse,
        parameters::SetParametersAtomicallyRequest,
        parameters::SetParametersAtomicallyResponse,
        VisionClass,
        Vocabulary,
        VocabularyEntry,
    ]
}

/// Fields as a definition file lists them, types with full names.
fn fields_of(definition: &str, package: &str) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    for line in definition.lines() {
        let line = line.split('#').next().unwrap().trim();
        if line.is_empty() || line.contains('=') {
            continue; // comments and constants
        }
        let (kind, name) = line.split_once(' ').unwrap();
        let base = kind.split('[').next().unwrap();
        let primitive = base.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        let kind = match base.split_once('/') {
            None if primitive => kind.to_owned(),
            None => format!("{package}/msg/{kind}"),
            Some((other, _)) => kind.replacen(&format!("{other}/"), &format!("{other}/msg/"), 1),
        };
        fields.push((name.trim().to_owned(), kind));
    }
    fields
}

fn listed(description: &TypeDescription) -> Vec<(String, String)> {
    description.types[description.name].iter().map(|(name, kind)| ((*name).to_owned(), kind.to_string())).collect()
}

#[test]
fn structs_follow_the_definition_files() {
    let all = described();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seen = 0;
    let mut compare = |name: String, definition: &str| {
        let description = all.get(&name).unwrap_or_else(|| panic!("no struct for {name}"));
        assert_eq!(listed(description), fields_of(definition, "scenelex"), "{name}");
        seen += 1;
    };
    for entry in std::fs::read_dir(root.join("msg")).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        compare(format!("scenelex/msg/{stem}"), &std::fs::read_to_string(&path).unwrap());
    }
    for entry in std::fs::read_dir(root.join("srv")).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let (request, response) = text.split_once("---\n").unwrap();
        compare(format!("scenelex/srv/{stem}_Request"), request);
        compare(format!("scenelex/srv/{stem}_Response"), response);
    }
    assert_eq!(seen, all.keys().filter(|name| name.starts_with("scenelex/")).count(), "a struct without a definition");
}

#[derive(Deserialize)]
struct Golden {
    hash: String,
    fields: Vec<(String, String)>,
}

/// Types with sequences of bounded length, which a struct cannot say; their bytes are the same.
const BOUNDED: [&str; 2] = ["rcl_interfaces/msg/ParameterDescriptor", "rcl_interfaces/srv/DescribeParameters_Response"];

#[test]
fn fields_and_hashes_are_those_of_ros() {
    let golden: BTreeMap<String, Golden> = serde_json::from_str(include_str!("golden/ros/types.json")).unwrap();
    let all = described();
    assert_eq!(all.keys().collect::<Vec<_>>(), golden.keys().collect::<Vec<_>>());
    for (name, expected) in &golden {
        assert_eq!(listed(&all[name]), expected.fields, "{name}");
        if !BOUNDED.contains(&name.as_str()) {
            assert_eq!(all[name].hash(), expected.hash, "{name}");
        }
    }
}

#[test]
fn borrowed_views_have_the_layout_of_the_owned_messages() {
    assert_eq!(describe::<ImageView<'_>>().unwrap().hash(), describe::<Image>().unwrap().hash());
    assert_eq!(describe::<CompressedImageView<'_>>().unwrap().hash(), describe::<CompressedImage>().unwrap().hash());
}
