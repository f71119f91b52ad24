"""Both scripts run as a user runs them, and all that they leave behind opened and checked."""

import ast
import csv
import json
import re
import resource
import shutil
import tomllib

import keras
import numpy as np
import pytest
from conftest import DENOISER, MODELS, ROOT, VAE, refused, run, same_end, trained
from PIL import Image

BOTH = pytest.mark.parametrize("script", [DENOISER, VAE])
VAE_PICTURES = ("latent_space", "manifold", "reconstructions", "samples", "loss")
PICTURES = {
    DENOISER: {"noisy_digits.png", "denoised_digits.png", "denoiser_loss.png"},
    VAE: {f"vae_{name}.png" for name in VAE_PICTURES},
}


MEANT_TO_DIFFER = {  # functions and settings of one name in both
    *("DESCRIPTION", "MODEL_DIR", "OTHER_MODEL", "EPOCHS", "BATCH_DIVISOR", "DECIMALS", "METRICS"),
    *("CURVES", "add_own_options", "build_encoder", "build_decoder", "learning_rate", "evaluate"),
    *("plot_all", "main"),
}


def definitions(script):
    """Return {name: (source, whether "# shared" is above)} of what a script defines."""
    source = (ROOT / script).read_text()
    lines = source.splitlines()
    found = {}
    for node in ast.parse(source).body:
        names = []
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        above = min([node.lineno, *(x.lineno for x in getattr(node, "decorator_list", []))]) - 2
        for name in names:
            text = "\n".join(lines[above + 1 : node.end_lineno])
            found[name] = text, lines[above] == "# shared"
    return found


@pytest.mark.quick
def test_what_both_scripts_need_is_the_same_line_for_line():
    one, other = definitions(DENOISER), definitions(VAE)
    shared = one.keys() & other.keys() - MEANT_TO_DIFFER
    assert len(shared) > 30 and one.keys() & other.keys() >= MEANT_TO_DIFFER
    for name in shared:
        assert one[name] == other[name], name
        is_function = one[name][0].startswith(("def ", "class ", "@"))
        assert one[name][1] == is_function, name
    marked = {name for script in (one, other) for name in script if script[name][1]}
    assert marked <= shared


