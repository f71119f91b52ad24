"""Write a page to explore a 2-D latent space: move over it, and see the decoded image follow.

    python examples/latent_explorer.py
    python examples/latent_explorer.py --data own.npz --model-dir out

Opens a VAE that VariationalAutoEncoder_tf2.py saved with two latent dimensions, and writes
vae_explorer.html: one file that opens from disk in any browser, without a server. It holds images
decoded on a grid, between which the page blends, and images of x_test (without x_test, of x_train)
with their names, codes and reconstructions. The page is made from latent_explorer.html.
"""

import base64
import io
import json
import math
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

from pictures import fail

HERE = Path(__file__).resolve().parent
MNIST = HERE.parent / "data/mnist.npz"

parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
parser.error = fail
parser.add_argument("--model-dir", type=Path, default="models/vae", help="default: models/vae")
parser.add_argument("--data", type=Path, default=MNIST, help=".npz file (default: MNIST)")
text = "default: vae_explorer.html"
parser.add_argument("--output", type=Path, default="vae_explorer.html", help=text)
parser.add_argument("--force", action="store_true", help="overwrite the output")
if __name__ == "__main__":
    options = parser.parse_args()  # before the slow import of Keras
    if options.output.exists() and not options.force:
        fail(f"{options.output} exists; --force overwrites it")
    record = options.model_dir / "metrics.json"
    latent_dim = json.loads(record.read_text())["latent_dim"] if record.is_file() else 2
    if latent_dim != 2:
        fail(f"{options.model_dir} must have --latent-dim 2, found {latent_dim}")

import numpy as np
from encode_pictures import load_model, read_parts
from PIL import Image

EXTENT = 4.2  # the latent space is shown from -EXTENT to EXTENT
GRID_SIDE = 3136  # pixels of the decoded grid, about: 112 digits, or blends are less exact
SHOWN_SIDE = 1100  # and of the images of the data: 1,500 digits
MASS = 0.95  # of the prior, inside the circle


def data_url(images, columns):
    """Return images (n, height, width, channels) in [0, 1] as one picture, in rows of `columns`."""
    count, height, width, channels = images.shape
    images = np.pad(images, [(0, -count % columns), (0, 0), (0, 0), (0, 0)])
    tiles = images.reshape(-1, columns, height, width, channels).swapaxes(1, 2)
    pixels = np.uint8(np.rint(255 * tiles.reshape(-1, columns * width, channels)))
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(file, "WEBP", quality=90, method=6)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def main(options):
    encoder = load_model(options.model_dir / "encoder.keras")
    decoder = load_model(options.model_dir / "decoder.keras")
    shape = encoder.input_shape[1:]
    parts = read_parts(options.data, shape)
    part = "test" if "test" in parts else "train"
    if part not in parts:
        fail(f"{options.data} must have x_test or x_train, found {', '.join(parts)}")
    count = SHOWN_SIDE**2 // (shape[0] * shape[1])
    names, labels, images = (each[:count] for each in parts[part])
    codes, _ = encoder.predict(images, batch_size=100, verbose=0)
    classes, indices = np.unique(labels, return_inverse=True)
    knots = np.linspace(-EXTENT, EXTENT, GRID_SIDE // max(shape[:2]))
    grid = np.stack(np.meshgrid(knots, knots), axis=-1)  # [row, column] is (z[0], z[1])
    decoded = decoder.predict(grid.reshape(-1, 2), batch_size=100, verbose=0)
    columns = math.ceil(math.sqrt(len(images)))
    data = {
        "height": shape[0],
        "width": shape[1],
        "knots": knots.tolist(),
        "classes": [str(name) for name in classes],
        "points": [[*z, index] for z, index in zip(codes.tolist(), indices.tolist(), strict=True)],
        "names": [str(name) for name in names],
        "kind": "test image" if part == "test" else "training image",
        "columns": columns,
        "radius": math.sqrt(-2 * math.log(1 - MASS)),  # |z|^2 is exponential in two dimensions
        "tiles": data_url(decoded, len(knots)),
        "images": data_url(images, columns),
    }
    text = json.dumps(data).replace("<", "\\u003c")  # or a name could end the script element
    page = (HERE / "latent_explorer.html").read_text(encoding="utf-8").replace('"@DATA@"', text)
    unfinished = options.output.with_name(f".{options.output.name}")
    unfinished.write_text(page, encoding="utf-8")
    unfinished.replace(options.output)
    print(f"wrote {options.output}")


if __name__ == "__main__":
    try:
        main(options)
    except OSError as error:
        fail(error)
