"""Measures the VAE on colour drawings, beside version 1.1.0 and two VAEs of others.

All train for about as long as version 1.1.0 does for 30 epochs.

    python benchmarks/own_pictures.py     # or: python benchmarks/run.py own; a quarter of an hour

The drawings are those of 48 x 48 and 64 x 64 pixels of Debian's package oxygen-icon-theme, which
apt-get downloads. Like run.py, it adds a line to results.jsonl for each result and skips those
that have one. With the results it writes images/vae_own_pictures.png.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from functools import partial

import numpy as np
from PIL import Image
from run import (
    HERE,
    OURS_SEEDS,
    SCRIPTS,
    VAE,
    WORK,
    is_done,
    keep,
    keras_vae,
    load,
    load_splits,
    parameters,
    run_script,
)

PACKAGE = "oxygen-icon-theme"
SIDES = (48, 64)  # of the drawings, in pixels
LATENT_DIM = 16
OLD_COMMIT = "95c88372862c358f688d0a02ae2b64d8475685ea"  # the last one of version 1.1.0
OLD = ["--latent-dim", str(LATENT_DIM), "--epochs", "30"]
EPOCHS = 16  # of ours, which take about as long as those 30 of version 1.1.0
MOST_EPOCHS = 10000  # of a peer, which ends sooner, by the clock
OURS = ["--latent-dim", str(LATENT_DIM), "--batch-size", "32"]


def drawings(side):
    """Return the path of an .npz file of the drawings, each of them once."""
    path = (WORK / f"oxygen{side}.npz").relative_to(HERE.parent)
    if path.exists():
        return path
    package = WORK / PACKAGE
    if not package.exists():
        subprocess.run(["apt-get", "download", PACKAGE], cwd=WORK, check=True)
        archive = next(WORK.glob(f"{PACKAGE}_*.deb"))
        unfinished = WORK / f"{PACKAGE}-unfinished"
        subprocess.run(["dpkg-deb", "--extract", archive, unfinished], check=True)
        unfinished.rename(package)
    folder = WORK / f"oxygen{side}"
    folder.mkdir(exist_ok=True)
    for file in sorted(package.glob(f"usr/share/icons/oxygen/base/{side}x{side}/*/*.png")):
        if Image.open(file).size == (side, side):  # some are strips of several, for animations
            shutil.copy(file, folder / f"{file.parent.name}-{file.name}")
    all_drawings = WORK / f"oxygen{side}-all.npz"
    script = HERE.parent / "examples/prepare_data.py"
    words = [folder, "--output", all_drawings, "--force"]
    subprocess.run([sys.executable, script, *words], check=True)
    images = np.load(all_drawings)["x_train"]
    images = np.unique(images, axis=0)  # some are copies of others or links to them
    np.savez(path, x_train=np.random.default_rng(0).permutation(images))
    return path


def five_levels(script, shape, latent_dim):
    """Return a five-level VAE with batch normalization, with logits in place of its tanh.

    The layers of vanilla_vae.py in https://github.com/AntixK/PyTorch-VAE (commit 2946d7a).
    """
    keras, layers = script.keras, script.layers

    def level(layer, x):
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(layer(x))  # as in PyTorch
        return layers.LeakyReLU(negative_slope=0.01)(x)

    strided = {"strides": 2, "padding": "same"}
    x = image = keras.Input(shape)
    for filters in (32, 64, 128, 256, 512):
        x = level(layers.Conv2D(filters, 3, **strided), x)
    height, width = x.shape[1:3]
    x = layers.Flatten()(x)
    encoder = keras.Model(image, [layers.Dense(latent_dim)(x), 0.5 * layers.Dense(latent_dim)(x)])
    x = z = keras.Input((latent_dim,))
    x = layers.Dense(height * width * 512)(x)
    x = layers.Reshape((height, width, 512))(x)
    for filters in (256, 128, 64, 32, 32):
        x = level(layers.Conv2DTranspose(filters, 3, **strided), x)
    x = layers.Conv2D(shape[2], 3, padding="same")(x)
    x = layers.Cropping2D([(0, x.shape[1] - shape[0]), (0, x.shape[2] - shape[1])])(x)
    return script.VAE(encoder, keras.Model(z, x))


PEERS = {  # name: model, batch size, peak rate, factor of the rate after an epoch; as published
    "keras-vae": (keras_vae, 128, 1e-3, 1.0),
    "five-level-vae": (five_levels, 144, 5e-3, 0.95),
}


def reconstruction_psnr(script, encoder, decoder_logits, images):
    """Return the mean PSNR in dB of the decoded z_mean of uint8 images."""
    found = []
    for batch, _ in script.eval_batches(images, 0, "test"):
        decoded = script.tf.sigmoid(decoder_logits(encoder(batch)[0]))
        found.append(script.tf.image.psnr(batch, decoded, max_val=1))
    return float(np.mean(np.concatenate(found)))


def measure(script, networks, seconds, epochs, test):
    """Return the metrics of a trained VAE on the test images."""
    found = script.evaluate(*networks, test)
    return {
        "negative_elbo": found["negative_elbo"],
        "kl": found["kl"],
        "active_dimensions": found["active_dimensions"],
        "psnr": reconstruction_psnr(script, *networks, test),
        "train_seconds": seconds,
        "epochs": epochs,
        "parameters": sum(parameters(network) for network in networks),
    }


def load_networks(script, folder):
    """Return encoder and decoder of logits of a finished run."""
    encoder, decoder = (
        script.keras.models.load_model(folder / f"{name}.keras") for name in ("encoder", "decoder")
    )
    return encoder, script.keras.Model(decoder.input, decoder.layers[-1].input)


def train_peer(script, name, train, seconds, seed):
    """Train a peer until `seconds` are over; return its networks, its seconds and epochs."""
    build, batch_size, rate, decay = PEERS[name]
    steps = len(train) // batch_size
    schedule = script.keras.optimizers.schedules.ExponentialDecay(rate, steps, decay, True)
    make_batch = partial(script.vae_batch, latent_dim=LATENT_DIM)
    batches = script.train_batches(train, batch_size, seed, 0, MOST_EPOCHS).map(make_batch)

    class Clock(script.keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = time.perf_counter() - since >= seconds

    with script.global_settings(seed, bfloat16=False):
        model = build(script, train.shape[1:], LATENT_DIM)
        model.compile(script.keras.optimizers.Adam(schedule))
        since = time.perf_counter()
        fitted = model.fit(
            batches,
            epochs=MOST_EPOCHS,
            steps_per_epoch=steps,
            callbacks=[Clock()],
            shuffle=False,
            verbose=0,
        )
    networks = (model.encoder, model.decoder_logits)
    return networks, time.perf_counter() - since, len(fitted.epoch)


def plot(script, images, of_name):
    """Write a picture of test images, what each model makes of them, and samples of each."""
    rows, names = [images[:10] / 255], ["test picture"]
    z = script.tf.random.stateless_normal((10, LATENT_DIM), (0, 0))
    for name, (encoder, decoder_logits) in of_name.items():
        codes = encoder(images[:10] / np.float32(255))[0]
        for label, points in ((name, codes), ("its samples", z)):
            rows.append(script.tf.sigmoid(decoder_logits(points)))
            names.append(label)
    path = HERE.parent / "images/vae_own_pictures.png"
    script.plot_image_rows(path, "Test pictures, decoded by each model; its samples", rows, names)


def old_script():
    """Return the path of the script of version 1.1.0, from the history of the repository."""
    path = WORK / "version-1.1.0" / f"{VAE}.py"
    path.parent.mkdir(exist_ok=True)
    words = ["git", "show", f"{OLD_COMMIT}:{VAE}.py"]
    path.write_bytes(subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout)
    return path


def train_version(script, name, path, side, seed, words):
    """Train by a version of our script; return its networks, its seconds and epochs."""
    arguments = [*words, "--data", str(drawings(side))]
    key = {"part": "own-run", "program": VAE, "version": name}
    key |= {"seed": seed, "arguments": arguments}
    folder = WORK / f"own{side}-{name.replace(' ', '-')}-seed{seed}"
    run_script(key, folder, os.environ, path)
    metrics = json.loads((folder / "metrics.json").read_text())
    return load_networks(script, folder), metrics["train_seconds"], metrics["epochs"]


def compare(script, side, seed, train, test):
    """Train all on one size of drawings; keep their metrics; return {name: networks}.

    The peers train for as long as ours.
    """
    words = [*OURS, "--epochs", str(EPOCHS)]
    old = train_version(script, "version 1.1.0", old_script(), side, seed, OLD)
    ours = train_version(script, "ours", SCRIPTS[VAE], side, seed, words)
    _, seconds, _ = ours
    found = {"version 1.1.0": old, "ours": ours}
    for name in PEERS:
        found[name] = train_peer(script, name, train, seconds, seed)
    metrics = {name: measure(script, *trained, test) for name, trained in found.items()}
    for name, values in metrics.items():
        keep(part="own", program=name, side=side, seed=seed, metrics=values)
    return {name: networks for name, (networks, *_) in found.items()}


def main(options):
    """Train all on both sizes of drawings, with each seed."""
    os.chdir(HERE.parent)
    WORK.mkdir(exist_ok=True)
    if not shutil.which("apt-get"):
        print("there is no apt-get here, which downloads the drawings: nothing was measured")
        return
    if subprocess.run(["git", "cat-file", "-e", OLD_COMMIT]).returncode:
        print("this copy has no history with version 1.1.0 in it: nothing was measured")
        return
    script = load(VAE)
    for side in SIDES:
        train, _, test, _ = load_splits(script, str(drawings(side)))
        for seed in options.seeds:
            if is_done(part="own", side=side, seed=seed):
                continue
            networks = compare(script, side, seed, train, test)
            if side == max(SIDES) and seed == min(options.seeds):
                plot(script, test, networks)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[*OURS_SEEDS])
    main(parser.parse_args())
