"""An rclpy camera: coloured cells on grey, as the tiny models know them. Runs in ROS 2's own Python.

    ros2_camera.py TOPIC RATE WIDTH HEIGHT [COLUMN,ROW,R,G,B …]

Begins when somebody subscribes, so that every image counts; says at the end how many it sent.
"""

import sys
import time

import numpy as np
import rclpy
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

topic, rate, width, height = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
picture = np.full((height, width, 3), 70, np.uint8)
for cell in sys.argv[5:]:
    column, row, *colour = map(int, cell.split(","))
    rows = slice(row * height // 3, (row + 1) * height // 3)
    picture[rows, column * width // 4 : (column + 1) * width // 4] = colour

rclpy.init()
node = rclpy.create_node("test_camera")
qos = QoSProfile(reliability=ReliabilityPolicy.BEST_EFFORT, history=HistoryPolicy.KEEP_LAST, depth=1)
publisher = node.create_publisher(Image, topic, qos)
message = Image(height=height, width=width, encoding="rgb8", step=width * 3)
message.header.frame_id = "camera_optical_frame"
message.data.frombytes(picture.tobytes())


sent = 0


def publish():
    global sent
    sent += 1
    message.header.stamp = node.get_clock().now().to_msg()
    publisher.publish(message)


try:
    while publisher.get_subscription_count() == 0:
        time.sleep(0.05)
    node.create_timer(1 / rate, publish)
    print("publishing", flush=True)
    rclpy.spin(node)
except (KeyboardInterrupt, rclpy.executors.ExternalShutdownException):
    print(f"sent {sent}", flush=True)
