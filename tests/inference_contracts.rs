//! Bundles and model files that are not what they claim to be: each is an error that says what was expected and found.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "a test")]

mod support;

use std::fs;

use scenelex::{
    inference::{
        Bundle, Detector, GroundingDino, ImageEncoder, InferenceError, LowResMasks, MaskDecoder, Model, ModelOptions,
        PromptBatch, Provider, SamImageEncoder, SamMaskDecoder, TextEncoder,
    },
    pipeline::Pipeline,
    types::{FrameResult, ImagePayload, ImageSize, RgbImage},
};
use support::{BLUE, BundleCopy, RED, digest, golden, picture, prepare, specs, tiny_bundle, tiny_config, tiny_encoder};

#[test]
fn manifests_are_checked() {
    let copy = |test| BundleCopy::of("detector", test);
    let has = |copy: &BundleCopy, parts: &[&str]| {
        let error = copy.error();
        assert!(parts.iter().all(|p| error.contains(p)), "{error} does not say {parts:?}");
    };
    has(copy("unknown").edit("name =", "nmae = \"x\"\nname ="), &["bundle.toml", "nmae"]);
    has(copy("kind").edit("\"grounding_dino\"", "\"yolo\""), &["yolo", "grounding_dino"]);
    has(copy("resize").edit("\"exact\"", "\"stretch\""), &["letterbox", "stretch"]);
    has(copy("size").edit("width = 128", "shortest = 128"), &["shortest"]);
    has(copy("zero").edit("width = 128", "width = 0"), &["width", "1 to 8192"]);
    has(copy("std").edit("std = [0.25,", "std = [0.0,"), &["std"]);
    has(copy("threshold").edit("nms_iou = 0.5", "nms_iou = 1.5"), &["nms_iou", "1.5"]);
    has(copy("tokens").edit("max_tokens = 16", "max_tokens = 257"), &["max_tokens", "257"]);
    has(
        copy("outside").edit("path = \"detector.onnx\"", "path = \"../detector.onnx\""),
        &["detector", "in the bundle"],
    );
    has(copy("checksum").edit("sha256 = \"", "sha256 = \"0"), &["sha256", "the manifest says"]);
    let digest = "0".repeat(64);
    for (role, problem) in [("tokenizer", "not a model"), ("mask_decoder", "not a model"), ("detector", "sha256")] {
        let section =
            format!("[cpu_files]\n{role} = {{ path = \"detector.onnx\", sha256 = \"{digest}\" }}\n\n[preproc");
        has(BundleCopy::of("detector", &format!("cpu-{role}")).edit("[preproc", &section), &[role, problem]);
    }
    let gone = copy("gone");
    fs::remove_file(gone.folder().join("detector.onnx")).unwrap();
    has(&gone, &["detector.onnx"]);
    assert!(matches!(Bundle::load(&golden("tiny/broken")), Err(InferenceError::Io { .. })));
}

#[test]
fn the_processor_has_a_file_of_its_own_where_the_manifest_names_one() {
    let copy = BundleCopy::of("detector", "processor");
    let file = |provider| {
        let bundle = copy.load().unwrap();
        bundle.model("detector", provider).unwrap().to_owned()
    };
    assert_eq!(file(Provider::Cpu), copy.folder().join("detector.onnx"));
    let content = fs::read(golden("tiny/broken/renamed_output.onnx")).unwrap();
    fs::write(copy.folder().join("small.onnx"), &content).unwrap();
    let digest = digest(&content);
    let section = format!("[cpu_files]\ndetector = {{ path = \"small.onnx\", sha256 = \"{digest}\" }}\n\n[preproc");
    copy.edit("[preproc", &section);
    assert_eq!(file(Provider::Cpu), copy.folder().join("small.onnx"));
    assert_eq!(file(Provider::Cuda { device: 0 }), copy.folder().join("detector.onnx"));
    let error = GroundingDino::load(&copy.load().unwrap(), &ModelOptions::default()).err().unwrap().to_string();
    assert!(error.contains("small.onnx") && error.contains("class_logits"), "it is the one that is loaded: {error}");
}

