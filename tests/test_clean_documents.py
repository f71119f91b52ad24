"""Pages of text that are degraded, the example that trains on them, and how they are measured."""

import json
import shutil
import sys

import numpy as np
import pytest
from conftest import ROOT, refused
from PIL import Image
from running_examples import example, module, worked

sys.path.append(str(ROOT / "benchmarks"))


@pytest.fixture(scope="module")
def pages():
    return module("clean_documents")


@pytest.fixture(scope="module")
def documents(pages):
    import documents

    return documents


def page_of(pages, font="DejaVuSans"):
    """Return a page of training words, uint8, and its text."""
    words, _ = pages.word_lists()
    return pages.set_page(words, pages.FONTS / f"{font}.ttf", np.random.default_rng(0))


def test_degraded_pages(pages, tmp_path):
    """Of the same names and sizes, the same for a seed, and with ink that stays darker."""
    page, _ = page_of(pages)
    for number in range(3):
        pages.write(tmp_path / "clean" / "sub" / f"{number}.png", page[: 600 - 100 * number])
    for words in ("degraded", "again", "other --seed 1"):
        worked("clean_documents", "degrade", "clean", "--output", *words.split(), cwd=tmp_path)
    for number in range(3):
        copies = []
        for folder in ("clean", "degraded", "again", "other"):
            copies.append(
                np.asarray(Image.open(tmp_path / folder / "sub" / f"{number}.png"), float)
            )
        clean, degraded, again, other = copies
        assert (degraded == again).all() and (degraded != other).mean() > 0.9
        assert degraded.mean() < clean.mean() - 10
        assert degraded[clean < 50].mean() < degraded[clean > 250].mean() - 20
    words = ["clean_documents", "degrade", "clean", "--output", "degraded"]
    refused(example(*words, cwd=tmp_path), "sub/0.png exists; --force overwrites it")
    shutil.copy(tmp_path / "clean/sub/0.png", tmp_path / "clean/sub/0.bmp")
    words = ["clean_documents", "degrade", "clean", "--output", "none"]
    refused(example(*words, cwd=tmp_path), "names must differ")
    assert not (tmp_path / "none").exists()


def test_text_on_the_back_shines_through_mirrored(pages):
    back = np.ones((40, 60), np.float32)
    back[10:20, 5:15] = 0
    seen = pages.show_through(np.ones((40, 60), np.float32), back, np.random.default_rng(0))
    rows, columns = np.nonzero(seen < (seen.min() + 1) / 2)
    assert (rows.min(), rows.max()) == (10, 19) and (columns.min(), columns.max()) == (45, 54)


def test_training_and_test_pages_share_no_word_and_no_font(pages):
    training, test = pages.word_lists()
    assert len(training) > 1000 and len(test) > 300 and not set(training) & set(test)
    assert not set(pages.TRAINING_FONTS) & set(pages.TEST_FONTS)
    for name in pages.TRAINING_FONTS + pages.TEST_FONTS:
        assert (pages.FONTS / f"{name}.ttf").is_file()


@pytest.mark.parametrize(
    "found, text, distance",
    [("", "abc", 3), ("abc", "", 3), ("kitten", "sitting", 3), ("axyzb", "ab", 3)],
)
def test_edit_distance(documents, found, text, distance):
    assert documents.edit_distance(found, text) == distance


def test_sauvolas_threshold_removes_paper(pages, documents):
    """It finds text in gray on uneven paper."""
    page, _ = page_of(pages, "DejaVuSans-Bold")
    clean = np.float32(page) / 255
    paper = np.linspace(0.6, 0.8, clean.shape[1], dtype=np.float32)
    noisy = paper * (0.3 + 0.7 * clean)
    before, after = (np.mean((each - clean) ** 2) for each in (noisy, documents.sauvola(noisy, 25)))
    assert after < before / 2


def test_from_pages_to_results(documents, tmp_path, monkeypatch):
    """The example trains and cleans; the benchmark measures what it wrote."""
    monkeypatch.setattr(documents, "CHOICE_PAGES", 1)
    words = ["--output", "out", "--pages", 4, "--test-pages", 2, "--crops", 100, "--epochs", 1]
    process = example("clean_documents", "train", *words, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert "$ python StackedDenoisingAutoEncoder.py --data out/crops.npz" in process.stdout
    out = tmp_path / "out"
    assert len(list((out / "test" / "cleaned").glob("*.png"))) == 2
    refused(example("clean_documents", "train", *words, cwd=tmp_path), "must be a new folder")
    if not shutil.which("tesseract"):
        pytest.skip("Tesseract is not installed")
    quality = {"clean": documents.quality(documents.read_pages(out / "test/clean"), out / "test")}
    quality["degraded"] = documents.quality(
        documents.read_pages(out / "test/degraded"), out / "test"
    )
    quality["cleaned"] = documents.quality(documents.cleaned_by_ours(out, 0), out / "test")
    assert quality["clean"]["psnr"] == pytest.approx(100)
    assert quality["clean"]["cer"] < 0.02  # so Tesseract reads the right texts
    assert quality["degraded"]["psnr"] < 20
    assert quality["cleaned"]["psnr"] != quality["degraded"]["psnr"]
    assert len(quality["clean"]) == 3 + 2  # two fonts
    by_sauvola = documents.cleaned_by_sauvola(out)
    assert len(by_sauvola) == 2 and set(np.unique(by_sauvola)) == {0, 1}
    assert len(json.loads((out / "train" / "texts.json").read_text())) == 4
    documents.draw_pages(out / "test", tmp_path / "dirty_documents.png")
    with Image.open(tmp_path / "dirty_documents.png") as picture:
        assert picture.size == (1210, 462)
