# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["tensorflow==2.21.*", "keras==3.15.*", "numpy>=2,<3", "matplotlib>=3.10,<4"]
# ///
"""Variational autoencoder (VAE): encodes images as points of a latent plane, and decodes points.

    python VariationalAutoEncoder_tf2.py    # train on MNIST, evaluate, plot
    python VariationalAutoEncoder_tf2.py --limit 5000 --epochs 5 --model-dir try --images-dir try
    python VariationalAutoEncoder_tf2.py --data fashion_mnist --model-dir out --images-dir out
    python VariationalAutoEncoder_tf2.py --latent-dim 10 --model-dir out10 --images-dir out10

The encoder gives a normal distribution over the latent space for each image x, with mean z_mean and
standard deviation exp(z_log_sigma). The decoder gives a probability for each pixel at each point z:

    z = z_mean + exp(z_log_sigma) * epsilon                  with epsilon ~ N(0, I)
    loss = -log p(x|z) + beta * KL(N(z_mean, exp(z_log_sigma)^2) || N(0, I))

With beta = 1 the loss is the negative ELBO, on average an upper bound on -log p(x), in nats.
Kingma & Welling, Auto-Encoding Variational Bayes, 2014, https://arxiv.org/abs/1312.6114
"""

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
import time
import zlib
from pathlib import Path

MODEL_DIR, DECIMALS = Path("models/vae"), 2  # DECIMALS of results as they are printed
NUMBERS = [  # group, option, default, minimum, maximum, help
    ("training", "--epochs", 10, 1, 10**4, "passes over the training images"),
    ("training", "--batch-size", 64, 1, 10**6, "global batch size"),
    ("training", "--learning-rate", 4e-3, 1e-9, 10, "peak learning rate, after a linear warm-up"),
    ("model", "--latent-dim", 2, 2, 1000, "dimensions of z"),
    ("model", "--beta", 1.0, 0, 10**6, "weight of the KL term in the loss"),
    ("output", "--importance-samples", 50, 1, 10**5, "samples of z for the IWAE bound"),
]
METRICS = [  # name, unit, which way is better, what the default runs of three seeds gave
    ("negative ELBO", "nats per image", "lower is better", "135.78 ± 0.17"),
    ("reconstruction", "nats per image", "lower is better", "128.65 ± 0.20"),
    ("KL", "nats per image", "", "7.13 ± 0.03"),
    ("IWAE bound", "nats per image", "higher is better", "-133.68 ± 0.14"),
]
CURVES = {  # by epoch
    "loss": "negative ELBO (if beta = 1), nats per image",
    "reconstruction": "reconstruction, nats per image",
    "kl": "KL to the prior, nats per image",
}

# ==== Shared by both scripts, part 1 of 2: options and imports ====================================


def parse_options(arguments=None):
    """Return the options of the command line; `--help` and mistakes end the script here."""
    description, examples, *_ = __doc__.split("\n\n")
    settings = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
    parser = argparse.ArgumentParser(None, None, description, f"examples:\n{examples}", **settings)
    parser.error = lambda message: parser.exit(2, f"error: {message}; see --help\n")
    parser.add_argument("--version", action="version", version="1.0.0")
    groups = ("data", "model", "training", "output", "hardware")
    add = {name: parser.add_argument_group(name).add_argument for name in groups}
    add["data"]("--data", default="mnist", metavar="FILE", help="mnist, fashion_mnist or FILE.npz")
    limit = ("data", "--limit", 10**9, 10, 10**9, "training images, the first N")
    numbers = [*NUMBERS, limit, ("training", "--seed", 0, 0, 2**31 - 1, "random seed")]
    for group, name, default, low, high, text in numbers:
        text += f", {low:,} to {high:,} (default: {default:,})".replace("1,000,000,000", "all")
        add[group](name, type=type(default), default=default, metavar="N", help=text)
    add["training"]("--resume", action="store_true", help="continue the run in --model-dir")
    add["hardware"]("--bfloat16", action="store_true", help="mixed precision: compute in bfloat16")
    folder = {"type": Path, "metavar": "DIR"}
    add["output"]("--model-dir", default=MODEL_DIR, help=f"models (default: {MODEL_DIR})", **folder)
    add["output"]("--images-dir", default="images", help="pictures (default: images)", **folder)
    options = parser.parse_args(arguments)
    for _, name, _, low, high, _ in numbers:
        value = vars(options)[name[2:].replace("-", "_")]
        if not low <= value <= high:
            parser.error(f"{name} {value}: accepted: {low:,} to {high:,}")
    if not (options.data in ("mnist", "fashion_mnist") or os.path.exists(options.data)):
        parser.error(f"--data {options.data} does not exist; accepted: mnist, fashion_mnist, FILE")
    return options


