# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = [
#     "tensorflow==2.21.*", "keras==3.15.*", "numpy>=2,<3", "matplotlib>=3.10,<4",
#     "scikit-learn>=1.6,<2",
# ]
# ///
"""Find unusual images with both models, and measure how well that works.

    python examples/odd_ones_out.py

Each image gets scores, higher for odder ones: the VAE's negative ELBO and negative IWAE bound in
nats, and the denoiser's mean squared error. Draws the 40 oddest test digits beside 40 typical
ones, and prints a table of how well the scores tell test digits from other images: digits turned by
90 degrees, digits mirrored, Fashion-MNIST if Keras has it in its cache, and noise.
"""

import argparse
import os
import sys
from pathlib import Path

MODELS = ("vae/encoder.keras", "vae/decoder.keras", "denoiser/model.keras")


def parse_options():
    """Return the options of the command line; a wrong one or a missing model ends the script."""
    about, command, *_ = __doc__.split("\n\n")
    parser = argparse.ArgumentParser(
        description=about, epilog=f"example: {command.strip()}", allow_abbrev=False
    )
    parser.error = lambda message: fail(f"{message}; see --help")
    add = parser.add_argument
    add("--limit", type=int, default=2000, metavar="N",
        help="test digits to use, 200 to 10,000 (default: 2,000)")  # fmt: skip
    add("--model-dir", type=Path, default=Path("models"), metavar="DIR",
        help="folder of denoiser/ and vae/ (default: models)")  # fmt: skip
    add("--images-dir", type=Path, default=Path("images"), metavar="DIR",
        help="folder for the picture (default: images)")  # fmt: skip
    options = parser.parse_args()
    if not 200 <= options.limit <= 10000:
        fail(f"--limit {options.limit}: accepted: 200 to 10,000")
    for path in (options.model_dir / name for name in MODELS):
        if not path.is_file():
            fail(f"{path} does not exist; train both models first, or give --model-dir")
    return options


