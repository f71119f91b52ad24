"""Draws pictures of README.md and docs/ that are of several runs, into images/.

    python benchmarks/figures.py time dimensions page interpolation

The models are those of default runs, and of other dimensions; those that are not in work/ are
trained first. figures_over_time.png, of the part time, is drawn from results.jsonl.
"""

import statistics
import sys

import numpy as np
import tables
from matplotlib.figure import Figure
from results import DENOISER, HERE, ROOT, VAE
from training import load, load_digits, load_model, load_vae, train

IMAGES = ROOT / "images"
PAIRS = [(0, 1), (2, 7), (3, 8), (4, 9), (5, 6), (6, 0), (7, 1), (8, 5)]  # classes
EXAMPLES = {VAE: "keras-vae", DENOISER: "keras-denoiser"}


def draw_time():
    """Draw the test metric of each recipe against its training time, at the speeds measured."""
    speeds = tables.lines_of(["speed"])
    rates = {line["program"]: line["metrics"]["images_per_second"] for line in speeds}
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, script, metric, column in (
        (left, VAE, "negative_elbo", "val_loss"),
        (right, DENOISER, "psnr", "val_psnr"),
    ):
        lines = tables.reported(tables.lines_of(["lengths", "default"], script))
        tables.need_one_version("time", lines)
        by_epochs = {}
        for line in lines:
            by_epochs.setdefault(line["metrics"]["epochs"], []).append(line["metrics"][metric])
        epochs = sorted(by_epochs)
        minutes = [55_000 * count / rates[script] / 60 for count in epochs]
        means = [statistics.fmean(by_epochs[count]) for count in epochs]
        axes.plot(minutes, means, "o-", label="this repository: one point for each length of run")
        example = EXAMPLES[script]
        history = tables.lines_of([example])[0]["history"].splitlines()
        values = np.genfromtxt(history, delimiter=",", names=True)[column]
        minutes = np.arange(1, len(values) + 1) * 60_000 / rates[example] / 60
        label = f"{tables.NAMES[example]}: the epochs of one run"
        axes.plot(minutes, values, ".-", label=label)
        axes.set(xlabel="training time, minutes on two cores", xscale="log")
        axes.grid(alpha=0.3)
        axes.legend()
    left.set(ylabel="negative ELBO, nats (lower is better)", ylim=(130, 175))
    right.set(ylabel="PSNR, dB (higher is better)", ylim=(16.5, 22.5))
    figure.savefig(HERE / "figures_over_time.png", dpi=150)


def draw_dimensions():
    """Draw test digits and their reconstructions by VAEs of several latent dimensions."""
    digits = load_digits()[2][:20]
    rows = {"image": digits}
    for count in (2, 5, 10, 32):
        encoder, decoder = load_vae(
            train(VAE, 0, ["--latent-dim", str(count)] if count > 2 else [])[0]
        )
        rows[f"{count} dimensions"] = decoder(encoder(digits)[0])
    title = "Reconstructions by latent dimension"
    load(VAE).plot_image_rows(IMAGES / "vae_dimensions.png", title, [*rows.values()], [*rows])


def draw_page():
    """Draw a page of 20 x 14 noisy digits, and the same, denoised at once."""
    page = load_digits()[2][:280].reshape(14, 20, 28, 28).swapaxes(1, 2).reshape(14 * 28, 20 * 28)
    noise = 0.5 * np.random.default_rng(0).normal(size=page.shape)
    noisy = np.clip(page + noise, 0, 1)
    model = load_model(train(DENOISER)[0] / "model.keras")
    denoised = model.predict(noisy[np.newaxis, ..., np.newaxis], verbose=0)[0, ..., 0]
    figure = Figure(figsize=(11.2, 4.4), layout="constrained")
    for axes, (name, image) in zip(
        figure.subplots(1, 2), {"noisy": noisy, "denoised": denoised}.items(), strict=True
    ):
        psnr = -10 * np.log10(np.mean((page - image) ** 2))
        axes.imshow(image, cmap="gray", vmin=0, vmax=1)
        axes.set_title(f"{name}: PSNR {psnr:.1f} dB")
        axes.axis("off")
    figure.savefig(IMAGES / "denoised_page.png")


def draw_interpolation():
    """Draw latent interpolations between pairs of digits, which stand at both ends."""
    _, _, digits, labels = load_digits()
    encoder, decoder = load_vae(train(VAE)[0])
    share = np.linspace(0, 1, 14)[:, np.newaxis]
    rows = []
    for pair in PAIRS:
        ends = digits[[np.flatnonzero(labels == label)[1] for label in pair]]
        first, last = encoder(ends)[0]
        between = decoder((1 - share) * first + share * last)
        rows.append(np.concatenate([ends[:1], between, ends[1:]]))
    names = [f"{first} → {last}" for first, last in PAIRS]
    title = "From one image to another, decoded on the way"
    load(VAE).plot_image_rows(IMAGES / "vae_interpolation.png", title, rows, names)


PARTS = {
    "time": draw_time,
    "dimensions": draw_dimensions,
    "page": draw_page,
    "interpolation": draw_interpolation,
}

if __name__ == "__main__":
    for part in sys.argv[1:]:
        PARTS[part]()
