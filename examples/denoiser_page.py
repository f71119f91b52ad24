"""Write a page that denoises what you draw, with the denoiser itself running in the browser.

    python examples/denoiser_page.py --model-dir models/denoiser

Opens the model that StackedDenoisingAutoEncoder.py saved, and writes denoiser.html: one file that
opens from disk in any browser, without a server. It holds the layers of the model, with weights in
half precision. The page has a slider for the level of noise, which suits a model that was trained
on a range of levels, such as `--noise 0.1 0.9`. The page is made from denoiser_page.html.
"""

import base64
import json
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

from pictures import fail

HERE = Path(__file__).resolve().parent

parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
parser.error = fail
text = "default: models/denoiser"
parser.add_argument("--model-dir", type=Path, default="models/denoiser", help=text)
text = "default: denoiser.html"
parser.add_argument("--output", type=Path, default="denoiser.html", help=text)
parser.add_argument("--force", action="store_true", help="overwrite the output")
if __name__ == "__main__":
    options = parser.parse_args()  # before the slow import of Keras
    if options.output.exists() and not options.force:
        fail(f"{options.output} exists; --force overwrites it")

import numpy as np
from encode_pictures import load_model

DIGITS = 40  # test digits to choose from
SIDE = 28  # pixels
KINDS = ("Add", "Concatenate", "Rescaling", "ReLU", "Activation", "Conv2D", "Conv2DTranspose")


def base64_of(array, dtype):
    """Return the bytes of an array of a type, as text."""
    return base64.b64encode(array.astype(dtype).tobytes()).decode()


def is_functional(model):
    """Return whether a model is a functional one with one input and one output."""
    return type(model).__name__ == "Functional" and len(model.inputs) == len(model.outputs) == 1


def describe(layer, kind, config, inputs):
    """Return a layer as the page runs it; kernels become (height, width, inputs, outputs)."""
    about = {"type": kind, "inputs": inputs, "activation": config.get("activation", "linear")}
    if kind == "ReLU":
        about |= {"type": "Activation", "activation": "relu"}
    if kind == "Rescaling":
        about |= {"scale": config["scale"], "offset": config["offset"]}
    if kind in ("Conv2D", "Conv2DTranspose"):
        kernel = layer.get_weights()[0]
        bias = layer.get_weights()[1] if layer.use_bias else np.zeros(layer.filters)
        about["size"] = layer.kernel_size[0]
        about["stride"] = layer.strides[0]
        about["dilation"] = layer.dilation_rate[0]
        about["kernel"] = base64_of(kernel if kind == "Conv2D" else kernel.swapaxes(2, 3), "<f2")
        about["bias"] = base64_of(bias, "<f2")
    return about


def add_layers(layers, model, source):
    """Add the layers of a functional model, and those of models in it, to a list.

    The input of the model is the output of layer `source`, counted from 1; 0 is the image.
    """
    known = {layer.name: layer for layer in model.layers}  # operations such as x + y are not there
    numbers = {}  # {name: number of the layer}
    for entry in model.get_config()["layers"]:
        kind, config, calls = entry["class_name"], entry["config"], entry["inbound_nodes"]
        name = config["name"]
        if kind == "InputLayer":
            numbers[name] = source
            continue
        if name not in known or len(calls) != 1:
            fail(f"the model must use each of its layers once, found {name}")
        arguments = calls[0]["args"][0]
        tensors = arguments if isinstance(arguments, list) else [arguments]
        inputs = [numbers[tensor["config"]["keras_history"][0]] for tensor in tensors]
        if is_functional(known[name]):
            add_layers(layers, known[name], inputs[0])
        elif kind in KINDS:
            layers.append(describe(known[name], kind, config, inputs))
        else:
            fail(f"the model must have layers that the page can run, found {name} ({kind})")
        numbers[name] = len(layers)


def main(options):
    path = options.model_dir / "model.keras"
    model = load_model(path)
    if not is_functional(model) or model.input_shape[3] != 1:
        fail(f"{path} must be a functional model of grayscale images, found another")
    layers = []
    add_layers(layers, model, source=0)
    arrays = np.load(HERE.parent / "data/mnist.npz")
    digits, labels = arrays["x_test"][:DIGITS], arrays["y_test"][:DIGITS]
    denoised = model(digits[:1, ..., np.newaxis] / 255)  # the page compares its own with this
    data = {
        "side": SIDE,
        "layers": layers,
        "labels": labels.tolist(),
        "digits": base64_of(digits, np.uint8),
        "denoised": base64_of(np.asarray(denoised), "<f2"),
    }
    page = (HERE / "denoiser_page.html").read_text(encoding="utf-8")
    unfinished = options.output.with_name(f".{options.output.name}")
    unfinished.write_text(page.replace('"@DATA@"', json.dumps(data)), encoding="utf-8")
    unfinished.replace(options.output)
    print(f"wrote {options.output}")


if __name__ == "__main__":
    try:
        main(options)
    except OSError as error:
        fail(error)