if __name__ == "__main__":
    OPTIONS = parse_options()  # before the slow imports, so that --help and mistakes answer at once
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")  # warnings and errors
screen, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
os.dup2(null, 2)  # native code writes lines to standard error that mean nothing to a user
try:
    import keras
    import matplotlib
    import numpy as np
    import tensorflow as tf
    from keras import layers
    from matplotlib.figure import Figure

    matplotlib.rcParams.update({"savefig.dpi": 150, "savefig.bbox": "tight"})
    tf.config.list_physical_devices()  # starts the drivers, which have messages of their own
except ImportError as error:
    os.write(screen, f"error: {error}; pip install -r requirements.txt\n".encode())
    sys.exit(2)
finally:
    os.dup2(screen, 2)

# ==== End of part 1 ===============================================================================

# ---- Model ---------------------------------------------------------------------------------------

RELU = {"activation": "relu", "kernel_initializer": "he_normal"}  # He et al. 2015


def num_downsamples(shape):
    """Return how often to halve the sides of images (height, width, channels): to 8 or less."""
    return max(2, math.ceil(math.log2(max(shape[:2]) / 8)))


def build_encoder(shape, latent_dim):
    """Return a model from images (n, *shape) to [z_mean, z_log_sigma], each (n, latent_dim)."""
    x = image = keras.Input(shape, name="image")  # (n, 28, 28, 1)
    for level in range(num_downsamples(shape) + 1):  # to (n, 4, 4, 128)
        filters = min(32 * 2**level, 128)
        x = layers.Conv2D(filters, 3, strides=2, padding="same", **RELU)(x)
    x = layers.Flatten()(x)
    for units in (256, 128):
        x = layers.ReLU()(layers.LayerNormalization()(layers.Dense(units)(x)))
    z_mean = layers.Dense(latent_dim, dtype="float32", name="z_mean")(x)
    small = keras.initializers.Constant(-2)  # z starts close to z_mean: the decoder learns sooner
    settings = {"bias_initializer": small, "dtype": "float32"}
    z_log_sigma = layers.Dense(latent_dim, **settings, name="z_log_sigma")(x)
    return keras.Model(image, [z_mean, z_log_sigma], name="encoder")


def build_decoder(shape, latent_dim, pixel_mean=0.5):
    """Return a model from points z (n, latent_dim) to the logits of the pixels (n, *shape).

    Most of its weights are in wide dense layers, where a weight costs least. The first one gives
    random Fourier features, which let a network learn fine detail in the plane much sooner: Tancik
    et al. 2020, https://arxiv.org/abs/2006.10739. Here they are trained, too. With `pixel_mean`,
    the mean of the training pixels, the decoder starts at that probability for every pixel.
    """
    upsamples = num_downsamples(shape)
    height, width = (math.ceil(side / 2**upsamples) for side in shape[:2])  # 7, 7
    x = z = keras.Input((latent_dim,), name="z")
    # Radians per unit of z; with more dimensions, high frequencies would average out over q(z|x).
    stddev = max(0.25, 4 * (2 / latent_dim) ** 1.5)
    frequencies = keras.initializers.RandomNormal(stddev=stddev)
    phases = keras.initializers.RandomUniform(-math.pi, math.pi)
    settings = {"kernel_initializer": frequencies, "bias_initializer": phases, "dtype": "float32"}
    x = keras.ops.sin(layers.Dense(512, **settings)(x))
    for _ in range(2):
        x = layers.Dense(512, **RELU)(x)
    x = layers.Dense(height * width * 32, **RELU)(x)
    x = layers.Reshape((height, width, 32))(x)  # (n, 7, 7, 32)
    for _ in range(upsamples - 1):  # to (n, 14, 14, 16)
        x = layers.Conv2DTranspose(16, 3, strides=2, padding="same", **RELU)(x)
    mean = min(max(pixel_mean, 0.01), 0.99)
    start = keras.initializers.Constant(math.log(mean / (1 - mean)))
    last = {"padding": "same", "bias_initializer": start, "dtype": "float32"}
    x = layers.Conv2DTranspose(shape[2], 3, strides=2, **last)(x)  # (n, 28, 28, 1)
    surplus = ((0, x.shape[1] - shape[0]), (0, x.shape[2] - shape[1]))
    if surplus != ((0, 0), (0, 0)):  # to crop nothing would take 3 % of a step
        x = layers.Cropping2D(surplus, dtype="float32")(x)
    return keras.Model(z, x, name="decoder_logits")


