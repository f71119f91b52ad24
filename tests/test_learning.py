"""Short trainings that must learn: the bounds are far from chance, and from a broken pairing."""

import json

import numpy as np
from conftest import DENOISER, MODELS, VAE


def test_the_denoiser_denoises(learned):
    """Noisy digits have 9.4 dB, and an autoencoder of clean digits makes little more of them."""
    values = json.loads((learned / MODELS[DENOISER] / "metrics.json").read_text())
    assert values["psnr"] > values["noisy_psnr"] + 7
    assert values["ssim"] > values["noisy_ssim"] + 0.2
    assert values["mse"] < values["noisy_mse"] / 4


def test_the_vae_models_digits(vae, learned):
    values = json.loads((learned / MODELS[VAE] / "metrics.json").read_text())
    options = vae.parse_command_line(vae.commands(), [])
    untrained = vae.VariationalAutoEncoder(
        vae.build_encoder((28, 28, 1), 2), vae.build_decoder((28, 28, 1), 2)
    )
    images = vae.load_images("mnist", 10000)
    before = vae.evaluate(untrained, images.test[:200], options)
    assert values["negative_elbo"] < before["negative_elbo"] - 300
    # What the best decoder gives that does not look at z: each pixel's mean over the training set.
    p = np.clip(images.train.mean(axis=0) / 255, 1e-6, 1 - 1e-6)
    x = images.test / 255
    without_z = -(x * np.log(p) + (1 - x) * np.log(1 - p)).sum(axis=(1, 2, 3)).mean()
    assert values["negative_elbo"] < without_z - 25
    assert values["kl"] > 2
