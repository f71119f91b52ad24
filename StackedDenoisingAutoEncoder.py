# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["tensorflow==2.21.*", "keras==3.15.*", "numpy>=2,<3", "matplotlib>=3.10,<4"]
# ///
"""Denoising autoencoder: noisy images in, clean ones out, through a convolutional code.

    python StackedDenoisingAutoEncoder.py    # train on MNIST, evaluate, plot
    python StackedDenoisingAutoEncoder.py --limit 5000 --epochs 5 --model-dir try_denoiser
    python StackedDenoisingAutoEncoder.py --data fashion_mnist --model-dir out

Three convolutions encode the noisy image. The decoder makes the clean one, p, from the code alone:

    noisy = clip(clean + noise * epsilon, 0, 1)       with epsilon ~ N(0, I), or see --corruption
    loss = mean over pixels of -clean log p - (1 - clean) log(1 - p); in colour, of (clean - p)^2

Vincent et al. 2010, https://jmlr.org/papers/v11/vincent10a.html
"""

import argparse
import contextlib
import csv
import faulthandler
import json
import math
import os
import shutil
import sys
import tempfile
import time
import zlib
from pathlib import Path

MODEL_DIR = Path("models/denoiser")
EPOCHS = 8
NOISE = 0.5  # a digit is hard to read then
LEARNING_RATE = 3e-3  # peak
BATCH_DIVISOR = 4  # a mosaic has four images, and each device gets whole mosaics


def add_own_options(parser):
    """Add the options that only this script has."""
    group = parser.add_argument_group("denoiser")
    kinds = ("gaussian", "masking", "salt-and-pepper")
    group.add_argument("--corruption", choices=kinds, default=kinds[0], help="kind of noise")
    level = number(float, 1e-3, 100)
    text = f"standard deviation, or share of the pixels; {NOISE} if not given; LOW HIGH is a range"
    group.add_argument("--noise", type=level, nargs="+", metavar="LEVEL", help=text)


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


def num_filters(channels):
    """Return the filters of the first layer; the code has twice as many. Colour takes more."""
    return 32 if channels == 1 else 64


def build_decoder(channels: int, pixel_mean: float = 0.5) -> keras.Model:
    """Return a model from codes (n, 7, 7, 64 or 128) to logits of pixels (n, 28, 28, channels).

    Residual blocks: He et al. 2016, https://arxiv.org/abs/1603.05027. The dilated one sees
    farther. The decoder starts near the probability `pixel_mean`, the mean of the training pixels.
    """
    filters = num_filters(channels)
    start = mean_pixel_biases(pixel_mean)
    last = {"padding": "same", "bias_initializer": start, "dtype": "float32"}
    x = code = keras.Input((None, None, 2 * filters), name="code")  # (n, 7, 7, 64)
    for dilation in (1, 3, 1):
        block = layers.Activation("relu")(x)
        same_size = {"padding": "same", "dilation_rate": dilation, "use_bias": False}
        block = layers.Conv2D(2 * filters, 3, **same_size)(block)
        x = layers.Add()([x, block])
    x = layers.Activation("relu")(x)
    x = layers.Conv2DTranspose(filters, 4, strides=2, padding="same", activation="relu")(x)
    x = layers.Conv2DTranspose(channels, 4, strides=2, **last)(x)
    return keras.Model(code, x, name="decoder_logits")


def add_noise(clean, stddev, seed):
    """Return clean images with Gaussian noise, clipped to [0, 1]; the stateless seed is (2,)."""
    epsilon = tf.random.stateless_normal(tf.shape(clean), seed)
    return tf.clip_by_value(clean + stddev * epsilon, 0, 1)


def mask_pixels(clean, share, seed):
    """Return clean images with a share of the pixels set to 0, in all channels."""
    draw = tf.random.stateless_uniform(tf.shape(clean[..., :1]), seed)
    return tf.where(draw < share, 0.0, clean)


