# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["tensorflow==2.21.*", "keras==3.15.*", "numpy>=2,<3", "matplotlib>=3.10,<4"]
# ///
"""Denoise a page of 20 x 14 test digits at once, and draw it beside the noisy page.

    python examples/denoise_page.py

The denoiser is fully convolutional: trained on digits of 28 x 28 pixels, it also takes 560 x 392.
Writes denoised_page.png, and prints the PSNR of the page before and after.
"""

import argparse
import os
import sys
from pathlib import Path

DATA = Path(__file__).resolve().parent.parent / "data" / "mnist.npz"
NOISE = 0.5  # standard deviation, as in training


def parse_options():
    """Return the options of the command line; a wrong one or a missing file ends the script."""
    about, command, *_ = __doc__.split("\n\n")
    example = f"example: {command.strip()}"
    parser = argparse.ArgumentParser(description=about, epilog=example, allow_abbrev=False)
    parser.error = lambda message: fail(f"{message}; see --help")
    add = parser.add_argument
    add("--model-dir", type=Path, default=Path("models/denoiser"), metavar="DIR",
        help="folder of model.keras (default: models/denoiser)")  # fmt: skip
    add("--images-dir", type=Path, default=Path("images"), metavar="DIR",
        help="folder for the picture (default: images)")  # fmt: skip
    options = parser.parse_args()
    for path in (DATA, options.model_dir / "model.keras"):
        if not path.is_file():
            fail(f"{path} does not exist; train the model first, or give --model-dir")
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


def make_page(digits, rows=14, columns=20):
    """Return a page (rows * 28, columns * 28) in [0, 1] of uint8 digits (n, 28, 28)."""
    page = digits[: rows * columns].reshape(rows, columns, 28, 28).swapaxes(1, 2)
    return np.float32(page.reshape(rows * 28, columns * 28) / 255)


def psnr(clean, page):
    """Return the peak signal-to-noise ratio in dB."""
    return -10 * np.log10(np.mean((clean - page) ** 2))


def main(options):
    model = load(options.model_dir / "model.keras")
    clean = make_page(np.load(DATA)["x_test"])
    draw = np.random.default_rng(0)
    noisy = np.clip(clean + NOISE * draw.normal(size=clean.shape), 0, 1)
    denoised = model.predict(noisy[np.newaxis, ..., np.newaxis], verbose=0)[0, ..., 0]
    height, width = clean.shape
    figure = Figure(figsize=(2 * width / 100, height / 100 + 0.4), dpi=100, layout="constrained")
    pages = {f"noisy, noise level {NOISE}": noisy, f"denoised from noise level {NOISE}": denoised}
    for axes, (name, page) in zip(figure.subplots(1, 2), pages.items(), strict=True):
        axes.imshow(page, cmap="gray", vmin=0, vmax=1)
        axes.set_title(f"{name}: PSNR {psnr(clean, page):.1f} dB")
        axes.axis("off")
        print(f"{name}: {psnr(clean, page):.2f} dB")
    options.images_dir.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.images_dir / "denoised_page.png")
    print(f"wrote {options.images_dir / 'denoised_page.png'}")


if __name__ == "__main__":
    main(OPTIONS)
