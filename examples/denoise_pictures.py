# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = [
#     "tensorflow==2.21.*", "keras==3.15.*", "numpy>=2,<3", "pillow>=11", "tqdm>=4.66,<5",
#     "tifffile>=2025.1.10", "imagecodecs>=2025.3.30", "scikit-image>=0.25,<1",
#     "PyWavelets>=1.6,<2",
# ]
# ///
"""Denoise picture files with a trained model, of this project or of your own.

    python examples/denoise_pictures.py scan.png scans --model documents --output clean
    python examples/denoise_pictures.py photo.jpg --model-dir models/denoiser --output clean
    python examples/denoise_pictures.py photo.jpg --estimate-noise

Takes pictures and folders of them; writes PNG files of the same names, sizes, resolution (dpi) and
colour profile. The model is fully convolutional, so a picture is denoised at its own size, a large
one in overlapping tiles. Train the model on random crops of such pictures: see prepare_data.py. A
grayscale model denoises each channel of an RGB picture. Of a file with several pages, the first is
denoised. Existing files are skipped, so an interrupted run continues when started again. A
picture of 50 megapixels in RGB takes 1.5 GB of memory.
"""

import argparse
import collections
import contextlib
import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pictures
from pictures import fail
from PIL import Image

TRAINED = Path(__file__).resolve().parent.parent / "pretrained"  # models of this project
MARGIN_OF_NOISE = 2  # estimates may differ from the levels of the training by this factor
TILE = 512  # side in pixels of what is denoised at a time, a multiple of 4
MARGIN = 64  # pixels around a tile, more than an output pixel depends on
BLIND_MIX = 20  # one part of so many is the noisy pixel, which a blind-spot model never sees


