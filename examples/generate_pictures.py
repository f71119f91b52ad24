"""Generate pictures with the VAE that VariationalAutoEncoder_tf2.py saved.

    python examples/generate_pictures.py --output new --count 100
    python examples/generate_pictures.py --output new --from a.png --to b.png
    python examples/generate_pictures.py --output new --tour

Writes samples, decoded from points z of the prior N(0, I); or a latent interpolation between two
pictures, interpolation.png; or an animated interpolation through eight samples, tour.gif.
"""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

from pictures import fail, read_resized_pictures

parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
parser.error = fail
parser.add_argument("--output", type=Path, required=True, help="folder for the pictures")
parser.add_argument("--force", action="store_true", help="overwrite existing pictures")
parser.add_argument("--model-dir", type=Path, default="models/vae", help="default: models/vae")
parser.add_argument("--count", type=int, default=16, help="number of samples (default: 16)")
parser.add_argument("--from", dest="first", type=Path, help="picture to interpolate from")
parser.add_argument("--to", dest="last", type=Path, help="picture to interpolate to")
parser.add_argument("--tour", action="store_true", help="write an animated interpolation")
parser.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")
parser.set_defaults(range=None, skip_unreadable=False)  # for the two pictures

STEPS = 14  # decoded images from one picture to the other
STOPS = 8  # samples on the way of the animation
FRAMES = 120
GIF_SIDE = 224  # pixels, at least


def targets_of(options):
    """Return the files to write."""
    if options.tour:
        return [options.output / "tour.gif"]
    if options.first:
        return [options.output / "interpolation.png"]
    digits = len(str(options.count))
    numbers = range(1, options.count + 1)
    return [options.output / f"sample-{number:0{digits}}.png" for number in numbers]


if __name__ == "__main__":
    options = parser.parse_args()  # before the slow import of Keras
    if options.count < 1:
        fail(f"--count must be 1 or more, found {options.count}")
    if (options.first is None) != (options.last is None):
        fail("--from and --to must be given together, found one of them")
    for path in targets_of(options):
        if path.exists() and not options.force:
            fail(f"{path} exists; --force overwrites it")

import numpy as np
from encode_pictures import load_model
from PIL import Image
from scipy.interpolate import CubicSpline


def decode(decoder, z):
    """Return images, uint8 (n, height, width, channels), of points z (n, latent_dim)."""
    return np.uint8(np.rint(255 * decoder.predict(z, batch_size=100, verbose=0)))


def interpolation(decoder, options):
    """Return a row of images: the first picture, what is decoded on the way, the last one."""
    encoder = load_model(options.model_dir / "encoder.keras")
    paths = [options.first, options.last]
    found = read_resized_pictures(paths, encoder.input_shape[1:], options.model_dir, options)
    first, last = images = np.stack([found[path] for path in paths])
    (start, end), _ = encoder.predict(images, verbose=0)
    between = decode(decoder, np.linspace(start, end, STEPS))
    return np.concatenate([np.uint8(255 * first), *between, np.uint8(255 * last)], axis=1)


def tour(decoder, stops):
    """Return the frames of an animation along a smooth closed path through points z."""
    path = CubicSpline(range(len(stops) + 1), [*stops, stops[0]], bc_type="periodic")
    images = decode(decoder, path(np.linspace(0, len(stops), FRAMES, endpoint=False)))
    scale = -(-GIF_SIDE // max(images.shape[1:3]))
    size = (scale * images.shape[2], scale * images.shape[1])
    # One palette for all frames: Pillow takes minutes to find one for each.
    palette = Image.fromarray(np.concatenate(images).squeeze()).convert("RGB").quantize()
    frames = [Image.fromarray(image.squeeze()).convert("RGB") for image in images]
    return [frame.resize(size).quantize(palette=palette) for frame in frames]


def write(path, picture, **settings):
    """Write a picture, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}")
    picture.save(unfinished, **settings)
    unfinished.replace(path)


def main(options):
    decoder = load_model(options.model_dir / "decoder.keras")
    targets = targets_of(options)
    draw = np.random.default_rng(options.seed)
    latent_dim = decoder.input_shape[1]
    if options.first:
        write(targets[0], Image.fromarray(interpolation(decoder, options).squeeze()))
    elif options.tour:
        first, *others = tour(decoder, draw.normal(size=(STOPS, latent_dim)))
        write(targets[0], first, save_all=True, append_images=others, duration=70, loop=0)
    else:
        images = decode(decoder, draw.normal(size=(options.count, latent_dim)))
        for path, image in zip(targets, images, strict=True):
            write(path, Image.fromarray(image.squeeze()))
    print(f"wrote {len(targets):,} files to {options.output}")


if __name__ == "__main__":
    try:
        main(options)
    except OSError as error:
        fail(error)
