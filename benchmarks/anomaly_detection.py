"""Measures how well scores of both models tell test digits from other images.

    python benchmarks/anomaly_detection.py       # two minutes, once the models are trained

The models are those of default runs; those that are not in work/ are trained first. Prints the
ROC AUC, the average precision, and FPR@95: the share of digits that are falsely flagged at the
threshold that finds 95% of the anomalies. Writes anomaly_detection.json to work/.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import keras
import numpy as np
from models import load_digits, trained
from run import DENOISER, HERE, VAE, WORK
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.neighbors import NearestNeighbors

sys.path.append(str(HERE.parent / "examples"))
from find_anomalies import combined, deviations, measure

NOISE = 0.5  # standard deviation of what the denoiser gets, as in training
FALSE_ALARMS = 0.01  # as by default in find_anomalies.py


class Scores:
    """The scores of two models, and of three baselines fitted to training images (n, 28, 28, 1)."""

    def __init__(self, train, validation):
        self.encoder = keras.models.load_model(trained(VAE) / "encoder.keras")
        self.decoder = keras.models.load_model(trained(VAE) / "decoder.keras")
        self.denoiser = keras.models.load_model(trained(DENOISER) / "model.keras")
        self.usual = measure(self.encoder, self.decoder, validation)[:2]
        pixels = train.reshape(len(train), -1)
        self.pca = PCA(50, random_state=0).fit(pixels)
        self.forest = IsolationForest(random_state=0).fit(pixels)
        self.neighbours = NearestNeighbors(n_neighbors=5).fit(pixels)

    def of(self, images):
        """Return {name: scores (n,)} of images (n, 28, 28, 1) in [0, 1]."""
        pixels = images.reshape(len(images), -1)
        score, brightness, _ = measure(self.encoder, self.decoder, images)
        x = np.clip(pixels, 1e-6, 1 - 1e-6)
        entropy = -np.sum(x * np.log(x) + (1 - x) * np.log(1 - x), axis=1)
        both = zip(("score", "brightness"), (score, brightness), self.usual, strict=True)
        far = [deviations(*each, FALSE_ALARMS / 2) for each in both]
        noise = NOISE * np.random.default_rng(0).normal(size=images.shape)
        noisy = np.clip(images + noise, 0, 1)
        denoised = self.denoiser.predict(noisy, batch_size=500, verbose=0)
        restored = self.pca.inverse_transform(self.pca.transform(pixels))
        distances, _ = self.neighbours.kneighbors(pixels)
        return {
            "VAE, negative ELBO": score + entropy,
            "VAE, negative ELBO less the entropy": score,
            "VAE, deviation of find_anomalies.py": combined(*far),
            "denoiser, squared error": np.mean((denoised - images) ** 2, axis=(1, 2, 3)),
            "PCA, 50 components": np.mean((restored - pixels) ** 2, axis=1),
            "isolation forest": -self.forest.score_samples(pixels),
            "k-nearest neighbours, k = 5": distances.mean(axis=1),
        }


def other_images(digits):
    """Return {name: images (n, 28, 28, 1)} of other kinds than the digits (n, 28, 28, 1)."""
    draw = np.random.default_rng(0)
    others = {
        "rotated by 90 degrees": np.rot90(digits, axes=(1, 2)),
        "flipped left to right": digits[:, :, ::-1],
        "globally shuffled pixels": draw.permuted(digits.ravel()).reshape(digits.shape),
        "inverted": 1 - digits,
        "blank": np.zeros_like(digits),
    }
    home = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras"))
    if (home / "datasets/fashion-mnist").is_dir():
        _, (clothes, _) = keras.datasets.fashion_mnist.load_data()
        others["Fashion-MNIST"] = np.float32(clothes[: len(digits), ..., np.newaxis] / 255)
    else:
        print("Fashion-MNIST skipped: it is not in Keras's cache")
    return others


def detection(usual, anomalous):
    """Return ROC AUC, average precision, and the false positive rate at a recall of 95%."""
    truth = np.repeat([0, 1], [len(usual), len(anomalous)])
    scores = np.concatenate([usual, anomalous])
    threshold = np.quantile(anomalous, 0.05, method="lower")  # 95% are not below it
    false_positives = np.mean(usual >= threshold)
    return roc_auc_score(truth, scores), average_precision_score(truth, scores), false_positives


def main(options):
    train, _, digits, _ = load_digits()
    digits = digits[: options.limit]
    scores = Scores(train[:10000], train[-5000:])
    usual = scores.of(digits)
    rows = []
    for kind, images in other_images(digits).items():
        for name, anomalous in scores.of(np.ascontiguousarray(images)).items():
            rows.append([kind, name, *map(float, detection(usual[name], anomalous))])
    print("\n| anomalies | score | ROC AUC | average precision | FPR@95 |")
    print("| --- | --- | --- | --- | --- |")
    for kind, name, area, precision, wrong in rows:
        print(f"| {kind} | {name} | {area:.3f} | {precision:.3f} | {wrong:.1%} |")
    (WORK / "anomaly_detection.json").write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit", type=int, default=2000, help="the first N test digits")
    main(parser.parse_args())