# ---- Loss and training step ----------------------------------------------------------------------


def bernoulli_negative_log_likelihood(images, logits):
    """Return -log p(x|z) in nats, summed over pixels, for independent Bernoulli pixels.

    With p = sigmoid(logit), x log p + (1 - x) log(1 - p) = x * logit - softplus(logit). A grey x in
    [0, 1] counts as the mean of its random binarizations to 0 and 1. The shape of both is (...,
    height, width, channels).
    """
    return tf.reduce_sum(tf.nn.softplus(logits) - images * logits, axis=(-3, -2, -1))


def kl_to_standard_normal(z_mean, z_log_sigma):
    """Return KL(N(z_mean, exp(z_log_sigma)^2) || N(0, I)) in nats, summed over the last axis.

    Kingma & Welling 2014, appendix B, with log sigma in place of log sigma^2.
    """
    terms = z_mean**2 + tf.exp(2 * z_log_sigma) - 2 * z_log_sigma - 1
    return 0.5 * tf.reduce_sum(terms, axis=-1)


class VAE(keras.Model):
    """An encoder and a decoder of logits, trained together by the loss at the top of the file."""

    def __init__(self, encoder, decoder, beta=1.0, seed=0):
        super().__init__()
        self.encoder, self.decoder, self.beta, self.seed = encoder, decoder, beta, seed
        self.trackers = [keras.metrics.Mean(name) for name in ("loss", "reconstruction", "kl")]

    @property
    def metrics(self):
        return self.trackers

    def loss_terms(self, images, seed, training):
        """Return loss, reconstruction and KL of each image (n,) in nats, with one draw of z."""
        z_mean, z_log_sigma = self.encoder(images, training=training)
        epsilon = tf.random.stateless_normal(tf.shape(z_mean), seed)
        z = z_mean + tf.exp(z_log_sigma) * epsilon
        logits = self.decoder(z, training=training)
        reconstruction = bernoulli_negative_log_likelihood(images, logits)
        kl = kl_to_standard_normal(z_mean, z_log_sigma)
        return reconstruction + self.beta * kl, reconstruction, kl

    def update_trackers(self, losses):
        for tracker, values in zip(self.trackers, losses, strict=True):
            tracker.update_state(values)
        return self.get_metrics_result()

    def train_step(self, images):
        context = tf.distribute.get_replica_context()
        replica, replicas = context.replica_id_in_sync_group, context.num_replicas_in_sync
        step = self.optimizer.iterations * replicas + tf.cast(replica, tf.int64)
        seed = stateless_seed(self.seed, "training", step)
        with tf.GradientTape() as tape:
            losses = self.loss_terms(images, seed, training=True)
            loss = tf.reduce_mean(losses[0]) / replicas  # the optimizer sums over the replicas
        variables = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return self.update_trackers(losses)

    def test_step(self, images):  # the same epsilon in every epoch
        seed = stateless_seed(self.seed, "validation")
        return self.update_trackers(self.loss_terms(images, seed, training=False))


# ---- Evaluation and plots ------------------------------------------------------------------------


def log_normal_density(x, mean=0.0, log_sigma=0.0):
    """Return log N(x; mean, exp(log_sigma)^2) in nats, summed over the last axis."""
    terms = ((x - mean) * tf.exp(-log_sigma)) ** 2 + 2 * log_sigma + math.log(2 * math.pi)
    return -0.5 * tf.reduce_sum(terms, axis=-1)


