//! Scenelex: camera images in, labelled instance masks out, with a class list that changes while it runs.
//!
//! To follow one frame from the camera topic to the published masks, read in this order:
//!
//! 1. `ros::engine` wires topics, threads and the pipeline; [`ros::node`] makes and ends it as its life cycle says.
//! 2. `ros::intake` turns a received message into a [`types::CameraImage`] and puts it into the
//!    [`pipeline::LatestSlots`]: the newest image wins, what it replaces is counted. `ros::frames` takes it from there.
//! 3. [`pipeline::Pipeline::process_batch`] is the whole frame (or one of each of several cameras), and knows no ROS: decode,
//!    detect beside SAM's image encoder, phrases to classes, prompts, masks, overlaps.
//! 4. [`imaging`] decodes pixel encodings, resizes as the models were trained with, and turns masks into run lengths.
//! 5. [`inference`] holds the bundles and the models behind traits; `inference::ort` alone knows ONNX Runtime.
//! 6. [`pipeline::PreparedVocabulary`] is the class list with its text already encoded; a thread of its own makes the
//!    next one and swaps a pointer between two frames.
//! 7. `ros::outputs` encodes each result once and publishes it; [`ros::transport`] is the port beneath.
//!
//! To follow the second loop, which rewrites the class list: `ros::looks` (how an image gets there) → `ros::refresh` (its
//! thread) → [`vocabulary::refresh`] (one look, from image to list) → [`vocabulary`].
//!
//! It follows four papers, which comments cite by these names: *LLM refinement* (Huang, Iizuka, Fukui: Training-Free
//! Zero-Shot Semantic Segmentation with LLM Refinement), *LLM2Labels* (LLM2Labels: Zero-Shot Dataset Summarizing and
//! Labeling Using Foundational LLM Models), *LLM-supervision* (Sun et al.: Training-Free Semantic Segmentation via
//! LLM-Supervision) and *Zero-guidance Segmentation* (Rewatbowornwong et al.: Zero-guidance Segmentation Using Zero Segment
//! Labels).
//!
//! Imports point one way: `types ← imaging ← inference ← pipeline ← {ros, replay} ← commands`; [`vocabulary`] imports
//! `types` only.

pub mod imaging;
pub mod inference;
pub mod pipeline;
pub mod replay;
pub mod ros;
pub mod types;
pub mod vocabulary;
