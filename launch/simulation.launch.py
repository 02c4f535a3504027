"""The perception node on a camera in the simulated world, with ground truth beside its results.

    ros2 launch scenelex simulation.launch.py seed:=7 path:=handheld

The camera needs MuJoCo, which rosdep does not know: pip install mujoco.
"""

import sys
from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction, Shutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution, ThisLaunchFileDir
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from scenelex_sim.taxonomy import CATEGORIES

# Beside this file, wherever it is installed.
sys.path.append(str(Path(__file__).parent))
from scenelex_inputs import file_values, full_name  # noqa: E402

# Parameters of sim_camera under their own names, with the type each has there.
CAMERA = {
    "seed": (int, "29", "Number of the scene; it fixes everything that is seen."),
    "room": (None, "false", "A room instead of a table top."),
    "path": (str, "orbit", "How the camera moves, without an end: orbit, handheld or drive."),
    "path_seconds": (float, "20.0", "Duration of one pass: 100 degrees of an orbit, or one way of the others."),
    "rate": (float, "10.0", "Pictures a second, fewer where drawing takes longer."),
    "width": (int, "640", "Width of the pictures."),
    "height": (int, "480", "Height of the pictures."),
    "samples": (int, "0", "Samples a pixel against jagged edges: slow where no GPU draws. Recorded pictures have 4."),
    "shadow_map": (int, "1024", "Side of the shadow map, 0 for no shadows: slow where no GPU draws. Recorded pictures have 2048."),
    "camera": (str, "camera", "First part of the camera's topics, CAMERA/image_raw and so on."),
    "reliability": (str, "reliable", "Of the camera's publishers: reliable, which serves every subscriber, or best_effort."),
}
CHOICES = {
    "room": ["true", "false"],
    "path": ["orbit", "handheld", "drive"],
    "reliability": ["reliable", "best_effort"],
    "use_sim_time": ["", "true", "false"],
    "image_transport": ["", "raw", "compressed"],
    "rviz": ["true", "false"],
}
# For perception.launch.py.
PASSED_ON = {
    "classes": ("", f"Classes to look for, with commas between them. Empty: as the parameter file says, else the {len(CATEGORIES)} "
                "categories of this world."),
    "image_transport": ("", "How the pictures reach the node: raw, or compressed as JPEG. Empty: as the parameter file says, "
                        "else raw."),
    "params_file": ("", "YAML file with the perception node's parameters, for one camera. Arguments given here win."),
    "box_threshold": ("", "Detections with a score above it are kept, 0.0 to 1.0. Empty: as the parameter file says, else 0.5 for "
                      "the models installed, which finds more than what they ship with."),
    "models_dir": ("", "Folder with the bundles detector/ and segmenter/. Empty: those installed, made for this world."),
    "name": ("scenelex", "Name of the perception node."),
    "namespace": ("", "Namespace of both nodes, for example /robot1."),
    "use_sim_time": ("", "Stamps from zero on, and /clock from the camera, for every node that is told so. Empty: as the parameter "
                     "file says, else false."),
    "overlay": ("", "Most overlay pictures a second."),
    "log_level": ("info", "Least severe messages that are logged."),
}
OWN = {
    "python": ("", "Python with MuJoCo that runs the camera. Empty: python3."),
    "rviz": ("false", "Show camera and results in rviz2, which has to be installed, whatever node and camera are called."),
}
ARGUMENTS = [
    DeclareLaunchArgument(name, default_value=value, description=text, choices=CHOICES.get(name))
    for name, (value, text) in ({name: rest[1:] for name, rest in CAMERA.items()} | PASSED_ON | OWN).items()
]


def simulation(context):
    def given(name):
        return LaunchConfiguration(name).perform(context).strip()

    def typed(name, kind):
        return given(name) == "true" if kind is None else kind(given(name))

    values, node = file_values(given), full_name(given, given("name"))
    sim_time = given("use_sim_time") == "true" if given("use_sim_time") else values.get("use_sim_time") is True
    classes = given("classes") or ("" if values.get("classes") else ", ".join(CATEGORIES))
    # The shipped threshold is for lists of which much is not there.
    threshold = given("box_threshold") or ("" if "box_threshold" in values or given("models_dir") else "0.5")
    camera = Node(
        package="scenelex",
        executable="sim_camera",
        name="sim_camera",
        namespace=given("namespace"),
        ros_arguments=["--log-level", given("log_level")],
        parameters=[{name: typed(name, kind) for name, (kind, *_) in CAMERA.items()} | {"publish_clock": sim_time}],
        prefix=str(Path(given("python")).expanduser()) if given("python") else None,
        output="screen",
        on_exit=Shutdown(reason="the camera has ended"),
    )
    image = full_name(given, "/".join(filter(None, [given("camera").strip("/"), "image_raw"])))
    perception = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(PathJoinSubstitution([ThisLaunchFileDir(), "perception.launch.py"])),
        launch_arguments=[("image", image), *({name: given(name) for name in PASSED_ON} | {"classes": classes, "box_threshold": threshold}).items()],
    )
    if given("rviz") != "true":
        return [camera, perception]
    # The layout has the topics of the default names.
    shown = {"/camera/image_raw": image}
    shown |= {f"/scenelex/{result}": f"{node}/{result}" for result in ("overlay/image", "instances/image")}
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", PathJoinSubstitution([FindPackageShare("scenelex"), "config", "scenelex.rviz"])],
        parameters=[{"use_sim_time": sim_time}],
        remappings=list(shown.items()),
    )
    return [camera, perception, rviz]


def generate_launch_description():
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=simulation)])
