"""Encode pictures with the encoder that VariationalAutoEncoder_tf2.py saved.

    python examples/encode_pictures.py photos --output codes.csv --model-dir out
    python examples/encode_pictures.py data/mnist.npz --output codes.npz

Takes a picture, a folder of them, or an .npz file with x_train, x_val or x_test. Writes the name,
the label, z_mean and z_log_sigma of each: arrays of an .npz file, or columns of a .csv file. The
label of a picture is the folder that it is in.
"""

import csv
import faulthandler
import os
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

from pictures import fail, find_pictures, read_resized_pictures

parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
parser.error = fail
parser.add_argument("path", type=Path, help="picture, folder of pictures, or .npz file")
parser.add_argument("--output", type=Path, required=True, help=".npz or .csv file to write")
parser.add_argument("--force", action="store_true", help="overwrite the output")
parser.add_argument("--model-dir", type=Path, default="models/vae", help="default: models/vae")
parser.add_argument("--range", type=float, nargs=2, help="values that become black and white")
parser.add_argument("--skip-unreadable", action="store_true", help="leave out damaged pictures")
if __name__ == "__main__":
    options = parser.parse_args()  # before the slow import of Keras
    if options.output.suffix not in (".npz", ".csv"):
        fail(f"--output must end in .npz or .csv, found {options.output}")
    if options.output.exists() and not options.force:
        fail(f"{options.output} exists; --force overwrites it")

screen = os.dup(2)
if "TF_CPP_MIN_LOG_LEVEL" not in os.environ:
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "1"  # warnings and errors
    faulthandler.enable(screen)  # shows a crash of native code
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # hides what TensorFlow prints as it starts
try:
    import keras

    keras.ops.zeros(1)  # starts the drivers, which print as well
finally:
    os.dup2(screen, 2)
import numpy as np


def load_model(path):
    """Return a saved model; a missing or damaged file ends the script."""
    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:  # Keras, zipfile and h5py raise many types of errors
        fail(f"{path} must be a saved model, found: {str(error)[:300]}")


def read_parts(path, shape):
    """Return {part: (names, labels, images)} of an .npz file, for train, val and test.

    The images are float32 in [0, 1], (n, *shape), with the shape (height, width, channels).
    """
    try:
        with np.load(path) as file:
            arrays = dict(file)
    except Exception as error:  # zipfile and NumPy raise many types of errors
        fail(f"{path} must be a picture, a folder or an .npz file, found: {error}")
    parts = {}
    for part in ("train", "val", "test"):
        if f"x_{part}" not in arrays:
            continue
        images = arrays[f"x_{part}"]
        if images.ndim == 3:
            images = images[..., np.newaxis]
        if images.shape[1:] != shape:
            fail(f"{path}: x_{part} must have images {shape}, found {images.shape[1:]}")
        scale = 255 if images.dtype == np.uint8 else 1
        labels = arrays.get(f"y_{part}", np.full(len(images), ""))
        names = arrays.get(f"names_{part}", [f"x_{part}[{i}]" for i in range(len(images))])
        parts[part] = (names, labels.ravel(), np.float32(images) / scale)
    if not parts:
        fail(f"{path} must have x_train, x_val or x_test, found {', '.join(arrays)}")
    return parts


def read_images(path, shape, options):
    """Return names, labels and images (n, *shape) in [0, 1] of pictures or of an .npz file."""
    if path.suffix == ".npz":
        parts = zip(*read_parts(path, shape).values(), strict=True)
        return [np.concatenate(each) for each in parts]
    files = find_pictures(path) if path.is_dir() else [path]
    if not files:
        fail(f"{path} must have pictures, found none")
    images = read_resized_pictures(files, shape, options.model_dir, options)
    folder = path if path.is_dir() else path.parent
    names = [str(file.relative_to(folder)) for file in images]
    labels = [file.parent.name for file in images]
    return names, np.array(labels), np.stack([*images.values()])


def main(options):
    encoder = load_model(options.model_dir / "encoder.keras")
    names, labels, images = read_images(options.path, encoder.input_shape[1:], options)
    z_mean, z_log_sigma = encoder.predict(images, batch_size=100, verbose=0)
    dimensions = range(z_mean.shape[1])
    options.output.parent.mkdir(parents=True, exist_ok=True)
    unfinished = options.output.with_name(f".{options.output.name}")
    if options.output.suffix == ".npz":
        codes = {"z_mean": z_mean, "z_log_sigma": z_log_sigma}
        np.savez(unfinished, names=names, labels=labels, **codes)
    else:
        heads = [f"z_mean[{i}]" for i in dimensions] + [f"z_log_sigma[{i}]" for i in dimensions]
        utf8 = {"encoding": "utf-8-sig", "errors": "backslashreplace"}  # for spreadsheets
        with unfinished.open("w", newline="", **utf8) as file:
            writer = csv.writer(file)
            writer.writerow(["name", "label", *heads])
            for name, label, *codes in zip(names, labels, z_mean, z_log_sigma, strict=True):
                writer.writerow([name, label, *np.concatenate(codes)])
    unfinished.replace(options.output)
    print(f"wrote the codes of {len(names):,} images to {options.output}")


if __name__ == "__main__":
    try:
        main(options)
    except OSError as error:
        fail(error)