def add_salt_and_pepper(clean, share, seed):
    """Return clean images with a share of the pixels set to 1 or 0, as often one as the other."""
    draw = tf.random.stateless_uniform(tf.shape(clean[..., :1]), seed)
    peppered = tf.where(draw < share, 0.0, clean)
    return tf.where(draw < share / 2, 1.0, peppered)


# Vincent et al. 2010, section 3.3, has the three; here each pixel is drawn by itself. The second
# argument is the level: a standard deviation, or a share of the pixels.
CORRUPTIONS = {
    "gaussian": add_noise,
    "masking": mask_pixels,
    "salt-and-pepper": add_salt_and_pepper,
}


def corrupt(clean, kind, levels, seed):
    """Return clean images (n, height, width, channels) with noise, each of its own level.

    The levels are drawn evenly between the first of `levels` and the last.
    """
    level_seed, noise_seed = tf.unstack(tf.random.split(seed))
    draw = tf.random.stateless_uniform(tf.shape(clean[:, :1, :1, :1]), level_seed)
    level = levels[0] + (levels[-1] - levels[0]) * draw
    return CORRUPTIONS[kind](clean, level, noise_seed)


def own_pair(images):
    """Return noisy and clean images of the user's own: the channels of one array."""
    clean, noisy = tf.split(images, 2, axis=-1)
    return noisy, clean


MOSAIC_SHARE = 0.2  # of the training batches: large pictures need some, digits need none


