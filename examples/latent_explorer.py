# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = [
#     "tensorflow==2.21.*", "keras==3.15.*", "numpy>=2,<3", "matplotlib>=3.10,<4", "pillow>=11",
# ]
# ///
"""A page to explore the latent plane: move over it, and see the decoded digit follow.

    python examples/latent_explorer.py

Opens the VAE that VariationalAutoEncoder_tf2.py saved, and writes vae_explorer.html: one file that
opens from disk in any browser, without a server and without the network. It holds digits decoded on
a grid of the plane, and blends them between the grid points. It also holds test digits with their
codes. The page is made from latent_explorer.html beside this script.
"""

import base64
import io
import math
import statistics

import common

parser = common.Parser(__doc__)
parser.add_model_dir("models/vae", "encoder.keras", "decoder.keras")
parser.add_images_dir()
parser.add_data()
if __name__ == "__main__":
    options = parser.parse_args()  # before the slow imports: --help and mistakes answer at once
with common.quiet_imports():
    import numpy as np
    from PIL import Image

QUANTILES = 64  # of the prior along each axis, at which the plane is decoded
# More coordinates further out, where quantiles are sparse.
OUTER = [1.7, 1.88, 2.08, 2.18, 2.3, 2.6, 2.8, 3.0, 3.25, 3.5, 3.8, 4.2]
POINTS = 1500  # test digits
COLUMNS = 50  # of the picture that holds the test digits
MASS = 0.95  # share of the prior inside the circle


def data_url(images, columns):
    """Return images (n, side, side, 1) in [0, 1] as one grey PNG in a data: URL.

    They are in rows of `columns`; black images fill the last row.
    """
    side = images.shape[1]
    images = np.pad(images, [(0, -len(images) % columns), (0, 0), (0, 0), (0, 0)])
    tiles = images.reshape(-1, columns, side, side).swapaxes(1, 2)
    # Only 64 grey levels: the difference is invisible, and the file is half as large.
    levels = np.rint(63.75 * tiles.reshape(-1, columns * side))
    file = io.BytesIO()
    picture = Image.fromarray(np.uint8(np.clip(4 * levels, 0, 255)))
    picture.save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def main(options):
    encoder, decoder = common.load_plane(options.model_dir)
    shape = encoder.input_shape[1:]
    if shape[0] != shape[1]:
        common.fail(f"{options.model_dir}: accepted: models of square images")
    digits, labels = common.read_images_to_show(options.data, shape)
    digits, labels = digits[:POINTS], labels[:POINTS]
    codes, _ = encoder.predict(digits, batch_size=500, verbose=0)
    classes, indices = np.unique(labels, return_inverse=True)
    points = []
    for z, index in zip(codes.tolist(), indices.tolist(), strict=True):
        points.append([round(z[0], 3), round(z[1], 3), index])
    prior = statistics.NormalDist()
    inner = [prior.inv_cdf((step + 0.5) / QUANTILES) for step in range(QUANTILES)]
    knots = sorted([*inner, *OUTER, *(-value for value in OUTER)])
    grid = np.stack(np.meshgrid(knots, knots), axis=-1)  # [row, column] is (z[0], z[1])
    decoded = decoder.predict(grid.reshape(-1, 2), batch_size=500, verbose=0)
    data = {
        "side": shape[0],
        "knots": knots,
        "classes": [str(name) for name in classes],
        "points": points,
        "columns": COLUMNS,
        "radius": math.sqrt(-2 * math.log(1 - MASS)),  # |z|^2 is exponential in two dimensions
        "tiles": data_url(decoded, len(knots)),
        "digits": data_url(digits, COLUMNS),
    }
    common.save_page(options.images_dir / "vae_explorer.html", "latent_explorer.html", data)


if __name__ == "__main__":
    main(options)
