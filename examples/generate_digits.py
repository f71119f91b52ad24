# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["tensorflow==2.21.*", "keras==3.15.*", "numpy>=2,<3", "pillow>=11"]
# ///
"""Write new digits as PNG files: samples of the model that VariationalAutoEncoder_tf2.py saved.

    python examples/generate_digits.py --count 100 --output new

Each picture is decoded from a random point of the latent space, drawn from the prior N(0, I).
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
    add("--count", type=int, default=16, metavar="N", help="number of pictures (default: 16)")
    add("--output", type=Path, required=True, metavar="DIR", help="folder for the pictures")
    add("--seed", type=int, default=0, metavar="N", help="seed of the samples (default: 0)")
    add("--model-dir", type=Path, default=Path("models/vae"), metavar="DIR",
        help="folder of decoder.keras (default: models/vae)")  # fmt: skip
    add("--force", action="store_true", help="overwrite existing files")
    options = parser.parse_args()
    for name, low in (("count", 1), ("seed", 0)):
        if vars(options)[name] < low:
            fail(f"--{name} {vars(options)[name]}: accepted: {low} or more")
    width = len(str(options.count))
    names = [f"sample-{number:0{width}}.png" for number in range(1, options.count + 1)]
    options.targets = [options.output / name for name in names]
    for path in options.targets:
        if path.exists() and not options.force:
            fail(f"{path} exists; --force overwrites it")
    path = options.model_dir / "decoder.keras"
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
    from PIL import Image
except ImportError as error:
    fail(f"{error}; pip install -r examples/requirements.txt")


def load(path):
    """Return the model of a file; a damaged file ends the script."""
    try:
        return keras.models.load_model(path, compile=False)
    except (OSError, ValueError) as error:
        fail(f"{path} cannot be opened: {error}")


def main(options):
    decoder = load(options.model_dir / "decoder.keras")
    z = np.random.default_rng(options.seed).normal(size=(options.count, *decoder.input_shape[1:]))
    images = np.uint8(np.rint(255 * decoder.predict(z, batch_size=500, verbose=0)))
    options.output.mkdir(parents=True, exist_ok=True)
    for target, image in zip(options.targets, images, strict=True):
        Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(target)
    print(f"wrote {options.count:,} pictures to {options.output}")


if __name__ == "__main__":
    main(OPTIONS)
