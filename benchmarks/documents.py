# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = [
#     "tensorflow==2.21.*", "keras==3.15.*", "numpy>=2,<3", "matplotlib>=3.10,<4", "pillow>=11",
#     "tqdm>=4.66,<5", "scipy>=1.14,<2", "scikit-image>=0.25,<1", "tifffile>=2025.1.10",
#     "imagecodecs>=2025.3.30",
# ]
# ///
"""Train the denoiser on dirty pages of text, and measure how well it cleans other pages.

    python examples/dirty_documents.py --output documents

Makes pages of text, and copies of them as a scanner sees old paper, by dirty_pages.py; trains
StackedDenoisingAutoEncoder.py on pairs of crops; cleans test pages of other words in other fonts,
and compares that with classical methods: PSNR, SSIM and, where Tesseract is installed, the share
of the characters that it reads wrongly. docs/scans.md is about pages of your own.
"""

import io
import json
import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import common

parser = common.Parser(__doc__)
text = "new folder for pages, models and results"
parser.add_argument("--output", type=Path, required=True, metavar="DIR", help=text)
parser.add_integer("--pages", 10, 1000, 60, "pages to train on")
parser.add_integer("--test-pages", 1, 100, 20, "pages to measure")
parser.add_integer("--crops", 100, 10**6, 12000, "pairs of crops to train on")
parser.add_integer("--epochs", 1, 1000, 16, "passes over the crops")
if __name__ == "__main__":
    options = parser.parse_args()  # before the slow imports: --help and mistakes answer at once
    if options.output.exists():
        common.fail(f"--output must be a new folder, found {options.output}")
with common.quiet_imports():
    from pydoc_data import topics

    import matplotlib
    import numpy as np
    from matplotlib.figure import Figure
    from PIL import Image, ImageDraw, ImageFont
    from scipy import ndimage
    from skimage import filters, metrics, restoration

WORKERS = min(4, os.cpu_count() or 1)  # pages that Tesseract reads at a time

# ---- Clean pages ---------------------------------------------------------------------------------

