"""The trained models of the repository: they open, they denoise, and their cards are complete."""

import json

import numpy as np
import pytest
import skimage
from conftest import ROOT
from PIL import Image
from running_examples import module, worked

FOLDER = ROOT / "pretrained"
NAMES = ("documents", "photographs")


def psnr(clean, image):
    return -10 * np.log10(np.mean((np.float64(clean) - image) ** 2) / 255**2)


@pytest.mark.quick
def test_sizes_and_cards():
    assert sorted(path.name for path in FOLDER.iterdir() if path.is_dir()) == list(NAMES)
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 2e6
    text = (FOLDER / "README.md").read_text()
    for name in NAMES:
        (card,) = (part for part in text.split("\n## ") if part.startswith(f"`{name}`"))
        for field in ("Training data", "Licence", "Command", "Commit", "Figures", "Limits"):
            assert f"- **{field}.** " in card, (name, field)
        metrics = json.loads((FOLDER / name / "metrics.json").read_text())
        assert f"{metrics['psnr']:.2f} dB" in card
        assert not any(str(value).startswith("/") for value in metrics.values())


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("level", [0.05, 0.2])
def test_a_photograph(mode, level, tmp_path):
    """One that the model was not trained on."""
    clean = np.asarray(Image.fromarray(skimage.data.chelsea()[:160, :240]).convert(mode))
    noise = 255 * level * np.random.default_rng(0).normal(size=clean.shape)
    noisy = np.uint8(np.rint(np.clip(clean + noise, 0, 255)))
    Image.fromarray(noisy).save(tmp_path / "cat.png")
    words = ["cat.png", "--model", "photographs", "--output", "out"]
    text = worked("denoise_pictures", *words, cwd=tmp_path)
    assert ("differs from what the model was trained on: RGB picture" in text) == (mode == "RGB")
    assert "noise" not in text
    denoised = Image.open(tmp_path / "out/cat.png")
    assert denoised.mode == mode
    gain = {0.05: 4, 0.2: 8}[level]
    assert psnr(clean, np.asarray(denoised)) > psnr(clean, noisy) + gain


def test_a_degraded_page(tmp_path):
    pages = module("clean_documents")
    draw = np.random.default_rng(5)
    _, words = pages.word_lists()
    clean, _ = pages.set_page(words, pages.FONTS / "STIXGeneral.ttf", draw)
    back = np.ones(clean.shape, np.float32)
    degraded = pages.degrade(np.float32(clean) / 255, back, draw)
    Image.fromarray(degraded).save(tmp_path / "page.png")
    words = ["page.png", "--model", "documents", "--output", "out"]
    assert "differs" not in worked("denoise_pictures", *words, cwd=tmp_path)
    cleaned = np.asarray(Image.open(tmp_path / "out/page.png"))
    assert psnr(clean, cleaned) > psnr(clean, degraded) + 8
