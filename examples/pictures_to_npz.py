# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["numpy>=2,<3", "pillow>=11"]
# ///
"""Collect a folder of pictures in an .npz file, on which both scripts can train with --data.

    python examples/pictures_to_npz.py photos --output new.npz --size 64

Writes an array x_train of images, uint8 (n, height, width, 1 or 3), and y_train, the subfolder of
each. Takes PNG, JPEG, BMP and GIF files; hidden files are skipped, and alpha is put on white.
Training on large pictures needs random crops:

    python examples/pictures_to_npz.py photos --output patches.npz --crop 32 --count 50000 --grey
"""

import argparse
import sys
from pathlib import Path

FORMATS = (".png", ".jpg", ".jpeg", ".bmp", ".gif")


def parse_options():
    """Return the options of the command line; a wrong one or a missing folder ends the script."""
    about, command, *_ = __doc__.split("\n\n")
    example = f"example: {command.strip()}"
    parser = argparse.ArgumentParser(description=about, epilog=example, allow_abbrev=False)
    parser.error = lambda message: fail(f"{message}; see --help")
    add = parser.add_argument
    add("folder", type=Path, metavar="DIR", help="folder of pictures, with or without subfolders")
    add("--output", type=Path, required=True, metavar="FILE", help=".npz file to write")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--size", type=int, metavar="N", help="resize to N x N pixels, 8 to 256")
    size.add_argument("--crop", type=int, metavar="N", help="random crops of N x N, 8 to 256")
    add("--count", type=int, default=10000, metavar="N", help="number of crops (default: 10,000)")
    add("--grey", action="store_true", help="one channel instead of three")
    add("--seed", type=int, default=0, metavar="N", help="seed of the crops (default: 0)")
    add("--force", action="store_true", help="overwrite an existing file")
    options = parser.parse_args()
    for name in ("size", "crop"):
        if vars(options)[name] is not None and not 8 <= vars(options)[name] <= 256:
            fail(f"--{name} {vars(options)[name]}: accepted: 8 to 256")
    for name, low in (("count", 1), ("seed", 0)):
        if vars(options)[name] < low:
            fail(f"--{name} {vars(options)[name]}: accepted: {low} or more")
    if options.output.exists() and not options.force:
        fail(f"{options.output} exists; --force overwrites it")
    if not options.folder.is_dir():
        fail(f"{options.folder} is not a folder")
    return options


def fail(message):
    """End the script with one line about a user error."""
    print("error:", " ".join(str(message).split()), file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    OPTIONS = parse_options()  # before the slow imports, so that --help and mistakes answer at once
try:
    import numpy as np
    from PIL import Image, ImageOps
except ImportError as error:
    fail(f"{error}; pip install -r examples/requirements.txt")


def read_picture(path, grey=False):
    """Return a picture file as uint8 (height, width, 1 or 3), alpha put on white."""
    with Image.open(path) as picture:
        picture = ImageOps.exif_transpose(picture)  # turned upright
        if picture.mode.startswith("I"):  # 16 bits; convert() would keep only the lower 8
            picture = Image.fromarray(np.uint8(np.asarray(picture) // 256))
        if picture.has_transparency_data:
            picture = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
        grey = grey or picture.mode in ("1", "L")
        return np.atleast_3d(np.asarray(picture.convert("L" if grey else "RGB")))


def resize(image, size):
    """Return an image of size x size pixels."""
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    return np.atleast_3d(np.asarray(picture.resize((size, size))))


def random_crops(images, labels, size, count, seed):
    """Return `count` crops (count, size, size, channels) and labels; large pictures give more."""
    random = np.random.default_rng(seed)
    areas = np.array(
        [max(0, i.shape[0] - size + 1) * max(0, i.shape[1] - size + 1) for i in images]
    )
    if not areas.any():
        fail(f"--crop {size}: all pictures are smaller")
    crops, chosen = [], np.sort(random.choice(len(images), count, p=areas / areas.sum()))
    for index in chosen:
        top, left = (random.integers(side - size + 1) for side in images[index].shape[:2])
        crops.append(images[index][top : top + size, left : left + size])
    return np.stack(crops), [labels[index] for index in chosen]


def main(options):
    images, labels = [], []
    for path in sorted(options.folder.rglob("*")):
        if path.suffix.lower() not in FORMATS or path.name.startswith("."):
            continue
        try:
            images.append(read_picture(path, options.grey))
        except Exception as error:  # Pillow reports a damaged file in many ways
            fail(f"{path} cannot be read: {error}; remove it or repair it")
        labels.append(str(path.parent.relative_to(options.folder)))
    if not images:
        fail(f"{options.folder} has no pictures; accepted: {', '.join(FORMATS)}")
    channels = max(image.shape[2] for image in images)
    images = [np.broadcast_to(image, (*image.shape[:2], channels)) for image in images]
    if options.size:
        images = [resize(np.ascontiguousarray(image), options.size) for image in images]
    if options.crop:
        images, labels = random_crops(images, labels, options.crop, options.count, options.seed)
    sizes = sorted({image.shape[:2] for image in images})
    if len(sizes) > 1:
        fail(f"pictures of {len(sizes)} sizes, {sizes[0]} and {sizes[1]}; try --size or --crop")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with options.output.open("wb") as file:
        np.savez_compressed(file, x_train=np.stack(images), y_train=np.array(labels))
    print(f"wrote {options.output}: {len(images):,} images of {sizes[0]}, {channels} channels")


if __name__ == "__main__":
    main(OPTIONS)
