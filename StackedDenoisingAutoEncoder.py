# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["tensorflow==2.21.*", "keras>=3.15.1,<4", "numpy>=2,<3", "matplotlib>=3.10,<4"]
# ///
"""Denoising autoencoder: noisy images in, clean ones out, through a convolutional code.

    python StackedDenoisingAutoEncoder.py                         # train on MNIST, evaluate, draw
    python StackedDenoisingAutoEncoder.py --limit 5000 --epochs 5  # a quick try
    python StackedDenoisingAutoEncoder.py --noise 0.8 --model-dir models/noisier
    python StackedDenoisingAutoEncoder.py --data fashion_mnist --model-dir models/fashion

Three convolutions take the noisy image to a code of a quarter of its height and width; the decoder
makes the clean image from nothing but the code:

    noisy = clip(clean + noise * epsilon, 0, 1)             with epsilon ~ N(0, I)
    loss = -mean over pixels of clean log p + (1 - clean) log(1 - p)   with p = decoder(code(noisy))

Vincent et al., Stacked Denoising Autoencoders, 2010, https://jmlr.org/papers/v11/vincent10a.html
"""

import argparse
import contextlib
import csv
import hashlib
import json
import math
import os
import platform
import re
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import NamedTuple

# ---- Settings and command line -------------------------------------------------------------------


def command_line():
    """Return the parser of this script's options."""
    return parser_of(
        ("--epochs", within(int, 1, 10**6), 14, "passes over the training images"),
        ("--batch-size", within(int, 1, 10**6), 64, "images in a training step"),
        ("--learning-rate", within(float, 1e-9, 10), 2e-3, "peak of Adam's rate (a warm cosine)"),
        ("--noise", within(float, 1e-3, 100), 0.5, "standard deviation of the noise on the pixels"),
        ("--model-dir", Path, Path("models/denoiser"), "folder for the models and the records"),
    )


# ==== The same in both scripts, 1 of 2: command line and imports ==================================


def within(kind, minimum, maximum):
    """Return a converter of an option's text to a `kind`, int or float, in [minimum, maximum]."""

    def convert(text):
        with contextlib.suppress(ValueError):
            if minimum <= (value := kind(text)) <= maximum:
                return value
        name = "a whole number" if kind is int else "a number"
        raise argparse.ArgumentTypeError(f"'{text}' is not {name} from {minimum} to {maximum}")

    return convert


def parser_of(*options):
    """Return a parser of (name, type, default, help) tuples, and of what both scripts have."""
    formatter = argparse.ArgumentDefaultsHelpFormatter
    summary = __doc__.partition("\n")[0]
    parser = argparse.ArgumentParser(
        description=summary, formatter_class=formatter, allow_abbrev=False
    )
    parser.error = lambda message: parser.exit(2, f"error: {message} (see --help)\n")
    for name, kind, default, text in (
        ("--data", str, "mnist", "mnist, fashion_mnist, or the path of an .npz file"),
        ("--limit", within(int, 10, 10**9), None, "train on the first so many images only"),
        *options,
        ("--seed", within(int, 0, 2**31 - 1), 0, "decides weights, data order and every draw"),
        ("--images-dir", Path, Path("images"), "folder for the pictures"),
    ):
        parser.add_argument(name, type=kind, default=default, help=text)
    return parser


# Lines that TensorFlow's libraries write at every start, whether all is well or not.
START_UP_CHATTER = re.compile(
    r"^I\d{4} |All log messages before absl|To enable the following instructions|"
    r"failed call to cuInit|Could not find cuda drivers"
)


@contextlib.contextmanager
def without_start_up_chatter():
    """Hold back what native code writes to the screen, then pass on all but the chatter."""
    screen = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(screen, 2)
            os.close(screen)
            held.seek(0)
            for line in held.read().decode(errors="replace").splitlines():
                if not START_UP_CHATTER.search(line):
                    print(line, file=sys.stderr)


if __name__ == "__main__":  # --help and mistakes answer before the slow imports
    OPTIONS = command_line().parse_args()

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")  # warnings and errors
with without_start_up_chatter():
    import keras
    import matplotlib
    import numpy as np
    import tensorflow as tf
    from keras import layers
    from matplotlib.figure import Figure

    tf.config.list_logical_devices()  # starts the devices, which write lines of their own

