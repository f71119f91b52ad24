# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = [
#     "tensorflow==2.21.*", "keras>=3.15.1,<4", "numpy>=2,<3", "matplotlib>=3.10,<4", "pillow>=11",
# ]
# ///
"""Variational autoencoder (VAE): images to points of a plane, and points of the plane to images.

    python VariationalAutoEncoder_tf2.py     # train on MNIST, evaluate, draw
    python VariationalAutoEncoder_tf2.py --limit 5000 --epochs 5 --model-dir try --images-dir try
    python VariationalAutoEncoder_tf2.py --data fashion_mnist --model-dir out --images-dir out
    python VariationalAutoEncoder_tf2.py --latent-dim 10 --model-dir out10 --images-dir out10

The encoder gives a normal distribution over the latent space for each image x, with mean z_mean and
standard deviation exp(z_log_sigma); the decoder gives a probability for each pixel at each point z:

    z = z_mean + exp(z_log_sigma) * epsilon                  with epsilon ~ N(0, I)
    loss = -log p(x|z) + beta * KL(N(z_mean, exp(z_log_sigma)^2) || N(0, I))

With beta = 1 the loss is the negative ELBO, on average an upper bound on -log p(x), in nats.
Kingma & Welling, Auto-Encoding Variational Bayes, 2014, https://arxiv.org/abs/1312.6114
"""

import argparse
import contextlib
import hashlib
import importlib.util
import io
import json
import math
import os
import platform
import shlex
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

# ---- Settings and command line -------------------------------------------------------------------


def commands():
    """Return the commands of this script and their options, for `parse_command_line`."""
    seed = ("--seed", within(int, 0, 2**31 - 1), 0, "decides weights, data order and every draw")
    models = ("--model-dir", Path, Path("models/vae"), "folder for the models and the records")
    skip = ("--skip-unreadable", bool, False, "leave out pictures that cannot be read")
    force = ("--force", bool, False, "overwrite files that are there")
    training = [
        ("--epochs", within(int, 1, 10**6), 10, "passes over the training images"),
        ("--batch-size", within(int, 1, 10**6), 64, "images in a training step"),
        ("--learning-rate", within(float, 1e-9, 10), 4e-3, "peak of Adam's rate (a warm cosine)"),
        ("--latent-dim", within(int, 2, 1000), 2, "dimensions of z"),
        ("--beta", within(float, 0, 1e6), 1.0, "weight of the KL term in the loss"),
        ("--importance-samples", within(int, 1, 10**5), 50, "draws of z for a test image's p(x)"),
    ]
    generating = [
        ("--count", within(int, 1, 10**6), 16, "number of pictures"),
        ("--output", Path, ..., "folder for the pictures"),
    ]
    encoding = [
        ("path", Path, ..., "a picture, a folder of pictures, or an .npz file"),
        ("--output", Path, ..., "the .npz file to write"),
    ]
    return {
        "train": ("train, evaluate and draw (the default)", [*training, seed, models, skip]),
        "generate": ("write new pictures", [*generating, seed, models, force]),
        "encode": ("write the codes of pictures", [*encoding, models, skip, force]),
    }


# ---- Model ---------------------------------------------------------------------------------------

RELU = {"activation": "relu", "kernel_initializer": "he_normal"}  # He et al. 2015


def halvings(shape):
    """Return how often to halve the sides of images (height, width, channels): to 8 or less."""
    return max(2, math.ceil(math.log2(max(shape[:2]) / 8)))


def build_encoder(shape, latent_dim):
    """Return a model from images (n, *shape) to [z_mean, z_log_sigma], each (n, latent_dim)."""
    x = image = keras.Input(shape, name="image")  # (n, 28, 28, 1)
    for level in range(halvings(shape) + 1):  # to (n, 4, 4, 128)
        filters = min(32 * 2**level, 128)
        x = layers.Conv2D(filters, 3, strides=2, padding="same", **RELU)(x)
    x = layers.Flatten()(x)
    for units in (256, 128):
        x = layers.ReLU()(layers.LayerNormalization()(layers.Dense(units)(x)))
    z_mean = layers.Dense(latent_dim, dtype="float32", name="z_mean")(x)
    narrow = keras.initializers.Constant(-2)  # a z near z_mean at first: the decoder learns sooner
    settings = {"bias_initializer": narrow, "dtype": "float32"}
    z_log_sigma = layers.Dense(latent_dim, **settings, name="z_log_sigma")(x)
    return keras.Model(image, [z_mean, z_log_sigma], name="encoder")


def build_decoder(shape, latent_dim):
    """Return a model from points z (n, latent_dim) to the logits of the pixels (n, *shape).

    Most of its weights stand near the plane, where a layer costs least and bends the plane most. It
    begins with random Fourier features, without which a network learns a finely divided plane only
    slowly: Tancik et al. 2020, https://arxiv.org/abs/2006.10739. Here they are trained, too.
    """
    doublings = halvings(shape)
    height, width = (math.ceil(side / 2**doublings) for side in shape[:2])  # 7, 7
    z = keras.Input((latent_dim,), name="z")
    # In radians per unit of z; in more dimensions, fine waves would drown in the width of q(z|x).
    stddev = max(0.25, 4 * (2 / latent_dim) ** 1.5)
    frequencies = keras.initializers.RandomNormal(stddev=stddev)
    phases = keras.initializers.RandomUniform(-math.pi, math.pi)
    settings = {"kernel_initializer": frequencies, "bias_initializer": phases, "dtype": "float32"}
    x = keras.ops.sin(layers.Dense(512, **settings)(z))
    for _ in range(2):
        x = layers.Dense(512, **RELU)(x)
    x = layers.Dense(height * width * 32, **RELU)(x)
    x = layers.Reshape((height, width, 32))(x)
    for _ in range(doublings - 1):  # to (n, 14, 14, 16)
        x = layers.Conv2DTranspose(16, 3, strides=2, padding="same", **RELU)(x)
    dark = keras.initializers.Constant(-2)  # p = 0.12 for every pixel at first
    last = {"padding": "same", "bias_initializer": dark, "dtype": "float32"}
    x = layers.Conv2DTranspose(shape[2], 3, strides=2, **last)(x)  # (n, 28, 28, 1)
    surplus = ((0, x.shape[1] - shape[0]), (0, x.shape[2] - shape[1]))
    x = layers.Cropping2D(surplus, dtype="float32")(x)
    return keras.Model(z, x, name="decoder_logits")


# ---- Loss ----------------------------------------------------------------------------------------


def bernoulli_negative_log_likelihood(images, logits):
    """Return -log p(x|z) in nats, summed over pixels, for independent Bernoulli pixels.

    With p = sigmoid(logit), x log p + (1 - x) log(1 - p) = x * logit - softplus(logit). A grey x in
    [0, 1] counts as the mean of its random binarization to 0 and 1.

    Args:
        images: (..., height, width, channels), in [0, 1].
        logits: of the same shape, or one that broadcasts with it.
    """
    return tf.reduce_sum(tf.nn.softplus(logits) - images * logits, axis=(-3, -2, -1))


