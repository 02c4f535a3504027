#!/usr/bin/env python3
"""Makes tests/golden/tiny/{ram,blip} and proposers.{json,png}: small taggers and captioners with random weights, and what
PyTorch and Transformers make of one picture with them. tests/proposers_golden.rs has its expectations from here.

ram    a random network with RAM++'s contract: image f32[b,3,384,384] -> logits f32[b,C], a threshold for each tag. The
       picture is prepared by torchvision's transforms, as RAM's own `get_transform` composes them.
blip   a random BlipForConditionalGeneration in two files; captions and their probabilities are those of Transformers'
       own `generate`, greedy and by nucleus sampling. The decoder comes with and without an encoder_attention_mask.

Run:  python tests/golden/make_proposer_golden.py     (needs torch, torchvision, transformers, onnx, numpy and pillow)
Deterministic for given versions, which proposers.json records.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path

import numpy as np
import PIL
import torch
import torchvision
import transformers
from PIL import Image
from torchvision import transforms
from transformers import BertTokenizerFast, BlipConfig, BlipForConditionalGeneration
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

HERE = Path(__file__).resolve().parent
RAM, BLIP = HERE / "tiny" / "ram", HERE / "tiny" / "blip"
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
TAGS = ["traffic cone", "tree", "road", "sky", "dog", "a/c unit", "person", "bench", "grass", "house", "kite", "cloud"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused0]"]
WORDS = (
    "a picture of the red blue dog cat ##s arm ##chair traffic cone on in and with bench park . , tea ##pot road sky man "
    "bowl soup tree green table ##cloth wooden ##spoon sitting near two three boat"
).split()
SIDE, NEW_TOKENS = 48, 12


def picture() -> Image.Image:
    """Blobs, edges and fine stripes; lossless on disk, so that only the resizing is under test."""
    y, x = np.mgrid[0:70, 0:110].astype(np.float64)
    image = np.stack([255 * x / 109, 127 + 127 * np.sin(x * y / 90), 255 * np.exp(-((x - 40) ** 2 + (y - 30) ** 2) / 300)], -1)
    image[(x // 6 + y // 9) % 4 == 0] *= 0.3
    return Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def manifest(folder: Path, kind: str, description: str, files: dict[str, str], rest: str) -> None:
    lines = [
        f'name = "tiny-{folder.name}"', f'kind = "{kind}"', 'licence = "Apache-2.0"',
        'source = "tests/golden/make_proposer_golden.py"', f'description = "{description}"', "", "[files]",
    ]
    for role, name in files.items():
        digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        lines.append(f'{role} = {{ path = "{name}", sha256 = "{digest}" }}')
    write(folder / "bundle.toml", "\n".join(lines) + "\n\n" + rest)


def export(model, inputs, path: Path, names, outputs, axes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.eval(), inputs, str(path), input_names=names, output_names=outputs, dynamic_axes=axes, opset_version=17,
            dynamo=False,
        )


class TinyRam(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.patches = torch.nn.Conv2d(3, 8, 24, 24)
        self.head = torch.nn.Linear(8, len(TAGS))

    def forward(self, image):
        return 6 * self.head(torch.tanh(self.patches(image)).mean((2, 3)))


def ram(image: Image.Image) -> dict:
    torch.manual_seed(20)
    model = TinyRam().eval()
    export(model, (torch.zeros(1, 3, 384, 384),), RAM / "tagger.onnx", ["image"], ["logits"], {"image": {0: "b"}, "logits": {0: "b"}})
    prepare = transforms.Compose(
        [transforms.Resize((384, 384)), transforms.ToTensor(), transforms.Normalize(mean=MEAN, std=STD)]
    )
    with torch.no_grad():
        probabilities = torch.sigmoid(model(prepare(image)[None]))[0].numpy()
    # Thresholds on both sides of the probabilities, not close to any.
    thresholds = [round(float(np.clip(p + (0.05 if at % 3 == 0 else -0.1), 0, 1)), 3) for at, p in enumerate(probabilities)]
    write(RAM / "labels.txt", "\n".join(TAGS) + "\n")
    write(RAM / "thresholds.txt", "\n".join(map(str, thresholds)) + "\n")
    manifest(
        RAM, "ram", "RAM++'s contract with random weights; for tests.",
        {"tagger": "tagger.onnx", "labels": "labels.txt", "thresholds": "thresholds.txt"},
        f"[preprocessing]\nmean = {MEAN}\nstd = {STD}\n",
    )
    given = [(TAGS[at], float(p)) for at, p in enumerate(probabilities) if p > thresholds[at]]
    return {"probabilities": probabilities.tolist(), "tags": sorted(given, key=lambda tag: -tag[1])}


class Visual(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.vision_model = model.vision_model

    def forward(self, pixel_values):
        return self.vision_model(pixel_values)[0]


class Textual(torch.nn.Module):
    def __init__(self, model, masked: bool):
        super().__init__()
        self.text_decoder, self.masked = model.text_decoder, masked

    def forward(self, input_ids, attention_mask, encoder_hidden_states, encoder_attention_mask):
        if self.masked:
            # Transformers does not look at the mask; with this it is an input of the file, as in older exports.
            encoder_hidden_states = encoder_hidden_states * encoder_attention_mask[..., None].float()
        return self.text_decoder(
            input_ids=input_ids, attention_mask=attention_mask, encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask, use_cache=False,
        ).logits


def tiny_blip(tokens: int) -> BlipForConditionalGeneration:
    torch.manual_seed(13)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    # As in BLIP's own files: [DEC] and [ENC] are no tokens of the tokenizer's list.
    text = shape | {
        "vocab_size": tokens + 2, "encoder_hidden_size": 32, "max_position_embeddings": 64, "bos_token_id": tokens,
        "eos_token_id": SPECIAL.index("[SEP]"), "sep_token_id": SPECIAL.index("[SEP]"), "pad_token_id": 0,
    }
    config = BlipConfig(text_config=text, vision_config=shape | {"image_size": SIDE, "patch_size": 16})
    config._attn_implementation = "eager"
    model = BlipForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.25)
        # Special tokens never, except the end now and then.
        bias = model.text_decoder.cls.predictions.bias
        bias[: len(SPECIAL)] = -20
        bias[SPECIAL.index("[SEP]")] = 1.2
        bias[[at for at, piece in enumerate(SPECIAL + WORDS) if piece.startswith("##")]] = 0.5
        bias[-2:] = -20
    return model


def blip(image: Image.Image) -> dict:
    vocabulary = SPECIAL + WORDS
    write(BLIP / "vocab.txt", "\n".join(vocabulary) + "\n")
    tokenizer = BertTokenizerFast(vocab={word: at for at, word in enumerate(vocabulary)}, do_lower_case=True)
    model = tiny_blip(len(vocabulary))
    pixels = torch.from_numpy(np.asarray(BlipImageProcessorPil(size={"height": SIDE, "width": SIDE})(image, return_tensors="np")["pixel_values"]))
    with torch.no_grad():
        states = model.vision_model(pixels)[0]
    export(
        Visual(model), (pixels,), BLIP / "visual_encoder.onnx", ["pixel_values"], ["image_embeds"],
        {"pixel_values": {0: "b"}, "image_embeds": {0: "b"}},
    )
    prompt = tokenizer("a picture of", return_tensors="pt")
    ids = prompt.input_ids[:, :-1].clone()
    ids[:, 0] = len(vocabulary)
    names = ["input_ids", "attention_mask", "encoder_hidden_states", "encoder_attention_mask"]
    example = (ids, torch.ones_like(ids), states, torch.ones(states.shape[:2], dtype=torch.long))
    axes = {name: {0: "b", 1: "S" if name.startswith("encoder") else "T"} for name in names}
    for masked, name in ((True, "textual_decoder.onnx"), (False, "textual_decoder_without_mask.onnx")):
        export(Textual(model, masked), example, BLIP / name, names, ["logits"], axes | {"logits": {0: "b", 1: "T"}})
    processor = BlipImageProcessorPil()
    manifest(
        BLIP, "blip", "BLIP's contract with random weights; for tests.",
        {"visual_encoder": "visual_encoder.onnx", "textual_decoder": "textual_decoder.onnx", "tokenizer": "vocab.txt"},
        f"[preprocessing]\nmean = {list(processor.image_mean)}\nstd = {list(processor.image_std)}\n\n"
        f"[text]\nmax_tokens = {ids.shape[1] + NEW_TOKENS}\n\n"
        f"[caption]\nstart_token = {len(vocabulary)}\nend_token = {SPECIAL.index('[SEP]')}\n",
    )

    def written(**how) -> dict:
        out = model.generate(
            pixel_values=pixels, input_ids=prompt.input_ids.clone(), attention_mask=prompt.attention_mask,
            max_new_tokens=NEW_TOKENS, return_dict_in_generate=True, output_logits=True, output_scores=True, **how,
        )
        tokens = out.sequences[0, ids.shape[1] :].tolist()
        steps = []
        for token, logits, scores in zip(tokens, out.logits, out.scores):
            shares = torch.softmax(scores[0].double(), -1)
            kept = torch.nonzero(torch.isfinite(scores[0])).flatten().tolist()
            steps.append({
                "token": token,
                "probability": float(torch.softmax(logits[0].double(), -1)[token]),
                "nucleus": sorted(([t, float(shares[t])] for t in kept), key=lambda pair: -pair[1]),
            })
        return {"text": tokenizer.decode(tokens, skip_special_tokens=True), "steps": steps}

    sampled = []
    for seed in range(4):
        torch.manual_seed(seed)
        sampled.append(written(do_sample=True, top_p=0.8, temperature=0.7, top_k=0))
    greedy = written(do_sample=False)
    for step in greedy["steps"]:
        del step["nucleus"]
    return {
        "prompt": ids[0].tolist(), "states": states[0].flatten().tolist()[:8], "greedy": greedy,
        "sampled": sampled, "top_p": 0.8, "temperature": 0.7,
    }


def main() -> None:
    image = picture()
    image.save(HERE / "proposers.png")
    versions = {module.__name__: module.__version__ for module in (PIL, torch, torchvision, transformers, np)}
    content = {"versions": versions, "ram": ram(image), "blip": blip(image)}
    (HERE / "proposers.json").write_text(json.dumps(content, separators=(",", ":")).replace("]],", "]],\n") + "\n")


if __name__ == "__main__":
    main()
