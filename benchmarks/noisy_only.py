"""Measures the denoiser trained on noisy images alone, compared with clean ones.

    python benchmarks/run.py noisy-only

The images are crops of six photographs, in grayscale and in RGB; the test is scikit-image's cat.
All have noise of 0.1, clipped and rounded to 8 bits. Seed 0 writes images/noisy_only.png.
"""

import numpy as np
import results
from photograph import NOISE, TESTED, TUNED, photographs, psnr
from PIL import Image
from results import DENOISER, ROOT
from training import WORK, command, load, relative, train, work_folder

MODES = {"grayscale": "L", "RGB": "RGB"}
CROPS = ["--crop", 32, "--count", 16_000]
COMMON = ["--epochs", "16", "--batch-size", "32", "--learning-rate", "0.001"]
TRAININGS = {
    "noisy images": ["--corruption", "blind-spot"],
    "clean images": ["--noise", str(NOISE)],
}


def noisy_pixels(picture, seed):
    """Return a picture, uint8, with noise, as uint8."""
    noise = NOISE * np.random.default_rng(seed).normal(size=picture.shape)
    return np.uint8(np.rint(255 * np.clip(picture / 255 + noise, 0, 1)))


def crops_of(kind, training):
    """Return the path of a file of crops of photographs, noisy or clean, without the cat."""
    folder = WORK / f"noisy-only-{kind}-{training.split()[0]}"
    crops = folder.with_suffix(".npz")
    if crops.exists():
        return crops
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, picture) in enumerate(photographs().items()):
        if name in (TESTED, TUNED):
            continue
        pixels = np.asarray(Image.fromarray(picture).convert(MODES[kind]))
        if training == "noisy images":
            pixels = noisy_pixels(pixels, seed + 1)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    command("examples/prepare_data.py", folder, "--output", crops, *CROPS)
    return crops


def measure(kind, training, seed):
    """Return the PSNR on the cat, before and after, by the commands of a user."""
    data = ["--data", relative(crops_of(kind, training))]
    model, _ = train(DENOISER, seed, [*data, *TRAININGS[training], *COMMON])
    folder = work_folder(DENOISER, "noisy-only", kind, training, seed)
    folder.mkdir(parents=True, exist_ok=True)
    clean = np.asarray(Image.fromarray(photographs()[TESTED]).convert(MODES[kind]))
    noisy = noisy_pixels(clean, 0)
    Image.fromarray(noisy).save(folder / "cat.png")
    words = ["--output", folder / "denoised", "--model-dir", model, "--force"]
    command("examples/denoise_pictures.py", folder / "cat.png", *words)
    denoised = np.asarray(Image.open(folder / "denoised/cat.png"))
    if (kind, training, seed) == ("grayscale", "noisy images", 0):
        draw(noisy, denoised, clean)
    return {"psnr": psnr(clean, denoised / 255), "noisy_psnr": psnr(clean, noisy / 255)}


def draw(*images):
    """Draw the face of the cat: noisy, denoised and clean."""
    script = load(DENOISER)
    tiles = np.stack([image[20:180, 70:310, np.newaxis] for image in images])[np.newaxis] / 255
    title = f"noise of {NOISE}; denoised by a model that was trained on noisy images alone; clean"
    path = ROOT / "images/noisy_only.png"
    with script.matplotlib.style.context(script.STYLE):
        figure = script.Figure(figsize=(10, 2.6), layout="constrained")
        figure.suptitle(title, fontsize=11)
        axes = figure.add_subplot(frame_on=False)
        axes.imshow(np.concatenate(tiles[0], axis=1), cmap="gray", vmin=0, vmax=1)
        axes.set(xticks=[], yticks=[])
        figure.savefig(path)


def measure_all(seed):
    for kind in MODES:
        for training in TRAININGS:
            key = {"part": "noisy-only", "program": DENOISER, "seed": seed}
            key["case"] = f"{kind}, {training}"

            def measured(kind=kind, training=training):
                return measure(kind, training, seed)

            results.once(DENOISER, measured, **key)
