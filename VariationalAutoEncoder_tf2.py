# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["tensorflow==2.21.*", "keras==3.15.*", "numpy>=2,<3", "matplotlib>=3.10,<4"]
# ///
"""Variational autoencoder (VAE): encodes images as points of a latent space, decodes points.

    python VariationalAutoEncoder_tf2.py    # train on MNIST, evaluate, plot
    python VariationalAutoEncoder_tf2.py --limit 5000 --epochs 5 --model-dir try
    python VariationalAutoEncoder_tf2.py --data own.npz --latent-dim 16 --model-dir own

The encoder gives a normal distribution over the latent space for each image x, with mean
z_mean and standard deviation exp(z_log_sigma). The decoder gives a probability for each pixel:

    z = z_mean + exp(z_log_sigma) * epsilon                  with epsilon ~ N(0, I)
    loss = -log p(x|z) + beta * KL(N(z_mean, exp(z_log_sigma)^2) || N(0, I))

With beta = 1 the loss is the negative ELBO, on average an upper bound on -log p(x), in nats.
Kingma & Welling, Auto-Encoding Variational Bayes, 2014, https://arxiv.org/abs/1312.6114

--data takes mnist, fashion_mnist, an .npz file with x_train and, optionally, x_val, x_test and
labels y_train, y_val, y_test; or an .npy file, which is x_train. Images are (n, height, width)
or (n, height, width, 1 or 3), with sides of 8 to 256; uint8 with values above 1, bool, or float
in [0, 1]; at least 20 in x_train. examples/prepare_data.py converts other data.
"""

import argparse
import contextlib
import faulthandler
import functools
import io
import json
import math
import os
import random
import shutil
import signal
import statistics
import sys
import time
import zlib
from pathlib import Path
from types import SimpleNamespace

DESCRIPTION = "Train a variational autoencoder on images; evaluate, save and plot it."
MODEL_DIR = Path("models/vae")
OTHER_MODEL = "model.keras"  # of the denoiser, whose folder must not be used
EPOCHS = 12
LEARNING_RATE = 3e-3  # peak
BATCH_DIVISOR = 1  # images of a batch that must stay together on a device
DECIMALS = 2  # of the results as they are printed
METRICS = [  # key, name, unit, which way is better, range to expect of a default run
    ("negative_elbo", "negative ELBO", "nats", "lower is better", "133.6 to 135.8"),
    ("reconstruction", "reconstruction", "nats", "lower is better", "126.4 to 128.6"),
    ("kl", "KL", "nats", "", "7.1 to 7.3"),
    ("negative_iwae_bound", "negative IWAE", "nats", "lower is better", "132.0 to 134.0"),
]
CURVES = {  # what every epoch prints, records and plots, and the title of its plot
    "loss": "negative ELBO (if beta = 1), nats per image",
    "reconstruction": "reconstruction, nats per image",
    "kl": "KL to the prior, nats per image",
}

# ---- Options -----------------------------------------------------------------


# shared
def fail(message):
    """End the script with one line about a user error."""
    text = " ".join(str(message).split())
    text = text.removeprefix("argument ").replace(": must", " must", 1)  # from argparse's text
    print("error:", text, file=sys.stderr)
    sys.exit(2)


# shared
def in_range(kind, low, high):
    """Return a function that reads the number of an option: int or float, low to high."""

    def read(text):
        with contextlib.suppress(ValueError):
            if low <= kind(text) <= high:
                return kind(text)
        raise argparse.ArgumentTypeError(f"must be {low:,} to {high:,}, found {text}")

    return read


def add_own_options(add):
    """Add the options that only this script has; `add` is the parser's add_argument."""
    count = in_range(int, 2, 1000)
    add("--latent-dim", type=count, default=2, metavar="N", help="dimensions of z (default: 2)")
    weight = in_range(float, 0, 10**6)
    add("--beta", type=weight, default=1.0, metavar="X", help="weight of the KL (default: 1)")
    count = in_range(int, 1, 10**6)
    text = "samples of z per test image for the IWAE bound (default: 50)"
    add("--importance-samples", type=count, default=50, metavar="N", help=text)


