# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["tensorflow==2.21.*", "keras==3.15.*", "numpy>=2,<3", "pillow>=11"]
# ///
"""Denoise picture files with the model that StackedDenoisingAutoEncoder.py saved.

    python examples/denoise_pictures.py scan.png scans --output clean

Takes pictures and folders of them; writes PNG files of the same names and sizes. The model is fully
convolutional, so a picture is denoised at its own size, a large one in overlapping tiles. Train the
model on random crops of such pictures: see pictures_to_npz.py. A model trained on grey images makes
all pictures grey. A picture of 50 megapixels in RGB takes 1.5 GB of memory.
"""

import argparse
import os
import sys
from pathlib import Path

TILE = 512  # side in pixels of what is denoised at a time, a multiple of 4
MARGIN = 64  # pixels around a tile, more than an output pixel depends on
FORMATS = (".png", ".jpg", ".jpeg", ".bmp", ".gif")


def parse_options():
    """Return the options of the command line; a wrong one or a missing file ends the script."""
    about, command, *_ = __doc__.split("\n\n")
    example = f"example: {command.strip()}"
    parser = argparse.ArgumentParser(description=about, epilog=example, allow_abbrev=False)
    parser.error = lambda message: fail(f"{message}; see --help")
    add = parser.add_argument
    add("paths", type=Path, nargs="+", metavar="PATH", help="a picture or a folder of pictures")
    add("--output", type=Path, required=True, metavar="DIR", help="folder for the clean pictures")
    add("--model-dir", type=Path, default=Path("models/denoiser"), metavar="DIR",
        help="folder of model.keras (default: models/denoiser)")  # fmt: skip
    add("--force", action="store_true", help="overwrite existing files")
    options = parser.parse_args()
    options.targets = find_targets(options)
    path = options.model_dir / "model.keras"
    if not path.is_file():
        fail(f"{path} does not exist; train the model first, or give --model-dir")
    return options


def find_targets(options):
    """Return {picture file: PNG file to write}; no two may be the same."""
    found = find_pictures(options.paths)
    targets = {file: (options.output / name).with_suffix(".png") for file, name in found.items()}
    if not targets:
        fail(f"no pictures in {', '.join(map(str, options.paths))}; accepted: {', '.join(FORMATS)}")
    if len(set(targets.values())) < len(targets):
        fail("two pictures would be written to one file; accepted: different names")
    for target in targets.values():
        if target.exists() and not options.force:
            fail(f"{target} exists; --force overwrites it")
    return targets


def find_pictures(paths):
    """Return {picture file: its path relative to its folder}; hidden files are skipped."""
    found = {}
    for path in paths:
        if not path.exists():
            fail(f"{path} does not exist")
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file == path:
                found[file] = Path(file.name)
            elif file.suffix.lower() in FORMATS and not file.name.startswith("."):
                found[file] = file.relative_to(path)
    return found


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
    from PIL import Image, ImageOps
except ImportError as error:
    fail(f"{error}; pip install -r examples/requirements.txt")


def load(path):
    """Return the model of a file; a damaged file ends the script."""
    try:
        return keras.models.load_model(path, compile=False)
    except (OSError, ValueError) as error:
        fail(f"{path} cannot be opened: {error}")


def read_picture(path, channels):
    """Return a picture file as a Pillow image with 1 or 3 channels, alpha put on white."""
    with Image.open(path) as picture:
        picture = ImageOps.exif_transpose(picture)  # turned upright
        if picture.mode.startswith("I"):  # 16 bits; convert() would keep only the lower 8
            picture = Image.fromarray(np.uint8(np.asarray(picture) // 256))
        if picture.has_transparency_data:
            picture = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
        return picture.convert("L" if channels == 1 else "RGB")


def denoise(model, pixels, tile=TILE):
    """Return pixels, uint8 (height, width, channels), denoised tile by tile."""
    height, width, _ = pixels.shape
    clean = np.empty_like(pixels)
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            above, before = max(0, top - MARGIN), max(0, left - MARGIN)
            part = pixels[above : top + tile + MARGIN, before : left + tile + MARGIN]
            # The model needs multiples of 4; the reflection is repeated for tiny pictures.
            sides = [(0, -part.shape[0] % 4), (0, -part.shape[1] % 4), (0, 0)]
            part = np.pad(part, sides, mode="reflect").astype(np.float32) / 255
            part = np.asarray(model(part[np.newaxis]))[0, top - above :, left - before :]
            target = clean[top : top + tile, left : left + tile]
            target[:] = np.rint(255 * part[: target.shape[0], : target.shape[1]])
    return clean


def main(options):
    model = load(options.model_dir / "model.keras")
    for path, target in options.targets.items():
        try:
            pixels = np.atleast_3d(np.asarray(read_picture(path, model.input_shape[3])))
        except Exception as error:  # Pillow reports a damaged file in many ways
            fail(f"{path} cannot be read: {error}")
        target.parent.mkdir(parents=True, exist_ok=True)
        clean = denoise(model, pixels)
        Image.fromarray(clean[..., 0] if clean.shape[2] == 1 else clean).save(target)
        print(f"wrote {target}")


if __name__ == "__main__":
    main(OPTIONS)
