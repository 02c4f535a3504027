//! `--ros-args` as ROS 2 documents them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use scenelex::ros::arguments::{ArgumentError, ParameterSource, RosArguments};

fn parse(line: &str) -> Result<RosArguments, ArgumentError> {
    RosArguments::parse(&line.split_whitespace().collect::<Vec<_>>())
}

#[test]
fn a_launch_files_command_line_is_understood() {
    let parsed = parse(
        "--ros-args --log-level rcl:=debug --disable-external-lib-logs -r __node:=eyes -r __ns:=/robot \
         --params-file a.yaml -p box_threshold:=0.4 --params-file b.yaml -p eyes:use_sim_time:=true \
         -r image:=/camera/image_raw -r other:image:=/elsewhere -- --ros-args --remap ~/masks:=masks",
    )
    .unwrap();
    assert_eq!(parsed.log_level.as_deref(), Some("debug"));
    let value = |node: Option<&str>, name: &str, yaml: &str| ParameterSource::Value {
        node: node.map(str::to_owned),
        name: name.to_owned(),
        yaml: yaml.to_owned(),
    };
    assert_eq!(
        parsed.parameters,
        [
            ParameterSource::File("a.yaml".into()),
            value(None, "box_threshold", "0.4"),
            ParameterSource::File("b.yaml".into()),
            value(Some("eyes"), "use_sim_time", "true"),
        ]
    );
    let node = parsed.identity("scenelex").unwrap();
    assert_eq!(node.full_name(), "/robot/eyes");
    assert_eq!(node.resolve("image").unwrap(), "/camera/image_raw");
    assert_eq!(node.resolve("~/masks").unwrap(), "/robot/masks");
    assert_eq!(node.resolve("~/overlay/image").unwrap(), "/robot/eyes/overlay/image");
    assert_eq!(node.resolve("/diagnostics").unwrap(), "/diagnostics");
}

#[test]
fn names_without_rules_stay_and_the_first_rule_wins() {
    let node = parse("").unwrap().identity("scenelex").unwrap();
    assert_eq!((node.full_name().as_str(), node.resolve("image").unwrap().as_str()), ("/scenelex", "/image"));
    let node = parse("--ros-args -r image:=/a -r /image:=/b -r rostopic:///diagnostics:=/c").unwrap();
    let node = node.identity("scenelex").unwrap();
    assert_eq!(node.resolve("image").unwrap(), "/a");
    assert_eq!(node.resolve("/diagnostics").unwrap(), "/c");
    // A rule is about whole names, never about parts of them.
    assert_eq!(node.resolve("image/compressed").unwrap(), "/image/compressed");
}

/// As `rcl_remap_node_name` and `rcl_remap_node_namespace` do it: the first rule that is for this node; the namespace's are
/// compared with the name as it has become.
#[test]
fn the_nodes_own_names_follow_the_first_rule_for_it() {
    for (line, expected) in [
        ("-r other:__ns:=/x -r other:__node:=y", "/scenelex"),
        ("-r other:__node:=y -r __node:=eyes -r __node:=ears", "/eyes"),
        ("-r __ns:=/a -r __ns:=/b", "/a/scenelex"),
        ("-r scenelex:__node:=eyes -r scenelex:__ns:=/old -r eyes:__ns:=/new", "/new/eyes"),
        ("-r eyes:__node:=ears -r __name:=eyes", "/eyes"),
    ] {
        let node = parse(&format!("--ros-args {line}")).unwrap().identity("scenelex").unwrap();
        assert_eq!(node.full_name(), expected, "{line}");
    }
}

#[test]
fn a_second_remapping_can_be_forestalled() {
    let node = parse("--ros-args -r ~/masks:=/first -r /first:=/second -r /a:=/b -r /b:=/a -r /a:=/c").unwrap();
    let node = node.identity("scenelex").unwrap();
    for name in ["~/masks", "/first", "/a", "/b", "/other", "~/detections"] {
        let resolved = node.resolve(name).unwrap();
        assert_eq!(node.resolve(&node.before_remapping(&resolved)).unwrap(), resolved, "{name}");
    }
    assert_eq!(node.before_remapping("/first"), "/scenelex/masks");
    assert_eq!(node.before_remapping("/other"), "/other");
}

#[test]
fn the_logger_has_the_nodes_name_with_dots() {
    // The example of rcl_create_node_logger_name.
    let node = parse("--ros-args -r __ns:=/a/b -r __node:=c").unwrap().identity("scenelex").unwrap();
    assert_eq!(node.logger_name(), "a.b.c");
    assert_eq!(parse("").unwrap().identity("scenelex").unwrap().logger_name(), "scenelex");
}

#[test]
fn the_last_word_on_rosout_holds() {
    for (line, disabled) in [
        ("", false),
        ("--ros-args --disable-stdout-logs", false),
        ("--ros-args --disable-rosout-logs", true),
        ("--ros-args --disable-rosout-logs --enable-rosout-logs", false),
        ("--ros-args --enable-rosout-logs -- --ros-args --disable-rosout-logs", true),
    ] {
        assert_eq!(parse(line).unwrap().rosout_disabled, disabled, "{line}");
    }
}

#[test]
fn what_cannot_be_understood_is_named() {
    for (line, expected) in [
        ("image:=/a", "image:=/a"),
        ("--ros-args --rermap a:=b", "--rermap"),
        ("--ros-args -r", "-r needs a value"),
        ("--ros-args -r image=/a", "image=/a"),
        ("--ros-args -r image:=", "image:="),
        ("--ros-args -p :=3", ":=3"),
        ("--ros-args --log-level loud", "loud"),
        ("--ros-args -r __node:=a/b", "a/b"),
        ("--ros-args -r __ns:=/a//b", "/a//b"),
        ("--ros-args --disable-gravity", "--disable-gravity"),
    ] {
        let error = parse(line).unwrap_err().to_string();
        assert!(error.contains(expected), "{line}: {error}");
    }
}