def kl_to_standard_normal(z_mean, z_log_sigma):
    """Return KL(N(z_mean, exp(z_log_sigma)^2) || N(0, I)) in nats, summed over the last axis.

    Kingma & Welling 2014, appendix B, with log sigma in place of log sigma^2.
    """
    terms = z_mean**2 + tf.exp(2 * z_log_sigma) - 2 * z_log_sigma - 1
    return 0.5 * tf.reduce_sum(terms, axis=-1)


def log_normal_density(x, mean=0.0, log_sigma=0.0):
    """Return log N(x; mean, exp(log_sigma)^2) in nats, summed over the last axis."""
    terms = ((x - mean) * tf.exp(-log_sigma)) ** 2 + 2 * log_sigma + math.log(2 * math.pi)
    return -0.5 * tf.reduce_sum(terms, axis=-1)


# ---- Training ------------------------------------------------------------------------------------


def build_vae(encoder, decoder, beta=1.0):
    """Return a model that trains an encoder and a decoder by the loss at the top of the file.

    `fit` and `evaluate` take batches (images, epsilon, weights) with epsilon (n, latent_dim) from
    N(0, I), so whoever makes the batches decides every draw. They report means in nats.
    """

    def losses_of(images, epsilon, training):
        z_mean, z_log_sigma = encoder(images, training=training)
        z = z_mean + tf.exp(z_log_sigma) * epsilon
        logits = decoder(z, training=training)
        reconstruction = bernoulli_negative_log_likelihood(images, logits)
        kl = kl_to_standard_normal(z_mean, z_log_sigma)
        return reconstruction + beta * kl, reconstruction, kl

    return Trainer([encoder, decoder], losses_of, ("loss", "reconstruction", "kl"))


def with_epsilon(latent_dim):
    """Return a function that pairs images with their epsilon, drawn from a stateless seed (2,)."""

    def pair(images, seed):
        return images, tf.random.stateless_normal((tf.shape(images)[0], latent_dim), seed)

    return pair


# ---- Evaluation ----------------------------------------------------------------------------------


