"""The uses of the models: pictures generated, encoded and scored, as commands run by a user."""

import ast
import csv
import json
import shutil
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from conftest import ROOT, VAE, refused
from PIL import Image
from running_examples import FOLDER, example, module, ran, worked

NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "pictures")
MNIST = ROOT / "data" / "mnist.npz"


def pixels_of(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


# ---- All of them ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_help_and_mistakes_need_no_tensorflow(name, tmp_path):
    for package in ("keras", "tensorflow"):
        (tmp_path / f"{package}.py").write_text("raise ImportError('slow')")
    settings = {"cwd": tmp_path, "PYTHONPATH": str(tmp_path)}
    process = example(name, "--help", **settings)
    assert process.returncode == 0 and process.stdout.startswith("usage: ")
    assert f"python examples/{name}.py" in process.stdout
    refused(example(name, "--no-such-option", **settings))


@pytest.mark.parametrize("words, text", [
    ("clean_documents degrade none --output out", "must be a folder of pictures, found none"),
    ("clean_documents train --output .", "--output must be a new folder, found ."),
    ("denoiser_page --output a.npz", "a.npz exists; --force overwrites it"),
    ("denoiser_page --model-dir none", "none/model.keras must be a saved model, found: File not"),
    ("encode_pictures a.npz --output a.npz", "a.npz exists; --force overwrites it"),
    ("encode_pictures a.npz --output a.txt", "must end in .npz or .csv, found a.txt"),
    ("find_anomalies a.npz --output out --false-alarms 1", "below 1, found 1.0"),
    ("find_anomalies a.npz --output out --model-dir none", "none/metrics.json"),
    ("generate_pictures --output out --count 0", "--count must be 1 or more, found 0"),
    ("generate_pictures --output out --from a.png", "must be given together, found one"),
    ("latent_explorer --output a.npz", "a.npz exists; --force overwrites it"),
    ("latent_explorer --model-dir wide", "wide must have --latent-dim 2, found 16"),
])  # fmt: skip
def test_mistakes_are_one_line(words, text, tmp_path):
    np.savez(tmp_path / "a.npz", x_train=np.zeros((3, 8, 8), np.uint8))
    (tmp_path / "wide").mkdir()
    (tmp_path / "wide" / "metrics.json").write_text('{"latent_dim": 16}')
    refused(example(*words.split(), cwd=tmp_path), text)
    assert not (tmp_path / "out").exists()


def test_what_tensorflow_prints_is_shown_if_asked_for(tmp_path):
    """Otherwise it is hidden, except for a crash of native code."""
    words = ["--output", "out", "--model-dir", "none"]
    quiet = example("generate_pictures", *words, cwd=tmp_path)
    refused(quiet, "none/")
    shown = example("generate_pictures", *words, cwd=tmp_path, TF_CPP_MIN_LOG_LEVEL="0")
    assert shown.returncode == 2 and "cpu_feature_guard" in shown.stderr
    (tmp_path / "keras.py").write_text("import os; os.abort()")
    crashed = example("generate_pictures", *words, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert crashed.returncode < 0 and "Fatal Python error: Aborted" in crashed.stderr
    assert "keras.py" in crashed.stderr


def test_what_the_examples_import_of_the_project():
    project = {path.stem for path in (*ROOT.glob("*.py"), *ROOT.glob("*/*.py"))}
    allowed = {"pictures", "encode_pictures", VAE.removesuffix(".py")}
    for path in FOLDER.glob("*.py"):
        imported = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                imported.add(node.module)
            elif isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
        assert imported & project <= allowed, path


# ---- encode_pictures.py --------------------------------------------------------------------------


def test_encoded_images(colour, tmp_path):
    words = ["own.npz", "--model-dir", "own/vae", "--output", tmp_path / "codes.npz"]
    ran("encode_pictures", *words, cwd=colour)
    images = np.load(colour / "own.npz")["x_train"]
    encoder = keras.models.load_model(colour / "own/vae/encoder.keras")
    z_mean, z_log_sigma = encoder.predict(np.float32(images) / 255, verbose=0)
    codes = np.load(tmp_path / "codes.npz")
    np.testing.assert_allclose(codes["z_mean"], z_mean, atol=1e-4)
    np.testing.assert_allclose(codes["z_log_sigma"], z_log_sigma, atol=1e-4)
    assert codes["names"][7] == "x_train[7]" and len(codes["labels"]) == 60
    refused(example("encode_pictures", *words, cwd=colour), "codes.npz exists; --force")

    words = ["photos", "--model-dir", "own/vae", "--output", tmp_path / "new" / "codes.csv"]
    worked("encode_pictures", *words, cwd=colour)
    with (tmp_path / "new" / "codes.csv").open(encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["0.png", "1.png", "2.png", "3.png"]
    assert rows[1]["label"] == "photos" and len(rows[1]) == 2 + 2 * 16
    assert float(rows[1]["z_mean[15]"]) == pytest.approx(z_mean[1, 15], abs=1e-4)


@pytest.mark.parametrize("arrays, text", [
    ({"z_mean": np.zeros((5, 2))}, "must have x_train, x_val or x_test, found z_mean"),
    ({"x_test": np.zeros((5, 8, 9))}, "x_test must have images (8, 8, 1), found (8, 9, 1)"),
    (None, "must be a picture, a folder or an .npz file, found: "),
])  # fmt: skip
def test_data_that_a_model_cannot_take(arrays, text, tmp_path, capsys):
    path = tmp_path / "a.npz"
    if arrays:
        np.savez(path, **arrays)
    else:
        path.write_text("no archive")
    with pytest.raises(SystemExit, match="2"):
        module("encode_pictures").read_parts(path, (8, 8, 1))
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and text in error


# ---- generate_pictures.py ------------------------------------------------------------------------


def test_generated_pictures(colour, tmp_path):
    words = ["--model-dir", "own/vae", "--output", tmp_path / "new"]
    ran("generate_pictures", *words, "--count", 10, cwd=colour)
    files = sorted((tmp_path / "new").iterdir())
    assert [path.name for path in files] == [f"sample-{number:02}.png" for number in range(1, 11)]
    pictures = [pixels_of(path) for path in files]
    assert {picture.shape for picture in pictures} == {(64, 48, 3)}
    assert len({picture.tobytes() for picture in pictures}) == 10
    process = example("generate_pictures", *words, "--count", 10, cwd=colour)
    refused(process, "sample-01.png exists; --force")
    worked("generate_pictures", *words, "--count", 10, "--force", "--seed", 1, cwd=colour)
    assert (pixels_of(files[0]) != pictures[0]).any()


def test_interpolation_and_tour(colour, tmp_path):
    words = ["--model-dir", "own/vae", "--output", tmp_path]
    ends = ["--from", "photos/0.png", "--to", "photos/1.png"]
    worked("generate_pictures", *words, *ends, cwd=colour)
    row = pixels_of(tmp_path / "interpolation.png")
    assert row.shape == (64, 16 * 48, 3)
    for tile, name in ((row[:, :48], "0"), (row[:, -48:], "1")):
        difference = tile.astype(int) - pixels_of(colour / "photos" / f"{name}.png")
        assert np.abs(difference).max() <= 1
    worked("generate_pictures", *words, "--tour", cwd=colour)
    with Image.open(tmp_path / "tour.gif") as animation:
        assert animation.n_frames > 100 and animation.info["loop"] == 0
        assert animation.size == (4 * 48, 4 * 64)


def test_a_tour_is_a_smooth_closed_path_past_its_stops(monkeypatch):
    generate = module("generate_pictures")
    paths = []

    def decode(_, z):
        paths.append(z)
        return np.repeat(np.uint8([[[[0]]], [[[200]]], [[[255]]]]), 64, axis=1).reshape(3, 8, 8, 1)

    monkeypatch.setattr(generate, "decode", decode)
    stops = np.random.default_rng(0).normal(size=(8, 5))
    frames = generate.tour(None, stops)
    brightness = [np.asarray(frame.convert("L")).mean() for frame in frames]
    assert brightness == pytest.approx([0, 200, 255], abs=4)
    (path,) = paths
    np.testing.assert_allclose(path[:: generate.FRAMES // 8], stops, atol=1e-9)
    bends = np.linalg.norm(np.diff([*path, *path[:2]], n=2, axis=0), axis=1)
    assert bends.max() < 4 * np.median(bends)


# ---- find_anomalies.py ---------------------------------------------------------------------------


def rows_of(folder):
    with (folder / "anomalies.csv").open(encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def test_anomalies_are_found_on_either_side_and_shown(colour, tmp_path):
    shutil.copytree(colour / "photos", tmp_path / "new")
    noise = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "new" / "noise.png")
    Image.new("RGB", (48, 64)).save(tmp_path / "new" / "blank.png")
    words = [tmp_path / "new", "--model-dir", "own/vae", "--output", tmp_path / "out"]
    text = ran("find_anomalies", *words, cwd=colour)
    assert "of 4 validation images" in text and "more validation images" in text
    rows = rows_of(tmp_path / "out")
    assert {rows[0]["name"], rows[1]["name"]} == {"noise.png", "blank.png"}
    assert f"  {float(rows[0]['deviation']):.2f}  {rows[0]['name']}\n" in text
    far = [float(row["deviation"]) for row in rows]
    assert far == sorted(far, reverse=True) and far[1] > 2 * far[2]
    assert [row["anomaly"] == "True" for row in rows] == [value > 1 for value in far]
    by_name = {row["name"]: row for row in rows}
    assert float(by_name["blank.png"]["brightness"]) == 0
    sheet = pixels_of(tmp_path / "out" / "anomalies.png")
    assert sheet.shape[1] == 1300 and sheet.std() > 20
    refused(example("find_anomalies", *words, cwd=colour), "anomalies.csv exists; --force")


def test_pictures_of_the_training_are_named(colour, tmp_path):
    words = ["own.npz", "--model-dir", "own/vae", "--output", tmp_path]
    text = worked("find_anomalies", *words, cwd=colour)
    metrics = json.loads((colour / "own/vae/metrics.json").read_text())
    assert metrics["data"] == str(colour / "own.npz")
    known = [row["name"] for row in rows_of(tmp_path) if row["was trained on"] == "True"]
    assert len(known) == 50  # 60 less a tenth for the test and a twelfth of the rest
    assert "warning: 50 pictures were trained on" in text


def test_the_images_of_the_training_are_needed(colour, tmp_path):
    shutil.copytree(colour / "own", tmp_path / "own")
    path = tmp_path / "own" / "vae" / "metrics.json"
    record = json.loads(path.read_text()) | {"data": str(tmp_path / "own.npz")}
    path.write_text(json.dumps(record))
    words = [colour / "photos", "--model-dir", "own/vae", "--output", "out"]
    refused(example("find_anomalies", *words, cwd=tmp_path), "images of the training", "own.npz")
    np.savez(tmp_path / "own.npz", x_train=np.load(colour / "own.npz")["x_train"][::-1])
    reason = "own.npz must have the images of the training of own/vae, found others"
    refused(example("find_anomalies", *words, cwd=tmp_path), reason)
    assert not (tmp_path / "out").exists()


def test_scores_and_deviations_by_hand(capsys):
    find = module("find_anomalies")
    images = np.random.default_rng(1).integers(0, 2, (50, 2, 2, 1)).astype(np.float32)
    prior = SimpleNamespace(predict=lambda x, **_: np.zeros((2, len(x), 3)))
    half = SimpleNamespace(predict=lambda z, **_: np.full((len(z), 2, 2, 1), 0.5))
    score, brightness, decoded = find.measure(prior, half, images)
    # z says nothing; four pixels of 0 or 1, which have no entropy, have the probability 0.5 each.
    assert score == pytest.approx(4 * np.log(2), abs=1e-3)
    assert find.measure(prior, half, 0 * images + 0.5)[0] == pytest.approx(0, abs=1e-6)
    assert brightness == pytest.approx(images.mean(axis=(1, 2, 3))) and (decoded == 0.5).all()
    one = SimpleNamespace(predict=lambda x, **_: np.ones((2, len(x), 1)))
    kl = (1 + np.e**2) / 2 - 1 - 0.5  # of N(1, e^2) to the prior
    assert find.measure(one, half, images)[0] == pytest.approx(4 * np.log(2) + kl, abs=1e-3)
    usual = np.arange(101.0)
    found = find.deviations("score", np.array([50, 100, 0, 150, -50]), usual, 1e-9)
    assert found == pytest.approx([0, 1, -1, 2, -2])
    found = find.deviations("score", np.array([50, 90, 0]), usual, 0.2)
    assert found == pytest.approx([0, 1, -1.25])
    of_score = np.array([0.5, 0.5, 0.5, 2, -0.5, -3])
    of_brightness = np.array([0.9, 1.5, -1.5, 1.5, 0, 0])
    assert find.combined(of_score, of_brightness).tolist() == [0.5, 1.5, 1.5, 2, -0.5, 3]
    assert "usual score: 10 to 90, of 101 validation images" in capsys.readouterr().out
