# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = [
#     "tensorflow==2.21.*", "keras==3.15.*", "numpy>=2,<3", "matplotlib>=3.10,<4", "pillow>=11",
# ]
# ///
"""Two ways through the latent plane: lines between digits, and an animated round tour.

    python examples/latent_tour.py

Opens the VAE that VariationalAutoEncoder_tf2.py saved. Draws images/vae_interpolation.png, digits
decoded along the line between pairs of test digits of different classes, and images/vae_tour.gif, a
point on a closed path over the codes with the decoded digit beside it.
"""

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("encoder", "decoder")


def parse_options():
    """Return the options of the command line; a wrong one or a missing model ends the script."""
    about, command, *_ = __doc__.split("\n\n")
    example = f"example: {command.strip()}"
    parser = argparse.ArgumentParser(description=about, epilog=example, allow_abbrev=False)
    parser.error = lambda message: fail(f"{message}; see --help")
    add = parser.add_argument
    add("--model-dir", type=Path, default=Path("models/vae"), metavar="DIR",
        help="folder of the two models (default: models/vae)")  # fmt: skip
    add("--data", type=Path, default=ROOT / "data" / "mnist.npz", metavar="FILE",
        help="the digits (default: data/mnist.npz)")  # fmt: skip
    add("--images-dir", type=Path, default=ROOT / "images", metavar="DIR",
        help="folder for the pictures (default: images)")  # fmt: skip
    options = parser.parse_args()
    models = [options.model_dir / f"{part}.keras" for part in PARTS]
    for path in (options.data, *models):
        if not path.is_file():
            fail(f"{path} does not exist; train the models first, or give --model-dir and --data")
    return options


def fail(message):
    """End the script with one line about a user error."""
    print("error:", " ".join(str(message).split()), file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    OPTIONS = parse_options()  # before the slow imports, so that --help and mistakes answer at once
os.environ["KERAS_BACKEND"] = "tensorflow"
try:
    import keras
    import matplotlib
    import numpy as np
    from matplotlib.animation import FuncAnimation, PillowWriter
    from matplotlib.figure import Figure
    from PIL import Image, ImageSequence
except ImportError as error:
    fail(f"{error}; pip install -r examples/requirements.txt")

PAIRS = [(0, 1), (2, 7), (3, 8), (4, 9), (5, 6), (6, 0), (7, 1), (8, 5)]  # classes
STEPS = 14  # digits from one to the other
FRAMES, FPS = 150, 15


def load(path):
    """Return the model of a file; a damaged file ends the script."""
    try:
        return keras.models.load_model(path, compile=False)
    except (OSError, ValueError) as error:
        fail(f"{path} cannot be opened: {error}")


def draw_interpolation(path, images, labels, codes, decoder):
    """Draw a row for each pair: a test digit, digits decoded on the line between, a test digit."""
    first = {label: np.flatnonzero(labels == label)[1] for label in range(10)}
    share = np.linspace(0, 1, STEPS)[:, np.newaxis]
    rows = []
    for start, end in PAIRS:
        line = (1 - share) * codes[first[start]] + share * codes[first[end]]
        between = decoder.predict(line, verbose=0)[..., 0]
        rows.append(np.concatenate([[images[first[start]]], between, [images[first[end]]]]))
    tiles = np.pad(np.array(rows), [(0, 0), (0, 0), (1, 1), (1, 1)], constant_values=1)
    count, columns, height, width = tiles.shape
    figure = Figure(figsize=(0.62 * columns + 0.6, 0.62 * count + 0.5), layout="constrained")
    title = "From one test digit to another (framed), decoded on the way"
    axes = figure.add_subplot(title=title, frame_on=False)
    image_grid = tiles.transpose(0, 2, 1, 3).reshape(count * height, columns * width)
    axes.imshow(image_grid, cmap="gray", vmin=0, vmax=1)
    for left in (0, (columns - 1) * width):
        for top in range(0, count * height, height):
            corner = (left - 0.5, top - 0.5)
            frame = {"fill": False, "edgecolor": "tab:orange", "linewidth": 2}
            axes.add_patch(matplotlib.patches.Rectangle(corner, width, height, **frame))
    names = [f"{start} → {end}" for start, end in PAIRS]
    axes.set(xticks=[], yticks=(np.arange(count) + 0.5) * height, yticklabels=names)
    axes.tick_params(length=0)
    figure.savefig(path, dpi=150, bbox_inches="tight")


def closed_path():
    """Return points (FRAMES, 2) of a smooth round tour within the bulk of the prior."""
    angle = np.linspace(0, 2 * np.pi, FRAMES, endpoint=False)
    radius = 1.3 + 0.6 * np.cos(3 * angle)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)


def draw_tour(path, labels, codes, decoder):
    """Draw the animation: the codes with the point on its path, and the digit decoded there."""
    points = closed_path()
    digits = decoder.predict(points, verbose=0)[..., 0]
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    plane, digit = figure.subplots(1, 2)
    colours = matplotlib.colormaps["tab10"]
    scatter = plane.scatter(
        *codes[:3000].T, s=2, c=labels[:3000], cmap=colours, vmin=-0.5, vmax=9.5
    )
    plane.plot(*np.vstack([points, points[:1]]).T, color="black", linewidth=0.8)
    (marker,) = plane.plot(*points[:1].T, "o", color="black", markersize=9, markeredgecolor="white")
    plane.set(
        title="latent plane", xlabel="z[0]", ylabel="z[1]", xlim=(-3.5, 3.5), ylim=(-3.5, 3.5)
    )
    plane.set_aspect("equal")
    figure.colorbar(scatter, ax=plane, ticks=range(10), label="class", fraction=0.046)
    picture = digit.imshow(digits[0], cmap="gray", vmin=0, vmax=1, interpolation="bicubic")
    digit.set_axis_off()
    digit.set_title("decoded")

    def update(frame):
        marker.set_data(*points[frame, :, np.newaxis])
        picture.set_data(digits[frame])

    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # otherwise panels move between frames
    FuncAnimation(figure, update, frames=FRAMES).save(path, PillowWriter(fps=FPS), dpi=75)
    # With one palette and no dithering, frames differ little and compress well.
    with Image.open(path) as animation:
        frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(animation)]
    palette = frames[0].quantize(128)
    frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=1000 / FPS, loop=0)


def main(options):
    with np.load(options.data) as arrays:
        images, labels = arrays["x_test"].astype(np.float32) / 255, arrays["y_test"]
    encoder, decoder = (load(options.model_dir / f"{part}.keras") for part in PARTS)
    if [*encoder.output_shape, decoder.input_shape] != 3 * [(None, 2)]:
        fail(f"{options.model_dir}: accepted: models with 2 latent dimensions")
    codes, _ = encoder.predict(images[..., np.newaxis], batch_size=500, verbose=0)
    options.images_dir.mkdir(parents=True, exist_ok=True)
    interpolation = options.images_dir / "vae_interpolation.png"
    draw_interpolation(interpolation, images, labels, codes, decoder)
    tour = options.images_dir / "vae_tour.gif"
    draw_tour(tour, labels, codes, decoder)
    print(f"wrote {interpolation}\nwrote {tour}")


if __name__ == "__main__":
    main(OPTIONS)
