"""Find pictures that are unlike those on which a VAE was trained, and show where.

Train on ordinary pictures first, then score others, which are not among them:

    python examples/prepare_data.py ordinary --output ordinary.npz --size 64
    python VariationalAutoEncoder_tf2.py --data ordinary.npz --latent-dim 16 --model-dir out
    python examples/find_anomalies.py new --output anomalies --model-dir out

Each picture has a score, the negative ELBO minus the entropy of its pixels, in nats, which is high
for unknown shapes and for noise; and a brightness, the mean of its pixels. Usual ranges of both are
measured on the validation images, and leave out a share of --false-alarms. A picture has a
deviation above 1 if its score or its brightness is outside its range, on either side. Writes
anomalies.csv, sorted by deviation, and anomalies.png: the twenty most deviant pictures, each with
its reconstruction and a map of the squared error. docs/anomaly-detection.md says what it finds, and
what it misses.
"""

import csv
import json
import sys
import zlib
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

from pictures import fail

parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
parser.error = fail
parser.add_argument("path", type=Path, help="picture, folder of pictures, or .npz file")
parser.add_argument("--output", type=Path, required=True, help="folder for the two files")
parser.add_argument("--force", action="store_true", help="overwrite the two files")
parser.add_argument("--model-dir", type=Path, default="models/vae", help="default: models/vae")
text = "share of ordinary pictures outside the usual ranges (default: 0.01)"
parser.add_argument("--false-alarms", type=float, default=0.01, help=text)
parser.add_argument("--range", type=float, nargs=2, help="values that become black and white")
parser.add_argument("--skip-unreadable", action="store_true", help="leave out damaged pictures")
if __name__ == "__main__":
    options = parser.parse_args()  # before the slow import of Keras
    if not 0 < options.false_alarms < 1:
        fail(f"--false-alarms must be above 0 and below 1, found {options.false_alarms}")
    for name in ("anomalies.csv", "anomalies.png"):
        if (options.output / name).exists() and not options.force:
            fail(f"{options.output / name} exists; --force overwrites it")

import numpy as np
from encode_pictures import load_model, read_images
from matplotlib import colormaps
from matplotlib.figure import Figure

sys.path.append(str(Path(__file__).resolve().parent.parent))
import VariationalAutoEncoder_tf2 as vae

SAMPLES = 10  # of z for each image
SHOWN = 20


def images_of_training(folder):
    """Return the images, uint8, on which the VAE in a folder was trained and validated."""
    try:
        metrics = json.loads((folder / "metrics.json").read_text())
        data = metrics["data"]
        arrays = vae.load_arrays(data)
        train, validation, *_ = vae.split_images(arrays, data, metrics["limit"])
        checksum = metrics["settings"]["validation images (CRC-32)"]
    except (KeyError, vae.InputError) as error:
        fail(f"{folder} must have a metrics.json that names the images of the training: {error}")
    if str(zlib.crc32(validation)) != checksum:
        fail(f"{data} must have the images of the training of {folder}, found others")
    return train, validation


def measure(encoder, decoder, images):
    """Return scores and brightness (n,) of images, and the images decoded from z_mean.

    The negative ELBO, a mean over draws of z, is -log p(x|z) plus the KL. Grayscale pixels have an
    entropy, below which -log p(x|z) cannot be; without it, a picture of much gray would score high.
    """
    z_mean, z_log_sigma = encoder.predict(images, batch_size=100, verbose=0)
    score = np.sum((z_mean**2 + np.exp(2 * z_log_sigma)) / 2 - z_log_sigma - 0.5, axis=1)
    draw = np.random.default_rng(0)
    x = np.clip(images, 1e-6, 1 - 1e-6)
    for _ in range(SAMPLES):
        z = z_mean + np.exp(z_log_sigma) * draw.normal(size=z_mean.shape)
        p = np.clip(decoder.predict(z, batch_size=100, verbose=0), 1e-6, 1 - 1e-6)
        excess = x * np.log(x / p) + (1 - x) * np.log((1 - x) / (1 - p))
        score += excess.sum(axis=(1, 2, 3)) / SAMPLES
    decoded = decoder.predict(z_mean, batch_size=100, verbose=0)
    return score, images.mean(axis=(1, 2, 3)), decoded