def mosaics(clean, seed):
    """Return a batch, or, for a share of the seeds, mosaics of 2 x 2 of its images.

    A mosaic is shifted at random and wraps around. From single images alone, the model would
    learn to rely on borders, and fail on larger pictures.
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


def recoloured(clean, seed):
    """Return a batch of RGB images with its channels in a random order; others as they are.

    A few pictures have few colours. From them alone, the model would turn colours that it has
    never seen into ones that it has: green leaves became blue.
    """
    if clean.shape[-1] != 3:
        return clean
    order = tf.random.experimental.stateless_shuffle(tf.range(3), seed)
    return tf.gather(clean, order, axis=-1)


def squared_error(clean, logits):
    """Return the squared error (n, height, width), a mean over the channels."""
    return tf.reduce_mean((clean - tf.sigmoid(logits)) ** 2, axis=-1)


def loss_of(channels):
    """Return the loss of logits: cross-entropy of grey images, squared error of colour images.

    Cross-entropy counts errors in dark and in bright pixels most. That gives digits a better SSIM,
    but photographs, with all the values between, a worse PSNR.
    """
    if channels == 1:
        return keras.losses.BinaryCrossentropy(from_logits=True)
    return squared_error


MAX_PSNR = 100  # dB, in place of infinity for equal images


def psnr(clean, logits):
    """Return the peak signal-to-noise ratio of each image (n,), 10 log10(1 / MSE), in dB."""
    mse = tf.reduce_mean((clean - tf.sigmoid(logits)) ** 2, axis=(1, 2, 3))
    return -10 * keras.ops.log10(tf.maximum(mse, 10 ** (-MAX_PSNR / 10)))


# ---- Evaluation and plots

DECIMALS = 4  # of the results as they are printed
METRICS = [  # key, name, unit, which way is better, range to expect of a default run
    ("psnr", "PSNR", "dB", "higher is better", "21.15 to 21.22"),
    ("ssim", "SSIM", "", "higher is better", "0.8933 to 0.8951"),
    ("mse", "MSE", "", "lower is better", "0.00826 to 0.00838"),
    ("bce", "BCE", "nats per pixel", "lower is better", "0.0867 to 0.0871"),
    ("noisy_psnr", "noisy PSNR", "dB", "before denoising", "9.372 to 9.389"),
]
CURVES = {  # what every epoch prints, records and plots, and the title of its plot
    "loss": "loss: cross-entropy, or squared error of colour",
    "psnr": "PSNR, dB",
}


def image_metrics(clean, images):
    """Return PSNR (dB), SSIM, MSE and BCE (nats per pixel) of each image against the clean one.

    SSIM has a Gaussian window of at most 11 pixels: Wang et al., Image Quality Assessment, 2004.
    """
    window = min(11, *clean.shape[1:3])
    return {
        "psnr": tf.minimum(tf.image.psnr(clean, images, max_val=1), MAX_PSNR),
        "ssim": tf.image.ssim(clean, images, max_val=1, filter_size=window),
        "mse": tf.reduce_mean((clean - images) ** 2, axis=(1, 2, 3)),
        "bce": tf.reduce_mean(keras.ops.binary_crossentropy(clean, images), axis=(1, 2, 3)),
    }


def evaluate(model: keras.Model, test_dataset: tf.data.Dataset) -> dict:
    """Return mean metrics of denoised and, as noisy_*, noisy images, of batches (noisy, clean)."""
    metrics_of = tf.function(image_metrics, autograph=False)
    found = {}
    for noisy, clean in test_dataset:
        for name, values in metrics_of(clean, model(noisy)).items():
            found.setdefault(name, []).extend(values.numpy())
        for name, values in metrics_of(clean, noisy).items():
            found.setdefault(f"noisy_{name}", []).extend(values.numpy())
    return {name: float(np.mean(values, dtype=float)) for name, values in found.items()}


def plot_all(folder, model, test_dataset, history):
    """Plot the three pictures, from the first test images and the history of the training."""
    noisy, clean = next(test_dataset.as_numpy_iterator())
    noisy, clean = noisy[:10], clean[:10]
    denoised = model(noisy).numpy()
    names = ["clean", "noisy"]
    plot_image_rows(folder / "noisy_digits.png", "Test images", [clean, noisy], names)
    colours = matplotlib.cm.ScalarMappable(matplotlib.colors.Normalize(-1, 1), "RdBu_r")
    residual = colours.cmap(colours.norm(np.mean(denoised - clean, axis=-1)))[..., :3]
    rows = [np.broadcast_to(row, residual.shape) for row in (noisy, denoised, clean)]
    plot_image_rows(
        folder / "denoised_digits.png",
        "Test images; residual = denoised - clean (red: too bright, blue: too dark)",
        [*rows, residual],
        ["noisy", "denoised", "clean", "residual"],
        colours,
    )
    plot_history(folder / "denoiser_loss.png", history)


# ---- Main

OTHER_MODEL = "decoder.keras"  # a file of the VAE's: its folder is not for this script
WEIGHT_DECAY = 0.004  # times the learning rate: Keras's default for Muon, no gain, no harm


def learning_rate(image_count, options):
    """Return a schedule: the rate falls linearly to 0, as Muon needs no warm-up here."""
    steps = options.epochs * (image_count // options.batch_size)
    return keras.optimizers.schedules.PolynomialDecay(
        options.learning_rate, steps, end_learning_rate=0.0
    )


def build_denoiser(clean: np.ndarray, options):
    """Return the encoder, the decoder of logits, and the compiled model of both.

    `clean` are uint8 training images (n, height, width, channels).
    """
    channels = clean.shape[3]
    encoder = build_encoder(channels)
    decoder_logits = build_decoder(channels, float(clean.mean() / 255))
    logits = decoder_logits(encoder.output)
    denoiser = keras.Model(encoder.input, logits, name="denoiser_logits")
    denoiser.compile(
        optimizer=ConvMuon(learning_rate(len(clean), options), weight_decay=WEIGHT_DECAY),
        loss=loss_of(channels),
        metrics=[keras.metrics.MeanMetricWrapper(psnr, name="psnr")],
    )
    return encoder, decoder_logits, denoiser


def noise_levels(options) -> list[float]:
    """Return the level of the noise, or two for a range, as a list."""
    levels = options.noise or [NOISE]
    greatest = math.inf if options.corruption == "gaussian" else 1
    if len(levels) > 2 or levels != sorted(levels) or levels[-1] > greatest:
        text = f"--corruption {options.corruption} --noise {' '.join(map(str, levels))}"
        accepted = "a level, or the least and the greatest; a share of the pixels is at most 1"
        raise InputError(f"{text}; accepted: {accepted}")
    return levels


def load_pairs(source, limit):
    """Return the parts of load_images with the user's noisy images as further channels."""
    arrays = open_arrays(source)
    for part in ("train", "val", "test"):
        if (f"x_{part}" in arrays) != (f"x_{part}_noisy" in arrays):
            names = f"x_{part} and x_{part}_noisy"
            raise InputError(f"{source} has one of {names}; accepted: both or neither")
    *clean_parts, _ = load_images(source)  # all of them: a limit would hide differences
    *noisy_parts, _ = load_images(source, suffix="_noisy")
    fifth = None if limit is None else limit // 5
    limits = (limit, fifth, fifth)
    pairs = []
    for clean, noisy, count in zip(clean_parts, noisy_parts, limits, strict=True):
        if clean.shape != noisy.shape:
            text = f"clean images {clean.shape}, noisy ones {noisy.shape}"
            accepted = "accepted: one of the same shape for each image"
            raise InputError(f"{source}: {text}; {accepted}")
        pairs.append(np.concatenate([clean[:count], noisy[:count]], axis=-1))
    return pairs


