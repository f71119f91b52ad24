# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = [
#     "tensorflow==2.21.*", "keras==3.15.*", "numpy>=2,<3", "matplotlib>=3.10,<4",
#     "pillow>=11", "tqdm>=4.66,<5", "tifffile>=2025.1.10", "imagecodecs>=2025.3.30",
# ]
# ///
"""Two ways through the latent plane: lines between digits, and an animated round tour.

    python examples/latent_tour.py

Opens the VAE that VariationalAutoEncoder_tf2.py saved. Draws vae_interpolation.png, digits decoded
along the line between pairs of test digits of different classes, and vae_tour.gif, a point on a
closed path over the codes with the decoded digit beside it.

Between two pictures of your own, resized and padded for the model, of any number of dimensions:

    python examples/latent_tour.py --from a.png --to b.png --model-dir out
"""

import common

parser = common.Parser(__doc__)
parser.add_model_dir("models/vae", "encoder.keras", "decoder.keras")
parser.add_images_dir()
parser.add_data()
parser.add_argument("--from", dest="first", type=common.existing, metavar="FILE", help="picture")
parser.add_argument("--to", dest="last", type=common.existing, metavar="FILE", help="picture")
parser.add_range()
if __name__ == "__main__":
    options = parser.parse_args()  # before the slow imports: --help and mistakes answer at once
    if (options.first is None) != (options.last is None):
        common.fail("--from and --to; accepted: both or none")
with common.quiet_imports():
    import numpy as np
    import pictures
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

PAIRS = [(0, 1), (2, 7), (3, 8), (4, 9), (5, 6), (6, 0), (7, 1), (8, 5)]  # classes
STEPS = 14  # digits from one to the other
FRAMES, FPS = 150, 15


def draw_interpolation(path, images, codes, pairs, names, decoder):
    """Draw a row for each pair of indices: an image, what is decoded on the line, an image."""
    share = np.linspace(0, 1, STEPS)[:, np.newaxis]
    rows = []
    for first, last in pairs:
        between = decoder.predict((1 - share) * codes[first] + share * codes[last], verbose=0)
        rows.append(np.concatenate([images[[first]], between, images[[last]]]))
    figure = Figure(figsize=(0.62 * STEPS + 1.84, 0.62 * len(pairs) + 0.5), layout="constrained")
    title = "From one image to another (framed), decoded on the way"
    axes = figure.add_subplot(title=title, frame_on=False)
    height, width = common.draw_image_rows(axes, rows, names)
    style = {"fill": False, "edgecolor": "tab:orange", "linewidth": 2}
    for row in range(len(pairs)):
        for column in (0, STEPS + 1):
            corner = (column * width - 0.5, row * height - 0.5)
            axes.add_patch(Rectangle(corner, width, height, **style))
    with common.new_file(path) as unfinished:
        figure.savefig(unfinished, dpi=150, bbox_inches="tight")


def closed_path():
    """Return points (FRAMES, 2) of a smooth round tour within the bulk of the prior."""
    angle = np.linspace(0, 2 * np.pi, FRAMES, endpoint=False)
    radius = 1.3 + 0.6 * np.cos(3 * angle)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)


def draw_tour(path, labels, codes, decoder):
    """Draw the animation: the codes with the point on its path, and the digit decoded there."""
    points = closed_path()
    decoded = decoder.predict(points, verbose=0)
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    plane, digit = figure.subplots(1, 2)
    classes = {"c": labels[:3000], "cmap": "tab10", "vmin": -0.5, "vmax": 9.5}
    scatter = plane.scatter(*codes[:3000].T, s=2, **classes)
    figure.colorbar(scatter, ax=plane, ticks=range(10), label="class", fraction=0.046)
    plane.plot(*np.vstack([points, points[:1]]).T, color="black", linewidth=0.8)
    (marker,) = plane.plot([], [], "o", color="black", markersize=9, markeredgecolor="white")
    plane.set(title="latent plane", xlabel="z[0]", ylabel="z[1]")
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
        frames.append(common.frame_of(figure, dpi=75))
    common.save_animation(path, frames, 1000 / FPS)


def main(options):
    path = options.images_dir / "vae_interpolation.png"
    if options.first:
        encoder = common.load_model(options.model_dir / "encoder.keras")
        decoder = common.load_model(options.model_dir / "decoder.keras")
        paths = [options.first, options.last]
        shape = encoder.input_shape[1:]
        found = pictures.read_resized_pictures(paths, shape, options.model_dir, options)
        images = np.stack([found[each] for each in paths])
        codes, _ = encoder.predict(images, verbose=0)
        draw_interpolation(path, images, codes, [(0, 1)], [""], decoder)
        return
    encoder, decoder = common.load_plane(options.model_dir)
    digits, labels = common.read_images(options.data, "test", encoder.input_shape[1:])
    labels = common.digit_labels(options.data, labels, 2)
    codes, _ = encoder.predict(digits, batch_size=500, verbose=0)
    pairs = [[np.flatnonzero(labels == label)[1] for label in pair] for pair in PAIRS]
    names = [f"{first} → {last}" for first, last in PAIRS]
    draw_interpolation(path, digits, codes, pairs, names, decoder)
    draw_tour(options.images_dir / "vae_tour.gif", labels, codes, decoder)


if __name__ == "__main__":
    main(options)
