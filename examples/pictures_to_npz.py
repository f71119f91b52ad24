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

import common

parser = common.Parser(__doc__)
parser.add_argument("folder", type=common.existing, metavar="DIR", help="folder of pictures")
parser.add_output("FILE", ".npz file to write")
size = parser.add_mutually_exclusive_group()
side = common.integer(8, 256)
size.add_argument("--size", type=side, metavar="N", help="resize to N x N pixels, 8 to 256")
size.add_argument("--crop", type=side, metavar="N", help="random crops of N x N, 8 to 256")
parser.add_integer("--count", 1, 10**7, 10000, "number of crops")
parser.add_argument("--grey", action="store_true", help="one channel instead of three")
parser.add_integer("--seed", 0, 2**31 - 1, 0, "seed of the crops")
if __name__ == "__main__":
    options = parser.parse_args()  # before the slow imports: --help and mistakes answer at once
    common.refuse_to_overwrite([options.output], options)
with common.quiet_imports():
    import numpy as np


def random_crops(images, labels, size, count, seed):
    """Return `count` crops (count, size, size, channels) and labels; large pictures give more."""
    draw = np.random.default_rng(seed)
    rows = np.array([max(0, image.shape[0] - size + 1) for image in images])
    columns = np.array([max(0, image.shape[1] - size + 1) for image in images])
    places = rows * columns
    if not places.any():
        common.fail(f"--crop {size}: all pictures are smaller")
    chosen = np.sort(draw.choice(len(images), count, p=places / places.sum()))
    crops = []
    for index in chosen:
        top, left = draw.integers(rows[index]), draw.integers(columns[index])
        crops.append(images[index][top : top + size, left : left + size])
    return crops, [labels[index] for index in chosen]


def main(options):
    images = []
    labels = []
    for path in common.find_pictures(options.folder):
        picture = common.read_picture(path)
        if options.grey:
            picture = picture.convert("L")
        if options.size:
            picture = picture.resize((options.size, options.size))
        images.append(np.atleast_3d(np.asarray(picture)))
        labels.append(str(path.parent.relative_to(options.folder)))
    if not images:
        common.fail(f"{options.folder} has no pictures; accepted: {', '.join(common.FORMATS)}")
    channels = max(image.shape[2] for image in images)
    if options.crop:
        images, labels = random_crops(images, labels, options.crop, options.count, options.seed)
    sizes = sorted({image.shape[:2] for image in images})
    if len(sizes) > 1:
        text = f"pictures of {len(sizes)} sizes, {sizes[0]} and {sizes[1]}"
        common.fail(f"{text}; try --size or --crop")
    images = [np.broadcast_to(image, (*sizes[0], channels)) for image in images]
    print(f"{len(images):,} images of {sizes[0]}, {channels} channels")
    with common.new_file(options.output) as unfinished, unfinished.open("wb") as file:
        np.savez_compressed(file, x_train=np.stack(images), y_train=np.array(labels))


if __name__ == "__main__":
    main(options)
