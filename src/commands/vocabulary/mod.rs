//! `scenelex vocabulary`: what is there to see in a whole recording.

mod proposers;

use std::{
    fs,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use scenelex::{
    imaging::{DecodeLimits, ImageDecoder},
    replay::{Bag, MessageQuery},
    ros::{
        CdrView, intake,
        messages::{CompressedImage, Image, RosMessage},
    },
    types::{CameraImage, RgbImage},
    vocabulary::{
        ClassSpec, VocabularyLimits,
        chat::{ChatClient, ChatConfig, ReplayMiss},
        dataset::{AtK, DatasetRanking, area, precision_recall},
        lexicon::{DEBIAN_DIR, Lexicon},
        normalise_label,
        proposals::{Aggregation, Candidate, Filter, Proposal, Ranking},
        refresh::{Refinement, RefreshConfig, Refreshed, Refresher},
    },
};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use self::proposers::{ProposerArgs, Proposers};
use super::{INTERRUPTED, bags, interrupt::Interrupt, progress::Progress, say};

/// How often is looked for a signal while a language model is waited for.
const SIGNAL_POLL: Duration = Duration::from_millis(50);

/// List what is there to see in a recording: a ranked vocabulary with its hierarchy.
///
/// Follows LLM2Labels: on every image the detector is asked for many words, or a tagger and a captioner say what they see
/// (--tagger, --captioner); proposals are ranked by occurrences times probability, filtered per image, added up over the bag, and grouped into classes with synonyms and parents by a language
/// model or, without one, by WordNet. With --truth the ranking is measured: P@K, R@K, AUC(PR@K).
#[derive(Args)]
pub struct VocabularyArgs {
    /// A rosbag2 bag, MCAP
    #[arg(value_name = "BAG")]
    bag: PathBuf,
    /// Image topic, raw or compressed [default: the only one in the bag]
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Look at every N-th image
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    every: u32,
    #[command(flatten)]
    proposers: ProposerArgs,
    /// Share of an image's lowest-ranked proposals that is discarded
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    percentile: f32,
    /// Least probability of a proposal, its occurrences aggregated, in [0, 1]
    #[arg(long, default_value_t = 0.0, value_name = "P", value_parser = probability)]
    threshold: f32,
    /// How the probabilities of a label that several looks at an image propose become one
    #[arg(long, value_enum, default_value_t = AggregationArg::Avg, value_name = "HOW")]
    aggregation: AggregationArg,
    /// Most classes in the vocabulary
    #[arg(long, default_value_t = 256, value_name = "N")]
    max_classes: usize,
    /// What really is in the bag, other names of a class after "|": "mug|cup, ball"
    #[arg(long, value_name = "\"A|B, C\"")]
    truth: Option<String>,
    /// Folder with WordNet's files
    #[arg(long, default_value = DEBIAN_DIR, value_name = "DIR")]
    lexicon: PathBuf,
    /// OpenAI-compatible chat endpoint that groups the labels
    #[arg(long, value_name = "URL")]
    llm_url: Option<String>,
    /// Its model
    #[arg(long, default_value = "gpt-4o-mini", value_name = "NAME")]
    llm_model: String,
    /// Environment variable with its key
    #[arg(long, default_value = "OPENAI_API_KEY", value_name = "NAME")]
    llm_key_variable: String,
    /// Let plain http leave this machine; the key can then be read on the way
    #[arg(long)]
    llm_allow_http: bool,
    /// Recorded exchanges that answer in its place
    #[arg(long, value_name = "FILE")]
    llm_replay: Option<PathBuf>,
    /// File for the exchanges with it
    #[arg(long, value_name = "FILE")]
    llm_record: Option<PathBuf>,
    /// File for the result
    #[arg(short, long, default_value = "out/vocabulary.json", value_name = "FILE")]
    out: PathBuf,
}

/// The node's parameter `refresh.aggregation`; its values are understood too.
#[derive(Clone, Copy, ValueEnum)]
enum AggregationArg {
    /// Their mean
    #[value(alias = "average")]
    Avg,
    /// Their product
    Product,
    /// The smallest
    #[value(alias = "minimum")]
    Min,
    /// The greatest
    #[value(alias = "maximum")]
    Max,
}

impl From<AggregationArg> for Aggregation {
    fn from(aggregation: AggregationArg) -> Self {
        match aggregation {
            AggregationArg::Avg => Self::Average,
            AggregationArg::Product => Self::Product,
            AggregationArg::Min => Self::Minimum,
            AggregationArg::Max => Self::Maximum,
        }
    }
}

fn probability(text: &str) -> Result<f32, String> {
    let number: f32 = text.parse().map_err(|_| "expected a number from 0 to 1".to_owned())?;
    if (0.0..=1.0).contains(&number) { Ok(number) } else { Err("expected a number from 0 to 1".to_owned()) }
}

#[derive(Serialize)]
struct Report<'r> {
    bag: String,
    topic: &'r str,
    images: usize,
    /// What of the bag could not be read.
    problems: Vec<String>,
    words: usize,
    /// Mean time from a decoded image to its proposals.
    seconds_per_image: f64,
    refined_by: &'static str,
    ranking: Vec<Ranked<'r>>,
    classes: Vec<Class<'r>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    quality: Option<Quality>,
}

