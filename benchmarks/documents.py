"""Measures how well the denoiser cleans synthetic degraded documents, alongside classical methods.

    python benchmarks/run.py documents     # six to seven minutes; needs Tesseract

`measure_all` takes the folder that `examples/clean_documents.py train` wrote: PSNR, SSIM, and the
character error rate (CER) of what Tesseract reads on the test pages.
"""

import io
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from run import HERE
from scipy import ndimage
from skimage import filters, metrics, restoration

sys.path.append(str(HERE.parent / "examples"))
from clean_documents import DPI, SIZE, TEST_FONTS

WORKERS = min(4, os.cpu_count() or 1)  # pages that Tesseract reads at the same time


def read_pages(folder):
    """Return the pages of a folder as floats in [0, 1]."""
    return [np.asarray(Image.open(path), np.float32) / 255 for path in sorted(folder.glob("*.png"))]


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
    """Return the version of Tesseract."""
    process = subprocess.run(["tesseract", "--version"], capture_output=True, text=True)
    return process.stdout.split()[1]


def edit_distance(found, text):
    """Return the minimum number of characters to insert, delete or replace (Levenshtein 1966)."""
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
    """Return how many characters of each page are wrong."""
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
    characters = sum(len(" ".join(text.split())) for text in texts)
    rate = sum(error_counts(pages, texts)) / characters
    return {"psnr": float(np.mean(psnr)), "ssim": float(np.mean(ssim)), "error rate": rate}


def best_setting(denoise, settings, clean, noisy, texts):
    """Return the setting with the minimum character error rate on some pages."""
    tried = {}
    for setting in settings:
        found = measure([denoise(page, setting) for page in noisy], clean, texts)
        tried[setting] = found["error rate"]
    return min(tried, key=tried.get)


def texts_of(folder):
    """Return the texts of the pages in a folder."""
    return json.loads((folder / "texts.json").read_text())


def measure_all(folder):
    """Return {method: metrics} on the test pages."""
    texts = {part: texts_of(folder / part) for part in ("train", "test")}
    names = ("clean", "degraded", "cleaned")
    training = [read_pages(folder / "train" / name)[:CHOICE_PAGES] for name in names[:2]]
    clean, noisy, cleaned = (read_pages(folder / "test" / name) for name in names)
    rows = {"degraded pages": measure(noisy, clean, texts["test"])}
    for name, (denoise, settings) in CLASSICAL.items():
        setting = best_setting(denoise, settings, *training, texts["train"][:CHOICE_PAGES])
        pages = [denoise(page, setting) for page in noisy]
        rows[f"{name} {setting}"] = measure(pages, clean, texts["test"])
    rows["StackedDenoisingAutoEncoder.py"] = measure(cleaned, clean, texts["test"])
    rows["clean pages"] = measure(clean, clean, texts["test"])
    return rows


def error_rates_by_font(folder):
    """Return {font: character error rates of degraded and of cleaned test pages}."""
    texts = texts_of(folder / "test")
    by_font = {}
    for name in ("degraded", "cleaned"):
        pages = read_pages(folder / "test" / name)
        counts = error_counts(pages, texts)
        for number, font in enumerate(TEST_FONTS):
            mine = slice(number, None, len(TEST_FONTS))
            characters = sum(len(" ".join(text.split())) for text in texts[mine])
            if characters:
                by_font.setdefault(font, {})[name] = sum(counts[mine]) / characters
    return by_font


def draw_pages(folder):
    """Draw the upper halves of some degraded test pages, with the cleaned ones below."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    plots = figure.subplots(2, PICTURE_PAGES, squeeze=False)
    for row, name in zip(plots, ("degraded", "cleaned"), strict=True):
        for axes, page in zip(row, read_pages(folder / "test" / name), strict=False):
            axes.imshow(page[: SIZE[1] // 2], cmap="gray", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[])
        row[0].set_ylabel(name)
    figure.savefig(HERE.parent / "images/dirty_documents.png", dpi=110)
