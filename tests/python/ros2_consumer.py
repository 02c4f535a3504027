"""An rclpy node that prints every LabeledMaskArray as a line of JSON. Runs in ROS 2's own Python.

    ros2_consumer.py TOPIC
"""

import json
import sys
import time

import rclpy
from rosidl_runtime_py import message_to_ordereddict
from scenelex.msg import LabeledMaskArray

rclpy.init()
node = rclpy.create_node("test_consumer")


def show(message):
    found = message_to_ordereddict(message)
    stamp = message.header.stamp
    found["age"] = time.time() - stamp.sec - stamp.nanosec * 1e-9
    print(json.dumps(found), flush=True)


node.create_subscription(LabeledMaskArray, sys.argv[1], show, 10)
print("listening", flush=True)
try:
    rclpy.spin(node)
except (KeyboardInterrupt, rclpy.executors.ExternalShutdownException):
    pass