#[derive(Serialize)]
struct Ranked<'r> {
    label: &'r str,
    images: usize,
    probability: f32,
    score: f32,
}

#[derive(Serialize)]
struct Class<'r> {
    label: &'r str,
    synonyms: &'r [String],
    parent: &'r str,
    score: f32,
}

#[derive(Serialize)]
struct Quality {
    classes: usize,
    auc: f64,
    curve: Vec<AtK>,
}

pub fn run(args: &VocabularyArgs) -> Result<ExitCode> {
    let interrupt = Interrupt::install().context("cannot listen to signals")?;
    let limits = VocabularyLimits { max_classes: args.max_classes, ..VocabularyLimits::default() };
    let truth = args.truth.as_deref().map(|text| truth_of(text, &limits)).transpose()?;
    let bag = bags::open(&args.bag)?;
    let topic = image_topic(&bag, args.topic.as_deref())?;
    let there = args.lexicon.join("data.noun").is_file();
    let lexicon = there.then(|| Lexicon::open(&args.lexicon)).transpose()?.map(Arc::new);
    let chat = chat(args)?;
    let mut proposers = args.proposers.load(&limits, lexicon.as_ref())?;

    let Some(Looked { ranking, took, problems }) = look(args, &bag, topic, &mut proposers, &limits, &interrupt)? else {
        return Ok(ExitCode::from(INTERRUPTED));
    };
    let seconds_per_image = took.as_secs_f64() / ranking.images().max(1) as f64;
    let candidates = ranking.candidates();
    let strongest = candidates.get(..args.max_classes).unwrap_or(&candidates);
    let grouped = group(strongest, chat, lexicon, limits, raised(&interrupt))?;
    let Some(Refreshed { classes, refinement, .. }) = grouped else {
        return Ok(ExitCode::from(INTERRUPTED));
    };

    let quality = truth.map(|truth| {
        let labels: Vec<Arc<str>> = candidates.iter().map(|candidate| Arc::clone(&candidate.label)).collect();
        let curve = precision_recall(&labels, &truth);
        Quality { classes: truth.len(), auc: area(&curve), curve }
    });
    print(&classes, refinement, ranking.images(), quality.as_ref());
    say(&format!("{:.1} ms an image", seconds_per_image * 1e3));
    let report = Report {
        bag: args.bag.display().to_string(),
        topic,
        images: ranking.images(),
        problems,
        words: proposers.words,
        seconds_per_image,
        refined_by: refinement.as_str(),
        ranking: candidates
            .iter()
            .map(|c| Ranked { label: &c.label, images: c.occurrences, probability: c.probability, score: c.score })
            .collect(),
        classes: classes
            .iter()
            .map(|c| Class { label: &c.label, synonyms: &c.synonyms, parent: &c.parent, score: c.score })
            .collect(),
        quality,
    };
    if let Some(folder) = args.out.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    fs::write(&args.out, serde_json::to_vec_pretty(&report)?)
        .with_context(|| format!("cannot write {}", args.out.display()))?;
    say(&format!("written to {}", args.out.display()));
    Ok(ExitCode::SUCCESS)
}

/// The topic to look at: the one named, or the only one with images.
fn image_topic<'b>(bag: &'b Bag, named: Option<&str>) -> Result<&'b str> {
    let images: Vec<&str> = bag
        .topics()
        .iter()
        .filter(|topic| [Image::TYPE, CompressedImage::TYPE].contains(&topic.type_name.as_str()))
        .map(|topic| topic.name.as_str())
        .collect();
    match (named, images.as_slice()) {
        (Some(name), _) => match images.iter().find(|image| **image == name) {
            Some(found) => Ok(found),
            None => bail!("{name} is no image topic of the bag; it has {}", images.join(", ")),
        },
        (None, [only]) => Ok(only),
        (None, []) => bail!("the bag has no image topic"),
        // A compressed camera beside ground truth and depth: the only compressed one is meant.
        (None, several) => {
            let compressed: Vec<&&str> = several.iter().filter(|name| name.ends_with("/compressed")).collect();
            match compressed.as_slice() {
                [only] => Ok(only),
                _ => bail!("the bag has several image topics; choose one with --topic: {}", several.join(", ")),
            }
        }
    }
}

