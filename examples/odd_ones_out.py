# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = [
#     "tensorflow==2.21.*", "keras==3.15.*", "numpy>=2,<3", "matplotlib>=3.10,<4",
#     "scikit-learn>=1.6,<2", "pillow>=11", "tqdm>=4.66,<5", "tifffile>=2025.1.10",
#     "imagecodecs>=2025.3.30",
# ]
# ///
"""Find unusual images with both models, and measure how well that works.

    python examples/odd_ones_out.py

Each image gets scores, higher for odder ones: the VAE's negative ELBO and negative IWAE bound in
nats, and the denoiser's mean squared error. Draws odd_ones_out.png, the 40 oddest test digits
beside 40 typical ones, and prints a table of how well the scores tell test digits from other
images: digits turned by 90 degrees, digits mirrored, Fashion-MNIST if Keras has it in its cache,
and noise.

With images of your own, it writes odd_ones_out.csv, the negative IWAE bound of each, and marks
those above a threshold, from the images that the VAE was validated on, and not trained on:

    python examples/odd_ones_out.py --data new.npz --model-dir out --false-alarms 0.01
    python examples/odd_ones_out.py --pictures photos --model-dir out
"""

import csv
import json
import os
import zlib
from pathlib import Path

import common

parser = common.Parser(__doc__)
parser.add_integer("--limit", 200, 10000, 2000, "test digits to use")
own = parser.add_mutually_exclusive_group()
own.add_argument("--data", type=common.existing, metavar="FILE", help="score these images")
own.add_argument("--pictures", type=common.existing, metavar="DIR", help="score these pictures")
text = "share of usual images above the threshold (default: 0.01)"
parser.add_argument("--false-alarms", type=float, default=0.01, metavar="SHARE", help=text)
parser.add_range()
parser.add_skip_unreadable()
parser.add_model_dir("models")
parser.add_images_dir()


def vae_folder(options):
    """Return the folder of the VAE: --model-dir itself, or its subfolder vae."""
    subfolder = options.model_dir / "vae"
    return subfolder if subfolder.is_dir() else options.model_dir


if __name__ == "__main__":
    options = parser.parse_args()  # before the slow imports: --help and mistakes answer at once
    if not 0 < options.false_alarms < 1:
        common.fail(f"--false-alarms {options.false_alarms}: accepted: between 0 and 1")
    common.need_models(vae_folder(options), ("encoder.keras", "decoder.keras"))
    if options.data or options.pictures:
        common.need_models(vae_folder(options), ("metrics.json",))
    else:
        common.need_models(options.model_dir, ("denoiser/model.keras",))
with common.quiet_imports():
    import keras
    import numpy as np
    import pictures
    from matplotlib.figure import Figure
    from sklearn.decomposition import PCA
    from sklearn.ensemble import IsolationForest
    from sklearn.metrics import average_precision_score, roc_auc_score
    from sklearn.neighbors import NearestNeighbors

SAMPLES = 50  # of z, for the IWAE bound
NOISE = 0.5  # standard deviation of what the denoiser gets, as in training
BOUND = f"VAE, IWAE bound, K = {SAMPLES}"


def vae_scores(encoder, decoder, images):
    """Return the negative ELBO and the negative IWAE bound, each (n,), in nats.

    Burda et al., Importance Weighted Autoencoders, 2016, https://arxiv.org/abs/1509.00519; with one
    draw of z, the same mean of log p(x|z) + log p(z) - log q(z|x) is the ELBO.
    """
    z_mean, z_log_sigma = encoder.predict(images, batch_size=500, verbose=0)
    draw = np.random.default_rng(0)
    log_w = []
    for _ in range(SAMPLES):
        epsilon = draw.normal(size=z_mean.shape)
        z = z_mean + np.exp(z_log_sigma) * epsilon
        p = np.clip(decoder.predict(z, batch_size=500, verbose=0), 1e-7, 1 - 1e-7)
        log_p = np.sum(images * np.log(p) + (1 - images) * np.log(1 - p), axis=(1, 2, 3))
        log_w.append(log_p + np.sum((epsilon**2 - z**2) / 2 + z_log_sigma, axis=1))
    bound = np.logaddexp.reduce(log_w) - np.log(SAMPLES)
    return -np.mean(log_w, axis=0), -bound


class Scores:
    """The scores of two models, and of three baselines fitted to training images (n, 28, 28, 1)."""

    def __init__(self, encoder, decoder, denoiser, train):
        self.encoder, self.decoder, self.denoiser = encoder, decoder, denoiser
        pixels = train.reshape(len(train), -1)
        self.pca = PCA(50, random_state=0).fit(pixels)
        self.forest = IsolationForest(random_state=0).fit(pixels)
        self.neighbours = NearestNeighbors(n_neighbors=5).fit(pixels)

    def of(self, images):
        """Return {name: scores (n,)} of images (n, 28, 28, 1) in [0, 1]."""
        pixels = images.reshape(len(images), -1)
        elbo, bound = vae_scores(self.encoder, self.decoder, images)
        noise = NOISE * np.random.default_rng(0).normal(size=images.shape)
        noisy = np.clip(images + noise, 0, 1)
        denoised = self.denoiser.predict(noisy, batch_size=500, verbose=0)
        restored = self.pca.inverse_transform(self.pca.transform(pixels))
        distances, _ = self.neighbours.kneighbors(pixels)
        return {
            "VAE, negative ELBO": elbo,
            BOUND: bound,
            "denoiser, squared error": np.mean((denoised - images) ** 2, axis=(1, 2, 3)),
            "PCA, 50 components": np.mean((restored - pixels) ** 2, axis=1),
            "isolation forest": -self.forest.score_samples(pixels),
            "k-nearest neighbours, k = 5": distances.mean(axis=1),
        }


