"""A recorded bag through the perception node into another bag.

    ros2 launch scenelex replay.launch.py bag:=DIR record:=results

The bag is played once the node has loaded its models; when it has ended, everything does. Where it cannot be played to its
end, or its results cannot be recorded, everything ends too, with exit status 1.
"""

import os
import sys
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    TimerAction,
)
from launch.event_handlers import OnProcessExit, OnProcessIO
from launch.events import Shutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution, ThisLaunchFileDir
from launch_ros.actions import Node

# Beside this file, wherever it is installed.
sys.path.append(str(Path(__file__).parent))
from scenelex_inputs import file_values, full_name, image_topics  # noqa: E402

# What the node says when its models are loaded and its topics are there.
READY = b"waiting for images"
# Until the recorder has found the topics, and until the last results are on the disk.
SETTLE = 2.0
# What is recorded of every camera.
RESULTS = ("masks", "detections", "semantic/label_info")
# Topics outside the node's name that this run publishes itself.
OWN = ("/clock", "/diagnostics", "/rosout")

# For perception.launch.py; what is not given here keeps the default it has there.
PASSED_ON = {
    "image": ("", "Topic of the images in the bag, with or without /compressed. Empty: /camera/image_raw, or NAME/image for each "
              "of the cameras that the parameter file names."),
    "cameras": ("", "Several cameras in the bag, as NAME=TOPIC with commas between them. Empty: the one of `image`, or those of "
                "the parameter file."),
    "image_transport": ("", "What the bag holds of the images: raw or compressed. Empty: as the parameter file says, else raw."),
    "params_file": ("", "YAML file with the node's parameters. Its use_sim_time and autostart have no effect here: both are true."),
    "classes": ("", "Classes to look for, with commas between them."),
    "box_threshold": ("", "Detections with a score above it are kept. Empty: as the parameter file says, else as the detector ships."),
    "models_dir": ("", "Folder with the bundles detector/ and segmenter/."),
    "name": ("scenelex", "Name of the node."),
    "namespace": ("", "Namespace of the node."),
    "overlay": ("", "Most overlay pictures a second."),
    "log_level": ("info", "Least severe messages that are logged. Never above info: that the node is ready, it says at this level."),
}
# The player waits for READY: without the messages of level info it would wait for ever.
CHOICES = {"log_level": ["debug", "info"], "image_transport": ["", "raw", "compressed"]}

ARGUMENTS = [
    DeclareLaunchArgument("bag", description="Folder of the bag to play."),
    DeclareLaunchArgument(
        "record", default_value="", description="Folder of the bag to write; must not exist. Empty: none is written."
    ),
    DeclareLaunchArgument(
        "topics",
        default_value="",
        description="Topics to record, those of the node without its name; with a slash in front, any others, which rosbag2 "
        "plays too where the bag holds them. Empty: masks, detections and semantic/label_info, of several cameras as "
        "NAME/masks and so on, and vocabulary.",
    ),
    DeclareLaunchArgument(
        "also_play",
        default_value="",
        description="Topics of the bag to play beside the images, and with rosbag2 beside their camera_info, /tf and "
        "/tf_static. Results of an earlier run that the bag may hold are not played, or they would be among the new ones.",
    ),
    DeclareLaunchArgument("rate", default_value="1.0", description="Speed: 2.0 plays twice as fast."),
    DeclareLaunchArgument(
        "player",
        default_value="auto",
        choices=["auto", "rosbag2", "scenelex"],
        description="What plays and records: `ros2 bag`, or `scenelex play` and `scenelex record`. auto: rosbag2 where it "
        "is installed.",
    ),
    *(
        DeclareLaunchArgument(name, default_value=value, description=text, choices=CHOICES.get(name))
        for name, (value, text) in PASSED_ON.items()
    ),
]


def has_rosbag2():
    try:
        get_package_prefix("ros2bag")
        get_package_prefix("rosbag2_storage_mcap")
    except PackageNotFoundError:
        return False
    return True


def tool(name, *arguments):
    """A subcommand of the package's own program; it takes no ROS arguments."""
    program = [get_package_prefix("scenelex"), "/lib/scenelex/scenelex"]
    return ExecuteProcess(cmd=[program, *arguments], name=name, output="screen", sigterm_timeout="10")


def topics_in(bag):
    """The topics of which a bag holds messages, as rosbag2 finds it."""
    # Comes with `ros2 bag`, which is not everywhere.
    from rosbag2_py import Info

    found = Info().read_metadata(bag, "").topics_with_message_count
    return {topic.topic_metadata.name for topic in found if topic.message_count}