# shared
def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line; `--help` and mistakes end the script here."""
    if "__file__" not in globals():  # the code was pasted
        fail("the script must be a file, found pasted code; in a notebook: %run SCRIPT.py")
    parser = argparse.ArgumentParser(description=DESCRIPTION, allow_abbrev=False)
    parser.error = fail
    add = parser.add_argument
    add("--version", action="version", version="2.0.0")
    text = "mnist, fashion_mnist, or an .npz or .npy file (default: mnist)"
    add("--data", default="mnist", metavar="NAME", help=text)
    text = "at most N training images, N/5 for validation and test (default: all)"
    add("--limit", type=in_range(int, 20, 10**9), metavar="N", help=text)
    add_own_options(add)
    count = in_range(int, 1, 10**6)
    text = f"passes over the training images (default: {EPOCHS})"
    add("--epochs", type=count, default=EPOCHS, metavar="N", help=text)
    text = "global batch size across all devices (default: 64)"
    add("--batch-size", type=count, default=64, metavar="N", help=text)
    rate = in_range(float, 1e-9, 10)
    text = f"peak learning rate (default: {LEARNING_RATE})"
    add("--learning-rate", type=rate, default=LEARNING_RATE, metavar="X", help=text)
    seed = in_range(int, 0, 2**31 - 1)
    add("--seed", type=seed, default=0, metavar="N", help="random seed (default: 0)")
    add("--resume", action="store_true", help="continue the run in --model-dir, or start it")
    add("--start-from", type=os.path.abspath, metavar="DIR", help="finished run to begin with")
    text = f"folder for models and records (default: {MODEL_DIR})"
    add("--model-dir", type=Path, default=MODEL_DIR, metavar="DIR", help=text)
    text = "folder for pictures (default: images, or --model-dir if that is given)"
    add("--images-dir", type=Path, metavar="DIR", help=text)
    add("--bfloat16", action="store_true", help="compute in mixed precision")
    add("--all-devices", action="store_true", help="train on all GPUs, not only the first")
    options = parser.parse_args(arguments)
    if options.data not in ("mnist", "fashion_mnist"):
        options.data = os.path.abspath(options.data)
        if not os.path.isfile(options.data):
            fail(f"--data must be mnist, fashion_mnist or a file, found {options.data}")
    if options.images_dir is None:
        is_default = options.model_dir == MODEL_DIR
        options.images_dir = Path("images") if is_default else options.model_dir
    return options


# ---- Imports -----------------------------------------------------------------


# shared
def open_streams():
    """Open standard streams that are closed; show each line at once, in any encoding."""
    for name in ("stdin", "stdout", "stderr"):  # or other files would get their descriptors
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r+"))  # noqa: SIM115 (open to the end)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not in a notebook
            stream.reconfigure(line_buffering=True, errors="backslashreplace")


if __name__ == "__main__":
    open_streams()
    OPTIONS = parse_options()  # before the slow imports: --help and mistakes answer at once
    if "ipykernel" not in sys.modules:  # a notebook's backend of matplotlib may be missing
        os.environ.pop("MPLBACKEND", None)
os.environ["KERAS_BACKEND"] = "tensorflow"
stderr_copy = os.dup(2)
if "TF_CPP_MIN_LOG_LEVEL" not in os.environ:
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "1"  # warnings and errors
    faulthandler.enable(stderr_copy)  # shows a crash of native code
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # hides what it prints at its start
try:
    import keras
    import matplotlib.style
    import numpy as np
    import tensorflow as tf
    from keras import layers
    from matplotlib.figure import Figure
    from tensorflow.python.framework import config as tf_config

    tf.config.list_physical_devices()  # starts the drivers, which also print
    for package, release in ((tf, "2.21"), (keras, "3.15")):  # of private methods used here
        if not (found := package.__version__).startswith(f"{release}."):
            raise ImportError(f"{package.__name__} must be {release}, found {found}")
    if keras.config.backend() != "tensorflow":  # it was imported before
        raise ImportError(f"Keras must run on tensorflow, found {keras.config.backend()}")
except Exception as error:  # old packages fail in many ways
    if __name__ != "__main__":
        raise
    os.dup2(stderr_copy, 2)
    fail(f"{error}; pip install -r requirements.txt")
finally:
    os.dup2(stderr_copy, 2)

# ---- Data --------------------------------------------------------------------

EVAL_BATCH = 500  # images in a batch for evaluation, or fewer of large images:
EVAL_VALUES = 2**22  # values of pixels in such a batch, at most
ROUNDING = 1e-6  # floats may be this far below 0 or above 1
IMAGES = (
    "images on the first axis: (n, height, width) or (n, height, width, 1 or 3), sides of 8 to "
    "256, uint8 with values above 1, bool, or float in [0, 1]"
)
ADVICE = "examples/prepare_data.py of this project converts other data"


# shared
class InputError(ValueError):
    """A user error; its text says what must be, and what was found."""


# shared
def load_arrays(source):
    """Return {name: array} of a data set of Keras, or of an .npz or .npy file."""
    bundled = Path(__file__).resolve().parent / "data/mnist.npz"
    path = bundled if source == "mnist" else source
    try:
        if source in ("mnist", "fashion_mnist") and not os.path.isfile(path):
            train, test = getattr(keras.datasets, source).load_data()
            names = ("x_train", "y_train", "x_test", "y_test")
            return dict(zip(names, (*train, *test), strict=True))
        arrays = np.load(path, allow_pickle=False)
        if isinstance(arrays, np.ndarray):
            return {"x_train": arrays}
        names = [name for name in arrays if name.startswith(("x_", "y_", "pixel_range"))]
        if not names:
            raise ValueError(f"no x_train in {', '.join(arrays)}")
        return {name: np.asarray(arrays[name]) for name in names}
    except Exception as error:  # zipfile, NumPy and Keras raise many types of errors
        text = "--data must be mnist, fashion_mnist, or a whole .npz or .npy file"
        found = f"{source}: {type(error).__name__}: {error}"
        raise InputError(f"{text}, found {found}; {ADVICE}") from error


# shared
def are_images(array):
    """Return whether an array is what the top of this file says of images."""
    if array.dtype.kind not in "buf" or array.ndim not in (3, 4) or array.size == 0:
        return False
    if min(array.shape[1:3]) < 8 or max(array.shape[1:3]) > 256:
        return False
    if array.ndim == 4 and array.shape[3] not in (1, 3):
        return False
    if array.ndim == 3 and array.shape[0] == array.shape[1] != array.shape[2]:
        return False  # (64, 64, 30) is most likely 30 images of 64 x 64
    if array.dtype == np.uint8:
        return array.max() > 1  # a mask of 0 and 1 would be black
    is_unit_range = -ROUNDING <= array.min() <= array.max() <= 1 + ROUNDING  # false for NaN
    return array.dtype == bool or (array.dtype.kind == "f" and is_unit_range)


# shared
def read_split(arrays, name, source):
    """Return images, uint8, and labels of one split; shuffle those of a file, in place."""
    images = arrays[name]
    if not are_images(images):
        found = f"{images.dtype} {images.shape}"
        if images.dtype.kind in "buif" and images.size:
            found += f", {images.min():.6g} to {images.max():.6g}"
        raise InputError(f"{source}: {name} must be {IMAGES}; found {found}; {ADVICE}")
    labels = np.ravel(arrays.get(name.replace("x", "y", 1), np.zeros(len(images), np.uint8)))
    if len(labels) != len(images):
        text = f"{source}: {name} must have a label for each image"
        raise InputError(f"{text}, found {len(labels)} for {len(images)}")
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.dtype != np.uint8:
        images = np.rint(images * np.float32(255)).astype(np.uint8)
    if source not in ("mnist", "fashion_mnist"):  # a file may be sorted by class
        for each in (images, labels):  # the seed gives both the same order
            np.random.default_rng(0).shuffle(each)
    return np.ascontiguousarray(images), labels


# shared
def split_images(arrays, source, limit=None, suffix=""):
    """Return training, validation and test images, uint8, and the labels of the test images.

    Without x_test, a tenth of x_train is for the test; without x_val, the last twelfth of the
    rest, at most 5,000, is for validation. The suffix is that of the names in `arrays`.
    """
    if "x_train" not in arrays:
        raise InputError(f"{source} must have x_train, found {', '.join(arrays)}; {ADVICE}")
    train, labels = read_split(arrays, f"x_train{suffix}", source)
    if len(train) < 20:
        raise InputError(f"{source} must have 20 or more images, found {len(train)}")
    if f"x_test{suffix}" in arrays:
        test, test_labels = read_split(arrays, f"x_test{suffix}", source)
    else:
        test, train = np.split(train, [len(train) // 10])
        test_labels = labels[: len(test)]
    if f"x_val{suffix}" in arrays:
        validation, _ = read_split(arrays, f"x_val{suffix}", source)
    else:
        train, validation = np.split(train, [-min(5000, len(train) // 12)])
    shapes = {images.shape[1:] for images in (train, validation, test)}
    if len(shapes) > 1:
        raise InputError(f"{source}: all images must have one shape, found {sorted(shapes)}")
    fifth = None if limit is None else limit // 5
    return train[:limit], validation[:fifth], test[:fifth], test_labels[:fifth]


# shared
def stateless_seed(seed, purpose, step=0):
    """Return the seed (2,) of a stateless random draw, a function of the arguments alone."""
    purpose = zlib.crc32(purpose.encode()) % 2**31
    return tf.random.fold_in((seed, purpose), tf.cast(step, tf.int64))


# shared
def image_batches(images, order, size, seed, purpose, first_step=0, drop_remainder=False):
    """Return a dataset of (images in [0, 1], seed), in the order of a dataset of indices."""

    def take(step, indices):  # from the array itself: a tensor would be a copy in memory
        taken = tf.numpy_function(images.__getitem__, [indices], tf.uint8, stateful=False)
        taken = tf.ensure_shape(taken, (indices.shape[0], *images.shape[1:]))
        return tf.cast(taken, tf.float32) / 255, stateless_seed(seed, purpose, step)

    settings = tf.data.Options()
    settings.autotune.enabled = False  # the end of the data would wait for the tuning thread
    batches = order.batch(size, drop_remainder).enumerate(first_step)
    return batches.map(take).with_options(settings)


# shared
def train_batches(images, size, seed, first_epoch, epochs):
    """Return the batches of the epochs from `first_epoch` on, each in a new random order."""
    steps = len(images) // size

    def order_of(epoch):
        epoch_seed = stateless_seed(seed, "order", epoch)
        order = tf.random.experimental.stateless_shuffle(tf.range(len(images)), epoch_seed)
        return tf.data.Dataset.from_tensor_slices(order[: steps * size])

    order = tf.data.Dataset.range(first_epoch, epochs).flat_map(order_of)
    return image_batches(images, order, size, seed, "train", first_epoch * steps, True)


# shared
def eval_batches(images, seed, purpose, size=None):
    """Return the batches of all images in their order, the same every time."""
    size = size or max(1, min(EVAL_BATCH, EVAL_VALUES // images[0].size))
    return image_batches(images, tf.data.Dataset.range(len(images)), size, seed, purpose)


def mix_with_binarized(images, seed):
    """Return images (n, height, width, channels), mixed with random binarizations of them.

    The share of the binarization is uniform from 0 to 1, one for each image. The mean of a
    pixel over many draws is the pixel itself. Cf. Im et al. 2017, Denoising Criterion for
    Variational Auto-Encoding Framework, https://arxiv.org/abs/1511.06406
    """
    pixel_seed, share_seed = tf.unstack(tf.random.split(seed))
    draws = tf.random.stateless_uniform(tf.shape(images), pixel_seed)
    binary = tf.cast(draws < images, tf.float32)
    share = tf.random.stateless_uniform((tf.shape(images)[0], 1, 1, 1), share_seed)
    return images + share * (binary - images)


MAX_SHIFT = 0.125  # of the sides of RGB images: reduces overfitting in runs of many epochs


def shift(images, seed):
    """Return a batch of images, shifted together by up to MAX_SHIFT; their edges are mirrored."""
    y, x = (int(MAX_SHIFT * side) for side in images.shape[1:3])
    padded = tf.pad(images, [(0, 0), (y, y), (x, x), (0, 0)], "SYMMETRIC")
    return tf.image.stateless_random_crop(padded, tf.shape(images), seed)


def vae_batch(images, seed, latent_dim, is_mixed=False, is_shifted=False):
    """Return a batch: images, the encoder's input, and epsilon ~ N(0, I), (n, latent_dim)."""
    if is_shifted:
        shift_seed, seed = tf.unstack(tf.random.split(seed))
        images = shift(images, shift_seed)
    encoder_input = images
    if is_mixed:
        mixing_seed, seed = tf.unstack(tf.random.split(seed))
        encoder_input = mix_with_binarized(images, mixing_seed)
    epsilon = tf.random.stateless_normal((tf.shape(images)[0], latent_dim), seed)
    return images, encoder_input, epsilon


