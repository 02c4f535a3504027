//! The receiving half of `compare.py`'s measure of the embedded transport: takes images as the node does, into the slot
//! where the newest waits, and does nothing with them. Ends two seconds after the last image and prints how many came.
//! The script sends the images and reads this process's CPU time. Without a topic in `SCENELEX_BENCH_TOPIC` it says so
//! and ends.
#![allow(clippy::expect_used, clippy::print_stdout, clippy::print_stderr, missing_docs, reason = "a bench")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
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
    while last.elapsed() < limit {
        if let Take::Value(arrived) = intake.take(SILENCE) {
            intake.give_back(0, arrived.image);
            (last, limit) = (Instant::now(), SILENCE);
        }
    }
    let received = intake.counts(0).snapshot(Instant::now()).received;
    println!("received {received} images");
}
