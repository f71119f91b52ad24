# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = [
#     "tensorflow==2.21.*", "keras==3.15.*", "numpy>=2,<3", "pillow>=11", "tqdm>=4.66,<5",
# ]
# ///
"""Denoise picture files with the model that StackedDenoisingAutoEncoder.py saved.

    python examples/denoise_pictures.py scan.png scans --output clean

Takes pictures and folders of them; writes PNG files of the same names and sizes. The model is fully
convolutional, so a picture is denoised at its own size, a large one in overlapping tiles. Train the
model on random crops of such pictures: see pictures_to_npz.py. A model trained on grey images makes
all pictures grey. A picture of 50 megapixels in RGB takes 1.5 GB of memory.
"""

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


def find_targets(paths, output):
    """Return {picture file: PNG file to write}; no two may be written to one file."""
    targets = {}
    for path in paths:
        if path.is_dir():
            for file in common.find_pictures(path):
                targets[file] = output / file.relative_to(path).with_suffix(".png")
        else:
            targets[path] = output / f"{path.stem}.png"
    if not targets:
        names = ", ".join(str(path) for path in paths)
        common.fail(f"no pictures in {names}; accepted: {', '.join(common.FORMATS)}")
    if len(set(targets.values())) < len(targets):
        common.fail("two pictures would be written to one file; accepted: different names")
    return targets


if __name__ == "__main__":
    options = parser.parse_args()  # before the slow imports: --help and mistakes answer at once
    targets = find_targets(options.paths, options.output)
    common.refuse_to_overwrite(targets.values(), options)
with common.quiet_imports():
    import numpy as np
    from PIL import Image


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


def main(options, targets):
    ranges = common.value_ranges(targets, options)

    def brightness(path):
        _, brightest = common.read_picture(path, ranges).convert("L").getextrema()
        return brightest

    brightest = common.for_each_picture(targets, brightness, options)  # tries all before it writes
    common.need_brightness(max(brightest.values()))
    model = common.load_model(options.model_dir / "model.keras")
    channels = model.input_shape[3]
    for path in brightest:
        target = targets[path]
        picture = common.read_picture(path, ranges).convert("L" if channels == 1 else "RGB")
        clean = denoise(model, np.atleast_3d(np.asarray(picture)))
        with common.new_file(target) as unfinished:
            Image.fromarray(clean[..., 0] if channels == 1 else clean).save(unfinished)


if __name__ == "__main__":
    main(options, targets)