# ---- Encoder and decoder -----------------------------------------------------

RELU = {"activation": "relu", "kernel_initializer": "he_normal"}  # He et al. 2015
START_LOG_SIGMA = -2.0  # z starts close to z_mean, so that the decoder learns sooner


def sizes_of(latent_dim: int, channels: int = 1) -> SimpleNamespace:
    """Return what depends on the latent space; benchmarks/trials.md has the trials behind it."""
    if latent_dim == 2:  # takes a deeper decoder
        return SimpleNamespace(
            encoder_filters=24,  # as good as 32 in the same number of steps, and faster
            encoder_units=(256, 128),
            has_narrow_layer=False,
            fourier_scale=2.0,
            decoder_layers=2,
            decoder_filters=(32, 16),
            has_kl_annealing=False,  # it hurts: codes spread, and classes break into pieces
            is_mixed=True,  # or the encoder overfits more in a long run
        )
    # From eight dimensions on, RGB images use more of them without the layer; digits do not.
    decoder_layers = 0 if latent_dim >= 8 and channels == 3 else 1
    return SimpleNamespace(
        encoder_filters=32,
        encoder_units=(512, 256),
        has_narrow_layer=True,  # saves the time of the wider dense layers
        fourier_scale=min(2.0, 4.0 * (2 / latent_dim) ** 1.5),  # high ones average out
        decoder_layers=decoder_layers,
        decoder_filters=(64, 32),  # more dimensions carry more detail
        has_kl_annealing=True,
        is_mixed=False,
    )


def num_downsamples(shape) -> int:
    """Return how often to halve the sides of images, so that they are 8 or less."""
    return max(2, math.ceil(math.log2(max(shape[:2]) / 8)))


def build_encoder(shape, latent_dim: int, pixel_mean: float = 0.5) -> keras.Model:
    """Return a model from images (n, *shape) to z_mean and z_log_sigma, (n, latent_dim)."""
    sizes = sizes_of(latent_dim)
    x = image = keras.Input(shape, name="image")  # (n, 28, 28, 1)
    for level in range(num_downsamples(shape) + 1):  # to (n, 4, 4, 96 or 128)
        filters = sizes.encoder_filters * min(2**level, 4)
        strided = {"strides": 2, "padding": "same", "name": f"conv{level}"}
        x = layers.Conv2D(filters, 3, **strided, **RELU)(x)
    if sizes.has_narrow_layer:
        x = layers.Conv2D(64, 1, name="narrow", **RELU)(x)
    x = layers.Flatten()(x)
    for units in sizes.encoder_units:
        x = layers.Dense(units)(x)
        x = layers.LayerNormalization()(x)
        x = layers.ReLU()(x)
    z_mean = layers.Dense(latent_dim, dtype="float32", name="z_mean")(x)
    start = keras.initializers.Constant(START_LOG_SIGMA)
    last = {"bias_initializer": start, "dtype": "float32", "name": "z_log_sigma"}
    z_log_sigma = layers.Dense(latent_dim, **last)(x)
    encoder = keras.Model(image, [z_mean, z_log_sigma], name="encoder")
    # Patches of the mean brightness start at zero. Otherwise layer normalization hides how
    # bright an image is, which often leads to posterior collapse with few photographs.
    first = encoder.get_layer("conv0")
    first.bias.assign(-pixel_mean * keras.ops.sum(first.kernel, axis=(0, 1, 2)))
    return encoder


