//! Parameters from files and the command line, and every parameter file in `config/` by the node's own parser.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::path::{Path, PathBuf};

use scenelex::{
    inference::{Provider, Thresholds},
    pipeline::LabelRule,
    ros::{
        arguments::RosArguments,
        defaults::document,
        parameter_table::TABLE,
        parameters::{Value, Values},
        settings::Settings,
        transport::{History, Reliability},
    },
};

/// Settings under a command line; `file` stands for the path of a parameter file with the given text.
fn settings(line: &[&str], file: &str) -> Result<Settings, String> {
    let path = std::env::temp_dir().join(format!("scenelex-params-{}-{:p}.yaml", std::process::id(), &raw const line));
    std::fs::write(&path, file).unwrap();
    let line: Vec<String> =
        line.iter().map(|word| if *word == "FILE" { path.display().to_string() } else { (*word).to_owned() }).collect();
    let parsed = RosArguments::parse(&line).map_err(|e| e.to_string())?;
    let node = parsed.identity("scenelex").map_err(|e| e.to_string())?;
    let mut values = Values::new(TABLE);
    let applied = values.apply(&parsed.parameters, &node).map_err(|e| e.to_string());
    std::fs::remove_file(&path).unwrap();
    applied?;
    Settings::from_values(&values).map_err(|e| e.to_string())
}

fn config_files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    files
}

#[test]
fn every_config_file_is_accepted_by_the_node() {
    let files = config_files();
    assert!(files.len() >= 2, "{files:?}");
    for file in files {
        let line = ["--ros-args".to_owned(), "--params-file".to_owned(), file.display().to_string()];
        let parsed = RosArguments::parse(&line).unwrap();
        let node = parsed.identity("scenelex").unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        let mut values = Values::new(TABLE);
        let sections = values.apply_file(&text, &file, &node).unwrap_or_else(|e| panic!("{e}"));
        assert!(sections > 0, "{} says nothing to the node", file.display());
        Settings::from_values(&values).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    }
}

#[test]
fn the_default_file_is_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/default.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text == document(TABLE), "config/default.yaml differs from the table; it should be:\n{}", document(TABLE));
    let node = RosArguments::default().identity("scenelex").unwrap();
    let mut values = Values::new(TABLE);
    values.apply_file(&text, &path, &node).unwrap();
    for (parameter, value) in values.iter() {
        assert_eq!(value, parameter.default.value(), "{}", parameter.name);
        assert!(!parameter.description.is_empty() && parameter.description.ends_with('.'), "{}", parameter.name);
    }
}

#[test]
fn names_in_the_table_are_unique_and_defaults_allowed() {
    let mut names: Vec<_> = TABLE.iter().map(|parameter| parameter.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), TABLE.len());
    Settings::from_values(&Values::new(TABLE)).unwrap();
}