#[test]
fn models_are_checked_against_their_contract() {
    let load = |copy: &BundleCopy| GroundingDino::load(&copy.load().unwrap(), &ModelOptions::default());
    let message = |result: Result<GroundingDino, InferenceError>| result.err().unwrap().to_string();

    let renamed = BundleCopy::of("detector", "renamed");
    let error = message(load(renamed.replace("detector.onnx", golden("tiny/broken/renamed_output.onnx"))));
    assert!(error.contains("output logits: expected to be there, found") && error.contains("class_logits"), "{error}");

    let batch = BundleCopy::of("detector", "batch");
    let error = message(load(batch.replace("detector.onnx", golden("tiny/broken/two_images.onnx"))));
    assert!(error.contains("input pixel_values: expected f32[<1 or open>,3,*,*], found"), "{error}");
    let one = BundleCopy::of("detector", "one");
    let detector = load(one.replace("detector.onnx", golden("tiny/broken/one_mask.onnx"))).unwrap();
    assert_eq!(detector.max_batch(), 1, "one input takes a single image");
    assert_eq!(load(&BundleCopy::of("detector", "many")).unwrap().max_batch(), usize::MAX);

    let other_size = BundleCopy::of("detector", "other_size");
    let error = message(load(other_size.edit("width = 128", "width = 256")));
    assert!(error.contains("expected 256x96") && error.contains("found 128x96"), "{error}");

    let swapped = BundleCopy::of("detector", "swapped");
    let error = message(load(swapped.replace("detector.onnx", golden("tiny/segmenter/image_encoder.onnx"))));
    assert!(error.contains("pixel_values"), "{error}");

    let broken = BundleCopy::of("detector", "broken");
    let error = message(load(broken.replace("detector.onnx", golden("tiny/detector/tokenizer.json"))));
    assert!(error.contains("detector.onnx"), "{error}");

    let segmenter = BundleCopy::of("segmenter", "segmenter");
    segmenter.replace("mask_decoder.onnx", golden("tiny/segmenter/image_encoder.onnx"));
    let bundle = segmenter.load().unwrap();
    let error = SamMaskDecoder::load(&bundle, &ModelOptions::default()).err().unwrap().to_string();
    assert!(error.contains("input image_embeddings: expected to be there"), "{error}");
    assert!(SamImageEncoder::load(&bundle, &ModelOptions::default()).is_ok());
}

const EXACT: &str = "resize = \"exact\"\nwidth = 128\nheight = 96";

fn rgb(size: ImageSize) -> RgbImage {
    let ImagePayload::Raw { data, .. } = picture(size, &[(0, 0, RED), (2, 1, BLUE)]).payload else {
        panic!("a raw picture")
    };
    RgbImage { size, data }
}

#[test]
fn a_size_that_the_detectors_file_leaves_open_is_the_manifests() {
    let options = ModelOptions::default();
    let open = BundleCopy::of("detector", "open");
    open.replace("detector.onnx", golden("tiny/broken/open_width.onnx"));
    let open_detector = GroundingDino::load(&open.load().unwrap(), &options).unwrap();
    assert_eq!(open_detector.input_size(), ImageSize::new(128, 96));
    let mut encoder = tiny_encoder();
    let caption = encoder.captions(&["red", "blue"]).unwrap().remove(0);
    let text = encoder.encode(&caption).unwrap();
    let image = rgb(ImageSize::new(320, 240));
    let detect = |mut detector: GroundingDino| {
        let mut found = Vec::new();
        detector.prepare(&[&image]).unwrap();
        detector.detect(&text, &mut found).unwrap();
        found
    };
    let expected = detect(GroundingDino::load(&tiny_bundle("detector"), &options).unwrap());
    assert_eq!(detect(open_detector), expected);
    assert_eq!(expected[0].queries, 12);

    open.edit(EXACT, "resize = \"exact\"\nwidth = 128\nheight = 64");
    let error = GroundingDino::load(&open.load().unwrap(), &options).err().unwrap().to_string();
    assert!(error.contains("input size: expected 128x64 (the manifest's preprocessing), found"), "{error}");
    open.edit(
        "resize = \"exact\"\nwidth = 128\nheight = 64",
        "resize = \"shortest_edge\"\nshortest = 96\nlongest = 128",
    );
    let error = GroundingDino::load(&open.load().unwrap(), &options).err().unwrap().to_string();
    assert!(error.contains("expected a height and width, in the file or as the manifest's preprocessing"), "{error}");
}

