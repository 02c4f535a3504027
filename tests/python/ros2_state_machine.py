"""Run with ROS 2's own Python. `serve NAME`: a lifecycle node of rclpy, whose state machine is rcl_lifecycle's own.
`ask NAME`: what a lifecycle node answers about its states and transitions, as a line of JSON."""

import json
import sys

import rclpy
from lifecycle_msgs.srv import GetAvailableStates, GetAvailableTransitions
from rclpy.executors import ExternalShutdownException
from rclpy.lifecycle import LifecycleNode


def ask(node, name: str, service: str, kind):
    client = node.create_client(kind, f"/{name}/{service}")
    assert client.wait_for_service(30.0), service
    future = client.call_async(kind.Request())
    rclpy.spin_until_future_complete(node, future, timeout_sec=30.0)
    return future.result()


def described(answer) -> list:
    return [
        [w.transition.id, w.transition.label, w.start_state.id, w.start_state.label, w.goal_state.id, w.goal_state.label]
        for w in answer.available_transitions
    ]


rclpy.init()
what, name = sys.argv[1:]
if what == "serve":
    reference = LifecycleNode(name)
    print("serving", flush=True)
    try:
        rclpy.spin(reference)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
else:
    node = rclpy.create_node(f"asks_{name}")
    states = ask(node, name, "get_available_states", GetAvailableStates).available_states
    found = {
        "states": [[state.id, state.label] for state in states],
        "now": described(ask(node, name, "get_available_transitions", GetAvailableTransitions)),
        "graph": described(ask(node, name, "get_transition_graph", GetAvailableTransitions)),
    }
    print(json.dumps(found), flush=True)
