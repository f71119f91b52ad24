"""Degrade clean pages of text, and train the denoiser on such pairs.

    python examples/clean_documents.py degrade clean --output degraded
    python examples/clean_documents.py train --output documents

`degrade` takes a folder of clean pages, dark text on white, at 100 to 200 dpi. It writes grayscale
PNG files of the same names and sizes with faded ink, show-through, yellowed paper, uneven light,
coffee rings, folds, blur, noise and JPEG. Each is a function, and `degrade` has their order.

`train` makes pages of text, degrades them, trains StackedDenoisingAutoEncoder.py on pairs of crops,
and denoises test pages of other words in other fonts. docs/scans.md is about pages of your own.
"""

import io
import json
import re
import subprocess
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

from pictures import fail, find_pictures, read_picture, readable_pictures

parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
commands = parser.add_subparsers(dest="command", required=True)
degrade_parser = commands.add_parser("degrade", help="degrade a folder of clean pages")
degrade_parser.add_argument("folder", type=Path, help="folder of clean pages")
degrade_parser.add_argument("--output", type=Path, required=True, help="folder for the copies")
degrade_parser.add_argument("--force", action="store_true", help="overwrite existing files")
degrade_parser.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")
degrade_parser.set_defaults(range=None)
train_parser = commands.add_parser("train", help="make pages, and train the denoiser on them")
train_parser.add_argument("--output", type=Path, required=True, help="new folder")
train_parser.add_argument("--pages", type=int, default=60, help="to train on (default: 60)")
train_parser.add_argument("--test-pages", type=int, default=20, help="to denoise (default: 20)")
train_parser.add_argument("--crops", type=int, default=12000, help="to train on (default: 12000)")
train_parser.add_argument("--epochs", type=int, default=16, help="(default: 16)")
for each in (parser, degrade_parser, train_parser):
    each.error = fail
if __name__ == "__main__":
    options = parser.parse_args()  # before the slower imports

from pydoc_data import topics

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

ROOT = Path(__file__).resolve().parent.parent

# ---- Degradations --------------------------------------------------------------------------------

# Pages are floats (height, width) from 0, black, to 1, white; only `add_noise` leaves that range,
# and `compress` clips. `draw` is a NumPy generator.


