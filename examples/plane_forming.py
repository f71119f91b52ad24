# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = [
#     "tensorflow==2.21.*", "keras==3.15.*", "numpy>=2,<3", "matplotlib>=3.10,<4", "pillow>=11",
# ]
# ///
"""An animation of the latent plane as it forms, epoch by epoch.

    python examples/plane_forming.py

Runs VariationalAutoEncoder_tf2.py in a temporary folder, with copies of its checkpoints, and draws
images/vae_forming.gif: after each epoch, the codes of 3,000 test digits in the colours of their
classes beside the decoded plane.
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
SIDE = 12  # decoded tiles along each axis


def parse_options():
    """Return the options of the command line; a wrong one ends the script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.error = lambda message: fail(f"{message}; see --help")
    add = parser.add_argument
    add("--epochs", type=int, default=12, metavar="N", help="epochs, and pictures (default: 12)")
    add("--limit", type=int, default=20000, metavar="N", help="training digits (default: 20000)")
    add("--output", type=Path, default=ROOT / "images" / "vae_forming.gif", metavar="FILE",
        help="the animation (default: images/vae_forming.gif)")  # fmt: skip
    return parser.parse_args()


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
    """Run the script; keep every checkpoint, of which it keeps two, in `folder`/all."""
    words = ["--epochs", str(options.epochs), "--limit", str(options.limit)]
    folders = ["--model-dir", str(folder), "--images-dir", str(folder)]
    (folder / "all").mkdir()
    with subprocess.Popen([sys.executable, SCRIPT, *words, *folders]) as process:
        while process.poll() is None:
            for index in folder.glob("checkpoints/epoch-*.index"):  # written last
                for path in index.parent.glob(f"{index.stem}.*"):
                    if not (folder / "all" / path.name).exists():
                        shutil.copy(path, folder / "all")
            time.sleep(0.2)
    if process.returncode:
        fail(f"{SCRIPT.name} ended with status {process.returncode}")


def set_weights(networks, path):
    """Set the weights of the networks, in their order, to those of a checkpoint of the script."""
    checkpoint, first = tf.train.load_checkpoint(str(path)), 0
    for network in networks:
        names = range(first, first := first + len(network.weights))
        keys = [f"variables/{number}/.ATTRIBUTES/VARIABLE_VALUE" for number in names]
        network.set_weights([checkpoint.get_tensor(key) for key in keys])


def draw(title, codes, labels, tiles):
    """Return a picture of the codes and of the decoded tiles (SIDE, SIDE, 28, 28)."""
    figure = Figure(figsize=(7, 3.7), layout="constrained")
    figure.suptitle(title)
    points, plane = figure.subplots(1, 2)
    points.scatter(*codes.T, s=2, c=matplotlib.colormaps["tab10"](labels), linewidths=0)
    points.set(xlim=(-3.5, 3.5), ylim=(-3.5, 3.5), xlabel="z[0]", ylabel="z[1]")
    points.set_aspect("equal")
    plane.imshow(tiles.swapaxes(1, 2).reshape(SIDE * 28, SIDE * 28), cmap="gray", vmin=0, vmax=1)
    plane.set_axis_off()
    figure.savefig(buffer := io.BytesIO(), dpi=90)
    return Image.open(buffer).convert("RGB").quantize(64, dither=Image.Dither.NONE)


def main(options):
    with np.load(ROOT / "data" / "mnist.npz") as arrays:
        digits, labels = arrays["x_test"][:3000, ..., np.newaxis] / 255, arrays["y_test"][:3000]
    quantiles = [statistics.NormalDist().inv_cdf((step + 0.5) / SIDE) for step in range(SIDE)]
    grid = np.stack(np.meshgrid(quantiles, quantiles[::-1]), axis=-1).reshape(-1, 2)
    frames = []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        train(options, folder)
        networks = [keras.models.load_model(folder / f"{n}.keras") for n in ("encoder", "decoder")]
        for index in sorted(folder.glob("all/epoch-*.index")):
            set_weights(networks, index.with_suffix(""))
            codes = networks[0].predict(digits, verbose=0)[0]
            tiles = networks[1].predict(grid, verbose=0).reshape(SIDE, SIDE, 28, 28)
            title = f"The latent plane after epoch {len(frames) + 1}"
            frames.append(draw(title, codes, labels, tiles))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    durations = [800] * (len(frames) - 1) + [3000]  # ms
    settings = {"append_images": frames[1:], "duration": durations, "loop": 0, "optimize": True}
    frames[0].save(options.output, save_all=True, **settings)
    size = options.output.stat().st_size / 1e6
    print(f"wrote {options.output}: {len(frames)} epochs, {size:.1f} MB")


if __name__ == "__main__":
    main(OPTIONS)
