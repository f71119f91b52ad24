# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["tensorflow==2.21.*", "keras==3.15.*", "numpy>=2,<3"]
# ///
"""Write a page that denoises what you draw, with the denoiser itself running in the browser.

    python examples/denoiser_page.py

Opens the model that StackedDenoisingAutoEncoder.py saved, and writes images/denoiser.html: one file
that opens from disk in any browser, without a server and without the network. It holds the model's
weights in half precision and its graph, which may be of any layers that LAYERS names.
"""

import argparse
import base64
import json
import os
import sys
from pathlib import Path


def fail(message):
    """End the script with one line about a user error."""
    print("error:", " ".join(str(message).split()), file=sys.stderr)
    sys.exit(2)


try:
    import numpy as np
except ImportError as error:
    fail(f"{error}; pip install -r examples/requirements.txt")

ROOT = Path(__file__).resolve().parent.parent
DIGITS = 40  # test digits to choose from
LAYERS = ("Conv2D", "Conv2DTranspose", "Add", "Activation")
ACTIVATIONS = ("linear", "relu", "sigmoid")


def parse_options():
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.error = lambda message: fail(f"{message}; see --help")
    add = parser.add_argument
    add("--model-dir", type=Path, default=Path("models/denoiser"), metavar="DIR",
        help="folder of model.keras (default: models/denoiser)")  # fmt: skip
    add("--output", type=Path, default=Path("images/denoiser.html"), metavar="FILE",
        help="the page (default: images/denoiser.html)")  # fmt: skip
    return parser.parse_args()


def sources(layer):
    """Return the names of the layers whose outputs a layer of a configuration takes."""
    arguments = layer["inbound_nodes"][0]["args"][0]
    tensors = arguments if isinstance(arguments, list) else [arguments]
    return [tensor["config"]["keras_history"][0] for tensor in tensors]


def describe(model, weights, inputs=(0,), layers=None):
    """Return the layers of a functional model as the page runs them, nested models in their place.

    Args:
        model: a functional Keras model with one input and one output.
        weights: a list, to which kernels and biases are added.
        inputs: the number of the value that the model gets: 0 is the image, n the nth layer's.
        layers: what is described so far.
    """
    layers, config, values = [] if layers is None else layers, model.get_config(), {}
    for entry in config["layers"]:
        kind, name = entry["class_name"], entry["config"]["name"]
        if kind == "InputLayer":
            values[name] = inputs[0]
            continue
        taken, layer = [values[source] for source in sources(entry)], model.get_layer(name)
        if kind == "Functional":
            describe(layer, weights, taken, layers)
        else:
            layers.append(one_layer(layer, kind, taken, weights))
        values[name] = len(layers)
    return layers


def one_layer(layer, kind, inputs, weights):
    """Return one layer as the page runs it; kernels become (height, width, inputs, outputs)."""
    config = layer.get_config()
    about = {"type": kind, "inputs": inputs, "activation": config.get("activation", "linear")}
    known = kind in LAYERS and about["activation"] in ACTIVATIONS
    if known and kind.startswith("Conv2D"):
        size, stride, dilation = (
            config[key] for key in ("kernel_size", "strides", "dilation_rate")
        )
        known = all(len(set(pair)) == 1 for pair in (size, stride, dilation))
        known = known and config["padding"] == "same" and config["use_bias"]
        known = known and config.get("groups", 1) == 1
        known = known and (kind == "Conv2D" or dilation[0] == 1)
        about |= {"size": size[0], "stride": stride[0], "dilation": dilation[0]}
        kernel, bias = layer.get_weights()
        kernel = kernel if kind == "Conv2D" else kernel.swapaxes(2, 3)
        for name, values in (("kernel", kernel), ("bias", bias)):
            start = sum(part.size for part in weights)
            about[name] = [start, start + values.size]
            weights.append(values)
    if not known:
        fail(f"layer {layer.name}, a {kind} with {config}: the page cannot run it; see LAYERS")
    return about


def base64_of(array):
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def main(options):
    path = options.model_dir / "model.keras"
    if not path.is_file():
        fail(f"{path} does not exist; train the model first, or give --model-dir")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras

    try:
        model = keras.models.load_model(path, compile=False)
    except (OSError, ValueError) as error:
        fail(f"{path} cannot be opened: {error}")
    if model.input_shape[3] != 1:
        fail(f"{path} takes images of {model.input_shape[3]} channels; accepted: 1")
    weights, arrays = [], np.load(ROOT / "data/mnist.npz")
    layers = describe(model, weights)
    numbers = np.concatenate([part.ravel() for part in weights]).astype("<f2")
    digits, labels = arrays["x_test"][:DIGITS], arrays["y_test"][:DIGITS].tolist()
    data = {"side": digits.shape[1], "layers": layers, "labels": labels}
    data |= {"weights": base64_of(numbers), "digits": base64_of(digits)}
    template = (Path(__file__).parent / "denoiser_page.html").read_text(encoding="utf-8")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(template.replace('"@DATA@"', json.dumps(data)), encoding="utf-8")
    print(f"wrote {options.output}: {options.output.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    try:
        main(parse_options())
    except ImportError as error:  # of Keras
        fail(f"{error}; pip install -r examples/requirements.txt")
