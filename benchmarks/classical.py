"""Measures classical denoisers on the digits, and beside our denoiser on a photograph.

    python benchmarks/classical.py digits         # about 20 minutes
    python benchmarks/classical.py masked         # digits with masked pixels: 2 minutes
    python benchmarks/classical.py photograph     # trains the denoiser, too: half an hour

Like run.py, it adds a line to results.jsonl for each result and skips those that have one.
"""

import itertools
import math
import subprocess
import sys
import warnings

import numpy as np
from bm3d import bm3d, bm3d_rgb
from PIL import Image
from run import DENOISER, SCRIPTS, WORK, eval_batch, is_done, keep, load, load_splits
from skimage import data, filters, restoration
from skimage.morphology import disk
from sklearn.datasets import load_sample_images
from sklearn.linear_model import Ridge

# ---- Digits --------------------------------------------------------------------------------------


def one_by_one(denoise):
    """Return a function of images (n, height, width) from one of a single image."""
    return lambda images, setting: np.stack([denoise(image, setting) for image in images])


def bm3d_side_by_side(images, sigma):
    """Lay the images out as one square: BM3D takes half a second for each image it is given.

    It can then find similar patches in other digits, too, which is an advantage.
    """
    side = math.ceil(math.sqrt(len(images)))
    square = np.zeros((side * side, 28, 28))
    square[: len(images)] = images
    square = square.reshape(side, side, 28, 28).swapaxes(1, 2).reshape(2 * [28 * side])
    out = bm3d(square, sigma).reshape(side, 28, side, 28).swapaxes(1, 2)
    return out.reshape(-1, 28, 28)[: len(images)]


def non_local_means(image, sigma):
    settings = {"patch_size": 5, "patch_distance": 6, "h": 0.3 * sigma, "sigma": sigma}
    return restoration.denoise_nl_means(image, **settings)


def total_variation(image, weight):
    return restoration.denoise_tv_chambolle(image, weight=weight)


def bilateral(images, sigma, reach=4, sigma_spatial=1.1):
    """Return means of the pixels around, weighted by their distance and their difference in value.

    Tomasi & Manduchi 1998. The kernel of scikit-image 0.26 is not centred for windows of odd size.
    """
    height, width = images.shape[1:]
    padded = np.pad(images, [(0, 0), (reach, reach), (reach, reach)], mode="reflect")
    total = weights = np.zeros_like(images)
    for y, x in itertools.product(range(2 * reach + 1), repeat=2):
        shifted = padded[:, y : y + height, x : x + width]
        distance = ((y - reach) ** 2 + (x - reach) ** 2) / sigma_spatial**2
        weight = np.exp(-(distance + ((shifted - images) / sigma) ** 2) / 2)
        total, weights = total + weight * shifted, weights + weight
    return total / weights


def median(image, radius):
    return filters.median(image, disk(radius))


def ridge_regression(noisy, clean):
    """Return a denoiser that makes each pixel of a linear function of all noisy pixels."""

    def denoise(images, penalty):
        if penalty not in fitted:
            fitted[penalty] = Ridge(penalty).fit(flat(noisy), flat(clean))
        return fitted[penalty].predict(flat(images)).reshape(-1, 28, 28)

    flat, fitted = (lambda images: images.reshape(len(images), -1)), {}
    return denoise


def look_up_table(denoised, clean, bins=64):
    """Return a function that maps pixels to the mean clean value of their bin.

    Clipped noise is biased (black has the mean 0.195, white 0.805), which no classical denoiser
    corrects by itself. Each bin has as many of the denoised pixels, except where many are equal.
    """
    edges = np.unique(np.quantile(denoised, np.linspace(0, 1, bins + 1)[1:-1]))
    index = np.digitize(denoised, edges).ravel()
    count = np.maximum(1, np.bincount(index, minlength=bins))
    means = np.bincount(index, clean.ravel(), minlength=bins) / count
    return lambda images: np.float32(means[np.digitize(images, edges)])


