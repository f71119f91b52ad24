# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = [
#     "tensorflow==2.21.*", "keras==3.15.*", "numpy>=2,<3", "matplotlib>=3.10,<4", "pillow>=11",
# ]
# ///
"""Animate how the latent plane forms during training, epoch by epoch.

    python examples/plane_forming.py

Runs VariationalAutoEncoder_tf2.py in a temporary folder, and copies each of its checkpoints. Draws
images/vae_forming.gif: after each epoch, the codes of 3,000 test digits, coloured by class, beside
the decoded plane.
"""

import argparse
import io
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "VariationalAutoEncoder_tf2.py"
DATA = ROOT / "data" / "mnist.npz"
SIDE = 12  # decoded tiles along each axis


def parse_options():
    """Return the options of the command line; a wrong one or a missing file ends the script."""
    about, command, *_ = __doc__.split("\n\n")
    example = f"example: {command.strip()}"
    parser = argparse.ArgumentParser(description=about, epilog=example, allow_abbrev=False)
    parser.error = lambda message: fail(f"{message}; see --help")
    add = parser.add_argument
    add("--epochs", type=int, default=12, metavar="N",
        help="epochs, each a frame of the animation, 1 to 100 (default: 12)")  # fmt: skip
    add("--limit", type=int, default=20000, metavar="N",
        help="the first N training images, 10 to 55,000 (default: 20,000)")  # fmt: skip
    add("--output", type=Path, default=ROOT / "images" / "vae_forming.gif", metavar="FILE",
        help="the animation (default: images/vae_forming.gif)")  # fmt: skip
    options = parser.parse_args()
    for name, low, high in (("epochs", 1, 100), ("limit", 10, 55000)):
        if not low <= vars(options)[name] <= high:
            fail(f"--{name} {vars(options)[name]:,}: accepted: {low} to {high:,}")
    for path in (SCRIPT, DATA):
        if not path.is_file():
            fail(f"{path} does not exist")
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
    import tensorflow as tf
    from matplotlib.figure import Figure
    from PIL import Image
except ImportError as error:
    fail(f"{error}; pip install -r examples/requirements.txt")


def train(options, folder):
    """Run the script; copy every checkpoint to `folder`/all, because the script keeps only two."""
    words = ["--epochs", str(options.epochs), "--limit", str(options.limit)]
    folders = ["--model-dir", str(folder), "--images-dir", str(folder)]
    (folder / "all").mkdir()
    with subprocess.Popen([sys.executable, SCRIPT, *words, *folders]) as process:
        while process.poll() is None:
            for index in folder.glob("checkpoints/epoch-*.index"):  # written after the data
                for path in index.parent.glob(f"{index.stem}.*"):
                    if not (folder / "all" / path.name).exists():
                        shutil.copy(path, folder / "all")
            time.sleep(0.2)
    if process.returncode:
        sys.exit(process.returncode)  # the script has printed its error


def set_weights(networks, path):
    """Set the weights of the networks, encoder first, to those of a checkpoint of the script."""
    checkpoint, first = tf.train.load_checkpoint(str(path)), 0
    for network in networks:
        names = range(first, first := first + len(network.weights))
        keys = [f"variables/{number}/.ATTRIBUTES/VARIABLE_VALUE" for number in names]
        network.set_weights([checkpoint.get_tensor(key) for key in keys])


def draw(title, codes, labels, tiles):
    """Return an RGB picture of the codes and of the decoded tiles (SIDE, SIDE, 28, 28)."""
    figure = Figure(figsize=(8.4, 4.5), layout="constrained")
    figure.suptitle(title)
    points, plane = figure.subplots(1, 2)
    classes = {"c": labels, "cmap": "tab10", "vmin": -0.5, "vmax": 9.5}
    scatter = points.scatter(*codes.T, s=2, linewidths=0, **classes)
    key = scatter.legend_elements(num=None)  # one entry for each class
    figure.legend(*key, ncols=10, loc="outside lower center", handletextpad=0, columnspacing=1)
    points.set(xlim=(-3.5, 3.5), ylim=(-3.5, 3.5), xlabel="z[0]", ylabel="z[1]")
    points.set_title(f"z_mean of {len(codes):,} test digits, coloured by class", fontsize=10)
    plane.set_title("the plane decoded, at quantiles of the prior", fontsize=10)
    points.set_aspect("equal")
    plane.imshow(tiles.swapaxes(1, 2).reshape(SIDE * 28, SIDE * 28), cmap="gray", vmin=0, vmax=1)
    plane.set_axis_off()
    figure.savefig(buffer := io.BytesIO(), dpi=90)
    return Image.open(buffer).convert("RGB")


def shared_palette():
    """Return an image whose palette has greys, the colours of tab10, and paler shades of them."""
    colours = np.array(matplotlib.colormaps["tab10"].colors)
    shades = [1 - share * (1 - colours) for share in (1, 2 / 3, 1 / 3)]
    greys = np.repeat(np.linspace(0, 1, 32), 3).reshape(-1, 3)
    image = Image.new("P", (1, 1))
    image.putpalette(np.uint8(np.rint(255 * np.vstack([greys, *shades]))).ravel().tolist())
    return image


def main(options):
    with np.load(DATA) as arrays:
        digits, labels = arrays["x_test"][:3000, ..., np.newaxis] / 255, arrays["y_test"][:3000]
    quantiles = [statistics.NormalDist().inv_cdf((step + 0.5) / SIDE) for step in range(SIDE)]
    grid = np.stack(np.meshgrid(quantiles, quantiles[::-1]), axis=-1).reshape(-1, 2)
    frames, palette = [], shared_palette()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        train(options, folder)
        networks = [keras.models.load_model(folder / f"{n}.keras") for n in ("encoder", "decoder")]
        for index in sorted(folder.glob("all/epoch-*.index")):
            set_weights(networks, index.with_suffix(""))
            codes = networks[0].predict(digits, verbose=0)[0]
            tiles = networks[1].predict(grid, verbose=0).reshape(SIDE, SIDE, 28, 28)
            title = f"The latent plane after epoch {int(index.stem.removeprefix('epoch-'))}"
            picture = draw(title, codes, labels, tiles)
            # Palettes that Pillow chooses have too few colours, because most pixels are grey.
            frames.append(picture.quantize(palette=palette, dither=Image.Dither.NONE))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    durations = [800] * (len(frames) - 1) + [3000]  # ms
    settings = {"append_images": frames[1:], "duration": durations, "loop": 0, "optimize": True}
    frames[0].save(options.output, save_all=True, **settings)
    size = options.output.stat().st_size / 1e6
    print(f"wrote {options.output}: {len(frames)} epochs, {size:.1f} MB")


if __name__ == "__main__":
    main(OPTIONS)
