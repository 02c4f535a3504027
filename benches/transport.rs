//! The receiving half of `compare.py`'s and `ros2_transport.py`'s measures of the transports: takes images as the node does,
//! into the slot where the newest waits, and does nothing with them. Ends two seconds after the last image and prints how
//! many came, and how old each was by its stamp when it could be taken. The scripts send the images and read this process's
//! CPU time. Without a topic in `SCENELEX_BENCH_TOPIC` it says so and ends.
#![allow(clippy::expect_used, clippy::print_stdout, clippy::print_stderr, missing_docs, reason = "a bench")]

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use scenelex::{
    pipeline::Take,
    ros::{
        self, Qos,
        intake::Intake,
        messages::{Image, RosMessage},
    },
};

const PATIENCE: Duration = Duration::from_secs(60);
const SILENCE: Duration = Duration::from_secs(2);

fn main() {
    let Ok(topic) = std::env::var("SCENELEX_BENCH_TOPIC") else {
        eprintln!("transport skipped: run by benches/compare.py");
        return;
    };
    let transport = ros::connect("/", "receiver").expect("a ROS domain");
    let intake = Arc::new(Intake::new(1));
    let _subscription =
        transport.subscribe(&topic, Image::TYPE, Qos::LATEST, intake.handler(0, false)).expect("subscription");
    let (mut last, mut limit) = (Instant::now(), PATIENCE);
    let mut ages = Vec::new();
    while last.elapsed() < limit {
        if let Take::Value(arrived) = intake.take(SILENCE) {
            let stamp = u64::try_from(arrived.image.header.stamp.as_nanos()).unwrap_or(0);
            let age = SystemTime::now().duration_since(UNIX_EPOCH + Duration::from_nanos(stamp)).unwrap_or_default();
            ages.push(format!("{:.4}", age.as_secs_f64() * 1e3));
            intake.give_back(0, arrived.image);
            (last, limit) = (Instant::now(), SILENCE);
        }
    }
    let received = intake.counts(0).snapshot(Instant::now()).received;
    println!("received {received} images\nages_ms {}", ages.join(" "));
}
