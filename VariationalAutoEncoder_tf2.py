# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["tensorflow==2.21.*", "keras==3.15.*", "numpy>=2,<3", "matplotlib>=3.10,<4"]
# ///
"""Variational autoencoder (VAE): encodes images as points of a latent plane, and decodes points.

    python VariationalAutoEncoder_tf2.py    # train on MNIST, evaluate, plot
    python VariationalAutoEncoder_tf2.py --limit 5000 --epochs 5 --model-dir try
    python VariationalAutoEncoder_tf2.py --latent-dim 10 --model-dir out10

The encoder gives a normal distribution over the latent space for each image x, with mean z_mean
and standard deviation exp(z_log_sigma). The decoder gives a probability for each pixel:

    z = z_mean + exp(z_log_sigma) * epsilon                  with epsilon ~ N(0, I)
    loss = -log p(x|z) + beta * KL(N(z_mean, exp(z_log_sigma)^2) || N(0, I))

With beta = 1 the loss is the negative ELBO, on average an upper bound on -log p(x), in nats.
Kingma & Welling, Auto-Encoding Variational Bayes, 2014, https://arxiv.org/abs/1312.6114
"""

import argparse
import contextlib
import csv
import faulthandler
import json
import math
import os
import shutil
import statistics
import sys
import tempfile
import time
import zlib
from pathlib import Path

MODEL_DIR = Path("models/vae")
EPOCHS = 12
LEARNING_RATE = 3e-3  # peak
BATCH_DIVISOR = 1  # images that must stay together on a device


def add_own_options(parser):
    """Add the options that only this script has."""
    group = parser.add_argument_group("VAE")
    count = number(int, 1, 10**5)
    group.add_argument("--latent-dim", type=number(int, 2, 1000), default=2, help="size of z")
    group.add_argument("--beta", type=number(float, 0, 10**6), default=1.0, help="KL weight")
    group.add_argument("--importance-samples", type=count, default=50, help="for the bound")


# ==== Shared by both scripts, part 1 of 2: options and imports ==============================


