//! How the demo's node finds a class list by itself: parameters of its vocabulary loop.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use scenelex::ros::{
    arguments::RosArguments,
    parameter_table::TABLE,
    parameters::{Value, Values},
};

use super::DemoArgs;
use crate::commands::models;

/// What the detector is asked for, off the frame path: everyday words. It was trained with two in three of them, but most
/// are not the targets' own: refinement has to find out which targets they mean.
const WORDS: &str = "cup, jar, tin, armchair, plant, screen, cone, light, notebook, computer, dish, pail, kettle, pan, tool, \
                     fruit, tube, extinguisher, watch, couch, table, box, book, pot, glass, clock, chair, lamp, bottle, bowl, \
                     mug, bucket";
/// Answers of a language model to what it is asked in the demo.
const RECORDING: &str = "models/sim/demo_llm.jsonl";
/// The name under which they were recorded, which is part of a question.
const RECORDED_MODEL: &str = "large-language-model";

/// Names and values of the parameters that let the node find its list.
pub fn parameters(args: &DemoArgs) -> Result<Vec<String>> {
    let mut parameters = vec![
        "refresh.enabled:=true".to_owned(),
        format!("refresh.targets:={}", super::yaml_list(&world()?)),
        format!("refresh.probe.words:={}", super::yaml_list(WORDS)),
        // Its targets are words that a language model knows.
        "refresh.hints:=false".to_owned(),
        "refresh.period:=2.0".to_owned(),
        // What it is told stays, also where it is not seen for a while.
        "refresh.keep:=1000".to_owned(),
    ];
    if let Some(url) = &args.llm {
        let record = args.out.join("exchanges.jsonl");
        parameters.extend([format!("llm.url:={url}"), format!("llm.record:={}", record.display())]);
    } else if let Some(recording) = recording(args) {
        parameters.push(format!("llm.replay:={}", recording.display()));
    }
    parameters.push(format!("llm.model:={}", args.llm_model.as_deref().unwrap_or(RECORDED_MODEL)));
    Ok(parameters)
}

/// The recording that fits: other pictures and other detectors lead to other questions.
fn recording(args: &DemoArgs) -> Option<PathBuf> {
    let usual = || (args.bag.is_none() && args.models.is_none()).then(|| models::shipped(RECORDING));
    args.replay.clone().or_else(usual)
}

/// The categories of the simulated world, as its parameter file lists them.
fn world() -> Result<String> {
    let path = models::shipped("config/sim_world.yaml");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut values = Values::new(TABLE);
    values.apply_file(&text, &path, &RosArguments::default().identity("scenelex")?)?;
    match values.get("classes") {
        Some(Value::Texts(classes)) => Ok(classes.join(",")),
        _ => bail!("{}: no classes", path.display()),
    }
}
