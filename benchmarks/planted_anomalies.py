"""Measures how many planted anomalies find_anomalies.py finds, among digits and in a texture.

    python benchmarks/planted_anomalies.py       # five minutes

Makes folders of ordinary and of new pictures, with anomalies among the new ones, and runs the
commands of docs/anomaly-detection.md. The digits are those of scikit-learn, 8 x 8 pixels enlarged
to 28 x 28; the texture is scikit-image's photograph of grass, in crops of 32 x 32 pixels.
"""

import csv
import shutil
import subprocess
import sys

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from run import HERE, WORK
from scipy import ndimage
from skimage import data
from sklearn.datasets import load_digits

LATENT_DIM = {"digits": 10, "grass": 16}
EPOCHS = {"digits": 40, "grass": 20}


def digit_pictures(draw):
    """Return ordinary digits, new digits, and {name: anomaly}."""
    digits = np.uint8(np.rint(load_digits().images * 255 / 16))
    pictures = [np.asarray(Image.fromarray(each).resize((28, 28))) for each in digits]
    pictures = draw.permutation(pictures)
    anomalies = {f"blank-{n}": np.zeros((28, 28), np.uint8) for n in range(3)}
    anomalies["white"] = np.full((28, 28), 255, np.uint8)
    anomalies["gray"] = np.full((28, 28), 128, np.uint8)
    for n in range(5):
        anomalies[f"inverted-{n}"] = 255 - pictures[n]
    font = ImageFont.truetype("DejaVuSans-Bold.ttf", 24)
    for letter in "AKMWX":
        picture = Image.new("L", (28, 28), 0)
        ImageDraw.Draw(picture).text((14, 14), letter, font=font, fill=255, anchor="mm")
        anomalies[f"letter-{letter}"] = np.asarray(picture)
    for n in range(3):
        anomalies[f"noise-{n}"] = draw.integers(0, 256, (28, 28), dtype=np.uint8)
    for n in range(2):
        grainy = pictures[10 + n] + draw.normal(0, 60, (28, 28))
        anomalies[f"grainy-{n}"] = np.uint8(np.clip(grainy, 0, 255))
    return pictures[:-200], pictures[-200:], anomalies


def grass_pictures(draw):
    """Return ordinary crops of grass, new ones from another place, and {name: anomaly}."""

    def crops(photograph, count):
        found = []
        for _ in range(count):
            top, left = draw.integers(0, np.array(photograph.shape) - 32)
            found.append(photograph[top : top + 32, left : left + 32].copy())
        return found

    top, bottom = np.split(data.grass(), [400])
    ordinary, new, changed = crops(top, 2000), crops(bottom, 200), crops(bottom, 12)
    anomalies = {}
    for n in range(4):
        anomalies[f"gravel-{n}"] = crops(data.gravel(), 1)[0]
        anomalies[f"brick-{n}"] = crops(data.brick(), 1)[0]
        blurred = ndimage.gaussian_filter(changed[n].astype(float), 2)
        anomalies[f"blurred-{n}"] = np.uint8(blurred)
        scratch = changed[4 + n]
        scratch[14:17, 4:28] = 255
        anomalies[f"scratch-{n}"] = scratch
        hole = changed[8 + n]
        y, x = np.ogrid[:32, :32]
        hole[(y - 16) ** 2 + (x - 16) ** 2 < 25] = 20
        anomalies[f"hole-{n}"] = hole
    return ordinary, new, anomalies


def write(folder, pictures):
    """Write {name: picture} to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        Image.fromarray(picture).save(folder / f"{name}.png")


def run(script, *words):
    """Run a script of this project."""
    subprocess.run([sys.executable, HERE.parent / script, *map(str, words)], check=True)


def measure(name, pictures):
    """Write the pictures of a data set, run the commands, and print what was found."""
    ordinary, new, anomalies = pictures
    folder = WORK / "planted" / name
    write(folder / "ordinary", {f"{name}-{n:04}": each for n, each in enumerate(ordinary)})
    write(folder / "new", {f"{name}-{n:04}": each for n, each in enumerate(new)})
    write(folder / "new", {f"anomaly-{key}": each for key, each in anomalies.items()})
    file, model = folder / "ordinary.npz", folder / "model"
    run("examples/prepare_data.py", folder / "ordinary", "--output", file, "--force")
    words = ["--latent-dim", LATENT_DIM[name], "--epochs", EPOCHS[name], "--batch-size", 32]
    run("VariationalAutoEncoder_tf2.py", "--data", file, *words, "--model-dir", model)
    places = ["--output", folder, "--model-dir", model, "--force"]
    run("examples/find_anomalies.py", folder / "new", *places)
    with (folder / "anomalies.csv").open(encoding="utf-8-sig") as table:
        rows = list(csv.DictReader(table))
    flagged = [row["name"] for row in rows if row["anomaly"] == "True"]
    found = [each for each in flagged if each.startswith("anomaly-")]
    missed = sorted({f"anomaly-{key}.png" for key in anomalies} - set(found))
    first = sum(row["name"].startswith("anomaly-") for row in rows[:20])
    print(f"{name}: {len(found)} of {len(anomalies)} anomalies found, {first} among the first 20;")
    print(
        f"{len(flagged) - len(found)} of {len(new)} others flagged; missed: {', '.join(missed)}\n"
    )
    shutil.copy(folder / "anomalies.png", HERE.parent / f"images/anomalies_{name}.png")


if __name__ == "__main__":
    measure("digits", digit_pictures(np.random.default_rng(0)))
    measure("grass", grass_pictures(np.random.default_rng(0)))