# ==== End of 1 of 2 ===============================================================================

# ---- Model ---------------------------------------------------------------------------------------


def build_encoder(shape):
    """Return a model from noisy images (n, *shape) in [0, 1] to their code (n, 7, 7, 64)."""
    x = image = keras.Input(shape, name="image")  # (n, 28, 28, 1)
    x = layers.Conv2D(32, 5, strides=2, padding="same", activation="relu")(x)  # (n, 14, 14, 32)
    x = layers.Conv2D(64, 3, strides=2, padding="same", activation="relu")(x)  # (n, 7, 7, 64)
    x = layers.Conv2D(64, 3, padding="same", activation="relu")(x)  # (n, 7, 7, 64)
    return keras.Model(image, x, name="encoder")


def residual_block(x):
    """Return x plus what two convolutions make of it."""
    y = layers.Conv2D(x.shape[-1], 3, padding="same", activation="relu")(x)
    y = layers.Conv2D(x.shape[-1], 3, padding="same")(y)
    return layers.ReLU()(layers.Add()([x, y]))


def build_decoder(shape, code_shape):
    """Return a model from codes (n, *code_shape) to the logits of clean pixels (n, *shape).

    The residual blocks work where the image is smallest: there a convolution is cheap and sees far.
    """
    x = code = keras.Input(code_shape, name="code")  # (n, 7, 7, 64)
    for _ in range(2):
        x = residual_block(x)
    x = layers.Conv2DTranspose(32, 4, strides=2, padding="same", activation="relu")(x)
    x = layers.Conv2DTranspose(shape[2], 4, strides=2, padding="same")(x)  # (n, 28, 28, 1)
    x = layers.Cropping2D(((0, x.shape[1] - shape[0]), (0, x.shape[2] - shape[1])))(x)
    return keras.Model(code, x, name="decoder_logits")


# ---- Loss ----------------------------------------------------------------------------------------


def with_noise(noise):
    """Return a function that pairs noisy images with clean ones, from a stateless seed (2,)."""

    def pair(clean, seed):
        epsilon = tf.random.stateless_normal(tf.shape(clean), seed)
        return tf.clip_by_value(clean + noise * epsilon, 0, 1), clean

    return pair


def psnr(clean, logits):
    """Return the peak signal-to-noise ratio in dB of each image that the logits stand for, (n,)."""
    return tf.image.psnr(clean, tf.sigmoid(logits), max_val=1)


# ---- Evaluation ----------------------------------------------------------------------------------


def figures_of_merit(clean, images):
    """Return PSNR (dB), SSIM, MSE and BCE (nats per pixel) of each image against its clean one.

    SSIM has its authors' Gaussian window of 11 pixels, or of the image's side where that is less:
    Wang et al., Image Quality Assessment, 2004. PSNR is at most 100 dB, and BCE takes pixels of
    exactly 0 or 1 as 1e-7 away from it, so that no image makes a mean infinite.
    """
    window = min(11, *clean.shape[1:3])
    return {
        "psnr": tf.minimum(tf.image.psnr(clean, images, max_val=1), 100),
        "ssim": tf.image.ssim(clean, images, max_val=1, filter_size=window),
        "mse": tf.reduce_mean((clean - images) ** 2, axis=(1, 2, 3)),
        "bce": tf.reduce_mean(keras.ops.binary_crossentropy(clean, images), axis=(1, 2, 3)),
    }


def evaluate(model, images, options):
    """Return the figures of merit of denoised and, as noisy_*, of noisy images: means over images.

    Args:
        model: from noisy images to clean ones, both in [0, 1].
        images: clean, uint8 (n, height, width, channels).
        options: noise, and the seed that decides its draw.
    """

    @tf.function
    def figures(noisy, clean):
        before, after = figures_of_merit(clean, noisy), figures_of_merit(clean, model(noisy))
        return after | {f"noisy_{name}": values for name, values in before.items()}

    batches = frozen_batches(images, with_noise(options.noise), options, "test")
    by_batch = [figures(*batch) for batch in batches]
    return {
        name: float(np.concatenate([batch[name] for batch in by_batch]).mean(dtype=float))
        for name in by_batch[0]
    }