def build_decoder(shape, latent_dim: int, pixel_mean: float = 0.5) -> keras.Model:
    """Return a model from points z (n, latent_dim) to the logits of the pixels (n, *shape).

    It begins with learned Fourier features, which let a network learn fine detail sooner:
    Tancik et al. 2020, https://arxiv.org/abs/2006.10739. Everywhere, it starts near the
    probability `pixel_mean`, the mean of the training pixels.
    """
    sizes = sizes_of(latent_dim, shape[2])
    first_filters, filters = sizes.decoder_filters
    upsamples = num_downsamples(shape)
    height, width = (math.ceil(side / 2**upsamples) for side in shape[:2])  # 7, 7
    x = z = keras.Input((latent_dim,), name="z")
    frequencies = keras.initializers.RandomNormal(stddev=sizes.fourier_scale)
    phases = keras.initializers.RandomUniform(-math.pi, math.pi)
    features = {"kernel_initializer": frequencies, "bias_initializer": phases}
    x = keras.ops.sin(layers.Dense(512, **features, dtype="float32")(x))
    for _ in range(sizes.decoder_layers):
        x = layers.Dense(512, **RELU)(x)
    x = layers.Dense(height * width * first_filters, **RELU)(x)
    x = layers.Reshape((height, width, first_filters))(x)  # (n, 7, 7, 32 or 64)
    for _ in range(upsamples - 1):  # to (n, 14, 14, 16 or 32)
        x = layers.Conv2DTranspose(filters, 3, strides=2, padding="same", **RELU)(x)
    odds = max(pixel_mean, 0.01) / max(1 - pixel_mean, 0.01)
    start = keras.initializers.Constant(math.log(odds))
    last = {"padding": "same", "bias_initializer": start, "dtype": "float32"}
    x = layers.Conv2DTranspose(shape[2], 3, strides=2, **last)(x)  # (n, 28, 28, 1)
    surplus = ((0, x.shape[1] - shape[0]), (0, x.shape[2] - shape[1]))
    if surplus != ((0, 0), (0, 0)):  # to crop nothing would take 3% of a step
        x = layers.Cropping2D(surplus, dtype="float32")(x)
    return keras.Model(z, x, name="decoder_logits")


# ---- Loss and training step --------------------------------------------------


def bernoulli_negative_log_likelihood(images, logits):
    """Return -log p(x|z) in nats, summed over pixels, for independent Bernoulli pixels.

    With p = sigmoid(logit), x log p + (1 - x) log(1 - p) = x * logit - softplus(logit).
    A grayscale x in [0, 1] counts as the mean of its random binarizations to 0 and 1. The shape of
    both is (..., height, width, channels).
    """
    return tf.reduce_sum(tf.nn.softplus(logits) - images * logits, axis=(-3, -2, -1))


def kl_to_standard_normal(z_mean, z_log_sigma):
    """Return KL(N(z_mean, exp(z_log_sigma)^2) || N(0, I)) in nats, of each dimension.

    Kingma & Welling 2014, appendix B, with log sigma in place of log sigma^2. All three are
    (n, latent_dim); the sum over the dimensions is the KL term of an image.
    """
    return 0.5 * (z_mean**2 + tf.exp(2 * z_log_sigma) - 2 * z_log_sigma - 1)


class VAE(keras.Model):
    """An encoder and a decoder of logits, trained by the loss at the top of the file.

    A batch is that of `vae_batch`. In training, the weight of the KL term rises linearly to
    beta over `warm_up_steps` (KL annealing: Bowman et al. 2016, section 3.1,
    https://arxiv.org/abs/1511.06349). The loss that is reported has the full beta.
    """

    def __init__(self, encoder, decoder_logits, beta=1.0, warm_up_steps=0):
        super().__init__()
        self.encoder = encoder
        self.decoder_logits = decoder_logits
        self.beta = beta
        self.warm_up_steps = warm_up_steps
        self.trackers = [keras.metrics.Mean(name) for name in CURVES]
        self.built = True  # as both networks are

    def get_config(self):  # ModelCheckpoint needs it
        networks = {"encoder": self.encoder, "decoder_logits": self.decoder_logits}
        return networks | {"beta": self.beta, "warm_up_steps": self.warm_up_steps}

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


# ---- Optimizer ---------------------------------------------------------------

ADAM_WEIGHT_DECAY = 0.05  # times the learning rate: without it, the encoder overfits
WARM_UP = 0.1  # share of the steps over which the learning rate rises
INITIAL_RATE = 0.04  # of the peak learning rate


# shared
class ConvMuon(keras.optimizers.Muon):
    """Keras's Muon for the kernels of convolutions, as matrices; AdamW for other variables.

    The update of a matrix is nearly orthogonal: Jordan et al. 2024,
    https://kellerjordan.github.io/posts/muon, scaled as in Liu et al. 2025,
    https://arxiv.org/abs/2502.16982, eq. 4. `exclude_layers` has parts of names, for AdamW.
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

    def _adamw_update_step(self, gradient, variable, learning_rate, m, v):
        step = tf.cast(self.iterations + 1, variable.dtype)
        tf.raw_ops.ResourceApplyAdam(  # one kernel is faster than Keras's many
            var=variable.handle,
            m=m.value.handle,
            v=v.value.handle,
            beta1_power=self.adam_beta_1**step,
            beta2_power=self.adam_beta_2**step,
            lr=tf.cast(learning_rate, variable.dtype),
            beta1=self.adam_beta_1,
            beta2=self.adam_beta_2,
            epsilon=self.epsilon,
            grad=tf.cast(gradient, variable.dtype),
        )


def learning_rate(peak, steps):
    """Return a schedule: the rate rises linearly, then falls as a cosine to 0."""
    warm_up = int(WARM_UP * steps)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=INITIAL_RATE * peak,
        warmup_target=peak,
        warmup_steps=warm_up,
        decay_steps=steps - warm_up,
    )


def vae_optimizer(rate):
    """Return the optimizer: Muon for the encoder's convolutions except the first, and AdamW."""
    return ConvMuon(
        rate,
        adam_beta_2=0.99,
        exclude_layers=["conv0", "transpose"],  # Muon hurts the first one and the decoder
        ns_steps=3,  # Newton-Schulz iterations: as good as 5, and as fast as Adam alone
        weight_decay=None,
        adam_weight_decay=ADAM_WEIGHT_DECAY,
    )


