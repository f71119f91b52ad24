# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["tensorflow==2.21.*", "keras==3.15.*", "numpy>=2,<3", "matplotlib>=3.10,<4"]
# ///
"""Denoising autoencoder: noisy images in, clean ones out, through a convolutional code.

    python StackedDenoisingAutoEncoder.py    # train on MNIST, evaluate, plot
    python StackedDenoisingAutoEncoder.py --limit 5000 --epochs 5 --model-dir try_denoiser
    python StackedDenoisingAutoEncoder.py --data own.npz --noise 0.1 --model-dir own

Three convolutions encode the noisy image. The decoder makes the clean one, p, from the code:

    noisy = clip(clean + noise * epsilon, 0, 1)       with epsilon ~ N(0, I), or see --corruption
    loss = mean over pixels of -clean log p - (1 - clean) log(1 - p); RGB images: (clean - p)^2

Vincent et al. 2010, https://jmlr.org/papers/v11/vincent10a.html

--data takes mnist, fashion_mnist, an .npz file with x_train and, optionally, x_val and x_test;
or an .npy file, which is x_train. Images are (n, height, width) or (n, height, width, 1 or 3),
with sides of 8 to 256; uint8 with values above 1, bool, or float in [0, 1]; at least 20 in
x_train. Paired noisy images are x_train_noisy, x_val_noisy and x_test_noisy, of the same shapes
and order. examples/prepare_data.py converts other data.
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
import sys
import time
import zlib
from pathlib import Path

DESCRIPTION = "Train a denoising autoencoder on images; evaluate, save and plot it."
MODEL_DIR = Path("models/denoiser")
OTHER_MODEL = "decoder.keras"  # of the VAE, whose folder must not be used
EPOCHS = 8
LEARNING_RATE = 3e-3  # peak
NOISE = 0.5  # standard deviation: digits are hard to read then
HIDDEN_SHARE = 0.05  # of the pixels: --noise of blind-spot
BATCH_DIVISOR = 4  # images of a batch that must stay together on a device: of a mosaic
DECIMALS = 4  # of the results as they are printed
METRICS = [  # key, name, unit, which way is better, range to expect of a default run
    ("psnr", "PSNR", "dB", "higher is better", "21.15 to 21.22"),
    ("ssim", "SSIM", "", "higher is better", "0.8933 to 0.8951"),
    ("mse", "MSE", "", "lower is better", "0.00826 to 0.00838"),
    ("bce", "BCE", "nats", "lower is better", "0.0867 to 0.0871"),
    ("noisy_psnr", "noisy PSNR", "dB", "before denoising", "9.372 to 9.389"),
    ("hidden_mse", "hidden MSE", "", "lower is better", ""),
    ("median_mse", "median MSE", "", "of the 8 neighbors", ""),
    ("max_noise", "noise", "", "at most: see docs/noisy-only.md", ""),
]
CURVES = {  # what every epoch prints, records and plots, and the title of its plot
    "loss": "loss: cross-entropy, or squared error of RGB images",
    "psnr": "PSNR, dB",
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
    kinds = ("gaussian", "masking", "salt-and-pepper", "blind-spot")
    text = "gaussian (default), masking, salt-and-pepper; blind-spot: the images are noisy"
    add("--corruption", choices=kinds, default="gaussian", metavar="KIND", help=text)
    level = in_range(float, 1e-3, 100)
    default = f"{NOISE}, or {HIDDEN_SHARE} with blind-spot"
    text = f"standard deviation, or share of the pixels (default: {default}); two are a range"
    add("--noise", type=level, nargs="+", metavar="X", help=text)


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


def load_pairs(arrays, source, limit):
    """Return training, validation and test images with the noisy ones as further channels."""
    for split in ("train", "val", "test"):
        if (f"x_{split}" in arrays) != (f"x_{split}_noisy" in arrays):
            text = f"{source} must have both or neither of x_{split} and x_{split}_noisy"
            raise InputError(f"{text}, found one")
    *clean_splits, _ = split_images(arrays, source)  # a limit would hide differences
    *noisy_splits, _ = split_images(arrays, source, suffix="_noisy")
    fifth = None if limit is None else limit // 5
    pairs = []
    limits = (limit, fifth, fifth)
    for clean, noisy, count in zip(clean_splits, noisy_splits, limits, strict=True):
        if clean.shape != noisy.shape:
            text = f"{source}: noisy images must be {clean.shape}, as the clean ones"
            raise InputError(f"{text}, found {noisy.shape}")
        pairs.append(np.concatenate([clean[:count], noisy[:count]], axis=-1))
    return pairs


def add_noise(clean, stddev, seed):
    """Return clean images with Gaussian noise, clipped to [0, 1]; `seed` is (2,)."""
    epsilon = tf.random.stateless_normal(tf.shape(clean), seed)
    return tf.clip_by_value(clean + stddev * epsilon, 0, 1)


def mask_pixels(clean, share, seed):
    """Return clean images with a share of the pixels set to 0, in all channels."""
    draw = tf.random.stateless_uniform(tf.shape(clean[..., :1]), seed)
    return tf.where(draw < share, 0.0, clean)


def add_salt_and_pepper(clean, share, seed):
    """Return clean images with a share of the pixels set to 1 or 0, equally often."""
    draw = tf.random.stateless_uniform(tf.shape(clean[..., :1]), seed)
    peppered = tf.where(draw < share, 0.0, clean)
    return tf.where(draw < share / 2, 1.0, peppered)


# Vincent et al. 2010, section 3.3, has the three; here each pixel is drawn by itself. The
# second argument is the level: a standard deviation, or a share of the pixels.
CORRUPTIONS = {
    "gaussian": add_noise,
    "masking": mask_pixels,
    "salt-and-pepper": add_salt_and_pepper,
}


def corrupt(clean, kind, levels, seed):
    """Return clean images (n, height, width, channels) with noise, each of its own level.

    The levels are drawn uniformly between the first of `levels` and the last.
    """
    level_seed, noise_seed = tf.unstack(tf.random.split(seed))
    draw = tf.random.stateless_uniform(tf.shape(clean[:, :1, :1, :1]), level_seed)
    level = levels[0] + (levels[-1] - levels[0]) * draw
    return CORRUPTIONS[kind](clean, level, noise_seed)


def split_pairs(images, seed=None):
    """Return noisy and clean images: the channels of one array. There is nothing to draw."""
    clean, noisy = tf.split(images, 2, axis=-1)
    return noisy, clean


MOSAIC_SHARE = 0.2  # of the training batches: large pictures need some, digits need none


def mosaics(clean, seed):
    """Return a batch, or, for a share of the seeds, mosaics of 2 x 2 of its images.

    A mosaic is shifted at random and wraps around. Trained on single images only, the model
    would learn to rely on borders, and fail on larger pictures.
    """
    count, height, width, _ = clean.shape
    if count < 4:
        return clean
    draw, y, x = tf.unstack(tf.random.stateless_uniform((3,), seed))
    if draw > MOSAIC_SHARE:
        return clean
    a, b, c, d = tf.split(clean[: count // 4 * 4], 4)
    upper = tf.concat([a, b], axis=2)
    lower = tf.concat([c, d], axis=2)
    shift = tf.cast([y * height, x * width], tf.int32)
    return tf.roll(tf.concat([upper, lower], axis=1), shift, axis=(1, 2))


def shuffle_channels(clean, seed):
    """Return a batch of RGB images with its channels in a random order; others as they are.

    A few pictures have few colors. Trained on them only, the model would turn unseen colors into
    seen ones: green leaves became blue.
    """
    if clean.shape[-1] != 3:
        return clean
    order = tf.random.experimental.stateless_shuffle(tf.range(3), seed)
    return tf.gather(clean, order, axis=-1)


def hide_pixels(noisy, share, seed):
    """Return noisy images with a share of the pixels hidden, the noisy ones, and weights.

    A hidden pixel has the value of another one, at most two pixels away in each direction. The
    loss at hidden pixels alone teaches what neighbors say of a pixel, not its own noise, if that
    is independent in each pixel: Krull et al. 2019, https://arxiv.org/abs/1811.10980
    """
    hiding_seed, shift_seed = tf.unstack(tf.random.split(seed))
    draw = tf.random.stateless_uniform(tf.shape(noisy[..., :1]), hiding_seed)
    is_hidden = draw < share
    shifts = [(y, x) for y in range(-2, 3) for x in range(-2, 3) if y or x]
    shift = tf.random.experimental.stateless_shuffle(shifts, shift_seed)[0]
    neighbors = tf.roll(noisy, shift, axis=(1, 2))
    weights = tf.cast(is_hidden[..., 0], tf.float32) / share
    return tf.where(is_hidden, neighbors, noisy), noisy, weights


def noisy_batch(images, seed, corruption, levels):
    """Return a batch (noisy, clean) of clean images, or of pairs; or that of hide_pixels."""
    if corruption == "paired":
        return split_pairs(images)
    if corruption == "blind-spot":
        return hide_pixels(images, levels[0], seed)
    return corrupt(images, corruption, levels, seed), images


def augmented_batch(images, seed, corruption, levels):
    """Return a noisy_batch for training, with mosaics and random channel permutations."""
    mosaic_seed, channel_seed, noise_seed = tf.unstack(tf.random.split(seed, 3))
    images = shuffle_channels(mosaics(images, mosaic_seed), channel_seed)
    return noisy_batch(images, noise_seed, corruption, levels)


# ---- Encoder and decoder -----------------------------------------------------


def num_filters(channels):
    """Return the filters of the first layer; the code has twice as many. RGB takes more."""
    return 32 if channels == 1 else 64


def build_encoder(channels: int) -> keras.Model:
    """Return a model from noisy images (n, height, width, channels) of any size to codes."""
    image = keras.Input((None, None, channels), name="image")  # (n, 28, 28, 1)
    # Noise is clipped to [0, 1], so a black or a white pixel may have been any value beyond.
    black = layers.ReLU()(layers.Rescaling(-50, 1)(image))  # 1 at 0, and 0 from 0.02 on
    white = layers.ReLU()(layers.Rescaling(50, -49)(image))  # 1 at 1, and 0 up to 0.98
    x = layers.Concatenate()([image, black, white])  # (n, 28, 28, 3)
    filters = num_filters(channels)
    strided = {"strides": 2, "padding": "same", "activation": "relu"}
    x = layers.Conv2D(filters, 5, **strided)(x)  # (n, 14, 14, 32)
    x = layers.Conv2D(2 * filters, 3, **strided)(x)  # (n, 7, 7, 64)
    x = layers.Conv2D(2 * filters, 3, padding="same")(x)  # (n, 7, 7, 64)
    return keras.Model(image, x, name="encoder")


def build_decoder(channels: int, pixel_mean: float = 0.5) -> keras.Model:
    """Return a model from codes (n, 7, 7, 64 or 128) to logits of pixels (n, 28, 28, channels).

    Residual blocks: He et al. 2016, https://arxiv.org/abs/1603.05027. The dilated one has a
    larger receptive field. Everywhere, it starts near `pixel_mean`, that of training pixels.
    """
    filters = num_filters(channels)
    x = code = keras.Input((None, None, 2 * filters), name="code")  # (n, 7, 7, 64)
    for dilation in (1, 3, 1):
        block = layers.Activation("relu")(x)
        same_size = {"padding": "same", "dilation_rate": dilation, "use_bias": False}
        block = layers.Conv2D(2 * filters, 3, **same_size)(block)
        x = layers.Add()([x, block])
    x = layers.Activation("relu")(x)
    x = layers.Conv2DTranspose(filters, 4, strides=2, padding="same", activation="relu")(x)
    odds = max(pixel_mean, 0.01) / max(1 - pixel_mean, 0.01)
    start = keras.initializers.Constant(math.log(odds))
    last = {"padding": "same", "bias_initializer": start, "dtype": "float32"}
    x = layers.Conv2DTranspose(channels, 4, strides=2, **last)(x)
    return keras.Model(code, x, name="decoder_logits")


# ---- Loss and training step --------------------------------------------------

MAX_PSNR = 100  # dB, in place of infinity for equal images


def squared_error(clean, logits):
    """Return the squared error (n, height, width), a mean over the channels."""
    return tf.reduce_mean((clean - tf.sigmoid(logits)) ** 2, axis=-1)


def loss_of(channels):
    """Return the loss of logits: cross-entropy of grayscale, squared error of RGB images.

    Cross-entropy counts errors in dark and in bright pixels most. That gives digits a better
    SSIM, but photographs, with all the values between, a worse PSNR.
    """
    if channels == 1:
        return keras.losses.BinaryCrossentropy(from_logits=True)
    return squared_error


def psnr(clean, logits):
    """Return the peak signal-to-noise ratio of each image (n,), 10 log10(1 / MSE), in dB."""
    mse = tf.reduce_mean((clean - tf.sigmoid(logits)) ** 2, axis=(1, 2, 3))
    return -10 * keras.ops.log10(tf.maximum(mse, 10 ** (-MAX_PSNR / 10)))


# ---- Optimizer ---------------------------------------------------------------

WEIGHT_DECAY = 0.004  # times the learning rate: Keras's default for Muon


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
    """Return a schedule: the rate falls linearly to 0, as Muon needs no warm-up here."""
    return keras.optimizers.schedules.PolynomialDecay(peak, steps, end_learning_rate=0.0)


def build_denoiser(clean, rate):
    """Return the encoder, and the compiled model of encoder and decoder, which gives logits.

    `clean` are uint8 training images; `rate` is a schedule of the learning rate.
    """
    channels = clean.shape[3]
    encoder = build_encoder(channels)
    decoder_logits = build_decoder(channels, float(clean.mean() / 255))
    logits = decoder_logits(encoder.output)
    denoiser = keras.Model(encoder.input, logits, name="denoiser_logits")
    denoiser.compile(
        optimizer=ConvMuon(rate, weight_decay=WEIGHT_DECAY),
        loss=loss_of(channels),
        metrics=[keras.metrics.MeanMetricWrapper(psnr, name="psnr")],
    )
    return encoder, denoiser


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


def image_metrics(clean, images):
    """Return PSNR (dB), SSIM, MSE and BCE (nats per pixel) of images against clean ones.

    SSIM has a Gaussian window of at most 11 pixels: Wang et al., Image Quality Assessment,
    2004.
    """
    window = min(11, *clean.shape[1:3])
    return {
        "psnr": tf.minimum(tf.image.psnr(clean, images, max_val=1), MAX_PSNR),
        "ssim": tf.image.ssim(clean, images, max_val=1, filter_size=window),
        "mse": tf.reduce_mean((clean - images) ** 2, axis=(1, 2, 3)),
        "bce": tf.reduce_mean(keras.ops.binary_crossentropy(clean, images), axis=(1, 2, 3)),
    }


def evaluate(model: keras.Model, test_dataset: tf.data.Dataset) -> dict:
    """Return mean metrics of denoised and, as noisy_*, of noisy images; (noisy, clean) batches."""
    metrics_of = tf.function(image_metrics, autograph=False)
    found = {}
    for noisy, clean in test_dataset:
        for name, values in metrics_of(clean, model(noisy)).items():
            found.setdefault(name, []).extend(values.numpy())
        for name, values in metrics_of(clean, noisy).items():
            found.setdefault(f"noisy_{name}", []).extend(values.numpy())
    return {name: float(np.mean(values, dtype=float)) for name, values in found.items()}


def evaluate_hidden(model, test_dataset):
    """Return the MSE at hidden pixels, of the model and of medians; batches of hide_pixels.

    If the noise is independent in each pixel, its variance adds to the MSE of the prediction.
    So the square root is at least the standard deviation of the noise.
    """
    around = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if y or x]
    found = {"hidden_mse": [], "median_mse": []}
    for hidden, noisy, weights in test_dataset:
        neighbors = tf.sort([tf.roll(noisy, shift, axis=(1, 2)) for shift in around], axis=0)
        predictions = (model(hidden), (neighbors[3] + neighbors[4]) / 2)
        for name, predicted in zip(found, predictions, strict=True):
            squares = tf.reduce_mean((predicted - noisy) ** 2, axis=-1)
            found[name].extend(squares[weights > 0].numpy())
    results = {name: float(np.mean(values, dtype=float)) for name, values in found.items()}
    return results | {"max_noise": math.sqrt(results["hidden_mse"])}


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


def plot_all(folder, model, test_dataset, history):
    """Plot the three pictures, from the first test images and the history of the training."""
    noisy, target, *_ = next(test_dataset.as_numpy_iterator())
    noisy, target = noisy[:10], target[:10]
    denoised = model(noisy).numpy()
    names = ["target", "input"]
    plot_image_rows(folder / "noisy_digits.png", "Test images", [target, noisy], names)
    residual = np.mean(denoised - target, axis=-1)  # -1 to 1
    residual = matplotlib.colormaps["RdBu_r"]((residual + 1) / 2)[..., :3]
    rows = [np.broadcast_to(row, residual.shape) for row in (noisy, denoised, target)]
    title = "Test images; residual = denoised - target (red: brighter, blue: darker)"
    names = ["input", "denoised", "target", "residual"]
    plot_image_rows(folder / "denoised_digits.png", title, [*rows, residual], names)
    plot_history(folder / "denoiser_loss.png", history)


# ---- Main --------------------------------------------------------------------


def choose_noise(options, is_paired):
    """Return the corruption, and the level of the noise, or two for a range, as a list."""
    is_blind = options.corruption == "blind-spot"
    if is_paired and not is_blind:
        if options.noise or options.corruption != "gaussian":
            text = "--noise and --corruption must be left out with paired noisy images"
            raise InputError(f"{text}, found them")
        return "paired", None
    levels = options.noise or [HIDDEN_SHARE if is_blind else NOISE]
    most_levels = 1 if is_blind else 2
    maximum = math.inf if options.corruption == "gaussian" else 1
    if len(levels) > most_levels or levels != sorted(levels) or levels[-1] > maximum:
        must = "a level, or a lower and a higher one (not with blind-spot); shares are at most 1"
        raise InputError(f"--noise must be {must}; found {' '.join(map(str, levels))}")
    return options.corruption, levels


def crop(images):
    """Return a view of images with sides that the model takes: multiples of 4."""
    height, width = images.shape[1:3]
    return images[:, : height // 4 * 4, : width // 4 * 4]


def main(options: argparse.Namespace, callbacks=()):
    """Load the images; build, train and evaluate the denoiser; save the models; plot."""
    with global_settings(options.seed, options.bfloat16):
        arrays = load_arrays(options.data)
        is_paired = any(name.endswith("_noisy") for name in arrays)
        corruption, levels = choose_noise(options, is_paired)
        is_blind = corruption == "blind-spot"
        if is_blind and "x_test_noisy" in arrays:  # then x_test alone is clean
            for name in arrays.keys() & {"x_train", "x_val"}:
                arrays.setdefault(f"{name}_noisy", arrays[name].copy())
        if is_paired:
            train, validation, test = load_pairs(arrays, options.data, options.limit)
        else:
            train, validation, test, _ = split_images(arrays, options.data, options.limit)
        settings = run_settings(options, train, validation)
        if options.resume and is_finished(options.model_dir, settings):
            print(f"this run is finished; its results are in {options.model_dir}")
            return
        channels = train.shape[3] // 2 if is_paired else train.shape[3]
        if is_blind:
            hidden = levels[0] * test[..., 0].size  # on average
            if hidden < 10:
                must = "--noise must hide 10 pixels or more of the test images"
                raise InputError(f"{must}, found {hidden:.1f}")
            train, validation = train[..., -channels:], validation[..., -channels:]
        clean = train[..., :channels]  # after them come the noisy images of pairs

        batch_size = min(options.batch_size, len(train))
        steps = len(train) // batch_size
        with choose_strategy(options.all_devices, batch_size).scope():
            rate = learning_rate(options.learning_rate, options.epochs * steps)
            encoder, denoiser = build_denoiser(clean, rate)
            run = TrainingRun(denoiser, options.model_dir, settings)
        run.restore(options.resume)
        if options.start_from and not run.done:
            load_weights(options.start_from, {"model": denoiser})
        if run.is_chief:
            prepare_folders(options.model_dir, options.images_dir)
            print(f"images {clean.shape[1:]}: {len(train):,} to train,", end=" ")
            print(f"{len(validation):,} to validate, {len(test):,} to test")
            print(f"{denoiser.count_params():,} parameters")

        noise = {"corruption": corruption, "levels": levels}
        train_batch = functools.partial(augmented_batch, **noise)
        eval_batch = functools.partial(noisy_batch, **noise)
        batches = train_batches(crop(train), batch_size, options.seed, run.done, options.epochs)
        eval_dataset = eval_batches(crop(validation), options.seed, "validation").map(eval_batch)
        run.fit(batches.map(train_batch), eval_dataset, options.epochs, steps, callbacks)
        if not run.is_chief:
            return

        run.load_best_weights()
        probabilities = layers.Activation("sigmoid", dtype="float32")(denoiser.output)
        model = keras.Model(denoiser.input, probabilities, name="model")
        results = {}
        if is_blind:
            noisy_test = crop(test[..., -channels:])
            test_dataset = eval_batches(noisy_test, options.seed, "test").map(eval_batch)
            results |= evaluate_hidden(model, test_dataset)
        if is_paired or not is_blind:  # there are clean test images
            test_batch = split_pairs if is_paired else eval_batch
            test_dataset = eval_batches(crop(test), options.seed, "test").map(test_batch)
            results |= evaluate(model, test_dataset)
        print_results(results, run, options)

        replace(options.model_dir / "model.keras", model.save)
        replace(options.model_dir / "encoder.keras", encoder.save)
        results |= {"corruption": corruption, "noise": levels}
        save_records(options, results, run, arrays, clean)
        with matplotlib.style.context(STYLE):
            plot_all(options.images_dir, model, test_dataset, run.history)
        run.remove_checkpoints()
        print(f"see {options.images_dir / 'denoised_digits.png'} first; to denoise pictures:")
        command = "python examples/denoise_pictures.py PATH --output DIR"
        print(f"{command} --model-dir {options.model_dir}")


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
