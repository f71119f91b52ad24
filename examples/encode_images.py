# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["tensorflow==2.21.*", "keras==3.15.*", "numpy>=2,<3"]
# ///
"""Encode the images of an .npz file with the encoder that VariationalAutoEncoder_tf2.py saved.

    python examples/encode_images.py data/mnist.npz --output codes.npz

Encodes x_train and then x_test. Writes arrays z_mean and z_log_sigma (n, latent_dim) and, if the
file has them, the labels (n,).
"""

import argparse
import os
import sys
from pathlib import Path


def parse_options():
    """Return the options of the command line; a wrong one or a missing file ends the script."""
    about, command, *_ = __doc__.split("\n\n")
    example = f"example: {command.strip()}"
    parser = argparse.ArgumentParser(description=about, epilog=example, allow_abbrev=False)
    parser.error = lambda message: fail(f"{message}; see --help")
    add = parser.add_argument
    add("path", type=Path, metavar="FILE", help=".npz file with x_train or x_test")
    add("--output", type=Path, required=True, metavar="FILE", help=".npz file to write")
    add("--model-dir", type=Path, default=Path("models/vae"), metavar="DIR",
        help="folder of encoder.keras (default: models/vae)")  # fmt: skip
    add("--force", action="store_true", help="overwrite an existing file")
    options = parser.parse_args()
    if options.output.exists() and not options.force:
        fail(f"{options.output} exists; --force overwrites it")
    if not options.path.is_file():
        fail(f"{options.path} is not a file")
    path = options.model_dir / "encoder.keras"
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
except ImportError as error:
    fail(f"{error}; pip install -r examples/requirements.txt")


def load(path):
    """Return the model of a file; a damaged file ends the script."""
    try:
        return keras.models.load_model(path, compile=False)
    except (OSError, ValueError) as error:
        fail(f"{path} cannot be opened: {error}")


def read_images(path, shape):
    """Return images (n, *shape) in [0, 1], and their labels (n,) or None."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:  # zipfile, zlib and NumPy report a damaged file in many ways
        fail(f"{path} cannot be read: {error}")
    parts = [part for part in ("train", "test") if f"x_{part}" in arrays]
    shapes = [shape, shape[:2]] if shape[2] == 1 else [shape]
    for part in parts:
        images = arrays[f"x_{part}"]
        in_range = images.dtype.kind == "f" and ((images >= 0) & (images <= 1)).all()
        if images.shape[1:] not in shapes or not (images.dtype == np.uint8 or in_range):
            text = f"{path}: x_{part} is {images.dtype} {images.shape}"
            fail(f"{text}; accepted: uint8, or floats from 0 to 1, each image {shape}")
    if not parts:
        fail(f"{path} has no array x_train or x_test")
    scales = {part: 255 if arrays[f"x_{part}"].dtype.kind == "u" else 1 for part in parts}
    images = np.concatenate([arrays[f"x_{part}"] / scales[part] for part in parts])
    labels = [arrays[f"y_{part}"] for part in parts if f"y_{part}" in arrays]
    labels = np.concatenate(labels) if len(labels) == len(parts) else None
    return images.reshape(-1, *shape).astype(np.float32), labels


def main(options):
    encoder = load(options.model_dir / "encoder.keras")
    images, labels = read_images(options.path, encoder.input_shape[1:])
    z_mean, z_log_sigma = encoder.predict(images, batch_size=500, verbose=0)
    about = {} if labels is None else {"labels": labels}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with options.output.open("wb") as file:
        np.savez(file, z_mean=z_mean, z_log_sigma=z_log_sigma, **about)
    print(f"wrote {options.output}: codes of {len(images):,} images")


if __name__ == "__main__":
    main(OPTIONS)
