"""Pages of text that are made dirty, and the example that trains the denoiser to clean them."""

import json
import os
import shutil

import numpy as np
import pytest
from conftest import refused
from PIL import Image
from running_examples import example, module, worked


@pytest.fixture(scope="module")
def documents():
    return module("dirty_documents")


@pytest.fixture(scope="module")
def clean_pages(documents, tmp_path_factory):
    """A folder of three clean pages, of different sizes."""
    folder = tmp_path_factory.mktemp("pages") / "clean"
    folder.mkdir()
    words, _ = documents.word_lists()
    font = documents.MATPLOTLIB_FONTS / "DejaVuSans.ttf"
    for number in range(3):
        page, _ = documents.set_page(words, font, np.random.default_rng(number))
        Image.fromarray(page[: 600 - 100 * number]).save(folder / f"{number}.png")
    return folder


def test_pages_become_dirty_and_ink_stays_darker(clean_pages):
    folder = clean_pages.parent
    worked("dirty_pages", "clean", "--output", "dirty", cwd=folder)
    worked("dirty_pages", "clean", "--output", "again", cwd=folder)
    worked("dirty_pages", "clean", "--output", "other", "--seed", 1, cwd=folder)
    for number in range(3):
        name = f"{number}.png"
        clean, dirty, again, other = (
            np.asarray(Image.open(folder / part / name), float)
            for part in ("clean", "dirty", "again", "other")
        )
        assert clean.shape == dirty.shape
        assert (dirty == again).all() and (dirty != other).mean() > 0.9
        assert dirty.mean() < clean.mean() - 10
        paper, ink = dirty[clean > 250].mean(), dirty[clean < 50].mean()
        assert ink < paper - 20
    refused(example("dirty_pages", "clean", "--output", "dirty", cwd=folder), "--force overwrites")
    (folder / "empty").mkdir(exist_ok=True)
    refused(example("dirty_pages", "empty", "--output", "no", cwd=folder), "found none in it")
    shutil.copytree(folder / "clean", folder / "twice")
    shutil.copy(folder / "twice" / "0.png", folder / "twice" / "0.bmp")
    refused(example("dirty_pages", "twice", "--output", "no", cwd=folder), "two pages would be")
    assert not (folder / "no").exists()


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    process = example("dirty_documents", "--output", "file/x", cwd=tmp_path)
    refused(process, "cannot be written")


def test_text_on_the_back_shines_through_mirrored():
    pages = module("dirty_pages")
    back = np.ones((40, 60), np.float32)
    back[10:20, 5:15] = 0
    seen = pages.show_through(np.ones((40, 60), np.float32), back, np.random.default_rng(0))
    dark = seen < (seen.min() + 1) / 2
    rows, columns = np.nonzero(dark)
    assert (rows.min(), rows.max()) == (10, 19) and (columns.min(), columns.max()) == (45, 54)
    small = np.zeros((3, 5), np.uint8)
    assert pages.fitted(small, (4, 2)).tolist() == [[0, 0]] * 3 + [[255, 255]]


def test_training_and_test_pages_share_no_word_and_no_font(documents):
    training, test = documents.word_lists()
    assert len(training) > 1000 and len(test) > 300 and not set(training) & set(test)
    assert not set(documents.TRAINING_FONTS) & set(documents.TEST_FONTS)
    for name in documents.TRAINING_FONTS + documents.TEST_FONTS:
        assert (documents.MATPLOTLIB_FONTS / f"{name}.ttf").is_file()


@pytest.mark.parametrize(
    ("found", "text", "distance"),
    [
        ("", "", 0),
        ("", "abc", 3),
        ("abc", "", 3),
        ("kitten", "sitting", 3),
        ("flaw", "lawn", 2),
        ("axyzb", "ab", 3),
    ],
)
def test_edit_distance(documents, found, text, distance):
    assert documents.edit_distance(found, text) == distance


@pytest.mark.skipif(not shutil.which("tesseract"), reason="Tesseract is not installed")
def test_a_clean_page_is_read_almost_without_errors(documents):
    words, _ = documents.word_lists()
    font = documents.MATPLOTLIB_FONTS / "DejaVuSans.ttf"
    page, text = documents.set_page(words, font, np.random.default_rng(0))
    (errors,) = documents.error_counts([np.float32(page) / 255], [text])
    assert len(text) > 300 and errors < 0.02 * len(text)


def test_the_classical_methods_remove_paper(documents):
    """Each finds text in grey on uneven paper, or at least keeps what is dark and what is light."""
    words, _ = documents.word_lists()
    font = documents.MATPLOTLIB_FONTS / "DejaVuSans-Bold.ttf"
    page, _ = documents.set_page(words, font, np.random.default_rng(0))
    clean = np.float32(page) / 255
    paper = np.linspace(0.6, 0.8, clean.shape[1], dtype=np.float32)
    noisy = paper * (0.3 + 0.7 * clean)

    def psnr(page):
        return -10 * np.log10(np.mean((page - clean) ** 2))

    before = psnr(noisy)
    for name, (denoise, settings) in documents.CLASSICAL.items():
        after = psnr(denoise(noisy, settings[0]))
        removes = "threshold" in name or "background" in name
        assert after > before + (3 if removes else -2), name


@pytest.mark.parametrize("reads_text", [True, False])
def test_from_pages_to_results_in_one_command(reads_text, tmp_path):
    """With Tesseract, if it is here, and without: a PATH on which it is not found."""
    if reads_text and not shutil.which("tesseract"):
        pytest.skip("Tesseract is not installed")
    words = ["--output", "out", "--pages", 10, "--test-pages", 2, "--crops", 100, "--epochs", 1]
    path = os.environ["PATH"] if reads_text else str(tmp_path)
    process = example("dirty_documents", *words, cwd=tmp_path, PATH=path)
    assert process.returncode == 0 and process.stderr == "", process.stderr
    printed = process.stdout
    assert ("Tesseract with English is not installed" in printed) != reads_text
    assert "$ python StackedDenoisingAutoEncoder.py --data out/crops.npz" in printed
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    rows = results["methods"]
    assert all(("error rate" in row) == reads_text for row in rows.values())
    assert len(results["fonts"]) == (2 if reads_text else 0)
    assert bool(results["tesseract"]) == reads_text
    assert rows["clean pages"]["psnr"] == pytest.approx(100)
    assert rows["dirty pages"]["psnr"] < 20
    assert rows["StackedDenoisingAutoEncoder.py"]["psnr"] != rows["dirty pages"]["psnr"]
    assert sum(line.startswith("| ") for line in printed.splitlines()) >= 10
    assert len(list((tmp_path / "out" / "test" / "cleaned").glob("*.png"))) == 2
    with Image.open(tmp_path / "out" / "dirty_documents.png") as picture:
        assert picture.size == (1210, 462)
    process = example("dirty_documents", "--output", "out", cwd=tmp_path)
    refused(process, "--output must be a new folder, found out")