#[test]
fn later_sources_win_and_other_nodes_are_left_alone() {
    let file = "
/**:
  ros__parameters:
    box_threshold: 0.5
    classes: [mug, office chair]
    qos: {image: {reliability: reliable, depth: 3}}
other:
  ros__parameters: {box_threshold: 0.9, anything: at all}
/robot:
  scenelex:
    ros__parameters: {n_points: 5}
scenelex:
  ros__parameters: {n_points: 6, label_rule: token_labels}
";
    let line = ["--ros-args", "-p", "box_threshold:=0.1", "--params-file", "FILE", "-p", "use_points:=false"];
    let found = settings(&line, file).unwrap();
    assert_eq!(found.box_threshold, Some(0.5));
    assert_eq!(found.classes, ["mug", "office chair"]);
    assert_eq!(found.image_qos.reliability, Reliability::Reliable);
    assert_eq!(found.image_qos.history, History::KeepLast(3));
    let shipped = Thresholds { box_threshold: 0.2, text_threshold: 0.3, nms_iou: 0.4 };
    let pipeline = found.pipeline(&shipped);
    assert_eq!((pipeline.box_threshold, pipeline.text_threshold, pipeline.nms_iou), (0.5, 0.3, 0.4));
    assert_eq!((pipeline.n_points, pipeline.use_points, pipeline.label_rule), (6, false, LabelRule::TokenLabels));

    let moved = [&["--ros-args", "-r", "__ns:=/robot"], &line[1..]].concat();
    assert_eq!(settings(&moved, file).unwrap().pipeline(&shipped).n_points, 5);
}

#[test]
fn values_on_the_command_line_are_yaml() {
    let line = [
        "--ros-args",
        "-p",
        "classes:=['mug', 'traffic cone']",
        "-p",
        "nms_iou:=1",
        "-p",
        "provider:=cuda",
        "-p",
        "device:=2",
        "-p",
        "scenelex:image_transport:=compressed",
        "-p",
        "someone_else:no_such:=1",
        "-p",
        "models_dir:=/tmp/models",
    ];
    let found = settings(&line, "{}").unwrap();
    assert_eq!(found.classes, ["mug", "traffic cone"]);
    assert_eq!(found.nms_iou, Some(1.0), "whole numbers are doubles too");
    assert_eq!(found.pipeline(&Thresholds::default()).execution.provider, Provider::Cuda { device: 2 });
    assert!(found.compressed);
    assert_eq!(found.models_dir.as_deref(), Some(Path::new("/tmp/models")));
}

#[test]
fn faults_name_the_place_and_the_nearest_parameter() {
    let param = |text| (vec!["--ros-args", "-p", text], "{}");
    let file = |text| (vec!["--ros-args", "--params-file", "FILE"], text);
    for ((line, text), expected) in [
        (param("box_treshold:=0.5"), vec!["box_treshold", "did you mean \"box_threshold\""]),
        (param("qos.image.reliabilty:=reliable"), vec!["did you mean \"qos.image.reliability\""]),
        (param("n_points:=many"), vec!["n_points is an integer", "many"]),
        (param("n_points:=2.5"), vec!["n_points is an integer", "2.5"]),
        (param("use_points:=1"), vec!["use_points is a bool", "1"]),
        (param("classes:=mug"), vec!["classes is a list of strings", "mug"]),
        (param("classes:=[1, 2]"), vec!["classes is a list of strings"]),
        (param("n_points:=1000"), vec!["n_points must be from 0 to 256", "1000"]),
        (param("threads.resolve:=65"), vec!["threads.resolve must be from 0 to 64", "65"]),
        (param("box_threshold:=1.5"), vec!["box_threshold must be from -1 to 1"]),
        (param("box_threshold:=-0.5"), vec!["box_threshold", "in [0, 1]"]),
        (param("box_threshold:=.nan"), vec!["box_threshold"]),
        (param("image_transport:=theora"), vec!["one of raw, compressed", "theora"]),
        (param("classes:=[mug"), vec!["not valid YAML"]),
        (param("use_sim_time:=maybe"), vec!["use_sim_time is a bool"]),
        (file("/**: {ros__parameters: {box_treshold: 1}}"), vec!["scenelex-params", "box_threshold"]),
        (file("/**: {ros__parameters: {qos: {image: {dept: 1}}}}"), vec!["did you mean \"qos.image.depth\""]),
        (file("box_threshold: 0.5"), vec!["ros__parameters"]),
        (file("ros__parameters: {box_threshold: 0.5}"), vec!["without a node's name"]),
        (file("/**: {ros__parameters: [1]}"), vec!["no mapping"]),
        (file("a: ["), vec!["not valid YAML"]),
        ((vec!["--ros-args", "--params-file", "/no/such/file.yaml"], ""), vec!["/no/such/file.yaml"]),
        ((vec!["--ros-args", "-p", "use_box:=false", "-p", "use_points:=false"], "{}"), vec!["use_points"]),
    ] {
        let error = settings(&line, text).unwrap_err();
        for part in expected {
            assert!(error.contains(part), "{line:?} {text}: {error}");
        }
    }
}

#[test]
fn unset_parameters_have_their_defaults() {
    let values = Values::new(TABLE);
    assert_eq!(values.get("n_points"), Some(Value::Integer(20)));
    assert_eq!(values.get("no_such"), None);
    let found = Settings::from_values(&values).unwrap();
    assert_eq!((found.box_threshold, found.image_qos.reliability), (None, Reliability::BestEffort));
    assert_eq!(found.image_qos.history, History::KeepLast(1));
}
