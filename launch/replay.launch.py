"""A recorded bag through the perception node into another bag.

    ros2 launch scenelex replay.launch.py bag:=DIR record:=results

The bag is played once the node has loaded its models; when it has ended, everything does.
"""

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

# What the node says when its models are loaded and its topics are there.
READY = b"waiting for images"
# Until the recorder has found the topics, and until the last results are on the disk.
SETTLE = 2.0

# For perception.launch.py; what is not given here keeps the default it has there.
PASSED_ON = {
    "image": ("/camera/image_raw", "Topic of the images in the bag, without /compressed."),
    "image_transport": ("raw", "What the bag holds of it: raw or compressed."),
    "params_file": ("", "YAML file with the node's parameters."),
    "classes": ("", "Classes to look for, with commas between them."),
    "models_dir": ("", "Folder with the bundles detector/ and segmenter/."),
    "name": ("scenelex", "Name of the node."),
    "namespace": ("", "Namespace of the node."),
    "overlay": ("", "Most overlay pictures a second."),
    "log_level": ("info", "Least severe messages that are logged. Never above info: that the node is ready, it says at this level."),
}
# The player waits for READY: without the messages of level info it would wait for ever.
CHOICES = {"log_level": ["debug", "info"]}

ARGUMENTS = [
    DeclareLaunchArgument("bag", description="Folder of the bag to play."),
    DeclareLaunchArgument("record", default_value="", description="Folder of the bag to write. Empty: none is written."),
    DeclareLaunchArgument(
        "topics",
        default_value="masks detections semantic/label_info vocabulary",
        description="Topics to record, those of the node without its name; with a slash in front, any others.",
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


def player_and_recorder(context):
    def given(name):
        return LaunchConfiguration(name).perform(context).strip()

    bag, out, rate = given("bag"), given("record"), given("rate")
    own = "/".join(["", *filter(None, [given("namespace").strip("/"), given("name")])])
    topics = [topic if topic.startswith("/") else f"{own}/{topic}" for topic in given("topics").split()]
    rosbag2 = given("player") == "rosbag2" or (given("player") == "auto" and has_rosbag2())
    if rosbag2:
        play = ["ros2", "bag", "play", bag, "--clock", "--rate", rate, "--disable-keyboard-controls"]
        # Lists of topics are given differently from one ROS 2 to the next, a regular expression is not.
        pattern = "|".join(f"^{topic}$" for topic in topics)
        record = ["ros2", "bag", "record", "--storage", "mcap", "--output", out, "--regex", pattern]
        player = ExecuteProcess(cmd=play, name="player", output="screen")
        recorder = ExecuteProcess(cmd=record, name="recorder", output="screen", sigterm_timeout="10")
    else:
        # The images alone: a bag may hold types this package was not built with.
        image = given("image") + ("/compressed" if given("image_transport") == "compressed" else "")
        player = tool("player", "play", bag, "--clock", "--rate", rate, "--quiet", "--topics", image)
        recorder = tool("recorder", "record", *topics, "--out", out)

    started = []

    def when_ready(event):
        if started or READY not in event.text:
            return None
        started.append(True)
        return [recorder, TimerAction(period=SETTLE, actions=[player])] if out else [player]

    end = TimerAction(period=SETTLE, actions=[EmitEvent(event=Shutdown(reason="the bag has ended"))])
    return [
        RegisterEventHandler(OnProcessIO(on_stdout=when_ready, on_stderr=when_ready)),
        RegisterEventHandler(OnProcessExit(target_action=player, on_exit=[end])),
    ]


def generate_launch_description():
    perception = PythonLaunchDescriptionSource(PathJoinSubstitution([ThisLaunchFileDir(), "perception.launch.py"]))
    passed_on = {name: LaunchConfiguration(name) for name in PASSED_ON} | {"use_sim_time": "true"}
    return LaunchDescription(
        [
            *ARGUMENTS,
            # First, so that it hears the node from its first line.
            OpaqueFunction(function=player_and_recorder),
            IncludeLaunchDescription(perception, launch_arguments=passed_on.items()),
        ]
    )
