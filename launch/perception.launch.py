"""The perception node on one camera, or on several.

    ros2 launch scenelex perception.launch.py image:=/camera/image_raw classes:="mug, bottle"
    ros2 launch scenelex perception.launch.py cameras:="front=/front_camera/image_raw, rear=/rear_camera/image_raw"
"""

import sys
from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

# Beside this file, wherever it is installed.
sys.path.append(str(Path(__file__).parent))
from scenelex_inputs import cameras, file_values, image_topics  # noqa: E402

ARGUMENTS = [
    DeclareLaunchArgument(
        "image",
        default_value="",
        description="Topic of the camera's images. Empty: /camera/image_raw, or NAME/image for each of the cameras that the "
        "parameter file names.",
    ),
    DeclareLaunchArgument(
        "cameras",
        default_value="",
        description="Several cameras, as NAME=TOPIC with commas between them; results are on ~/NAME/masks and so on. "
        "Empty: the one of `image`, or those of the parameter file.",
    ),
    DeclareLaunchArgument(
        "image_transport",
        default_value="",
        choices=["", "raw", "compressed"],
        description="raw: sensor_msgs/Image on that topic; compressed: sensor_msgs/CompressedImage on TOPIC/compressed. "
        "Empty: as the parameter file says, else raw.",
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
        default_value="",
        choices=["", "true", "false"],
        description="Take the node's own stamps from /clock. Results carry the stamps of their images either way. "
        "Empty: as the parameter file says, else false.",
    ),
    DeclareLaunchArgument(
        "autostart",
        default_value="",
        choices=["", "true", "false"],
        description="Configure and activate by itself at the start. Empty: as the parameter file says, else true.",
    ),
    DeclareLaunchArgument(
        "box_threshold",
        default_value="",
        description="Detections with a score above it are kept, 0.0 to 1.0. Empty: as the parameter file says, else as the detector "
        "ships.",
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


def perception(context):
    def given(name):
        return LaunchConfiguration(name).perform(context).strip()

    # What is not given stays out: it would hide what the file says.
    parameters = {name: given(name) for name in ("image_transport", "models_dir") if given(name)}
    parameters |= {name: given(name) == "true" for name in ("use_sim_time", "autostart") if given(name)}
    classes = [name.strip() for name in given("classes").split(",") if name.strip()]
    if classes:
        parameters["classes"] = classes
    named = cameras(given)
    if named:
        parameters["cameras"] = list(named)
    if given("box_threshold"):
        parameters["box_threshold"] = float(given("box_threshold"))
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
            parameters=list(filter(None, [given("params_file"), parameters])),
            remappings=list(image_topics(given, file_values(given)).items()),
            output="screen",
        )
    ]


def generate_launch_description():
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=perception)])
