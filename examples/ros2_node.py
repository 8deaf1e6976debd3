"""A ROS 2 node: images come on /image, results go out on /energyad as JSON.

`python ros2_node.py --ros-args -p model:=models/gasket`
"""

import numpy as np
import rclpy
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_msgs.msg import String

import energyad

CHANNELS = {"rgb8": (0, 1, 2), "bgr8": (2, 1, 0), "mono8": (0, 0, 0)}


class Inspection(Node):
    """Scores each image that arrives."""

    def __init__(self) -> None:
        super().__init__("energyad")
        model = self.declare_parameter("model", "models/part").value
        self.detector = energyad.load(model)
        self.results = self.create_publisher(String, "energyad", 10)
        self.create_subscription(Image, "image", self.on_image, 10)

    def on_image(self, message: Image) -> None:
        """Score one image and publish its result."""
        if message.encoding not in CHANNELS:
            self.get_logger().error(f"encoding {message.encoding}: give {', '.join(CHANNELS)}")
            return
        channels = 1 if message.encoding == "mono8" else 3
        rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
        pixels = rows[:, : message.width * channels].reshape(message.height, message.width, channels)
        outcome = self.detector.score_image(np.ascontiguousarray(pixels[:, :, CHANNELS[message.encoding]]))
        name = f"{message.header.stamp.sec}.{message.header.stamp.nanosec:09d}"
        self.results.publish(String(data=outcome.result(name=name).json_line()))


def main() -> None:
    """Run until the node is stopped."""
    rclpy.init()
    node = Inspection()
    try:
        rclpy.spin(node)
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
