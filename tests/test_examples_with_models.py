"""The examples that use models which have learned something, and the one that trains one."""

import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT, refused
from PIL import Image, ImageSequence
from running_examples import example, module, worked


def test_codes_as_features(models, tmp_path, monkeypatch, capsys):
    with np.load(ROOT / "data" / "mnist.npz") as arrays:
        np.savez(tmp_path / "few.npz", **{name: arrays[name][:1000] for name in arrays.files})
    codes = module("codes_as_features")
    monkeypatch.setattr(codes, "DRAWS", 2)
    monkeypatch.setattr(codes, "UMAP_SEEDS", (0,))
    shutil.copytree(models, tmp_path / "models")
    folders = {"model_dir": tmp_path / "models", "images_dir": tmp_path / "new"}
    codes.main(SimpleNamespace(data=tmp_path / "few.npz", limit=800, **folders))
    assert (tmp_path / "models" / "vae10" / "encoder.keras").is_file()  # it was trained
    tables = json.loads((tmp_path / "models" / "codes_as_features.json").read_text())
    counts = {"all labels": 3, "inductive": 6, "transductive": 3, "clusters": 5}
    assert {task: len(rows) for task, rows in tables.items()} == counts
    for task, rows in tables.items():
        draws = 2 if task in ("inductive", "transductive") else 1
        assert all(len(row["accuracies"]) == draws for row in rows)
        assert all(0.1 < accuracy < 1 for row in rows for accuracy in row["accuracies"])
    for task, method, least in (
        ("all labels", "logistic regression: pixels", 0.8),
        ("inductive", "logistic regression: pixels", 0.65),
        ("transductive", "Poisson learning: pixels", 0.75),
    ):
        rows = {row["method"]: row["accuracies"] for row in tables[task]}
        assert min(rows[method]) > least
    printed = capsys.readouterr().out
    assert printed.count("\n| ") == sum(counts.values()) + 2 * 4 + 8  # heads; published rows
    for name, size in (("vae_clusters", (1200, 1200)), ("denoiser_clusters", (1170, 1040))):
        with Image.open(tmp_path / "new" / f"{name}.png") as picture:
            assert picture.size == size


def test_rows_with_umap_are_skipped_where_it_is_missing(monkeypatch, capsys):
    codes = module("codes_as_features")
    monkeypatch.setattr(codes, "find_spec", lambda name: None)
    points = np.random.default_rng(0).normal(size=(100, 2))
    rows = codes.rows_of_clusters({"pixels": points}, points, np.arange(100) % 10)
    assert len(rows) == 2 and not any("UMAP" in row["method"] for row in rows)
    assert "rows with UMAP are skipped: pip install umap-learn" in capsys.readouterr().out


def test_labels_spread_in_a_graph():
    """Two rings, one in the other, are told apart by one label each; copies do no harm."""
    codes = module("codes_as_features")
    angles = np.linspace(0, 2 * np.pi, 100, endpoint=False)
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    points = np.concatenate([ring, 2 * ring, np.repeat(ring[:1], 15, axis=0)])
    graph = codes.neighbour_graph(points)
    assert graph.dtype == np.float32  # 64 bits take five times as long
    assert abs(graph - graph.T).max() < 1e-12 and graph.max() <= 1
    found = codes.poisson_learning(graph, np.array([30, 130]), np.array([4, 7]))
    assert found.tolist() == [4] * 100 + [7] * 100 + [4] * 15
    accuracy, ari = codes.cluster_scores(np.array([3, 3, 5, 5, 5]), np.array([0, 0, 1, 1, 0]))
    assert accuracy == 0.8 and 0 < ari < 1


