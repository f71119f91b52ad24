# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["tensorflow==2.21.*", "keras==3.15.*", "numpy>=2,<3", "matplotlib>=3.10,<4"]
# ///
"""Denoising autoencoder: noisy images in, clean ones out, through a convolutional code.

    python StackedDenoisingAutoEncoder.py    # train on MNIST, evaluate, plot
    python StackedDenoisingAutoEncoder.py --limit 5000 --epochs 5 --model-dir try --images-dir try
    python StackedDenoisingAutoEncoder.py --data fashion_mnist --model-dir out --images-dir out

Three convolutions encode the noisy image; the decoder makes the clean image from the code alone:

    noisy = clip(clean + noise * epsilon, 0, 1)                           with epsilon ~ N(0, I)
    loss = mean over pixels of -clean log p - (1 - clean) log(1 - p)      p = sigmoid(decoder(code))

Vincent et al., Stacked Denoising Autoencoders, 2010, https://jmlr.org/papers/v11/vincent10a.html
"""

import argparse
import json
import math
import os
import sys
import tempfile
import time
import zlib
from pathlib import Path

MODEL_DIR, DECIMALS = Path("models/denoiser"), 4  # DECIMALS of results as they are printed
NUMBERS = [  # group, option, default, minimum, maximum, help
    ("training", "--epochs", 8, 1, 10**4, "passes over the training images"),
    ("training", "--batch-size", 64, 1, 10**6, "global batch size"),
    ("training", "--learning-rate", 4e-3, 1e-9, 10, "peak learning rate, after a linear warm-up"),
    ("data", "--noise", 0.5, 1e-3, 100, "standard deviation of the noise on the pixels"),
]
METRICS = [  # name, unit, which way is better, what the default runs of three seeds gave
    ("PSNR", "dB", "higher is better", "21.08 ± 0.03"),
    ("SSIM", "", "higher is better", "0.8910 ± 0.0006"),
    ("MSE", "", "lower is better", "0.0085 ± 0.0000"),
    ("BCE", "nats per pixel", "lower is better", "0.0876 ± 0.0001"),
    ("noisy PSNR", "dB", "before denoising", "9.38 ± 0.00"),
]
CURVES = {"loss": "binary cross-entropy, nats per pixel", "psnr": "PSNR, dB"}  # by epoch

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

# ---- Model, training batches and optimizer -------------------------------------------------------


def build_encoder(channels):
    """Return a model from noisy images (n, height, width, channels) of any size to their codes."""
    x = image = keras.Input((None, None, channels), name="image")  # (n, 28, 28, 1)
    x = layers.Conv2D(32, 5, strides=2, padding="same", activation="relu")(x)  # (n, 14, 14, 32)
    x = layers.Conv2D(64, 3, strides=2, padding="same", activation="relu")(x)  # (n, 7, 7, 64)
    x = layers.Conv2D(64, 3, padding="same")(x)  # (n, 7, 7, 64)
    return keras.Model(image, x, name="encoder")


def build_decoder(channels):
    """Return a model from codes (n, 7, 7, 64) to the logits of clean pixels (n, 28, 28, channels).

    Residual blocks: He et al. 2016, https://arxiv.org/abs/1603.05027. The dilated one sees farther.
    """
    x = code = keras.Input((None, None, 64), name="code")  # (n, 7, 7, 64)
    for dilation in (1, 3, 1):
        block = layers.Conv2D(64, 3, padding="same", dilation_rate=dilation, use_bias=False)
        x = layers.Add()([x, block(layers.Activation("relu")(x))])
    x = layers.Activation("relu")(x)
    x = layers.Conv2DTranspose(32, 4, strides=2, padding="same", activation="relu")(x)
    x = layers.Conv2DTranspose(channels, 4, strides=2, padding="same", dtype="float32")(x)
    return keras.Model(code, x, name="decoder_logits")


def add_noise(clean, noise, seed):
    """Return clean images with Gaussian noise, clipped to [0, 1]; the stateless seed is (2,)."""
    return tf.clip_by_value(clean + noise * tf.random.stateless_normal(tf.shape(clean), seed), 0, 1)


def mosaics(clean, seed):
    """Return one of twenty batches as mosaics of 2 x 2 images, shifted at random with wrap-around.

    From single images alone, the model would learn to rely on borders, and fail on larger pictures.
    """
    count, draw = clean.shape[0] // 4, tf.random.stateless_uniform((3,), seed)
    if count == 0 or draw[0] > 0.05:
        return clean
    a, b, c, d = tf.split(clean[: 4 * count], 4)
    mosaic = tf.concat([tf.concat([a, b], axis=2), tf.concat([c, d], axis=2)], axis=1)
    return tf.roll(mosaic, tf.cast(draw[1:] * (*clean.shape[1:3],), tf.int32), axis=(1, 2))


def psnr(clean, logits):
    """Return the peak signal-to-noise ratio of each image (n,), 10 log10(1 / MSE), in dB."""
    return -10 * keras.ops.log10(tf.reduce_mean((clean - tf.sigmoid(logits)) ** 2, axis=(1, 2, 3)))


