"""The benchmarks of codes and the pictures of the documents, on models that learned something."""

import sys

import numpy as np
import pytest
from conftest import ROOT, VAE
from PIL import Image

sys.path.insert(0, str(ROOT / "benchmarks"))
import figures
import representations
import results


@pytest.fixture
def few_digits(models, tmp_path, monkeypatch):
    """Let the benchmarks use few digits, the short runs of the tests, and files of their own."""
    arrays = np.load(ROOT / "data/mnist.npz")
    digits = []
    for name in ("x_train", "y_train", "x_test", "y_test"):
        few = arrays[name][:1000]
        digits.append(np.float32(few[..., np.newaxis]) / 255 if name.startswith("x") else few)

    def train(script, *_):
        return models / ("vae" if script in VAE else "denoiser"), {}

    for module in (figures, representations):
        monkeypatch.setattr(module, "load_digits", lambda: digits)
        monkeypatch.setattr(module, "train", train)
    for name, value in {"GRAPH_IMAGES": 1000, "WORK": tmp_path, "SMOKE": ["--limit"]}.items():
        monkeypatch.setattr(representations, name, value)
    monkeypatch.setattr(representations, "relative", str)
    monkeypatch.setattr(results, "FILE", tmp_path / "results.jsonl")
    monkeypatch.setattr(figures, "IMAGES", tmp_path)
    monkeypatch.setattr(figures, "HERE", tmp_path)
    return tmp_path


def test_codes(few_digits):
    """Each task has a result for each code; what is known is not measured again."""
    for _ in range(2):
        representations.measure_codes(0)
        found = {(x["program"], x["case"]): x["metrics"]["accuracy"] for x in results.read()}
        assert len(found) == 9
        assert results.FILE.read_text().count("\n") == 9
    assert found["pixels", "linear probe, all labels"] > 0.8
    assert found["pixels", "label propagation, 100 labels"] > 0.6
    assert min(found.values()) > 0.2


def test_clusters_are_matched_to_classes():
    clusters, labels = np.array([3, 3, 5, 5, 5]), np.array([0, 0, 1, 1, 0])
    assert representations.matched_share(clusters, labels) == 0.8
    chosen = representations.choose_labelled(np.arange(1000) % 10, 30, 0)
    assert np.bincount(chosen % 10).tolist() == [30] * 10 and len(set(chosen)) == 300


def test_one_class(few_digits, monkeypatch):
    representations.measure_one_class(0)
    found = {line["program"]: line["metrics"]["auc"] for line in results.read()}
    assert found["nearest neighbours"] > 0.9 and len(found) == 2


def test_what_the_scores_of_one_class_are_made_of():
    """A stroke that is off by a pixel counts little; twice the ink gives half the score."""
    images = np.zeros((2, 28, 28, 1), np.float32)
    images[0, 10:12, 5:15] = 1
    images[1, 10:14, 5:15] = 1
    shifted = representations.error_by_ink(images, np.roll(images, 1, axis=2))
    assert (shifted < 2 / 10 / 4).all()  # 4 and 8 wrong pixels of 20 and 40
    one, two = representations.error_by_ink(images, 0 * images)
    sums = [np.sum(representations.blurred(images[[n]]) ** 2) for n in range(2)]
    assert [one, two] == pytest.approx([sums[0] / 20, sums[1] / 40])
    empty = np.zeros((1, 28, 28, 1), np.float32)
    assert representations.error_by_ink(empty, empty).tolist() == [0]  # not a division by 0
    assert np.linalg.norm(representations.unit_length(images), axis=1) == pytest.approx([1, 1])


def test_pretraining(few_digits, monkeypatch):
    monkeypatch.setattr(representations, "VALIDATION", 300)
    monkeypatch.setattr(representations, "RATES", (1e-3,))
    monkeypatch.setattr(representations, "STEPS", 100)
    monkeypatch.setattr(representations, "ENCODERS", {"random weights": [], "Gaussian noise": []})
    representations.measure_pretraining(0)
    lines = [line for line in results.read() if line["part"] == "pretraining"]
    errors = {line["case"]: line["metrics"]["error"] for line in lines}
    assert len(errors) == 2 and errors["random weights"] != errors["Gaussian noise"]
    assert min(errors.values()) > 0 and max(errors.values()) < 0.9


@pytest.mark.parametrize("part", figures.PARTS)
def test_figures(few_digits, monkeypatch, part):
    monkeypatch.setattr(results, "FILE", ROOT / "benchmarks/results.jsonl")
    figures.PARTS[part]()
    (path,) = few_digits.glob("*.png")
    with Image.open(path) as picture:
        assert np.asarray(picture.convert("L")).std() > 20