def build_vae(train, latent_dim, beta, rate) -> VAE:
    """Return the compiled VAE for uint8 training images and a learning rate schedule."""
    shape = train.shape[1:]
    pixel_mean = float(train.mean() / 255)
    encoder = build_encoder(shape, latent_dim, pixel_mean)
    decoder_logits = build_decoder(shape, latent_dim, pixel_mean)
    warm_up_steps = rate.warmup_steps if sizes_of(latent_dim).has_kl_annealing else 0
    vae = VAE(encoder, decoder_logits, beta, warm_up_steps)
    vae.compile(vae_optimizer(rate))
    return vae


# ---- Training and resuming ---------------------------------------------------

# Options that may differ when a run is resumed; the CRC-32 of the images stands for the data.
MAY_DIFFER = {"data", "model_dir", "images_dir", "all_devices", "resume", "importance_samples"}


# shared
@contextlib.contextmanager
def global_settings(seed, bfloat16):
    """Set what Keras and TensorFlow keep globally, and set it back after the run."""
    with contextlib.ExitStack() as at_end:
        at_end.callback(keras.config.set_dtype_policy, keras.config.dtype_policy())
        at_end.callback(keras.config.set_floatx, keras.config.floatx())
        at_end.callback(keras.config.set_image_data_format, keras.config.image_data_format())
        at_end.callback(random.setstate, random.getstate())
        if not tf_config.is_op_determinism_enabled():
            at_end.callback(tf_config.disable_op_determinism)
        keras.config.set_dtype_policy("mixed_bfloat16" if bfloat16 else "float32")
        keras.config.set_floatx("float32")
        keras.config.set_image_data_format("channels_last")
        tf.config.experimental.enable_op_determinism()
        random.seed(seed)  # Keras draws the seeds of initial weights from here
        yield


# shared
def choose_strategy(all_devices, batch_size):
    """Return the strategy for the workers of TF_CONFIG, one GPU, all GPUs, or the CPU."""
    strategy = tf.distribute.get_strategy()
    if "TF_CONFIG" in os.environ:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    else:
        gpus = tf.config.list_logical_devices("GPU")
        devices = gpus or tf.config.list_logical_devices("CPU")
        devices = devices if all_devices else devices[:1]
        print("training on", ", ".join(device.name.split(":", 1)[1] for device in devices))
        driver = os.path.exists("/proc/driver/nvidia/version") or shutil.which("nvidia-smi")
        if driver and not gpus and os.environ.get("CUDA_VISIBLE_DEVICES") not in ("", "-1"):
            print('NVIDIA driver, but no GPU found: pip install "tensorflow[and-cuda]==2.21.*"')
        if len(devices) > 1:
            strategy = tf.distribute.MirroredStrategy()
    count = strategy.num_replicas_in_sync
    if count > 1 and batch_size % (count * BATCH_DIVISOR):
        must = f"a multiple of {count * BATCH_DIVISOR} with {count} devices"
        raise InputError(f"--batch-size must be {must}, found {batch_size}")
    return strategy


# shared
def run_settings(options, train, validation):
    """Return {name: text} of what must be the same when a run is resumed."""
    names = [name for name in vars(options) if name not in MAY_DIFFER]
    settings = {name: str(getattr(options, name)) for name in names}
    settings["training images (CRC-32)"] = str(zlib.crc32(train))
    settings["validation images (CRC-32)"] = str(zlib.crc32(validation))
    settings["script (CRC-32)"] = str(zlib.crc32(Path(__file__).read_bytes()))
    return settings | {"keras": keras.__version__, "tensorflow": tf.__version__}


# shared
def need_same_settings(then, now):
    """Raise an InputError if the settings of a run differ from those of this command."""
    for name in now | then:
        was, found = then.get(name, "unknown"), now.get(name, "unknown")
        if was != found:
            raise InputError(f"--resume: {name} must be {was}, as before, found {found}")


# shared
def is_finished(model_dir, settings):
    """Return whether a run of these settings has ended and left its results there."""
    metrics = model_dir / "metrics.json"
    if [*model_dir.glob("checkpoints/epoch-*.npz")] or not metrics.exists():
        return False
    need_same_settings(json.loads(metrics.read_text()).get("settings", {}), settings)
    return True


# shared
def prepare_folders(model_dir, images_dir):
    """Make the folders of a run, which fails now if they cannot be made."""
    if (model_dir / OTHER_MODEL).exists():
        found = f"{OTHER_MODEL} of the other one in {model_dir}"
        raise InputError(f"--model-dir must be another folder for each script, found {found}")
    for folder in (model_dir / "checkpoints", images_dir):
        folder.mkdir(parents=True, exist_ok=True)
    print(f"models go to {model_dir}, pictures to {images_dir}")


# shared
def load_weights(folder, models):
    """Give {name: model} the weights of a finished run, from the files {name}.keras."""
    for name, model in models.items():
        try:
            finished = keras.models.load_model(f"{folder}/{name}.keras", compile=False)
            model.set_weights(finished.get_weights())
        except Exception as error:  # zipfile, h5py and Keras raise many types of errors
            text = f"--start-from {folder} must have {name}.keras with the same shapes"
            raise InputError(f"{text}, found: {str(error)[:300]}") from error