def on_digits():
    """Denoise the test digits; settings and look-up tables come from validation digits."""
    script = load(DENOISER)
    train, validation, test, _ = load_splits(script)

    def pairs(images, purpose):
        """Return noisy and clean images, each (n, 28, 28)."""
        batches = script.eval_batches(images, 0, purpose).map(eval_batch(script, DENOISER))
        parts = zip(*batches.as_numpy_iterator(), strict=True)
        return [np.concatenate(part)[..., 0] for part in parts]

    def metrics(denoise, setting, calibrate, noisy, clean):
        out = calibrate(denoise(noisy, setting))[..., np.newaxis]
        found = script.image_metrics(clean[..., np.newaxis], out)
        return {name: float(np.mean(found[name])) for name in ("psnr", "ssim", "mse")}

    denoisers = {  # name: function of noisy images and a setting, settings to try
        "Gaussian blur, sigma": (one_by_one(filters.gaussian), (0.7, 0.9, 1.1, 1.3, 1.5)),
        "median filter, radius": (one_by_one(median), (1, 2, 3)),
        "bilateral filter, sigma": (bilateral, (0.6, 1.2, 1.8, 2.4, 4.8)),
        "total variation, weight": (one_by_one(total_variation), (0.2, 0.3, 0.4, 0.6, 0.8)),
        "non-local means, sigma": (one_by_one(non_local_means), (0.2, 0.25, 0.3, 0.35, 0.4)),
        "BM3D, sigma": (bm3d_side_by_side, (0.2, 0.25, 0.3, 0.4)),
        "ridge regression, penalty": (
            ridge_regression(*pairs(train[:8000], "training")),
            (10, 30, 100, 300, 1000),
        ),
    }
    fit, choose = pairs(validation[:500], "validation"), pairs(validation[500:1000], "choice")
    batches = [pairs(part, f"test {number}") for number, part in enumerate(np.split(test, 20))]
    for name, (denoise, settings) in denoisers.items():
        if is_done(part="classical", program=name):
            continue
        tables = {s: look_up_table(denoise(fit[0], s), fit[1]) for s in settings}
        tried = {s: metrics(denoise, s, tables[s], *choose)["psnr"] for s in settings}
        best = max(tried, key=tried.get)
        found = [metrics(denoise, best, tables[best], *batch) for batch in batches]
        means = {metric: float(np.mean([part[metric] for part in found])) for metric in found[0]}
        keep(part="classical", program=name, setting=best, tried=[*tried.items()], metrics=means)


# ---- Masked digits -------------------------------------------------------------------------------

# These methods are told which pixels were changed, which our denoiser is not. Those are NaN. So
# masking and salt and pepper are the same to them.


def inpainting(image, setting):
    """Fill what is missing with a biharmonic function; there is no setting."""
    missing = np.isnan(image)
    return restoration.inpaint_biharmonic(np.nan_to_num(image), missing)


