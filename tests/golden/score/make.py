"""Writes score.json: label images and what scikit-learn says about them.

The frames follow the rules of `src/replay/score.rs`: 255 in the truth is ignored, true classes outside the
frame's vocabulary count as unlabelled. Needs numpy and scikit-learn; run from this folder.
"""

import json

import numpy as np
from sklearn.metrics import confusion_matrix, jaccard_score

TRUE_NAMES = {1: "mug", 2: "chair", 3: "armchair", 7: "traffic cone"}
PREDICTED_NAMES = {0: "chair", 4: "mug", 5: "traffic cone", 6: "lamp"}
CLASSES = ["", "armchair", "chair", "lamp", "mug", "traffic cone"]
VOCABULARIES = [["mug", "chair", "lamp"], ["mug", "chair", "armchair", "lamp"], ["mug", "chair", "traffic cone"]]
WIDTH, HEIGHT = 24, 18

rng = np.random.default_rng(7)


def blocks(values):
    """A label image of random 3x2 blocks, so that runs of equal pairs occur."""
    small = rng.choice(values, size=(HEIGHT // 2, WIDTH // 3))
    return np.kron(small, np.ones((2, 3), dtype=np.int64)).astype(int)


frames, all_true, all_predicted = [], [], []
for vocabulary in VOCABULARIES:
    truth = blocks([0, 1, 2, 3, 7, 255])
    to_predicted = {0: 255, 1: 4, 2: 0, 3: 255, 7: 5, 255: 6}
    right = np.vectorize(to_predicted.get)(truth)
    predicted = np.where(rng.random(truth.shape) < 0.6, right, blocks([0, 4, 5, 6, 255]))
    frames.append(
        {"vocabulary": vocabulary, "truth": truth.ravel().tolist(), "predicted": predicted.ravel().tolist()}
    )
    names_true = [TRUE_NAMES.get(v, "") for v in truth.ravel()]
    names_true = [n if n in vocabulary else "" for n in names_true]
    keep = truth.ravel() != 255
    all_true += [n for n, k in zip(names_true, keep) if k]
    all_predicted += [PREDICTED_NAMES.get(v, "") for v, k in zip(predicted.ravel(), keep) if k]

matrix = confusion_matrix(all_true, all_predicted, labels=CLASSES)
seen = sorted(set(all_true) - {""})
iou = jaccard_score(all_true, all_predicted, labels=seen, average=None)
with open("score.json", "w") as file:
    json.dump(
        {
            "true_names": TRUE_NAMES,
            "predicted_names": PREDICTED_NAMES,
            "ignore": 255,
            "frames": frames,
            "classes": CLASSES,
            "confusion_matrix": matrix.tolist(),
            "iou": dict(zip(seen, iou.tolist())),
            "mean_iou": float(jaccard_score(all_true, all_predicted, labels=seen, average="macro")),
        },
        file,
    )
