"""Trains the two models of pretrained/ again, and measures the one for photographs.

    python benchmarks/pretrained.py documents      # 7 minutes on two cores
    python benchmarks/pretrained.py photographs    # 10 minutes

Each takes the commands of a user. The weights depend on the number of threads.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

ROOT = Path(__file__).resolve().parent.parent
KEPT = (  # of metrics.json: without the folders of this machine
    "channels", "pixel_mean", "pixel_range", "corruption", "noise", "parameters", "version",
    "epochs", "batch_size", "learning_rate", "seed", "psnr", "ssim", "noisy_psnr", "train_seconds",
)  # fmt: skip
PHOTOGRAPHS = (  # of scikit-image, in the public domain or under CC0
    "astronaut", "brick", "camera", "coffee", "grass", "gravel", "hubble_deep_field", "retina",
    "rocket",
)  # fmt: skip
LEVELS = (0.02, 0.3)
TEST_LEVELS = (0.05, 0.1, 0.2, 0.3)


def run(script, *words):
    """Run a script of this project as a command, or end with its status."""
    process = subprocess.run([sys.executable, ROOT / script, *map(str, words)])
    if process.returncode:
        sys.exit(process.returncode)


def keep(folder, name):
    """Copy a trained model to pretrained/, with what is needed of its metrics."""
    target = ROOT / "pretrained" / name
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / "model.keras", target)
    metrics = json.loads((folder / "metrics.json").read_text())
    kept = {key: metrics[key] for key in KEPT if key in metrics}
    (target / "metrics.json").write_text(json.dumps(kept, indent=2) + "\n")


def documents(folder):
    """Train on synthetic degraded pages."""
    run("examples/clean_documents.py", "train", "--output", folder / "documents")
    keep(folder / "documents/model", "documents")


def photographs(folder):
    """Train on grayscale crops of photographs with noise of all levels; measure on the cat."""
    pictures = folder / "pictures"
    pictures.mkdir()
    for name in PHOTOGRAPHS:
        Image.fromarray(getattr(data, name)()).save(pictures / f"{name}.png")
    crops = ["--output", folder / "crops.npz", "--crop", 32, "--count", 40000, "--gray"]
    run("examples/prepare_data.py", pictures, *crops)
    words = ["--data", folder / "crops.npz", "--noise", *LEVELS, "--epochs", 12]
    words += ["--batch-size", 32, "--learning-rate", 0.001]  # with little noise, small steps
    run("StackedDenoisingAutoEncoder.py", *words, "--model-dir", folder / "model")
    keep(folder / "model", "photographs")
    cat = data.chelsea()
    gray_cat = np.asarray(Image.fromarray(cat).convert("L"))
    for kind, clean in (("grayscale", gray_cat), ("RGB", cat)):
        for level in TEST_LEVELS:
            before, after = measure(folder, clean, level)
            print(f"cat, {kind}, noise {level}: {before:.2f} dB before, {after:.2f} dB after")


def measure(folder, clean, level):
    """Return the PSNR in dB of a noisy copy of a picture, uint8, before and after denoising."""
    noise = level * np.random.default_rng(0).normal(size=clean.shape)
    noisy = np.uint8(np.rint(255 * np.clip(clean / 255 + noise, 0, 1)))
    Image.fromarray(noisy).save(folder / "noisy.png")
    words = [folder / "noisy.png", "--output", folder / "denoised", "--force"]
    run("examples/denoise_pictures.py", *words, "--model", "photographs")
    denoised = np.asarray(Image.open(folder / "denoised/noisy.png"))
    errors = (np.float64(image) / 255 - clean / 255 for image in (noisy, denoised))
    return [float(-10 * np.log10(np.mean(error**2))) for error in errors]


if __name__ == "__main__":
    parts = {"documents": documents, "photographs": photographs}
    if len(sys.argv) != 2 or sys.argv[1] not in parts:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as temporary:
        parts[sys.argv[1]](Path(temporary))
