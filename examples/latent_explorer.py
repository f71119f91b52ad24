# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["tensorflow==2.21.*", "keras==3.15.*", "numpy>=2,<3", "pillow>=11"]
# ///
"""A page to explore the latent plane: move over it, and see the decoded digit follow.

    python examples/latent_explorer.py

Opens the VAE that VariationalAutoEncoder_tf2.py saved, and writes images/vae_explorer.html: one
file that opens from disk in any browser, without a server and without the network. It holds digits
decoded on a grid of the plane, and blends them between the grid points. It also holds test digits
with their codes. The page is made from latent_explorer.html beside this script.
"""

import argparse
import base64
import io
import json
import math
import os
import statistics
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
    add("--output", type=Path, default=ROOT / "images" / "vae_explorer.html", metavar="FILE",
        help="the page (default: images/vae_explorer.html)")  # fmt: skip
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
    import numpy as np
    from PIL import Image
except ImportError as error:
    fail(f"{error}; pip install -r examples/requirements.txt")

QUANTILES = 64  # of the prior along each axis, at which the plane is decoded
# More coordinates further out, where quantiles are sparse.
OUTER = [1.7, 1.88, 2.08, 2.18, 2.3, 2.6, 2.8, 3.0, 3.25, 3.5, 3.8, 4.2]
POINTS = 1500  # test digits
COLUMNS = 50  # of the picture that holds the test digits
MASS = 0.95  # share of the prior inside the circle


def load(path):
    """Return the model of a file; a damaged file ends the script."""
    try:
        return keras.models.load_model(path, compile=False)
    except (OSError, ValueError) as error:
        fail(f"{path} cannot be opened: {error}")


def knots():
    """Return the coordinates at which the plane is decoded, along each axis, in ascending order."""
    prior = statistics.NormalDist()
    inner = [prior.inv_cdf((step + 0.5) / QUANTILES) for step in range(QUANTILES)]
    return sorted([*inner, *OUTER, *(-knot for knot in OUTER)])


def data_url(tiles):
    """Return tiles (rows, columns, height, width) in [0, 1] as one grey PNG in a data: URL."""
    rows, columns, height, width = tiles.shape
    image_grid = tiles.transpose(0, 2, 1, 3).reshape(rows * height, columns * width)
    file = io.BytesIO()
    # Only 64 grey levels: the difference is invisible, and the file is half as large.
    Image.fromarray(np.uint8(np.clip(np.rint(image_grid * 63.75) * 4, 0, 255))).save(
        file, "PNG", optimize=True
    )
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def main(options):
    with np.load(options.data) as arrays:
        images = arrays["x_test"][:POINTS].astype(np.float32) / 255
        labels = arrays["y_test"][:POINTS].tolist()
    encoder, decoder = (load(options.model_dir / f"{part}.keras") for part in PARTS)
    if [*encoder.output_shape, decoder.input_shape] != 3 * [(None, 2)]:
        fail(f"{options.model_dir}: accepted: models with 2 latent dimensions")
    codes, _ = encoder.predict(images[..., np.newaxis], batch_size=500, verbose=0)
    side = images.shape[1]
    grid = np.stack(np.meshgrid(knots(), knots()), axis=-1)  # [row, column] is (z[0], z[1])
    tiles = decoder.predict(grid.reshape(-1, 2), batch_size=500, verbose=0)
    rows = images.reshape(-1, COLUMNS, side, side)
    data = {
        "side": side,
        "knots": knots(),
        "points": [
            [round(float(z[0]), 3), round(float(z[1]), 3), label]
            for z, label in zip(codes, labels, strict=True)
        ],
        "columns": COLUMNS,
        "radius": math.sqrt(-2 * math.log(1 - MASS)),  # |z|^2 is exponential in two dimensions
        "tiles": data_url(tiles.reshape(*grid.shape[:2], side, side)),
        "digits": data_url(rows),
    }
    template = (Path(__file__).parent / "latent_explorer.html").read_text(encoding="utf-8")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(template.replace('"@DATA@"', json.dumps(data)), encoding="utf-8")
    print(f"wrote {options.output}: {options.output.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(OPTIONS)
