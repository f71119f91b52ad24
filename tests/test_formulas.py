"""Every formula against the same written out in NumPy, and the bound against an integral."""

import math

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


def test_image_metrics(denoiser):
    clean = RANDOM.random((4, 28, 28, 1)).astype(np.float32)
    images = RANDOM.uniform(0.1, 0.9, clean.shape).astype(np.float32)
    mse = np.array([((a - b) ** 2).mean() for a, b in zip(clean, images, strict=True)])
    bce = -(clean * np.log(images) + (1 - clean) * np.log(1 - images)).mean(axis=(1, 2, 3))
    found = denoiser.image_metrics(clean, images)
    np.testing.assert_allclose(found["mse"], mse, rtol=1e-5)
    np.testing.assert_allclose(found["psnr"], 10 * np.log10(1 / mse), rtol=1e-5)
    np.testing.assert_allclose(found["bce"], bce, rtol=1e-5)
    logits = np.log(images / (1 - images))
    np.testing.assert_allclose(denoiser.psnr(clean, logits), found["psnr"], rtol=1e-4)


def test_ssim_without_variance_is_the_comparison_of_means(denoiser):
    """For flat images of a and b, SSIM is (2ab + c) / (a^2 + b^2 + c) with c = 0.01^2."""
    a, b, c = 0.3, 0.6, 0.01**2
    flat = [np.full((1, 28, 28, 1), value, np.float32) for value in (a, b)]
    found = denoiser.image_metrics(*flat)["ssim"]
    np.testing.assert_allclose(found, [(2 * a * b + c) / (a**2 + b**2 + c)], rtol=1e-4)


def test_equal_images_have_finite_figures(denoiser):
    blank = np.zeros((1, 8, 8, 3), np.float32)
    found = denoiser.image_metrics(blank, blank)
    assert float(found["psnr"][0]) == 100
    assert all(np.isfinite(values).all() for values in found.values())


@pytest.mark.parametrize("noise", [0.1, 0.5])
def test_noise_is_gaussian_and_clipped(denoiser, noise):
    clean = np.full((400, 28, 28, 1), 0.5, np.float32)
    noisy = denoiser.add_noise(clean, noise, (1, 2))
    inside = np.abs(np.asarray(noisy) - 0.5) < 0.4999
    expected = math.erf(0.5 / noise / math.sqrt(2))  # the share that is not clipped
    assert inside.mean() == pytest.approx(expected, abs=0.004)
    assert np.abs(noisy - clean).max() <= 0.5
    assert np.mean(noisy) == pytest.approx(0.5, abs=0.003)