fn truth_of(text: &str, limits: &VocabularyLimits) -> Result<Vec<Vec<Arc<str>>>> {
    let class = |names: &str| {
        let names = names.split('|').filter(|name| !name.trim().is_empty());
        names.map(|name| normalise_label(name, limits)).collect::<Result<Vec<_>, _>>()
    };
    let classes = text.split(',').filter(|part| !part.trim().is_empty());
    let truth = classes.map(class).collect::<Result<Vec<_>, _>>().context("--truth")?;
    if truth.is_empty() { bail!("--truth names no class") } else { Ok(truth) }
}

fn chat(args: &VocabularyArgs) -> Result<Option<ChatClient>> {
    if args.llm_url.is_none() && args.llm_replay.is_none() {
        return Ok(None);
    }
    let shipped = ChatConfig::default();
    let config = ChatConfig {
        base_url: args.llm_url.clone().unwrap_or(shipped.base_url),
        model: args.llm_model.clone(),
        key_variable: args.llm_key_variable.clone(),
        allow_http: args.llm_allow_http,
        record: args.llm_record.clone(),
        replay: args.llm_replay.clone(),
        replay_miss: if args.llm_url.is_some() { ReplayMiss::Ask } else { ReplayMiss::Error },
        ..shipped
    };
    Ok(Some(ChatClient::new(config).context("language model")?))
}

/// What came of looking at the bag's images.
struct Looked {
    ranking: DatasetRanking,
    /// Without reading them.
    took: Duration,
    /// What of the bag could not be read.
    problems: Vec<String>,
}

/// Looks at the bag's images; `None` when interrupted. An image that cannot be read is reported and left out.
fn look(
    args: &VocabularyArgs,
    bag: &Bag,
    topic: &str,
    proposers: &mut Proposers,
    limits: &VocabularyLimits,
    interrupt: &Interrupt,
) -> Result<Option<Looked>> {
    let known = bag.topics().iter().find(|t| t.name == topic);
    let compressed = known.is_some_and(|t| t.type_name == CompressedImage::TYPE);
    let total = known.map_or(0, |t| t.message_count);
    let filter = Filter { percentile: args.percentile, threshold: args.threshold };
    let mut decoder = ImageDecoder::new(DecodeLimits::default());
    let (mut image, mut rgb) = (CameraImage::default(), RgbImage::default());
    let (mut all, mut progress, mut bad) = (DatasetRanking::default(), Progress::new("looking"), 0_u64);
    let (mut took, mut read) = (Duration::ZERO, 0_u64);
    let mut problems: Vec<String> = bag.problems().iter().map(ToString::to_string).collect();
    let query = MessageQuery { topics: vec![topic.to_owned()], ..MessageQuery::default() };
    for message in bag.messages(&query)? {
        if interrupt.is_raised() {
            return Ok(None);
        }
        let message = match message {
            Ok(message) => message,
            // No image: a part of the bag, with as many images as were in it.
            Err(error) => {
                tracing::warn!("{error}");
                problems.push(error.to_string());
                continue;
            }
        };
        let index = read;
        read += 1;
        if !index.is_multiple_of(u64::from(args.every)) {
            continue;
        }
        progress.show(index as f64 / total.max(1) as f64, &format!("{} images, {bad} bad", all.images()));
        let mut propose = || -> Result<Ranking> {
            intake::fill(CdrView::from_encapsulated(&message.data)?, compressed, &mut image)?;
            decoder.take(&mut image, &mut rgb)?;
            let start = Instant::now();
            let mut samples: Vec<Vec<Proposal>> = Vec::new();
            for proposer in &mut proposers.all {
                samples.extend(proposer.propose(&rgb, &|| !interrupt.is_raised())?.samples);
            }
            took += start.elapsed();
            Ok(Ranking::of(&samples, args.aggregation.into(), limits))
        };
        match propose() {
            Ok(mut ranking) => {
                ranking.filter(filter);
                all.add(&ranking);
            }
            Err(error) => {
                bad += 1;
                if bad.is_power_of_two() {
                    tracing::warn!(bad, "left out an image: {error:#}");
                }
            }
        }
    }
    progress.clear();
    if all.images() == 0 {
        bail!("no image of {topic} could be read");
    }
    Ok(Some(Looked { ranking: all, took, problems }))
}

/// Ends once a signal came. Looks for one again and again: the thread that gets it knows nothing of our runtime.
async fn raised(interrupt: &Interrupt) {
    while !interrupt.is_raised() {
        tokio::time::sleep(SIGNAL_POLL).await;
    }
}

