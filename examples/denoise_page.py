# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["tensorflow==2.21.*", "keras==3.15.*", "numpy>=2,<3", "matplotlib>=3.10,<4"]
# ///
"""Denoise a page of 20 x 14 test digits at once, and draw it beside the noisy page.

    python examples/denoise_page.py

The denoiser is fully convolutional: trained on digits of 28 x 28 pixels, it also takes 560 x 392.
Writes denoised_page.png, and prints the PSNR of the page before and after.
"""

import common

parser = common.Parser(__doc__)
parser.add_model_dir("models/denoiser", "model.keras")
parser.add_images_dir()
if __name__ == "__main__":
    options = parser.parse_args()  # before the slow imports: --help and mistakes answer at once
with common.quiet_imports():
    import numpy as np
    from matplotlib.figure import Figure

NOISE = 0.5  # standard deviation, as in training
ROWS, COLUMNS = 14, 20


def psnr(clean, page):
    """Return the peak signal-to-noise ratio in dB."""
    return -10 * np.log10(np.mean((clean - page) ** 2))


def main(options):
    model = common.load_grey_model(options.model_dir / "model.keras")
    digits, _ = common.read_images(common.MNIST, "test", (28, 28, 1))
    page = digits[: ROWS * COLUMNS].reshape(ROWS, COLUMNS, 28, 28).swapaxes(1, 2)
    clean = page.reshape(ROWS * 28, COLUMNS * 28)
    noise = NOISE * np.random.default_rng(0).normal(size=clean.shape)
    noisy = np.clip(clean + noise, 0, 1)
    denoised = model.predict(noisy[np.newaxis, ..., np.newaxis], verbose=0)[0, ..., 0]
    height, width = clean.shape
    figure = Figure(figsize=(2 * width / 100, height / 100 + 0.4), dpi=100, layout="constrained")
    pages = {f"noisy, noise level {NOISE}": noisy, f"denoised from noise level {NOISE}": denoised}
    for axes, (name, page) in zip(figure.subplots(1, 2), pages.items(), strict=True):
        axes.imshow(page, cmap="gray", vmin=0, vmax=1)
        axes.set_title(f"{name}: PSNR {psnr(clean, page):.1f} dB")
        axes.axis("off")
        print(f"{name}: {psnr(clean, page):.2f} dB")
    with common.new_file(options.images_dir / "denoised_page.png") as unfinished:
        figure.savefig(unfinished)


if __name__ == "__main__":
    main(options)