def test_every_epoch_sees_every_image_once_in_a_new_order_with_new_noise(denoiser):
    images = np.arange(100, dtype=np.uint8).reshape(100, 1, 1, 1)
    images = np.broadcast_to(images, (100, 8, 8, 1)).copy()
    options = denoiser.parse_options(["--batch-size", "25", "--epochs", "2", "--seed", "5"])

    def pair(clean, seed):
        return denoiser.add_noise(clean, 0.5, seed), clean

    batches = list(denoiser.train_dataset(images, pair, options))
    assert [len(clean) for _, clean in batches] == [25] * 8
    clean = np.concatenate([clean for _, clean in batches])
    order = np.rint(clean[:, 0, 0, 0] * 255).astype(int).reshape(2, 100)
    assert all(sorted(epoch) == list(range(100)) for epoch in order)
    assert (order[0] != order[1]).any() and (order[0] != np.arange(100)).any()
    noise = np.concatenate([noisy - clean for noisy, clean in batches]).reshape(2, 100, -1)
    by_image = [noise[epoch][np.argsort(order[epoch])] for epoch in (0, 1)]
    assert (np.abs(by_image[0] - by_image[1]).max(axis=1) > 0.1).all()
    resumed = list(denoiser.train_dataset(images, pair, options, first_epoch=1))
    np.testing.assert_array_equal(resumed[0][0], batches[4][0])
    options.batch_size = 32
    assert [len(clean) for _, clean in denoiser.train_dataset(images, pair, options)] == [32] * 6
    evaluation = denoiser.eval_dataset(images, pair, 5, "test")
    for (one, clean), (other, _) in zip(evaluation, evaluation, strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(np.rint(clean * 255), images)


@pytest.fixture(scope="module")
def networks(vae):
    """An encoder and a decoder after a few seconds of training, with wide posteriors."""
    train = vae.load_images("mnist", 3000)[0]
    keras.utils.set_random_seed(3)
    networks = vae.build_encoder((28, 28, 1), 2), vae.build_decoder((28, 28, 1), 2, 0.13)
    model = vae.VAE(*networks)
    model.compile(keras.optimizers.Adam(1e-3))
    options = vae.parse_options(["--epochs", "3"])
    model.fit(vae.train_dataset(train, lambda images, seed: images, options), verbose=0)
    return networks


def test_the_loss_is_the_mean_over_images(vae, networks):
    """Keras's evaluate against NumPy's formulas, with the last batch smaller than the others."""
    images = vae.load_images("mnist", 3000)[2][:40]
    model = vae.VAE(*networks, beta=4.0, seed=7)
    model.compile()
    batches = vae.eval_dataset(images, lambda images, seed: images, 0, "test", batch_size=25)
    found = model.evaluate(batches, verbose=0, return_dict=True)
    parts = []
    for batch in batches:
        z_mean, z_log_sigma = (np.asarray(part, float) for part in networks[0](batch))
        seed = vae.stateless_seed(7, "validation")
        epsilon = vae.tf.random.stateless_normal((len(batch), 2), seed).numpy()
        logits = np.asarray(networks[1](z_mean + np.exp(z_log_sigma) * epsilon), float)
        p, x = sigmoid(logits), np.asarray(batch, float)
        reconstruction = -(x * np.log(p) + (1 - x) * np.log1p(-p)).sum(axis=(1, 2, 3))
        kl = (-z_log_sigma + (np.exp(2 * z_log_sigma) + z_mean**2) / 2 - 0.5).sum(axis=1)
        parts.append([reconstruction, kl])
    reconstruction, kl = (np.concatenate(each).mean() for each in zip(*parts, strict=True))
    assert found["reconstruction"] == pytest.approx(reconstruction, rel=1e-4)
    assert found["kl"] == pytest.approx(kl, rel=1e-4)
    assert found["loss"] == pytest.approx(reconstruction + 4 * kl, rel=1e-4)


def test_iwae_bound(vae, networks):
    """The results of `evaluate` against their formulas in float64, from the same draws."""
    images = vae.load_images("mnist", 3000)[2][:40]
    found = vae.evaluate(*networks, images, samples=50, seed=3)
    encoder, decoder = networks
    x = images / 255.0
    z_mean, z_log_sigma = (np.asarray(part, float) for part in encoder(x))
    seed = vae.stateless_seed(3, "test", 0)
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
    assert found["iwae_bound"] == pytest.approx(bound.mean(), abs=1e-2)
    assert found["iwae_samples"] == 50


def test_the_iwae_bound_rises_to_the_integral_over_the_plane(vae):
    """log p(x) = log of the integral of p(x|z) p(z), as a sum over a fine grid of the plane.

    The decoder is a smooth one, so that a good share of the draws from the prior count.
    """
    images = vae.load_images("mnist", 200)[2]
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

    estimates = [vae.evaluate(prior, decoder, images, samples) for samples in (5, 50, 5000)]
    bounds = [-estimates[2]["negative_elbo"], *(each["iwae_bound"] for each in estimates)]
    assert bounds == sorted(bounds)  # from the ELBO up, with the number of draws
    assert bounds[-1] == pytest.approx(integral.mean(), abs=0.1)
    assert bounds[0] < integral.mean() - 0.5
