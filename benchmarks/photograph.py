"""Measures the denoiser on a photograph that it never saw, compared with classical methods.

    python benchmarks/run.py photograph

The denoiser learns from random crops of six photographs and is tested on scikit-image's cat, with
noise of 0.1. The settings of the classical methods are the best ones on a flower. BM3D needs the
package bm3d, for non-commercial use.
"""

import importlib

import numpy as np
import results
from PIL import Image
from results import DENOISER
from skimage import data, restoration
from sklearn.datasets import load_sample_images
from training import SMOKE, WORK, command, relative, train, work_folder

NOISE = 0.1  # standard deviation
TESTED, TUNED = "chelsea", "flower"  # the cat, and the photograph that chooses the settings
NAMES = ("astronaut", "chelsea", "coffee", "rocket", "hubble_deep_field", "retina")
TRAINING = ["--noise", str(NOISE), "--epochs", "10"]
TRAINING += ["--batch-size", "32", "--learning-rate", "0.001"]  # with little noise, small steps


def photographs():
    """Return {name: photograph}, uint8, of the free ones in scikit-image and scikit-learn."""
    china, flower = load_sample_images().images
    return {name: getattr(data, name)() for name in NAMES} | {"china": china, "flower": flower}


def save_photographs(folder, without=()):
    """Write photographs as PNG files to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in photographs().items():
        if name not in without:
            Image.fromarray(picture).save(folder / f"{name}.png")


def psnr(clean, image):
    """Return the PSNR in dB of an image in [0, 1]; the clean one is uint8."""
    return float(-10 * np.log10(np.mean((clean / 255 - np.clip(image, 0, 1)) ** 2)))


def noisy(picture):
    """Return a uint8 picture as floats in [0, 1] with noise."""
    noise = NOISE * np.random.default_rng(0).normal(size=picture.shape)
    return np.clip(picture / 255 + noise, 0, 1)


def bm3d(image, sigma):
    package = importlib.import_module("bm3d")
    if image.shape[2] == 1:
        return package.bm3d(image[..., 0], sigma)[..., np.newaxis]
    return package.bm3d_rgb(image, sigma)


def non_local_means(image, sigma):
    settings = {"patch_size": 5, "h": 0.6 * sigma, "sigma": sigma, "channel_axis": -1}
    return restoration.denoise_nl_means(image, **settings).reshape(image.shape)  # of one channel


CLASSICAL = {"BM3D": bm3d, "non-local means": non_local_means}
SIGMAS = (0.06, 0.08, 0.09, 0.1, 0.11)  # to choose from


def of_classical(name, mode="RGB"):
    """Return the PSNR of a method on the cat, with the setting that is best on the flower."""
    pictures = [Image.fromarray(photographs()[each]).convert(mode) for each in (TUNED, TESTED)]
    flower, cat = (np.atleast_3d(np.asarray(picture)) for picture in pictures)
    denoise = CLASSICAL[name]
    tried = {sigma: psnr(flower, denoise(noisy(flower), sigma)) for sigma in SIGMAS}
    best = max(tried, key=tried.get)
    return {"psnr": psnr(cat, denoise(noisy(cat), best)), "sigma": best}


def of_denoiser(seed):
    """Return the PSNR on the cat of the denoiser, trained and used by the commands of a user."""
    crops, folder = WORK / "crops.npz", work_folder(DENOISER, "photograph", seed)
    if not crops.exists():
        save_photographs(WORK / "training", without=(TESTED, TUNED))
        words = ["--output", crops, "--crop", 32, "--count", 40_000]
        command("examples/prepare_data.py", WORK / "training", *words)
    model, _ = train(DENOISER, seed, ["--data", relative(crops), *TRAINING])
    folder.mkdir(parents=True, exist_ok=True)
    cat = photographs()[TESTED]
    Image.fromarray(np.uint8(np.rint(255 * noisy(cat)))).save(folder / "cat.png")
    words = ["--output", folder / "denoised", "--model-dir", model, "--force"]
    command("examples/denoise_pictures.py", folder / "cat.png", *words)
    return {"psnr": psnr(cat, np.asarray(Image.open(folder / "denoised/cat.png")) / 255)}


def measure_all(seed):
    key = {"part": "photograph", "seed": seed}
    results.once(DENOISER, lambda: of_denoiser(seed), **key, program=DENOISER)
    if seed > 0:
        return
    cat = photographs()[TESTED]
    results.once(DENOISER, lambda: {"psnr": psnr(cat, noisy(cat))}, **key, program="noisy input")
    for name in () if SMOKE else CLASSICAL:
        results.once(DENOISER, lambda n=name: of_classical(n), **key, program=name)
