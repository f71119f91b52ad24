"""Models that have learned something: their metrics, and whether they open elsewhere."""

import ast
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import skimage
from conftest import DENOISER, MODELS, ROOT, VAE, mnist, trained


def test_the_denoiser_denoises(learned):
    """Noisy digits have 9.4 dB, and an autoencoder of clean digits makes little more of them."""
    values = json.loads((learned / MODELS[DENOISER] / "metrics.json").read_text())
    assert values["psnr"] > values["noisy_psnr"] + 7
    assert values["psnr"] > 19.4  # 19.86 was seen here, and 18.59 with Adam and other layers


def test_the_vae_models_digits(vae, learned):
    values = json.loads((learned / MODELS[VAE] / "metrics.json").read_text())
    train, _, test, _ = mnist(vae, 10000)
    # What the best decoder gives that does not look at z: each pixel's mean over the training set.
    p = np.clip(train.mean(axis=0) / 255, 1e-6, 1 - 1e-6)
    x = test / 255
    without_z = -(x * np.log(p) + (1 - x) * np.log(1 - p)).sum(axis=(1, 2, 3)).mean()
    assert values["negative_elbo"] < without_z - 25
    assert values["kl"] > 2
    assert values["negative_elbo"] < 153  # 148 was seen here with three seeds, 149 to 153 before


def test_a_plane_of_few_photographs(tmp_path):
    """With a start at biases of zero, and sines twice as fast, the KL term fell to zero."""
    pictures = [getattr(skimage.data, name)() for name in ("camera", "coins", "moon", "brick")]
    draw = np.random.default_rng(0)
    crops = []
    for number in range(1200):
        picture = pictures[number % len(pictures)]
        top, left = draw.integers(0, np.array(picture.shape) - 32)
        crops.append(picture[top : top + 32, left : left + 32])
    np.save(tmp_path / "crops.npy", crops)
    trained(VAE, "--data", "crops.npy", "--epochs", 12, cwd=tmp_path)
    assert json.loads((tmp_path / MODELS[VAE] / "metrics.json").read_text())["kl"] > 1


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