#[test]
fn shortest_edge_goes_with_a_file_of_one_size() {
    let options = ModelOptions::default();
    let copy = BundleCopy::of("detector", "shortest");
    copy.edit(EXACT, "resize = \"shortest_edge\"\nshortest = 96\nlongest = 128");
    let mut detector = GroundingDino::load(&copy.load().unwrap(), &options).unwrap();
    // 96x96, 128x64 and 128x96 after resizing.
    let images = [(64, 64), (128, 64), (256, 192)].map(|(width, height)| rgb(ImageSize::new(width, height)));
    detector.prepare(&images.each_ref()).unwrap();
    let error = detector.prepare(&[&rgb(ImageSize::new(48, 64))]).unwrap_err().to_string();
    assert!(error.contains("at most 128x96") && error.contains("one of 48x64, which becomes 96x128"), "{error}");

    copy.edit("shortest = 96\nlongest = 128", "shortest = 200\nlongest = 300");
    let error = GroundingDino::load(&copy.load().unwrap(), &options).err().unwrap().to_string();
    assert!(error.contains("a side of at least 200") && error.contains("found 128x96"), "{error}");
}

#[test]
fn files_of_a_detector_belong_together() {
    let options = ModelOptions::default();
    let load = |copy: &BundleCopy| GroundingDino::load(&copy.load().unwrap(), &options);
    let alone = BundleCopy::of("detector", "alone");
    let error = load(alone.drop_line("text_encoder = ")).err().unwrap().to_string();
    assert!(
        error.contains("text_encoder is missing") && error.contains("detector.onnx takes text_features"),
        "{error}"
    );

    let wide = BundleCopy::of("detector", "wide");
    let error = load(wide.replace("text_encoder.onnx", golden("tiny/broken/wide_features.onnx")));
    let error = error.err().unwrap().to_string();
    assert!(error.contains("detector.onnx: width of input text_features: expected 3, found 4"), "{error}");
    assert!(error.ends_with("text_encoder.onnx"), "{error}");

    let fixed = BundleCopy::of("detector", "fixed_tokens");
    fixed.replace("text_encoder.onnx", golden("tiny/broken/fixed_tokens.onnx"));
    let error = TextEncoder::load(&fixed.load().unwrap(), &options).err().unwrap().to_string();
    assert!(error.contains("input input_ids: expected i64[<1 or open>,<open>], found"), "{error}");
}