def sections(script):
    """Return {title: lines} of the marked sections of a script, in their order."""
    _, *parts = re.split(r"^# ---- (.*?) -+$", (ROOT / script).read_text(), flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.mark.quick
def test_both_scripts_have_the_same_order():
    one, other = sections(DENOISER), sections(VAE)
    assert [*one] == [*other] and len(one) == 10
    assert one["Imports"] == other["Imports"]
    start = "\nif __name__"
    assert one["Main"].partition(start)[2] == other["Main"].partition(start)[2]


@pytest.mark.quick
@BOTH
def test_requirements_are_those_in_the_script(script):
    metadata = re.match(r"# /// script\n(.*?)# ///\n", (ROOT / script).read_text(), re.DOTALL)
    header = tomllib.loads(re.sub(r"^# ?", "", metadata.group(1), flags=re.MULTILINE))
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert header["dependencies"] == [line.partition("#")[0].strip() for line in lines]
    assert header["requires-python"] == ">=3.11,<3.14"


def test_screen_and_files(finished_run):
    script, folder, process = finished_run
    assert process.stderr == ""  # no chatter, no warning
    assert "posterior collapse" not in process.stdout
    names = {DENOISER: ("loss", "psnr"), VAE: ("loss", "reconstruction", "kl")}[script]
    values = [rf"{prefix}{name} \d+\.\d+" for prefix in ("", "val_") for name in names]
    assert re.search(rf"^epoch 2 of 2: {', '.join(values)}$", process.stdout, re.MULTILINE)
    assert "500 to train, 100 to validate, 100 to test\n" in process.stdout
    assert "models go to models/" in process.stdout and "expected" not in process.stdout
    assert process.stdout.splitlines()[-1].startswith("python examples/")
    assert "validation loss" in process.stdout.partition("means per test image")[2]
    written = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    models = {DENOISER: ["encoder.keras", "model.keras"], VAE: ["decoder.keras", "encoder.keras"]}
    expected = {f"images/{name}" for name in PICTURES[script]}
    for name in (*models[script], "history.csv", "metrics.json"):
        expected.add(f"{MODELS[script]}/{name}")
    assert written == expected
    for path in (folder / "images").iterdir():
        with Image.open(path) as picture:
            assert min(picture.size) > 150 and max(picture.size) > 800
            assert len(np.unique(np.asarray(picture.convert("L")))) > 20


def test_history_and_metrics(finished_run):
    script, folder, _ = finished_run
    with (folder / MODELS[script] / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(np.isfinite(float(row[key])) for row in rows for key in ("loss", "val_loss"))
    values = json.loads((folder / MODELS[script] / "metrics.json").read_text())
    assert {"seed", "parameters", "data", "batch_size", "learning_rate"} < set(values)
    assert (values["limit"], values["epochs"]) == (500, 2) and 0 < values["train_seconds"] < 60
    if script == VAE:
        assert values["negative_elbo"] == pytest.approx(values["reconstruction"] + values["kl"])
        assert values["negative_iwae_bound"] < values["negative_elbo"]


def test_saved_models_consist_of_layers_of_keras(finished_run):
    """So they open without this project, as test_learning.py tries with JAX."""
    script, folder, _ = finished_run
    paths = [*(folder / MODELS[script]).glob("*.keras")]
    models = {path.stem: keras.models.load_model(path) for path in paths}
    assert not keras.saving.get_custom_objects()
    for model in models.values():
        assert all(type(layer).__module__.startswith("keras.") for layer in model._flatten_layers())
    x = np.float32(np.load(ROOT / "data" / "mnist.npz")["x_test"][:7, ..., None] / 255)
    if script == DENOISER:
        y = models["model"].predict(x, verbose=0)
        assert models["encoder"].predict(x, verbose=0).shape == (7, 7, 7, 64)
        of_any_size = np.zeros((1, 40, 64, 1))
        assert models["model"].predict(of_any_size, verbose=0).shape == (1, 40, 64, 1)
    else:
        z_mean, z_log_sigma = models["encoder"].predict(x, verbose=0)
        assert z_mean.shape == z_log_sigma.shape == (7, 2)
        y = models["decoder"].predict(z_mean, verbose=0)
    assert y.shape == (7, 28, 28, 1) and y.min() >= 0 and y.max() <= 1 and y.std() > 0


USERS_OWN = {  # settings of matplotlib and Keras
    "matplotlibrc": "text.usetex: True\nimage.origin: lower\nsavefig.format: pdf\n"
    "figure.facecolor: black\n",
    "keras.json": '{"image_data_format": "channels_first", "floatx": "float64", "epsilon": 1e-7}',
}


def test_same_seed_same_bits_wherever_and_nothing_deleted(finished_run, tmp_path):
    """In the folder of a finished run, whose files the new run replaces.

    This time by the script alone, without the examples beside it, and with settings that a user
    may have: of Keras, matplotlib and TensorFlow, a backend that is missing, and an encoding
    without the letters of the folder.
    """
    script, folder, _ = finished_run
    home, place = tmp_path / "home", tmp_path / "łyżka"
    home.mkdir()
    shutil.copy(ROOT / script, home)
    (home / "data").symlink_to(ROOT / "data")
    for name, text in USERS_OWN.items():
        (home / name).write_text(text)
    shutil.copytree(folder / MODELS[script], place)
    (place / "mine.txt").write_text("mine")
    before = (place / "metrics.json").stat().st_mtime_ns
    own = {"KERAS_HOME": str(home), "MATPLOTLIBRC": str(home / "matplotlibrc")}
    own |= {"MPLBACKEND": "no_such_backend", "PYTHONIOENCODING": "cp1252"}
    own["TF_CPP_MIN_LOG_LEVEL"] = "0"
    words = ["--limit", 500, "--epochs", 2, "--model-dir", "łyżka"]
    process = trained(home / script, *words, cwd=tmp_path, **own)
    assert r"models go to \u0142y\u017cka" in process.stdout
    assert process.stderr != ""  # messages of native code, for those who ask
    assert (place / "metrics.json").stat().st_mtime_ns > before
    assert (place / "mine.txt").read_text() == "mine"
    (tmp_path / "models").mkdir()
    place.rename(tmp_path / MODELS[script])
    same_end(script, folder, tmp_path)
    for name in PICTURES[script]:
        one, other = folder / "images" / name, tmp_path / MODELS[script] / name
        np.testing.assert_array_equal(*(np.asarray(Image.open(path)) for path in (one, other)))


@pytest.mark.quick
@pytest.mark.parametrize("shape", [(8, 8, 1), (9, 255, 1), (256, 256, 3)])
def test_models_of_every_size_end_where_they_began(shape, denoiser, vae):
    images = np.zeros((2, *shape), np.float32)
    height, width, channels = shape
    code = denoiser.build_encoder(channels)(images[:, : height // 4 * 4, : width // 4 * 4])
    assert code.shape[1:] == (height // 4, width // 4, 64 if channels == 1 else 128)
    sides = (height // 4 * 4, width // 4 * 4)
    assert denoiser.build_decoder(channels)(code).shape[1:] == (*sides, channels)
    z_mean, z_log_sigma = vae.build_encoder(shape, 3)(images)
    assert z_mean.shape == z_log_sigma.shape == (2, 3)
    assert vae.build_decoder(shape, 3)(z_mean).shape[1:] == shape


@pytest.mark.quick
def test_the_decoder_starts_at_the_mean_of_the_pixels(vae):
    for mean, expected in ((0.3, 0.3), (0.0, 0.01)):
        vae.keras.utils.set_random_seed(0)
        logits = vae.build_decoder((28, 28, 1), 2, mean)(np.zeros((1, 2), np.float32)).numpy()
        assert np.median(1 / (1 + np.exp(-logits))) == pytest.approx(expected, rel=0.15)


@pytest.mark.quick
def test_the_denoiser_starts_at_the_mean_of_the_clean_pixels(denoiser):
    """Where the code is zero, so is all but the last layer's biases."""
    images = np.full((64, 8, 8, 1), 51, np.uint8)  # 0.2
    _, model = denoiser.build_denoiser(images, rate=0.1)
    logits = model.get_layer("decoder_logits")(np.zeros((1, 2, 2, 64), np.float32)).numpy()
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), 0.2, rtol=1e-5)


def seconds_of_commands():
    """Return the seconds that commands have computed until now: a busy machine does not matter."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@BOTH
def test_help_and_mistakes_answer_at_once(script, tmp_path):
    missing = ["--data", "no such file.npz"]
    for arguments, status in ((["--help"], 0), (["--no-such-option"], 2), (missing, 2)):
        started = seconds_of_commands()
        process = run(script, *arguments, cwd=tmp_path)
        assert process.returncode == status and seconds_of_commands() - started < 0.7
        if status:
            refused(process)
    assert not [*tmp_path.iterdir()]


@pytest.mark.quick
def test_a_script_alone_takes_its_digits_from_keras(vae, tmp_path, monkeypatch):
    """Without data/ beside it; a stand-in for Keras's download."""
    halves = [(np.full((60, 28, 28), n, np.uint8), np.arange(60) % 10) for n in (100, 200)]
    monkeypatch.setattr(vae.keras.datasets.mnist, "load_data", lambda: halves)
    monkeypatch.setattr(vae, "__file__", str(tmp_path / VAE))
    train, validation, test, labels = vae.split_images(vae.load_arrays("mnist"), "mnist")
    assert [len(part) for part in (train, validation, test, labels)] == [55, 5, 60, 60]
    assert train.max() == 100 and test.min() == 200
    np.testing.assert_array_equal(labels, halves[1][1])