def test_one_digit_against_the_rest(tmp_path, monkeypatch, capsys):
    with np.load(ROOT / "data" / "mnist.npz") as arrays:
        parts = {name: arrays[name][:1500] for name in arrays.files}
    np.savez(tmp_path / "few.npz", **parts)
    one_class = module("one_class")
    monkeypatch.setattr(one_class, "DIGITS", (1, 8))
    words = ["--data", tmp_path / "few.npz", "--epochs", 20, "--output", tmp_path / "out"]
    one_class.main(one_class.parser.parse_args([str(word) for word in words]))
    rows = json.loads((tmp_path / "out" / "one_class.json").read_text())
    aucs = {row["score"]: row["auc"] for row in rows}
    assert len(aucs) == 6 and all(len(auc) == 2 for auc in aucs.values())
    neighbours = "5 nearest neighbours"
    assert min(aucs[neighbours]) > 0.7
    assert np.mean(aucs[f"{neighbours}, images of unit length"]) > np.mean(aucs[neighbours])
    assert aucs["VAE, squared error"] != aucs["VAE, squared error divided by ink"]
    assert min(aucs["VAE, squared error, blurred, divided by ink"]) > 0.6
    assert capsys.readouterr().out.count("\n| ") == 2 + 6 + 4  # a head, ours, published


def test_what_the_scores_of_one_class_are_made_of():
    one_class = module("one_class")
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


def test_latent_tour(models, tmp_path, monkeypatch):
    tour = module("latent_tour")
    points = tour.closed_path()
    steps = np.linalg.norm(np.diff(np.vstack([points, points[:1]]), axis=0), axis=1)
    assert len(points) == 150 and steps.max() < 0.13 and np.abs(points).max() < 2.5
    monkeypatch.setattr(tour, "FRAMES", 5)
    words = ["--model-dir", str(models / "vae"), "--images-dir", str(tmp_path / "new")]
    tour.main(tour.parser.parse_args(words))
    with Image.open(tmp_path / "new" / "vae_tour.gif") as animation:
        assert animation.n_frames == 5 and animation.info["loop"] == 0
    assert (tmp_path / "new" / "vae_interpolation.png").stat().st_size > 10000


def test_the_tour_needs_digits_of_every_class(models, tmp_path, capsys):
    with np.load(ROOT / "data" / "mnist.npz") as arrays:
        chosen = arrays["y_test"] != 4
        np.savez(tmp_path / "no4.npz", **{x: arrays[x][chosen] for x in ("x_test", "y_test")})
    tour = module("latent_tour")
    words = ["--model-dir", str(models / "vae"), "--data", str(tmp_path / "no4.npz")]
    with pytest.raises(SystemExit, match="2"):
        tour.main(tour.parser.parse_args(words))
    assert "no4.npz: accepted: 2 or more labels of each class" in capsys.readouterr().err


def test_compare_dimensions(models, tmp_path):
    worked("compare_dimensions", models / "vae", models / "vae", cwd=tmp_path)
    with Image.open(tmp_path / "images" / "vae_dimensions.png") as picture:
        pixels = np.asarray(picture.convert("L"))
    assert pixels.shape[1] > 1000 and pixels.std() > 60  # black tiles with white digits on white
    process = example("compare_dimensions", "nowhere", cwd=tmp_path)
    refused(process, "nowhere/encoder.keras does not exist")


def test_plane_forming(tmp_path):
    worked("plane_forming", "--limit", "300", "--epochs", "3", cwd=tmp_path)
    (path,) = tmp_path.rglob("*.*")
    assert path == tmp_path / "images" / "vae_forming.gif"
    with Image.open(path) as animation:
        assert animation.n_frames == 3
        frames = [np.asarray(frame.convert("L")) for frame in ImageSequence.Iterator(animation)]
    assert (frames[0] != frames[1]).mean() > 0.01 and (frames[1] != frames[2]).mean() > 0.01


def test_denoise_page(models, tmp_path):
    words = ["--model-dir", models / "denoiser", "--images-dir", tmp_path / "new"]
    noisy, denoised = re.findall(r": (.*) dB", worked("denoise_page", *words, cwd=tmp_path))
    assert float(noisy) == pytest.approx(9.4, abs=0.1)
    assert float(denoised) > 17  # 12 where no training batch was of mosaics
    with Image.open(tmp_path / "new" / "denoised_page.png") as picture:
        assert min(picture.size) > 390