def fail(message):
    """End the script with one line about a user error."""
    print("error:", " ".join(str(message).split()), file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    OPTIONS = parse_options()  # before the slow imports, so that --help and mistakes answer at once
os.environ["KERAS_BACKEND"] = "tensorflow"
try:
    import keras
    import numpy as np
    from matplotlib.figure import Figure
    from sklearn.decomposition import PCA
    from sklearn.ensemble import IsolationForest
    from sklearn.metrics import average_precision_score, roc_auc_score
    from sklearn.neighbors import NearestNeighbors
except ImportError as error:
    fail(f"{error}; pip install -r examples/requirements.txt")

DATA = Path(__file__).resolve().parent.parent / "data/mnist.npz"
SAMPLES = 50  # of z, for the IWAE bound
BOUND = f"VAE, IWAE bound, K = {SAMPLES}"


def load(path):
    """Return the model of a file."""
    try:
        return keras.models.load_model(path, compile=False)
    except (OSError, ValueError) as error:
        fail(f"{path} cannot be opened: {error}")


# ---- Scores --------------------------------------------------------------------------------------


def vae_scores(encoder, decoder, images):
    """Return the negative ELBO and the negative IWAE bound, each (n,), in nats.

    Burda et al., Importance Weighted Autoencoders, 2016, https://arxiv.org/abs/1509.00519; with one
    draw of z, the same mean of log p(x|z) + log p(z) - log q(z|x) is the ELBO.
    """
    z_mean, z_log_sigma = encoder.predict(images, batch_size=500, verbose=0)
    draw, log_w = np.random.default_rng(0), []
    for _ in range(SAMPLES):
        epsilon = draw.normal(size=z_mean.shape)
        z = z_mean + np.exp(z_log_sigma) * epsilon
        p = np.clip(decoder.predict(z, batch_size=500, verbose=0), 1e-7, 1 - 1e-7)
        log_p = np.sum(images * np.log(p) + (1 - images) * np.log(1 - p), axis=(1, 2, 3))
        log_w.append(log_p + np.sum((epsilon**2 - z**2) / 2 + z_log_sigma, axis=1))
    bound = np.logaddexp.reduce(log_w) - np.log(SAMPLES)
    return -np.mean(log_w, axis=0), -bound


def denoiser_score(denoiser, images):
    """Return the mean squared error (n,) of denoising the images with noise of 0.5."""
    noise = 0.5 * np.random.default_rng(0).normal(size=images.shape)
    noisy = np.clip(images + noise, 0, 1)
    denoised = denoiser.predict(noisy, batch_size=500, verbose=0)
    return np.mean((denoised - images) ** 2, axis=(1, 2, 3))


def baselines(train):
    """Return {name: function from images to scores}, each fitted to training images."""
    pixels = train.reshape(len(train), -1)
    pca = PCA(50, random_state=0).fit(pixels)
    forest = IsolationForest(random_state=0).fit(pixels)
    neighbours = NearestNeighbors(n_neighbors=5).fit(pixels)
    return {
        "PCA, 50 components": lambda x: np.mean(
            (pca.inverse_transform(pca.transform(x)) - x) ** 2, axis=1
        ),
        "isolation forest": lambda x: -forest.score_samples(x),
        "k-nearest neighbours, k = 5": lambda x: neighbours.kneighbors(x)[0].mean(axis=1),
    }


def all_scores(models, fitted, images):
    """Return {name: scores (n,)} of images (n, 28, 28, 1) in [0, 1]."""
    encoder, decoder, denoiser = models
    elbo, bound = vae_scores(encoder, decoder, images)
    scores = {"VAE, negative ELBO": elbo, BOUND: bound}
    scores["denoiser, squared error"] = denoiser_score(denoiser, images)
    pixels = images.reshape(len(images), -1)
    return scores | {name: score(pixels) for name, score in fitted.items()}


# ---- Other images --------------------------------------------------------------------------------


def other_images(digits):
    """Return {name: images (n, 28, 28, 1)} of other kinds than the digits (n, 28, 28, 1)."""
    order = np.random.default_rng(0)
    others = {
        "turned by 90 degrees": np.rot90(digits, axes=(1, 2)),
        "mirrored": digits[:, :, ::-1],
        "noise of the same histogram": order.permuted(digits.ravel()).reshape(digits.shape),
    }
    home = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras"))
    if (home / "datasets/fashion-mnist").is_dir():
        clothes = keras.datasets.fashion_mnist.load_data()[1][0][: len(digits)]
        others["Fashion-MNIST"] = np.float32(clothes[..., np.newaxis] / 255)
    else:
        print("Fashion-MNIST skipped: it is not in Keras's cache")
    return others


def detection(usual, odd):
    """Return ROC AUC, average precision, and false positives at 95 % recall of odd images."""
    truth = np.repeat([0, 1], [len(usual), len(odd)])
    scores = np.concatenate([usual, odd])
    threshold = np.quantile(odd, 0.05, method="lower")  # 95 % of the odd images are not below it
    false_positives = np.mean(usual >= threshold)
    return roc_auc_score(truth, scores), average_precision_score(truth, scores), false_positives


# ---- Picture and main ----------------------------------------------------------------------------


def plot(path, digits, labels, scores):
    """Draw the 40 oddest digits, and 40 from the middle of the scores, with their labels."""
    order = np.argsort(-scores)
    middle = len(order) // 2
    figure = Figure(figsize=(11, 5), layout="constrained")
    figure.suptitle(f"The first {len(digits):,} test digits by negative IWAE bound, K = {SAMPLES}")
    halves = figure.subfigures(1, 2)
    for half, title, chosen in (
        (halves[0], "The 40 least likely", order[:40]),
        (halves[1], "40 from the middle", order[middle : middle + 40]),
    ):
        half.suptitle(f"{title}: {scores[chosen].min():.0f} to {scores[chosen].max():.0f} nats")
        for axes, index in zip(half.subplots(5, 8).ravel(), chosen, strict=True):
            axes.imshow(digits[index], cmap="gray", vmin=0, vmax=1)
            axes.set_title(labels[index], fontsize=9, pad=2)
            axes.axis("off")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    print(f"wrote {path}")


def main(options):
    models = [load(options.model_dir / name) for name in MODELS]
    arrays = np.load(DATA)
    digits = np.float32(arrays["x_test"][: options.limit, ..., np.newaxis] / 255)
    fitted = baselines(np.float32(arrays["x_train"][:10000] / 255))
    usual, others = all_scores(models, fitted, digits), other_images(digits)
    print("| odd images | score | ROC AUC | average precision | false positives at 95 % recall |")
    print("| --- | --- | --- | --- | --- |")
    for kind, images in others.items():
        for name, scores in all_scores(models, fitted, np.ascontiguousarray(images)).items():
            area, precision, wrong = detection(usual[name], scores)
            print(f"| {kind} | {name} | {area:.3f} | {precision:.3f} | {100 * wrong:.1f} % |")
    plot(options.images_dir / "odd_ones_out.png", digits, arrays["y_test"], usual[BOUND])


if __name__ == "__main__":
    main(OPTIONS)