def evaluate(vae, images, options):
    """Return the ELBO, its parts, and an estimate of log p(x): means over uint8 images, in nats.

    With w = p(x|z) p(z) / q(z|x) at draws of z from the encoder's q(z|x), the log of the mean of w
    is on average a lower bound on log p(x): the ELBO with one draw, closer with more. Burda et al.,
    Importance Weighted Autoencoders, 2016, eq. 8, https://arxiv.org/abs/1509.00519
    """
    (encoder, decoder), samples = vae.networks, options.importance_samples

    def with_epsilons(images, seed):
        shape = (samples, tf.shape(images)[0], decoder.input_shape[1])
        epsilon = tf.random.stateless_normal(shape, seed)
        return images, tf.transpose(epsilon, (1, 0, 2))  # (n, samples, latent_dim): devices share n

    def estimates(images, epsilon):
        z_mean, z_log_sigma = encoder(images)  # (n, latent_dim)
        epsilon = tf.transpose(epsilon, (1, 0, 2))
        z = z_mean + tf.exp(z_log_sigma) * epsilon  # (samples, n, latent_dim)
        logits = decoder(tf.reshape(z, (-1, z.shape[-1])))
        logits = tf.reshape(logits, (samples, *tf.unstack(tf.shape(images))))
        reconstruction = bernoulli_negative_log_likelihood(images, logits)  # (samples, n)
        log_q = log_normal_density(z, z_mean, z_log_sigma)
        log_w = log_normal_density(z) - reconstruction - log_q
        return {
            "reconstruction": tf.reduce_mean(reconstruction, axis=0),
            "kl": kl_to_standard_normal(z_mean, z_log_sigma),
            "log_likelihood": tf.reduce_logsumexp(log_w, axis=0) - math.log(samples),
        }

    # As many images at a time as have the pixels of 5,000 digits when decoded, some 200 MB.
    batch_size = max(1, 5000 * 28 * 28 // (samples * math.prod(images.shape[1:])))
    batches = frozen_batches(images, with_epsilons, options.seed, "test", batch_size)
    means = means_over_images(estimates, batches)
    negative_elbo = means["reconstruction"] + means["kl"]
    return {"negative_elbo": negative_elbo, **means, "log_likelihood_samples": samples}


def encode(encoder, images):
    """Return z_mean and z_log_sigma (n, latent_dim) of uint8 images, a batch at a time."""
    parts = [encoder(batch) for batch, _ in frozen_batches(images, lambda *pair: pair, 0, "test")]
    return [np.concatenate(part) for part in zip(*parts, strict=True)]


# ---- Pictures ------------------------------------------------------------------------------------


def plane_of(codes):
    """Return the plane to look at: two directions (2, latent_dim), their names, a note for titles.

    In two dimensions it is all there is; above, the first two principal components of the codes.
    """
    if codes.shape[1] == 2:
        return np.eye(2), ["z[0]", "z[1]"], ""
    centred = codes - codes.mean(axis=0)
    directions = np.linalg.svd(centred.T @ centred)[2][:2]
    names = ["first principal component of z_mean", "second principal component of z_mean"]
    return directions, names, f"\nin the plane of two principal components, of {codes.shape[1]}"


def draw_latent_space(path, codes, labels):
    """Draw codes (n, latent_dim) as points, one colour for each class."""
    directions, names, note = plane_of(codes)
    figure = Figure(figsize=(8, 7), layout="constrained")
    title = f"z_mean of {len(codes):,} test images{note}"
    axes = figure.add_subplot(title=title, xlabel=names[0], ylabel=names[1])
    axes.set_aspect("equal", adjustable="datalim")
    classes = np.unique(labels)
    few, many = matplotlib.colormaps["tab10"].colors, matplotlib.colormaps["gist_rainbow"]
    colours = few if len(classes) <= 10 else many(np.linspace(0, 1, len(classes)))
    for label, colour in zip(classes, colours, strict=False):
        points = codes[labels == label] @ directions.T
        # Matplotlib takes $...$ for a formula, and leaves out a name that begins with "_".
        name = " " + str(label).replace("$", r"\$")
        axes.scatter(*points.T, s=8, color=colour, label=name, linewidths=0)
    if 1 < len(classes) <= 30:
        figure.legend(title="class", loc="outside right center", markerscale=3)
    save_figure(path, figure)


def draw_manifold(path, codes, decoder, side=20):
    """Draw side x side decoded points of the plane, each amid an equal share of the prior."""
    directions, names, note = plane_of(codes)
    quantiles = [statistics.NormalDist().inv_cdf((step + 0.5) / side) for step in range(side)]
    across, up = np.meshgrid(quantiles, quantiles[::-1])  # the first row of tiles is the topmost
    z = np.stack([across, up], axis=-1).reshape(-1, 2) @ directions
    tiles = decoder(tf.constant(z, tf.float32)).numpy()
    figure = Figure(figsize=(8, 8.5), layout="constrained")
    title = f"Decoded points, each for 1/{side**2} of the prior's mass{note}"
    axes = figure.add_subplot(title=title, xlabel=names[0], ylabel=names[1])
    image = mosaic(tiles.reshape(side, side, *tiles.shape[1:]), gap=0)
    settings = {"extent": (0, side, 0, side), "interpolation_stage": "data"}  # takes less memory
    axes.imshow(image, cmap="gray", vmin=0, vmax=1, **settings)
    ticks, texts = np.arange(side) + 0.5, [f"{quantile:.2f}" for quantile in quantiles]
    axes.set_xticks(ticks, texts, rotation=90)
    axes.set_yticks(ticks, texts)
    save_figure(path, figure)


def draw_pictures(options, encoder, decoder, images, labels, history):
    """Draw the five pictures, from the first test images and the history of the training."""
    folder = options.images_dir
    codes = encode(encoder, images[:5000])[0]
    draw_latent_space(folder / "vae_latent_space.png", codes, labels[:5000])
    draw_manifold(folder / "vae_manifold.png", codes, decoder)
    rows = {"test image": to_unit(images[:16]), "decoded": decoder(codes[:16])}
    title = "Test images, and what the decoder makes of their z_mean"
    draw_rows(folder / "vae_reconstructions.png", title, list(rows), list(rows.values()))
    z = tf.random.stateless_normal((5 * 16, codes.shape[1]), stream(options.seed, "samples"))
    samples = tf.reshape(decoder(z), (5, 16, *images.shape[1:]))
    draw_rows(folder / "vae_samples.png", "Decoded draws from the prior", [""] * 5, samples)
    names = {"loss": "loss", "reconstruction": "reconstruction", "kl": "KL to the prior"}
    draw_history(folder / "vae_loss.png", history, names, unit="nats per image")


# ==== The same in both scripts: command line, imports, data, training, files, plots ===============


def within(kind, minimum, maximum):
    """Return a converter of an option's text to a `kind`, int or float, in [minimum, maximum]."""

    def convert(text):
        with contextlib.suppress(ValueError):
            if minimum <= (value := kind(text)) <= maximum:
                return value
        name = "a whole number" if kind is int else "a number"
        raise argparse.ArgumentTypeError(f"'{text}' is not {name} from {minimum} to {maximum}")

    return convert


def data_source(text):
    """Return the text of --data, if there is something of that name."""
    if text in ("mnist", "fashion_mnist") or os.path.exists(text):
        return text
    accepted = "mnist, fashion_mnist, or the path of an .npz file or of a folder of pictures"
    raise argparse.ArgumentTypeError(f"'{text}' does not exist; accepted: {accepted}")


def tensorboard_folder(text):
    """Return the folder of --tensorboard, if its package is there."""
    if importlib.util.find_spec("tensorboard"):
        return Path(text)
    raise argparse.ArgumentTypeError("it needs a package: pip install tensorboard")


def parse_command_line(commands, arguments):
    """Return the options in the words behind the script's name, and in `command` what to do.

    `commands` maps names to (text, options), each option (name, type, default, text): a bool is a
    switch, a default of `...` makes it compulsory. What names no command is for the first, train.
    """
    command = arguments[0] if arguments and arguments[0] in commands else "train"
    texts = [f"{name}: {text}" for name, (text, _) in commands.items()]
    parser = argparse.ArgumentParser(
        prog=f"{Path(__file__).name} {command}",
        description=f"{__doc__.splitlines()[0]} Commands: {'; '.join(texts)}.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.error = lambda message: parser.exit(
        2, f"error: {' '.join(message.split())}; see --help\n"
    )
    training = [
        ("--data", data_source, "mnist", "mnist, fashion_mnist, an .npz file or a picture folder"),
        ("--limit", within(int, 10, 10**9), None, "train on the first so many images only"),
        ("--image-size", within(int, 8, 256), None, "resize images to so many pixels a side"),
        ("--images-dir", Path, Path("images"), "folder for the pictures"),
        ("--resume", bool, False, "go on with the run in --model-dir from its last whole epoch"),
        ("--devices", within(int, 1, 10**6), None, "GPUs of this machine to use, all unless given"),
        ("--mixed-precision", bool, False, "compute in 16 bits where the machine does so natively"),
        ("--tensorboard", tensorboard_folder, None, "folder for what TensorBoard shows"),
    ]
    for name, kind, default, text in commands[command][1] + training * (command == "train"):
        settings = {"action": "store_true"} if kind is bool else {"type": kind, "default": default}
        if default is ...:
            settings = {"type": kind, "required": True}
        if not name.startswith("-"):
            settings = {"type": kind, "nargs": "+" if name.endswith("s") else None}
        parser.add_argument(name, help=text, **settings)
    parser.set_defaults(command=command)
    options = parser.parse_args(arguments[arguments[:1] == [command] :])
    if command == "train":
        try:
            options.workers = number_of_workers(os.environ.get("TF_CONFIG"))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            form = '{"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": .., "index": ..}}'
            text = f"TF_CONFIG={os.environ['TF_CONFIG']}: {type(error).__name__}: {error}"
            parser.error(f"{text}; accepted: {form}")
    return options


def number_of_workers(config):
    """Return of how many machines this is one, by the text of TF_CONFIG."""
    if not config:
        return 1
    config = json.loads(config)
    cluster, kind, index = config["cluster"], config["task"]["type"], int(config["task"]["index"])
    if not set(cluster) <= {"chief", "worker"} or len(cluster.get("chief", [])) > 1:
        raise ValueError("a cluster is of workers, and of one chief at most")
    for hosts in cluster.values():
        if not (isinstance(hosts, list) and all(isinstance(host, str) for host in hosts)):
            raise TypeError(f"{hosts} is not a list of addresses")
    if index not in range(len(cluster[kind])):
        raise IndexError(f"the cluster has no {kind} {index}")
    return sum(map(len, cluster.values()))


# Drops what the native code of TensorFlow writes at every start, whether all is well or not: in a
# process of its own, so that the last words of a crash come through.
CHATTER_FILTER = r"""
import re, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
chatter = re.compile(
    rb"I\d{4} |.*All log messages before absl|To enable the following instructions|"
    rb".*failed call to cuInit|.*Could not find cuda drivers"
)
for line in sys.stdin.buffer:
    if not chatter.match(line):
        sys.stderr.buffer.write(line)
        sys.stderr.buffer.flush()
"""


@contextlib.contextmanager
def without_start_up_chatter():
    """Send what is written to the screen, by native code too, through CHATTER_FILTER."""
    screen = os.dup(2)
    with subprocess.Popen([sys.executable, "-c", CHATTER_FILTER], stdin=subprocess.PIPE) as passing:
        os.dup2(passing.stdin.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(screen, 2)
            os.close(screen)


if __name__ == "__main__":  # --help and mistakes answer before the slow imports
    OPTIONS = parse_command_line(commands(), sys.argv[1:])
    sys.stdout.reconfigure(errors="backslashreplace")  # for names of files in another encoding
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C in the imports needs no traceback

os.environ["KERAS_BACKEND"] = "tensorflow"
several = __name__ == "__main__" and getattr(OPTIONS, "workers", 1) > 1
# Warnings and errors; of several machines fatal ones only, as a lost one is reported in many lines.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3" if several else "1")
with without_start_up_chatter():
    import keras
    import matplotlib
    import numpy as np
    import tensorflow as tf
    from keras import layers
    from matplotlib.figure import Figure
    from PIL import Image, ImageOps

    if __name__ == "__main__" and getattr(OPTIONS, "devices", None):
        gpus = tf.config.list_physical_devices("GPU")
        tf.config.set_visible_devices(gpus[: OPTIONS.devices], "GPU")
    WORKERS = None  # tf.distribute wants the strategy of several machines before all else
    if several:
        try:
            WORKERS = tf.distribute.MultiWorkerMirroredStrategy()
        except tf.errors.OpError as error:  # the port is taken, or nobody else came
            print("error: no cluster:", *str(error).split(), file=sys.stderr)
            sys.exit(2)
    tf.config.list_logical_devices()  # starts the devices, which write lines of their own
matplotlib.rcParams.update({"savefig.dpi": 150, "savefig.bbox": "tight"})

MNIST_SHA256 = "06af5dfe73b70e3bc1c36439982b18a8d76803db9b544f6fdf838a37fbb01b64"
UNPACKED_LIMIT = 4 * 2**30  # bytes that an archive, or the pictures of a folder, may unpack to
PICTURE_LIMIT = 2**26  # pixels of one picture
PICTURE_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".bmp": "BMP", ".gif": "GIF"}
ARRAYS = ("x_train", "y_train", "x_test", "y_test")
ACCEPTED = (
    "accepted: images (n, height, width), or with 1 or 3 channels behind, n from 20 and sides from"
    " 8 to 256, of uint8 or of floats from 0 to 1"
)
PATHS = ("data", "images_dir", "model_dir", "tensorboard")  # options that may differ by machine
STREAMS = ("order", "training", "validation", "test", "samples")  # what random numbers are for
Image.MAX_IMAGE_PIXELS = None  # PICTURE_LIMIT is checked in its place, for an error and no warning


class InputError(ValueError):
    """Something that the user can mend; its text names the value and what is accepted."""


class Interrupted(BaseException):
    """The signal SIGINT or SIGTERM, by its number; no `except Exception` on the way takes it."""


class Images(NamedTuple):
    """Images, uint8 (n, height, width, channels), and the classes of the test images (n,)."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray


def load_images(source, limit=None, image_size=None, skip_unreadable=False):
    """Read a data set and split it.

    The last twelfth of the training images, 5,000 at most, is for validation. Where the source has
    no test images, a tenth of its images, drawn without the seed, is held out for the test first.

    Args:
        source: "mnist", "fashion_mnist", or the path of an .npz file or of a folder of pictures.
        limit: how many training images to keep; of the others, a fifth of that at most.
        image_size: pixels a side to resize to.
        skip_unreadable: leave out pictures that cannot be read.

    Raises:
        InputError: the source is missing, damaged or of another layout.
    """
    arrays = read_arrays(source, image_size, skip_unreadable)
    images, labels = images_and_labels(arrays, "train", source, image_size)
    if len(images) < 20 or min(images.shape[1:3]) < 8 or max(images.shape[1:3]) > 256:
        raise InputError(f"{source}: x_train is of shape {images.shape}; {ACCEPTED}")
    if "x_test" in arrays:
        test, labels = images_and_labels(arrays, "test", source, image_size)
        if test.shape[1:] != images.shape[1:]:
            shapes = f"x_train is of shape {images.shape} and x_test of {test.shape}"
            raise InputError(f"{source}: {shapes}; {ACCEPTED}")
    else:
        order = np.random.default_rng(0).permutation(len(images))  # files come class by class
        held_out, order = np.split(order, [len(images) // 10])
        test, images = images[held_out], images[order]
        labels = None if labels is None else labels[held_out]
    if labels is None:
        labels = np.zeros(len(test), np.uint8)
    train, validation = np.split(images, [-max(1, min(5000, len(images) // 12))])
    fifth = None if limit is None else limit // 5
    return Images(train[:limit], validation[:fifth], test[:fifth], labels[:fifth])


def read_arrays(source, image_size=None, skip_unreadable=False):
    """Return those of the arrays x_train, y_train, x_test, y_test that a data set has."""
    bundled = Path(__file__).resolve().parent / "data" / "mnist.npz"
    path = bundled if source == "mnist" else Path(source)
    if source in ("mnist", "fashion_mnist") and not os.path.isfile(path):
        try:
            train, test = getattr(keras.datasets, source).load_data()
        except Exception as error:  # Keras raises a bare Exception where there is no network
            raise InputError(f"--data {source} cannot be downloaded: {one_line(error)}") from error
        return dict(zip(ARRAYS, (*train, *test), strict=True))
    if os.path.isdir(path):
        return read_folder(path, image_size, skip_unreadable)
    try:
        if path == bundled and hashlib.sha256(path.read_bytes()).hexdigest() != MNIST_SHA256:
            raise ValueError(f"its SHA-256 is not {MNIST_SHA256}")
        check_unpacked_size(path)
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in ARRAYS if name in archive.files}
    except Exception as error:  # zipfile, zlib and NumPy have many ways to call a file damaged
        raise InputError(f"{path} is not a readable .npz file: {one_line(error)}") from error


def check_unpacked_size(path):
    """Raise ValueError for a zip archive that says it unpacks to more than UNPACKED_LIMIT bytes."""
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > UNPACKED_LIMIT:
        raise ValueError(f"it unpacks to {unpacked:,} bytes; accepted: up to {UNPACKED_LIMIT:,}")


def images_and_labels(arrays, part, source, image_size=None):
    """Return the images of a part, "train" or "test", and their labels (n,) or None.

    Images are uint8 (n, height, width, channels).
    """
    name, array, labels = f"x_{part}", arrays.get(f"x_{part}"), arrays.get(f"y_{part}")
    if not isinstance(array, np.ndarray):  # what is not in NumPy's format comes as bytes
        raise InputError(f"{source} has no array {name}; {ACCEPTED}")
    images = np.ascontiguousarray(array[..., np.newaxis] if array.ndim == 3 else array)
    if images.ndim != 4 or images.shape[3] not in (1, 3) or 0 in images.shape:
        raise InputError(f"{source}: {name} is of shape {array.shape}; {ACCEPTED}")
    if images.dtype.kind == "f":
        low, high = images.min(), images.max()
        if not (low >= 0 and high <= 1):  # a NaN fails too
            raise InputError(f"{source}: {name} has values from {low} to {high}; {ACCEPTED}")
        images = np.rint(images * 255).astype(np.uint8)
    if images.dtype != np.uint8:
        raise InputError(f"{source}: {name} is of type {array.dtype}; {ACCEPTED}")
    if labels is not None:
        labels = np.ravel(labels)
        if len(labels) != len(images):
            text = f"{source} has {len(labels)} labels for {len(images)} images of {name}"
            raise InputError(text)
    if image_size:
        shape = (image_size, image_size, images.shape[3])
        images = np.stack([resized(image, *shape) for image in images])
    return images, labels


def resized(image, height, width, channels):
    """Return an image, uint8 (height, width, 1 or 3), with another size and number of channels."""
    if image.shape == (height, width, channels):
        return image
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    picture = picture.convert("L" if channels == 1 else "RGB").resize((width, height))
    return np.asarray(picture).reshape(height, width, channels)


def read_folder(folder, image_size=None, skip_unreadable=False):
    """Return the pictures of a folder as x_train, and the subfolders they are in as y_train."""
    names, images, total = [], [], 0
    for name, image in read_pictures([folder], skip_unreadable):
        sides = (image_size, image_size) if image_size else image.shape[:2]
        images.append(resized(image, *sides, image.shape[2]))
        names.append(str(name.parent))
        if images[-1].shape[:2] != images[0].shape[:2]:
            raise InputError(
                f"{folder / name} is of {image.shape[1]}x{image.shape[0]} pixels, others are of"
                f" {images[0].shape[1]}x{images[0].shape[0]}; accepted: one size, or --image-size"
            )
        if (total := total + images[-1].nbytes) > UNPACKED_LIMIT:
            raise InputError(f"{folder} has pictures of more than {UNPACKED_LIMIT:,} bytes in all")
    if not images:
        raise InputError(f"{folder} has no pictures; accepted: {', '.join(PICTURE_FORMATS)}")
    channels = max(image.shape[2] for image in images)
    images = [np.broadcast_to(image, (*image.shape[:2], channels)) for image in images]
    return {"x_train": np.stack(images), "y_train": np.array(names)}


def read_pictures(paths, skip_unreadable=False):
    """Yield (name, image) of picture files and of those below folders, named from there.

    An image is uint8 (height, width, 1 or 3). What cannot be read raises InputError or is left out.
    """
    for path in map(Path, paths):
        files = [path]
        if os.path.isdir(path):
            folders = os.walk(path, onerror=raise_error)
            files = sorted(Path(folder, name) for folder, _, names in folders for name in names)
            files = [file for file in files if file.suffix.lower() in PICTURE_FORMATS]
        for file in files:
            try:
                yield file.relative_to(path if file != path else path.parent), read_picture(file)
            except InputError as error:
                if not skip_unreadable:
                    raise InputError(f"{error}; --skip-unreadable leaves such files out") from error
                print(f"left out: {error}", file=sys.stderr)


def raise_error(error):
    raise error


def read_picture(path):
    """Return a PNG, JPEG, BMP or GIF file as an image, uint8 (height, width, 1 or 3)."""
    try:
        with (
            warnings.catch_warnings(action="ignore"),  # of odd metadata, which nothing here reads
            Image.open(path, formats=sorted({*PICTURE_FORMATS.values()})) as picture,
        ):
            if picture.width * picture.height > PICTURE_LIMIT:
                raise ValueError(f"it has more than {PICTURE_LIMIT:,} pixels")
            picture = ImageOps.exif_transpose(picture)  # as the camera was held
            if picture.mode.startswith("I"):  # 16 bits, of which convert() would keep the lower 8
                return np.uint8(np.asarray(picture)[..., np.newaxis] // 256)
            mode = "L" if picture.mode in ("1", "L", "LA") else "RGB"
            return np.atleast_3d(np.asarray(picture.convert(mode)))
    except Exception as error:  # Pillow has many ways to call a file damaged
        raise InputError(f"{path} is not a readable picture: {one_line(error)}") from error


def save_pictures(folder, names, images, force):
    """Write images, uint8 (height, width, 1 or 3), as PNG files; without force only new ones."""
    taken = [folder / name for name in names if (folder / name).exists()]
    if taken and not force:
        raise InputError(f"{taken[0]} exists; --force overwrites it")
    for name, image in zip(names, images, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
        save(folder / name, picture.save)


def open_model(path, ranks):
    """Return a model from a .keras file, whose inputs and outputs have so many axes.

    Keras's safe mode refuses code that the file brings along (Lambda layers); nothing of it is run.
    """
    try:
        check_unpacked_size(path)
        model = keras.models.load_model(path, compile=False, safe_mode=True)
        shapes = [tensor.shape for tensor in model.inputs + model.outputs]
        if [len(shape) for shape in shapes] != ranks or None in shapes[0][1:]:
            raise ValueError(f"it is another model, with inputs and outputs of {shapes}")
        return model
    except Exception as error:  # Keras, h5py and zipfile have many ways to call a file damaged
        raise InputError(f"{path} is not a readable model: {one_line(error)}") from error


def one_line(error):
    return " ".join(f"{type(error).__name__}: {error}".split())


def to_unit(images):
    """Return uint8 images as float32 in [0, 1]."""
    return tf.cast(images, tf.float32) / 255


def to_bytes(images):
    """Return images in [0, 1] as uint8."""
    return np.uint8(np.rint(np.asarray(images) * 255))


def stream(seed, name, step=0):
    """Return the seed (2,) of a stateless draw, a function of the arguments alone."""
    return tf.random.fold_in((seed, STREAMS.index(name)), tf.cast(step, tf.int64))


# AutoGraph, which nothing here needs, reads the script again when it first meets a function: a run
# whose script was edited meanwhile would end there.
plain = tf.autograph.experimental.do_not_convert

# There is nothing to tune in these pipelines, and the thread that would do it can hold up their end
# for as long as they have run.
UNTUNED = tf.data.Options()
UNTUNED.autotune.enabled = False


def training_batches(images, prepare, options, first_epoch=0):
    """Return the batches of all epochs: each epoch is a pass over uint8 images in a new order.

    `prepare(images, seed)` makes a batch from float32 images in [0, 1]. The order is a function of
    seed and epoch alone, and a batch's seed of the run's seed and the step.
    """
    stored = tf.constant(images)
    first_step = first_epoch * math.ceil(len(images) / options.batch_size)

    @plain
    def ordered(epoch):
        seed = stream(options.seed, "order", epoch)
        order = tf.random.experimental.stateless_shuffle(tf.range(len(images)), seed)
        return tf.data.Dataset.from_tensor_slices(order).batch(options.batch_size)

    @plain
    def batch(step, indices):
        return prepare(to_unit(tf.gather(stored, indices)), stream(options.seed, "training", step))

    epochs = tf.data.Dataset.range(first_epoch, options.epochs)
    return epochs.flat_map(ordered).enumerate(first_step).map(batch).with_options(UNTUNED)


def frozen_batches(images, prepare, seed, name, batch_size=None):
    """Return batches of uint8 images in their order, the same at every pass; 500 digits or less."""
    batch_size = batch_size or max(1, min(500, 2**22 // math.prod(images.shape[1:])))

    @plain
    def batch(step, images):
        return prepare(to_unit(images), stream(seed, name, step))

    slices = tf.data.Dataset.from_tensor_slices(images).batch(batch_size)
    return slices.enumerate().map(batch).with_options(UNTUNED)


def spread(batches):
    """Return batches with a weight for each image behind, shared among the replicas of a strategy.

    Of a batch, each replica gets as many images: what is missing for that are zeros of weight 0.
    The weights of a batch have the mean 1.
    """
    strategy = tf.distribute.get_strategy()
    replicas = strategy.num_replicas_in_sync

    def of_this_machine(context):
        each = replicas // context.num_input_pipelines
        first = each * context.input_pipeline_id

        @plain
        def own_shares(*batch):
            count = tf.shape(batch[0])[0]
            missing = -count % replicas
            weights = tf.fill([count], tf.cast((count + missing) / count, tf.float32))
            shares = []
            for part in (*batch, weights):
                padded = tf.pad(part, [[0, missing], *[[0, 0]] * (len(part.shape) - 1)])
                by_replica = tf.reshape(padded, (replicas, -1, *part.shape[1:]))
                shares.append(by_replica[first : first + each])
            return tuple(shares)

        return batches.map(own_shares).unbatch().prefetch(4)

    if replicas == 1:
        weighted = plain(lambda *batch: (*batch, tf.ones(tf.shape(batch[0])[0])))
        return batches.map(weighted).prefetch(4)
    return strategy.distribute_datasets_from_function(of_this_machine)


class Trainer(keras.Model):
    """Trains networks by the mean over images of the first of the losses of a batch.

    The steps are our own because those of Keras do not run on several machines.

    Args:
        networks: the models whose weights are trained.
        losses_of: from the parts of a batch and whether it is for training, to tensors (n, ...).
        names: what `fit` calls the means of these losses.
    """

    def __init__(self, networks, losses_of, names):
        super().__init__()
        self.networks, self.losses_of = networks, losses_of
        self.means = [keras.metrics.Mean(name) for name in names]
        self.replicas = tf.distribute.get_strategy().num_replicas_in_sync

    @property
    def metrics(self):
        return self.means

    def _maybe_symbolic_build(self, **about):
        """Leave out what Keras 3.15 does under a strategy: to build from a batch what is built."""

    def updated_means(self, losses, weights):
        for mean, values in zip(self.means, losses, strict=True):
            mean.update_state(values, tf.sign(weights))
        # Of several machines, Keras reduces results over an axis that they have to have:
        axes = [1] if WORKERS else []  # https://github.com/keras-team/keras/issues/20585
        return {mean.name: tf.reshape(mean.result(), axes) for mean in self.means}

    def train_step(self, batch):
        *inputs, weights = batch
        with tf.GradientTape() as tape:
            losses = self.losses_of(*inputs, training=True)
            by_image = tf.reshape(weights, (-1, *[1] * (len(losses[0].shape) - 1)))
            objective = tf.reduce_mean(losses[0] * by_image) / self.replicas
            objective = self.optimizer.scale_loss(objective)  # of 16 bits
        variables = self.trainable_variables
        gradients = tape.gradient(objective, variables)
        if self.replicas > 1 and isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
            # Each replica would decide by its own gradients whether they overflow.
            total = tf.add_n([tf.reduce_sum(gradient) for gradient in gradients])
            total = tf.distribute.get_replica_context().all_reduce("SUM", total)
            lost = tf.where(tf.math.is_finite(total), 0.0, math.nan)
            gradients = [gradient + lost for gradient in gradients]
        self.optimizer.apply(gradients, variables)
        return self.updated_means(losses, weights)

    def test_step(self, batch):
        *inputs, weights = batch
        return self.updated_means(self.losses_of(*inputs, training=False), weights)


def means_over_images(figures, batches):
    """Return the means over images of {name: (n,)} that `figures(*batch)` gives for each batch."""
    strategy = tf.distribute.get_strategy()

    @tf.function(autograph=False)
    def gathered(batch):
        def weighted(*batch):
            *inputs, weights = batch
            return figures(*inputs) | {"weights": weights}

        values = strategy.run(weighted, args=batch)
        return {name: strategy.gather(part, axis=0) for name, part in values.items()}

    parts = [gathered(batch) for batch in spread(batches)]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    whole = columns.pop("weights") > 0
    return {name: float(column[whole].mean(dtype=float)) for name, column in columns.items()}


def train(model, images, prepare, options):
    """Fit a model; return its history, a dictionary of lists by epoch, and the seconds it took."""
    steps = math.ceil(len(images.train) / options.batch_size)
    warm_up = steps * options.epochs // 10
    rate = keras.optimizers.schedules.CosineDecay(  # rises to the peak, then falls to zero
        options.learning_rate / 25,
        decay_steps=steps * options.epochs - warm_up,
        warmup_target=options.learning_rate,
        warmup_steps=warm_up,
    )
    model.compile(keras.optimizers.Adam(rate))
    model.optimizer.build(model.trainable_variables)
    keeper = Keeper(model, images.train, options)
    first_epoch = keeper.restore() if options.resume else keeper.start()
    if WORKERS:
        refuse_differences(keeper.settings, first_epoch)
    validation = frozen_batches(images.validation, prepare, options.seed, "validation")
    callbacks = [keeper]
    if options.tensorboard and is_chief():
        callbacks.append(keras.callbacks.TensorBoard(options.tensorboard, write_graph=False))
    model.fit(
        spread(training_batches(images.train, prepare, options, first_epoch)),
        initial_epoch=first_epoch,
        epochs=options.epochs,
        steps_per_epoch=steps,
        validation_data=spread(validation),
        validation_steps=len(validation),
        shuffle=False,  # the batches are in a drawn order already
        callbacks=callbacks,
        verbose=(1 if sys.stdout.isatty() else 2) if is_chief() else 0,
    )
    return keeper.history, keeper.seconds


class Keeper(keras.callbacks.Callback, tf.train.experimental.PythonState):
    """Saves the state of the run after every epoch, and stops a run whose loss is lost."""

    def __init__(self, model, images, options):
        super().__init__()
        self.history = {}
        self.seconds = 0.0
        ignored = {*PATHS, "command", "resume", "importance_samples", "devices", "workers"}
        self.settings = {k: v for k, v in vars(options).items() if k not in ignored}
        checksum = f"CRC-32 of its training images: {zlib.crc32(images):08x}"
        data = f"{options.data} ({checksum})"
        self.settings["data"] = data  # the last, so that another --limit is named before it
        variables = [variable.value for variable in model.weights + model.optimizer.variables]
        self.checkpoint = tf.train.Checkpoint(record=self, variables=variables)
        self.folder = options.model_dir / "checkpoints"
        if is_chief():
            mend_list_of_checkpoints(self.folder)
        self.checkpoint.save_counter.assign(0)  # makes it, which all workers have to do together
        self.manager = tf.train.CheckpointManager(self.checkpoint, self.folder, max_to_keep=2)

    def serialize(self):
        return json.dumps([self.settings, self.history, self.seconds])

    def deserialize(self, record):
        settings, self.history, self.seconds = json.loads(record)
        self.refuse_changes(settings)

    def start(self):
        """Return the first epoch of a new run, 0; refuse to take the place of an unfinished one."""
        newest, metrics = self.manager.latest_checkpoint, self.folder.parent / "metrics.json"
        since = Path(f"{newest}.index").stat().st_mtime if newest else 0
        if newest and not (metrics.exists() and metrics.stat().st_mtime >= since):
            raise InputError(
                f"{self.folder} holds a run that was stopped after epoch {newest.split('-')[-1]};"
                " accepted: --resume, another --model-dir, or to delete that folder"
            )
        return 0

    def restore(self):
        """Return the epoch to go on with, after the newest checkpoint that is whole."""
        for path in reversed(self.manager.checkpoints):
            try:
                tf.train.Checkpoint(record=self).restore(path).expect_partial()
                self.checkpoint.restore(path).assert_existing_objects_matched()
            except InputError:
                raise
            except Exception as error:  # TensorFlow has many ways to call a file damaged
                damage = f"{path} is damaged: {one_line(error)}"
                print(f"{damage}; trying the one before", file=sys.stderr)
            else:
                done = len(self.history["loss"])
                if is_chief():
                    print(f"resuming after epoch {done} of {self.settings['epochs']}")
                return done
        raise InputError(f"--resume: no readable checkpoint in {self.folder}")

    def refuse_changes(self, settings):
        """Raise InputError where the settings of a checkpoint are not those of this run."""
        for name in settings | self.settings:
            then, now = settings.get(name), self.settings.get(name)
            if then != now:
                option = f"--{name.replace('_', '-')}"
                why = "; the learning rate is planned over all epochs" * (name == "epochs")
                text = f"--resume would make it another run: {option} was {then} and is {now}{why}"
                raise InputError(text)

    def check(self, loss, epoch, step):
        if not math.isfinite(loss):
            raise InputError(
                f"the loss is {loss} in epoch {epoch + 1}, step {step + 1}; try a lower"
                " --learning-rate or a larger --batch-size"
            )

    def on_train_begin(self, logs=None):
        self.since = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.check(logs["loss"], len(self.history.get("loss", [])), batch)

    def on_epoch_end(self, epoch, logs=None):
        self.check(logs["val_loss"], epoch, self.params["steps"] - 1)
        for name, value in logs.items():
            self.history.setdefault(name, []).append(value)
        now = time.perf_counter()
        self.seconds += now - self.since
        self.since = now
        if not is_chief():
            return
        try:
            self.manager.save(checkpoint_number=epoch + 1)
        except tf.errors.OpError as error:
            raise InputError(f"no checkpoint could be written: {one_line(error)}") from error


def mend_list_of_checkpoints(folder):
    """Write TensorFlow's list of the checkpoints in a folder anew, where it is damaged or gone."""
    with contextlib.suppress(ValueError):
        if tf.train.get_checkpoint_state(str(folder)):
            return
    times = {path.stem: path.stat().st_mtime for path in folder.glob("ckpt-*.index")}
    names = sorted(times, key=times.get)
    text = "".join(f'model_checkpoint_path: "{name}"\n' for name in names[-1:])
    for name in names:
        text += f'all_model_checkpoint_paths: "{name}"\n'
        text += f"all_model_checkpoint_timestamps: {times[name]}\n"
    if names:
        save(folder / "checkpoint", lambda path: path.write_text(text))


def refuse_differences(*what):
    """Raise InputError where the workers are not about to do the same."""
    mark = tf.constant([zlib.crc32(repr(what).encode())], tf.int64)
    gather = tf.function(lambda: WORKERS.gather(WORKERS.run(lambda: mark), 0), autograph=False)
    if len(np.unique(gather())) > 1:
        raise InputError(
            "the workers differ in their options, GPUs, data or checkpoints; accepted: the same"
            " command everywhere, and for --resume a --model-dir that all of them share"
        )


def is_chief():
    """Tell whether this is the one of several machines that writes what there is to keep."""
    if not WORKERS:
        return True
    resolver = WORKERS.cluster_resolver
    first = "chief" if "chief" in resolver.cluster_spec().jobs else "worker"
    return (resolver.task_type, resolver.task_id) == (first, 0)


def strategy_of(options):
    """Return the strategy for several machines, for several devices of this one, or Keras's own."""
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    names = WORKERS.extended.worker_devices if WORKERS else [device.name for device in devices]
    if options.devices and options.devices > len(names):
        raise InputError(f"--devices {options.devices}: accepted: up to {len(names)} here")
    if WORKERS:
        return WORKERS
    names = names[: options.devices]
    return tf.distribute.MirroredStrategy(names) if names[1:] else tf.distribute.get_strategy()


def mixed_precision():
    """Return the Keras policy of 16 bits that this machine computes in natively."""
    gpus = tf.config.get_visible_devices("GPU")
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    if gpus and all(gpu.get("compute_capability", (0, 0)) >= (7, 0) for gpu in details):
        return "mixed_float16"
    flags = Path("/proc/cpuinfo")
    if not gpus and flags.exists() and {"avx512_bf16", "amx_bf16"} & {*flags.read_text().split()}:
        return "mixed_bfloat16"
    raise InputError(
        "--mixed-precision: accepted on GPUs of compute capability 7.0 or more and on processors"
        " with AVX512-BF16 or AMX; leave it out here"
    )


@contextlib.contextmanager
def run_folders(options):
    """Make the output folders, and keep other runs out of --model-dir."""
    if options.resume and not any(options.model_dir.glob("checkpoints/*.index")):
        raise InputError(f"--resume: there is no checkpoint in {options.model_dir} to go on from")
    if set("*?[") & set(str(options.model_dir)):
        raise InputError(f"--model-dir {options.model_dir}: TensorFlow takes * ? [ for patterns")
    for folder in filter(None, (options.images_dir, options.tensorboard, options.model_dir)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise InputError(f"cannot write to the folder {folder}: {error.strerror}") from error
    # SQLite's lock on its file is there on every system, and ends with the process, killed or not.
    try:
        lock = sqlite3.connect(options.model_dir / ".lock", timeout=0)
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        busy = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY
        problem = "another run is at work in" if busy else f"no lock ({error}) on"
        raise InputError(f"{problem} {options.model_dir}") from error
    with contextlib.closing(lock):
        yield


@contextlib.contextmanager
def run_scope(options):
    """Plant the seed, set the precision, enter the strategy; the chief holds the folders, too."""
    strategy = strategy_of(options)
    if options.mixed_precision:
        keras.config.set_dtype_policy(mixed_precision())
    if not is_chief():
        print(f"one of {options.workers} workers; figures and files are the chief's", flush=True)
    keras.utils.set_random_seed(options.seed)
    tf.config.experimental.enable_op_determinism()
    with run_folders(options) if is_chief() else contextlib.nullcontext(), strategy.scope():
        if WORKERS:
            same = {k: v for k, v in vars(options).items() if k not in PATHS}
            refuse_differences(same, len(WORKERS.extended.worker_devices))
        yield


def save(path, write):
    """Let `write(scratch)` write a file beside its place, and rename it to `path` once whole."""
    scratch = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        write(scratch)
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)
    print(f"wrote {path}")


def save_records(options, results, history, parameters, train_count, seconds):
    """Write history.csv, a row for each epoch, and metrics.json: results, run and every option."""
    rows = [("epoch", *history), *zip(range(1, options.epochs + 1), *history.values(), strict=True)]
    table = "".join(",".join(map(str, row)) + "\n" for row in rows)
    settings = {k: v for k, v in vars(options).items() if k not in ("command", "resume")}
    run = {
        "parameters": parameters,
        "train_seconds": round(seconds, 2),
        "images_per_second": round(options.epochs * train_count / seconds, 1),
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
    }
    figures = json.dumps(results | settings | run, indent=2, default=str) + "\n"
    save(options.model_dir / "history.csv", lambda path: path.write_text(table))
    save(options.model_dir / "metrics.json", lambda path: path.write_text(figures))


def save_figure(path, figure):
    """Write a figure as a PNG file and, where a writer for TensorBoard is at work, there too."""
    save(path, figure.savefig)
    if tf.summary.should_record_summaries():
        picture = tf.io.decode_png(path.read_bytes(), channels=3)
        tf.summary.image(path.stem, picture[tf.newaxis], step=0)


def picture_writer(options):
    """Return a context manager in which figures go to --tensorboard, too."""
    if not options.tensorboard:
        return contextlib.nullcontext()
    return tf.summary.create_file_writer(str(options.tensorboard / "pictures")).as_default()


def mosaic(tiles, gap=2):
    """Return tiles (rows, columns, height, width, channels) as one image, with white gaps."""
    tiles = np.pad(tiles, [(0, 0), (0, 0), (0, gap), (0, gap), (0, 0)], constant_values=1)
    rows, columns, height, width, channels = tiles.shape
    image = tiles.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, channels)
    return image[: rows * height - gap, : columns * width - gap]


