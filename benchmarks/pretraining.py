"""Measures whether learning to denoise helps to classify: fine-tunes encoders on labelled digits.

    python benchmarks/pretraining.py       # about an hour

Starts from the encoder of a default run of the denoiser, from encoders trained on two other kinds
of corruption and on clean images, and from random weights. Encoders that are not in work/ are
trained first. Each gets a linear layer on top of its code, and all its weights are fine-tuned on
some labelled digits, for the same number of steps; the learning rate is chosen on validation
digits. Prints the error on the test digits as a table, writes pretraining.json to work/, and draws
images/pretraining.png.
"""

import argparse
import json

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure
from models import load_digits, trained
from run import DENOISER, HERE, WORK

ENCODERS = {  # name: arguments of its training; None for random weights
    "random weights": None,
    "clean images": ["--noise", "0.001"],  # an autoencoder without noise, but for a trace
    "Gaussian noise": [],
    "masking": ["--corruption", "masking"],
    "salt-and-pepper": ["--corruption", "salt-and-pepper"],
}
LABELS = (100, 300, 1000, 3000)  # and all
VALIDATION = 12  # the last training digits, one in 12, which no encoder has seen
RATES = (3e-4, 1e-3, 3e-3)
BATCH_SIZE = 64
PASSES = 3  # over all labels, if that takes more steps than --steps
EPOCHS = 10  # parts of a training, each at its own learning rate


def load_encoders(epochs):
    """Return {name: encoder}; those that are missing are trained."""
    encoders = {}
    for name, words in ENCODERS.items():
        if words is not None:
            epochs_words = ["--epochs", str(epochs)] if words else []  # none for a default run
            folder = trained(DENOISER, *words, *epochs_words)
            encoders[name] = keras.models.load_model(folder / "encoder.keras")
    return encoders


def build_classifier(encoder):
    """Return a model from digits (n, 28, 28, 1) to the logits of ten classes."""
    image = keras.Input((28, 28, 1))
    code = keras.layers.ReLU()(encoder(image))  # as in the decoder's first block
    logits = keras.layers.Dense(10, name="classes")(keras.layers.Flatten()(code))
    model = keras.Model(image, logits)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(), loss=loss)
    model.optimizer.build(model.trainable_variables)
    return model


def random_weights(model, seed):
    """Return new initial weights of all layers, for a seed."""
    keras.utils.set_random_seed(seed)
    return keras.models.clone_model(model).get_weights()


def initial_weights(model, encoder, seed):
    """Return the weights that training begins with; without an encoder, all are random."""
    weights = random_weights(model, seed)
    if encoder is not None:
        pretrained = encoder.get_weights()
        weights[: len(pretrained)] = pretrained
    return weights


def fine_tune(model, weights, images, labels, steps, rate, seed):
    """Train a classifier from given weights; the rate falls linearly to zero."""
    model.set_weights(weights)
    for variable in model.optimizer.variables:
        variable.assign(keras.ops.zeros_like(variable))

    def falling(epoch, _):
        return rate * (1 - epoch / EPOCHS)

    data = tf.data.Dataset.from_tensor_slices((images, labels))
    batches = data.shuffle(len(images), seed=seed).repeat().batch(BATCH_SIZE).prefetch(4)
    schedule = keras.callbacks.LearningRateScheduler(falling)
    model.fit(
        batches,
        epochs=EPOCHS,
        steps_per_epoch=max(1, steps // EPOCHS),
        callbacks=[schedule],
        shuffle=False,  # they are in a random order already
        verbose=0,
    )


def error(model, images, labels):
    """Return the share of images that are classified wrongly."""
    wrong = 0
    for start in range(0, len(images), 500):
        part = slice(start, start + 500)
        found = np.argmax(model(images[part]), axis=1)
        wrong += np.sum(found != labels[part])
    return float(wrong / len(images))


def draw_labelled(labels, count, seed):
    """Return the indices of `count` digits: as many of each class, or all digits."""
    if count == len(labels):
        return np.arange(count)
    draw = np.random.default_rng(seed)
    chosen = []
    for label in range(10):
        of_class = np.flatnonzero(labels == label)
        chosen.append(draw.choice(of_class, min(count // 10, len(of_class)), replace=False))
    return np.concatenate(chosen)


def errors_of(model, encoder, count, train, validation, test, options):
    """Return the test errors of all draws with `count` labels, and the learning rate."""
    images, labels = train
    steps = max(options.steps, PASSES * count // BATCH_SIZE)

    def error_after(rate, draw, judged):
        chosen = draw_labelled(labels, count, draw)
        weights = initial_weights(model, encoder, draw)
        fine_tune(model, weights, images[chosen], labels[chosen], steps, rate, draw)
        return error(model, *judged)

    by_rate = {rate: error_after(rate, 0, validation) for rate in RATES}
    best = min(by_rate, key=by_rate.get)
    return [error_after(best, draw, test) for draw in range(options.draws)], best


def print_row(count, row):
    """Print the errors with a number of labels as a row in Markdown, in percent."""
    cells = [f"{count:,}"]
    for found in row.values():
        errors = 100 * np.array(found["errors"])
        cells.append(f"{errors.mean():.2f} ± {errors.std(ddof=1):.2f}")
    print(f"| {' | '.join(cells)} |", flush=True)


def plot(path, rows):
    """Plot the test error of each encoder against the number of labels."""
    figure = Figure(figsize=(7, 5), layout="constrained")
    title = "Test error of classifiers that start from encoders trained on..."
    axes = figure.add_subplot(title=title, xlabel="labelled digits", ylabel="test error in percent")
    for name in ENCODERS:
        errors = 100 * np.array([row[name]["errors"] for row in rows.values()])
        spread = errors.std(axis=1, ddof=1)
        style = "--" if name == "random weights" else "-"
        axes.errorbar([*rows], errors.mean(axis=1), spread, fmt=f"o{style}", label=name, capsize=3)
    axes.set(xscale="log", yscale="log")
    axes.set_xticks([*rows], [f"{count:,}" for count in rows])
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.savefig(path, dpi=150)


def main(options):
    images, labels, test, test_labels = load_digits()
    encoders = load_encoders(options.epochs)
    keras.utils.set_random_seed(0)
    tf.config.experimental.enable_op_determinism()
    size = len(images) - len(images) // VALIDATION
    train = (images[:size], labels[:size])
    validation = (images[size:], labels[size:])
    test = (test, test_labels)
    model = build_classifier(keras.models.clone_model(encoders["Gaussian noise"]))
    print("\n| labels |", " | ".join(ENCODERS), "|\n| --- |" + " --- |" * len(ENCODERS))
    rows = {}
    for count in [*(count for count in LABELS if count < size), size]:
        row = {}
        for name in ENCODERS:
            found = errors_of(model, encoders.get(name), count, train, validation, test, options)
            row[name] = dict(zip(("errors", "rate"), found, strict=True))
        rows[count] = row
        print_row(count, row)
    (WORK / "pretraining.json").write_text(json.dumps(rows, indent=2) + "\n")
    plot(HERE.parent / "images/pretraining.png", rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=8, help="in the training of encoders")
    parser.add_argument("--steps", type=int, default=600, help="of a classifier, at least")
    parser.add_argument("--draws", type=int, default=5, help="random choices of labelled digits")
    main(parser.parse_args())
