"""The benchmarks of codes, anomalies and pretraining, on models that have learned something."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT, VAE
from PIL import Image, ImageSequence

sys.path.insert(0, str(ROOT / "benchmarks"))
import anomaly_detection
import codes_as_features
import figures
import models as trained_models
import one_class
import pretraining

MODULES = (anomaly_detection, codes_as_features, figures, one_class, pretraining)


@pytest.fixture
def few_digits(models, tmp_path, monkeypatch):
    """Let the benchmarks use few digits, the short runs of the tests, and a folder of their own."""
    x_train, y_train, x_test, y_test = trained_models.load_digits()
    digits = x_train[:1000], y_train[:1000], x_test[:1000], y_test[:1000]

    def trained(script, *words):
        return models / ("vae" if script in VAE else "denoiser")

    for module in MODULES:
        monkeypatch.setattr(module, "load_digits", lambda: digits)
        for name, value in (("trained", trained), ("WORK", tmp_path), ("HERE", tmp_path / "here")):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(figures, "IMAGES", tmp_path)
    (tmp_path / "images").mkdir()
    return tmp_path


def test_codes_as_features(few_digits, monkeypatch, capsys):
    monkeypatch.setattr(codes_as_features, "DRAWS", 2)
    monkeypatch.setattr(codes_as_features, "UMAP_SEEDS", (0,))
    codes_as_features.main(SimpleNamespace(limit=800))
    tables = json.loads((few_digits / "codes_as_features.json").read_text())
    counts = {"all labels": 3, "inductive": 6, "transductive": 3, "clusters": 5}
    assert {task: len(rows) for task, rows in tables.items()} == counts
    for task, method, least in (
        ("all labels", "linear probe: pixels", 0.8),
        ("inductive", "linear probe: pixels", 0.65),
        ("transductive", "Poisson learning: pixels", 0.75),
    ):
        rows = {row["method"]: row["accuracies"] for row in tables[task]}
        assert min(rows[method]) > least
    printed = capsys.readouterr().out
    assert all(row["method"] in printed for rows in tables.values() for row in rows)


def test_labels_spread_in_a_graph():
    """Two rings, one in the other, are told apart by one label each; copies do no harm."""
    angles = np.linspace(0, 2 * np.pi, 100, endpoint=False)
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    points = np.concatenate([ring, 2 * ring, np.repeat(ring[:1], 15, axis=0)])
    graph = codes_as_features.neighbour_graph(points)
    assert graph.dtype == np.float32  # 64 bits take five times as long
    assert abs(graph - graph.T).max() < 1e-12 and graph.max() <= 1
    found = codes_as_features.poisson_learning(graph, np.array([30, 130]), np.array([4, 7]))
    assert found.tolist() == [4] * 100 + [7] * 100 + [4] * 15
    clusters, labels = np.array([3, 3, 5, 5, 5]), np.array([0, 0, 1, 1, 0])
    accuracy, ari = codes_as_features.cluster_scores(clusters, labels)
    assert accuracy == 0.8 and 0 < ari < 1


def test_one_class(few_digits, monkeypatch):
    monkeypatch.setattr(one_class, "DIGITS", (1, 8))
    one_class.main(SimpleNamespace(epochs=20))
    rows = json.loads((few_digits / "one_class.json").read_text())
    aucs = {row["score"]: row["auc"] for row in rows}
    assert len(aucs) == 6 and all(len(auc) == 2 for auc in aucs.values())
    neighbours = "5 nearest neighbours"
    assert min(aucs[neighbours]) > 0.7
    assert np.mean(aucs[f"{neighbours}, images of unit length"]) > np.mean(aucs[neighbours])
    assert min(aucs["VAE, squared error, blurred, divided by ink"]) > 0.6


def test_what_the_scores_of_one_class_are_made_of():
    images = np.zeros((2, 28, 28, 1), np.float32)
    images[0, 10:12, 5:15] = 1
    images[1, 10:14, 5:15] = 1
    assert one_class.ink(images).tolist() == [20, 40]
    assert one_class.ink(np.zeros((1, 28, 28, 1))).tolist() == [1]  # not a division by 0
    assert one_class.squared_error(images, 0.5 + 0 * images).tolist() == [196, 196]
    shifted = np.roll(images, 1, axis=2)
    plain = one_class.squared_error(images, shifted)
    soft = one_class.squared_error(one_class.blurred(images), one_class.blurred(shifted))
    assert (soft < plain / 4).all()  # a stroke that is off by a pixel counts little


def test_anomaly_detection(few_digits):
    anomaly_detection.main(SimpleNamespace(limit=300))
    rows = json.loads((few_digits / "anomaly_detection.json").read_text())
    areas = {(kind, score): area for kind, score, area, *_ in rows}
    for name in ("VAE, negative ELBO", "denoiser, squared error", "PCA, 50 components"):
        assert areas["globally shuffled pixels", name] > 0.99
    assert 0.6 < areas["rotated by 90 degrees", "VAE, negative ELBO"] < 1
    assert areas["blank", "VAE, deviation of find_anomalies.py"] > 0.99
    assert areas["blank", "PCA, 50 components"] < 0.5  # a score that is not two-sided
    # 7 of 9 pairs are in order. To find all three anomalies, two of three usual ones are flagged.
    found = anomaly_detection.detection(np.array([1, 2.6, 3]), np.array([2.5, 4, 5]))
    assert found == pytest.approx((7 / 9, (1 + 1 + 3 / 5) / 3, 2 / 3))


def test_pretraining(few_digits, monkeypatch):
    monkeypatch.setattr(pretraining, "LABELS", (100, 300))
    pretraining.main(SimpleNamespace(epochs=1, steps=30, draws=2))
    rows = json.loads((few_digits / "pretraining.json").read_text())
    assert list(rows) == ["100", "300", "917"]
    for row in rows.values():
        assert row["clean images"] == row["Gaussian noise"]  # here they are the same encoder
        assert row["random weights"] != row["Gaussian noise"]
        errors = [error for found in row.values() for error in found["errors"]]
        assert len(errors) == 10 and min(errors) > 0 and max(errors) < 0.9
    assert (few_digits / "images" / "pretraining.png").stat().st_size > 10000
    labels = np.arange(1000) % 10
    chosen = pretraining.draw_labelled(labels, 300, 0)
    assert np.bincount(labels[chosen]).tolist() == [30] * 10 and len(set(chosen)) == 300


def test_figures(few_digits, monkeypatch):
    for name, value in {"EPOCHS": 2, "LIMIT": 300, "FRAMES": 5}.items():
        monkeypatch.setattr(figures, name, value)
    for part in figures.PARTS.values():
        part()
    for name, frames in (("vae_forming", 2), ("vae_tour", 5)):
        with Image.open(few_digits / f"{name}.gif") as animation:
            pictures = [np.asarray(each.convert("L")) for each in ImageSequence.Iterator(animation)]
        assert len(pictures) == frames and (pictures[0] != pictures[1]).mean() > 0.001
    names = ("vae_interpolation", "vae_clusters", "denoiser_clusters", "denoised_page")
    for name in (*names, "vae_dimensions"):
        with Image.open(few_digits / f"{name}.png") as picture:
            assert np.asarray(picture.convert("L")).std() > 20