def draw_rows(path, title, names, rows):
    """Draw images in [0, 1], (rows, columns, height, width, channels), with a name for each row."""
    tiles = np.asarray(rows)
    size = (0.7 * tiles.shape[1] + 1, 0.7 * len(tiles) + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot(title=title)
    image = mosaic(tiles)
    axes.imshow(image, cmap="gray", vmin=0, vmax=1)
    axes.set_xticks([])
    axes.set_yticks([(row + 0.5) * len(image) / len(tiles) for row in range(len(tiles))], names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    save_figure(path, figure)


def draw_history(path, history, names, unit):
    """Draw training and validation figures by epoch; `names` maps keys of the history to titles."""
    figure = Figure(figsize=(4.5 * len(names) + 1, 4), layout="constrained")
    for axes, key in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        epochs = range(1, len(history[key]) + 1)
        axes.plot(epochs, history[key], marker=".", label="training")
        axes.plot(epochs, history[f"val_{key}"], marker=".", label="validation")
        axes.set(title=names[key], xlabel="epoch", ylabel=unit)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    save_figure(path, figure)


def exit_status(command, options):
    """Run a command; return 0, 2 after one line about what the user can mend, or 130 and 143."""
    since = time.time()

    def stop(number, frame):
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_DFL)  # a second one ends the run at once
        raise Interrupted(number)  # between two lines of Python, so a running step ends first

    def is_resumable():
        checkpoints = options.model_dir.glob("checkpoints/*.index")
        saved = any(path.stat().st_mtime >= since for path in checkpoints)  # by this run
        return options.command == "train" and (saved or options.resume)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        command(options)
    except (InputError, OSError) as error:
        print("error:", str(error).replace("\n", " "), file=sys.stderr)
        return 2
    except tf.errors.OpError as error:
        if not (WORKERS and "Collective" in str(error)):
            raise
        cause = one_line(error).partition("aborted by: ")[2].partition(". ")[0][:200]
        advice = "start all of them again" + ", with --resume" * is_resumable()
        print(f"error: a worker is lost ({cause}); {advice}", file=sys.stderr)
        return 2
    except Interrupted as signalled:
        words = [sys.executable, *(word for word in sys.argv if word != "--resume"), "--resume"]
        advice = f"; to go on after the last whole epoch: {shlex.join(words)}"
        print(f"\nstopped{advice * is_resumable()}", file=sys.stderr)
        return 128 + signalled.args[0]
    return 0


# ==== End of what is the same in both scripts =====================================================


def train_command(options):
    """Train, evaluate, print the figures; then write the models, the records and the pictures."""
    images = load_images(options.data, options.limit, options.image_size, options.skip_unreadable)
    with run_scope(options):
        shape = images.train.shape[1:]
        encoder = build_encoder(shape, options.latent_dim)
        logits = build_decoder(shape, options.latent_dim)
        vae = build_vae(encoder, logits, options.beta)
        history, seconds = train(vae, images, with_epsilon(options.latent_dim), options)
        results = evaluate(vae, images.test, options)
        if not is_chief():
            return
        print(f"\nmeans over {len(images.test):,} test images, in nats; trained in {seconds:.0f} s")
        for name in ("negative_elbo", "reconstruction", "kl", "log_likelihood"):
            print(f"  {name.replace('_', ' '):<16} {results[name]:9.2f}")
        probabilities = layers.Activation("sigmoid", dtype="float32")(logits.output)
        decoder = keras.Model(logits.input, probabilities, name="decoder")
        save(options.model_dir / "encoder.keras", encoder.save)
        save(options.model_dir / "decoder.keras", decoder.save)
        parameters = encoder.count_params() + logits.count_params()
        save_records(options, results, history, parameters, len(images.train), seconds)
        with picture_writer(options):
            draw_pictures(options, encoder, decoder, images.test, images.test_labels, history)


def generate_command(options):
    """Decode draws from the prior, and write them as PNG files."""
    decoder = open_model(options.model_dir / "decoder.keras", ranks=[2, 4])
    z = tf.random.stateless_normal(
        (options.count, *decoder.input_shape[1:]), stream(options.seed, "samples")
    )
    digits = len(str(options.count))
    images = (to_bytes(decoder(point[tf.newaxis]))[0] for point in z)
    names = [f"sample-{number:0{digits}}.png" for number in range(1, options.count + 1)]
    save_pictures(options.output, names, images, options.force)


def encode_command(options):
    """Encode pictures, and write z_mean, z_log_sigma and the names or labels as an .npz file."""
    if options.output.exists() and not options.force:
        raise InputError(f"{options.output} exists; --force overwrites it")
    encoder = open_model(options.model_dir / "encoder.keras", ranks=[4, 2, 2])
    if options.path.suffix == ".npz":
        arrays = read_arrays(options.path)
        parts = [part for part in ("train", "test") if f"x_{part}" in arrays] or ["train"]
        pairs = [images_and_labels(arrays, part, options.path) for part in parts]
        images = [image for part, _ in pairs for image in part]
        labels = [part for _, part in pairs if part is not None]
        about = {"labels": np.concatenate(labels)} if len(labels) == len(pairs) else {}
    else:
        pictures = dict(read_pictures([options.path], options.skip_unreadable))
        images, about = pictures.values(), {"names": np.array([str(name) for name in pictures])}
    if not images:
        raise InputError(f"{options.path} has no pictures; accepted: {', '.join(PICTURE_FORMATS)}")
    images = np.stack([resized(image, *encoder.input_shape[1:]) for image in images])
    z_mean, z_log_sigma = encode(encoder, images)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    np.savez(content, z_mean=z_mean, z_log_sigma=z_log_sigma, **about)
    save(options.output, lambda path: path.write_bytes(content.getvalue()))


if __name__ == "__main__":
    COMMANDS = {"train": train_command, "generate": generate_command, "encode": encode_command}
    sys.exit(exit_status(COMMANDS[OPTIONS.command], OPTIONS))
