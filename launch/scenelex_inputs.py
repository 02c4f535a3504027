"""What the launch files have to know of the node before it runs: its name, what its parameter file says, its images' topics.

Beside the launch files in the source tree and where they are installed. `given` is everywhere a function that has the
values of launch arguments by their names; an empty text is an argument that was not given.
"""

from pathlib import Path

import yaml

# The camera's topic where nobody names one.
IMAGE = "/camera/image_raw"


def full_name(given, name):
    """The full name of a node or topic in the node's namespace; one with a slash in front is full already."""
    return name if name.startswith("/") else "/" + "/".join(filter(None, [given("namespace").strip("/"), name]))


def file_values(given):
    """What the parameter file says for the node, as it stands below ros__parameters; nothing without a file."""
    path = given("params_file")
    if not path:
        return {}
    try:
        tree = yaml.safe_load(Path(path).read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RuntimeError(f"params_file: cannot read {path}: {error}") from error
    values = {}
    for pattern, parameters in sections(tree):
        if isinstance(parameters, dict) and matches(pattern, parts(full_name(given, given("name")))):
            values |= parameters
    return values


def parts(name):
    return [part for part in str(name).split("/") if part]


def sections(tree, path=()):
    """Every ros__parameters of a parameter file with the parts of the node pattern it stands under, in the file's order."""
    for key, inner in tree.items() if isinstance(tree, dict) else ():
        if key == "ros__parameters":
            yield path, inner
        else:
            yield from sections(inner, (*path, *parts(key)))


def matches(pattern, name):
    """Whether a node pattern (`*` for one part, `**` for any number) is for the node with this full name, both in parts."""
    if not pattern:
        return not name
    first, *rest = pattern
    if first == "**":
        return matches(rest, name) or (bool(name) and matches(pattern, name[1:]))
    return bool(name) and first in ("*", name[0]) and matches(rest, name[1:])


def cameras(given):
    """Names and topics of several cameras, as the argument says; empty without it."""
    text = given("cameras")
    pairs = [entry.partition("=") for entry in text.split(",") if entry.strip()]
    named = {name.strip(): topic.strip() for name, _, topic in pairs}
    if len(named) < len(pairs) or not all(name and topic for name, topic in named.items()):
        raise RuntimeError(f"cameras: expected NAME=TOPIC, with commas between them and each name once; found {text!r}")
    return named


def image_topics(given, values):
    """The node's image inputs, `image` or NAME/image of several cameras, with the topic of each.

    With compressed images the topics are those that image_transport's plugins have.
    """
    named = cameras(given)
    listed = values.get("cameras")
    if not named and listed and isinstance(listed, list):
        if given("image"):
            raise RuntimeError(
                f"image:={given('image')} is the topic of a single camera, but {given('params_file')} names several: "
                f"{', '.join(map(str, listed))}. Expected cameras:=\"{', '.join(f'{name}=TOPIC' for name in listed)}\" "
                "instead, or a file without `cameras`"
            )
        named = {name: f"{name}/image" for name in listed}
    inputs = {f"{name}/image": topic for name, topic in named.items()} or {"image": given("image") or IMAGE}
    if (given("image_transport") or values.get("image_transport")) != "compressed":
        return inputs
    return {name: topic if topic.endswith("/compressed") else f"{topic}/compressed" for name, topic in inputs.items()}
