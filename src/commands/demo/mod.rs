//! `scenelex demo`: node and player as processes of their own that meet on the wire, watched from a third.

mod children;
mod domain;
mod folder;
mod overlay;
mod report;
mod sheet;
mod source;
mod vocabulary;
mod watcher;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::Args;

use self::{children::Child, source::Source, watcher::Watcher};
use super::{INTERRUPTED, bags, interrupt::Interrupt, models, progress::Progress, say, wire};

/// Time for the node to load its models and announce its vocabulary.
const START: Duration = Duration::from_secs(120);
/// Silence after the last message of the bag that means that no result is still on its way.
const SILENCE: Duration = Duration::from_millis(1500);
/// How often the children are looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Show the node labelling a recorded scene, and measure it.
///
/// Starts `scenelex node` and `scenelex play` as separate processes that meet only on the wire (a ROS domain of their
/// own, this machine only), and leaves in the output folder: overlay pictures, a contact sheet, the node's outputs as a
/// bag, and summary.json with rates, latencies and IoU against the bag's ground truth. The node starts without a list and
/// finds out by itself what there is to see: the detector is asked for everyday words, and a language model, whose answers
/// are replayed from a recording, chooses among the simulated world's categories. Half way the node is told a list, to
/// which it goes on adding. Ground truth of classes that are not in a frame's vocabulary counts as unlabelled; the mean is
/// taken over the classes seen in the ground truth while they were asked for.
#[derive(Args)]
pub struct DemoArgs {
    /// Folder for the results
    #[arg(short, long, default_value = "out/demo", value_name = "DIR")]
    out: PathBuf,
    /// Bag that plays the camera [default: models/sim/demo_bag]
    #[arg(long, value_name = "BAG")]
    bag: Option<PathBuf>,
    /// Folder with the bundles detector/ and segmenter/ [default: models/sim]
    #[arg(long, value_name = "DIR")]
    models: Option<PathBuf>,
    /// Classes of the first half [default: what the node finds by itself]
    #[arg(long, value_name = "\"A, B\"")]
    classes: Option<String>,
    /// OpenAI-compatible server that is asked for the list, instead of replaying the recorded answers; exchanges are
    /// recorded in OUT/exchanges.jsonl
    #[arg(long, value_name = "URL", conflicts_with_all = ["classes", "replay"], requires = "llm_model")]
    llm: Option<String>,
    /// Name of the language model
    #[arg(long, value_name = "NAME")]
    llm_model: Option<String>,
    /// Recorded answers of the language model [default: models/sim/demo_llm.jsonl with the shipped bag and models, else none,
    /// and WordNet chooses]
    #[arg(long, value_name = "FILE", conflicts_with = "classes")]
    replay: Option<PathBuf>,
    /// Classes that the node is told half way
    #[arg(long, value_name = "\"A, B\"", default_value = THEN)]
    then_classes: String,
    /// Detections with a score above it are kept. The shipped one is set so that hardly anything absent is named; this
    /// default finds more, at the best balance of precision and recall on held-out scenes
    #[arg(long, default_value_t = 0.5, value_name = "SCORE")]
    box_threshold: f64,
    /// Points for each object besides its box, at most: the detector's likeliest queries in it [default: none with the
    /// shipped models, which cut out better by the box alone; else as the node has it, 20]
    #[arg(long, value_name = "N")]
    points: Option<u32>,
    /// Camera topic of the bag, raw or compressed
    #[arg(long, default_value = "/camera/image_raw/compressed", value_name = "TOPIC")]
    camera: String,
    /// Speed of the bag
    #[arg(short, long, default_value_t = 1.0)]
    rate: f64,
    /// ROS domain of the demo [default: one that nobody on this machine uses]
    #[arg(long, value_name = "ID")]
    domain_id: Option<u16>,
}

const THEN: &str = "traffic cone, fire extinguisher, monitor, potted plant, bucket, clock, chair, mug, bowl, lamp, \
                    frying pan, banana, screwdriver, bottle, book, sofa";

