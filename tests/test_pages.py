"""The two web pages, in a browser where there is one."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlparse

import numpy as np
import pytest
from conftest import ROOT
from running_examples import module, ran, worked

EXTENT = 4.2  # of the latent space that the explorer shows, each way from 0
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


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
    folder = tmp_path_factory.mktemp("page") / "explorer é"
    folder.mkdir()
    words = ["--model-dir", models / "vae", "--output", folder / "vae_explorer.html"]
    ran("latent_explorer", *words, cwd=folder.parent)
    return opened(browser, folder / "vae_explorer.html")


def canvas(page, name):
    """Return the gray pixels of a canvas of a digit, (28, 28), from 0 to 255."""
    code = "n => [...document.getElementById(n).getContext('2d').getImageData(0, 0, 28, 28).data]"
    return np.array(page.evaluate(code, name)).reshape(28, 28, 4)[..., 0]


def hover(page, z):
    """Move the mouse to a point of the latent space; return the point that the page says."""
    box = page.locator("#plane").bounding_box()
    x, y = (0.5 + z[0] / EXTENT / 2) * box["width"], (0.5 - z[1] / EXTENT / 2) * box["height"]
    page.mouse.move(box["x"] + x, box["y"] + y)
    return position(page)


def position(page):
    text = page.locator("#position").inner_text()
    return tuple(float(number) for number in text.strip("z= ()").split(","))


def test_the_decoded_image_is_the_decoders(page, models):
    """Blended between tiles, which are compressed: 1.5 of 255 on average and 25 at most off."""
    import keras

    decoder = keras.models.load_model(models / "vae" / "decoder.keras")
    elsewhere = 255 * decoder(np.array([(2, 0), (-2, 0), (0, 2), (0, -2)])).numpy()[..., 0]
    for z in [(0, 0), (0.7, -0.4), (-1.3, 0.9), (2.1, 2.1), (-3.0, 1.5)]:
        at = hover(page, z)
        assert at == pytest.approx(z, abs=0.02)
        difference = np.abs(canvas(page, "decoded") - 255 * decoder(np.array([at]))[0, ..., 0])
        assert difference.mean() < 1.5 and difference.max() < 25
        others = np.abs(canvas(page, "decoded") - elsewhere).mean(axis=(1, 2))
        assert others.max() > 4 * difference.mean()  # so the agreement is with this place's digit


def test_a_damaged_page_says_so(browser, page, tmp_path):
    text = Path(unquote(urlparse(page.url).path)).read_text(encoding="utf-8")
    (tmp_path / "page.html").write_text(text.replace("data:image/webp;base64,", "data:image/webp,"))
    damaged = browser.new_page()
    damaged.goto((tmp_path / "page.html").as_uri())
    damaged.wait_for_function(
        "document.getElementById('about').textContent.includes('cannot be shown')"
    )


def test_labels_are_text_and_any_number_of_images_fits(browser, models, tmp_path):
    """137 digits, which do not fill the last row, with labels that would end a script element."""
    names = np.array(["</script><script>document.body.dataset.broken='yes'</script>", "b & <b>"])
    with np.load(ROOT / "data" / "mnist.npz") as arrays:
        labels = names[arrays["y_test"][:137] % 2]
        few = {"x_test": arrays["x_test"][:137], "y_test": labels}
    few["names_test"] = np.array([f"{number}<b>.png" for number in range(137)])
    np.savez(tmp_path / "few.npz", **few)
    words = ["--model-dir", models / "vae", "--data", "few.npz"]
    worked("latent_explorer", *words, cwd=tmp_path)
    page = opened(browser, tmp_path / "vae_explorer.html")
    assert page.evaluate("document.body.dataset.broken") is None
    assert page.locator("#classes button").all_inner_texts() == sorted(names)
    points = np.array(page.evaluate("DATA.points"))
    assert len(points) == 137
    shown = np.abs(points[:, :2]).max(axis=1) < EXTENT
    last = np.flatnonzero(shown)[-1]  # in the row that is not full
    assert last >= 100
    page.evaluate("i => moveTo(...DATA.points[i])", int(last))
    assert page.locator("#about").inner_text() == f"{last}<b>.png, of class {labels[last]}"
    with np.load(ROOT / "data" / "mnist.npz") as arrays:
        assert np.abs(canvas(page, "original") - arrays["x_test"][last].astype(int)).max() <= 24
    page.get_by_role("button", name=f"Show class {labels[last]}").click()
    assert page.evaluate("shown") == [name != labels[last] for name in sorted(names)]
    fits_a_phone_in_the_dark(page)


def test_pointing_at_a_test_image(page, models):
    import keras

    points = np.array(page.evaluate("DATA.points"))
    distances = np.linalg.norm(points[:, None, :2] - points[None, :, :2], axis=2)
    shown = np.abs(points[:, :2]).max(axis=1) < EXTENT
    alone = np.argmax(np.sort(distances)[:, 1] * shown)
    hover(page, points[alone, :2])
    with np.load(ROOT / "data" / "mnist.npz") as arrays:
        digit, label = arrays["x_test"][alone], arrays["y_test"][alone]
    original, reconstruction = (
        canvas(page, name).astype(float) for name in ("original", "reconstruction")
    )
    assert np.abs(original - digit).max() <= 24 and np.abs(original - digit).mean() < 1
    decoder = keras.models.load_model(models / "vae" / "decoder.keras")
    expected = 255 * decoder(points[alone : alone + 1, :2]).numpy()[0, ..., 0]
    assert np.abs(reconstruction - expected).mean() < 3
    assert page.locator("#about").inner_text() == f"x_test[{alone}], of class {label}"
    residual = original - reconstruction
    largest = np.abs(residual).max()  # which is black or white
    assert page.locator("#scale").inner_text() == f"residual, ±{largest / 255:.2f}"
    np.testing.assert_allclose(canvas(page, "residual"), 127.5 * (1 + residual / largest), atol=2)

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


def test_an_explorer_of_oblong_rgb_images(browser, tmp_path):
    import keras
    from keras import layers

    images = np.random.default_rng(0).integers(0, 256, (40, 12, 20, 3), dtype=np.uint8)
    images[:, 4:8, 5:15] = [250, 120, 10]
    np.savez(tmp_path / "own.npz", x_train=images)
    image, z = keras.Input((12, 20, 3)), keras.Input((2,))
    flat = layers.Flatten()(image)
    codes = [layers.Dense(2, kernel_initializer="zeros")(flat) for _ in range(2)]
    keras.Model(image, codes).save(tmp_path / "encoder.keras")
    pixels = layers.Dense(12 * 20 * 3, activation="sigmoid")(z)
    keras.Model(z, layers.Reshape((12, 20, 3))(pixels)).save(tmp_path / "decoder.keras")
    worked("latent_explorer", "--data", "own.npz", "--model-dir", ".", cwd=tmp_path)
    page = opened(browser, tmp_path / "vae_explorer.html")
    assert page.locator(".kind").all_inner_texts() == ["training image", "training image"]
    page.evaluate("moveTo(...DATA.points[0])")
    code = "n => [...document.getElementById(n).getContext('2d').getImageData(10, 6, 1, 1).data]"
    assert page.evaluate(code, "original")[:3] == pytest.approx([250, 120, 10], abs=25)
    assert page.evaluate("decoded.width / decoded.height") == pytest.approx(20 / 12)
    assert page.locator("#classes button").count() == 0  # there are no labels
    fits_a_phone_in_the_dark(page)


def denoiser_page(browser, folder, tmp_path):
    """Return the opened page of a denoiser, and noisy digits of which both make the same images."""
    import keras

    ran("denoiser_page", "--model-dir", folder, "--output", "é.html", cwd=tmp_path)
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
    """One with marks of its pixels, a nested model, skips, no bias, and kernels of an even size."""
    import keras
    from keras.layers import Activation, Add, Concatenate, Conv2D, Conv2DTranspose, ReLU, Rescaling

    keras.utils.set_random_seed(0)
    image, code = keras.Input((None, None, 1)), keras.Input((None, None, 4))
    convolved = Conv2D(4, 2, padding="same", activation="relu", use_bias=False)(code)
    nested = keras.Model(code, Add()([code, convolved]))
    marks = [ReLU()(Rescaling(-50, 1)(image)), ReLU()(Rescaling(50, -49)(image))]
    x = Concatenate()([image, *marks])
    x = nested(Conv2D(4, 4, strides=2, padding="same", bias_initializer="ones")(x))
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


def test_models_that_the_page_cannot_run(browser, tmp_path, capsys):
    """A kind of layer that is not known is rejected; a page that computes otherwise says so."""
    from keras import Input, Model, Sequential, layers

    image, layer = Input((28, 28, 1)), layers.Conv2D(1, 3, padding="same")
    pooled = layers.MaxPooling2D(2, strides=1, padding="same")(image)
    two, shared, operation = [image, layer(image)], layer(layer(image)), layer(image) + image
    models = [Model(image, each) for each in (pooled, two, shared, operation)]
    page, options = module("denoiser_page"), {"model_dir": tmp_path, "output": tmp_path / "a.html"}
    for model in [*models, Sequential([image, layer])]:
        model.save(tmp_path / "model.keras")
        with pytest.raises(SystemExit, match="2"):
            page.main(SimpleNamespace(**options))
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.startswith("error: ") and len(last) < 300
    assert not (tmp_path / "a.html").exists()
    oblong = layers.Conv2D(1, (3, 1), padding="same")(image)
    Model(image, oblong).save(tmp_path / "model.keras")
    page.main(SimpleNamespace(**options))
    opened_page = browser.new_page()
    opened_page.goto((tmp_path / "a.html").as_uri())
    text = "document.getElementById('result').textContent.includes('does not work')"
    opened_page.wait_for_function(text)
