"""The perception node on one camera, or on several.

    ros2 launch scenelex perception.launch.py image:=/camera/image_raw classes:="mug, bottle"
    ros2 launch scenelex perception.launch.py cameras:="front=/front_camera/image_raw, rear=/rear_camera/image_raw"
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

ARGUMENTS = [
    DeclareLaunchArgument("image", default_value="/camera/image_raw", description="Topic of the camera's images."),
    DeclareLaunchArgument(
        "cameras",
        default_value="",
        description="Several cameras, as NAME=TOPIC with commas between them; results are on ~/NAME/masks and so on. "
        "Empty: the one of `image`.",
    ),
    DeclareLaunchArgument(
        "image_transport",
        default_value="raw",
        choices=["raw", "compressed"],
        description="raw: sensor_msgs/Image on that topic; compressed: sensor_msgs/CompressedImage on TOPIC/compressed.",
    ),
    DeclareLaunchArgument(
        "params_file",
        default_value="",
        description="YAML file with parameters; config/default.yaml explains them all. Arguments given here win.",
    ),
    DeclareLaunchArgument(
        "classes",
        default_value="",
        description="Classes to look for from the start, with commas between them. Empty: as the parameter file says.",
    ),
    DeclareLaunchArgument(
        "models_dir",
        default_value="",
        description="Folder with the bundles detector/ and segmenter/. Empty: as the parameter file says, else the models "
        "that are installed with the package.",
    ),
    DeclareLaunchArgument("name", default_value="scenelex", description="Name of the node."),
    DeclareLaunchArgument("namespace", default_value="", description="Namespace of the node, for example /robot1."),
    DeclareLaunchArgument(
        "use_sim_time",
        default_value="false",
        choices=["true", "false"],
        description="Take the node's own stamps from /clock. Results carry the stamps of their images either way.",
    ),
    DeclareLaunchArgument(
        "overlay",
        default_value="",
        description="Most overlay pictures a second on ~/overlay/image, 0 for one with every result; none is made while "
        "nobody subscribes. Empty: as the parameter file says.",
    ),
    DeclareLaunchArgument(
        "log_level",
        default_value="info",
        choices=["debug", "info", "warn", "error", "fatal"],
        description="Least severe messages that are logged.",
    ),
]


def cameras(context):
    """Names and topics of several cameras."""
    given = LaunchConfiguration("cameras").perform(context)
    pairs = [entry.partition("=") for entry in given.split(",") if entry.strip()]
    named = {name.strip(): topic.strip() for name, _, topic in pairs}
    if len(named) < len(pairs) or not all(name and topic for name, topic in named.items()):
        raise RuntimeError(f"cameras: expected NAME=TOPIC, with commas between them and each name once; found {given!r}")
    return named


def image_topic(context, topic):
    """The topic the node subscribes to, as image_transport names those of its plugins."""
    compressed = LaunchConfiguration("image_transport").perform(context) == "compressed"
    return f"{topic}/compressed" if compressed and not topic.endswith("/compressed") else topic


def perception(context):
    def given(name):
        return LaunchConfiguration(name).perform(context).strip()

    parameters = {"image_transport": given("image_transport"), "use_sim_time": given("use_sim_time") == "true"}
    classes = [name.strip() for name in given("classes").split(",") if name.strip()]
    if classes:
        parameters["classes"] = classes
    named = cameras(context)
    if named:
        parameters["cameras"] = list(named)
    inputs = {f"{name}/image": topic for name, topic in named.items()} or {"image": given("image")}
    if given("models_dir"):
        parameters["models_dir"] = given("models_dir")
    if given("overlay"):
        parameters["overlay.max_rate"] = float(given("overlay"))
    return [
        Node(
            package="scenelex",
            executable="scenelex",
            name=given("name"),
            namespace=given("namespace"),
            arguments=["node"],
            ros_arguments=["--log-level", given("log_level")],
            parameters=[*filter(None, [given("params_file")]), parameters],
            remappings=[(name, image_topic(context, topic)) for name, topic in inputs.items()],
            output="screen",
        )
    ]


def generate_launch_description():
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=perception)])
