"""The benchmarks: their parts on a few digits, and their integral against what it must be."""

import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import run as benchmarks
import tables


def test_the_results_page_is_made_of_the_results():
    assert (ROOT / "benchmarks" / "RESULTS.md").read_text() == tables.text()


def test_the_iwae_bound_rises_to_the_integral_over_the_plane(vae):
    """A smooth decoder, so that a good share of the samples from the prior count."""
    images = vae.load_images("mnist", 200)[2]
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
    bounds = [-estimates[2]["negative_elbo"], *(each["iwae_bound"] for each in estimates)]
    assert bounds == sorted(bounds)  # from the ELBO up, with the number of samples
    assert bounds[-1] == pytest.approx(integral, abs=0.1) and bounds[0] < integral - 0.5
