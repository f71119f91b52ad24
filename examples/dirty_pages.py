# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = [
#     "numpy>=2,<3", "pillow>=11", "tqdm>=4.66,<5", "scipy>=1.14,<2", "tifffile>=2025.1.10",
#     "imagecodecs>=2025.3.30",
# ]
# ///
"""Make clean pages dirty, as scans of old paper are, to train the denoiser on such pairs.

    python examples/dirty_pages.py clean --output dirty

Takes a folder of pictures of clean pages, dark text on white, at 100 to 200 dpi; writes grey PNG
files of the same names and sizes, with faded ink, show-through, yellowed paper, uneven light,
grain, coffee rings, folds, blur and JPEG. `dirty` has their order; each is a function.
"""

import io

import common

parser = common.Parser(__doc__)
text = "folder of clean pages"
parser.add_argument("folder", type=common.existing, metavar="DIR", help=text)
parser.add_output("DIR", "folder for the dirty pages")
parser.add_range()
parser.add_integer("--seed", 0, 2**31 - 1, 0, "random seed")
if __name__ == "__main__":
    options = parser.parse_args()  # before the slow imports: --help and mistakes answer at once
with common.quiet_imports():
    import numpy as np
    import pictures
    from PIL import Image
    from scipy import ndimage

# Pages are floats (height, width) from 0, black, to 1, white; only `grain` leaves that range, and
# `compress` clips. `draw` is a NumPy generator.


def smooth_noise(shape, pixels, draw):
    """Return noise from 0 to 1 that changes over so many pixels."""
    coarse = draw.random([side // pixels + 2 for side in shape], np.float32)
    fine = ndimage.zoom(coarse, pixels, order=1)
    return fine[: shape[0], : shape[1]]


def fade_ink(page, draw):
    """Let ink keep 45 to 100 % of its darkness, in one place more than in another."""
    kept = draw.uniform(0.45, 0.8) + 0.2 * smooth_noise(page.shape, 60, draw)
    return 1 - kept * (1 - page)


def show_through(page, back, draw):
    """Let the text on the back of the paper shine through, mirrored and blurred."""
    behind = ndimage.gaussian_filter(back[:, ::-1], draw.uniform(1, 2))
    return page * (1 - draw.uniform(0, 0.35) * (1 - behind))


def paper(page, draw):
    """Make paper darker, and its light uneven."""
    tone = draw.uniform(0.65, 0.95)
    shade = draw.uniform(0.1, 0.5) * smooth_noise(page.shape, draw.integers(150, 400), draw)
    return page * tone * (1 - shade)


def distances(shape, draw):
    """Return the distance of each pixel from a random one, along a wavy circle."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    y = y - draw.uniform(0, shape[0])
    x = x - draw.uniform(0, shape[1])
    angle = np.arctan2(y, x)
    waves = [draw.uniform(-2, 2) * np.cos(n * angle + draw.uniform(0, 6)) for n in range(2, 6)]
    return np.hypot(y, x) + sum(waves)


def coffee_ring(page, draw):
    """Add the stain of a cup: a dark ring, with a light stain inside and gaps."""
    distance = distances(page.shape, draw)
    radius = draw.uniform(50, 180)
    width = draw.uniform(2, 8)
    ring = np.exp(-(((distance - radius) / width) ** 2))
    ring *= draw.uniform(0.2, 0.6) * smooth_noise(page.shape, 50, draw)
    inside = draw.uniform(0, 0.2) * (distance < radius)
    return page * (1 - ring) * (1 - ndimage.gaussian_filter(np.float32(inside), 2))


def fold(page, draw):
    """Add a crease across the paper: a dark line, beside a lighter one."""
    y, x = np.ogrid[: page.shape[0], : page.shape[1]]
    angle = draw.choice([0, np.pi / 2]) + draw.normal(0, 0.05)
    across = (y - draw.uniform(0, page.shape[0])) * np.cos(angle)
    across = across + (x - draw.uniform(0, page.shape[1])) * np.sin(angle)
    width = draw.uniform(1, 3)
    dark = draw.uniform(0.1, 0.5) * np.exp(-((across / width) ** 2))
    light = draw.uniform(0, 0.3) * np.exp(-((across / width - 2) ** 2))
    return np.minimum(page * (1 - dark) * (1 + light), 1)


def grain(page, draw):
    """Add noise: that of the sensor, and the coarser one of paper."""
    fine = draw.normal(0, draw.uniform(0.01, 0.08), page.shape)
    coarse = ndimage.gaussian_filter(draw.normal(0, 1, page.shape), 1.5)
    return page + fine + draw.uniform(0, 0.2) * coarse


def compress(page, draw):
    """Return a page as it is after JPEG, of low to medium quality."""
    file = io.BytesIO()
    pixels = np.uint8(np.rint(255 * np.clip(page, 0, 1)))
    Image.fromarray(pixels).save(file, "JPEG", quality=int(draw.integers(20, 70)))
    return np.asarray(Image.open(file), np.float32) / 255


def dirty(page, back, draw):
    """Return a clean page as a scanner sees it years later; `back` is that on its back."""
    page = fade_ink(page, draw)
    page = show_through(page, back, draw)
    for _ in range(draw.integers(1, 4)):
        page = coffee_ring(page, draw)
    for _ in range(draw.integers(0, 3)):
        page = fold(page, draw)
    page = paper(page, draw)
    page = ndimage.gaussian_filter(page, draw.uniform(0.3, 1.0))
    return compress(grain(page, draw), draw)


def fitted(page, shape):
    """Return a page, uint8, cut to a shape (height, width), with white where it is too small."""
    height, width = shape
    missing = [(0, max(0, height - page.shape[0])), (0, max(0, width - page.shape[1]))]
    return np.pad(page, missing, constant_values=255)[:height, :width]


def make_dirty(clean, seed):
    """Return dirty copies of clean pages, uint8 (height, width) each, as a list.

    On the back of each page is the one before it.
    """
    draw = np.random.default_rng(seed)
    copies = []
    for number, page in enumerate(clean):
        back = fitted(clean[number - 1], page.shape)
        copy = dirty(np.float32(page) / 255, np.float32(back) / 255, draw)
        copies.append(np.uint8(np.rint(255 * copy)))
    return copies


def main(options):
    paths = pictures.find_pictures(options.folder)
    if not paths:  # or a file in place of a folder
        common.fail(f"{options.folder} must be a folder of pictures, found none in it")
    targets = [options.output / path.relative_to(options.folder) for path in paths]
    targets = [target.with_suffix(".png") for target in targets]
    if len(set(targets)) < len(targets):
        common.fail("two pages would be written to one file; accepted: different names")
    common.refuse_to_overwrite(targets, options)
    ranges = pictures.value_ranges(paths, options)

    def read(path):
        return np.asarray(pictures.read_picture(path, ranges).convert("L"))

    pages = pictures.for_each_picture(paths, read, options)
    for target, copy in zip(targets, make_dirty([*pages.values()], options.seed), strict=True):
        with common.new_file(target) as unfinished:
            Image.fromarray(copy).save(unfinished)


if __name__ == "__main__":
    main(options)