class ConvMuon(keras.optimizers.Muon):
    """Keras's Muon for the kernels of convolutions, too: matrices (inputs, filters).

    Its updates are nearly orthogonal: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon;
    scaled as in Liu et al. 2025, https://arxiv.org/abs/2502.16982, eq. 4. AdamW trains the biases.
    """

    def _should_use_adamw(self, variable):
        return len(variable.shape) < 2

    def zeropower_via_newtonschulz5(self, x, steps):
        matrix = keras.ops.reshape(x, (-1, x.shape[-1]))
        update = super().zeropower_via_newtonschulz5(matrix, steps)
        return keras.ops.reshape(0.2 * max(matrix.shape) ** 0.5 * update, x.shape)


# ---- Evaluation and plots ------------------------------------------------------------------------


def image_metrics(clean, images):
    """Return PSNR (dB), SSIM, MSE and BCE (nats per pixel) of each image against the clean one.

    SSIM has a Gaussian window of at most 11 pixels: Wang et al., Image Quality Assessment, 2004.
    """
    return {
        "psnr": tf.minimum(tf.image.psnr(clean, images, max_val=1), 100),  # not infinite
        "ssim": tf.image.ssim(clean, images, max_val=1, filter_size=min(11, *clean.shape[1:3])),
        "mse": tf.reduce_mean((clean - images) ** 2, axis=(1, 2, 3)),
        "bce": tf.reduce_mean(keras.ops.binary_crossentropy(clean, images), axis=(1, 2, 3)),
    }


def evaluate(model, test_dataset):
    """Return mean metrics of denoised and, as noisy_*, noisy images, of batches (noisy, clean)."""
    step, found = tf.function(image_metrics, autograph=False), {}
    for noisy, clean in test_dataset:
        for prefix, images in (("", model(noisy)), ("noisy_", noisy)):
            for name, values in step(clean, images).items():
                found.setdefault(prefix + name, []).extend(values.numpy())
    return {name: float(np.mean(values, dtype=float)) for name, values in found.items()}


def plot_all(folder, model, test_dataset, history):
    """Plot the three pictures, from the first test images and the history of the training."""
    noisy, clean = (part[:10] for part in next(test_dataset.as_numpy_iterator()))
    plot_image_rows(folder / "noisy_digits.png", "Test images", [clean, noisy], ["clean", "noisy"])
    denoised = model(noisy).numpy()
    residuals = matplotlib.cm.ScalarMappable(matplotlib.colors.Normalize(-1, 1), "RdBu_r")
    residual = residuals.cmap(residuals.norm(np.mean(denoised - clean, axis=-1)))[..., :3]
    rows = [np.broadcast_to(row, residual.shape) for row in (noisy, denoised, clean, residual)]
    title = "Test images; residual = denoised - clean (red: too bright, blue: too dark)"
    names = ["noisy", "denoised", "clean", "residual"]
    plot_image_rows(folder / "denoised_digits.png", title, rows, names, residuals)
    plot_history(folder / "denoiser_loss.png", history)


# ---- Main ----------------------------------------------------------------------------------------


def main(options):
    """Load the images; build, fit and evaluate the denoiser; save the models; plot."""
    *parts, _ = load_images(options.data, options.limit)
    height, width = (side // 4 * 4 for side in parts[0].shape[1:3])  # what the model takes
    parts = [np.ascontiguousarray(part[:, :height, :width]) for part in parts]
    train, validation, test = parts
    with set_up(options, len(train)).scope():
        encoder, decoder = build_encoder(train.shape[3]), build_decoder(train.shape[3])
        denoiser = keras.Model(encoder.input, decoder(encoder.output), name="denoiser_logits")
        metrics = [keras.metrics.MeanMetricWrapper(psnr, name="psnr")]
        muon = ConvMuon(learning_rate(len(train), options), rms_rate=None)
        denoiser.compile(muon, keras.losses.BinaryCrossentropy(from_logits=True), metrics=metrics)

    def noisy_and_clean(clean, seed):
        return add_noise(clean, options.noise, seed), clean

    def training_batch(clean, seed):
        return noisy_and_clean(mosaics(clean, seed), seed)

    validation_dataset = eval_dataset(validation, noisy_and_clean, options.seed, "validation")
    run = fit(denoiser, [encoder, decoder], parts, training_batch, validation_dataset, options)
    if not run.is_chief:
        return
    probabilities = layers.Activation("sigmoid", dtype="float32")(denoiser.output)
    model = keras.Model(denoiser.input, probabilities, name="model")
    test_dataset = eval_dataset(test, noisy_and_clean, options.seed, "test")
    report(options, evaluate(model, test_dataset), run)
    save(options.model_dir / "model.keras", model.save)
    save(options.model_dir / "encoder.keras", encoder.save)
    plot_all(options.images_dir, model, test_dataset, run.history)
    run.keep(0)
    print(f"See {options.images_dir}/denoised_digits.png first. To denoise pictures of your own:")
    print(f"python examples/denoise_pictures.py PATH --output DIR --model-dir {options.model_dir}")


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