pub fn run(args: &DemoArgs) -> Result<ExitCode> {
    let domain = domain::enter(args.domain_id)?;
    let interrupt = Interrupt::install().context("cannot listen to signals")?;
    let models = models::folder(args.models.as_deref())?;
    let bag_path = args.bag.clone().unwrap_or_else(|| models::shipped("models/sim/demo_bag"));
    let recording = args.out.join("bag");
    if let (Ok(played), Ok(written)) = (bag_path.canonicalize(), recording.canonicalize())
        && played.starts_with(written)
    {
        bail!("--bag {}: the demo writes its recording there; name another folder with --out", bag_path.display());
    }
    let source = Source::of(&bags::open(&bag_path)?, &args.camera)?;
    let expected = source.images;
    std::fs::create_dir_all(&args.out).with_context(|| format!("cannot create {}", args.out.display()))?;

    let transport = wire::join("scenelex_demo")?;
    let mut watcher = Watcher::start(&*transport, &args.out, &source)?;
    let mut progress = Progress::new("demo");

    let mut node = Child::start("node", &node_arguments(args, &source, &models)?, &args.out)?;
    let deadline = Instant::now() + START;
    progress.show(0.0, "starting the node");
    while !watcher.node_is_ready() {
        node.must_run()?;
        if Instant::now() > deadline {
            bail!("the node announced no vocabulary within {} s\n{}", START.as_secs(), node.last_words());
        }
        if watcher.handle(LOOK, &interrupt)? {
            return Ok(ExitCode::from(INTERRUPTED));
        }
    }

    let mut player = Child::start("player", &player_arguments(args, &bag_path), &args.out)?;
    let mut last_sign = Instant::now();
    let mut results = 0;
    loop {
        if watcher.handle(LOOK, &interrupt)? {
            return Ok(ExitCode::from(INTERRUPTED));
        }
        node.must_run()?;
        if watcher.frames_in() * 2 >= expected {
            watcher.change_vocabulary(&args.then_classes)?;
        }
        progress.show(watcher.frames_in() as f64 / expected as f64, &watcher.status());
        let playing = player.is_running()?;
        if playing || watcher.frames_out() > results {
            results = watcher.frames_out();
            last_sign = Instant::now();
        }
        if !playing && (watcher.frames_out() >= watcher.frames_in() || last_sign.elapsed() > SILENCE) {
            break;
        }
    }
    player.must_have_succeeded()?;
    // The last pictures of a frame come after its masks.
    let settled = Instant::now() + LOOK * 4;
    while Instant::now() < settled {
        watcher.handle(LOOK, &interrupt)?;
    }
    progress.clear();
    node.stop();
    let summary = watcher.finish(domain, &bag_path)?;
    report::write(&args.out.join(folder::SUMMARY), &summary)?;
    say(&report::table(&summary, &args.out));
    if summary.frames_out == 0 {
        bail!("the node labelled no frame\n{}", node.last_words());
    }
    Ok(ExitCode::SUCCESS)
}

/// A list as YAML, as `-p` takes it.
fn yaml_list(classes: &str) -> String {
    let quoted: Vec<String> =
        classes.split(',').map(|class| format!("'{}'", class.trim().replace('\'', "''"))).collect();
    format!("[{}]", quoted.join(", "))
}

fn node_arguments(args: &DemoArgs, source: &Source, models: &Path) -> Result<Vec<String>> {
    let transport = if source.is_compressed() { "compressed" } else { "raw" };
    let mut parameters = vec![
        format!("image_transport:={transport}"),
        format!("models_dir:={}", models.display()),
        // A parameter of type double: an integer would be refused.
        format!("box_threshold:={:?}", args.box_threshold),
    ];
    match args.points.or(args.models.is_none().then_some(0)) {
        Some(0) => parameters.push("use_points:=false".to_owned()),
        Some(points) => parameters.push(format!("n_points:={points}")),
        None => {}
    }
    match &args.classes {
        Some(classes) => parameters.push(format!("classes:={}", yaml_list(classes))),
        None => parameters.extend(vocabulary::parameters(args)?),
    }
    let parameters = parameters.into_iter().flat_map(|parameter| ["-p".to_owned(), parameter]);
    let arguments = ["node", "--ros-args", "-r"].map(str::to_owned).into_iter();
    Ok(arguments.chain([format!("image:={}", args.camera)]).chain(parameters).collect())
}

fn player_arguments(args: &DemoArgs, bag: &Path) -> Vec<String> {
    [
        "play".to_owned(),
        bag.display().to_string(),
        "--quiet".to_owned(),
        "--rate".to_owned(),
        args.rate.to_string(),
        // The node and the demo.
        "--wait-for-subscribers".to_owned(),
        format!("{}=2", args.camera),
    ]
    .into()
}