#[test]
fn a_size_that_the_encoders_file_leaves_open_is_the_manifests() {
    let options = ModelOptions::default();
    let sized = |copy: &BundleCopy, rule: &str, (width, height): (u32, u32)| {
        let rule = format!("[preprocessing]\nresize = \"{rule}\"\nwidth = {width}\nheight = {height}\n");
        copy.edit("[preprocessing]\n", &rule);
        SamImageEncoder::load(&copy.load().unwrap(), &options)
    };
    let open = |test: &str| {
        let copy = BundleCopy::of("segmenter", test);
        copy.replace("image_encoder.onnx", golden("tiny/broken/open_sides.onnx"));
        copy
    };
    // Its input has another name, too.
    let bare = open("bare");
    let error = SamImageEncoder::load(&bare.load().unwrap(), &options).err().unwrap().to_string();
    assert!(error.contains("input x: expected a height and width, in the file or as the manifest's"), "{error}");
    let image = rgb(ImageSize::new(320, 240));
    let embedding = |mut encoder: SamImageEncoder| {
        encoder.prepare(&[&image]).unwrap();
        encoder.encode().unwrap().remove(0)
    };
    let whole = sized(&open("whole"), "letterbox", (128, 128)).unwrap();
    let expected = embedding(SamImageEncoder::load(&tiny_bundle("segmenter"), &options).unwrap());
    let found = embedding(whole);
    assert_eq!(found.batch.as_f32().unwrap(), expected.batch.as_f32().unwrap());
    assert_eq!(found.placement, expected.placement, "letterbox is SAM's own rule where the input is a square");

    let error = sized(&open("flat"), "exact", (128, 96)).err().unwrap().to_string();
    assert!(error.contains("input size: expected a square, found 128x96"), "{error}");
    let error = sized(&BundleCopy::of("segmenter", "other"), "letterbox", (64, 64)).err().unwrap().to_string();
    assert!(error.contains("expected 64x64 (the manifest's preprocessing), found 128x128"), "{error}");
    let edge = BundleCopy::of("segmenter", "edge");
    edge.edit("[preprocessing]\n", "[preprocessing]\nresize = \"shortest_edge\"\nshortest = 96\nlongest = 128\n");
    assert!(edge.error().contains("resize must be exact, letterbox or longest_side for kind sam"), "{}", edge.error());

    // What neither file says is found by the first run.
    let half = sized(&open("half"), "letterbox", (64, 64)).unwrap();
    let mut decoder = SamMaskDecoder::load(&tiny_bundle("segmenter"), &options).unwrap();
    decoder.check_encoder(&half).unwrap();
    let prompt = PromptBatch { prompts: 1, points: 1, coords: vec![8.0, 8.0], labels: vec![1.0], ambiguous: true };
    let error = decoder.decode(&embedding(half), image.size, &prompt, &mut LowResMasks::default()).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("image_embeddings: expected [1, 4, 8, 8], found [1, 4, 4, 4]"), "{error}");
}