# shared
def replace(path, write):
    """Let `write` write a hidden file, then rename it to `path`, which is whole then."""
    unfinished = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        write(unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


# shared
def work_around_keras_20585(model):
    """Let `fit` of Keras 3.15 run on several devices: keras-team/keras issue 20585.

    It reduces results over a missing axis, and cannot build models that take only images.
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


# shared
class TrainingRun(keras.callbacks.Callback):
    """Trains a model, prints and keeps what each epoch gives, and can continue after a stop.

    It is made within the scope of the model's strategy.
    After every epoch it writes a checkpoint, an .npz file: weights, variables of the
    optimizer, and a record in JSON. The CRC-32 of the zip format tells if it is damaged. The
    newest two are kept, and the one of the lowest validation loss.
    """

    def __init__(self, model, model_dir, settings):
        super().__init__()
        self.set_model(model)
        self.folder = model_dir / "checkpoints"
        self.settings = settings  # what must be the same when the run is resumed
        strategy = model.distribute_strategy
        self.is_chief = strategy.extended.should_checkpoint  # prints, and writes files
        model.optimizer.build(model.trainable_variables)
        if tf.distribute.has_strategy():
            work_around_keras_20585(model)
        self.variables = model.weights + model.optimizer.variables
        self.history = {}
        self.seconds = 0.0
        self.known = set()  # paths of the checkpoints of this run
        self.done = 0  # epochs

    def path(self, epoch):
        return self.folder / f"epoch-{epoch:06}.npz"

    def paths(self):
        """Return the paths of the checkpoints, the newest first."""
        return sorted(self.folder.glob("epoch-*.npz"), reverse=True)

    def best_epoch(self):
        """Return the number of the epoch with the lowest validation loss."""
        return 1 + int(np.argmin(self.history["val_loss"]))

    def read(self, path):
        """Return the record of a checkpoint, and its arrays, in the order of the variables."""
        with np.load(path) as file:
            record, *arrays = file.values()
        return json.loads(str(record)), arrays

    def restore(self, resume):
        """Continue after the newest good checkpoint, if there is one."""
        self.known = set(self.paths())
        if self.known and not resume:
            raise InputError(f"{self.folder} must be empty without --resume, found a run")
        for path in self.paths():
            try:
                record, arrays = self.read(path)
            except Exception as error:  # zipfile and NumPy raise many types of errors
                print(f"{path} is damaged: {error}", file=sys.stderr)
                continue
            need_same_settings(record["settings"], self.settings)
            for variable, array in zip(self.variables, arrays, strict=True):
                variable.assign(array)
            self.history, self.seconds = record["history"], record["seconds"]
            self.done = len(self.history["loss"])
            print(f"resuming after epoch {self.done} of {self.settings['epochs']}")
            return
        if self.known:
            raise InputError(f"{self.folder} must have a whole checkpoint, found damaged ones")

    def fit(self, train_dataset, validation_dataset, epochs, steps, callbacks):
        """Train for the epochs that are not done yet, of `steps` batches each."""
        self.start = time.perf_counter() - self.seconds
        try:
            self.model.fit(
                train_dataset.prefetch(4),
                initial_epoch=self.done,
                epochs=epochs,
                steps_per_epoch=steps,
                validation_data=validation_dataset.prefetch(4),
                shuffle=False,  # the batches are in a random order already
                callbacks=[self, *callbacks],
                verbose=int(self.is_chief and sys.stdout.isatty()),
            )
        except KeyboardInterrupt:
            text = f"stopped after epoch {self.done}; continue with --resume"
            raise KeyboardInterrupt(text) from None

    def on_epoch_end(self, epoch, logs=None):
        self.seconds = time.perf_counter() - self.start
        names = [*CURVES, *(f"val_{name}" for name in CURVES)]
        for name in names:
            self.history.setdefault(name, []).append(float(logs[name]))
        values = ", ".join(f"{name} {logs[name]:.{DECIMALS}f}" for name in names)
        text = f"epoch {epoch + 1} of {self.params['epochs']}: {values}"
        if not math.isfinite(logs["loss"] + logs["val_loss"]):
            raise InputError(f"the loss must be finite, found {text}")
        if self.is_chief:
            self.write_checkpoint(epoch + 1)
        self.done = epoch + 1
        if self.is_chief and not sys.stdout.isatty():  # a terminal has a progress bar
            print(text, flush=True)

    def write_checkpoint(self, epoch):
        """Write the state of the run; remove the checkpoints that are not needed any more."""
        if set(self.paths()) - self.known:
            raise InputError(f"{self.folder} must be of one run, found files of another")
        record = {"settings": self.settings, "history": self.history, "seconds": self.seconds}
        arrays = {str(index): array.numpy() for index, array in enumerate(self.variables)}
        write = functools.partial(np.savez, record=json.dumps(record), **arrays)
        self.known.add(self.path(epoch))
        replace(self.path(epoch), write)
        kept = {self.path(self.best_epoch()), *self.paths()[:2]}
        for path in set(self.paths()) - kept:
            path.unlink()

    def remove_checkpoints(self):
        """Remove all, the newest first: whichever is left, the run can go on from there."""
        for path in sorted(self.folder.glob("*epoch-*.npz"), reverse=True):  # some unfinished
            path.unlink()

    def load_best_weights(self):
        """Give the model the weights of the epoch with the lowest validation loss."""
        best = self.best_epoch()
        if best < len(self.history["loss"]):
            _, arrays = self.read(self.path(best))
            self.model.set_weights(arrays[: len(self.model.weights)])


# ---- Evaluation --------------------------------------------------------------

ACTIVE_KL = 0.01  # nats, of a dimension that is in use: cf. Burda et al. 2016, section 5.2
COLLAPSED_KL = 0.1  # nats per image
DECODED_VALUES = 5000 * 28 * 28  # values of pixels that are decoded per chunk: 200 MB


def importance_weights(encoder, decoder_logits, images, samples, seed):
    """Return reconstruction (samples, n), KL (n, latent_dim) and log w (samples, n), in nats.

    w = p(x|z) p(z) / q(z|x), at draws of z from q(z|x): Burda et al., Importance Weighted
    Autoencoders, 2016, eq. 8, https://arxiv.org/abs/1509.00519
    """
    z_mean, z_log_sigma = encoder(images)  # (n, latent_dim)
    epsilon = tf.random.stateless_normal((samples, *tf.unstack(tf.shape(z_mean))), seed)
    z = z_mean + tf.exp(z_log_sigma) * epsilon  # (samples, n, latent_dim)
    logits = decoder_logits(tf.reshape(z, (-1, z.shape[-1])))
    logits = tf.reshape(logits, (samples, *tf.unstack(tf.shape(images))))
    reconstruction = bernoulli_negative_log_likelihood(images, logits)  # (samples, n)
    log_ratio = tf.reduce_sum((epsilon**2 - z**2) / 2 + z_log_sigma, axis=-1)  # p(z) / q(z|x)
    kl = kl_to_standard_normal(z_mean, z_log_sigma)
    return reconstruction, kl, log_ratio - reconstruction


def evaluate(encoder, decoder_logits, images, samples: int = 50, seed: int = 0) -> dict:
    """Return the METRICS and the KL of each dimension: means over uint8 images.

    Minus the log of the mean of w (see importance_weights) is on average an upper bound on
    -log p(x): the negative ELBO with one sample, closer with more.
    """
    at_once = min(samples, DECODED_VALUES // images[0].size)  # samples of an image
    batch_size = DECODED_VALUES // (at_once * images[0].size)
    weights_of = tf.function(importance_weights, autograph=False)
    reconstructions, kls, bounds = [], [], []
    for batch, batch_seed in eval_batches(images, seed, "test", batch_size):
        chunks = []
        for start in range(0, samples, at_once):
            count = min(at_once, samples - start)
            chunk_seed = batch_seed + start
            chunks.append(weights_of(encoder, decoder_logits, batch, count, chunk_seed))
        reconstruction, kl, log_w = zip(*chunks, strict=True)
        reconstructions.append(tf.reduce_mean(tf.concat(reconstruction, axis=0), axis=0))
        kls.append(kl[0])
        log_sum = tf.reduce_logsumexp(tf.concat(log_w, axis=0), axis=0)
        bounds.append(log_sum - math.log(samples))
    reconstruction = np.concatenate(reconstructions).mean(dtype=float)
    kl = np.concatenate(kls).mean(axis=0, dtype=float)
    return {
        "negative_elbo": float(reconstruction + kl.sum()),
        "reconstruction": float(reconstruction),
        "kl": float(kl.sum()),
        "negative_iwae_bound": -float(np.concatenate(bounds).mean(dtype=float)),
        "kl_by_dimension": kl.tolist(),
        "active_dimensions": int(np.sum(kl > ACTIVE_KL)),
    }


# shared
def print_results(results, run, options):
    """Print the results, what to expect of a default run, and which epoch they are of."""
    usual = vars(parse_options([]))
    changed = [name for name in usual if getattr(options, name) != usual[name]]
    is_default = set(changed) <= {"seed", "resume", "model_dir", "images_dir", "all_devices"}
    print(f"\nmeans per test image, after {run.seconds:.0f} s of training:")
    for key, name, unit, better, expected in METRICS:
        if key not in results:
            continue
        line = f"  {name:<15}{results[key]:9.{DECIMALS}f} {unit:<5}{better:<18}"
        print(f"{line}expected {expected}" if is_default else line.rstrip())
    best, last = run.best_epoch(), len(run.history["loss"])
    if best < last:
        print(f"lowest validation loss after epoch {best} of {last}: its weights are saved")
    elif last > 1:
        print("validation loss still falling at the end: more --epochs may help")


# shared
def save_records(options, results, run, arrays, train):
    """Write history.csv, and metrics.json: results, options, and what was learned from."""
    columns = {"epoch": range(1, len(run.history["loss"]) + 1)} | run.history
    rows = [columns, *zip(*columns.values(), strict=True)]
    history = "".join(",".join(map(str, row)) + "\n" for row in rows)
    about = {
        "channels": train.shape[3],
        "pixel_mean": float(train.mean() / 255),
        "pixel_range": arrays["pixel_range"].tolist() if "pixel_range" in arrays else None,
        "parameters": run.model.count_params(),
        "train_seconds": run.seconds,
        "best_epoch": run.best_epoch(),
        "settings": run.settings,
    }
    metrics = json.dumps(vars(options) | results | about, indent=2, default=str) + "\n"
    for name, text in (("history.csv", history), ("metrics.json", metrics)):
        replace(options.model_dir / name, functools.partial(Path.write_text, data=text))


# ---- Plots -------------------------------------------------------------------


STYLE = ["default", {"savefig.dpi": 150, "savefig.bbox": "tight"}]  # not the user's own


# shared
def plot_image_rows(path, title, rows, names=()):
    """Plot images in [0, 1], (rows, columns, height, width, channels)."""
    tiles = np.pad(rows, [(0, 0), (0, 0), (1, 1), (1, 1), (0, 0)], constant_values=1)
    count, columns, height, width, channels = tiles.shape
    figure = Figure(figsize=(0.7 * columns + 1, 0.7 * count + 0.5), layout="constrained")
    figure.suptitle(title)
    axes = figure.add_subplot(frame_on=False)
    image = tiles.swapaxes(1, 2).reshape(count * height, columns * width, channels)
    axes.imshow(image, cmap="gray", vmin=0, vmax=1)
    axes.set(xticks=[], yticks=(np.arange(len(names)) + 0.5) * height, yticklabels=names)
    axes.tick_params(length=0)
    replace(path, figure.savefig)


# shared
def plot_history(path, history):
    """Plot training and validation values of the CURVES by epoch."""
    figure = Figure(figsize=(4.5 * len(CURVES) + 1, 4), layout="constrained")
    epochs = range(1, len(history["loss"]) + 1)
    plots = figure.subplots(1, len(CURVES))
    for axes, (name, title) in zip(plots, CURVES.items(), strict=True):
        axes.plot(epochs, history[name], ".-", label="training")
        axes.plot(epochs, history[f"val_{name}"], ".-", label="validation")
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend()
    replace(path, figure.savefig)


def plot_latent_space(path, codes, labels, kl_by_dimension):
    """Plot codes (n, latent_dim) in the two dimensions of the largest KL, colored by class."""
    first, second = sorted(np.argsort(kl_by_dimension)[-2:])
    order = np.random.default_rng(0).permutation(len(codes))  # no class hides the others
    classes, index = np.unique(labels, return_inverse=True)
    figure = Figure(figsize=(8.5, 7), layout="constrained")
    title = f"z_mean of {len(codes):,} test images; the circle has 95% of the prior's mass"
    axes = figure.add_subplot(title=title, xlabel=f"z[{first}]", ylabel=f"z[{second}]")
    axes.set_aspect("equal", adjustable="datalim")
    radius = math.sqrt(-2 * math.log(0.05))  # |z|^2 is exponential in two dimensions
    axes.add_patch(matplotlib.patches.Circle((0, 0), radius, fill=False, linestyle="--"))
    colors = matplotlib.colormaps["tab10" if len(classes) <= 10 else "tab20"]
    x, y = codes[order][:, [first, second]].T
    points = axes.scatter(x, y, s=8, c=index[order], cmap=colors)
    if 1 < len(classes) <= 30:
        handles, _ = points.legend_elements(num=None)
        axes.legend(handles, classes, loc="center left", bbox_to_anchor=(1, 0.5))
    replace(path, figure.savefig)


def plot_manifold(path, decoder, side=20):
    """Plot side x side decoded points of a 2-D latent space, of equal mass of the prior."""
    prior = statistics.NormalDist()
    quantiles = [prior.inv_cdf((step + 0.5) / side) for step in range(side)]
    across, up = np.meshgrid(quantiles, quantiles[::-1])  # the first row is the top one
    z = np.stack([across, up], axis=-1).reshape(-1, 2)
    tiles = decoder(tf.constant(z, tf.float32)).numpy()
    _, height, width, channels = tiles.shape
    image = tiles.reshape(side, side, height, width, channels).swapaxes(1, 2)
    image = image.reshape(side * height, side * width, channels)
    figure = Figure(figsize=(8, 8.5), layout="constrained")
    title = "Every point decodes to an image (ticks: quantiles of the prior)"
    axes = figure.add_subplot(title=title, xlabel="z[0]", ylabel="z[1]")
    settings = {"extent": (0, side, 0, side), "interpolation_stage": "data"}  # less memory
    axes.imshow(image, cmap="gray", vmin=0, vmax=1, **settings)
    ticks = np.arange(side) + 0.5
    texts = [f"{quantile:.2f}" for quantile in quantiles]
    axes.set_xticks(ticks, texts, rotation=90)
    axes.set_yticks(ticks, texts)
    replace(path, figure.savefig)


def plot_traversals(path, code, kl_by_dimension, decoder):
    """Plot latent traversals of a code (latent_dim,), in the dimensions of the largest KL."""
    dimensions = np.argsort(kl_by_dimension)[::-1][:10]
    steps = np.linspace(-2, 2, 11)  # in the middle 0: the code as it is
    z = np.tile(code, (len(dimensions), len(steps), 1))
    for row, dimension in enumerate(dimensions):
        z[row, :, dimension] += steps
    decoded = decoder(z.reshape(-1, len(code)))
    rows = tf.reshape(decoded, (*z.shape[:2], *decoded.shape[1:]))
    title = "Latent traversals of a test image: -2 to 2 in the dimensions of the largest KL"
    plot_image_rows(path, title, rows, [f"z[{dimension}]" for dimension in dimensions])


def plot_all(folder, encoder, decoder, images, labels, kl_by_dimension, history):
    """Plot the five pictures, from the first test images and the history of the training."""
    images, labels = images[:5000], labels[:5000]
    batches = eval_batches(images, 0, "plots")
    codes = np.concatenate([encoder(batch)[0] for batch, _ in batches])
    plot_latent_space(folder / "vae_latent_space.png", codes, labels, kl_by_dimension)
    if codes.shape[1] == 2:
        plot_manifold(folder / "vae_manifold.png", decoder)
    else:
        plot_traversals(folder / "vae_manifold.png", codes[0], kl_by_dimension, decoder)
    rows = [images[:10] / 255, decoder(codes[:10])]
    title = f"Each image from {codes.shape[1]} numbers, its z_mean"
    names = ["test image", "decoded"]
    plot_image_rows(folder / "vae_reconstructions.png", title, rows, names)
    z = tf.random.stateless_normal((4 * 10, codes.shape[1]), stateless_seed(0, "plots"))
    samples = tf.reshape(decoder(z), (4, 10, *images.shape[1:]))
    plot_image_rows(folder / "vae_samples.png", "New images, sampled from the prior", samples)
    plot_history(folder / "vae_loss.png", history)


# ---- Main --------------------------------------------------------------------


def main(options: argparse.Namespace, callbacks=()):
    """Load the images; build, train and evaluate the VAE; save the models; plot."""
    with global_settings(options.seed, options.bfloat16):
        arrays = load_arrays(options.data)
        train, validation, test, labels = split_images(arrays, options.data, options.limit)
        settings = run_settings(options, train, validation)
        if options.resume and is_finished(options.model_dir, settings):
            print(f"this run is finished; its results are in {options.model_dir}")
            return
        latent_dim = options.latent_dim
        is_rgb = train.shape[3] == 3
        if is_rgb and latent_dim == 2:
            print("--latent-dim 16 and more suit RGB images better than 2")

        batch_size = min(options.batch_size, len(train))
        steps = len(train) // batch_size
        with choose_strategy(options.all_devices, batch_size).scope():
            rate = learning_rate(options.learning_rate, options.epochs * steps)
            vae = build_vae(train, latent_dim, options.beta, rate)
            run = TrainingRun(vae, options.model_dir, settings)
        encoder, decoder_logits = vae.encoder, vae.decoder_logits
        run.restore(options.resume)
        if options.start_from and not run.done:
            load_weights(options.start_from, {"encoder": encoder, "decoder": decoder_logits})
        if run.is_chief:
            prepare_folders(options.model_dir, options.images_dir)
            print(f"images {train.shape[1:]}: {len(train):,} to train,", end=" ")
            print(f"{len(validation):,} to validate, {len(test):,} to test")
            print(f"{vae.count_params():,} parameters")

        eval_batch = functools.partial(vae_batch, latent_dim=latent_dim)
        is_mixed = sizes_of(latent_dim).is_mixed
        train_batch = functools.partial(eval_batch, is_mixed=is_mixed, is_shifted=is_rgb)
        batches = train_batches(train, batch_size, options.seed, run.done, options.epochs)
        eval_dataset = eval_batches(validation, options.seed, "validation").map(eval_batch)
        run.fit(batches.map(train_batch), eval_dataset, options.epochs, steps, callbacks)
        if not run.is_chief:
            return

        run.load_best_weights()
        samples = options.importance_samples
        results = evaluate(encoder, decoder_logits, test, samples, options.seed)
        print_results(results, run, options)
        active = results["active_dimensions"]
        print(f"  active dimensions: {active} of {latent_dim} (KL above {ACTIVE_KL} nats)")
        if results["kl"] < COLLAPSED_KL:
            print("posterior collapse: the KL term is near zero; see docs/questions.md")

        probabilities = layers.Activation("sigmoid", dtype="float32")(decoder_logits.output)
        decoder = keras.Model(decoder_logits.input, probabilities, name="decoder")
        replace(options.model_dir / "encoder.keras", encoder.save)
        replace(options.model_dir / "decoder.keras", decoder.save)
        save_records(options, results, run, arrays, train)
        with matplotlib.style.context(STYLE):
            kl = results["kl_by_dimension"]
            plot_all(options.images_dir, encoder, decoder, test, labels, kl, run.history)
        run.remove_checkpoints()
        picture = "vae_manifold.png" if latent_dim == 2 else "vae_reconstructions.png"
        print(f"see {options.images_dir / picture} first; to generate images as files:")
        print(f"python examples/generate_pictures.py --output DIR --model-dir {options.model_dir}")


if __name__ == "__main__":
    old_handler = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    try:
        main(OPTIONS)
    except BrokenPipeError:  # nobody reads the output any more, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(141)  # as a shell reports it
    except FileNotFoundError:  # the user's files were checked, so this is a bug
        raise
    except (InputError, OSError, MemoryError, tf.errors.ResourceExhaustedError) as error:
        fail(error)
    except KeyboardInterrupt as stop:
        print(str(stop) or "stopped", file=sys.stderr)
        sys.exit(130)  # as a shell reports it
    finally:
        signal.signal(signal.SIGTERM, old_handler)
