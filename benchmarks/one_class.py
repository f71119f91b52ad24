"""Measures one-class anomaly detection: a VAE that has seen one digit tells it from the others.

    python benchmarks/run.py one-class

Trains the VAE ten times for a few epochs, each time on the training images of one digit, and scores
all test images: how far is an image from its reconstruction, the decoded z_mean? Nearest neighbours
are measured alongside.
"""

import numpy as np
import results
from results import ROOT, VAE
from scipy.ndimage import gaussian_filter
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from training import WORK, load_digits, load_vae, train

DIGITS = range(10)
TRAINING = ["--latent-dim", "10", "--epochs", "3", "--learning-rate", "0.001"]  # few steps
NEIGHBOURS = 5


def blurred(images):
    """Return images (n, height, width, 1), blurred by a pixel."""
    return gaussian_filter(images, (0, 1, 1, 0))


def squared_error(images, others):
    """Return the squared error of each image (n,)."""
    return np.sum((images - others) ** 2, axis=(1, 2, 3))


def ink(images):
    """Return the sum of the pixels of each image (n,), at least 1."""
    return np.maximum(images.sum(axis=(1, 2, 3)), 1)


def unit_length(images):
    """Return images as rows, divided by the root of the sum of their squared pixels."""
    rows = images.reshape(len(images), -1)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)


def scores_of_vae(encoder, decoder, images):
    """Return {method: scores (n,)} of images: high where a VAE cannot reconstruct them.

    The blur forgives strokes that are off by a pixel. The error grows with the ink of an image, so
    without the division a thin 1 is a good example of every digit.
    """
    z_mean, _ = encoder.predict(images, batch_size=500, verbose=0)
    restored = decoder.predict(z_mean, batch_size=500, verbose=0)
    blurred_error = squared_error(blurred(images), blurred(restored))
    return {
        "squared error": squared_error(images, restored),
        "squared error, blurred, divided by ink": blurred_error / ink(images),
    }


def scores_of_neighbours(ordinary, images):
    """Return {method: scores (n,)} of images: the mean distance to the nearest ordinary ones."""
    rows = {"distance": [each.reshape(len(each), -1) for each in (ordinary, images)]}
    rows["distance, blurred, of unit length"] = [
        unit_length(blurred(each)) for each in (ordinary, images)
    ]
    found = {}
    for method, (train_rows, test_rows) in rows.items():
        neighbours = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(train_rows)
        found[method] = neighbours.kneighbors(test_rows)[0].mean(axis=1)
    return found


def measure_all(_):
    x_train, y_train, x_test, y_test = load_digits()
    for digit in DIGITS:
        key = {"part": "one-class", "data": f"digit {digit}"}
        if results.find(**key, program=VAE, case="squared error"):
            continue
        ordinary = x_train[y_train == digit]
        path = WORK / f"digit-{digit}.npz"
        np.savez(path, x_train=np.uint8(np.rint(255 * ordinary)))
        folder, _ = train(VAE, 0, ["--data", str(path.relative_to(ROOT)), *TRAINING])
        scores = {VAE: scores_of_vae(*load_vae(folder), x_test)}
        scores[f"{NEIGHBOURS} nearest neighbours"] = scores_of_neighbours(ordinary, x_test)
        for program, of_program in scores.items():
            for method, values in of_program.items():
                auc = float(roc_auc_score(y_test != digit, values))
                results.keep(VAE, {"auc": auc}, **key, program=program, case=method)
