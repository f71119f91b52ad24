"""Models that have learned something: their metrics, and the examples that use them."""

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import DENOISER, MODELS, ROOT, VAE, example, refused, trained, worked
from PIL import Image, ImageSequence

EXTENT = 4.2  # of the plane that the explorer shows, each way from 0
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """The folder of a run of each script that is long enough to have learned something."""
    folder = tmp_path_factory.mktemp("learned")
    for script, epochs in ((DENOISER, 2), (VAE, 5)):
        trained(script, "--limit", 10000, "--epochs", epochs, "--seed", 1, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def models(learned):
    return learned / "models"


def module(name):
    """Return an example as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_the_denoiser_denoises(learned):
    """Noisy digits have 9.4 dB, and an autoencoder of clean digits makes little more of them."""
    values = json.loads((learned / MODELS[DENOISER] / "metrics.json").read_text())
    assert values["psnr"] > values["noisy_psnr"] + 7
    assert values["psnr"] > 19.4  # 19.86 was seen here, and 18.59 with Adam and other layers


def test_the_vae_models_digits(vae, learned):
    values = json.loads((learned / MODELS[VAE] / "metrics.json").read_text())
    train, _, test, _ = vae.load_images("mnist", 10000)
    # What the best decoder gives that does not look at z: each pixel's mean over the training set.
    p = np.clip(train.mean(axis=0) / 255, 1e-6, 1 - 1e-6)
    x = test / 255
    without_z = -(x * np.log(p) + (1 - x) * np.log(1 - p)).sum(axis=(1, 2, 3)).mean()
    assert values["negative_elbo"] < without_z - 25
    assert values["kl"] > 2
    assert values["negative_elbo"] < 155  # 149 to 153 was seen here, with several seeds


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_the_python_of_the_readme_opens_the_models(learned, backend):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    code += "assert clean.shape == (10, 28, 28, 1) and new_digits.std() > 0\n"
    code += f"assert keras.backend.backend() == '{backend}'"
    code = code.replace('"data/', f'"{ROOT}/data/')
    environment = {**os.environ, "KERAS_BACKEND": backend}
    command = [sys.executable, "-c", code]
    process = subprocess.run(command, cwd=learned, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr


def test_exported_models_give_what_keras_gives(learned):
    import keras
    import onnxruntime
    from ai_edge_litert.interpreter import Interpreter

    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "examples/README.md").read_text(), re.S)
    command = [sys.executable, "-c", code + "print(models)"]
    process = subprocess.run(command, cwd=learned, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    for name, path in ast.literal_eval(process.stdout.splitlines()[-1]).items():
        model = keras.models.load_model(learned / "models" / f"{path}.keras")
        onnx = onnxruntime.InferenceSession(learned / f"{name}.onnx")
        lite = Interpreter(str(learned / f"{name}.tflite")).get_signature_runner()
        sizes = [[side or 28 for side in model.input_shape[1:]]]
        sizes += [(40, 52, 1)] if name == "denoiser" else []
        for count, size in enumerate(sizes, start=2):
            x = np.random.default_rng(0).random((count, *size), dtype=np.float32)
            by_onnx, by_lite = onnx.run(None, {model.input.name: x}), lite(**{model.input.name: x})
            expected = keras.tree.flatten(model(x))
            assert len(by_onnx) == len(by_lite) == len(expected)
            for index, wanted in enumerate(expected):
                for found in (by_onnx[index], by_lite[f"output_{index}"]):
                    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


def test_examples_import_nothing_of_the_project():
    text = "".join(path.read_text() for path in (ROOT / "examples").glob("*.py"))
    assert not re.search("sys.path|import (Stacked|Variational)|from (Stacked|Variational)", text)


def test_codes_as_features(models, tmp_path, monkeypatch, capsys):
    with np.load(ROOT / "data" / "mnist.npz") as arrays:
        np.savez(tmp_path / "few.npz", **{name: arrays[name][:1000] for name in arrays.files})
    codes = module("codes_as_features")
    monkeypatch.setattr(codes, "DRAWS", 2)
    monkeypatch.setitem(codes.matplotlib.rcParams, "savefig.bbox", None)  # which a script has set
    names = {"data": "few.npz", "output": "a/t.json", "picture": "b/clusters.png"}
    files = {option: tmp_path / name for option, name in names.items()}
    codes.main(SimpleNamespace(model_dir=models, limit=800, **files))
    rows = json.loads((tmp_path / "a" / "t.json").read_text())
    assert [row["dimensions"] for row in rows] == [784, 576, 576, 2, 2]
    printed = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("| ") for line in printed) == 2 + len(rows)
    assert rows[0]["all labels"]["nearest neighbours"] > 0.8
    assert rows[0]["100 labels"]["logistic regression"][0] > 0.5
    assert all(0.1 <= row["no labels"]["k-means"]["accuracy"] <= 1 for row in rows)
    with Image.open(tmp_path / "b" / "clusters.png") as picture:
        assert picture.size == (1200, 1200)


def test_latent_tour(models, tmp_path, monkeypatch):
    tour = module("latent_tour")
    points = tour.closed_path()
    steps = np.linalg.norm(np.diff(np.vstack([points, points[:1]]), axis=0), axis=1)
    assert len(points) == 150 and steps.max() < 0.13 and np.abs(points).max() < 2.5
    monkeypatch.setattr(tour, "FRAMES", 5)
    words = ["x", "--model-dir", str(models / "vae"), "--images-dir", str(tmp_path / "new")]
    monkeypatch.setattr(sys, "argv", words)
    tour.main(tour.parse_options())
    with Image.open(tmp_path / "new" / "vae_tour.gif") as animation:
        assert animation.n_frames == 5 and animation.info["loop"] == 0
    assert (tmp_path / "new" / "vae_interpolation.png").stat().st_size > 10000


def test_compare_dimensions(models, tmp_path):
    worked("compare_dimensions", models / "vae", models / "vae", "--output", "a.png", cwd=tmp_path)
    with Image.open(tmp_path / "a.png") as picture:
        pixels = np.asarray(picture.convert("L"))
    assert pixels.shape[1] > 1000 and pixels.std() > 60  # black tiles with white digits on white
    process = example("compare_dimensions", "nowhere", cwd=tmp_path)
    refused(process, "nowhere/encoder.keras does not exist")


def test_plane_forming(tmp_path):
    words = ["--limit", "300", "--epochs", "3", "--output", "forming.gif"]
    worked("plane_forming", *words, cwd=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["forming.gif"]
    with Image.open(tmp_path / "forming.gif") as animation:
        assert animation.n_frames == 3
        frames = [np.asarray(frame.convert("L")) for frame in ImageSequence.Iterator(animation)]
    assert (frames[0] != frames[1]).mean() > 0.01 and (frames[1] != frames[2]).mean() > 0.01


@pytest.fixture(scope="module")
def browser():
    if BROWSER is None:
        pytest.skip("no Chromium on this machine, and .ci/run could not install one")
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    quiet = ["quic", "background-networking", "component-update", "sync", "gpu"]
    flags = ["--no-sandbox", "--no-first-run", *(f"--disable-{each}" for each in quiet)]
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=flags)
        yield browser
        browser.close()


def opened(browser, path):
    """Return the page of a file in a browser without a network, with what its console says."""
    assert path.stat().st_size < 3e6
    window = {"width": 1100, "height": 900}
    page = browser.new_context(viewport=window, offline=True, has_touch=True).new_page()
    page.messages, page.requests = [], []
    page.on("console", lambda message: page.messages.append(message.text))
    page.on("pageerror", lambda error: page.messages.append(str(error)))
    page.on("request", lambda request: page.requests.append(request.url))
    page.goto(path.as_uri())
    page.wait_for_selector("body[data-ready]")
    return page


def fits_a_phone_in_the_dark(page):
    """Assert that, and that the page has neither asked the network nor said anything."""
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(22, 22, 24)"
    assert page.messages == []
    assert all(url.startswith(("file:", "data:")) for url in page.requests)


@pytest.fixture(scope="module")
def page(browser, models, tmp_path_factory):
    """The explorer of the latent plane."""
    path = tmp_path_factory.mktemp("page") / "explorer é.html"
    worked("latent_explorer", "--model-dir", models / "vae", "--output", path, cwd=path.parent)
    return opened(browser, path)


def canvas(page, name):
    """Return the grey pixels of a canvas of a digit, (28, 28), from 0 to 255."""
    code = "n => [...document.getElementById(n).getContext('2d').getImageData(0, 0, 28, 28).data]"
    return np.array(page.evaluate(code, name)).reshape(28, 28, 4)[..., 0]


def hover(page, z):
    """Move the mouse to a point of the plane, and return the point that the page says it is at."""
    box = page.locator("#plane").bounding_box()
    x, y = (0.5 + z[0] / EXTENT / 2) * box["width"], (0.5 - z[1] / EXTENT / 2) * box["height"]
    page.mouse.move(box["x"] + x, box["y"] + y)
    return position(page)


def position(page):
    text = page.locator("#position").inner_text()
    return tuple(float(number) for number in text.strip("z= ()").split(","))


def test_the_digit_is_the_decoders(page, models):
    """Blended between tiles in 64 greys: 1.5 of 255 on average and 25 at most off the decoder's."""
    import keras

    decoder = keras.models.load_model(models / "vae" / "decoder.keras")
    elsewhere = 255 * decoder(np.array([(2, 0), (-2, 0), (0, 2), (0, -2)])).numpy()[..., 0]
    for z in [(0, 0), (0.7, -0.4), (-1.3, 0.9), (2.1, 2.1), (-3.0, 1.5)]:
        at = hover(page, z)
        assert at == pytest.approx(z, abs=0.02)
        difference = np.abs(canvas(page, "digit") - 255 * decoder(np.array([at]))[0, ..., 0])
        assert difference.mean() < 1.5 and difference.max() < 25
        others = np.abs(canvas(page, "digit") - elsewhere).mean(axis=(1, 2))
        assert others.max() > 4 * difference.mean()  # so the agreement is with this place's digit


def test_a_damaged_page_says_so(browser, tmp_path):
    text = (ROOT / "images" / "vae_explorer.html").read_text()
    (tmp_path / "page.html").write_text(text.replace("data:image/png;base64,", "data:image/png,"))
    page = browser.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    page.wait_for_function(
        "document.getElementById('about').textContent.includes('cannot be shown')"
    )


def test_pointing_at_a_test_digit(page, models):
    import keras

    points = np.array(page.evaluate("DATA.points"))
    distances = np.linalg.norm(points[:, None, :2] - points[None, :, :2], axis=2)
    shown = np.abs(points[:, :2]).max(axis=1) < EXTENT
    alone = np.argmax(np.sort(distances)[:, 1] * shown)
    hover(page, points[alone, :2])
    with np.load(ROOT / "data" / "mnist.npz") as arrays:
        digit, label = arrays["x_test"][alone], arrays["y_test"][alone]
    assert np.abs(canvas(page, "original") - digit.astype(int)).max() <= 4
    decoder = keras.models.load_model(models / "vae" / "decoder.keras")
    expected = 255 * decoder(points[alone : alone + 1, :2]).numpy()[0, ..., 0]
    assert np.abs(canvas(page, "reconstruction") - expected).mean() < 3
    assert page.locator("#about").inner_text() == f"Test digit of class {label}."

    button = page.get_by_role("button", name=f"Show class {label}")
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    button.click()


def test_keys_and_fingers_in_the_dark_without_a_network(page):
    x, y = hover(page, (0.5, 0.5))
    for key, (right, up) in {"ArrowRight": (0.05, 0), "Shift+ArrowDown": (0.05, -0.25)}.items():
        page.keyboard.press(key)
        assert position(page) == pytest.approx((x + right, y + up), abs=0.0021)
    box = page.locator("#plane").bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert position(page) == pytest.approx((0, 0), abs=0.02)
    fits_a_phone_in_the_dark(page)


def denoiser_page(browser, folder, tmp_path):
    """Return the opened page of a denoiser, and noisy digits of which both make the same images."""
    import keras

    worked("denoiser_page", "--model-dir", folder, "--output", "é.html", cwd=tmp_path)
    page = opened(browser, tmp_path / "é.html")
    with np.load(ROOT / "data" / "mnist.npz") as arrays:
        digits = arrays["x_test"][:20] / 255
    noisy = np.clip(digits + np.random.default_rng(0).normal(0, 0.5, digits.shape), 0, 1)
    expected = keras.models.load_model(folder / "model.keras")(noisy[..., None]).numpy()
    assert expected.std() > 0.05
    for image, wanted in zip(noisy, expected, strict=True):
        found = page.evaluate("x => Array.from(denoise(x))", image.ravel().tolist())
        assert np.abs(np.reshape(found, (28, 28, 1)) - wanted).max() < 0.01
    return page, noisy


def test_another_denoiser_runs_in_the_browser(browser, tmp_path):
    """One with a nested model, skips, a layer without bias, and kernels of an even size."""
    import keras
    from keras.layers import Activation, Add, Conv2D, Conv2DTranspose

    keras.utils.set_random_seed(0)
    image, code = keras.Input((None, None, 1)), keras.Input((None, None, 4))
    convolved = Conv2D(4, 2, padding="same", activation="relu", use_bias=False)(code)
    nested = keras.Model(code, Add()([code, convolved]))
    x = nested(Conv2D(4, 4, strides=2, padding="same", bias_initializer="ones")(image))
    x = Add()([image, Conv2DTranspose(1, 3, strides=2, padding="same")(x)])
    keras.Model(image, Activation("sigmoid")(x)).save(tmp_path / "model.keras")
    denoiser_page(browser, tmp_path, tmp_path)


def test_the_denoiser_runs_in_the_browser(browser, models, tmp_path):
    """The page's output is the model's, it is fast, and it follows what a person does."""
    page, noisy = denoiser_page(browser, models / "denoiser", tmp_path)
    code = "x => { const t = performance.now(); for (let i = 0; i < 20; i++) denoise(x); return "
    code += "(performance.now() - t) / 20; }"
    assert min(page.evaluate(code, noisy[0].ravel().tolist()) for _ in range(3)) < 100  # ms

    def changes(act, *names):
        before = {name: canvas(page, name) for name in ("pad", "noisy", "denoised")}
        act()
        page.evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout(done)))")
        after = {name: (canvas(page, name) != image).any() for name, image in before.items()}
        assert {name for name, changed in after.items() if changed} == set(names)

    everything = ("pad", "noisy", "denoised")
    changes(lambda: page.get_by_role("button", name="Test digit 2, a 2").click(), *everything)
    changes(lambda: page.keyboard.press("ArrowDown"), *everything)
    label = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert label == "Test digit 22, a 6"
    changes(lambda: page.keyboard.press("Shift+N"), "noisy", "denoised")
    changes(lambda: page.locator("#noise").fill("0.2"), "noisy", "denoised")
    box = page.locator("#pad").bounding_box()
    x, y, size = box["x"], box["y"], box["width"]

    def draw(left=0.5, **button):
        page.mouse.move(x + left * size, y + size / 4)
        page.mouse.down(**button)
        page.mouse.move(x + size / 2, y + 3 * size / 4, steps=5)
        page.mouse.up(**button)

    def drag():
        touch = page.context.new_cdp_session(page)
        a, b = ({"x": x + left * size, "y": y + size / 5, "id": 1} for left in (0.1, 0.3))
        other = {"x": x + 0.9 * size, "y": y + size / 2, "id": 2}  # a second finger
        for kind, points in {"Start": [a, other], "Move": [b, other], "End": []}.items():
            touch.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})

    changes(lambda: draw(button="right"))
    changes(lambda: draw(left=-0.1))  # from outside the pad
    changes(draw, *everything)
    pad = canvas(page, "pad")
    assert pad[7:21, 13:15].min() > 150 and pad[:, :10].max() == 0  # the 6 has gone
    changes(drag, *everything)
    pad = canvas(page, "pad")
    assert pad[5, 3:8].min() > 150 and pad[:, 18:].max() == 0
    changes(lambda: page.keyboard.press("c"), *everything)
    assert "denoised" in page.locator("#result").inner_text()
    fits_a_phone_in_the_dark(page)


def test_models_that_the_page_cannot_run(tmp_path, capsys):
    from keras import Input, Model, Sequential, layers

    image, layer = Input((28, 28, 1)), layers.Conv2D(1, 3, padding="same")
    pooled = layers.MaxPooling2D(2, strides=1, padding="same")(image)
    oblong = layers.Conv2D(1, (3, 1), padding="same")(image)
    two, shared, operation = [image, layer(image)], layer(layer(image)), layer(image) + image
    models = [Model(image, each) for each in (pooled, oblong, two, shared, operation)]
    page, options = module("denoiser_page"), {"model_dir": tmp_path, "output": tmp_path / "x.html"}
    for model in [*models, Sequential([image, layer])]:
        model.save(tmp_path / "model.keras")
        with pytest.raises(SystemExit, match="2"):
            page.main(SimpleNamespace(**options))
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.startswith("error: ") and len(last) < 300
    assert not (tmp_path / "x.html").exists()


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
