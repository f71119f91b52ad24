# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = [
#     "tensorflow==2.21.*", "keras==3.15.*", "numpy>=2,<3", "pillow>=11", "tqdm>=4.66,<5",
#     "tifffile>=2025.1.10", "imagecodecs>=2025.3.30",
# ]
# ///
"""Denoise picture files with the model that StackedDenoisingAutoEncoder.py saved.

    python examples/denoise_pictures.py scan.png scans --output clean

Takes pictures and folders of them; writes PNG files of the same names, sizes, resolution (dpi) and
colour profile. The model is fully convolutional, so a picture is denoised at its own size, a large
one in overlapping tiles. Train the model on random crops of such pictures: see prepare_data.py. A
model trained on grayscale images makes all pictures grayscale. Of a file with several pages, the
first is denoised. Files that exist are skipped, so an interrupted run goes on where it was. A
picture of 50 megapixels in RGB takes 1.5 GB of memory.
"""

import collections

import common

TILE = 512  # side in pixels of what is denoised at a time, a multiple of 4
MARGIN = 64  # pixels around a tile, more than an output pixel depends on

parser = common.Parser(__doc__)
text = "picture or folder of pictures"
parser.add_argument("paths", type=common.existing, nargs="+", metavar="PATH", help=text)
parser.add_output("DIR", "folder for the clean pictures")
parser.add_model_dir("models/denoiser", "model.keras")
parser.add_range()
parser.add_skip_unreadable()


if __name__ == "__main__":
    options = parser.parse_args()  # before the slow imports: --help and mistakes answer at once
with common.quiet_imports():
    import numpy as np
    import pictures
    from PIL import Image


def find_targets(paths, output):
    """Return {picture file: PNG file to write}: a.png, but a.jpg.png of a.jpg alongside a.png."""
    targets = {}
    for path in paths:
        if path.resolve() == output.resolve():
            common.fail(f"--output must be another folder than {path}, found the same")
        files = pictures.find_pictures(path, output) if path.is_dir() else [path]
        folder = path if path.is_dir() else path.parent
        for file in files:
            targets[file] = output / file.relative_to(folder).with_suffix(".png")
    if not targets:
        common.fail(f"there must be pictures, found none in {', '.join(map(str, paths))}")
    counts = collections.Counter(targets.values())
    for file, target in targets.items():
        if counts[target] > 1 and file.suffix != ".png":
            targets[file] = target.with_name(f"{file.name}.png")
            print(f"{file} is written as {targets[file]}: {target.name} is of another picture")
    inputs = {file.resolve() for file in targets}
    written = {}
    for file, target in targets.items():
        if target in written:
            common.fail(f"names must differ, found {written[target]} and {file}")
        if target.resolve() in inputs:
            common.fail(f"--output must be a folder without the input, found {target}")
        written[target] = file
    return targets


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
    targets = find_targets(options.paths, options.output)
    waiting = [path for path in targets if options.force or not targets[path].exists()]
    if len(waiting) < len(targets):
        count = len(targets) - len(waiting)
        print(
            f"skipped {count:,} of {len(targets):,} pictures, which are denoised already (--force)"
        )
    if not waiting:
        return
    known = pictures.model_range(options.model_dir)
    ranges = pictures.value_ranges(waiting, options, known)

    def brightness(path):
        _, brightest = pictures.read_picture(path, ranges).convert("L").getextrema()
        return brightest

    brightest = pictures.for_each_picture(waiting, brightness, options)  # all, before it writes
    pictures.need_brightness(max(brightest.values()))
    model = common.load_model(options.model_dir / "model.keras")
    channels = model.input_shape[3]
    mode = "L" if channels == 1 else "RGB"
    for path in brightest:
        page = next(pictures.read_pages(path))
        picture = pictures.as_image(page, ranges).convert(mode)
        clean = denoise(model, np.atleast_3d(np.asarray(picture)))
        with common.new_file(targets[path]) as unfinished:
            image = Image.fromarray(clean[..., 0] if channels == 1 else clean)
            image.save(unfinished, **kept_info(page, mode))


def kept_info(page, mode):
    """Return the resolution of a page, and its colour profile if that is for the mode L or RGB."""
    info = dict(page.info)
    space = {"L": b"GRAY", "RGB": b"RGB "}[mode]
    if info.get("icc_profile", b"")[16:20] != space:
        info.pop("icc_profile", None)
    return info


if __name__ == "__main__":
    main(options)