def smooth_noise(shape, pixels, draw):
    """Return noise from 0 to 1 that changes over a number of pixels."""
    coarse = draw.random([side // pixels + 2 for side in shape], np.float32)
    fine = ndimage.zoom(coarse, pixels, order=1)
    return fine[: shape[0], : shape[1]]


def fade_ink(page, draw):
    """Fade ink to 45 to 100% of its darkness, unevenly."""
    kept = draw.uniform(0.45, 0.8) + 0.2 * smooth_noise(page.shape, 60, draw)
    return 1 - kept * (1 - page)


def show_through(page, back, draw):
    """Let the text on the back of the paper shine through, mirrored and blurred."""
    behind = ndimage.gaussian_filter(back[:, ::-1], draw.uniform(1, 2))
    return page * (1 - draw.uniform(0, 0.35) * (1 - behind))


def coffee_ring(page, draw):
    """Add the stain of a cup: a wavy dark ring with gaps, and a light stain inside."""
    y, x = np.ogrid[: page.shape[0], : page.shape[1]]
    y = y - draw.uniform(0, page.shape[0])
    x = x - draw.uniform(0, page.shape[1])
    angle = np.arctan2(y, x)
    distance = np.hypot(y, x)
    waves = [draw.uniform(-2, 2) * np.cos(n * angle + draw.uniform(0, 6)) for n in range(2, 6)]
    distance = distance + sum(waves)
    radius = draw.uniform(50, 180)
    width = draw.uniform(2, 8)
    ring = np.exp(-(((distance - radius) / width) ** 2))
    ring *= draw.uniform(0.2, 0.6) * smooth_noise(page.shape, 50, draw)
    inside = draw.uniform(0, 0.2) * (distance < radius)
    return page * (1 - ring) * (1 - ndimage.gaussian_filter(np.float32(inside), 2))


def fold(page, draw):
    """Add a crease across the paper: a dark line alongside a lighter one."""
    y, x = np.ogrid[: page.shape[0], : page.shape[1]]
    angle = draw.choice([0, np.pi / 2]) + draw.normal(0, 0.05)
    across = (y - draw.uniform(0, page.shape[0])) * np.cos(angle)
    across = across + (x - draw.uniform(0, page.shape[1])) * np.sin(angle)
    width = draw.uniform(1, 3)
    dark = draw.uniform(0.1, 0.5) * np.exp(-((across / width) ** 2))
    light = draw.uniform(0, 0.3) * np.exp(-((across / width - 2) ** 2))
    return np.minimum(page * (1 - dark) * (1 + light), 1)


def yellow_paper(page, draw):
    """Make paper darker, and its light uneven."""
    tone = draw.uniform(0.65, 0.95)
    shade = draw.uniform(0.1, 0.5) * smooth_noise(page.shape, draw.integers(150, 400), draw)
    return page * tone * (1 - shade)


def add_noise(page, draw):
    """Add the noise of a sensor, and the coarser one of paper."""
    fine = draw.normal(0, draw.uniform(0.01, 0.08), page.shape)
    coarse = ndimage.gaussian_filter(draw.normal(0, 1, page.shape), 1.5)
    return page + fine + draw.uniform(0, 0.2) * coarse


def compress(page, draw):
    """Return a page, uint8, after JPEG compression of low to medium quality."""
    file = io.BytesIO()
    pixels = np.uint8(np.rint(255 * np.clip(page, 0, 1)))
    Image.fromarray(pixels).save(file, "JPEG", quality=int(draw.integers(20, 70)))
    return np.asarray(Image.open(file))


def degrade(page, back, draw):
    """Return a degraded page, uint8; `back` is the page on its back."""
    page = fade_ink(page, draw)
    page = show_through(page, back, draw)
    for _ in range(draw.integers(1, 4)):
        page = coffee_ring(page, draw)
    for _ in range(draw.integers(0, 3)):
        page = fold(page, draw)
    page = yellow_paper(page, draw)
    page = ndimage.gaussian_filter(page, draw.uniform(0.3, 1.0))
    return compress(add_noise(page, draw), draw)


def degrade_pages(pages, paths, seed):
    """Write degraded copies of pages, uint8 (height, width); each has the last one on its back."""
    draw = np.random.default_rng(seed)
    for number, (page, path) in enumerate(zip(pages, paths, strict=True)):
        back = Image.new("L", page.shape[::-1], 255)
        back.paste(Image.fromarray(pages[number - 1]))
        copy = degrade(np.float32(page) / 255, np.asarray(back, np.float32) / 255, draw)
        write(path, copy)


def write(path, page):
    """Write a page, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}")
    Image.fromarray(page).save(unfinished)
    unfinished.replace(path)


def degrade_folder(options):
    """Degrade the pictures of a folder."""
    paths = find_pictures(options.folder)
    if not paths:
        fail(f"{options.folder} must be a folder of pictures, found none in it")
    targets = [options.output / path.relative_to(options.folder) for path in paths]
    targets = [target.with_suffix(".png") for target in targets]
    if len(set(targets)) < len(targets):
        fail("names must differ by more than the suffix, found two that become one PNG file")
    for target in targets:
        if target.exists() and not options.force:
            fail(f"{target} exists; --force overwrites it")
    _, ranges = readable_pictures(paths, options)
    pages = [np.asarray(read_picture(path, ranges).convert("L")) for path in paths]
    degrade_pages(pages, targets, options.seed)
    print(f"wrote {len(targets):,} pages to {options.output}")


# ---- Pages to train on ---------------------------------------------------------------------------

SIZE = (824, 600)  # width and height in pixels: half a page of A5
BORDER = 40  # pixels
DPI = 150
FONT_SIZES = range(9, 15)  # points
FONTS = Path(matplotlib.get_data_path()) / "fonts/ttf"
TRAINING_FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSerif-Bold")
TRAINING_FONTS += ("DejaVuSerif-Italic", "cmr10", "cmss10", "cmb10")
TEST_FONTS = ("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "cmtt10", "DejaVuSansMono")
LIBERATION = Path("/usr/share/fonts/truetype/liberation")  # on Debian; Serif resembles STIX


def word_lists():
    """Return two lists of English words without a word in common: for training and for test."""
    text = " ".join(topics.topics.values())  # the help texts of Python
    words = sorted(set(re.findall(r"\b[a-z]{2,12}\b", text)))
    return [word for number, word in enumerate(words) if number % 5], words[::5]


def sentence(words, draw):
    """Return some random words, with a capital, a comma and perhaps a number."""
    chosen = [str(word) for word in draw.choice(words, draw.integers(4, 12))]
    chosen[0] = chosen[0].capitalize()
    chosen[2] += ","
    if draw.random() < 0.3:
        chosen.append(str(draw.integers(2, 10000)))
    return " ".join(chosen) + "."


def set_page(words, path, draw):
    """Return a page, uint8 (height, width), and its text; the font is that of a file."""
    font = ImageFont.truetype(path, round(draw.choice(FONT_SIZES) * DPI / 72))
    picture = Image.new("L", SIZE, 255)
    pen = ImageDraw.Draw(picture)
    line_height = round(sum(font.getmetrics()) * draw.uniform(1.0, 1.3))
    lines = []
    waiting = []
    for y in range(BORDER, SIZE[1] - BORDER - line_height, line_height):
        line = ""
        while True:
            waiting = waiting or sentence(words, draw).split()
            longer = f"{line} {waiting[0]}".strip()
            if font.getlength(longer) > SIZE[0] - 2 * BORDER:
                break
            line = longer
            waiting = waiting[1:]
        pen.text((BORDER, y), line, font=font, fill=0)
        lines.append(line)
    return np.asarray(picture), "\n".join(lines)


def make_pairs(folder, count, words, fonts, seed):
    """Write clean pages, each in the next font, degraded copies of them, and their texts."""
    draw = np.random.default_rng(seed)
    names = [f"{number:03}.png" for number in range(count)]
    pages = []
    texts = []
    for number, name in enumerate(names):
        page, text = set_page(words, fonts[number % len(fonts)], draw)
        write(folder / "clean" / name, page)
        pages.append(page)
        texts.append(text)
    degrade_pages(pages, [folder / "degraded" / name for name in names], seed)
    (folder / "texts.json").write_text(json.dumps(texts))


# ---- Training, by the commands of a user ---------------------------------------------------------


def run(script, *words):
    """Run a script of this project as a command, or end with its status."""
    command = [sys.executable, str(ROOT / script), *map(str, words)]
    print("\n$ python", script, *command[2:], flush=True)
    status = subprocess.run(command).returncode
    if status:
        sys.exit(status)


def train(options):
    """Make pages, train the denoiser on them, and denoise others."""
    folder = options.output
    if folder.exists():
        fail(f"--output must be a new folder, found {folder}")
    fonts = [FONTS / f"{name}.ttf" for name in TRAINING_FONTS]
    fonts += [LIBERATION / f"Liberation{name}-Regular.ttf" for name in ("Sans", "Mono")]
    fonts = [font for font in fonts if font.is_file()]
    test_fonts = [FONTS / f"{name}.ttf" for name in TEST_FONTS]
    words, test_words = word_lists()
    make_pairs(folder / "train", options.pages, words, fonts, 0)
    make_pairs(folder / "test", options.test_pages, test_words, test_fonts, 1)
    pairs = [folder / "train/clean", "--noisy", folder / "train/degraded"]
    crops = ["--crop", 48, "--count", options.crops]
    run("examples/prepare_data.py", *pairs, "--output", folder / "crops.npz", *crops)
    places = ["--data", folder / "crops.npz", "--model-dir", folder / "model"]
    run("StackedDenoisingAutoEncoder.py", *places, "--epochs", options.epochs)
    places = ["--output", folder / "test/cleaned", "--model-dir", folder / "model"]
    run("examples/denoise_pictures.py", folder / "test/degraded", *places)
    print(f"compare the pages of {folder / 'test'}; the model is in {folder / 'model'}")


if __name__ == "__main__":
    try:
        {"degrade": degrade_folder, "train": train}[options.command](options)
    except OSError as error:
        fail(error)
