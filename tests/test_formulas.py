"""Every formula against the same written out in NumPy, and the bound against an integral."""

import math
from types import SimpleNamespace

import keras
import numpy as np
import pytest

RANDOM = np.random.default_rng(0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_bernoulli_likelihood(vae):
    images = RANDOM.random((5, 28, 28, 1))
    logits = RANDOM.normal(scale=4, size=images.shape)
    p = sigmoid(logits)
    expected = -(images * np.log(p) + (1 - images) * np.log(1 - p)).sum(axis=(1, 2, 3))
    found = vae.bernoulli_negative_log_likelihood(images, logits)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_bernoulli_likelihood_of_certain_pixels_is_finite(vae):
    found = vae.bernoulli_negative_log_likelihood(
        np.ones((1, 8, 8, 1), np.float32), np.full((1, 8, 8, 1), -200, np.float32)
    )
    np.testing.assert_allclose(found, [64 * 200])


def test_gaussian_kl(vae):
    z_mean, z_log_sigma = RANDOM.normal(size=(2, 7, 3))
    sigma = np.exp(z_log_sigma)
    expected = (np.log(1 / sigma) + (sigma**2 + z_mean**2) / 2 - 0.5).sum(axis=1)
    np.testing.assert_allclose(vae.kl_to_standard_normal(z_mean, z_log_sigma), expected)


def test_normal_density(vae):
    x, mean, log_sigma = RANDOM.normal(size=(3, 4, 2))
    sigma = np.exp(log_sigma)
    density = np.exp(-((x - mean) ** 2) / (2 * sigma**2)) / np.sqrt(2 * np.pi * sigma**2)
    found = vae.log_normal_density(x, mean, log_sigma)
    np.testing.assert_allclose(found, np.log(density.prod(axis=1)))


def test_psnr_and_its_companions(denoiser):
    clean = RANDOM.random((4, 28, 28, 1)).astype(np.float32)
    images = RANDOM.uniform(0.1, 0.9, clean.shape).astype(np.float32)
    mse = np.array([((a - b) ** 2).mean() for a, b in zip(clean, images, strict=True)])
    bce = -(clean * np.log(images) + (1 - clean) * np.log(1 - images)).mean(axis=(1, 2, 3))
    found = denoiser.figures_of_merit(clean, images)
    np.testing.assert_allclose(found["mse"], mse, rtol=1e-5)
    np.testing.assert_allclose(found["psnr"], 10 * np.log10(1 / mse), rtol=1e-5)
    np.testing.assert_allclose(found["bce"], bce, rtol=1e-5)


def test_ssim_without_variance_is_the_comparison_of_means(denoiser):
    """For flat images of a and b, SSIM is (2ab + c) / (a^2 + b^2 + c) with c = 0.01^2."""
    a, b, c = 0.3, 0.6, 0.01**2
    flat = [np.full((1, 28, 28, 1), value, np.float32) for value in (a, b)]
    found = denoiser.figures_of_merit(*flat)["ssim"]
    np.testing.assert_allclose(found, [(2 * a * b + c) / (a**2 + b**2 + c)], rtol=1e-4)


def test_equal_images_have_finite_figures(denoiser):
    blank = np.zeros((1, 8, 8, 3), np.float32)
    found = denoiser.figures_of_merit(blank, blank)
    assert float(found["psnr"][0]) == 100
    assert all(np.isfinite(values).all() for values in found.values())


@pytest.mark.parametrize("noise", [0.1, 0.5])
def test_noise_is_gaussian_and_clipped(denoiser, noise):
    clean = np.full((400, 28, 28, 1), 0.5, np.float32)
    noisy, same = denoiser.with_noise(noise)(clean, (1, 2))
    inside = np.abs(np.asarray(noisy) - 0.5) < 0.4999
    expected = math.erf(0.5 / noise / math.sqrt(2))  # the share that is not clipped
    assert inside.mean() == pytest.approx(expected, abs=0.004)
    assert np.abs(noisy - clean).max() <= 0.5
    assert np.mean(noisy) == pytest.approx(0.5, abs=0.003)
    np.testing.assert_array_equal(same, clean)


@pytest.fixture(scope="module")
def trained(vae, tmp_path_factory):
    """A VAE after a few seconds of training: it uses the plane, and its posteriors are wide."""
    images = vae.load_images("mnist", 3000)
    words = ["--seed", "3", "--epochs", "3", "--limit", "3000"]
    options = vae.parse_command_line(vae.commands(), words)
    options.model_dir = tmp_path_factory.mktemp("trained")
    keras.utils.set_random_seed(options.seed)
    model = vae.build_vae(vae.build_encoder((28, 28, 1), 2), vae.build_decoder((28, 28, 1), 2))
    vae.train(model, images, vae.with_epsilon(2), options)
    return model, images.test[:40], options


def test_importance_weighted_bound(vae, trained):
    """The figures of `evaluate` against their formulas in float64, from the same draws."""
    model, images, options = trained
    found = vae.evaluate(model, images, options)
    encoder, decoder = model.networks
    x = images / 255.0
    z_mean, z_log_sigma = (np.asarray(part, float) for part in encoder(x))
    seed = vae.stream(options.seed, "test", 0)
    epsilon = vae.tf.random.stateless_normal((50, len(x), 2), seed).numpy()
    z = z_mean + np.exp(z_log_sigma) * epsilon
    logits = np.asarray(decoder(z.reshape(-1, 2)), float).reshape(50, *x.shape)
    p = sigmoid(logits)
    log_p_x = (x * np.log(p) + (1 - x) * np.log1p(-p)).sum(axis=(2, 3, 4))
    log_p_z = (-(z**2) / 2 - np.log(2 * np.pi) / 2).sum(axis=2)
    log_q_z = (-(epsilon**2) / 2 - np.log(2 * np.pi) / 2 - z_log_sigma).sum(axis=2)
    weights = log_p_x + log_p_z - log_q_z
    top = weights.max(axis=0)
    bound = top + np.log(np.exp(weights - top).mean(axis=0))
    kl = (-z_log_sigma + (np.exp(2 * z_log_sigma) + z_mean**2) / 2 - 0.5).sum(axis=1)
    assert found["reconstruction"] == pytest.approx(-log_p_x.mean(), abs=1e-2)
    assert found["kl"] == pytest.approx(kl.mean(), abs=1e-4)
    assert found["negative_elbo"] == pytest.approx(kl.mean() - log_p_x.mean(), abs=1e-2)
    assert found["log_likelihood"] == pytest.approx(bound.mean(), abs=1e-2)
    assert found["log_likelihood_samples"] == 50


@pytest.mark.parametrize("beta", [0.0, 4.0])
def test_keras_evaluate_gives_means_over_images(beta, vae, trained):
    """Of loss, reconstruction and KL, also where the last batch is smaller than the others."""
    model, images, _ = trained
    other = vae.build_vae(*model.networks, beta)
    other.compile()
    batches = vae.frozen_batches(images, vae.with_epsilon(2), 3, "test", batch_size=25)
    found = other.evaluate(vae.spread(batches), verbose=0, return_dict=True)
    by_image = [
        np.concatenate(c)
        for c in zip(*(other.losses_of(*b, training=False) for b in batches), strict=True)
    ]
    assert [len(column) for column in by_image] == [40, 40, 40]
    for name, column in zip(("loss", "reconstruction", "kl"), by_image, strict=True):
        assert found[name] == pytest.approx(column.mean(), rel=1e-5)
    assert found["loss"] == pytest.approx(found["reconstruction"] + beta * found["kl"], rel=1e-5)


def test_log_likelihood_against_the_integral_over_the_plane(vae):
    """log p(x) = log of the integral of p(x|z) p(z), as a sum over a fine grid of the plane.

    The decoder is a smooth one, so that a good share of the draws from the prior count.
    """
    images = vae.load_images("mnist", 200).test
    normal = keras.initializers.RandomNormal
    hidden = keras.layers.Dense(32, "tanh", kernel_initializer=normal(stddev=1, seed=0))
    pixels = keras.layers.Dense(784, kernel_initializer=normal(stddev=0.05, seed=1))
    layers = [keras.Input((2,)), hidden, pixels, keras.layers.Reshape((28, 28, 1))]
    decoder = keras.Sequential(layers)
    step = 0.05
    side = np.arange(-5, 5, step)
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2).astype(np.float32)
    logits = decoder(grid).numpy().reshape(len(grid), -1)
    x = (images / 255.0).reshape(len(images), -1).astype(np.float32)
    log_p_x = x @ logits.T - np.logaddexp(0, logits).sum(axis=1)
    log_p_z = -(grid**2).sum(axis=1) / 2 - np.log(2 * np.pi)
    terms = (log_p_x + log_p_z).astype(float)
    top = terms.max(axis=1)
    integral = top + np.log(np.exp(terms - top[:, None]).sum(axis=1) * step**2)

    def prior(x):  # for q(z|x): the estimate is right for any
        zeros = vae.tf.zeros((vae.tf.shape(x)[0], 2))
        return zeros, zeros

    networks = SimpleNamespace(networks=(prior, decoder))
    estimates = [
        vae.evaluate(networks, images, SimpleNamespace(seed=0, importance_samples=samples))
        for samples in (5, 50, 5000)
    ]
    bounds = [-estimates[2]["negative_elbo"], *(each["log_likelihood"] for each in estimates)]
    assert bounds == sorted(bounds)  # from the ELBO up, with the number of draws
    assert bounds[-1] == pytest.approx(integral.mean(), abs=0.1)
    assert bounds[0] < integral.mean() - 0.5
