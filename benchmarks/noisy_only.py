"""Measures the denoiser trained on noisy images alone, compared with clean ones.

    python benchmarks/run.py noisy-only

Photographs: trained on crops of six, tested on scikit-image's cat, in grayscale and in RGB, with
Gaussian noise of 0.1, Poisson noise, and noise that was blurred. Digits: 10,000, with noise of 0.1
and of 0.5. All are clipped and rounded to 8 bits. Seed 0 writes images/noisy_only.png.
"""

import itertools

import numpy as np
import results
from photograph import CLASSICAL, NOISE, TESTED, TUNED, of_classical, photographs, psnr
from PIL import Image
from results import DENOISER, ROOT
from scipy.ndimage import gaussian_filter
from training import (
    SMOKE,
    WORK,
    command,
    load,
    load_digits,
    metrics_of,
    relative,
    train,
    work_folder,
)

MODES = {"grayscale": "L", "RGB": "RGB"}
COUNT = 16_000  # crops of 32 x 32
PHOTONS = 50  # Poisson noise: of a white pixel, so that a gray one has noise of 0.1
CASES = [  # pictures, noise, epochs, number of seeds
    ("grayscale", "Gaussian", 16, 3),
    ("RGB", "Gaussian", 5, 3),
    ("grayscale", "Poisson", 4, 1),
    ("grayscale", "blurred", 4, 1),
]
DIGITS = 10_000, 4  # images, epochs
COMMON = ["--batch-size", "32", "--learning-rate", "0.001"]
BLIND = ["--corruption", "blind-spot", "--noise", "0.2"]

# ---- Noise ---------------------------------------------------------------------------------------


def noisy_pixels(pixels, kind, seed, stddev=NOISE):
    """Return uint8 pixels (height, width, ...) with noise, as uint8."""
    random = np.random.default_rng(seed)
    clean = pixels / 255
    if kind == "Poisson":
        noisy = random.poisson(PHOTONS * clean) / PHOTONS
    else:
        noise = random.normal(size=pixels.shape)
        if kind == "blurred":
            noise = gaussian_filter(noise, 1, axes=(0, 1))
            noise /= noise.std()
        noisy = clean + stddev * noise
    return np.uint8(np.rint(255 * np.clip(noisy, 0, 1)))


def crops_of(mode, noise):
    """Return the path of a file of crops of photographs without the cat; noise may be None."""
    folder = WORK / f"noisy-only-{mode}-{noise}"
    crops = folder.with_suffix(".npz")
    if crops.exists():
        return crops
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, picture) in enumerate(photographs().items()):
        if name in (TESTED, TUNED):
            continue
        pixels = np.asarray(Image.fromarray(picture).convert(MODES[mode]))
        if noise:
            pixels = noisy_pixels(pixels, noise, seed + 1)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    command("examples/prepare_data.py", folder, "--output", crops, "--crop", 32, "--count", COUNT)
    return crops


def pairs_of(mode, noise):
    """Return the path of a file of the same crops, clean and noisy."""
    path = WORK / f"noisy-only-{mode}-{noise}-pairs.npz"
    if not path.exists():
        clean, noisy = (np.load(crops_of(mode, each))["x_train"] for each in (None, noise))
        np.savez(path, x_train=clean, x_train_noisy=noisy)
    return path


# ---- Photographs ---------------------------------------------------------------------------------


def words_of(mode, noise, training, epochs):
    """Return the arguments of a training on noisy images, or with clean ones."""
    if training == "noisy images":
        data = ["--data", relative(crops_of(mode, noise)), *BLIND]
    elif noise == "Gaussian":  # drawn anew for every epoch
        data = ["--data", relative(crops_of(mode, None)), "--noise", str(NOISE)]
    else:
        data = ["--data", relative(pairs_of(mode, noise))]
    return [*data, "--epochs", str(epochs), *COMMON]


def of_cat(mode, noise, training, epochs, seed):
    """Return PSNR on the cat, before, after, and by the mean over flips; by a user's commands."""
    model, _ = train(DENOISER, seed, words_of(mode, noise, training, epochs))
    folder = work_folder(DENOISER, "noisy-only", mode, noise, training, seed)
    folder.mkdir(parents=True, exist_ok=True)
    clean = np.asarray(Image.fromarray(photographs()[TESTED]).convert(MODES[mode]))
    noisy = noisy_pixels(clean, noise, 0)
    Image.fromarray(noisy).save(folder / "cat.png")
    found = {"noisy_psnr": psnr(clean, noisy / 255)}
    for name, flips in (("psnr", []), ("psnr_of_flips", ["--flips"])):
        words = ["--output", folder / name, "--model-dir", model, "--force", *flips]
        command("examples/denoise_pictures.py", folder / "cat.png", *words)
        denoised = np.asarray(Image.open(folder / name / "cat.png"))
        found[name] = psnr(clean, denoised / 255)
    if (mode, noise, training, seed) == ("grayscale", "Gaussian", "noisy images", 0) and not SMOKE:
        draw(noisy, denoised, clean)
    return found | {"train_seconds": metrics_of(model)["train_seconds"]}


def draw(*images):
    """Draw the face of the cat: noisy, denoised and clean."""
    script = load(DENOISER)
    title = f"noise of {NOISE}; denoised by a model that was trained on noisy images alone; clean"
    with script.matplotlib.style.context(script.STYLE):
        figure = script.Figure(figsize=(10, 2.6), layout="constrained")
        figure.suptitle(title, fontsize=11)
        axes = figure.add_subplot(frame_on=False)
        faces = [image[20:180, 70:310] for image in images]
        axes.imshow(np.concatenate(faces, axis=1), cmap="gray", vmin=0, vmax=255)
        axes.set(xticks=[], yticks=[])
        figure.savefig(ROOT / "images/noisy_only.png")


# ---- Digits --------------------------------------------------------------------------------------


def of_digits(stddev, training, seed):
    """Return the metrics that the script reports of digits, whose test images are clean."""
    count, epochs = DIGITS
    images, _, test, _ = load_digits()
    parts = {"x_train": images[:count], "x_test": test}
    arrays = {name: np.uint8(np.rint(255 * part)) for name, part in parts.items()}
    for name in parts:
        arrays[f"{name}_noisy"] = noisy_pixels(arrays[name], "Gaussian", 0, stddev)
    path = WORK / f"noisy-only-digits-{stddev}.npz"
    np.savez(path, **arrays)
    kind = BLIND if training == "noisy images" else []
    words = ["--data", relative(path), *kind, "--epochs", str(epochs), *COMMON]
    return metrics_of(train(DENOISER, seed, words)[0])


# ---- All -----------------------------------------------------------------------------------------


def measure_all(seed):
    cases = {}  # name, and program: function and its arguments
    for training in ("noisy images", "clean images"):
        for mode, noise, epochs, seeds in CASES:
            if seed < seeds:
                arguments = mode, noise, training, epochs, seed
                cases[f"cat, {mode}, {noise}: {training}", DENOISER] = of_cat, arguments
        for stddev in (0.1, 0.5):
            cases[f"digits, {stddev}: {training}", DENOISER] = of_digits, (stddev, training, seed)
    for mode, name in itertools.product(MODES, CLASSICAL) if seed == 0 and not SMOKE else ():
        cases[f"cat, {mode}, Gaussian: {name}", name] = of_classical, (name, MODES[mode])
    for (case, program), (function, arguments) in cases.items():
        key = {"part": "noisy-only", "program": program, "seed": seed, "case": case}
        results.once(DENOISER, lambda f=function, a=arguments: f(*a), **key)