def main(options: argparse.Namespace, callbacks=()):
    """Load the images; build, fit and evaluate the denoiser; save the models; plot.

    `options` are of `parse_options`; `callbacks`, of Keras, see the training.
    """
    arrays = open_arrays(options.data)
    has_pairs = any(f"x_{part}_noisy" in arrays for part in ("train", "val", "test"))
    if has_pairs and (options.noise or options.corruption != "gaussian"):
        text = f"{options.data} has noisy images of its own"
        raise InputError(f"{text}; accepted: neither --noise nor --corruption")
    levels = noise_levels(options)
    if has_pairs:
        print(f"{options.data} has noisy images of its own: no noise is added")
        train, validation, test = load_pairs(options.data, options.limit)
    else:
        train, validation, test, _ = load_images(options.data, options.limit)
    height, width, channels = train.shape[1:]
    channels = channels // 2 if has_pairs else channels
    clean = train[..., :channels]  # after them come the noisy images of pairs
    with set_up(options, len(train)).scope():
        encoder, decoder_logits, denoiser = build_denoiser(clean, options)
    if options.start_from:
        load_weights(options.start_from, {"model": denoiser})

    def cropped(images):
        return images[:, : height // 4 * 4, : width // 4 * 4]  # what the model takes

    def noisy_and_clean(images, seed):
        if has_pairs:
            return own_pair(images)
        return corrupt(images, options.corruption, levels, seed), images

    def evaluation_batch(images, seed):
        return noisy_and_clean(cropped(images), seed)

    def training_batch(images, seed):
        mosaic_seed, colour_seed, noise_seed = tf.unstack(tf.random.split(seed, 3))
        images = recoloured(mosaics(cropped(images), mosaic_seed), colour_seed)
        return noisy_and_clean(images, noise_seed)

    log, checkpoints = fit(
        denoiser,
        [encoder, decoder_logits],
        (train, validation, test),
        training_batch,
        eval_dataset(validation, evaluation_batch, options.seed, "validation"),
        options,
        callbacks,
    )
    if not log.is_chief:
        return
    probabilities = layers.Activation("sigmoid", dtype="float32")(denoiser.output)
    model = keras.Model(denoiser.input, probabilities, name="model")
    test_dataset = eval_dataset(test, evaluation_batch, options.seed, "test")
    results = evaluate(model, test_dataset)
    print_results(options, results, log)
    save_results(options, results, log, model.count_params())
    save(options.model_dir / "model.keras", model.save)
    save(options.model_dir / "encoder.keras", encoder.save)
    plot_all(options.images_dir, model, test_dataset, log.history)
    checkpoints.keep(0)
    print(f"See {options.images_dir}/denoised_digits.png first. To denoise your own pictures:")
    print("python examples/denoise_pictures.py PATH --output DIR", end=" ")
    print(f"--model-dir {options.model_dir}")


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