def deviations(name, values, usual, false_alarms):
    """Return deviations (n,): 0 at the median of usual values, -1 and 1 at their ends."""
    low, median, high = np.quantile(usual, [false_alarms / 2, 0.5, 1 - false_alarms / 2])
    print(f"usual {name}: {low:.4g} to {high:.4g}, of {len(usual):,} validation images")
    scale = np.where(values > median, high - median, median - low)
    return (values - median) / np.maximum(scale, 1e-6)


def combined(of_score, of_brightness):
    """Return one deviation (n,) for the order of pictures: inside the ranges, that of the score."""
    others = np.maximum(-of_score, np.abs(of_brightness))  # a low score, or a brightness
    return np.where(others > 1, np.maximum(of_score, others), of_score)


def write_csv(path, rows):
    """Write a table, whole or not at all."""
    unfinished = path.with_name(f".{path.name}")
    utf8 = {"encoding": "utf-8-sig", "errors": "backslashreplace"}  # for spreadsheets
    with unfinished.open("w", newline="", **utf8) as file:
        csv.writer(file).writerows(rows)
    unfinished.replace(path)


def draw_anomalies(path, titles, images, decoded, brightest):
    """Draw images (n, height, width, channels), their reconstructions and maps of the error."""
    errors = np.mean((images - decoded) ** 2, axis=3)
    maps = colormaps["inferno"](errors / brightest)[..., :3]  # (n, height, width, 3)
    rgb = [np.broadcast_to(each, maps.shape) for each in (images, decoded, maps)]
    figure = Figure(figsize=(13, 8), layout="constrained", facecolor="0.9")
    figure.suptitle("Deviation and name; picture, reconstruction and squared error")
    plots = figure.subplots(5, 4).ravel()
    for axes in plots:
        axes.set_axis_off()
    for axes, title, *tiles in zip(plots, titles, *rgb, strict=False):
        axes.imshow(np.concatenate(tiles, axis=1))
        axes.set_title(title, fontsize=9)
    unfinished = path.with_name(f".{path.name}")
    figure.savefig(unfinished, dpi=100)
    unfinished.replace(path)


def main(options):
    train, validation = images_of_training(options.model_dir)
    encoder = load_model(options.model_dir / "encoder.keras")
    decoder = load_model(options.model_dir / "decoder.keras")
    names, _, images = read_images(options.path, encoder.input_shape[1:], options)
    usual_images = validation / np.float32(255)
    usual_scores, usual_brightness, usual_decoded = measure(encoder, decoder, usual_images)
    scores, brightness, decoded = measure(encoder, decoder, images)
    share = options.false_alarms / 2  # half of them for each of the two
    deviation = combined(
        deviations("score", scores, usual_scores, share),
        deviations("brightness", brightness, usual_brightness, share),
    )
    if len(usual_images) * share < 2:
        print("these are about minimum and maximum: with more validation images, ranges are better")
    known = {image.tobytes() for image in train}
    trained = [np.uint8(np.rint(255 * image)).tobytes() in known for image in images]
    if any(trained):
        print(f"warning: {sum(trained):,} pictures were trained on, which lowers their scores")

    order = np.argsort(-deviation)
    rows = [("name", "deviation", "score in nats", "brightness", "anomaly", "was trained on")]
    for i in order:
        values = f"{deviation[i]:.3f}", f"{scores[i]:.2f}", f"{brightness[i]:.4f}"
        rows.append((names[i], *values, deviation[i] > 1, trained[i]))
    options.output.mkdir(parents=True, exist_ok=True)
    write_csv(options.output / "anomalies.csv", rows)
    worst = order[:SHOWN]
    titles = [f"{deviation[i]:.2f}  {names[i][-30:]}" for i in worst]
    brightest = np.quantile(np.mean((usual_images - usual_decoded) ** 2, axis=3), 0.999)
    path = options.output / "anomalies.png"
    draw_anomalies(path, titles, images[worst], decoded[worst], brightest)
    count = np.sum(deviation > 1)
    print(f"{count:,} of {len(names):,} are anomalies, the first of them here; see {path}")
    for title in titles[:count]:
        print(f"  {title}")


if __name__ == "__main__":
    try:
        main(options)
    except OSError as error:
        fail(error)