# ---- Pictures ------------------------------------------------------------------------------------


def draw_pictures(options, model, images, history):
    """Draw the three pictures, from the first test images and the history of the training."""
    folder = options.images_dir
    batches = frozen_batches(images[:500], with_noise(options.noise), options, "test")
    noisy, clean = (part[:16] for part in next(batches.as_numpy_iterator()))
    title = f"Test images, and the same with Gaussian noise of {options.noise:g}"
    draw_rows(folder / "noisy_digits.png", title, ["clean", "noisy"], [clean, noisy])
    denoised = model(noisy).numpy()
    residual = np.mean(denoised - clean, axis=-1)  # -1 to 1: blue to red by way of white
    rows = {"clean": clean, "noisy": noisy, "denoised": denoised}
    rows["residual"] = matplotlib.colormaps["RdBu_r"](0.5 + 0.5 * residual)[..., :3]
    coloured = [np.broadcast_to(row, rows["residual"].shape) for row in rows.values()]
    title = "Test images; residual = denoised - clean (red: too bright, blue: too dark)"
    draw_rows(folder / "denoised_digits.png", title, list(rows), coloured)
    names = {"loss": "binary cross-entropy"}
    draw_history(folder / "denoiser_loss.png", history, names, unit="nats per pixel")


# ==== The same in both scripts, 2 of 2: data, training, files, plots ==============================

MNIST_SHA256 = "06af5dfe73b70e3bc1c36439982b18a8d76803db9b544f6fdf838a37fbb01b64"
NPZ_LIMIT = 4 * 2**30  # bytes that the arrays of an .npz file may take
NPZ_ARRAYS = ("x_train", "y_train", "x_test", "y_test")
ACCEPTED = (
    "accepted: images (n, height, width), or with 1 or 3 channels behind, n from 20 and sides from"
    " 8 to 256, of uint8 or of floats from 0 to 1"
)
STREAMS = ("order", "training", "validation", "test", "samples")  # what random numbers are for


class InputError(ValueError):
    """Something that the user can mend; its text names the value and what is accepted."""