def elbo_and_iwae_bound(encoder, decoder, images, samples, seed):
    """Return reconstruction, KL and IWAE bound of images in [0, 1]: each (n,), in nats.

    With w = p(x|z) p(z) / q(z|x) at draws of z from the encoder's q(z|x), the log of the mean of w
    is on average a lower bound on log p(x): the ELBO with one draw, closer with more. Burda et al.,
    Importance Weighted Autoencoders, 2016, eq. 8, https://arxiv.org/abs/1509.00519
    """
    z_mean, z_log_sigma = encoder(images)  # (n, latent_dim)
    epsilon = tf.random.stateless_normal((samples, *tf.unstack(tf.shape(z_mean))), seed)
    z = z_mean + tf.exp(z_log_sigma) * epsilon  # (samples, n, latent_dim)
    logits = decoder(tf.reshape(z, (-1, z.shape[-1])))
    logits = tf.reshape(logits, (samples, *tf.unstack(tf.shape(images))))
    reconstruction = bernoulli_negative_log_likelihood(images, logits)  # (samples, n)
    log_q = log_normal_density(z, z_mean, z_log_sigma)
    log_w = log_normal_density(z) - reconstruction - log_q
    bound = tf.reduce_logsumexp(log_w, axis=0) - math.log(samples)
    return tf.reduce_mean(reconstruction, axis=0), kl_to_standard_normal(z_mean, z_log_sigma), bound