#[test]
fn files_that_leave_their_sides_open_get_less_than_a_square() {
    let trimmed = |test: &str, multiple: u32| {
        let copy = BundleCopy::of("segmenter", test);
        copy.replace("image_encoder.onnx", golden("tiny/broken/open_sides.onnx"));
        copy.replace("mask_decoder.onnx", golden("tiny/broken/open_masks.onnx"));
        let rule = format!("[preprocessing]\nresize = \"longest_side\"\nlongest = 128\nmultiple = {multiple}\n");
        copy.edit("[preprocessing]\n", &rule);
        copy
    };
    let wide = rgb(ImageSize::new(320, 240));
    let upright = rgb(ImageSize::new(90, 160));
    let copy = trimmed("trimmed", 16);
    let mut encoder = SamImageEncoder::load(&copy.load().unwrap(), &ModelOptions::default()).unwrap();
    let mut encode = |images: &[&RgbImage]| {
        encoder.prepare(images).unwrap();
        let embeddings = encoder.encode().unwrap();
        let shape = embeddings[0].batch.as_f32().unwrap().0.to_vec();
        (shape, embeddings.iter().map(|embedding| embedding.placement.input).collect::<Vec<_>>())
    };
    assert_eq!(encode(&[&wide]), (vec![1, 4, 6, 8], vec![ImageSize::new(128, 96)]));
    assert_eq!(encode(&[&upright]), (vec![1, 4, 8, 5], vec![ImageSize::new(80, 128)]), "72 columns, rounded up");
    let square = ImageSize::new(128, 128);
    assert_eq!(encode(&[&wide, &upright]), (vec![2, 4, 8, 8], vec![square, square]), "together, what both fit in");

    // Padding makes no difference, but at the picture's lower edge, where masks blend with what is in it.
    let vocabulary = prepare(&mut tiny_encoder(), &specs(&["red", "blue"]));
    let masks = |segmenter: &Bundle| {
        let mut pipeline = Pipeline::load(tiny_config(), &tiny_bundle("detector"), segmenter).unwrap();
        let mut image = picture(wide.size, &[(0, 0, RED), (2, 1, BLUE)]);
        let mut result = FrameResult::default();
        pipeline.process(&mut image, &vocabulary, &mut result).unwrap();
        result.instances
    };
    let expected = masks(&tiny_bundle("segmenter"));
    assert_eq!(expected.len(), 2);
    assert_eq!(masks(&copy.load().unwrap()), expected);
    assert_eq!(masks(&trimmed("square", 128).load().unwrap()), expected);

    let load = |copy: &BundleCopy| {
        let bundle = copy.load().map_err(|error| error.to_string())?;
        Pipeline::load(tiny_config(), &tiny_bundle("detector"), &bundle).map(|_| ()).map_err(|error| error.to_string())
    };
    let fixed = trimmed("fixed", 16);
    fixed.replace("mask_decoder.onnx", golden("tiny/segmenter/mask_decoder.onnx"));
    let error = load(&fixed).unwrap_err();
    assert!(error.contains("mask_decoder.onnx: inputs image_embeddings and mask_input: expected rows and"), "{error}");
    let fixed = trimmed("fixed_encoder", 16);
    fixed.replace("image_encoder.onnx", golden("tiny/segmenter/image_encoder.onnx"));
    let error = load(&fixed).unwrap_err();
    assert!(error.contains("image_encoder.onnx: input pixel_values: expected height and width left open"), "{error}");
    let error = load(&trimmed("uneven", 48)).unwrap_err();
    assert!(error.contains("longest 128 is no multiple of 48"), "{error}");
    let detector = BundleCopy::of("detector", "longest");
    detector.edit("resize = \"exact\"\nwidth = 128\nheight = 96", "resize = \"longest_side\"\nlongest = 128");
    assert!(detector.error().contains("must be exact, letterbox or shortest_edge for kind grounding_dino"));
}

#[test]
fn files_of_a_segmenter_belong_together() {
    let load = |test: &str, file: &str, with: &str| {
        let copy = BundleCopy::of("segmenter", test);
        copy.replace(file, golden("tiny/broken").join(with));
        Pipeline::load(tiny_config(), &tiny_bundle("detector"), &copy.load().unwrap()).err().unwrap().to_string()
    };
    let error = load("channels", "image_encoder.onnx", "five_channels.onnx");
    assert!(error.contains("image_encoder.onnx: output image_embeddings: expected [*,4,8,8], which"), "{error}");
    assert!(error.contains("mask_decoder.onnx takes, found"), "{error}");
    let error = load("masks", "mask_decoder.onnx", "three_masks.onnx");
    assert!(error.contains("output iou_predictions: expected 1 or 4 masks a prompt, found 3"), "{error}");
    let error = load("points", "mask_decoder.onnx", "fixed_points.onnx");
    assert!(error.contains("input point_coords: expected f32[<1 or open>,<open>,2], found"), "{error}");
}

/// The tiny detector with a plain list of tokens in place of its tokenizer.
fn with_word_list(test: &str, words: &str) -> BundleCopy {
    let copy = BundleCopy::of("detector", test);
    copy.rewrite("tokenizer.json", words).edit("path = \"tokenizer.json\"", "path = \"vocab.txt\"");
    fs::rename(copy.folder().join("tokenizer.json"), copy.folder().join("vocab.txt")).unwrap();
    copy
}