def other_images(digits):
    """Return {name: images (n, 28, 28, 1)} of other kinds than the digits (n, 28, 28, 1)."""
    draw = np.random.default_rng(0)
    others = {
        "turned by 90 degrees": np.rot90(digits, axes=(1, 2)),
        "mirrored": digits[:, :, ::-1],
        "noise of the same histogram": draw.permuted(digits.ravel()).reshape(digits.shape),
    }
    home = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras"))
    if (home / "datasets/fashion-mnist").is_dir():
        _, (clothes, _) = keras.datasets.fashion_mnist.load_data()
        others["Fashion-MNIST"] = np.float32(clothes[: len(digits), ..., np.newaxis] / 255)
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


def draw_digits(path, digits, labels, scores):
    """Draw the 40 oddest digits, and 40 from the middle of the scores, with their labels."""
    order = np.argsort(-scores)
    middle = len(order) // 2
    chosen = {"The 40 least likely": order[:40], "40 from the middle": order[middle : middle + 40]}
    figure = Figure(figsize=(11, 5), layout="constrained")
    figure.suptitle(f"The first {len(digits):,} test digits by negative IWAE bound, K = {SAMPLES}")
    for half, (title, indices) in zip(figure.subfigures(1, 2), chosen.items(), strict=True):
        half.suptitle(f"{title}: {scores[indices].min():.0f} to {scores[indices].max():.0f} nats")
        for axes, index in zip(half.subplots(5, 8).ravel(), indices, strict=True):
            axes.imshow(digits[index], cmap="gray", vmin=0, vmax=1)
            axes.set_title(labels[index], fontsize=9, pad=2)
            axes.axis("off")
    with common.new_file(path) as unfinished:
        figure.savefig(unfinished, dpi=100)


def validation_images(folder):
    """Return the images in [0, 1] that the VAE in a folder was validated on."""
    metrics = json.loads((folder / "metrics.json").read_text())
    data = metrics["data"]
    script = common.import_script()
    try:
        arrays = script.load_arrays(data)
        _, validation, *_ = script.split_images(arrays, data, metrics["limit"])
    except script.InputError as error:
        common.fail(f"the images that the VAE was trained on: {error}")
    then = metrics.get("settings", {}).get("validation images (CRC-32)")
    if str(zlib.crc32(validation)) != then:
        common.fail(f"{data} must be as it was when the VAE was trained, found other images")
    return np.float32(validation) / 255


def own_images(options, shape):
    """Yield (name, image (*shape) in [0, 1]) of the user's file or pictures."""
    if options.pictures:
        paths = pictures.find_pictures(options.pictures)
        if not paths:
            common.fail(f"{options.pictures} has no pictures")
        folder = vae_folder(options)
        yield from pictures.read_resized_pictures(paths, shape, folder, options).items()
        return
    for part in common.image_parts(options.data):
        images, _ = common.read_images(options.data, part, shape)
        yield from zip(common.image_names(options.data, part, len(images)), images, strict=True)


def score_own_images(options):
    """Write odd_ones_out.csv: name, score in nats, and whether the image is odd."""
    folder = vae_folder(options)
    encoder = common.load_model(folder / "encoder.keras")
    decoder = common.load_model(folder / "decoder.keras")
    shape = encoder.input_shape[1:]
    names, images = zip(*own_images(options, shape), strict=True)
    usual = validation_images(folder)
    _, usual_scores = vae_scores(encoder, decoder, usual)
    threshold = np.quantile(usual_scores, 1 - options.false_alarms, method="higher")
    _, scores = vae_scores(encoder, decoder, np.stack(images))
    odd = scores > threshold
    text = f"threshold: {threshold:.2f} nats, from {len(usual):,} validation images"
    print(f"{text}; above it: {odd.sum():,} of {len(odd):,} images")
    if len(usual) * options.false_alarms < 1:
        print("that is their greatest score: for so few false alarms there are too few of them")
    path = options.images_dir / "odd_ones_out.csv"
    # Names of files that are not UTF-8 are written with backslashes.
    text_file = {"newline": "", "encoding": "utf-8", "errors": "backslashreplace"}
    with common.new_file(path) as unfinished, unfinished.open("w", **text_file) as file:
        writer = csv.writer(file)
        writer.writerow(["image", "negative IWAE bound, nats", "odd"])
        for row in zip(names, np.round(scores, 4), odd, strict=True):
            writer.writerow(row)


def main(options):
    if options.data or options.pictures:
        score_own_images(options)
        return
    encoder = common.load_model(options.model_dir / "vae/encoder.keras")
    decoder = common.load_model(options.model_dir / "vae/decoder.keras")
    denoiser = common.load_grey_model(options.model_dir / "denoiser/model.keras")
    train, _ = common.read_images(common.MNIST, "train", encoder.input_shape[1:])
    digits, labels = common.read_images(common.MNIST, "test", encoder.input_shape[1:])
    digits = digits[: options.limit]
    scores = Scores(encoder, decoder, denoiser, train[:10000])
    usual = scores.of(digits)
    others = other_images(digits)
    print("| odd images | score | ROC AUC | average precision | false positives at 95 % recall |")
    print("| --- | --- | --- | --- | --- |")
    for kind, images in others.items():
        for name, odd in scores.of(np.ascontiguousarray(images)).items():
            area, precision, wrong = detection(usual[name], odd)
            print(f"| {kind} | {name} | {area:.3f} | {precision:.3f} | {100 * wrong:.1f} % |")
    draw_digits(options.images_dir / "odd_ones_out.png", digits, labels, usual[BOUND])


if __name__ == "__main__":
    main(options)
