"""The benchmarks: their parts on a few digits, and their integral against what it must be."""

import json
import math
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import run as benchmarks
import tables


def test_the_results_page_is_made_of_the_results():
    assert (ROOT / "benchmarks" / "RESULTS.md").read_text() == tables.text()


def test_the_command_line_lists_the_parts_and_how_long_they_take():
    command = [sys.executable, ROOT / "benchmarks" / "run.py", "--help"]
    text = " ".join(subprocess.run(command, capture_output=True, text=True).stdout.split())
    for name, (_, about) in benchmarks.PARTS.items():
        assert f"{name}: {about}" in text


def test_quadrature_of_a_decoder_that_does_not_look_at_z(vae):
    """The prior's mass is 1, so log p(x) is that of the pixels alone."""
    logits = np.random.default_rng(0).normal(size=20).astype(np.float32)
    images = np.random.default_rng(1).random((3, 20)).astype(np.float32)
    decoder = lambda z: vae.tf.tile(logits[np.newaxis], (len(z), 1))  # noqa: E731
    found = benchmarks.log_likelihood_by_quadrature(vae, decoder, images, step=0.1)
    expected = images @ logits - np.log1p(np.exp(logits)).sum()
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_quadrature_of_one_narrow_pixel(vae):
    """p(x=1) = E sigmoid(a z[0]), for a so large that it is the mass of z[0] > 0, one half."""
    decoder = lambda z: 500.0 * z[:, :1]  # noqa: E731
    found = benchmarks.log_likelihood_by_quadrature(vae, decoder, np.ones((1, 1), np.float32))
    assert found[0] == pytest.approx(math.log(0.5), abs=0.01)


def test_a_baseline_continues_where_it_was_stopped(tmp_path, monkeypatch, denoiser):
    """One epoch and then another leave one line of results, with the history of both."""
    name, options = "keras-denoiser", SimpleNamespace(seeds=[0], epochs=2)
    images = denoiser.load_images("mnist", 300)
    monkeypatch.setattr(benchmarks, "load", lambda kind: denoiser)
    monkeypatch.setattr(denoiser, "load_images", lambda source, limit: images)
    monkeypatch.setattr(benchmarks, "RESULTS", tmp_path / "results.jsonl")
    monkeypatch.setattr(benchmarks, "WORK", tmp_path)

    def stop(callback, epoch, logs=None):
        if epoch > 0:
            raise KeyboardInterrupt

    with monkeypatch.context() as stopping, pytest.raises(KeyboardInterrupt):
        stopping.setattr(denoiser.CheckpointCallback, "on_epoch_begin", stop)
        stopping.setattr(denoiser.CheckpointCallback, "on_test_begin", lambda *arguments: None)
        benchmarks.baseline(name, options)
    for _ in range(2):  # the second time there is nothing to do
        benchmarks.baseline(name, options)
    (line,) = map(json.loads, (tmp_path / "results.jsonl").read_text().splitlines())
    assert (line["program"], line["seed"], line["metrics"]["epochs"]) == (name, 0, 2)
    assert all(len(values) == 2 for values in line["history"].values())