def parse_options(arguments=None):
    """Return the options of the command line; mistakes end the script."""
    description, commands, *_ = __doc__.split("\n\n")
    parser = argparse.ArgumentParser(
        description=description,
        epilog=f"examples:\n{commands}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.error = fail
    add = parser.add_argument
    add("paths", type=Path, nargs="+", metavar="PATH", help="picture or folder of pictures")
    text = "folder for the denoised pictures"
    add("--output", type=Path, metavar="DIR", help=text)
    add("--estimate-noise", action="store_true", help="print the noise of each picture, and end")
    add("--force", action="store_true", help="denoise pictures again whose output exists")
    text = "trained model of this project: documents or photographs"
    add("--model", choices=("documents", "photographs"), metavar="NAME", help=text)
    text = "mean over the four flips of a picture: better, four times slower; not for text"
    add("--flips", action="store_true", help=text)
    text = "folder of a model of your own (default: models/denoiser)"
    add("--model-dir", type=Path, metavar="DIR", help=text)
    text = "values that become black and white (default: the output says what was used)"
    add("--range", type=float, nargs=2, metavar=("LOW", "HIGH"), help=text)
    add("--skip-unreadable", action="store_true", help="leave out pictures that cannot be read")
    options = parser.parse_args(arguments)
    if options.range and options.range[0] >= options.range[1]:
        fail(f"--range must be a lower and a higher number, found {options.range}")
    if options.model and options.model_dir:
        fail("--model or --model-dir must be left out, found both")
    if options.model:
        options.model_dir = TRAINED / options.model
    options.model_dir = options.model_dir or Path("models/denoiser")
    needed = list(options.paths)
    if not options.estimate_noise:
        needed.append(options.model_dir / "model.keras")
        if not options.output:
            fail("--output DIR must be given, found none")
    for path in needed:
        if not path.exists():
            fail(f"{path} does not exist")
    return options


def find_targets(paths, output):
    """Return {picture file: PNG file to write}: a.png, but a.jpg.png of a.jpg alongside a.png."""
    targets = {}
    for path in paths:
        if path.resolve() == output.resolve():
            fail(f"--output must be another folder than {path}, found the same")
        files = pictures.find_pictures(path) if path.is_dir() else [path]
        folder = path if path.is_dir() else path.parent
        for file in files:
            if output.resolve() not in file.resolve().parents:  # it may be in the input folder
                targets[file] = output / file.relative_to(folder).with_suffix(".png")
    if not targets:
        fail(f"there must be pictures, found none in {', '.join(map(str, paths))}")
    counts = collections.Counter(targets.values())
    for file, target in targets.items():
        if counts[target] > 1 and file.suffix != ".png":
            targets[file] = target.with_name(f"{file.name}.png")
            print(f"{file} is written as {targets[file]}: {target.name} is of another picture")
    inputs = {file.resolve() for file in targets}
    written = {}
    for file, target in targets.items():
        if target in written:
            fail(f"names must differ, found {written[target]} and {file}")
        if target.resolve() in inputs:
            fail(f"--output must be a folder without the input, found {target}")
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


def estimate_noise(pixels):
    """Return the estimated standard deviation of Gaussian noise in pixels, uint8, from 0 to 1.

    The middle of a large picture is enough: Donoho and Johnstone 1994, by scikit-image.
    """
    from skimage.restoration import estimate_sigma  # here, because it starts slowly

    top, left = (max(0, side - 1024) // 2 for side in pixels.shape[:2])
    part = pixels[top : top + 1024, left : left + 1024]
    return float(estimate_sigma(part / 255, channel_axis=-1, average_sigmas=True))


def denoise_picture(model, pixels):
    """Return pixels, uint8 (height, width, 1 or 3), denoised by a model of 1 or 3 channels."""
    if model.input_shape[3] == 1:
        channels = np.split(pixels, pixels.shape[2], axis=2)
        return np.concatenate([denoise(model, channel) for channel in channels], axis=2)
    clean = denoise(model, np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
    if pixels.shape[2] == 3:
        return clean
    return np.rint(clean.mean(axis=2, keepdims=True)).astype(np.uint8)


def mean_of_flips(model, pixels):
    """Return pixels, uint8, denoised: the mean over the picture and its three mirror images."""
    total = np.zeros(pixels.shape, np.uint16)
    for up, across in itertools.product((1, -1), repeat=2):
        total += denoise_picture(model, pixels[::up, ::across])[::up, ::across]
    return np.uint8((total + 2) // 4)


def mixed(clean, noisy):
    """Return denoised pixels, uint8, with a little of the noisy ones."""
    total = np.uint16(BLIND_MIX - 1) * clean.astype(np.uint16) + noisy
    return np.uint8((total + BLIND_MIX // 2) // BLIND_MIX)


def find_misfits(pixels, about):
    """Return in words how pixels, uint8, differ from the training images of metrics.json."""
    misfits = []
    kinds = {1: "grayscale", 3: "RGB"}
    found, trained = pixels.shape[2], about.get("channels", pixels.shape[2])
    if found != trained:
        misfits.append(f"{kinds[found]} picture, {kinds[trained]} training images")
    mean, trained_mean = pixels.mean() / 255, about.get("pixel_mean", 0.5)
    if abs(mean - trained_mean) > 0.4:
        text = f"mean {mean:.2f}, of training images {trained_mean:.2f}"
        misfits.append(f"{text} (perhaps white on black instead of black on white, or the reverse)")
    levels = about.get("noise") if about.get("corruption") == "gaussian" else None
    if about.get("corruption") == "blind-spot":
        levels = [about["max_noise"]]
    if levels:
        noise = estimate_noise(pixels)
        if not levels[0] / MARGIN_OF_NOISE <= noise <= levels[-1] * MARGIN_OF_NOISE:
            known = " to ".join(f"{level:.2f}" for level in levels)
            misfits.append(f"estimated noise {noise:.3f}, of training images {known}")
    return misfits


def print_noise(options):
    """Print the estimated noise of each picture, and the range of all."""
    files = []
    for path in options.paths:
        files.extend(pictures.find_pictures(path) if path.is_dir() else [path])
    readable, ranges = pictures.readable_pictures(files, options)
    levels = []
    for path in readable:
        pixels = np.atleast_3d(np.asarray(pictures.read_picture(path, ranges)))
        levels.append(estimate_noise(pixels))
        print(f"{path}: noise {levels[-1]:.3f}")
    if levels:
        print(f"--noise {min(levels):.3f} {max(levels):.3f} for clean images of the same kind")


def kept_info(picture, mode):
    """Return the resolution of a picture, and its colour profile if that is for L or RGB."""
    info = {key: picture.info[key] for key in ("dpi", "icc_profile") if key in picture.info}
    space = {"L": b"GRAY", "RGB": b"RGB "}[mode]
    if info.get("icc_profile", b"")[16:20] != space:
        info.pop("icc_profile", None)
    return info


def main(options):
    if options.estimate_noise:
        print_noise(options)
        return
    targets = find_targets(options.paths, options.output)
    waiting = [path for path in targets if options.force or not targets[path].exists()]
    if len(waiting) < len(targets):
        count = f"{len(targets) - len(waiting):,} of {len(targets):,}"
        print(f"skipped {count} pictures, which are denoised already (--force)")
    if not waiting:
        return
    known = pictures.model_range(options.model_dir)
    readable, ranges = pictures.readable_pictures(waiting, options, known)
    from encode_pictures import load_model  # here, because TensorFlow starts slowly

    model = load_model(options.model_dir / "model.keras")
    metrics = options.model_dir / "metrics.json"
    about = json.loads(metrics.read_text()) if metrics.is_file() else {}
    for path in readable:
        picture = pictures.read_picture(path, ranges)
        mode = "L" if picture.mode == "L" else "RGB"
        pixels = np.atleast_3d(np.asarray(picture.convert(mode)))
        for misfit in find_misfits(pixels, about):
            print(f"{path} differs from what the model was trained on: {misfit}")
        clean = (mean_of_flips if options.flips else denoise_picture)(model, pixels)
        if about.get("corruption") == "blind-spot":
            clean = mixed(clean, pixels)
        info = {}
        with contextlib.suppress(Exception), Image.open(path) as original:  # not of DICOM and PDF
            info = kept_info(original, mode)
        target = targets[path]
        unfinished = target.with_name(f".{target.name}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(clean[..., 0] if mode == "L" else clean)
            image.save(unfinished, "PNG", **info)
            unfinished.replace(target)
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            fail(f"{target} cannot be written: {error}")
        print(f"wrote {target}")


if __name__ == "__main__":
    if hasattr(sys.stdout, "reconfigure"):  # not in a notebook
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may not be UTF-8
    main(parse_options())