/// Classes with synonyms and parents; `None` when `stopped` ends first. A language model that fails leaves it to the
/// lexicon; where there is none the candidates are the classes, for looking at the images took long.
fn group(
    candidates: &[Candidate],
    chat: Option<ChatClient>,
    lexicon: Option<Arc<Lexicon>>,
    limits: VocabularyLimits,
    stopped: impl Future<Output = ()>,
) -> Result<Option<Refreshed>> {
    let config = RefreshConfig { limits, ..RefreshConfig::default() };
    let mut refresher = Refresher::new(config, Vec::new(), chat.map(Arc::new), lexicon, |_| None);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let cancel = CancellationToken::new();
    let outcome = runtime.block_on(async {
        // A question that is given up on is closed with its connection.
        tokio::select! {
            biased;
            () = stopped => None,
            refined = refresher.refine(candidates, &cancel) => Some(refined),
        }
    });
    // A name server that does not answer must not hold up the end.
    runtime.shutdown_background();
    let refined = match outcome {
        None => return Ok(None),
        Some(Ok(refined)) => refined,
        Some(Err(error)) => Refreshed {
            classes: candidates.iter().map(|c| ClassSpec { score: c.score, ..ClassSpec::new(&*c.label) }).collect(),
            refinement: Refinement::Proposals,
            refused: 0,
            trouble: Some(error.to_string()),
        },
    };
    if let Some(trouble) = &refined.trouble {
        tracing::warn!(trouble, "grouped by the {} instead", refined.refinement.as_str());
    }
    Ok(Some(refined))
}

fn print(classes: &[ClassSpec], refinement: Refinement, images: usize, quality: Option<&Quality>) {
    say(&format!("{} classes in {images} images, grouped by {}:", classes.len(), refinement.as_str()));
    let is_class = |name: &str| classes.iter().any(|class| class.label == name);
    for class in classes.iter().filter(|class| !is_class(&class.parent)) {
        print_tree(classes, class, 1);
    }
    if let Some(quality) = quality {
        let row = |k: usize| {
            let at = quality.curve.get(k.min(quality.curve.len()).checked_sub(1)?)?;
            Some(format!("P@{} {:.3}  R@{} {:.3}", at.k, at.precision, at.k, at.recall))
        };
        let rows: Vec<String> = [quality.classes, 2 * quality.classes].into_iter().filter_map(row).collect();
        say(&format!("{}  AUC(PR@K) {:.3}", rows.join("  "), quality.auc));
    }
}

/// A class and those below it. Parents never lead in circles (see `repair_parents`), so this ends.
fn print_tree(classes: &[ClassSpec], class: &ClassSpec, depth: usize) {
    let others = if class.synonyms.is_empty() { String::new() } else { format!(" ({})", class.synonyms.join(", ")) };
    say(&format!("{:indent$}{}{others}  {:.2}", "", class.label, class.score, indent = 2 * depth));
    for child in classes.iter().filter(|child| child.parent == class.label) {
        print_tree(classes, child, depth + 1);
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: VocabularyArgs,
    }

    /// Threshold and aggregation of a command line.
    fn parsed(more: &[&str]) -> Result<(f32, Aggregation), String> {
        let line = ["vocabulary", "BAG"].into_iter().chain(more.iter().copied());
        let args = Cli::try_parse_from(line).map_err(|error| error.to_string())?.args;
        Ok((args.threshold, args.aggregation.into()))
    }

    #[test]
    fn the_filter_is_set_on_the_command_line() {
        assert_eq!(parsed(&[]), Ok((0.0, Aggregation::Average)));
        for (name, aggregation) in [
            ("avg", Aggregation::Average),
            ("average", Aggregation::Average),
            ("product", Aggregation::Product),
            ("min", Aggregation::Minimum),
            ("maximum", Aggregation::Maximum),
        ] {
            assert_eq!(parsed(&["--threshold", "0.68", "--aggregation", name]), Ok((0.68, aggregation)));
        }
        for wrong in ["1.5", "-0.1", "NaN", "half"] {
            let error = parsed(&[&format!("--threshold={wrong}")]).unwrap_err();
            assert!(error.contains("from 0 to 1"), "{error}");
        }
    }

    #[test]
    fn a_signal_ends_the_wait_for_the_language_model() {
        // Takes the connection and never says a word.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let config = ChatConfig {
            base_url: format!("http://{}/v1", silent.local_addr().unwrap()),
            key_variable: String::new(),
            ..ChatConfig::default()
        };
        let chat = ChatClient::new(config).unwrap();
        let candidates = [Candidate { label: Arc::from("mug"), occurrences: 1, probability: 1.0, score: 1.0 }];
        let signal = async { tokio::time::sleep(Duration::from_millis(200)).await };
        let start = Instant::now();
        let grouped = group(&candidates, Some(chat), None, VocabularyLimits::default(), signal).unwrap();
        assert!(grouped.is_none());
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    }
}