#[test]
fn a_list_of_tokens_gets_the_special_tokens_it_does_not_speak_of() {
    let options = ModelOptions::default();
    let copy = with_word_list("words", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n.\na\nred\nmug\n");
    let mut encoder = TextEncoder::load(&copy.load().unwrap(), &options).unwrap();
    let caption = encoder.captions(&["A red mug", "red"]).unwrap().remove(0);
    let text = encoder.encode(&caption).unwrap();
    // A token's id is the number of its line.
    assert_eq!(text.input_ids, [2, 5, 6, 7, 4, 6, 4, 3]);
    assert_eq!(text.spans[0].tokens, 1..4);

    let copy = with_word_list("no_end", "[UNK]\n[CLS]\n.\na\n");
    let error = TextEncoder::load(&copy.load().unwrap(), &options).err().unwrap().to_string();
    assert!(error.contains("vocab.txt: expected the tokens [CLS] and [SEP], found no [SEP]"), "{error}");

    let bare = BundleCopy::of("detector", "bare_tokenizer");
    let text = fs::read_to_string(golden("tiny/detector/tokenizer.json")).unwrap();
    let mut tokenizer: serde_json::Value = serde_json::from_str(&text).unwrap();
    tokenizer["post_processor"] = serde_json::Value::Null;
    bare.rewrite("tokenizer.json", &tokenizer.to_string());
    let error = TextEncoder::load(&bare.load().unwrap(), &options).err().unwrap().to_string();
    assert!(error.contains("tokenizer.json: expected one special token before a text and one after it"), "{error}");
    assert!(error.contains("post_processor"), "{error}");
}

#[test]
fn a_tokenizer_that_is_none_is_an_error() {
    let copy = BundleCopy::of("detector", "tokenizer");
    copy.replace("tokenizer.json", golden("tiny/detector/bundle.toml"));
    let error = TextEncoder::load(&copy.load().unwrap(), &ModelOptions::default()).err().unwrap();
    assert!(matches!(error, InferenceError::Tokenizer(_)), "{error}");
}

#[test]
fn a_provider_that_is_not_there_is_an_error() {
    // The library of the default set-up is the CPU build; with another one this test has nothing to say.
    let options = ModelOptions { provider: scenelex::inference::Provider::Cuda { device: 0 }, ..Default::default() };
    match Model::load(&golden("tiny/detector/detector.onnx"), &["logits"], &options) {
        Err(InferenceError::Provider { provider: "CUDA", .. }) => {}
        Err(other) => panic!("{other}"),
        Ok(_) => eprintln!("skipped: this ONNX Runtime has CUDA"),
    }
}

#[test]
fn a_model_tells_where_its_nodes_run() {
    let model = Model::load(&golden("tiny/detector/detector.onnx"), &["logits"], &ModelOptions::default()).unwrap();
    let said = model.runs_on();
    let nodes = said.strip_prefix("CPUExecutionProvider (").and_then(|rest| rest.strip_suffix(" nodes)"));
    assert!(nodes.is_some_and(|nodes| nodes.parse::<usize>().unwrap() > 0), "{said}");
}

#[test]
fn captions_know_their_tokens() {
    let mut encoder = tiny_encoder();
    let captions = encoder.captions(&["a red mug", "armchair", "chair"]).unwrap();
    assert_eq!(captions.len(), 1);
    assert_eq!(captions[0].text, "a red mug. armchair. chair.");
    let text = encoder.encode(&captions[0]).unwrap();
    // [CLS] a red mug . arm ##chair . chair . [SEP]; the file's truncation to 6 tokens is switched off.
    assert_eq!(text.input_ids, [101, 1037, 2417, 14757, 1012, 2849, 25112, 1012, 3242, 1012, 102]);
    let spans: Vec<_> = text.spans.iter().map(|s| s.tokens.clone()).collect();
    assert_eq!(spans, [1..4, 5..7, 8..9]);
    assert_eq!((text.feature_size, text.features.len()), (3, 33));
    assert_eq!(&text.features[2 * 3..3 * 3], [1.0, 0.0, 0.0], "the feature of \"red\"");

    let long = "red mug ".repeat(8);
    let error = encoder.captions(&[long.trim()]).unwrap_err();
    assert!(matches!(error, InferenceError::PhraseTooLong { tokens: 19, limit: 16, .. }), "{error}");
}
