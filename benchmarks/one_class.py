"""Measures one-class anomaly detection: a VAE that has seen one digit tells it from the others.

    python benchmarks/one_class.py       # a minute or two

Trains VariationalAutoEncoder_tf2.py ten times for a few epochs, each time on the training images of
one digit, and scores all test images: how far is an image from its reconstruction, the decoded
z_mean? Prints the area under the ROC curve (ROC AUC) of this score and of the distance to the
nearest training images, for each digit, alongside published results. Writes one_class.json to
work/.
"""

import argparse
import functools
import json

import numpy as np
from models import load_digits
from run import VAE, WORK, load
from scipy.ndimage import gaussian_filter
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

vae_script = load(VAE)
vae_script.tf.get_logger().setLevel("ERROR")  # it warns of new datasets

DIGITS = range(10)
LATENT_DIM = 10
LEARNING_RATE = 1e-3  # lower than in the script, because an epoch has few steps
BATCH_SIZE = 64
SEED = 0
BLUR = 1.0  # standard deviation in pixels
NEIGHBOURS = 5
OURS, BASELINE = "ours", "measured here"
RUFF = "Ruff et al. 2018 (second-hand), table 1, https://proceedings.mlr.press/v80/ruff18a.html"
PUBLISHED = [  # method, source, mean ROC AUC of the ten digits in percent
    ("Deep SVDD", RUFF, "94.8"),
    ("one-class SVM", RUFF, "91.3"),
]


def blurred(images):
    """Return images (n, height, width, 1), blurred."""
    return gaussian_filter(images, (0, BLUR, BLUR, 0))


def squared_error(images, others):
    """Return the squared error of each image (n,)."""
    return np.sum((images - others) ** 2, axis=(1, 2, 3))


def ink(images):
    """Return the sum of the pixels of each image (n,), at least 1."""
    return np.maximum(images.sum(axis=(1, 2, 3)), 1)


def to_bytes(images):
    return np.uint8(np.rint(255 * images))


def train_vae(vae, weights, images, steps, epochs):
    """Train a VAE from given weights on float images (n, 28, 28, 1) in [0, 1].

    To use one model again takes less time than to build ten. `steps` are those of an epoch.
    """
    vae.set_weights(weights)
    for variable in vae.optimizer.variables:
        variable.assign(vae_script.tf.zeros_like(variable))
    batches = vae_script.train_batches(to_bytes(images), BATCH_SIZE, SEED, 0, epochs)
    batches = batches.map(functools.partial(vae_script.vae_batch, latent_dim=LATENT_DIM))
    vae.fit(batches, epochs=epochs, steps_per_epoch=steps, shuffle=False, verbose=0)


def reconstructions(vae, images):
    """Return images from the codes z_mean of images."""
    parts = []
    for start in range(0, len(images), 500):
        z_mean, _ = vae.encoder(images[start : start + 500])
        parts.append(vae_script.tf.sigmoid(vae.decoder_logits(z_mean)))
    return np.concatenate(parts)


def neighbour_distances(train, test):
    """Return the mean distance (n,) of test images to their nearest training images."""
    neighbours = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(train.reshape(len(train), -1))
    return neighbours.kneighbors(test.reshape(len(test), -1))[0].mean(axis=1)


def unit_length(images):
    """Return images divided by the root of the sum of their squared pixels."""
    length = np.sqrt(np.sum(images**2, axis=(1, 2, 3), keepdims=True))
    return images / np.maximum(length, 1e-6)


def scores_of(vae, train, test):
    """Return {(method, whose): scores (n,)} of test images: high where they are unlike `train`.

    The blur forgives strokes that are off by a pixel. The error grows with the ink of an image, so
    without the division a thin 1 is a good example of every digit.
    """
    restored = reconstructions(vae, test)
    error = squared_error(test, restored)
    blurred_error = squared_error(blurred(test), blurred(restored))
    plain_distance = neighbour_distances(train, test)
    angle = neighbour_distances(unit_length(train), unit_length(test))
    blurred_angle = neighbour_distances(unit_length(blurred(train)), unit_length(blurred(test)))
    neighbours = f"{NEIGHBOURS} nearest neighbours"
    return {
        ("VAE, squared error, blurred, divided by ink", OURS): blurred_error / ink(test),
        ("VAE, squared error divided by ink", OURS): error / ink(test),
        ("VAE, squared error", OURS): error,
        (f"{neighbours}, blurred images of unit length", BASELINE): blurred_angle,
        (f"{neighbours}, images of unit length", BASELINE): angle,
        (neighbours, BASELINE): plain_distance,
    }


def print_table(rows):
    """Print the table in Markdown: means, then each digit; in percent."""
    digits = " | ".join(str(digit) for digit in DIGITS)
    print(f"\n| score | from | mean ROC AUC, % | {digits} |")
    print("| --- | --- |" + " --- |" * (1 + len(DIGITS)))
    for row in rows:
        of_digits = " | ".join(f"{100 * auc:.1f}" for auc in row["auc"])
        mean = f"**{100 * np.mean(row['auc']):.1f}**"
        print(f"| {row['score']} | {row['from']} | {mean} | {of_digits} |")
    for method, source, mean in PUBLISHED:
        print(f"| {method} | {source} | {mean} |" + "  |" * len(DIGITS))


def main(options):
    train, train_labels, test, test_labels = load_digits()
    fewest = min(np.sum(train_labels == digit) for digit in DIGITS)
    steps = fewest // BATCH_SIZE
    found = {}
    with vae_script.global_settings(SEED, bfloat16=False):
        rate = vae_script.learning_rate(LEARNING_RATE, options.epochs * steps)
        vae = vae_script.build_vae(to_bytes(train[:fewest]), LATENT_DIM, 1.0, rate)
        weights = vae.get_weights()
        for digit in DIGITS:
            chosen = train[train_labels == digit]
            print(f"digit {digit}: {len(chosen):,} training images", flush=True)
            train_vae(vae, weights, chosen, steps, options.epochs)
            for key, scores in scores_of(vae, chosen, test).items():
                found.setdefault(key, []).append(roc_auc_score(test_labels != digit, scores))
    rows = [{"score": score, "from": whose, "auc": auc} for (score, whose), auc in found.items()]
    print_table(rows)
    (WORK / "one_class.json").write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=3, help="passes over the images of a digit")
    main(parser.parse_args())
