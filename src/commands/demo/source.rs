//! What the demo has to know of the bag: which topics the player will offer it, and how.

use anyhow::{Context, Result, bail};
use scenelex::{
    replay::{Bag, BagTopic, OfferedQos},
    ros::messages::{CompressedImage, Image, LabelInfo, RosMessage},
};

const TRUTH_IMAGE: &str = "/ground_truth/semantic/image";
const TRUTH_LABELS: &str = "/ground_truth/label_info";

/// A topic as the player offers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offered {
    pub name: String,
    pub type_name: String,
    pub qos: OfferedQos,
}

impl Offered {
    fn of(topic: &BagTopic) -> Self {
        let (name, type_name) = (topic.name.clone(), topic.type_name.clone());
        Self { name, type_name, qos: OfferedQos::weakest(&topic.qos) }
    }
}

/// The topics of a bag that concern the demo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub camera: Offered,
    /// Number of camera images: what the progress bar counts to, and the node is told a list at half of.
    pub images: u64,
    /// Label images and the names of their values, where the bag has both.
    pub truth: Option<(Offered, Offered)>,
}

impl Source {
    /// Finds them; `camera` is the name of the camera's topic.
    pub fn of(bag: &Bag, camera: &str) -> Result<Self> {
        let images = bag.topics().iter().find(|topic| topic.name == camera);
        let images = images.with_context(|| {
            let names: Vec<&str> = bag.topics().iter().map(|topic| topic.name.as_str()).collect();
            format!("--camera {camera}: the bag has {}", names.join(", "))
        })?;
        if ![Image::TYPE, CompressedImage::TYPE].contains(&images.type_name.as_str()) {
            bail!(
                "--camera {camera}: expected {} or {}, found {}",
                Image::TYPE,
                CompressedImage::TYPE,
                images.type_name
            );
        }
        if images.message_count == 0 {
            bail!("--camera {camera}: the bag has no message on it");
        }
        let find = |name: &str, type_name: &str| {
            let is_it = |topic: &&BagTopic| topic.name == name && topic.type_name == type_name;
            bag.topics().iter().find(is_it).filter(|topic| topic.message_count > 0).map(Offered::of)
        };
        let truth = find(TRUTH_IMAGE, Image::TYPE).zip(find(TRUTH_LABELS, LabelInfo::TYPE));
        Ok(Self { camera: Offered::of(images), images: images.message_count, truth })
    }

    /// Whether the camera's images are files.
    pub fn is_compressed(&self) -> bool {
        self.camera.type_name == CompressedImage::TYPE
    }
}

#[cfg(test)]
mod tests {
    use scenelex::replay::{RecordedTopic, Recorder, Reliability};

    use super::{super::super::testing::Scratch, *};

    /// What the demo makes of a bag with a message on each of these topics.
    fn source(test: &str, topics: &[(&str, &str)], camera: &str) -> Result<Source> {
        let scratch = Scratch::new(test);
        let folder = scratch.0.join("bag");
        let mut recorder = Recorder::create(&folder)?;
        for (name, type_name) in topics {
            let sensor = OfferedQos { reliability: Reliability::BestEffort, ..OfferedQos::default() };
            let topic = recorder.add_topic(RecordedTopic {
                name: (*name).to_owned(),
                type_name: (*type_name).to_owned(),
                definition: String::new(),
                qos: vec![OfferedQos::default(), sensor],
            })?;
            recorder.write(topic, 1, &[0, 1, 0, 0])?;
        }
        recorder.finish()?;
        Source::of(&Bag::open(&folder)?, camera)
    }

    #[test]
    fn type_and_quality_of_the_camera_are_the_bags() {
        let jpeg = source("jpeg", &[("/cam", CompressedImage::TYPE), (TRUTH_IMAGE, Image::TYPE)], "/cam").unwrap();
        assert!(jpeg.is_compressed() && jpeg.images == 1);
        assert_eq!(jpeg.camera.qos.reliability, Reliability::BestEffort, "the weakest of the offers");
        assert_eq!(jpeg.truth, None, "label images without their names");
        let topics = [("/cam/compressed", Image::TYPE), (TRUTH_IMAGE, Image::TYPE), (TRUTH_LABELS, LabelInfo::TYPE)];
        let raw = source("raw", &topics, "/cam/compressed").unwrap();
        assert!(!raw.is_compressed(), "whatever it is called");
        assert!(raw.truth.is_some());
    }

    #[test]
    fn what_is_no_camera_is_refused() {
        let topics = [("/names", "std_msgs/msg/String")];
        let error = source("text", &topics, "/names").unwrap_err().to_string();
        assert!(error.contains("expected sensor_msgs/msg/Image") && error.contains("std_msgs/msg/String"), "{error}");
        let error = source("absent", &topics, "/cam").unwrap_err().to_string();
        assert!(error.contains("the bag has /names"), "{error}");
    }
}
