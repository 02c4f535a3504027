"""The perception node on one camera.

    ros2 launch scenelex perception.launch.py image:=/camera/image_raw classes:="mug, bottle"
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

ARGUMENTS = [
    DeclareLaunchArgument("image", default_value="/camera/image_raw", description="Topic of the camera's images."),
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


def image_topic(context):
    """The topic the node subscribes to, as image_transport names those of its plugins."""
    topic = LaunchConfiguration("image").perform(context)
    compressed = LaunchConfiguration("image_transport").perform(context) == "compressed"
    return f"{topic}/compressed" if compressed and not topic.endswith("/compressed") else topic


def perception(context):
    def given(name):
        return LaunchConfiguration(name).perform(context).strip()

    parameters = {"image_transport": given("image_transport"), "use_sim_time": given("use_sim_time") == "true"}
    classes = [name.strip() for name in given("classes").split(",") if name.strip()]
    if classes:
        parameters["classes"] = classes
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
            remappings=[("image", image_topic(context))],
            output="screen",
        )
    ]


def generate_launch_description():
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=perception)])
