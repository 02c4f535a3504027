// The least an rclcpp node can do with images: count them, and note how old each is when its callback has it.
//
//   subscriber TOPIC
//
// Ends two seconds after the last image and prints what benches/transport.rs prints.

#include <chrono>
#include <cstdlib>
#include <iostream>
#include <vector>

#include <rclcpp/rclcpp.hpp>
#include <sensor_msgs/msg/image.hpp>

int main(int argc, char ** argv)
{
  using clock = std::chrono::steady_clock;
  rclcpp::init(argc, argv);
  if (argc != 2) {
    std::cerr << "subscriber TOPIC\n";
    return EXIT_FAILURE;
  }
  auto node = std::make_shared<rclcpp::Node>("bench_subscriber");
  std::vector<double> ages;
  auto end = clock::now() + std::chrono::seconds(60);
  auto images = node->create_subscription<sensor_msgs::msg::Image>(
    argv[1], rclcpp::QoS(1).best_effort(), [&](sensor_msgs::msg::Image::ConstSharedPtr image) {
      ages.push_back((rclcpp::Clock(RCL_SYSTEM_TIME).now() - rclcpp::Time(image->header.stamp, RCL_SYSTEM_TIME)).seconds() * 1e3);
      end = clock::now() + std::chrono::seconds(2);
    });
  rclcpp::executors::SingleThreadedExecutor executor;
  executor.add_node(node);
  while (rclcpp::ok() && clock::now() < end) {
    executor.spin_once(std::chrono::milliseconds(200));
  }
  std::cout << "received " << ages.size() << " images\nages_ms";
  for (const double age : ages) {
    std::cout << ' ' << age;
  }
  std::cout << std::endl;
  rclcpp::shutdown();
  return EXIT_SUCCESS;
}
