//! Every parameter of the node: name, type, default, range and meaning.

use super::parameters::{Default, Parameter, Range, Takes};
use crate::pipeline::MAX_RESOLVE_THREADS;

const RELIABILITY: Range = Range::Choice(&["best_effort", "reliable"]);
const HISTORY: Range = Range::Choice(&["keep_last", "keep_all"]);
const GRID: Range = Range::Choice(&["whole", "cells", "both"]);
const THREADS: Range = Range::Integers(0, 256);
const RESOLVE_THREADS: Range = Range::Integers(0, MAX_RESOLVE_THREADS as i64);
/// As the detector ships, for the thresholds.
pub const SHIPPED: f64 = -1.0;

const fn parameter(name: &'static str, default: Default, range: Range, description: &'static str) -> Parameter {
    Parameter { name, default, range, takes: Takes::WhenConfigured, description }
}

impl Parameter {
    const fn at_once(mut self) -> Self {
        self.takes = Takes::AtOnce;
        self
    }

    const fn at_start(mut self) -> Self {
        self.takes = Takes::AtStart;
        self
    }
}

/// Every parameter of the node.
pub const TABLE: &[Parameter] = &[
    parameter(
        "models_dir",
        Default::Text(""),
        Range::Any,
        "Folder with the bundles detector/ and segmenter/. Empty: models/sim below the working directory, else where the program is installed.",
    ),
    parameter(
        "classes",
        Default::Texts(&[]),
        Range::Any,
        "Classes to look for from the start. Empty: nothing is looked for until ~/set_vocabulary says what.",
    ).at_once(),
    parameter("max_classes", Default::Integer(256), Range::Integers(1, 4096), "Longest class list that is accepted."),
    parameter(
        "cameras",
        Default::Texts(&[]),
        Range::Any,
        "Names of several cameras: each has an input NAME/image and outputs ~/NAME/masks and so on, and they take turns. Empty: one camera, with `image` and ~/masks.",
    ),
    parameter(
        "image_transport",
        Default::Text("raw"),
        Range::Choice(&["raw", "compressed"]),
        "What `image` carries: sensor_msgs/Image (raw) or sensor_msgs/CompressedImage (compressed).",
    ),
    parameter(
        "autostart",
        Default::Bool(true),
        Range::Any,
        "Configure and activate by itself at the start. Otherwise the node waits, unconfigured, for its life-cycle services to be called.",
    )
    .at_start(),
    parameter(
        "use_sim_time",
        Default::Bool(false),
        Range::Any,
        "Take the time of our own stamps (vocabulary, label info, diagnostics) from /clock.",
    ).at_start(),
    parameter(
        "box_threshold",
        Default::Double(SHIPPED),
        Range::Doubles(-1.0, 1.0),
        "Detections with a score above it are kept. -1: as shipped with the detector.",
    ).at_once(),
    parameter(
        "text_threshold",
        Default::Double(SHIPPED),
        Range::Doubles(-1.0, 1.0),
        "Tokens above it make the label, with label_rule token_labels. -1: as shipped with the detector.",
    ).at_once(),
    parameter(
        "nms_iou",
        Default::Double(SHIPPED),
        Range::Doubles(-1.0, 1.0),
        "Boxes of one class that overlap more are one object. -1: as shipped with the detector.",
    ).at_once(),
    parameter(
        "label_rule",
        Default::Text("phrase_spans"),
        Range::Choice(&["phrase_spans", "token_labels"]),
        "How a detection gets its class: the phrase with the best score, or the tokens above text_threshold (Hugging Face's rule).",
    ),
    parameter("use_box", Default::Bool(true), Range::Any, "Give the detection box to the mask decoder.").at_once(),
    parameter("use_points", Default::Bool(true), Range::Any, "Give points inside the box to the mask decoder.").at_once(),
    parameter("n_points", Default::Integer(20), Range::Integers(0, 256), "Most points per object.").at_once(),
    parameter(
        "max_objects",
        Default::Integer(64),
        Range::Integers(1, 1024),
        "Most objects per image, the best by score.",
    ).at_once(),
    parameter("mask_batch", Default::Integer(8), Range::Integers(1, 256), "Most objects per run of the mask decoder. Only objects with the same number of points share one.").at_once(),
    parameter(
        "image_batch",
        Default::Integer(0),
        Range::Integers(0, 32),
        "Most images, of different cameras, per run of the detector and the image encoder, where their files allow it. 0: all that wait on a GPU, one on the CPU.",
    ).at_once(),
    parameter(
        "provider",
        Default::Text("cpu"),
        Range::Choice(&["cpu", "cuda", "tensorrt"]),
        "Where the models run. One that cannot be had is an error, never a silent fall to the CPU.",
    ),
    parameter("device", Default::Integer(0), Range::Integers(0, 255), "GPU number, for cuda and tensorrt."),
    parameter(
        "onnxruntime_library",
        Default::Text(""),
        Range::Any,
        "Path of libonnxruntime. Empty: ORT_DYLIB_PATH, then .deps/onnxruntime, then the system's loader.",
    ),
    parameter("threads.detector", Default::Integer(0), THREADS, "Threads of the detector. 0: half the cores, rounded up."),
    parameter(
        "threads.image_encoder",
        Default::Integer(0),
        THREADS,
        "Threads of the image encoder, which runs beside the detector. 0: the other half, but two where there are two or three.",
    ),
    parameter("threads.mask_decoder", Default::Integer(0), THREADS, "Threads of the mask decoder. 0: all cores."),
    parameter(
        "threads.resolve",
        Default::Integer(0),
        RESOLVE_THREADS,
        "Threads that bring masks to image size. 0: all cores, at most 4.",
    ),
    parameter(
        "qos.image.reliability",
        Default::Text("best_effort"),
        RELIABILITY,
        "Reliability asked of the camera. best_effort matches every camera.",
    ),
    parameter("qos.image.history", Default::Text("keep_last"), HISTORY, "History of the image subscription."),
    parameter(
        "qos.image.depth",
        Default::Integer(1),
        Range::Integers(1, 1000),
        "Depth of the image subscription, with keep_last. Whatever it is, the newest image wins.",
    ),
    parameter(
        "qos.results.reliability",
        Default::Text("reliable"),
        RELIABILITY,
        "Reliability of masks, detections and images. Lost results are sent again when reliable.",
    ),
    parameter("qos.results.history", Default::Text("keep_last"), HISTORY, "History of masks, detections and images."),
    parameter(
        "qos.results.depth",
        Default::Integer(5),
        Range::Integers(1, 1000),
        "Depth of masks, detections and images, with keep_last.",
    ),
    parameter(
        "overlay.max_rate",
        Default::Double(0.0),
        Range::Doubles(0.0, 1000.0),
        "Most overlay pictures a second on ~/overlay/image. 0: one for every result.",
    ).at_once(),
    parameter(
        "diagnostics.period",
        Default::Double(1.0),
        Range::Doubles(0.1, 60.0),
        "Seconds between two messages on /diagnostics.",
    ).at_once(),
    parameter(
        "refresh.enabled",
        Default::Bool(false),
        Range::Any,
        "Look at the camera's image again and again and rewrite the class list to what is in it.",
    ),
    parameter(
        "refresh.period",
        Default::Double(10.0),
        Range::Doubles(0.0, 86400.0),
        "Seconds between two looks at a scene that stays the same. 0: only with another reason.",
    ),
    parameter(
        "refresh.min_interval",
        Default::Double(2.0),
        Range::Doubles(0.0, 3600.0),
        "Shortest time in seconds between two looks, except when ~/refresh_vocabulary asks.",
    ),
    parameter(
        "refresh.scene_change",
        Default::Double(0.25),
        Range::Doubles(0.0, 1.0),
        "Difference between two images from which on it is another scene: 0 is the same image, 0.5 an unrelated one. 0: not looked at.",
    ),
    parameter(
        "refresh.unmatched",
        Default::Double(0.5),
        Range::Doubles(0.0, 1.0),
        "Share of objects without a class at which the list is looked at again when it is reached. Where a look left it as high, again only after it was lower or when it has risen by another 0.1. 0: not looked at.",
    ),
    parameter(
        "refresh.targets",
        Default::Texts(&[]),
        Range::Any,
        "The classes that matter: the list is always a subset of them. Empty: an open list.",
    ),
    parameter("refresh.fixed", Default::Texts(&[]), Range::Any, "Classes that are always in the list."),
    parameter(
        "refresh.proposals",
        Default::Texts(&["probe"]),
        Range::Any,
        "Who proposes labels, any of: probe (the detector, asked for many words), tags (an image tagger), caption (a captioner), look (a vision language model, see llm.url).",
    ),
    parameter(
        "refresh.lexicon",
        Default::Text(""),
        Range::Any,
        "Folder with WordNet's files index.noun, data.noun and noun.exc. Empty: /usr/share/wordnet, where it exists. none: no lexicon.",
    ),
    parameter(
        "refresh.probe.words",
        Default::Texts(&[]),
        Range::Any,
        "Words the detector is asked for. Empty: the targets; without targets the commonest nouns of the lexicon.",
    ),
    parameter(
        "refresh.probe.count",
        Default::Integer(1200),
        Range::Integers(1, 4096),
        "How many nouns of the lexicon are asked for.",
    ),
    parameter(
        "refresh.probe.threshold",
        Default::Double(SHIPPED),
        Range::Doubles(-1.0, 1.0),
        "Score from which on a box proposes its word. -1: box_threshold.",
    ),
    parameter(
        "refresh.probe.grid",
        Default::Text("whole"),
        GRID,
        "What is looked at: the whole image, the four cells of a 2x2 grid, or both.",
    ),
    parameter(
        "refresh.tagger",
        Default::Text(""),
        Range::Any,
        "Folder with the bundle of the image tagger (kind ram or classifier), for tags.",
    ),
    parameter(
        "refresh.tags.grid",
        Default::Text("whole"),
        GRID,
        "What is tagged: the whole image, the four cells of a 2x2 grid, or both.",
    ),
    parameter(
        "refresh.captioner",
        Default::Text(""),
        Range::Any,
        "Folder with the bundle of the captioner (kind blip), for caption.",
    ),
    parameter(
        "refresh.caption.grid",
        Default::Text("whole"),
        GRID,
        "What is captioned: the whole image, the four cells of a 2x2 grid, or both.",
    ),
    parameter(
        "refresh.caption.samples",
        Default::Integer(4),
        Range::Integers(1, 64),
        "Captions sampled for each view. Their nouns are proposed.",
    ),
    parameter(
        "refresh.caption.top_p",
        Default::Double(0.9),
        Range::Doubles(0.0, 1.0),
        "Nucleus sampling: tokens are drawn from the likeliest that together have this probability.",
    ),
    parameter(
        "refresh.caption.temperature",
        Default::Double(1.0),
        Range::Doubles(0.0, 10.0),
        "Divides the logits before sampling: below 1 captions are more alike. 0: always the likeliest token.",
    ),
    parameter(
        "refresh.caption.probability",
        Default::Text("product"),
        Range::Choice(&["product", "geometric_mean"]),
        "How probable a noun phrase is: the product of its tokens' probabilities, or their geometric mean.",
    ),
    parameter(
        "refresh.caption.pre_refine",
        Default::Bool(true),
        Range::Any,
        "Send the likeliest caption to the language model along with the labels, when it chooses among refresh.targets.",
    ),
    parameter(
        "refresh.aggregation",
        Default::Text("average"),
        Range::Choice(&["average", "product", "minimum", "maximum"]),
        "How the probabilities of a label proposed several times become one.",
    ),
    parameter(
        "refresh.percentile",
        Default::Double(0.0),
        Range::Doubles(0.0, 0.999),
        "Share of the proposals ranked lowest by occurrences times probability that is discarded.",
    ),
    parameter(
        "refresh.threshold",
        Default::Double(0.0),
        Range::Doubles(0.0, 1.0),
        "Proposals whose probability, their occurrences aggregated, is below are discarded.",
    ),
    parameter(
        "refresh.pre_refine",
        Default::Bool(true),
        Range::Any,
        "Turn proposals into classes, by language model or lexicon. While a language model fails, the list stays as it is; after three failed looks in a row, or where there is no list yet, the lexicon does its work until the model answers again. Otherwise the proposals are the list.",
    ),
    parameter(
        "refresh.post_refine",
        Default::Bool(true),
        Range::Any,
        "With label_rule token_labels: give a class to phrases that are none of the list's, by lexicon and language model.",
    ),
    parameter(
        "refresh.similarity",
        Default::Double(0.6),
        Range::Doubles(0.0, 1.0),
        "Post-refinement: cosine of two sentence embeddings from which on a phrase that the lexicon knows no class for gets the one with the nearest name. 1: never.",
    ),
    parameter(
        "refresh.hints",
        Default::Bool(true),
        Range::Any,
        "Ask the language model once which words stand for the targets.",
    ),
    parameter(
        "refresh.subclasses",
        Default::Bool(false),
        Range::Any,
        "Prompt the detector with subclasses of every class too.",
    ),
    parameter("refresh.n_subclasses", Default::Integer(10), Range::Integers(1, 31), "Subclasses per class."),
    parameter(
        "refresh.subclass_prompt",
        Default::Text("zero_shot"),
        Range::Choice(&["zero_shot", "few_shot"]),
        "How the language model is asked for subclasses.",
    ),
    parameter(
        "refresh.confirm",
        Default::Integer(1),
        Range::Integers(1, 100),
        "Looks in a row that have to see a class before it enters the list.",
    ),
    parameter(
        "refresh.keep",
        Default::Integer(3),
        Range::Integers(0, 1000),
        "Looks in a row that may miss a class before it leaves the list, and sightings of it that may leave out a synonym or its parent before that goes.",
    ),
    parameter(
        "refresh.store",
        Default::Text(""),
        Range::Any,
        "File in which the last good list is kept; it is in force from the start next time. A language model's subclasses are \
         kept beside it. Empty: none.",
    ),
    parameter(
        "llm.url",
        Default::Text(""),
        Range::Any,
        "Base address of an OpenAI-compatible chat endpoint, for example http://127.0.0.1:8080/v1. Empty: no language model; the lexicon does its work.",
    ),
    parameter("llm.model", Default::Text("gpt-4o-mini"), Range::Any, "Name of the language model."),
    parameter(
        "llm.key_variable",
        Default::Text("OPENAI_API_KEY"),
        Range::Any,
        "Name of the environment variable that holds the key: letters, digits and _. Empty: none is sent.",
    ),
    parameter(
        "llm.structured",
        Default::Text("auto"),
        Range::Choice(&["auto", "always", "never"]),
        "Send a JSON schema for the reply. auto: until the server refuses one.",
    ),
    parameter(
        "llm.allow_http",
        Default::Bool(false),
        Range::Any,
        "Allow http without encryption to hosts other than this one.",
    ),
    parameter("llm.connect_timeout", Default::Double(5.0), Range::Doubles(0.1, 600.0), "Seconds to connect."),
    parameter(
        "llm.read_timeout",
        Default::Double(60.0),
        Range::Doubles(0.1, 600.0),
        "Seconds until the reply begins, and between two parts of it.",
    ),
    parameter(
        "llm.total_timeout",
        Default::Double(120.0),
        Range::Doubles(0.1, 3600.0),
        "Seconds for a question with all its repetitions.",
    ),
    parameter("llm.requests_per_hour", Default::Integer(400), Range::Integers(1, 100_000), "Most requests in an hour."),
    parameter("llm.record", Default::Text(""), Range::Any, "File to which every exchange is appended, up to 64 MiB. Empty: none."),
    parameter(
        "llm.replay",
        Default::Text(""),
        Range::Any,
        "File of recorded exchanges that answers in the language model's place. Empty: none.",
    ),
    parameter(
        "llm.replay_miss",
        Default::Text("error"),
        Range::Choice(&["error", "ask"]),
        "What happens to a question that was not recorded.",
    ),
];
