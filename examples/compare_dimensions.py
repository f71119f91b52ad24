# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["tensorflow==2.21.*", "keras==3.15.*", "numpy>=2,<3", "matplotlib>=3.10,<4"]
# ///
"""Test digits and their reconstructions by VAEs of several latent dimensions, in one picture.

    python examples/compare_dimensions.py dims/2 dims/5 dims/10 dims/32

Takes the folders of models that VariationalAutoEncoder_tf2.py saved, and draws
images/vae_dimensions.png: a row of test digits, then a row for each model.
"""

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("encoder", "decoder")
COLUMNS = 20


def parse_options():
    """Return the options of the command line; a wrong one or a missing model ends the script."""
    about, command, *_ = __doc__.split("\n\n")
    example = f"example: {command.strip()}"
    parser = argparse.ArgumentParser(description=about, epilog=example, allow_abbrev=False)
    parser.error = lambda message: fail(f"{message}; see --help")
    add = parser.add_argument
    add("folders", type=Path, nargs="+", metavar="DIR", help="folder of an encoder and a decoder")
    add("--data", type=Path, default=ROOT / "data" / "mnist.npz", metavar="FILE",
        help="the digits (default: data/mnist.npz)")  # fmt: skip
    add("--output", type=Path, default=ROOT / "images" / "vae_dimensions.png", metavar="FILE",
        help="the picture (default: images/vae_dimensions.png)")  # fmt: skip
    options = parser.parse_args()
    models = [folder / f"{part}.keras" for folder in options.folders for part in PARTS]
    for path in (options.data, *models):
        if not path.is_file():
            fail(f"{path} does not exist; train the models first, or give other folders")
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
    import numpy as np
    from matplotlib.figure import Figure
except ImportError as error:
    fail(f"{error}; pip install -r examples/requirements.txt")


def load(path):
    """Return the model of a file; a damaged file ends the script."""
    try:
        return keras.models.load_model(path, compile=False)
    except (OSError, ValueError) as error:
        fail(f"{path} cannot be opened: {error}")


def main(options):
    with np.load(options.data) as arrays:
        digits = arrays["x_test"][:COLUMNS, ..., np.newaxis] / 255
    rows, names = [digits], ["test digit"]
    for folder in options.folders:
        encoder, decoder = (load(folder / f"{part}.keras") for part in PARTS)
        z_mean = encoder(digits)[0]
        rows.append(decoder(z_mean))
        names.append(f"{z_mean.shape[1]} dimensions")
    tiles = np.pad(np.array(rows)[..., 0], [(0, 0), (0, 0), (1, 1), (1, 1)], constant_values=1)
    count, columns, height, width = tiles.shape
    figure = Figure(figsize=(0.5 * columns + 1, 0.5 * count + 0.4), layout="constrained")
    axes = figure.add_subplot(title="Reconstructions by latent dimension", frame_on=False)
    image = tiles.swapaxes(1, 2).reshape(count * height, columns * width)
    axes.imshow(image, cmap="gray", vmin=0, vmax=1)
    axes.set(xticks=[], yticks=(np.arange(count) + 0.5) * height, yticklabels=names)
    axes.tick_params(length=0)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.output, dpi=150, bbox_inches="tight")
    print(f"wrote {options.output}")


if __name__ == "__main__":
    main(OPTIONS)