def median_of_known(images, radius):
    """Return images with the median of the known pixels around in place of each missing one."""
    sides = [(0, 0), (radius, radius), (radius, radius)]
    padded = np.pad(images, sides, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, [2 * radius + 1] * 2, axis=(1, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a window without a known pixel
        medians = np.nan_to_num(np.nanmedian(windows, axis=(3, 4)))
    return np.where(np.isnan(images), medians, images)


FILLING = {  # name: function of images with NaN and a setting, settings
    "inpainting, biharmonic": (one_by_one(inpainting), ("",)),
    "median of known pixels, radius": (median_of_known, (1, 2, 3)),
}


def missing_and_clean(script, images, purpose):
    """Return images with NaN for the pixels that masking changes, and clean ones."""

    def pair(clean, seed):
        white = script.tf.ones_like(clean)
        is_masked = script.corrupt(white, "masking", [script.NOISE], seed) == 0
        return script.tf.where(is_masked, math.nan, clean), clean

    batches = script.eval_batches(images, 0, purpose).map(pair)
    parts = zip(*batches.as_numpy_iterator(), strict=True)
    return [np.concatenate(part)[..., 0] for part in parts]


def filled(fill, setting, tables, missing):
    """Return images with what is missing filled, and mapped by the look-up table of the setting."""
    out = fill(missing, setting)
    return np.float32(np.where(np.isnan(missing), tables[setting](out), out))


def filling_metrics(script, filled_images, clean):
    """Return mean metrics of images (n, height, width) against the clean ones."""
    found = script.image_metrics(clean[..., np.newaxis], filled_images[..., np.newaxis])
    return {name: float(np.mean(found[name])) for name in ("psnr", "ssim", "mse")}


def on_masked_digits():
    """Fill what is missing in the test digits; settings and tables come from validation digits."""
    script = load(DENOISER)
    _, validation, test, _ = load_splits(script)
    fit, fit_clean = missing_and_clean(script, validation[:500], "validation")
    choose, choose_clean = missing_and_clean(script, validation[500:1000], "choice")
    is_missing = np.isnan(fit)
    for name, (fill, settings) in FILLING.items():
        if is_done(part="filling", program=name):
            continue
        tables = {}
        tried = {}
        for setting in settings:
            out = fill(fit, setting)
            tables[setting] = look_up_table(out[is_missing], fit_clean[is_missing])
            found = filling_metrics(script, filled(fill, setting, tables, choose), choose_clean)
            tried[setting] = found["psnr"]
        best = max(tried, key=tried.get)
        batches = []
        for number, part in enumerate(np.split(test, 20)):
            missing, clean = missing_and_clean(script, part, f"test {number}")
            out = filled(fill, best, tables, missing)
            batches.append(filling_metrics(script, out, clean))
        means = {
            metric: float(np.mean([part[metric] for part in batches])) for metric in batches[0]
        }
        keep(part="filling", program=name, setting=best, metrics=means)


# ---- A photograph --------------------------------------------------------------------------------

NOISE = 0.1  # standard deviation
PHOTOGRAPH = {  # classical denoisers: a function of a noisy photograph and a setting, settings
    "BM3D, sigma": (bm3d_rgb, (0.08, 0.09, 0.1, 0.11)),
    "non-local means, sigma": (
        lambda image, sigma: restoration.denoise_nl_means(
            image, patch_size=5, h=0.6 * sigma, sigma=sigma, channel_axis=-1
        ),
        (0.04, 0.06, 0.08, 0.1),
    ),
    "total variation, weight": (
        lambda image, weight: restoration.denoise_tv_chambolle(
            image, weight=weight, channel_axis=-1
        ),
        (0.06, 0.08, 0.1, 0.12),
    ),
}


def photographs():
    """Return {name: photograph}, uint8, of the free ones in scikit-image and scikit-learn."""
    names = ("astronaut", "chelsea", "coffee", "rocket", "hubble_deep_field", "retina")
    china, flower = load_sample_images().images
    return {name: getattr(data, name)() for name in names} | {"china": china, "flower": flower}


def psnr(clean, image):
    """Return the PSNR in dB of an image in [0, 1]; the clean one is uint8."""
    return float(-10 * np.log10(np.mean((clean / 255 - np.clip(image, 0, 1)) ** 2)))


def run(script, *arguments):
    subprocess.run([sys.executable, script, *map(str, arguments)], check=True)


def denoised_by_ours(noisy, pictures):
    """Train the denoiser on random crops of pictures; return a noisy one as it makes it."""
    folder, root = WORK / "photographs", SCRIPTS[DENOISER].parent
    (folder / "training").mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        Image.fromarray(picture).save(folder / "training" / f"{name}.png")
    crops = ["--output", folder / "crops.npz", "--crop", 32, "--count", 40000, "--force"]
    run(root / "examples/prepare_data.py", folder / "training", *crops)
    places = ["--model-dir", folder / "models", "--images-dir", folder / "images"]
    options = ["--data", folder / "crops.npz", "--noise", NOISE, "--epochs", 10]
    options += ["--batch-size", 32, "--learning-rate", 0.001]  # with little noise, small steps
    run(SCRIPTS[DENOISER], *options, *places)
    Image.fromarray(np.uint8(np.rint(255 * noisy))).save(folder / "noisy.png")
    places = ["--output", folder / "denoised", "--model-dir", folder / "models", "--force"]
    run(root / "examples/denoise_pictures.py", folder / "noisy.png", *places)
    return np.asarray(Image.open(folder / "denoised/noisy.png")) / 255


def on_photograph():
    """Compare on the cat, held out; the settings of the classical denoisers are of the flower."""
    pictures = photographs()
    flower, cat = pictures.pop("flower"), pictures.pop("chelsea")
    draw = np.random.default_rng(0)
    noisy_flower, noisy_cat = (
        np.clip(clean / 255 + NOISE * draw.normal(size=clean.shape), 0, 1)
        for clean in (flower, cat)
    )

    def measure(name, image, **more):
        keep(part="photograph", program=name, psnr=psnr(cat, image), **more)

    if not is_done(part="photograph", program="noisy input"):
        measure("noisy input", noisy_cat)
    for name, (denoise, settings) in PHOTOGRAPH.items():
        if not is_done(part="photograph", program=name):
            tried = {s: psnr(flower, denoise(noisy_flower, s)) for s in settings}
            best = max(tried, key=tried.get)
            measure(name, denoise(noisy_cat, best), setting=best, tried=[*tried.items()])
    if not is_done(part="photograph", program=DENOISER):
        measure(DENOISER, denoised_by_ours(noisy_cat, pictures))


if __name__ == "__main__":
    parts = {"digits": on_digits, "masked": on_masked_digits, "photograph": on_photograph}
    if len(sys.argv) != 2 or sys.argv[1] not in parts:
        sys.exit(__doc__)
    WORK.mkdir(exist_ok=True)
    parts[sys.argv[1]]()
