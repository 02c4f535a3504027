// Sends rgb8 images, best effort, stamped with the system's time just before each is published.
//
//   camera TOPIC RATE WIDTH HEIGHT COUNT
//
// Begins when somebody subscribes.

#include <chrono>
#include <cstdlib>
#include <iostream>
#include <thread>

#include <rclcpp/rclcpp.hpp>
#include <sensor_msgs/msg/image.hpp>

int main(int argc, char ** argv)
{
  rclcpp::init(argc, argv);
  if (argc != 6) {
    std::cerr << "camera TOPIC RATE WIDTH HEIGHT COUNT\n";
    return EXIT_FAILURE;
  }
  const double rate = std::stod(argv[2]);
  const auto width = static_cast<uint32_t>(std::stoul(argv[3]));
  const auto height = static_cast<uint32_t>(std::stoul(argv[4]));
  const int count = std::stoi(argv[5]);

  auto node = std::make_shared<rclcpp::Node>("bench_camera");
  auto images = node->create_publisher<sensor_msgs::msg::Image>(argv[1], rclcpp::QoS(5).best_effort());
  sensor_msgs::msg::Image image;
  image.header.frame_id = "camera_optical_frame";
  image.width = width;
  image.height = height;
  image.encoding = "rgb8";
  image.step = width * 3;
  image.data.assign(static_cast<size_t>(image.step) * height, 70);

  while (rclcpp::ok() && images->get_subscription_count() == 0) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  // The other side may not know of us yet.
  std::this_thread::sleep_for(std::chrono::seconds(1));
  std::cout << "publishing" << std::endl;
  rclcpp::WallRate pace(rate);
  for (int sent = 0; rclcpp::ok() && sent < count; ++sent) {
    image.header.stamp = rclcpp::Clock(RCL_SYSTEM_TIME).now();
    images->publish(image);
    pace.sleep();
  }
  rclcpp::shutdown();
  return EXIT_SUCCESS;
}