class Images(NamedTuple):
    """Images, uint8 (n, height, width, channels), and the classes of the test images (n,)."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray


def load_images(source, limit=None):
    """Read a data set and split it.

    The last twelfth of the training images, 5,000 at most, is for validation. Where the source has
    no test images, the last tenth of its images is held out for the test before that.

    Args:
        source: "mnist", "fashion_mnist", or the path of an .npz file in Keras's layout.
        limit: how many training images to keep; of the others, a fifth of that at most.

    Raises:
        InputError: the source is missing, damaged or of another layout.
    """
    arrays = read_arrays(source)
    images, labels = as_images(arrays, "x_train", source), arrays.get("y_train")
    if "x_test" in arrays:
        test, labels = as_images(arrays, "x_test", source), arrays.get("y_test")
    else:
        held_out = len(images) // 10
        images, test = np.split(images, [-held_out])
        labels = None if labels is None else labels[-held_out:]
    if test.shape[1:] != images.shape[1:]:
        raise InputError(f"{source}: x_train is {images.shape} and x_test {test.shape}; {ACCEPTED}")
    labels = np.zeros(len(test), np.uint8) if labels is None else np.ravel(labels)
    if len(labels) != len(test):
        raise InputError(f"{source}: {len(labels)} labels for {len(test)} test images")
    train, validation = np.split(images, [-max(1, min(5000, len(images) // 12))])
    fifth = None if limit is None else limit // 5
    return Images(train[:limit], validation[:fifth], test[:fifth], labels[:fifth])


def read_arrays(source):
    """Return those of the arrays x_train, y_train, x_test, y_test that a data set has."""
    bundled = Path(__file__).resolve().parent / "data" / "mnist.npz"
    path = bundled if source == "mnist" else Path(source)
    if source in ("mnist", "fashion_mnist") and not path.is_file():
        try:
            train, test = getattr(keras.datasets, source).load_data()
        except Exception as error:  # Keras raises a bare Exception where there is no network
            raise InputError(f"--data {source} cannot be downloaded: {one_line(error)}") from error
        return dict(zip(NPZ_ARRAYS, (*train, *test), strict=True))
    try:
        if path == bundled and hashlib.sha256(path.read_bytes()).hexdigest() != MNIST_SHA256:
            raise ValueError(f"its SHA-256 is not {MNIST_SHA256}")
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > NPZ_LIMIT:
            raise ValueError(f"it unpacks to {unpacked:,} bytes, and {NPZ_LIMIT:,} are accepted")
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in NPZ_ARRAYS if name in archive.files}
    except Exception as error:  # zipfile, zlib and NumPy have many ways to call a file damaged
        raise InputError(f"{path} is not a readable .npz file: {one_line(error)}") from error


def as_images(arrays, name, source):
    """Return one of the arrays as uint8 images (n, height, width, channels)."""
    array = arrays.get(name)
    if not isinstance(array, np.ndarray):  # what is not in NumPy's format comes as bytes
        raise InputError(f"{source} has no array {name}; {ACCEPTED}")
    images = array[..., np.newaxis] if array.ndim == 3 else array
    sides = images.shape[1:3]
    if images.ndim != 4 or images.shape[3] not in (1, 3) or min(sides) < 8 or max(sides) > 256:
        raise InputError(f"{source}: {name} is of shape {array.shape}; {ACCEPTED}")
    if len(images) < (20 if name == "x_train" else 1):
        raise InputError(f"{source}: {name} has {len(images)} images; {ACCEPTED}")
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind != "f":
        raise InputError(f"{source}: {name} is of type {array.dtype}; {ACCEPTED}")
    low, high = images.min(), images.max()
    if not (low >= 0 and high <= 1):  # a NaN fails too
        raise InputError(f"{source}: {name} has values from {low} to {high}; {ACCEPTED}")
    return np.rint(images * 255).astype(np.uint8)


def one_line(error):
    return " ".join(f"{type(error).__name__}: {error}".split())


def to_unit(images):
    """Return uint8 images as float32 in [0, 1]."""
    return tf.cast(images, tf.float32) / 255


def stream(seed, name, step=0):
    """Return the seed (2,) of a stateless draw, a function of the arguments alone."""
    return tf.random.fold_in((seed, STREAMS.index(name)), tf.cast(step, tf.int64))


def training_batches(images, prepare, options):
    """Return the batches of all epochs: each epoch is a pass over uint8 images in a new order.

    `prepare(images, seed)` makes a batch from float32 images in [0, 1]. The order is a function of
    seed and epoch alone, and a batch's seed of the run's seed and the step.
    """
    stored = tf.constant(images)

    def ordered(epoch):
        seed = stream(options.seed, "order", epoch)
        order = tf.random.experimental.stateless_shuffle(tf.range(len(images)), seed)
        return tf.data.Dataset.from_tensor_slices(order).batch(options.batch_size)

    def batch(step, indices):
        return prepare(to_unit(tf.gather(stored, indices)), stream(options.seed, "training", step))

    batches = tf.data.Dataset.range(options.epochs).flat_map(ordered).enumerate()
    return batches.map(batch).prefetch(4)


def frozen_batches(images, prepare, options, name, batch_size=500):
    """Return batches of uint8 images in their order, the same at every pass."""

    def batch(step, images):
        return prepare(to_unit(images), stream(options.seed, name, step))

    return tf.data.Dataset.from_tensor_slices(images).batch(batch_size).enumerate().map(batch)


def train(model, images, prepare, options, **compile_settings):
    """Fit a model; return its history, a dictionary of lists by epoch, and the seconds it took."""
    steps = math.ceil(len(images.train) / options.batch_size)
    warm_up = steps * options.epochs // 10
    rate = keras.optimizers.schedules.CosineDecay(  # rises to the peak, then falls to zero
        options.learning_rate / 25,
        decay_steps=steps * options.epochs - warm_up,
        warmup_target=options.learning_rate,
        warmup_steps=warm_up,
    )
    model.compile(keras.optimizers.Adam(rate), **compile_settings)
    started = time.perf_counter()
    history = model.fit(
        training_batches(images.train, prepare, options),
        epochs=options.epochs,
        steps_per_epoch=steps,
        validation_data=frozen_batches(images.validation, prepare, options, "validation"),
        shuffle=False,  # the batches are in a drawn order already
        verbose=1 if sys.stdout.isatty() else 2,
    )
    return history.history, time.perf_counter() - started


def prepare_run(options):
    """Make the output folders, and make all that follows a function of the seed."""
    for folder in (options.images_dir, options.model_dir):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise InputError(f"cannot write to the folder {folder}: {error.strerror}") from error
    keras.utils.set_random_seed(options.seed)
    tf.config.experimental.enable_op_determinism()


@contextlib.contextmanager
def replacing(path):
    """Give a path to write to, and rename it to `path` when all is written."""
    scratch = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        yield scratch
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)
    print(f"wrote {path}")


def save_model(model, path):
    with replacing(path) as scratch:
        model.save(scratch)


def save_records(options, results, history, parameters, train_count, seconds):
    """Write history.csv, a row for each epoch, and metrics.json: results, run and every option."""
    with replacing(options.model_dir / "history.csv") as path, path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["epoch", *history])
        rows = zip(*history.values(), strict=True)
        table.writerows([epoch, *row] for epoch, row in enumerate(rows, start=1))
    settings = {key: str(v) if isinstance(v, Path) else v for key, v in vars(options).items()}
    metrics = (
        results
        | settings
        | {
            "parameters": parameters,
            "train_seconds": round(seconds, 2),
            "images_per_second": round(options.epochs * train_count / seconds, 1),
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
        }
    )
    with replacing(options.model_dir / "metrics.json") as path:
        path.write_text(json.dumps(metrics, indent=2) + "\n")


def mosaic(tiles, gap=2):
    """Return tiles (rows, columns, height, width, channels) as one image, with white gaps."""
    tiles = np.pad(tiles, [(0, 0), (0, 0), (0, gap), (0, gap), (0, 0)], constant_values=1)
    rows, columns, height, width, channels = tiles.shape
    image = tiles.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, channels)
    return image[: rows * height - gap, : columns * width - gap]


def draw_rows(path, title, names, rows):
    """Draw images in [0, 1], (rows, columns, height, width, channels), with a name for each row."""
    tiles = np.asarray(rows)
    figure = Figure(
        figsize=(0.7 * tiles.shape[1] + 1, 0.7 * len(tiles) + 0.5), layout="constrained"
    )
    axes = figure.add_subplot(title=title)
    image = mosaic(tiles)
    axes.imshow(image, cmap="gray", vmin=0, vmax=1)
    axes.set_xticks([])
    axes.set_yticks([(row + 0.5) * len(image) / len(tiles) for row in range(len(tiles))], names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    save_figure(figure, path)


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
    save_figure(figure, path)


def save_figure(figure, path):
    with replacing(path) as scratch:
        figure.savefig(scratch, dpi=150, bbox_inches="tight")


def exit_status(main, options):
    """Run `main`; return 0, or 2 after one line about what the user can mend."""
    try:
        main(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


# ==== End of 2 of 2 ===============================================================================


def main(options):
    """Train, evaluate, print the figures; then write the models, the records and the pictures."""
    images = load_images(options.data, options.limit)
    prepare_run(options)
    shape = images.train.shape[1:]
    encoder = build_encoder(shape)
    decoder = build_decoder(shape, encoder.output.shape[1:])
    logits = keras.Model(encoder.input, decoder(encoder.output), name="denoiser_logits")
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    prepare = with_noise(options.noise)
    history, seconds = train(logits, images, prepare, options, loss=loss, metrics=[psnr])
    probabilities = layers.Activation("sigmoid")(logits.output)
    model = keras.Model(logits.input, probabilities, name="model")
    results = evaluate(model, images.test, options)
    print(f"\nmeans over {len(images.test):,} test images; trained in {seconds:.0f} s")
    print("                 denoised     noisy")
    for name, unit in (("psnr", "dB"), ("ssim", ""), ("mse", ""), ("bce", "nats")):
        after, before = results[name], results[f"noisy_{name}"]
        print(f"  {name.upper():4} {unit:<8} {after:10.4f} {before:9.4f}")
    save_model(model, options.model_dir / "model.keras")
    save_model(encoder, options.model_dir / "encoder.keras")
    save_records(options, results, history, model.count_params(), len(images.train), seconds)
    draw_pictures(options, model, images.test, history)


if __name__ == "__main__":
    sys.exit(exit_status(main, OPTIONS))
