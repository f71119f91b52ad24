"""Measures how well the denoiser cleans synthetic degraded documents.

    python benchmarks/run.py documents     # needs Tesseract: Debian's package tesseract-ocr

The pages are those of examples/clean_documents.py, which trains the denoiser with seed 0. CER is
the character error rate of what Tesseract reads on the test pages.
"""

import io
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import results
from matplotlib.figure import Figure
from PIL import Image
from results import DENOISER, ROOT
from skimage import filters, metrics
from training import SMOKE, command, relative, train, work_folder

sys.path.append(str(ROOT / "examples"))
from clean_documents import DPI, SIZE, TEST_FONTS

CHOICE_PAGES = 4  # training pages by which the window of Sauvola's threshold is chosen
WINDOWS = (15, 25, 41)  # pixels
FEW = ["--pages", 4, "--test-pages", 2, "--crops", 100, "--epochs", 1]


def read_pages(folder):
    """Return the pages of a folder as floats in [0, 1]."""
    return [np.asarray(Image.open(path), np.float32) / 255 for path in sorted(folder.glob("*.png"))]


def read_texts(folder):
    return json.loads((folder / "texts.json").read_text())


def sauvola(page, window):
    """Return a page of black and white by a threshold for each pixel (Sauvola 2000)."""
    return np.float32(page > filters.threshold_sauvola(page, window))


def cleaned_by_sauvola(folder):
    """Return the test pages; the window has the minimum CER on some training pages."""
    degraded = read_pages(folder / "train/degraded")[:CHOICE_PAGES]
    texts = read_texts(folder / "train")[:CHOICE_PAGES]
    rates = []
    for window in WINDOWS:
        pages = [sauvola(page, window) for page in degraded]
        rates.append(error_rate(map(errors, pages, texts)))
    window = WINDOWS[int(np.argmin(rates))]
    return [sauvola(page, window) for page in read_pages(folder / "test/degraded")]


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
    file = io.BytesIO()
    Image.fromarray(np.uint8(np.rint(255 * page))).save(file, "PNG")
    words = ["tesseract", "-", "-", "--psm", "6", "--dpi", str(DPI)]  # one block of text
    one_thread = os.environ | {"OMP_THREAD_LIMIT": "1"}  # it is slower with more
    settings = {"env": one_thread, "capture_output": True, "check": True}
    done = subprocess.run(words, input=file.getvalue(), **settings)
    return " ".join(done.stdout.decode().split())


def errors(page, text):
    """Return how many characters of a page Tesseract reads wrongly, and how many there are."""
    wanted = " ".join(text.split())
    return edit_distance(read_text(page), wanted), len(wanted)


def error_rate(counts):
    """Return the share of wrong characters, from the errors of some pages."""
    wrong, characters = np.sum([*counts], axis=0)
    return float(wrong / characters)


def quality(pages, folder):
    """Return the mean PSNR (dB), SSIM and CER of test pages, and the CER of each font."""
    texts = read_texts(folder)
    pairs = [*zip(read_pages(folder / "clean"), pages, strict=True)]
    mse = [np.mean((page - clean) ** 2) for clean, page in pairs]
    ssim = [metrics.structural_similarity(*pair, data_range=1) for pair in pairs]
    found = {"psnr": float(np.mean(-10 * np.log10(np.maximum(mse, 1e-10))))}  # at most 100 dB
    counts = [*map(errors, pages, texts)]
    found |= {"ssim": float(np.mean(ssim)), "cer": error_rate(counts)}
    for number, font in enumerate(TEST_FONTS[: len(pages)]):  # each page has the next font
        found[font] = error_rate(counts[number :: len(TEST_FONTS)])
    return found


def made_pages():
    """Return the folder of the example, which makes pages, trains on them and cleans others."""
    folder = work_folder(DENOISER, "documents")
    if not (folder / "test/cleaned").exists():
        shutil.rmtree(folder, ignore_errors=True)  # of a command that was stopped
        few = FEW if SMOKE else []
        command("examples/clean_documents.py", "train", "--output", folder, *few)
    return folder


def cleaned_by_ours(folder, seed):
    """Return test pages as the denoiser cleans them that was trained with a seed."""
    cleaned = folder / f"cleaned-{seed}" if seed else folder / "test/cleaned"
    if not cleaned.exists():
        words = ["--data", relative(folder / "crops.npz"), "--epochs", "16"]
        model, _ = train(DENOISER, seed, words)
        places = ["--output", cleaned, "--model-dir", model]
        command("examples/denoise_pictures.py", folder / "test/degraded", *places)
    return read_pages(cleaned)


def draw_pages(folder, path):
    """Draw the upper halves of two degraded test pages, with the cleaned ones below."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    for row, name in zip(figure.subplots(2, 2), ("degraded", "cleaned"), strict=True):
        for axes, page in zip(row, read_pages(folder / name), strict=False):
            axes.imshow(page[: SIZE[1] // 2], cmap="gray", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[])
        row[0].set_ylabel(name)
    figure.savefig(path, dpi=110)


def measure_all(seed):
    folder = made_pages()
    find_pages = {DENOISER: lambda: cleaned_by_ours(folder, seed)}
    if seed == 0:
        find_pages["degraded pages"] = lambda: read_pages(folder / "test/degraded")
        find_pages["Sauvola's threshold"] = lambda: cleaned_by_sauvola(folder)
    for program, find in find_pages.items():
        key = {"part": "documents", "program": program, "seed": seed}
        results.once(DENOISER, lambda f=find: quality(f(), folder / "test"), **key)
    if seed == 0 and not SMOKE:
        draw_pages(folder / "test", ROOT / "images/dirty_documents.png")
