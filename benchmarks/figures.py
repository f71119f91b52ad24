"""Draws the pictures of README.md and docs/ that are more than one run makes, into images/.

    python benchmarks/figures.py forming tour clusters page dimensions

forming: an animation of the 2-D latent space in training, after each epoch. tour: interpolations
between test digits, and an animated path through the latent space. clusters: those of the VAE's and
of the denoiser's code; needs umap-learn. page: 20 x 14 digits denoised at once. dimensions:
reconstructions of VAEs with 2, 5, 10 and 32 dimensions. The models are those of default runs; those
that are not in work/ are trained first.
"""

import argparse
import functools
import io
import statistics

import codes_as_features as codes
import keras
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib.patches import Rectangle
from models import load_digits, trained
from PIL import Image
from run import DENOISER, HERE, VAE, load
from sklearn.metrics import confusion_matrix

IMAGES = HERE.parent / "images"
CLASSES = {"cmap": "tab10", "vmin": -0.5, "vmax": 9.5}  # the colours of scatter plots


def frame_of(figure, dpi):
    """Return a figure as an RGB picture, a frame of an animation."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=dpi)
    return Image.open(buffer).convert("RGB")


def save_animation(path, frames, durations):
    """Write frames as a GIF of one palette and without dithering, which compresses well."""
    palette = frames[-1].quantize(128)
    first, *others = [frame.quantize(palette=palette, dither=0) for frame in frames]
    first.save(path, save_all=True, append_images=others, duration=durations, loop=0)


def draw_image_rows(axes, rows, names):
    """Draw rows of images in [0, 1], (rows, columns, height, width, channels), with names."""
    tiles = np.pad(rows, [(0, 0), (0, 0), (1, 1), (1, 1), (0, 0)], constant_values=1)
    count, columns, height, width, channels = tiles.shape
    image_grid = tiles.swapaxes(1, 2).reshape(count * height, columns * width, channels)
    axes.imshow(image_grid, cmap="gray", vmin=0, vmax=1)
    axes.set(xticks=[], yticks=(np.arange(count) + 0.5) * height, yticklabels=names)
    axes.tick_params(length=0)
    return height, width


def load_vae(*words):
    """Return the encoder and the decoder of a run."""
    folder = trained(VAE, *words)
    return [keras.models.load_model(folder / f"{name}.keras") for name in ("encoder", "decoder")]


# ---- The latent space in training ----------------------------------------------------------------

EPOCHS = 12
LIMIT = 20000  # training digits
BATCH_SIZE = 64
SIDE = 12  # decoded tiles along each axis


class LatentSpaceFrames(keras.callbacks.Callback):
    """Draws the 2-D latent space after each epoch; `frames` are the RGB pictures."""

    def __init__(self, digits, labels):
        super().__init__()
        self.digits, self.labels = digits, labels  # (n, 28, 28, 1) in [0, 1], and (n,)
        self.frames = []

    def on_epoch_end(self, epoch, logs=None):
        z_mean, _ = self.model.encoder(self.digits)
        prior = statistics.NormalDist()
        quantiles = [prior.inv_cdf((step + 0.5) / SIDE) for step in range(SIDE)]
        grid = np.stack(np.meshgrid(quantiles, quantiles[::-1]), axis=-1)
        logits = self.model.decoder_logits(grid.reshape(-1, 2))
        tiles = np.reshape(keras.ops.sigmoid(logits), (SIDE, SIDE, 28, 28))
        image_grid = tiles.swapaxes(1, 2).reshape(SIDE * 28, SIDE * 28)
        figure = Figure(figsize=(8.4, 4.5), layout="constrained")
        figure.suptitle(f"The 2-D latent space after epoch {epoch + 1}")
        points, decoded = figure.subplots(1, 2)
        scatter = points.scatter(*np.transpose(z_mean), s=2, linewidths=0, c=self.labels, **CLASSES)
        key = scatter.legend_elements(num=None)  # one entry for each class
        figure.legend(*key, ncols=10, loc="outside lower center", handletextpad=0, columnspacing=1)
        points.set(xlim=(-3.5, 3.5), ylim=(-3.5, 3.5), xlabel="z[0]", ylabel="z[1]")
        points.set_title(f"z_mean of {len(z_mean):,} test digits, coloured by class", fontsize=10)
        points.set_aspect("equal")
        decoded.set_title("decoded, at quantiles of the prior", fontsize=10)
        decoded.imshow(image_grid, cmap="gray", vmin=0, vmax=1)
        decoded.set_axis_off()
        self.frames.append(frame_of(figure, dpi=90))


def draw_forming():
    """Train a VAE, and draw how its latent space forms."""
    script = load(VAE)
    images, _, test, labels = script.split_images(script.load_arrays("mnist"), "mnist", LIMIT)
    drawing = LatentSpaceFrames(test[:3000] / 255, labels[:3000])
    steps = len(images) // BATCH_SIZE
    make_batch = functools.partial(script.vae_batch, latent_dim=2, is_mixed=True)
    batches = script.train_batches(images, BATCH_SIZE, 0, 0, EPOCHS).map(make_batch)
    with script.global_settings(0, bfloat16=False):
        rate = script.learning_rate(script.LEARNING_RATE, EPOCHS * steps)
        vae = script.build_vae(images, 2, 1.0, rate)
        settings = {"epochs": EPOCHS, "steps_per_epoch": steps, "shuffle": False}
        vae.fit(batches.prefetch(4), callbacks=[drawing], verbose=2, **settings)
    durations = [800] * (EPOCHS - 1) + [3000]  # ms
    save_animation(IMAGES / "vae_forming.gif", drawing.frames, durations)


# ---- Interpolations and a tour -------------------------------------------------------------------

PAIRS = [(0, 1), (2, 7), (3, 8), (4, 9), (5, 6), (6, 0), (7, 1), (8, 5)]  # classes
STEPS = 14  # digits from one to the other
FRAMES, FPS = 150, 15


def draw_interpolations(path, digits, labels, z_mean, decoder):
    """Draw latent interpolations between pairs of digits, which are framed."""
    share = np.linspace(0, 1, STEPS)[:, np.newaxis]
    rows = []
    for pair in PAIRS:
        first, last = (np.flatnonzero(labels == label)[1] for label in pair)
        between = decoder.predict((1 - share) * z_mean[first] + share * z_mean[last], verbose=0)
        rows.append(np.concatenate([digits[[first]], between, digits[[last]]]))
    figure = Figure(figsize=(0.62 * STEPS + 1.84, 0.62 * len(PAIRS) + 0.5), layout="constrained")
    title = "From one image to another (framed), decoded on the way"
    axes = figure.add_subplot(title=title, frame_on=False)
    height, width = draw_image_rows(axes, rows, [f"{first} → {last}" for first, last in PAIRS])
    style = {"fill": False, "edgecolor": "tab:orange", "linewidth": 2}
    for row in range(len(PAIRS)):
        for column in (0, STEPS + 1):
            corner = (column * width - 0.5, row * height - 0.5)
            axes.add_patch(Rectangle(corner, width, height, **style))
    figure.savefig(path, dpi=150, bbox_inches="tight")


def closed_path():
    """Return points (FRAMES, 2) of a smooth round tour within the bulk of the prior."""
    angle = np.linspace(0, 2 * np.pi, FRAMES, endpoint=False)
    radius = 1.3 + 0.6 * np.cos(3 * angle)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)


def draw_tour():
    """Draw the interpolations; and codes with a point on a path, and the digit decoded there."""
    _, _, digits, labels = load_digits()
    encoder, decoder = load_vae()
    z_mean, _ = encoder.predict(digits, batch_size=500, verbose=0)
    draw_interpolations(IMAGES / "vae_interpolation.png", digits, labels, z_mean, decoder)
    points = closed_path()
    decoded = decoder.predict(points, verbose=0)
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    plane, digit = figure.subplots(1, 2)
    scatter = plane.scatter(*z_mean[:3000].T, s=2, c=labels[:3000], **CLASSES)
    figure.colorbar(scatter, ax=plane, ticks=range(10), label="class", fraction=0.046)
    plane.plot(*np.vstack([points, points[:1]]).T, color="black", linewidth=0.8)
    (marker,) = plane.plot([], [], "o", color="black", markersize=9, markeredgecolor="white")
    plane.set(title="2-D latent space", xlabel="z[0]", ylabel="z[1]")
    plane.set(xlim=(-3.5, 3.5), ylim=(-3.5, 3.5), aspect="equal")
    image = digit.imshow(decoded[0], cmap="gray", vmin=0, vmax=1, interpolation="bicubic")
    digit.set_axis_off()
    digit.set_title("decoded")
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # otherwise panels move between frames
    frames = []
    for z, pixels in zip(points, decoded, strict=True):
        marker.set_data(z[:1], z[1:])
        image.set_data(pixels)
        frames.append(frame_of(figure, dpi=75))
    save_animation(IMAGES / "vae_tour.gif", frames, 1000 / FPS)


# ---- Clusters ------------------------------------------------------------------------------------


def draw_latent_clusters(path, z_mean, labels, decoder):
    """Draw the 2-D latent space, divided into the clusters of a Gaussian mixture.

    A cluster has the colour of its most frequent class, a point that of its own class. The mean of
    each cluster is decoded.
    """
    mixture = codes.gaussian_mixture(z_mean)
    majority = confusion_matrix(mixture.predict(z_mean), labels).argmax(axis=1)
    low, high = np.quantile(z_mean, (0.001, 0.999), axis=0)
    centre, reach = (low + high) / 2, (high - low).max() / 2 + 0.3
    (left, bottom), (right, top) = centre - reach, centre + reach  # a square
    x, y = np.linspace(left, right, 800), np.linspace(bottom, top, 800)
    points = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    regions = mixture.predict(points.astype(z_mean.dtype)).reshape(800, 800)
    figure = Figure(figsize=(8, 8), layout="constrained")
    title = "Ten clusters found without labels, coloured by their most frequent class;\n"
    title += "points have the colour of their own class; each cluster's mean is decoded"
    axes = figure.add_subplot(title=title, xlabel="z[0]", ylabel="z[1]")
    colours = matplotlib.colormaps["tab10"]
    extent = (left, right, bottom, top)
    axes.imshow(colours(majority)[regions], alpha=0.35, extent=extent, origin="lower")
    for cluster in range(10):
        axes.contour(x, y, regions == cluster, levels=[0.5], colors="black", linewidths=0.7)
    scatter = axes.scatter(*z_mean[:5000].T, s=3, linewidths=0, c=labels[:5000], **CLASSES)
    key = scatter.legend_elements(num=None)  # one entry for each class
    place = {"loc": "outside lower center", "handletextpad": 0, "columnspacing": 1}
    figure.legend(*key, title="class", ncols=10, **place)
    axes.set(xlim=(left, right), ylim=(bottom, top))
    half = 0.07 * reach  # of the side of a decoded digit
    for z, digit in zip(mixture.means_, decoder.predict(mixture.means_, verbose=0), strict=True):
        inset = axes.inset_axes((*(z - half), 2 * half, 2 * half), transform=axes.transData)
        inset.imshow(digit, cmap="gray", vmin=0, vmax=1)
        inset.set(xticks=[], yticks=[])
    figure.savefig(path, dpi=150)


def draw_embedding(path, means, images, labels):
    """Draw codes in two dimensions by UMAP, and the mean image of each cluster found there.

    A cluster has the colour of its most frequent class, and its points have the colour of theirs.
    """
    points = codes.umap_embedding(means, 2, codes.UMAP_SEEDS[0])
    clusters = codes.gaussian_mixture(points).predict(points)
    colours = matplotlib.colormaps["tab10"]
    figure = Figure(figsize=(9, 8), layout="constrained")
    title = "The denoiser's code of the test digits in two dimensions by UMAP; points have the\n"
    title += "colour of their class; framed: the mean image of each of ten clusters"
    axes = figure.add_subplot(title=title, xlabel="UMAP 1", ylabel="UMAP 2")
    scatter = axes.scatter(*points.T, s=2, linewidths=0, c=labels, **CLASSES)
    place = {"loc": "outside lower center", "handletextpad": 0, "columnspacing": 1}
    figure.legend(*scatter.legend_elements(num=None), title="class", ncols=10, **place)
    axes.set(xticks=[], yticks=[])
    majority = confusion_matrix(clusters, labels).argmax(axis=1)
    for cluster in range(10):
        members = clusters == cluster
        if not members.any():
            continue
        mean = images[members].mean(axis=0)
        picture = OffsetImage(mean[..., 0], zoom=1.4, cmap="gray")
        frame = {"edgecolor": colours(majority[cluster]), "linewidth": 3}
        middle = np.median(points[members], axis=0)
        axes.add_artist(AnnotationBbox(picture, middle, pad=0.1, bboxprops=frame))
    figure.savefig(path, dpi=130)


def draw_clusters():
    """Draw the clusters in the 2-D latent space of the VAE, and in the code of the denoiser."""
    x_train, _, digits, labels = load_digits()
    encoder, decoder = load_vae()
    z_mean, _ = encoder.predict(digits, batch_size=500, verbose=0)
    draw_latent_clusters(IMAGES / "vae_clusters.png", z_mean, labels, decoder)
    train, test = codes.all_codes(x_train, digits)[codes.MEANS]
    _, means = codes.components(train, test)
    draw_embedding(IMAGES / "denoiser_clusters.png", means, digits, labels)


# ---- A page, and dimensions ----------------------------------------------------------------------

NOISE = 0.5  # standard deviation, as in training
ROWS, COLUMNS = 14, 20


def draw_page():
    """Denoise a page of test digits at once, and draw it alongside the noisy page."""
    model = keras.models.load_model(trained(DENOISER) / "model.keras")
    _, _, digits, _ = load_digits()
    page = digits[: ROWS * COLUMNS].reshape(ROWS, COLUMNS, 28, 28).swapaxes(1, 2)
    clean = page.reshape(ROWS * 28, COLUMNS * 28)
    noise = NOISE * np.random.default_rng(0).normal(size=clean.shape)
    noisy = np.clip(clean + noise, 0, 1)
    denoised = model.predict(noisy[np.newaxis, ..., np.newaxis], verbose=0)[0, ..., 0]
    height, width = clean.shape
    figure = Figure(figsize=(2 * width / 100, height / 100 + 0.4), dpi=100, layout="constrained")
    pages = {f"noisy, noise level {NOISE}": noisy, f"denoised from noise level {NOISE}": denoised}
    for axes, (name, page) in zip(figure.subplots(1, 2), pages.items(), strict=True):
        psnr = -10 * np.log10(np.mean((clean - page) ** 2))
        axes.imshow(page, cmap="gray", vmin=0, vmax=1)
        axes.set_title(f"{name}: PSNR {psnr:.1f} dB")
        axes.axis("off")
    figure.savefig(IMAGES / "denoised_page.png")


def draw_dimensions():
    """Draw test digits and their reconstructions by VAEs of several latent dimensions."""
    _, _, digits, _ = load_digits()
    rows = [digits[:20]]
    names = ["image"]
    for dimensions in (2, 5, 10, 32):
        words = [] if dimensions == 2 else ["--latent-dim", str(dimensions)]
        encoder, decoder = load_vae(*words)
        z_mean, _ = encoder(digits[:20])
        rows.append(decoder(z_mean).numpy())
        names.append(f"{dimensions} dimensions")
    figure = Figure(figsize=(11, 0.5 * len(rows) + 0.4), layout="constrained")
    axes = figure.add_subplot(title="Reconstructions by latent dimension", frame_on=False)
    draw_image_rows(axes, rows, names)
    figure.savefig(IMAGES / "vae_dimensions.png", dpi=150, bbox_inches="tight")


PARTS = {
    "forming": draw_forming,
    "tour": draw_tour,
    "clusters": draw_clusters,
    "page": draw_page,
    "dimensions": draw_dimensions,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="+", choices=PARTS)
    for part in parser.parse_args().parts:
        PARTS[part]()
