"""Measures whether learning to denoise helps to classify: fine-tunes encoders on labelled digits.

    python benchmarks/run.py pretraining

Starts from encoders of the denoiser, trained with three kinds of noise and on clean images, and
from random weights. Each gets a linear layer on top of its code, and all its weights are fine-tuned
on some labelled digits, for the same number of steps; the learning rate is chosen on validation
digits. Draws images/pretraining.png.
"""

import keras
import numpy as np
import results
import tensorflow as tf
from matplotlib.figure import Figure
from results import DENOISER, ROOT
from training import SMOKE, load_digits, load_model, train

ENCODERS = {  # name: arguments of its training; None for random weights
    "random weights": None,
    "clean images": ["--noise", "0.001"],  # an autoencoder without noise, except for a trace
    "Gaussian noise": [],
    "masking": ["--corruption", "masking"],
    "salt-and-pepper": ["--corruption", "salt-and-pepper"],
}
LABELS = (100, 300, 1000, 3000, 55000)
DRAWS = 5  # random choices of labelled digits
RATES = (3e-4, 1e-3, 3e-3)
BATCH_SIZE = 64
STEPS, PASSES = 600, 3  # of a training, at least: steps, and passes over all labels
VALIDATION = 5000  # the last training digits, which no encoder has seen


def build_classifier(encoder):
    """Return a model from digits (n, 28, 28, 1) to the logits of ten classes."""
    image = keras.Input((28, 28, 1))
    code = keras.layers.ReLU()(encoder(image))  # as in the decoder's first block
    logits = keras.layers.Dense(10, name="classes")(keras.layers.Flatten()(code))
    return keras.Model(image, logits)


def initial_classifier(name, seed):
    """Return a classifier with the weights of an encoder; the rest, or all, are random."""
    encoder = load_model(train(DENOISER, 0, ENCODERS[name] or [])[0] / "encoder.keras")
    keras.utils.set_random_seed(seed)
    if ENCODERS[name] is None:
        encoder = keras.models.clone_model(encoder)
    return build_classifier(encoder)


def draw_labelled(labels, count, seed):
    """Return the indices of `count` digits: as many of each class, or all digits."""
    if count >= len(labels):
        return np.arange(len(labels))
    draw = np.random.default_rng(seed)
    classes = [np.flatnonzero(labels == label) for label in range(10)]
    return np.concatenate([draw.choice(each, count // 10, replace=False) for each in classes])


def fine_tune(model, images, labels, rate, seed):
    """Train a classifier; the rate falls linearly to zero."""
    steps = max(STEPS, PASSES * len(images) // BATCH_SIZE)
    schedule = keras.optimizers.schedules.PolynomialDecay(rate, steps, end_learning_rate=0.0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(schedule), loss=loss)
    data = tf.data.Dataset.from_tensor_slices((images, labels))
    batches = data.shuffle(len(images), seed=seed).repeat().batch(BATCH_SIZE).prefetch(4)
    model.fit(batches, steps_per_epoch=steps, shuffle=False, verbose=0)


def error_after(name, count, rate, seed, digits, judged):
    """Return the share of judged digits that a fine-tuned classifier gets wrong."""
    images, labels = digits
    chosen = draw_labelled(labels, count, seed)
    model = initial_classifier(name, seed)
    fine_tune(model, images[chosen], labels[chosen], rate, seed)
    found = model.predict(judged[0], batch_size=500, verbose=0).argmax(axis=1)
    return float(np.mean(found != judged[1]))


def draw_errors(path, errors):
    """Draw the test errors {name: {labels: errors of all draws}} of each encoder."""
    figure = Figure(figsize=(7, 5), layout="constrained")
    title = "Test error of classifiers that start from encoders trained on..."
    axes = figure.add_subplot(title=title, xlabel="labelled digits", ylabel="test error")
    for name, by_count in errors.items():
        means = [np.mean(each) for each in by_count.values()]
        spreads = [np.std(each) for each in by_count.values()]
        axes.errorbar([*by_count], means, spreads, fmt="o-", label=name, capsize=3)
    axes.set(xscale="log", yscale="log")
    axes.set_xticks([*LABELS], [f"{count:,}" for count in LABELS])
    axes.yaxis.set_major_formatter("{x:.1%}")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.savefig(path, dpi=150)


def measure_encoder(name, count, digits, validation, test):
    """Return the test errors of all draws of labels, and keep those that are new."""
    rate = None
    errors = []
    for seed in range(1 if SMOKE else DRAWS):
        key = {"part": "pretraining", "program": DENOISER, "data": f"{count:,} labels"}
        key |= {"case": name, "seed": seed}
        if line := results.find(**key):
            errors.append(line["metrics"]["error"])
            continue
        if rate is None:
            tried = [error_after(name, count, each, 0, digits, validation) for each in RATES]
            rate = RATES[int(np.argmin(tried))]
        errors.append(error_after(name, count, rate, seed, digits, test))
        results.keep(DENOISER, {"error": errors[-1], "rate": rate}, **key)
    return errors


def measure_all(_):
    images, labels, *test = load_digits()
    digits = (images[:-VALIDATION], labels[:-VALIDATION])
    validation = (images[-VALIDATION:], labels[-VALIDATION:])
    tf.config.experimental.enable_op_determinism()
    errors = {name: {} for name in ENCODERS}
    for count in LABELS[:1] if SMOKE else LABELS:
        for name in ENCODERS:
            errors[name][count] = measure_encoder(name, count, digits, validation, test)
    if not SMOKE:
        draw_errors(ROOT / "images/pretraining.png", errors)