SIZE = (824, 600)  # width and height in pixels: half a page of A5
BORDER = 40  # pixels
DPI = 150
SIZES = range(9, 15)  # of fonts, in points
MATPLOTLIB_FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
TRAINING_FONTS = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-Italic",
    "cmr10",
    "cmss10",
    "cmb10",
)
TEST_FONTS = ("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "cmtt10", "DejaVuSansMono")
LIBERATION = Path("/usr/share/fonts/truetype/liberation")  # where Debian has these fonts
LIBERATION_FONTS = ("LiberationSans", "LiberationMono")  # not Serif, which resembles STIX


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
    font = ImageFont.truetype(path, round(draw.choice(SIZES) * DPI / 72))
    picture = Image.new("L", SIZE, 255)
    pen = ImageDraw.Draw(picture)
    ascent, descent = font.getmetrics()
    line_height = round((ascent + descent) * draw.uniform(1.0, 1.3))
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


def write_pages(folder, count, words, fonts, seed):
    """Write clean pages to a folder, each in the next of the fonts; return their texts."""
    draw = np.random.default_rng(seed)
    texts = []
    try:
        folder.mkdir(parents=True)
        for number in range(count):
            page, text = set_page(words, fonts[number % len(fonts)], draw)
            Image.fromarray(page).save(folder / f"{number:03}.png")
            texts.append(text)
    except OSError as error:
        common.fail(f"{folder} cannot be written: {error}")
    return texts


def read_pages(folder):
    """Return the pages of a folder as floats in [0, 1]."""
    return [np.asarray(Image.open(path), np.float32) / 255 for path in sorted(folder.glob("*.png"))]


# ---- Training and cleaning, by the commands of a user --------------------------------------------


def train_and_clean(folder, options):
    """Make all pages dirty, train the denoiser on those in `train`, and clean those in `test`."""
    for seed, part in enumerate(("train", "test")):
        words = [folder / part / "clean", "--output", folder / part / "dirty", "--seed", seed]
        common.run_script("examples/dirty_pages.py", *words)
    pairs = [folder / "train" / "clean", "--noisy", folder / "train" / "dirty"]
    crops = folder / "crops.npz"
    model = folder / "model"
    size = ["--crop", 48, "--count", options.crops]
    common.run_script("examples/prepare_data.py", *pairs, "--output", crops, *size)
    words = ["--data", crops, "--epochs", options.epochs, "--model-dir", model]
    common.run_script("StackedDenoisingAutoEncoder.py", *words)
    words = [folder / "test" / "dirty", "--output", folder / "test" / "cleaned"]
    common.run_script("examples/denoise_pictures.py", *words, "--model-dir", model)


# ---- Classical methods ---------------------------------------------------------------------------


def otsu(page, sigma):
    """Return a page of black and white by one threshold (Otsu 1979), after a Gaussian blur."""
    smooth = ndimage.gaussian_filter(page, sigma)
    return np.float32(smooth > filters.threshold_otsu(smooth))


def sauvola(page, window):
    """Return a page of black and white by a threshold for each pixel (Sauvola 2000)."""
    return np.float32(page > filters.threshold_sauvola(page, window))


def background_division(page, window):
    """Return a page divided by its background: a closing, which removes the text, and a blur."""
    background = ndimage.grey_closing(ndimage.gaussian_filter(page, 1), window)
    return np.minimum(page / ndimage.gaussian_filter(background, window / 2), 1)


def median_filter(page, size):
    return ndimage.median_filter(page, size)


def non_local_means(page, sigma):
    return restoration.denoise_nl_means(page, patch_distance=6, h=0.8 * sigma, sigma=sigma)


CLASSICAL = {  # name: function of a page and a setting, settings
    "Otsu's threshold, blur": (otsu, (0.5, 1, 1.5)),
    "Sauvola's threshold, window": (sauvola, (15, 25, 41)),
    "background division, window": (background_division, (15, 25, 41)),
    "median filter, size": (median_filter, (2, 3)),
    "non-local means, sigma": (non_local_means, (0.04, 0.08, 0.12)),
}

# ---- Measuring -----------------------------------------------------------------------------------

CHOICE_PAGES = 4  # training pages by which the settings of the classical methods are chosen
PICTURE_PAGES = 2


def tesseract_version():
    """Return the version of Tesseract; the text is empty where it or its English is missing."""
    if shutil.which("tesseract") is None:
        return ""
    languages, version = (
        subprocess.run(["tesseract", word], capture_output=True, text=True).stdout.split()
        for word in ("--list-langs", "--version")
    )
    return version[1] if "eng" in languages else ""


TESSERACT = tesseract_version()


def edit_distance(found, text):
    """Return the least number of characters to insert, delete or replace (Levenshtein 1966)."""
    found = np.array([*found])
    columns = np.arange(len(found) + 1)
    row = columns
    for number, character in enumerate(text, start=1):
        replaced = row[:-1] + (found != character)
        row = np.append(number, np.minimum(replaced, row[1:] + 1))
        row = np.minimum.accumulate(row - columns) + columns  # characters to insert
    return int(row[-1])


def read_text(page):
    """Return the text that Tesseract reads on a page, on one line."""
    picture = Image.fromarray(np.uint8(np.rint(255 * page)))
    file = io.BytesIO()
    picture.save(file, "PNG")
    command = ["tesseract", "-", "-", "--psm", "6", "--dpi", str(DPI)]  # one block of text
    one_thread = dict(os.environ, OMP_THREAD_LIMIT="1")  # several pages are read at a time
    done = subprocess.run(
        command, input=file.getvalue(), capture_output=True, check=True, env=one_thread
    )
    return " ".join(done.stdout.decode().split())


def error_counts(pages, texts):
    """Return how many characters of each page are read wrongly."""
    with ThreadPoolExecutor(WORKERS) as pool:
        found = [*pool.map(read_text, pages)]
    wanted = [" ".join(text.split()) for text in texts]
    return [edit_distance(*pair) for pair in zip(found, wanted, strict=True)]


def measure(pages, clean, texts):
    """Return the mean PSNR (dB) and SSIM of pages in [0, 1], and the character error rate."""
    pairs = [*zip(clean, pages, strict=True)]
    mse = [np.mean((page - original) ** 2) for original, page in pairs]
    psnr = -10 * np.log10(np.maximum(mse, 1e-10))  # at most 100 dB, for equal pages
    ssim = [metrics.structural_similarity(*pair, data_range=1) for pair in pairs]
    found = {"psnr": float(np.mean(psnr)), "ssim": float(np.mean(ssim))}
    if TESSERACT:
        characters = sum(len(" ".join(text.split())) for text in texts)
        found["error rate"] = sum(error_counts(pages, texts)) / characters
    return found


def best_setting(denoise, settings, clean, noisy, texts):
    """Return the setting with the least error rate on some pages, or else the greatest PSNR."""
    tried = {}
    for setting in settings:
        found = measure([denoise(page, setting) for page in noisy], clean, texts)
        tried[setting] = found.get("error rate", -found["psnr"])
    return min(tried, key=tried.get)


def measure_all(folder, texts):
    """Return {method: metrics} on the test pages."""
    training = [read_pages(folder / "train" / name)[:CHOICE_PAGES] for name in ("clean", "dirty")]
    names = ("clean", "dirty", "cleaned")
    clean, noisy, cleaned = (read_pages(folder / "test" / name) for name in names)
    rows = {"dirty pages": measure(noisy, clean, texts["test"])}
    for name, (denoise, settings) in CLASSICAL.items():
        setting = best_setting(denoise, settings, *training, texts["train"][:CHOICE_PAGES])
        pages = [denoise(page, setting) for page in noisy]
        rows[f"{name} {setting}"] = measure(pages, clean, texts["test"])
    rows["StackedDenoisingAutoEncoder.py"] = measure(cleaned, clean, texts["test"])
    rows["clean pages"] = measure(clean, clean, texts["test"])
    return rows


def error_rates_by_font(folder, texts):
    """Return {font: error rates of dirty and of cleaned test pages}."""
    by_font = {}
    for name in ("dirty", "cleaned"):
        pages = read_pages(folder / "test" / name)
        counts = error_counts(pages, texts)
        for number, font in enumerate(TEST_FONTS):
            mine = slice(number, None, len(TEST_FONTS))
            characters = sum(len(" ".join(text.split())) for text in texts[mine])
            if characters:
                by_font.setdefault(font, {})[name] = sum(counts[mine]) / characters
    return by_font


def print_rows(rows):
    """Print metrics as a table in Markdown."""
    print("\n| | PSNR, dB | SSIM | characters read wrongly |\n| --- | --- | --- | --- |")
    for name, found in rows.items():
        rate = f"{found['error rate']:.1%}" if TESSERACT else ""
        print(f"| {name} | {found['psnr']:.2f} | {found['ssim']:.3f} | {rate} |")


def draw_pages(folder):
    """Draw the upper halves of some dirty test pages, with the cleaned ones below."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    plots = figure.subplots(2, PICTURE_PAGES, squeeze=False)
    for row, name in zip(plots, ("dirty", "cleaned"), strict=True):
        for axes, page in zip(row, read_pages(folder / "test" / name), strict=False):
            axes.imshow(page[: SIZE[1] // 2], cmap="gray", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[])
        row[0].set_ylabel(name)
    with common.new_file(folder / "dirty_documents.png") as unfinished:
        figure.savefig(unfinished, dpi=110)


def main(options):
    if not TESSERACT:
        print("Tesseract with English is not installed, so that no text is read;", end=" ")
        print("Debian has it as tesseract-ocr")
    folder = options.output
    training_words, test_words = word_lists()
    fonts = [MATPLOTLIB_FONTS / f"{name}.ttf" for name in TRAINING_FONTS]
    for name in LIBERATION_FONTS:
        fonts += LIBERATION.glob(f"{name}-Regular.ttf")  # none, where it is not installed
    test_fonts = [MATPLOTLIB_FONTS / f"{name}.ttf" for name in TEST_FONTS]
    train, test = folder / "train" / "clean", folder / "test" / "clean"
    texts = {
        "train": write_pages(train, options.pages, training_words, fonts, 0),
        "test": write_pages(test, options.test_pages, test_words, test_fonts, 1),
    }
    train_and_clean(folder, options)
    rows = measure_all(folder, texts)
    print_rows(rows)
    by_font = {}
    if TESSERACT:
        by_font = error_rates_by_font(folder, texts["test"])
        for font, rates in by_font.items():
            print(f"{font}: {rates['dirty']:.1%} dirty, {rates['cleaned']:.1%} cleaned")
    results = {"methods": rows, "fonts": by_font, "tesseract": TESSERACT}
    with common.new_file(folder / "results.json") as unfinished:
        unfinished.write_text(json.dumps(results, indent=2) + "\n")
    draw_pages(folder)


if __name__ == "__main__":
    main(options)
