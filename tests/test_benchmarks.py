"""The benchmarks: their parts on a few digits, and their integral against what it must be."""

import sys

import numpy as np
import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import own_pictures
import run as benchmarks
import tables


def test_the_results_page_is_made_of_the_results():
    assert (ROOT / "benchmarks" / "RESULTS.md").read_text() == tables.text()


def test_the_iwae_bound_rises_to_the_integral_over_the_plane(vae):
    """A smooth decoder, so that a good share of the samples from the prior count."""
    images = benchmarks.load_splits(vae)[2][:40]
    normal = vae.keras.initializers.RandomNormal
    hidden = vae.layers.Dense(32, "tanh", kernel_initializer=normal(stddev=1, seed=0))
    pixels = vae.layers.Dense(784, kernel_initializer=normal(stddev=0.05, seed=1))
    layers = [vae.keras.Input((2,)), hidden, pixels, vae.layers.Reshape((28, 28, 1))]
    decoder = vae.keras.Sequential(layers)
    flat = vae.tf.constant(images.reshape(len(images), -1) / 255, vae.tf.float32)
    integral = benchmarks.log_likelihood_by_quadrature(vae, decoder, flat, step=0.05).mean()

    def prior(x):  # in place of q(z|x): the bound holds for any
        zeros = vae.tf.zeros((vae.tf.shape(x)[0], 2))
        return zeros, zeros

    estimates = [vae.evaluate(prior, decoder, images, count, seed=1) for count in (5, 50, 5000)]
    bounds = [-estimates[2]["negative_elbo"], *(-each["negative_iwae_bound"] for each in estimates)]
    assert bounds == sorted(bounds)  # from the ELBO up, with the number of samples
    assert bounds[-1] == pytest.approx(integral, abs=0.1) and bounds[0] < integral - 0.5


@pytest.mark.parametrize("name", own_pictures.PEERS)
def test_a_peer_trains_on_images_of_any_size_by_the_clock(vae, name):
    """One epoch where no time is left; reconstructions have the shape of the images."""
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (300, 40, 36, 3), dtype=np.uint8)
    (encoder, decoder_logits), seconds, epochs = own_pictures.train_peer(vae, name, images, 0, 1)
    assert epochs == 1 and 0 < seconds < 300
    codes, _ = encoder(images[:2] / 255)
    assert codes.shape == (2, 16) and decoder_logits(codes).shape == (2, 40, 36, 3)
    psnr = own_pictures.reconstruction_psnr(vae, encoder, decoder_logits, images[:2])
    decoded = 1 / (1 + np.exp(-np.asarray(decoder_logits(codes), float)))
    squares = np.mean((decoded - images[:2] / 255) ** 2, axis=(1, 2, 3))
    assert psnr == pytest.approx(np.mean(-10 * np.log10(squares)), abs=0.01)


def test_digits_are_binarized_anew_in_every_batch(vae):
    """Each pixel is 0 or 1, and 1 as often as its brightness says; epsilon comes with it."""
    grey = np.full((4000, 2, 2, 1), 0.3, np.float32)
    first, _, epsilon = benchmarks.binary_batch(grey, (0, 1), vae, 3)
    second, *_ = benchmarks.binary_batch(grey, (0, 2), vae, 3)
    assert set(np.unique(first)) == {0, 1} and (first != second).numpy().any()
    assert np.mean(first) == pytest.approx(0.3, abs=0.015)
    assert epsilon.shape == (4000, 3) and np.std(epsilon) == pytest.approx(1, abs=0.03)
    once = [benchmarks.binarized_once(vae, np.uint8(255 * grey)) for _ in range(2)]
    assert set(np.unique(once[0])) == {0, 255} and (once[0] == once[1]).all()


@pytest.mark.parametrize("kind", [benchmarks.DENOISER, benchmarks.VAE])
def test_the_small_models_are_not_larger_than_the_examples(kind, denoiser, vae):
    script = denoiser if kind == benchmarks.DENOISER else vae
    build_example = benchmarks.BASELINES[tables.EXAMPLES[kind]][1]
    images = np.zeros((64, 28, 28, 1), np.uint8)
    model = benchmarks.small_model(script, kind, images, script.learning_rate(1e-3, 100))
    example = benchmarks.parameters(build_example(script))
    assert 0.9 * example < benchmarks.parameters(model) <= example


@pytest.mark.parametrize("kind", [benchmarks.DENOISER, benchmarks.VAE])
def test_a_training_that_ended_is_not_repeated(kind, denoiser, vae, tmp_path):
    """A part that is stopped before its result is written takes it from the last checkpoint."""
    script = denoiser if kind == benchmarks.DENOISER else vae
    images, test, *_ = benchmarks.load_splits(script)
    images, test = images[:100], test[:20]
    options = benchmarks.options_of(script, tmp_path, 1, "--batch-size", "32", "--epochs", "2")
    found = []
    for _ in range(2):
        with script.global_settings(1, bfloat16=False):
            rate = benchmarks.rate_of(script, options, len(images))
            model = benchmarks.small_model(script, kind, images, rate)
            make_batch = benchmarks.train_batch(script, kind)
            dataset = script.eval_batches(test, 1, "test").map(benchmarks.eval_batch(script, kind))
            run = benchmarks.train(script, model, options, images, make_batch, test, dataset)
            found.append(benchmarks.final_metrics(script, kind, model, test, 1, run))
        assert benchmarks.has_checkpoint(tmp_path)
    first, second = found
    assert first == second and first["epochs"] == 2 and first["train_seconds"] > 0
    run.remove_checkpoints()
    assert not benchmarks.has_checkpoint(tmp_path)