class HelpFormatter(argparse.RawTextHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Keeps the lines of the examples, and adds the defaults."""


def fail(message):
    """End the script with one line about a user error."""
    print("error:", " ".join(message.split()), file=sys.stderr)
    sys.exit(2)


def number(kind, low, high):
    """Return a function that reads the number of an option: int or float, low to high."""

    def read(text):
        with contextlib.suppress(ValueError):
            if low <= kind(text) <= high:
                return kind(text)
        accepted = f"{kind.__name__} from {low:,} to {high:,}"
        raise argparse.ArgumentTypeError(f"{text}: accepted: {accepted}")

    return read


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line; `--help` and mistakes end the script here."""
    if "__file__" not in globals():
        fail("pasted code has no options; in a notebook, accepted: %run SCRIPT.py --limit 5000")
    description, examples, *_ = __doc__.split("\n\n")
    parser = argparse.ArgumentParser(formatter_class=HelpFormatter, allow_abbrev=False)
    parser.description = description
    parser.epilog = f"examples:\n{examples}"
    parser.error = fail
    parser.add_argument("--version", action="version", version="1.7.0")
    add_own_options(parser)

    group = parser.add_argument_group("data")
    group.add_argument("--data", default="mnist", help="mnist, fashion_mnist or a file")
    group.add_argument("--limit", type=number(int, 10, 10**9), help="train on LIMIT images")

    group = parser.add_argument_group("training")
    count = number(int, 1, 10**6)
    rate = number(float, 1e-9, 10)
    group.add_argument("--epochs", type=count, default=EPOCHS, help="passes over the images")
    group.add_argument("--batch-size", type=count, default=64, help="images in a step")
    group.add_argument("--learning-rate", type=rate, default=LEARNING_RATE, help="peak rate")
    group.add_argument("--seed", type=number(int, 0, 2**31 - 1), default=0, help="random seed")
    group = group.add_mutually_exclusive_group()
    group.add_argument("--resume", action="store_true", help="continue the run in MODEL_DIR")
    group.add_argument("--start-from", type=Path, help="MODEL_DIR of a run to train further")

    group = parser.add_argument_group("output")
    group.add_argument("--model-dir", type=Path, default=MODEL_DIR, help="for the models")
    text = "for the pictures; without it images, or MODEL_DIR if that is given"
    group.add_argument("--images-dir", type=Path, help=text)

    group = parser.add_argument_group("hardware")
    group.add_argument("--bfloat16", action="store_true", help="compute in mixed precision")
    options = parser.parse_args(arguments)
    if options.data not in ("mnist", "fashion_mnist") and not os.path.exists(options.data):
        fail(f"--data {options.data} does not exist; accepted: mnist, fashion_mnist, FILE")
    if options.start_from and not options.start_from.is_dir():
        fail(f"--start-from {options.start_from}: accepted: the folder of a finished run")
    if (set("*?[\\") - {os.sep}) & set(str(options.model_dir)):  # patterns to TensorFlow
        fail(f"--model-dir {options.model_dir}: accepted: a name without * ? [ \\")
    if options.images_dir is None:
        by_default = options.model_dir == MODEL_DIR
        options.images_dir = Path("images") if by_default else options.model_dir
    return options


@contextlib.contextmanager
def quiet_imports():
    """Hide what native code prints at its start, unless TF_CPP_MIN_LOG_LEVEL is set."""
    screen = os.dup(2)
    if "TF_CPP_MIN_LOG_LEVEL" not in os.environ:
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "1"  # later: warnings and errors
        faulthandler.enable(screen)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        yield
    except Exception as error:  # old packages fail in many ways
        os.dup2(screen, 2)
        fail(f"{error}; pip install -r requirements.txt")
    finally:
        os.dup2(screen, 2)


if __name__ == "__main__":
    OPTIONS = parse_options()  # before the slow imports: --help and mistakes answer at once
os.environ["KERAS_BACKEND"] = "tensorflow"
with quiet_imports():
    import keras
    import matplotlib
    import numpy as np
    import tensorflow as tf
    from keras import layers
    from matplotlib.figure import Figure

    tf.config.list_physical_devices()  # starts the drivers, which print, too
    for package, oldest in ((tf, "2.21.0"), (keras, "3.15.0")):
        if np.lib.NumpyVersion(found := package.__version__) < oldest:
            raise ImportError(f"needs {package.__name__} {oldest}, found {found}")
if (backend := keras.config.backend()) != "tensorflow":  # it was imported before
    fail(f"Keras runs on {backend} here; accepted: tensorflow; restart Python, import this first")

# ==== End of part 1 =========================================================================

START_LOG_SIGMA = -2.0  # z starts close to z_mean, so that the decoder learns sooner
RELU = {"activation": "relu", "kernel_initializer": "he_normal"}  # He et al. 2015


def build_encoder(shape, latent_dim: int, pixel_mean: float = 0.5) -> keras.Model:
    """Return a model from images (n, *shape) to [z_mean, z_log_sigma], each (n, latent_dim)."""
    x = image = keras.Input(shape, name="image")  # (n, 28, 28, 1)
    for level in range(num_downsamples(shape) + 1):  # to (n, 4, 4, 128)
        filters = min(32 * 2**level, 128)
        x = layers.Conv2D(filters, 3, strides=2, padding="same", name=f"conv{level}", **RELU)(x)
    dense_units = (256, 128)
    if latent_dim > 2:  # fewer channels, or the wider dense layers would cost too much time
        x = layers.Conv2D(64, 1, name="narrow", **RELU)(x)
        dense_units = (512, 256)
    x = layers.Flatten()(x)
    for units in dense_units:
        x = layers.Dense(units)(x)
        x = layers.LayerNormalization()(x)
        x = layers.ReLU()(x)
    z_mean = layers.Dense(latent_dim, dtype="float32", name="z_mean")(x)
    start = keras.initializers.Constant(START_LOG_SIGMA)
    z_log_sigma = layers.Dense(
        latent_dim, bias_initializer=start, dtype="float32", name="z_log_sigma"
    )(x)
    encoder = keras.Model(image, [z_mean, z_log_sigma], name="encoder")
    start_at_zero(encoder.get_layer("conv0"), pixel_mean)
    return encoder


def start_at_zero(conv, pixel_mean):
    """Start the biases of a convolution so that patches of the mean brightness give zero.

    Then images brighter and darker than `pixel_mean`, the mean of the training pixels, have
    different codes from the start. With biases of zero, layer normalization would hide how
    bright an image is, and with few photographs the KL term would often fall to zero.
    """
    conv.bias.assign(-pixel_mean * keras.ops.sum(conv.kernel, axis=(0, 1, 2)))


def num_downsamples(shape) -> int:
    """Return how often to halve the sides of images (height, width, channels): to 8 or less."""
    return max(2, math.ceil(math.log2(max(shape[:2]) / 8)))


def frequency(latent_dim: int) -> float:
    """Return the standard deviation of the sines' first frequencies (radians per unit of z).

    From four dimensions on it falls, because high frequencies average out over q(z|x). With
    fewer it is 2, which is low enough for short runs and large betas: when it was 4 in a
    plane, the KL term of such runs often fell to zero.
    """
    return min(2.0, 4.0 * (2 / latent_dim) ** 1.5)


def build_decoder(shape, latent_dim: int, pixel_mean: float = 0.5) -> keras.Model:
    """Return a model from points z (n, latent_dim) to the logits of the pixels (n, *shape).

    Most of its weights are in wide dense layers, where a weight costs least. The first one gives
    random Fourier features, which let a network learn fine detail in the plane much sooner:
    Tancik et al. 2020, https://arxiv.org/abs/2006.10739. Here they are trained, too. The decoder
    starts near the probability `pixel_mean`, the mean of the training pixels, everywhere.
    """
    # A plane has to be folded to hold all images, which takes depth. More dimensions say more
    # of an image, and it takes channels to draw that. With eight or more, colour images make
    # more use of z without a layer of 512 behind the sine. Grey digits are better with one.
    dense_layers = 1
    first_filters, filters = 64, 32
    if latent_dim == 2:
        dense_layers = 2
        first_filters, filters = 32, 16
    elif latent_dim >= 8 and shape[2] == 3:
        dense_layers = 0
    upsamples = num_downsamples(shape)
    height, width = (math.ceil(side / 2**upsamples) for side in shape[:2])  # 7, 7
    x = z = keras.Input((latent_dim,), name="z")
    frequencies = keras.initializers.RandomNormal(stddev=frequency(latent_dim))
    phases = keras.initializers.RandomUniform(-math.pi, math.pi)
    waves = layers.Dense(
        512, kernel_initializer=frequencies, bias_initializer=phases, dtype="float32"
    )
    x = keras.ops.sin(waves(x))
    for _ in range(dense_layers):
        x = layers.Dense(512, **RELU)(x)
    x = layers.Dense(height * width * first_filters, **RELU)(x)
    x = layers.Reshape((height, width, first_filters))(x)  # (n, 7, 7, 32 or 64)
    for _ in range(upsamples - 1):  # to (n, 14, 14, 16 or 32)
        x = layers.Conv2DTranspose(filters, 3, strides=2, padding="same", **RELU)(x)
    start = mean_pixel_biases(pixel_mean)
    last = {"padding": "same", "bias_initializer": start, "dtype": "float32"}
    x = layers.Conv2DTranspose(shape[2], 3, strides=2, **last)(x)  # (n, 28, 28, 1)
    surplus = ((0, x.shape[1] - shape[0]), (0, x.shape[2] - shape[1]))
    if surplus != ((0, 0), (0, 0)):  # to crop nothing would take 3 % of a step
        x = layers.Cropping2D(surplus, dtype="float32")(x)
    return keras.Model(z, x, name="decoder_logits")


# ---- Loss and training step

NEAR_ZERO_KL = 0.1  # nats per image


def bernoulli_negative_log_likelihood(images, logits):
    """Return -log p(x|z) in nats, summed over pixels, for independent Bernoulli pixels.

    With p = sigmoid(logit), x log p + (1 - x) log(1 - p) = x * logit - softplus(logit). A grey x
    in [0, 1] counts as the mean of its random binarizations to 0 and 1. The shape of both is
    (..., height, width, channels).
    """
    return tf.reduce_sum(tf.nn.softplus(logits) - images * logits, axis=(-3, -2, -1))


def kl_to_standard_normal(z_mean, z_log_sigma):
    """Return KL(N(z_mean, exp(z_log_sigma)^2) || N(0, I)) in nats, of each dimension.

    Kingma & Welling 2014, appendix B, with log sigma in place of log sigma^2. All three are
    (n, latent_dim); the sum over the dimensions is the KL term of an image.
    """
    return 0.5 * (z_mean**2 + tf.exp(2 * z_log_sigma) - 2 * z_log_sigma - 1)


def partly_binarized(images, seed):
    """Return images (n, height, width, channels), each mixed with a random binarization of it.

    The share of the binarization is uniform from 0 to 1, one for each image. The mean of a
    pixel over many draws is the pixel itself. Cf. Im et al. 2017, Denoising Criterion for
    Variational Auto-Encoding Framework, https://arxiv.org/abs/1511.06406
    """
    pixel_seed, share_seed = tf.unstack(tf.random.split(seed))
    draws = tf.random.stateless_uniform(tf.shape(images), pixel_seed)
    binary = tf.cast(draws < images, tf.float32)
    share = tf.random.stateless_uniform((tf.shape(images)[0], 1, 1, 1), share_seed)
    return images + share * (binary - images)


def vae_batch(latent_dim, encoder_noise):
    """Return a function that makes a batch: images, encoder's input, epsilon ~ N(0, I).

    Epsilon is (n, latent_dim). With `encoder_noise` the input is partly binarized, drawn anew
    in every epoch. Without it, the encoder of a plane overfits more in a long run.
    """

    def prepare(images, seed):
        encoder_input = images
        if encoder_noise:
            noise_seed, seed = tf.unstack(tf.random.split(seed))
            encoder_input = partly_binarized(images, noise_seed)
        shape = (tf.shape(images)[0], latent_dim)
        return images, encoder_input, tf.random.stateless_normal(shape, seed)

    return prepare


class VAE(keras.Model):
    """An encoder and a decoder of logits, trained by the loss at the top of the file.

    A batch is images, the encoder's input, and epsilon. In training, the weight of the KL
    term rises linearly to beta over `warm_up_steps`. Before the decoder has learned anything,
    the loss is lowest if z ignores the image, and many dimensions would stay unused. Cf.
    Bowman et al. 2016, section 3.1, https://arxiv.org/abs/1511.06349. The loss that is
    reported has the full beta.
    """

    def __init__(self, encoder, decoder_logits, beta=1.0, warm_up_steps=0):
        super().__init__()
        self.encoder = encoder
        self.decoder_logits = decoder_logits
        self.beta = beta
        self.warm_up_steps = warm_up_steps
        names = ("loss", "reconstruction", "kl")
        self.trackers = [keras.metrics.Mean(name) for name in names]

    @property
    def metrics(self):
        return self.trackers

    def loss_terms(self, batch, training):
        """Return reconstruction and KL of each image (n,) in nats, with one draw of z."""
        images, encoder_input, epsilon = batch
        z_mean, z_log_sigma = self.encoder(encoder_input, training=training)
        z = z_mean + tf.exp(z_log_sigma) * epsilon
        logits = self.decoder_logits(z, training=training)
        reconstruction = bernoulli_negative_log_likelihood(images, logits)
        kl = tf.reduce_sum(kl_to_standard_normal(z_mean, z_log_sigma), axis=-1)
        return reconstruction, kl

    def update_trackers(self, reconstruction, kl):
        losses = (reconstruction + self.beta * kl, reconstruction, kl)
        for tracker, values in zip(self.trackers, losses, strict=True):
            tracker.update_state(values)
        return self.get_metrics_result()

    def train_step(self, batch):
        done = tf.cast(self.optimizer.iterations, tf.float32)
        kl_weight = self.beta * tf.minimum(1.0, (done + 1) / (self.warm_up_steps + 1))
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        with tf.GradientTape() as tape:
            reconstruction, kl = self.loss_terms(batch, training=True)
            loss = tf.reduce_mean(reconstruction + kl_weight * kl)
            loss /= replicas  # the optimizer sums over them
        variables = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return self.update_trackers(reconstruction, kl)

    def test_step(self, batch):
        return self.update_trackers(*self.loss_terms(batch, training=False))


class KLWarning(keras.callbacks.Callback):
    """Says so when the KL term is near zero after the first epoch, or the last."""

    def on_epoch_end(self, epoch, logs=None):
        ends = (1, self.params["epochs"])
        is_chief = self.model.distribute_strategy.extended.should_checkpoint
        if is_chief and epoch + 1 in ends and logs["val_kl"] < NEAR_ZERO_KL:
            print("the KL term is near zero: z says next to nothing about the images;", end=" ")
            print("docs/questions.md has what helps")


# ---- Evaluation and plots

ACTIVE_KL = 0.01  # nats, of a dimension that is in use: cf. Burda et al. 2016, section 5.2
DECIMALS = 2  # of the results as they are printed
METRICS = [  # key, name, unit, which way is better, range to expect of a default run
    ("negative_elbo", "negative ELBO", "nats per image", "lower is better", "133.5 to 135.7"),
    ("reconstruction", "reconstruction", "nats per image", "lower is better", "126.3 to 128.5"),
    ("kl", "KL", "nats per image", "", "7.1 to 7.4"),
    ("iwae_bound", "IWAE bound", "nats per image", "higher is better", "-134.0 to -131.7"),
]
CURVES = {  # what every epoch prints, records and plots, and the title of its plot
    "loss": "negative ELBO (if beta = 1), nats per image",
    "reconstruction": "reconstruction, nats per image",
    "kl": "KL to the prior, nats per image",
}


def log_normal_density(x, mean=0.0, log_sigma=0.0):
    """Return log N(x; mean, exp(log_sigma)^2) in nats, summed over the last axis."""
    terms = ((x - mean) * tf.exp(-log_sigma)) ** 2 + 2 * log_sigma + math.log(2 * math.pi)
    return -0.5 * tf.reduce_sum(terms, axis=-1)


def elbo_and_iwae_bound(encoder, decoder_logits, images, samples, seed):
    """Return reconstruction (n,), KL (n, latent_dim) and IWAE bound (n,) of images, in nats.

    With w = p(x|z) p(z) / q(z|x) at draws of z from the encoder's q(z|x), the log of the mean of
    w is on average a lower bound on log p(x): the ELBO with one draw, closer with more. Burda et
    al., Importance Weighted Autoencoders, 2016, eq. 8, https://arxiv.org/abs/1509.00519
    """
    z_mean, z_log_sigma = encoder(images)  # (n, latent_dim)
    epsilon = tf.random.stateless_normal((samples, *tf.unstack(tf.shape(z_mean))), seed)
    z = z_mean + tf.exp(z_log_sigma) * epsilon  # (samples, n, latent_dim)
    logits = decoder_logits(tf.reshape(z, (-1, z.shape[-1])))
    logits = tf.reshape(logits, (samples, *tf.unstack(tf.shape(images))))
    reconstruction = bernoulli_negative_log_likelihood(images, logits)  # (samples, n)
    log_q = log_normal_density(z, z_mean, z_log_sigma)
    log_w = log_normal_density(z) - reconstruction - log_q
    bound = tf.reduce_logsumexp(log_w, axis=0) - math.log(samples)
    kl = kl_to_standard_normal(z_mean, z_log_sigma)
    return tf.reduce_mean(reconstruction, axis=0), kl, bound


def images_and_seed(images, seed):
    """Return a batch of the test: images, and the seed of z."""
    return images, seed


def images_alone(images, seed):
    """Return a batch for encoding: images alone."""
    return images


def evaluate(encoder, decoder_logits, images, samples: int = 50, seed: int = 0) -> dict:
    """Return the METRICS and the KL of each dimension: means over uint8 images."""
    # Each image is decoded `samples` times, in all to the pixels of 5,000 digits: 200 MB.
    batch_size = max(1, 5000 * 28 * 28 // (samples * images[0].size))
    bounds = tf.function(elbo_and_iwae_bound, autograph=False)
    found = []
    for batch, batch_seed in eval_dataset(images, images_and_seed, seed, "test", batch_size):
        found.append(bounds(encoder, decoder_logits, batch, samples, batch_seed))
    columns = [np.concatenate(column) for column in zip(*found, strict=True)]
    reconstruction, kl, bound = (column.mean(axis=0, dtype=float) for column in columns)
    return {
        "negative_elbo": float(reconstruction + kl.sum()),
        "reconstruction": float(reconstruction),
        "kl": float(kl.sum()),
        "iwae_bound": float(bound),
        "iwae_samples": samples,
        "kl_by_dimension": kl.tolist(),
        "active_dimensions": int(np.sum(kl > ACTIVE_KL)),
    }


def pca_projection(codes):
    """Return the plane to plot: two directions (2, latent_dim), axis labels, a note for titles.

    With two dimensions that is the latent space; with more, two principal components.
    """
    if codes.shape[1] == 2:
        return np.eye(2), ["z[0]", "z[1]"], ""
    centred = codes - codes.mean(axis=0)
    directions = np.linalg.svd(centred.T @ centred)[2][:2]
    names = ["first principal component of z_mean", "second principal component of z_mean"]
    note = f"\nin the plane of two principal components, of {codes.shape[1]}"
    return directions, names, note


def plot_latent_space(path, codes, labels):
    """Plot codes (n, latent_dim) as points, one colour for each class, with its name."""
    directions, names, note = pca_projection(codes)
    figure = Figure(figsize=(8, 7), layout="constrained")
    title = f"z_mean of {len(codes):,} test images; the circle has 95 % of the prior's mass{note}"
    axes = figure.add_subplot(title=title, xlabel=names[0], ylabel=names[1])
    axes.set_aspect("equal", adjustable="datalim")
    radius = math.sqrt(-2 * math.log(0.05))  # |z|^2 is exponential in two dimensions
    axes.add_patch(matplotlib.patches.Circle((0, 0), radius, fill=False, linestyle="--"))
    classes, index = np.unique(labels, return_inverse=True)
    colours = np.array(matplotlib.colormaps["tab10"].colors)[np.arange(len(classes)) % 10]
    order = np.random.default_rng(0).permutation(len(codes))  # no class hides the others
    points = codes @ directions.T
    axes.scatter(*points[order].T, s=8, color=colours[index[order]], linewidths=0)
    if 1 < len(classes) <= 30:
        for position, label in enumerate(classes):
            add_class_label(axes, points[index == position], label, colours[position])
    save_figure(path, figure)


def add_class_label(axes, points, label, colour):
    """Write the label of a class where its points (n, 2) are dense."""
    distances = np.linalg.norm(points[:, np.newaxis] - points, axis=2)
    middle = points[np.argmin(np.quantile(distances, 0.2, axis=1))]
    box = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": colour}
    style = {"fontsize": 14, "ha": "center", "va": "center", "parse_math": False}
    axes.text(*middle, label, bbox=box, **style)


def plot_manifold(path, decoder, noun, side=20):
    """Plot side x side decoded points of the plane, each for an equal share of the prior."""
    prior = statistics.NormalDist()
    quantiles = [prior.inv_cdf((step + 0.5) / side) for step in range(side)]
    across, up = np.meshgrid(quantiles, quantiles[::-1])  # the first row is the top one
    z = np.stack([across, up], axis=-1).reshape(-1, 2)
    tiles = decoder(tf.constant(z, tf.float32)).numpy()
    _, height, width, channels = tiles.shape
    image = tiles.reshape(side, side, height, width, channels).swapaxes(1, 2)
    image = image.reshape(side * height, side * width, channels)
    figure = Figure(figsize=(8, 8.5), layout="constrained")
    title = f"Every point decodes to a {noun} (ticks: quantiles of the prior)"
    axes = figure.add_subplot(title=title, xlabel="z[0]", ylabel="z[1]")
    settings = {"extent": (0, side, 0, side), "interpolation_stage": "data"}  # less memory
    axes.imshow(image, cmap="gray", vmin=0, vmax=1, **settings)
    ticks = np.arange(side) + 0.5
    texts = [f"{quantile:.2f}" for quantile in quantiles]
    axes.set_xticks(ticks, texts, rotation=90)
    axes.set_yticks(ticks, texts)
    save_figure(path, figure)


def plot_traversals(path, code, kl_by_dimension, decoder, noun):
    """Plot a decoded code (latent_dim,) with one number changed, a row for each dimension.

    The ten dimensions of the largest KL are shown; the middle column is the code as it is.
    """
    dimensions = np.argsort(kl_by_dimension)[::-1][:10]
    steps = np.linspace(-2, 2, 11)
    z = np.tile(code, (len(dimensions), len(steps), 1))
    for row, dimension in enumerate(dimensions):
        z[row, :, dimension] += steps
    decoded = decoder(z.reshape(-1, len(code)))
    rows = tf.reshape(decoded, (*z.shape[:2], *decoded.shape[1:]))
    title = f"The code of a {noun}, changed by -2 to 2 in its most active dimensions"
    plot_image_rows(path, title, rows, [f"z[{dimension}]" for dimension in dimensions])


def plot_all(options, encoder, decoder, images, labels, kl_by_dimension, history):
    """Plot the five pictures, from the first test images and the history of the training."""
    folder = options.images_dir
    noun = "digit" if options.data == "mnist" else "picture"
    images, labels = images[:5000], labels[:5000]
    batches = eval_dataset(images, images_alone, options.seed, "test")
    codes = np.concatenate([encoder(batch)[0] for batch in batches])
    plot_latent_space(folder / "vae_latent_space.png", codes, labels)
    if codes.shape[1] == 2:
        plot_manifold(folder / "vae_manifold.png", decoder, noun)
    else:
        plot_traversals(folder / "vae_manifold.png", codes[0], kl_by_dimension, decoder, noun)
    rows = [images[:10] / 255, decoder(codes[:10])]
    numbers = "two" if codes.shape[1] == 2 else codes.shape[1]
    title = f"Each {noun} from {numbers} numbers, its z_mean"
    names = [f"test {noun}", "decoded"]
    plot_image_rows(folder / "vae_reconstructions.png", title, rows, names)
    seed = stateless_seed(options.seed, "plots")
    z = tf.random.stateless_normal((4 * 10, codes.shape[1]), seed)
    samples = tf.reshape(decoder(z), (4, 10, *images.shape[1:]))
    plot_image_rows(folder / "vae_samples.png", f"New {noun}s, sampled from the prior", samples)
    plot_history(folder / "vae_loss.png", history)


# ---- Main

OTHER_MODEL = "model.keras"  # a file of the denoiser's: its folder is not for this script
ADAM_WEIGHT_DECAY = 0.05  # times the learning rate: without it, the encoder overfits
WARM_UP = 0.1  # share of the steps over which the learning rate rises
INITIAL_RATE = 0.04  # of the peak learning rate


def learning_rate(image_count, options):
    """Return a schedule: the rate rises linearly, then falls as a cosine to 0."""
    steps = options.epochs * (image_count // options.batch_size)
    warm_up = int(WARM_UP * steps)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=INITIAL_RATE * options.learning_rate,
        warmup_target=options.learning_rate,
        warmup_steps=warm_up,
        decay_steps=steps - warm_up,
    )


def vae_optimizer(rate):
    """Return the optimizer for a schedule of the learning rate.

    Muon is for the encoder's convolutions but the first. For that one and in the decoder it does
    harm, and for the large kernels of dense layers it takes long.
    """
    return ConvMuon(
        rate,
        adam_beta_2=0.99,
        exclude_layers=["conv0", "transpose"],
        ns_steps=3,  # Newton-Schulz iterations: as good as 5, and as fast as Adam alone
        weight_decay=None,
        adam_weight_decay=ADAM_WEIGHT_DECAY,
    )


def build_vae(train: np.ndarray, options) -> VAE:
    """Return the compiled VAE for uint8 training images (n, height, width, channels)."""
    shape = train.shape[1:]
    pixel_mean = float(train.mean() / 255)
    encoder = build_encoder(shape, options.latent_dim, pixel_mean)
    decoder_logits = build_decoder(shape, options.latent_dim, pixel_mean)
    rate = learning_rate(len(train), options)
    # In a plane, codes that spread before the KL term counts end up in too many pieces.
    warm_up_steps = 0 if options.latent_dim == 2 else rate.warmup_steps
    vae = VAE(encoder, decoder_logits, options.beta, warm_up_steps)
    vae.compile(vae_optimizer(rate))
    return vae


def main(options: argparse.Namespace, callbacks=()):
    """Load the images; build, fit and evaluate the VAE; save the models; plot.

    `options` are of `parse_options`; `callbacks`, of Keras, see the training.
    """
    train, validation, test, test_labels = load_images(options.data, options.limit)
    with set_up(options, len(train)).scope():
        vae = build_vae(train, options)
    encoder, decoder_logits = vae.encoder, vae.decoder_logits
    if options.start_from:
        load_weights(options.start_from, {"encoder": encoder, "decoder": decoder_logits})
    encoder_noise = options.latent_dim == 2  # with more dimensions it gains nothing
    prepare_clean = vae_batch(options.latent_dim, encoder_noise=False)
    log, checkpoints = fit(
        vae,
        [encoder, decoder_logits],
        (train, validation, test),
        vae_batch(options.latent_dim, encoder_noise),
        eval_dataset(validation, prepare_clean, options.seed, "validation"),
        options,
        [KLWarning(), *callbacks],
    )
    if not log.is_chief:
        return
    results = evaluate(encoder, decoder_logits, test, options.importance_samples, options.seed)
    probabilities = layers.Activation("sigmoid", dtype="float32")(decoder_logits.output)
    decoder = keras.Model(decoder_logits.input, probabilities, name="decoder")
    print_results(options, results, log)
    active = results["active_dimensions"]
    print(f"  active dimensions: {active} of {options.latent_dim} (KL above {ACTIVE_KL} nats)")
    parameters = encoder.count_params() + decoder.count_params()
    save_results(options, results, log, parameters)
    save(options.model_dir / "encoder.keras", encoder.save)
    save(options.model_dir / "decoder.keras", decoder.save)
    kl_by_dimension = results["kl_by_dimension"]
    plot_all(options, encoder, decoder, test, test_labels, kl_by_dimension, log.history)
    checkpoints.keep(0)
    print(f"See {options.images_dir}/vae_manifold.png first. To generate images as files:")
    print(f"python examples/generate_digits.py --output DIR --model-dir {options.model_dir}")


# ==== Shared by both scripts, part 2 of 2: data, training, checkpoints, files, plots ========

FEW_STEPS = 3000  # a run with fewer gets a line of advice
DIGITS_STEPS = 55000 // 64  # of an epoch of MNIST
ROUNDING = 1e-6  # floats may be so far below 0 or above 1
DARK = 64  # of 255: images that have no greater value may be meant otherwise
EVAL_BATCH = 500  # images in a batch for evaluation, or fewer of large images:
EVAL_VALUES = 2**22  # values of pixels in such a batch, at most
NO_MEMORY = "not enough memory; accepted: fewer images"


class InputError(ValueError):
    """A user error; its text names the value and what is accepted."""


def load_images(source: str, limit: int | None = None, suffix: str = ""):
    """Return training, validation and test images, and the labels of the test images (n,).

    Images are uint8 (n, height, width, 1 or 3), from the arrays x_train, x_val and x_test,
    each with the suffix. Those of a file come in a random order. Without x_test, a tenth of
    x_train is for the test; without x_val, the last twelfth of the rest, at most 5,000, is
    for validation. `limit` is of training images; for validation and test it is a fifth.
    """
    arrays = open_arrays(source)
    if f"x_train{suffix}" not in arrays:
        names = ", ".join(arrays) or "none"
        raise InputError(f"{source} has the arrays {names}; accepted: x_train{suffix}")
    train, labels = read_part(arrays, f"x_train{suffix}", source)
    if len(train) < 20:
        raise InputError(f"{source}: {len(train)} images; accepted: 20 or more")
    shape = train.shape[1:]
    if shape[2] == 3 and all(map(is_grey, train)):
        print(f"{source}: x_train{suffix} is grey; IMAGES[..., :1] would train faster")
    if f"x_test{suffix}" in arrays:
        test, test_labels = read_part(arrays, f"x_test{suffix}", source, shape)
    else:
        test, train = np.split(train, [len(train) // 10])
        test_labels = labels[: len(test)]
    if f"x_val{suffix}" in arrays:
        validation, _ = read_part(arrays, f"x_val{suffix}", source, shape)
    else:
        train, validation = np.split(train, [-min(5000, len(train) // 12)])
    fifth = None if limit is None else limit // 5
    return train[:limit], validation[:fifth], test[:fifth], test_labels[:fifth]


def open_arrays(source):
    """Return a mapping of names to arrays: of Keras, or of an .npz or .npy file."""
    bundled = Path(__file__).resolve().parent / "data/mnist.npz"
    path = bundled if source == "mnist" else Path(source)
    try:
        if source in ("mnist", "fashion_mnist") and not path.is_file():
            train, test = getattr(keras.datasets, source).load_data()
            names = ("x_train", "y_train", "x_test", "y_test")
            return dict(zip(names, (*train, *test), strict=True))
        with path.open("rb") as file:  # NumPy would take other files for pickles, and say so
            if not file.read(6).startswith((b"PK", b"\x93NUMPY")):
                raise ValueError("a file of another kind")
        arrays = np.load(path, allow_pickle=False)
    except MemoryError as error:
        raise InputError(f"--data {source}: {NO_MEMORY}; {error}") from error
    except Exception as error:  # zipfile, NumPy and Keras raise many types of errors
        accepted = "accepted: mnist, fashion_mnist, an .npz or .npy file"
        advice = "examples/pictures_to_npz.py makes one of folders and other files, or says how"
        raise InputError(f"--data {source}: {accepted}; {error}; {advice}") from error
    if isinstance(arrays, np.ndarray):
        return {"x_train": arrays}
    if len(arrays) == 1 and not {"x_train", "x_val", "x_test"}.intersection(arrays):
        return {"x_train": read_array(arrays, *arrays, source)}
    return arrays


def read_array(arrays, name, source):
    """Return one array of a file, which may be damaged."""
    try:
        return np.asarray(arrays[name])
    except MemoryError as error:
        raise InputError(f"{source}: {name}: {NO_MEMORY}; {error}") from error
    except Exception as error:  # zipfile, zlib and NumPy raise many types of errors
        text = f"{source}: {name} cannot be read; accepted: an array of numbers or text"
        raise InputError(f"{text}, never of Python objects (pickle); {error}") from error


def read_part(arrays, name, source, shape=None):
    """Return the images and labels of one part, those of a file in one random order."""
    images, labels = check_images(arrays, name, source, shape)
    if source not in ("mnist", "fashion_mnist"):  # own files may be sorted by class
        for each in (images, labels):  # the seed gives both the same order
            np.random.default_rng(0).shuffle(each)
    return images, labels


def check_images(arrays, name, source, shape=None):
    """Return the images of an array, uint8 (n, *shape), and their labels (n,)."""
    images = read_array(arrays, name, source)
    found = f"{source}: {name} is {images.dtype} {images.shape}"
    if problem := problem_of(images):
        if name.endswith("_noisy"):
            problem += "; noisy images: LOW and HIGH of the clean ones, clipped to 0 and 1"
        raise InputError(f"{found}: {problem}")
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if shape and images.shape[1:] != shape:
        raise InputError(f"{found}; accepted: images of shape {shape}")
    label_name = name.replace("x", "y", 1)
    labels = np.zeros(len(images), np.uint8)
    if label_name in arrays:
        labels = np.ravel(read_array(arrays, label_name, source))
    if len(labels) != len(images):
        text = f"{label_name} has {len(labels)} labels"
        raise InputError(f"{found}, {text}; accepted: one for each image")
    images = to_bytes(images)
    if images.max() < DARK:
        print(f"{found}: dark images, of at most {images.max()} if white is 255")
    return images, labels


def is_grey(image):
    """Return whether the channels of an image (height, width, channels) are all the same."""
    return (image == image[..., :1]).all()


def problem_of(images):
    """Return why an array is not one of images, and what to do; or an empty text."""
    shape, dtype = images.shape, images.dtype
    layout = "accepted: (n, height, width) or (n, height, width, 1 or 3)"
    if dtype.kind not in "buif" or images.size == 0 or len(shape) not in (2, 3, 4):
        return f"{layout}, of real numbers"
    if len(shape) == 2:
        return f"flat images, IMAGES.reshape(-1, HEIGHT, WIDTH); {layout}"
    if len(shape) == 4 and shape[3] not in (1, 3):
        if shape[1] in (1, 3):
            return f"channels first, IMAGES.transpose(0, 2, 3, 1); {layout}"
        if shape[3] in (2, 4):
            return f"alpha, which IMAGES[..., :{shape[3] - 1}] leaves out; {layout}"
        return layout
    if min(shape[1:3]) < 8 or max(shape[1:3]) > 256:
        return "accepted: sides of 8 to 256; IMAGES[:, :256, :256] crops, [:, ::2, ::2] halves"
    low, high = images.min(), images.max()
    accepted = "accepted: uint8 0 to 255, floats 0 to 1, bool"
    found = f"values {low:.6g} to {high:.6g}"
    if dtype == np.uint8 and high == 1:
        return f"{found}, IMAGES.astype(bool) or IMAGES * 255; {accepted}"
    if dtype in (np.bool_, np.uint8):
        return ""
    if dtype.kind == "f" and -ROUNDING <= low <= high <= 1 + ROUNDING:
        return ""
    if not np.isfinite([low, high]).all():
        return f"{found}, not all finite; {accepted}"
    if low >= 0 and DARK <= high <= 255:
        advice = "IMAGES / 255" if dtype.kind == "f" else "IMAGES.astype('uint8')"
        return f"{found}, {advice} if white is 255; {accepted}"
    if dtype.kind == "f" and -1 <= low < -0.5 and high <= 1:
        return f"{found}, (IMAGES + 1) / 2; {accepted}"
    return f"{found}, (IMAGES - LOW) / (HIGH - LOW); {accepted}"


def to_bytes(images):
    """Return images as uint8; floats and bools from 0 to 1 become 0 to 255."""
    if images.dtype == np.uint8:
        return np.ascontiguousarray(images)
    result = np.empty(images.shape, np.uint8)
    for start in range(0, len(images), 100):  # so many at a time, to save memory
        part = slice(start, start + 100)
        result[part] = np.rint(images[part] * 255.0)
    return result


def stateless_seed(seed, purpose, step=0):
    """Return the seed (2,) of a stateless random draw, a function of the arguments alone."""
    purpose = zlib.crc32(purpose.encode()) % 2**31
    return tf.random.fold_in((seed, purpose), tf.cast(step, tf.int64))


def image_batches(images, indices, size, prepare, seed, purpose, first_step, drop_remainder):
    """Return batches of `prepare(images in [0, 1], seed)`, with another seed for every step.

    `indices`, a dataset, has the order of the images; `first_step` numbers the first batch.
    """

    def take(chosen):
        return images[chosen]  # from the array itself: a tensor would be a copy in memory

    def take_images(chosen):
        taken = tf.numpy_function(take, [chosen], tf.uint8, stateful=False)
        return tf.ensure_shape(taken, (None, *images.shape[1:]))

    def one_batch(step, taken):
        batch = tf.cast(taken, tf.float32) / 255
        return prepare(batch, stateless_seed(seed, purpose, step))

    settings = tf.data.Options()
    settings.autotune.enabled = False  # the end of the data would wait for the tuning thread
    several = max(1, EVAL_VALUES // (size * images[0].size))  # calls of Python take time
    taken = indices.batch(several * size).map(take_images)
    batches = taken.rebatch(size, drop_remainder=drop_remainder).enumerate(first_step)
    return batches.map(one_batch).prefetch(4).with_options(settings)


def eval_dataset(images, prepare, seed, purpose, batch_size=None) -> tf.data.Dataset:
    """Return the batches of all images in their order, the same every time."""
    size = batch_size or max(1, min(EVAL_BATCH, EVAL_VALUES // images[0].size))
    indices = tf.data.Dataset.range(len(images))
    batches = image_batches(images, indices, size, prepare, seed, purpose, 0, False)
    count = math.ceil(len(images) / size)  # Keras warns if it is unknown
    return batches.apply(tf.data.experimental.assert_cardinality(count))


def train_dataset(images, prepare, options, first_epoch=0) -> tf.data.Dataset:
    """Return the batches of the epochs from `first_epoch` on, each in a new random order."""
    size, seed = options.batch_size, options.seed
    steps = len(images) // size

    def order_of(epoch):
        epoch_seed = stateless_seed(seed, "order", epoch)
        order = tf.random.experimental.stateless_shuffle(tf.range(len(images)), epoch_seed)
        return tf.data.Dataset.from_tensor_slices(order[: steps * size])

    indices = tf.data.Dataset.range(first_epoch, options.epochs).flat_map(order_of)
    first_step = first_epoch * steps
    return image_batches(images, indices, size, prepare, seed, "train", first_step, True)


def set_up(options, image_count: int) -> tf.distribute.Strategy:
    """Set seeds, precision and the batch size, at most all images; return the strategy."""
    keras.utils.clear_session()  # numbers layers from 1 again, so that any run can be resumed
    keras.utils.set_random_seed(options.seed)
    tf.config.experimental.enable_op_determinism()
    keras.config.set_dtype_policy("mixed_bfloat16" if options.bfloat16 else "float32")
    options.batch_size = min(options.batch_size, image_count)
    strategy = choose_strategy()
    devices = strategy.num_replicas_in_sync
    unit = devices * BATCH_DIVISOR
    if devices > 1 and options.batch_size % unit:
        accepted = f"multiples of {unit}, with {devices} devices"
        raise InputError(f"--batch-size {options.batch_size}: accepted: {accepted}")
    return strategy


def choose_strategy():
    """Return the strategy for the workers of TF_CONFIG, else for all GPUs or the CPU."""
    if "TF_CONFIG" in os.environ:
        return tf.distribute.MultiWorkerMirroredStrategy()
    gpus = tf.config.list_logical_devices("GPU")
    devices = gpus or tf.config.list_logical_devices("CPU")
    print("training on", ", ".join(device.name.split(":", 1)[1] for device in devices))
    driver = os.path.exists("/proc/driver/nvidia/version") or shutil.which("nvidia-smi")
    if driver and not gpus and os.environ.get("CUDA_VISIBLE_DEVICES") not in ("", "-1"):
        print("TensorFlow does not find the GPU of the NVIDIA driver that is installed here:")
        print('pip install "tensorflow[and-cuda]==2.21.*"')
    if len(devices) == 1:
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy()


def mean_pixel_biases(pixel_mean):
    """Return an initializer of biases: a sigmoid then starts near the mean of the pixels."""
    mean = min(max(pixel_mean, 0.01), 0.99)
    return keras.initializers.Constant(math.log(mean / (1 - mean)))


class ConvMuon(keras.optimizers.Muon):
    """Keras's Muon for the kernels of convolutions; AdamW trains all other variables.

    `exclude_layers` has parts of the names of layers that AdamW trains, too. A kernel becomes
    a matrix whose columns are its last axis. The update of a matrix is nearly orthogonal:
    Jordan et al. 2024, https://kellerjordan.github.io/posts/muon, scaled as in Liu et al.
    2025, https://arxiv.org/abs/2502.16982, eq. 4.
    """

    def _should_use_adamw(self, variable):
        is_excluded = any(name in variable.path for name in self.exclude_layers)
        return is_excluded or len(variable.shape) != 4

    def zeropower_via_newtonschulz5(self, x, steps):
        matrix = keras.ops.reshape(x, (-1, x.shape[-1]))
        update = super().zeropower_via_newtonschulz5(matrix, steps)
        return keras.ops.reshape(update, x.shape)

    def lr_adjust(self, x):
        matrix = keras.ops.reshape(x, (-1, x.shape[-1]))
        return keras.ops.reshape(super().lr_adjust(matrix), x.shape)


def load_weights(folder: Path, models: dict[str, keras.Model]):
    """Give models the weights of a finished run, from the files {name}.keras in a folder."""
    for name, model in models.items():
        try:
            finished = keras.models.load_model(folder / f"{name}.keras", compile=False)
            model.set_weights(finished.get_weights())
        except (OSError, ValueError) as error:
            text = f"--start-from {folder}: accepted: a run with images of the same shape and"
            raise InputError(f"{text} the same model; {name}.keras: {error}") from error


def work_around_keras_20585(model):
    """Let `fit` of Keras 3.15 run on several devices: keras-team/keras issue 20585.

    It builds a model from a batch reduced over the devices, which fails for images alone, and
    it takes the first element of each result.
    """
    get_metrics_result = model.get_metrics_result

    def results_with_an_axis():
        results = get_metrics_result()
        if not tf.distribute.has_strategy():  # at the end of an epoch
            return results
        return {name: value[np.newaxis] for name, value in results.items()}

    def build_nothing(**batch):
        pass

    model.get_metrics_result = results_with_an_axis
    model._maybe_symbolic_build = build_nothing


def fit(model, networks, parts, prepare, validation_dataset, options, callbacks=()):
    """Train a compiled model made of `networks`; return its TrainingLog and its Checkpoints.

    `parts` are the training, validation and test images; for `prepare`, see `image_batches`.
    """
    strategy = model.distribute_strategy
    with strategy.scope():
        model.optimizer.build(model.trainable_variables)
        if tf.distribute.has_strategy():
            work_around_keras_20585(model)
    train, validation, test = parts
    if (options.model_dir / OTHER_MODEL).exists():
        text = f"--model-dir {options.model_dir} has {OTHER_MODEL}, of the other script"
        raise InputError(f"{text}; accepted: a folder of its own for each")
    folder = options.model_dir / "checkpoints"
    log = TrainingLog(folder, is_chief=strategy.extended.should_checkpoint)
    settings = run_settings(model, networks, train, options)
    checkpoints = Checkpoints(folder, model, log, settings)
    first_epoch = checkpoints.restore(options.resume)
    if log.is_chief:
        folder.mkdir(parents=True, exist_ok=True)  # fails now, not after an epoch
        options.images_dir.mkdir(parents=True, exist_ok=True)
        channels = networks[0].input_shape[-1]  # pairs of images have twice as many
        print(f"images {(*train.shape[1:3], channels)}: {len(train):,} to train,", end=" ")
        print(f"{len(validation):,} to validate, {len(test):,} to test;", end=" ")
        print(f"{sum(network.count_params() for network in networks):,} parameters")
        print(f"models go to {options.model_dir}, pictures to {options.images_dir}")
        advise_epochs(options, len(train) // options.batch_size)
    try:
        model.fit(
            train_dataset(train, prepare, options, first_epoch),
            initial_epoch=first_epoch,
            epochs=options.epochs,
            steps_per_epoch=len(train) // options.batch_size,
            validation_data=validation_dataset,
            shuffle=False,  # the batches are in a random order already
            callbacks=[log, checkpoints, *callbacks],
            verbose=int(log.is_chief and sys.stdout.isatty()),
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(checkpoints.advice()) from None
    return log, checkpoints


def advise_epochs(options, steps_per_epoch):
    """Tell the user if a run is too short to learn much."""
    steps = options.epochs * steps_per_epoch
    enough = EPOCHS * DIGITS_STEPS
    if steps < FEW_STEPS:
        epochs = math.ceil(enough / steps_per_epoch)
        print(f"a short run of {steps:,} steps, where the digits take {enough:,};", end=" ")
        print(f"for as many, try --epochs {epochs}")


class TrainingLog(keras.callbacks.Callback):
    """Keeps the history and seconds of a run, and prints each epoch; a NaN ends the run."""

    def __init__(self, folder, is_chief):
        super().__init__()
        self.folder = folder  # of the checkpoints
        self.is_chief = is_chief  # the one of several workers that prints and writes
        self.history = {}
        self.seconds = 0.0
        self.last_time = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        now = time.perf_counter()
        self.seconds += now - self.last_time
        self.last_time = now
        names = [*CURVES, *(f"val_{name}" for name in CURVES)]
        for name in names:
            self.history.setdefault(name, []).append(float(logs[name]))
        values = ", ".join(f"{name} {logs[name]:.{DECIMALS}f}" for name in names)
        text = f"epoch {epoch + 1} of {self.params['epochs']}: {values}"
        if self.is_chief and not sys.stdout.isatty():  # a terminal has a progress bar
            print(text, flush=True)
        if not math.isfinite(logs["loss"] + logs["val_loss"]):
            raise InputError(f"{text}; delete {self.folder}, try a lower --learning-rate")

    def best_epoch(self):
        """Return the number of the epoch with the lowest validation loss."""
        return 1 + int(np.argmin(self.history["val_loss"]))


def run_settings(model, networks, images, options):
    """Return {name: value} of what must be the same when a run is resumed."""
    settings = {"optimizer": type(model.optimizer).__name__}
    places = ("data", "model_dir", "images_dir", "start_from", "resume")
    for name, value in vars(options).items():
        if name not in places:
            settings[name] = value
    for name, value in model.optimizer.get_config().items():
        settings[f"{name} of the optimizer"] = value
    config = "".join(network.to_json() for network in networks)
    settings["data (CRC-32)"] = zlib.crc32(images)
    settings["model (CRC-32)"] = zlib.crc32(config.encode())
    return json.loads(json.dumps(settings))  # as a checkpoint gives it back


class Checkpoints(keras.callbacks.Callback):
    """Writes the state of a run after every epoch, keeps the newest two, and restores one."""

    def __init__(self, folder, model, log, settings):
        super().__init__()
        self.folder = folder
        self.log = log
        self.settings = settings
        self.record = tf.Variable("")  # settings, history and seconds, as JSON
        variables = [variable.value for variable in model.weights + model.optimizer.variables]
        self.checkpoint = tf.train.Checkpoint(record=self.record, variables=variables)

    def paths(self):
        """Return the paths of the checkpoints, the oldest first."""
        complete = sorted(self.folder.glob("epoch-*.index"))  # TensorFlow writes .index last
        return [path.with_suffix("") for path in complete]

    def restore(self, resume):
        """Return how many epochs are done; with `resume`, by the newest good checkpoint."""
        if self.paths() and not resume:
            raise InputError(f"unfinished run: --resume it, or delete {self.folder}")
        for path in reversed(self.paths()):
            try:
                return self.read(path)
            except (tf.errors.OpError, IndexError, RuntimeError) as error:
                print(f"{path} is damaged: {error}; trying the one before", file=sys.stderr)
        if resume:
            raise InputError(f"--resume: there is no readable checkpoint in {self.folder}")
        return 0

    def read(self, path):
        """Restore the run from one checkpoint; return how many epochs are done."""
        tf.train.Checkpoint(record=self.record).read(str(path)).expect_partial()
        settings, self.log.history, self.log.seconds = json.loads(self.record.numpy())
        for name in self.settings | settings:
            then, now = settings.get(name), self.settings.get(name)
            if then != now:
                change = f"{name} was {then} and is {now}"
                raise InputError(f"--resume: {change}; for a new run, delete {self.folder}")
        self.checkpoint.read(str(path)).assert_existing_objects_matched()
        done = len(self.log.history["loss"])
        print(f"resuming after epoch {done} of {settings['epochs']}")
        return done

    def on_epoch_end(self, epoch, logs=None):
        if self.log.is_chief:
            state = [self.settings, self.log.history, self.log.seconds]
            self.record.assign(json.dumps(state))
            self.checkpoint.write(str(self.folder / f"epoch-{epoch + 1:06}"))
            self.keep(2)

    def keep(self, count):
        """Remove all but the newest checkpoints."""
        for path in self.paths()[::-1][count:]:
            for file in sorted(self.folder.glob(f"{path.name}.*"), reverse=True):
                file.unlink()  # .index first: without it, the rest does not count

    def advice(self):
        """Return what to tell a user who stops the run."""
        done = [path.name.removeprefix("epoch-") for path in self.paths()]
        if not done:
            return "stopped in the first epoch"
        return f"stopped after epoch {int(done[-1])}; continue with --resume"


def save(path, write):
    """Let `write` write a file in a temporary folder beside `path`, then move it there."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
        write(Path(folder) / path.name)
        os.replace(Path(folder) / path.name, path)
    print(f"wrote {path}")


def save_figure(path, figure):
    """Write a matplotlib figure as a picture file."""

    def write(unfinished):
        figure.savefig(unfinished, dpi=150, bbox_inches="tight")

    save(path, write)


def print_results(options, results, log):
    """Print the results, what to expect of a default run, and whether it overfitted."""
    free = ("seed", "resume", "model_dir", "images_dir")
    now = vars(options)
    usual = vars(parse_options([]))
    is_default = all(now[name] == usual[name] for name in usual if name not in free)
    print(f"\nmeans over the test images, after {log.seconds:.0f} s of training:")
    for key, name, unit, better, expected in METRICS:
        line = f"  {name:<15}{results[key]:9.{DECIMALS}f} {unit:<16}{better:<18}"
        print(f"{line}expected {expected}" if is_default else line.rstrip())
    losses = log.history["val_loss"]
    if (best := log.best_epoch()) < len(losses):
        print(f"  validation loss: {losses[-1]:#.5g} at the end,", end=" ")
        print(f"and lowest after epoch {best}: {losses[best - 1]:#.5g}")


def save_results(options, results, log, parameters):
    """Write the results with the options of the run, and the history."""

    def write_history(path):
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["epoch", *log.history])
            for epoch, values in enumerate(zip(*log.history.values(), strict=True), start=1):
                writer.writerow([epoch, *values])

    def write_metrics(path):
        about = {"train_seconds": log.seconds, "parameters": parameters}
        about["best_epoch"] = log.best_epoch()
        about["keras"] = keras.__version__
        path.write_text(json.dumps(results | vars(options) | about, indent=2, default=str) + "\n")

    save(options.model_dir / "history.csv", write_history)
    save(options.model_dir / "metrics.json", write_metrics)


def plot_image_rows(path, title, rows, names=(), colours=None):
    """Plot images in [0, 1], (rows, columns, height, width, channels), and a colour bar."""
    tiles = np.pad(rows, [(0, 0), (0, 0), (1, 1), (1, 1), (0, 0)], constant_values=1)
    count, columns, height, width, channels = tiles.shape
    figure = Figure(figsize=(0.7 * columns + 1, 0.7 * count + 0.5), layout="constrained")
    figure.suptitle(title)
    axes = figure.add_subplot(frame_on=False)
    image = tiles.swapaxes(1, 2).reshape(count * height, columns * width, channels)
    axes.imshow(image, cmap="gray", vmin=0, vmax=1)
    axes.set(xticks=[], yticks=(np.arange(len(names)) + 0.5) * height, yticklabels=names)
    axes.tick_params(length=0)
    if colours:
        figure.colorbar(colours, ax=axes, aspect=40, pad=0.01, shrink=0.8)
    save_figure(path, figure)


def plot_history(path, history):
    """Plot training and validation values of the CURVES by epoch."""
    figure = Figure(figsize=(4.5 * len(CURVES) + 1, 4), layout="constrained")
    count = len(history["loss"])
    first = 2 if count > 3 else 1  # the first of many epochs would flatten the rest
    plots = figure.subplots(1, len(CURVES))
    for axes, (name, title) in zip(plots, CURVES.items(), strict=True):
        epochs = range(first, count + 1)
        axes.plot(epochs, history[name][first - 1 :], ".-", label="training")
        axes.plot(epochs, history[f"val_{name}"][first - 1 :], ".-", label="validation")
        axes.set(title=title, xlabel="epoch" if first == 1 else "epoch, from the second on")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend()
    save_figure(path, figure)


if __name__ == "__main__":
    try:
        main(OPTIONS)
    except InputError as error:
        fail(str(error))
    except FileNotFoundError:  # the user's files were checked, so this is a bug
        raise
    except OSError as error:
        fail(f"{error}; accepted: folders that can be written to")
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        fail(f"no memory or no disk space left; a smaller --batch-size may help; {error}")
    except KeyboardInterrupt as stop:
        print(str(stop) or "stopped", file=sys.stderr)
        sys.exit(130)  # as a shell reports it