def evaluate(encoder, decoder, images, samples=50, seed=0):
    """Return the negative ELBO, its two parts and the IWAE bound: means over uint8 images."""
    # As many images at a time as have the pixels of 5,000 digits when decoded, about 200 MB.
    batch_size = max(1, 5000 * 28 * 28 // (samples * images[0].size))
    step = tf.function(elbo_and_iwae_bound, autograph=False)
    batches = eval_dataset(images, lambda *batch: batch, seed, "test", batch_size)
    parts = [step(encoder, decoder, batch, samples, batch_seed) for batch, batch_seed in batches]
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    reconstruction, kl, bound = (float(column.mean(dtype=float)) for column in columns)
    elbo = {"negative_elbo": reconstruction + kl, "reconstruction": reconstruction, "kl": kl}
    return {**elbo, "iwae_bound": bound, "iwae_samples": samples}


def pca_projection(codes):
    """Return the plane to plot: two directions (2, latent_dim), axis labels, a note for titles.

    With two dimensions that is the latent space; with more, two principal components of the codes.
    """
    if codes.shape[1] == 2:
        return np.eye(2), ["z[0]", "z[1]"], ""
    centred = codes - codes.mean(axis=0)
    directions = np.linalg.svd(centred.T @ centred)[2][:2]
    names = ["first principal component of z_mean", "second principal component of z_mean"]
    return directions, names, f"\nin the plane of two principal components, of {codes.shape[1]}"


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
    order = np.random.default_rng(0).permutation(len(codes))  # so that no class hides the others
    points = codes @ directions.T
    axes.scatter(*points[order].T, s=8, color=colours[index[order]], linewidths=0)
    for number, label in enumerate(classes if 1 < len(classes) <= 30 else ()):
        each = points[index == number]  # the label is where the class is dense
        distances = np.linalg.norm(each[:, np.newaxis] - each, axis=2)
        middle = each[np.argmin(np.quantile(distances, 0.2, axis=1))]
        box = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": colours[number]}
        style = {"fontsize": 14, "ha": "center", "va": "center", "parse_math": False}
        axes.text(*middle, label, bbox=box, **style)
    save(path, figure.savefig)


def plot_manifold(path, codes, decoder, noun, side=20):
    """Plot side x side decoded points of the plane, each for an equal share of the prior."""
    directions, names, note = pca_projection(codes)
    quantiles = [statistics.NormalDist().inv_cdf((step + 0.5) / side) for step in range(side)]
    across, up = np.meshgrid(quantiles, quantiles[::-1])  # the first row of tiles is the top one
    z = np.stack([across, up], axis=-1).reshape(-1, 2) @ directions
    tiles = decoder(tf.constant(z, tf.float32)).numpy()
    figure = Figure(figsize=(8, 8.5), layout="constrained")
    title = f"Every point decodes to a {noun} (ticks: quantiles of the prior){note}"
    axes = figure.add_subplot(title=title, xlabel=names[0], ylabel=names[1])
    _, height, width, channels = tiles.shape
    image = tiles.reshape(side, side, height, width, channels).swapaxes(1, 2)
    image = image.reshape(side * height, side * width, channels)
    settings = {"extent": (0, side, 0, side), "interpolation_stage": "data"}  # takes less memory
    axes.imshow(image, cmap="gray", vmin=0, vmax=1, **settings)
    ticks, texts = np.arange(side) + 0.5, [f"{quantile:.2f}" for quantile in quantiles]
    axes.set_xticks(ticks, texts, rotation=90)
    axes.set_yticks(ticks, texts)
    save(path, figure.savefig)


def plot_all(options, encoder, decoder, images, labels, history):
    """Plot the five pictures, from the first test images and the history of the training."""
    folder, images, labels = options.images_dir, images[:5000], labels[:5000]
    batches = eval_dataset(images, None, options.seed, "test")
    codes = np.concatenate([encoder(batch)[0] for batch in batches])
    plot_latent_space(folder / "vae_latent_space.png", codes, labels)
    noun = "digit" if options.data == "mnist" else "picture"
    plot_manifold(folder / "vae_manifold.png", codes, decoder, noun)
    rows, names = [images[:10] / 255, decoder(codes[:10])], [f"test {noun}", "decoded"]
    numbers = "two" if codes.shape[1] == 2 else codes.shape[1]
    title = f"Each {noun} from {numbers} numbers, its z_mean"
    plot_image_rows(folder / "vae_reconstructions.png", title, rows, names)
    z = tf.random.stateless_normal((4 * 10, codes.shape[1]), stateless_seed(options.seed, "plots"))
    samples = tf.reshape(decoder(z), (4, 10, *images.shape[1:]))
    plot_image_rows(folder / "vae_samples.png", f"New {noun}s, sampled from the prior", samples)
    plot_history(folder / "vae_loss.png", history)


# ---- Main ----------------------------------------------------------------------------------------


def main(options):
    """Load the images; build, fit and evaluate the VAE; save the models; plot."""
    *parts, test_labels = load_images(options.data, options.limit)
    train, validation, test = parts
    with set_up(options, len(train)).scope():
        encoder = build_encoder(train.shape[1:], options.latent_dim)
        logits = build_decoder(train.shape[1:], options.latent_dim, float(train.mean() / 255))
        vae = VAE(encoder, logits, options.beta, options.seed)
        vae.compile(keras.optimizers.Adam(learning_rate(len(train), options), beta_2=0.99))
    validation_dataset = eval_dataset(validation, None, options.seed, "validation")
    run = fit(vae, [encoder, logits], parts, None, validation_dataset, options)
    if not run.is_chief:
        return
    results = evaluate(encoder, logits, test, options.importance_samples, options.seed)
    probabilities = layers.Activation("sigmoid", dtype="float32")(logits.output)
    decoder = keras.Model(logits.input, probabilities, name="decoder")
    report(options, results, run)
    save(options.model_dir / "encoder.keras", encoder.save)
    save(options.model_dir / "decoder.keras", decoder.save)
    plot_all(options, encoder, decoder, test, test_labels, run.history)
    run.keep(0)
    print(f"See {options.images_dir}/vae_manifold.png first. To generate images as files:")
    print(f"python examples/generate_digits.py --output DIR --model-dir {options.model_dir}")


# ==== Shared by both scripts, part 2 of 2: data, training, checkpoints, files, plots ==============


class InputError(ValueError):
    """A user error; its text names the value and what is accepted."""


def load_images(source, limit):
    """Return training, validation and test images, and the labels of the test images (n,).

    Images are uint8 (n, height, width, 1 or 3). The last twelfth of x_train, at most 5,000, is for
    validation; without x_test, a random tenth is for the test. `limit` is of training images.
    """
    arrays = read_arrays(source)
    images, labels = check_images(arrays, "train", source)
    if "x_test" in arrays:
        test, test_labels = check_images(arrays, "test", source, images.shape[1:])
    else:
        order = np.random.default_rng(0).permutation(len(images))  # files may be sorted by class
        held_out, order = np.split(order, [len(images) // 10])
        test, test_labels, images = images[held_out], labels[held_out], images[order]
    train, validation = np.split(images, [-min(5000, len(images) // 12)])
    return train[:limit], validation[: limit // 5], test[: limit // 5], test_labels[: limit // 5]


def read_arrays(source):
    """Return those of the arrays x_train, y_train, x_test, y_test that a data set has."""
    names = ("x_train", "y_train", "x_test", "y_test")
    path = Path(__file__).resolve().parent / "data/mnist.npz" if source == "mnist" else Path(source)
    try:
        if source in ("mnist", "fashion_mnist") and not path.is_file():
            train, test = getattr(keras.datasets, source).load_data()
            return dict(zip(names, (*train, *test), strict=True))
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in names if name in archive.files}
    except Exception as error:  # zipfile, zlib, NumPy and Keras raise many types of errors
        raise InputError(f"--data {source}: no mnist, fashion_mnist or .npz: {error!r}") from error


def check_images(arrays, part, source, shape=None):
    """Return the images "train" or "test", uint8 (n, *shape), and their labels (n,)."""
    images, labels = np.asarray(arrays.get(f"x_{part}")), arrays.get(f"y_{part}")
    found = f"{source}: x_{part} is {images.dtype} {images.shape}, with labels {np.shape(labels)}"
    if images.dtype.kind == "f" and ((images >= 0) & (images <= 1)).all():
        images = np.rint(images * 255).astype(np.uint8)
    images = np.ascontiguousarray(images[..., np.newaxis] if images.ndim == 3 else images)
    labels = np.zeros(images.shape[:1], np.uint8) if labels is None else np.ravel(labels)
    count, *sides, channels = images.shape if images.ndim == 4 else (0, 0, 0)
    fits = 8 <= min(sides) <= max(sides) <= 256 and channels in (1, 3) and count == len(labels)
    fits = fits and (count >= 20 if shape is None else count and images.shape[1:] == shape)
    if not fits or images.dtype != np.uint8:
        accepted = "(n, height, width) or (..., 1 or 3), uint8 or 0 to 1, n >= 20, sides 8 to 256"
        raise InputError(f"{found}; accepted: {accepted}, as many labels, x_test of the same size")
    return images, labels


def stateless_seed(seed, purpose, step=0):
    """Return the seed (2,) of a stateless random draw, a function of the arguments alone."""
    return tf.random.fold_in((seed, zlib.crc32(purpose.encode()) % 2**31), tf.cast(step, tf.int64))


def eval_dataset(images, prepare, seed, purpose, batch_size=None, order=None, first_step=0):
    """Return batches of `prepare(images in [0, 1], seed)`, with another seed for every step."""
    batch_size = batch_size or max(1, min(500, 2**22 // images[0].size))
    with tf.device("CPU"):
        stored = tf.constant(images)

    def one_batch(step, indices):
        batch = tf.cast(tf.gather(stored, indices), tf.float32) / 255
        return prepare(batch, stateless_seed(seed, purpose, step)) if prepare else batch

    indices = tf.data.Dataset.from_tensor_slices(np.arange(len(images)) if order is None else order)
    settings = tf.data.Options()
    settings.autotune.enabled = False  # the end of the data would wait for the tuning thread
    batches = indices.batch(batch_size, drop_remainder=order is not None).enumerate(first_step)
    return batches.map(one_batch).prefetch(4).with_options(settings)


def train_dataset(images, prepare, options, first_epoch=0):
    """Return the batches of the epochs from `first_epoch` on, each epoch in a new random order."""
    size, steps = options.batch_size, len(images) // options.batch_size
    order = np.tile(np.arange(len(images), dtype=np.int32), (options.epochs, 1))
    order = np.random.default_rng(options.seed).permuted(order, axis=1)
    order = order[first_epoch:, : size * steps].ravel()  # drops the last part of a batch
    return eval_dataset(images, prepare, options.seed, "train", size, order, first_epoch * steps)


def set_up(options, image_count):
    """Set seeds and precision; return the strategy for TF_CONFIG's workers or for all devices."""
    options.batch_size = min(options.batch_size, image_count)
    keras.utils.set_random_seed(options.seed)
    tf.config.experimental.enable_op_determinism()
    keras.config.set_dtype_policy("mixed_bfloat16" if options.bfloat16 else "float32")
    if "TF_CONFIG" in os.environ:
        return tf.distribute.MultiWorkerMirroredStrategy()
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    print("training on", ", ".join(device.name.split(":", 1)[1] for device in devices))
    return tf.distribute.MirroredStrategy() if len(devices) > 1 else tf.distribute.get_strategy()


def learning_rate(image_count, options):
    """Return a schedule: the rate rises over a tenth of the steps, then falls as a cosine to 0."""
    steps = options.epochs * (image_count // options.batch_size)
    warmup = {"warmup_target": options.learning_rate, "warmup_steps": steps // 10}
    start, steps = options.learning_rate / 25, steps - steps // 10
    return keras.optimizers.schedules.CosineDecay(start, steps, **warmup)


def fit(model, networks, parts, prepare, validation_dataset, options):
    """Train a compiled model made of `networks`; return the callback with history and seconds."""
    with model.distribute_strategy.scope():
        model.optimizer.build(model.trainable_variables)
    run = CheckpointCallback(model, networks, parts[0], options)
    first_epoch = run.restore(options.resume)
    run.folder.mkdir(parents=True, exist_ok=True)  # fails now rather than after an epoch
    if run.is_chief:
        counts = "{:,} to train, {:,} to validate, {:,} to test".format(*map(len, parts))
        print(f"images {parts[0].shape[1:]}: {counts}; {run.parameters:,} parameters")
        print(f"models go to {options.model_dir}, pictures to {options.images_dir}")
    model._maybe_symbolic_build = lambda **batch: None  # fails with several devices in Keras 3.15
    values, several = model.get_metrics_result, tf.distribute.has_strategy  # Keras issue 20585
    model.get_metrics_result = lambda: {k: v[None] if several() else v for k, v in values().items()}
    model.fit(
        train_dataset(parts[0], prepare, options, first_epoch),
        initial_epoch=first_epoch,
        epochs=options.epochs,
        steps_per_epoch=len(parts[0]) // options.batch_size,
        validation_data=validation_dataset,
        shuffle=False,  # the batches are in a random order already
        callbacks=[run],
        verbose=int(run.is_chief and sys.stdout.isatty()),
    )
    return run


class CheckpointCallback(keras.callbacks.Callback):
    """Saves the run after every epoch, with its history and the seconds that it has taken."""

    def __init__(self, model, networks, images, options):
        super().__init__()
        self.folder, self.history, self.seconds = options.model_dir / "checkpoints", {}, 0.0
        self.is_chief = model.distribute_strategy.extended.should_checkpoint  # writes the files
        config = "".join(network.to_json() for network in networks).encode()
        self.settings = {k: v for k, v in vars(options).items() if type(v) in (int, float)}
        self.settings |= {"data (CRC-32)": zlib.crc32(images), "model (CRC-32)": zlib.crc32(config)}
        self.parameters = sum(network.count_params() for network in networks)
        self.record, self.began = tf.Variable(""), time.perf_counter()
        variables = [variable.value for variable in model.weights + model.optimizer.variables]
        self.checkpoint = tf.train.Checkpoint(record=self.record, variables=variables)

    def paths(self):  # of the checkpoints, the oldest first; TensorFlow writes an .index file last
        return [path.with_suffix("") for path in sorted(self.folder.glob("epoch-*.index"))]

    def restore(self, resume):
        """Return the first epoch: of a new run, or after the newest undamaged checkpoint."""
        if self.paths() and not resume:
            raise InputError(f"unfinished run in {self.folder}: --resume it, or delete it")
        for path in reversed(self.paths()):
            try:
                tf.train.Checkpoint(record=self.record).read(str(path)).expect_partial()
                settings, self.history, self.seconds = json.loads(self.record.numpy())
                for name, now in self.settings.items():
                    if (then := settings.get(name)) != now:
                        raise InputError(f"--resume: {name} was {then} and is {now}")
                self.checkpoint.read(str(path)).assert_existing_objects_matched()
                print(f"resuming after epoch {len(self.history['loss'])} of {settings['epochs']}")
                return len(self.history["loss"])
            except (tf.errors.OpError, IndexError, RuntimeError) as error:
                print(f"{path} is damaged: {error}; trying the one before", file=sys.stderr)
        if resume:
            raise InputError(f"--resume: there is no readable checkpoint in {self.folder}")
        return 0

    def on_epoch_end(self, epoch, logs=None):
        self.began, began = time.perf_counter(), self.began
        self.seconds += self.began - began
        names = [prefix + name for prefix in ("", "val_") for name in CURVES]
        for name in names:
            self.history.setdefault(name, []).append(float(logs[name]))
        if self.is_chief and not sys.stdout.isatty():  # a terminal has Keras's progress bar
            values = ", ".join(f"{name} {logs[name]:.{DECIMALS}f}" for name in names)
            print(f"epoch {epoch + 1} of {self.params['epochs']}: {values}", flush=True)
        if not math.isfinite(logs["loss"] + logs["val_loss"]):
            raise InputError(f"epoch {epoch + 1}: {logs}; try a lower --learning-rate")
        if self.is_chief:
            self.record.assign(json.dumps([self.settings, self.history, self.seconds]))
            self.checkpoint.write(str(self.folder / f"epoch-{epoch + 1:06}"))
            self.keep(2)

    def keep(self, count):  # the newest checkpoints, and remove the others
        for path in self.paths()[::-1][count:]:
            for file in sorted(self.folder.glob(f"{path.name}.*"), reverse=True):  # .index first
                file.unlink()


def save(path, write):
    """Let `write` write a file in a temporary folder beside `path`, and then move it there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
        write(Path(folder) / path.name)
        os.replace(Path(folder) / path.name, path)
    print(f"wrote {path}")


def report(options, results, run):
    """Print the results, beside those to expect of a default run; write them and the history."""
    usual, free = vars(parse_options([])), ("seed", "resume", "model_dir", "images_dir")
    changed = any(vars(options)[name] != usual[name] for name in usual if name not in free)
    print(f"\nmeans over the test images, after {run.seconds:.0f} s of training:")
    for name, unit, better, expected in METRICS:
        value = results[name.lower().replace(" ", "_")]
        text = f"  {name:<15}{value:9.{DECIMALS}f} {unit:<16}{better:<18}"
        print(text.rstrip() if changed else f"{text}expected {expected}")
    rows = [("epoch", *run.history), *zip(range(1, 10**6), *run.history.values(), strict=False)]
    history = "".join(",".join(map(str, row)) + "\n" for row in rows)
    about = {"train_seconds": run.seconds, "parameters": run.parameters, "keras": keras.__version__}
    metrics = json.dumps(results | vars(options) | about, indent=2, default=str) + "\n"
    save(options.model_dir / "history.csv", lambda path: path.write_text(history))
    save(options.model_dir / "metrics.json", lambda path: path.write_text(metrics))


def plot_image_rows(path, title, rows, names=(), colours=None):
    """Plot images in [0, 1], (rows, columns, height, width, channels); `colours` get a bar."""
    tiles = np.pad(rows, [(0, 0), (0, 0), (1, 1), (1, 1), (0, 0)], constant_values=1)
    count, columns, height, width, channels = tiles.shape
    figure = Figure(figsize=(0.7 * columns + 1, 0.7 * count + 0.5), layout="constrained")
    axes = figure.add_subplot(title=title, frame_on=False)
    image = tiles.swapaxes(1, 2).reshape(count * height, columns * width, channels)
    axes.imshow(image, cmap="gray", vmin=0, vmax=1)
    axes.set(xticks=[], yticks=(np.arange(len(names)) + 0.5) * height, yticklabels=names)
    axes.tick_params(length=0)
    if colours:
        figure.colorbar(colours, ax=axes, aspect=40, pad=0.01, shrink=0.8)
    save(path, figure.savefig)


def plot_history(path, history):
    """Plot training and validation values of the CURVES by epoch."""
    figure = Figure(figsize=(4.5 * len(CURVES) + 1, 4), layout="constrained")
    first = int(len(history["loss"]) > 3)  # the first of many epochs would flatten the rest
    for axes, (name, title) in zip(figure.subplots(1, len(CURVES)), CURVES.items(), strict=True):
        epochs = range(1 + first, len(history[name]) + 1)
        axes.plot(epochs, history[name][first:], ".-", epochs, history[f"val_{name}"][first:], ".-")
        axes.set(title=title, xlabel="epoch" + ", from the second on" * first)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(["training", "validation"])
    save(path, figure.savefig)


if __name__ == "__main__":
    try:
        main(OPTIONS)
    except (InputError, OSError, ImportError, tf.errors.ResourceExhaustedError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)