def test_odd_ones_out(models, tmp_path):
    words = ["--limit", 300, "--model-dir", models, "--images-dir", tmp_path / "new"]
    printed = worked("odd_ones_out", *words, cwd=tmp_path)
    rows = re.findall(r"^\| (.*?) \| (.*?) \| (.*?) \| (.*?) \| (.*?) % \|$", printed, re.M)
    assert len(rows) >= 18
    areas = {(kind, score): float(area) for kind, score, area, *_ in rows}
    assert all(areas["noise of the same histogram", name] > 0.99 for name in
               ("VAE, negative ELBO", "denoiser, squared error", "PCA, 50 components"))  # fmt: skip
    assert 0.6 < areas["turned by 90 degrees", "VAE, negative ELBO"] < 1
    assert (tmp_path / "new" / "odd_ones_out.png").stat().st_size > 10000


def test_scores_and_detection_by_hand():
    odd = module("odd_ones_out")
    # 7 of 9 pairs are in order. To find all three odd ones, two of three usual ones are flagged.
    found = odd.detection(np.array([1, 2.6, 3]), np.array([2.5, 4, 5]))
    assert found == pytest.approx((7 / 9, (1 + 1 + 3 / 5) / 3, 2 / 3))

    images = np.random.default_rng(1).random((50, 2, 2, 1))
    encoder = SimpleNamespace(predict=lambda x, **_: np.zeros((2, len(x), 2)))  # the prior
    decoder = SimpleNamespace(predict=lambda z, **_: 1 / (1 + np.exp(-z[:, :1, None, None])))
    elbo, bound = odd.vae_scores(encoder, decoder, images)
    assert (bound < elbo).all()
    # Where z says nothing, both are -log p(x), here of four pixels with the probability 0.5.
    for scores in odd.vae_scores(encoder, SimpleNamespace(predict=lambda *_, **__: 0.5), images):
        assert scores == pytest.approx(4 * np.log(2))


def test_pretraining(models, tmp_path):
    """Encoders that are there are used, here twice the same one; the others are trained first."""
    shutil.copytree(models / "denoiser", tmp_path / "models" / "denoiser")
    shutil.copytree(models / "denoiser", tmp_path / "models" / "pretraining" / "clean-images")
    with np.load(ROOT / "data" / "mnist.npz") as digits:
        parts = {name: digits[name][:300] for name in digits.files}
    np.savez(tmp_path / "few.npz", **parts)
    words = ["--data", "few.npz", "--epochs", 1, "--steps", 30, "--draws", 2]
    printed = worked("pretraining", *words, cwd=tmp_path)
    trained = re.findall(r"^\$ python Stacked\S+ (.*) --data few.npz", printed, re.M)
    kinds = ("masking", "salt-and-pepper")
    assert trained == [f"--corruption {kind} --epochs 1" for kind in kinds]
    assert re.findall(r"^\| (\d+) \|", printed, re.M) == ["100", "275"]
    rows = json.loads((tmp_path / "models" / "pretraining.json").read_text())
    for row in rows.values():
        assert row["clean images"] == row["Gaussian noise"]
        assert len({tuple(found["errors"]) for found in row.values()}) == 4
        errors = [error for found in row.values() for error in found["errors"]]
        assert len(errors) == 10 and min(errors) > 0 and max(errors) < 0.9
    assert (tmp_path / "images" / "pretraining.png").stat().st_size > 10000


def test_labelled_digits_are_as_many_of_each_class():
    labels = np.arange(1000) % 10
    draw = module("pretraining").draw_labelled
    chosen = draw(labels, 300, 0)
    assert np.bincount(labels[chosen]).tolist() == [30] * 10 and len(set(chosen)) == 300
    assert set(chosen) != set(draw(labels, 300, 1))
    assert draw(labels, 1000, 0).tolist() == list(range(1000))
