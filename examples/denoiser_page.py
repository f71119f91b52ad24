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


def parse_options():
    """Return the options of the command line; a wrong one or a missing model ends the script."""
    about, command, *_ = __doc__.split("\n\n")
    parser = argparse.ArgumentParser(
        description=about, epilog=f"example: {command.strip()}", allow_abbrev=False
    )
    parser.error = lambda message: fail(f"{message}; see --help")
    add = parser.add_argument
    add("--model-dir", type=Path, default=Path("models/denoiser"), metavar="DIR",
        help="folder of model.keras (default: models/denoiser)")  # fmt: skip
    add("--output", type=Path, default=Path("images/denoiser.html"), metavar="FILE",
        help="the page (default: images/denoiser.html)")  # fmt: skip
    options = parser.parse_args()
    path = options.model_dir / "model.keras"
    if not path.is_file():
        fail(f"{path} does not exist; train the model first, or give --model-dir")
    return options


def fail(message):
    """End the script with one line about a user error."""
    print("error:", " ".join(str(message).split()), file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    OPTIONS = parse_options()  # before the slow imports, so that --help and mistakes answer at once
os.environ["KERAS_BACKEND"] = "tensorflow"
try:
    import keras
    import numpy as np
except ImportError as error:
    fail(f"{error}; pip install -r examples/requirements.txt")

ROOT = Path(__file__).resolve().parent.parent
DIGITS = 40  # test digits to choose from
IMAGE = (1, 28, 28, 1)
LAYERS = {  # what the page can run, in functional models that use each layer once
    "Conv2D": "square kernels, padding 'same', one group",
    "Conv2DTranspose": "the same, without dilation and output padding",
    "Add": "inputs of equal shapes",
    "Activation": "one of ACTIVATIONS",
}
ACTIVATIONS = ("linear", "relu", "sigmoid")
SEE = f"LAYERS in {Path(__file__).name} lists what is accepted"


def load(path):
    """Return the model of a file; a damaged file or a model of other images ends the script."""
    try:
        model = keras.models.load_model(path, compile=False)
    except (OSError, ValueError) as error:
        fail(f"{path} cannot be opened: {error}")
    except TypeError:  # its text holds the whole configuration
        fail(f"{path} has a layer of an unknown class; {SEE}")
    if not is_functional(model):
        fail(f"{path}: accepted: a functional model with one input and one output")
    if not keeps_the_shape(model):
        fail(f"{path} does not turn images of shape {IMAGE[1:]} into images of that shape")
    return model


def keeps_the_shape(model):
    """Return whether a model turns digits into images of the same shape."""
    taken = model.input_shape
    try:
        return len(taken) == 4 and taken[3] == 1 and model.compute_output_shape(IMAGE) == IMAGE
    except ValueError:  # the model takes another size, or an Add gets two sizes
        return False


def is_functional(model):
    """Return whether a model is a functional one with one input and one output."""
    return type(model).__name__ == "Functional" and len(model.inputs) == len(model.outputs) == 1


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
    layers, values = [] if layers is None else layers, {}
    known = {layer.name: layer for layer in model.layers}  # operations such as x + y are not there
    for entry in model.get_config()["layers"]:
        kind, name = entry["class_name"], entry["config"]["name"]
        if kind == "InputLayer":
            values[name] = inputs[0]
            continue
        layer = known.get(name)
        if layer is None or len(entry["inbound_nodes"]) != 1:
            refuse(entry)
        taken = [values[source] for source in sources(entry)]
        if is_functional(layer):
            describe(layer, weights, taken, layers)
        else:
            layers.append(one_layer(layer, entry, taken, weights))
        values[name] = len(layers)
    return layers


def refuse(entry):
    """End the script because of a layer that the page cannot run, an entry of a configuration."""
    config = entry["config"]
    activation = config.get("activation", "linear")
    if isinstance(activation, dict):  # a layer itself
        activation = activation["class_name"]
    about = f"layer {config['name']} ({entry['class_name']}, activation {activation})"
    fail(f"the page cannot run {about}; {SEE}")


def one_layer(layer, entry, inputs, weights):
    """Return one layer as the page runs it; kernels become (height, width, inputs, outputs)."""
    kind, config = entry["class_name"], entry["config"]
    about = {"type": kind, "inputs": inputs, "activation": config.get("activation", "linear")}
    known = kind in LAYERS and about["activation"] in ACTIVATIONS
    if kind == "Add":
        known = len({tensor.shape for tensor in layer.input}) == 1
    if known and kind.startswith("Conv2D"):
        size, stride, dilation = (
            config[key] for key in ("kernel_size", "strides", "dilation_rate")
        )
        known = all(len(set(pair)) == 1 for pair in (size, stride, dilation))
        known = known and config["padding"] == "same"
        known = known and config["data_format"] == "channels_last"
        known = known and config.get("groups", 1) == 1
        known = known and (kind == "Conv2D" or dilation[0] == 1)
        known = known and config.get("output_padding") is None
        about |= {"size": size[0], "stride": stride[0], "dilation": dilation[0]}
    if not known:
        refuse(entry)
    if kind.startswith("Conv2D"):
        kernel, *bias = layer.get_weights()
        kernel = kernel if kind == "Conv2D" else kernel.swapaxes(2, 3)
        bias = bias[0] if bias else np.zeros(config["filters"], np.float32)
        for name, values in (("kernel", kernel), ("bias", bias)):
            start = sum(part.size for part in weights)
            about[name] = [start, start + values.size]
            weights.append(values)
    return about


def base64_of(array):
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def main(options):
    model = load(options.model_dir / "model.keras")
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
    main(OPTIONS)