def camera_info(image):
    """The topic of a camera's calibration, beside that of its images."""
    return f"{image.removesuffix('/compressed').rpartition('/')[0]}/camera_info"


def rosbag2_play(bag, rate, wanted, others):
    """Plays what is wanted, which has to be in the bag, and of the others what is."""
    held = topics_in(bag)
    lacking = [topic for topic in wanted if topic not in held]
    if lacking:
        raise RuntimeError(
            f"bag: expected messages on {', '.join(lacking)}; {bag} holds some on {', '.join(sorted(held)) or 'no topic'}"
        )
    # `ros2 bag play` passes over names that are not in the bag.
    topics = dict.fromkeys([*wanted, *others])
    command = ["ros2", "bag", "play", bag, "--clock", "--rate", rate, "--disable-keyboard-controls", "--topics", *topics]
    return ExecuteProcess(cmd=command, name="player", output="screen")


def player_and_recorder(context):
    def given(name):
        return LaunchConfiguration(name).perform(context).strip()

    bag, out, rate = given("bag"), given("record"), given("rate")
    if not os.path.exists(bag):
        raise RuntimeError(f"bag: {bag} does not exist")
    if out and os.path.lexists(out):
        raise RuntimeError(f"record: {out} exists already; expected the name of a folder that can be made")
    node = full_name(given, given("name"))
    inputs = image_topics(given, file_values(given))
    images = [full_name(given, topic) for topic in inputs.values()]
    wanted = list(dict.fromkeys([*images, *(full_name(given, topic) for topic in given("also_play").split())]))
    results = [f"{name.removesuffix('image')}{result}" for name in inputs for result in RESULTS]
    topics = [topic if topic.startswith("/") else f"{node}/{topic}" for topic in given("topics").split() or [*results, "vocabulary"]]
    rosbag2 = given("player") == "rosbag2" or (given("player") == "auto" and has_rosbag2())
    if rosbag2:
        others = [*map(camera_info, images), "/tf", "/tf_static"]
        others += [topic for topic in topics if not topic.startswith(f"{node}/") and topic not in OWN]
        player = rosbag2_play(bag, rate, wanted, others)
        # Lists of topics are given differently from one ROS 2 to the next, a regular expression is not.
        pattern = "|".join(f"^{topic}$" for topic in topics)
        record = ["ros2", "bag", "record", "--storage", "mcap", "--output", out, "--regex", pattern]
        recorder = ExecuteProcess(cmd=record, name="recorder", output="screen", sigterm_timeout="10")
    else:
        # Nothing that was not asked for: a bag may hold types this package was not built with.
        player = tool("player", "play", bag, "--clock", "--rate", rate, "--quiet", "--topics", *wanted)
        recorder = tool("recorder", "record", *topics, "--out", out)

    started, played = [], []

    def when_ready(event):
        if started or READY not in event.text:
            return None
        started.append(True)
        return [recorder, TimerAction(period=SETTLE, actions=[player])] if out else [player]

    def ended(event, context):
        """Ends everything: well after the bag's end, with an error, which is launch's exit status, before it."""
        if event.action is recorder and played and not (Path(out) / "metadata.yaml").is_file():
            raise RuntimeError(f"record: the recorder has not completed {out}; what it says is above")
        if context.is_shutdown:
            return None
        if event.action is player and event.returncode == 0:
            played.append(True)
            return [TimerAction(period=SETTLE, actions=[EmitEvent(event=Shutdown(reason="the bag has ended"))])]
        if event.action is player or event.action is recorder:
            who = "player" if event.action is player else "recorder"
        elif isinstance(event.action, Node) and event.action.node_name == node:
            who = "node"
        else:
            return None
        raise RuntimeError(f"the {who} has ended before the bag, with exit status {event.returncode}; what it says is above")

    return [
        RegisterEventHandler(OnProcessIO(on_stdout=when_ready, on_stderr=when_ready)),
        RegisterEventHandler(OnProcessExit(on_exit=ended)),
    ]


def generate_launch_description():
    perception = PythonLaunchDescriptionSource(PathJoinSubstitution([ThisLaunchFileDir(), "perception.launch.py"]))
    # The player waits for the node to be ready, whatever the file says of autostart.
    passed_on = {name: LaunchConfiguration(name) for name in PASSED_ON} | {"use_sim_time": "true", "autostart": "true"}
    return LaunchDescription(
        [
            *ARGUMENTS,
            # First, so that it hears the node from its first line.
            OpaqueFunction(function=player_and_recorder),
            IncludeLaunchDescription(perception, launch_arguments=passed_on.items()),
        ]
    )
