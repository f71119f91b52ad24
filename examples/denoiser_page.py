# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["tensorflow==2.21.*", "keras==3.15.*", "numpy>=2,<3"]
# ///
"""Write a page that denoises what you draw, with the denoiser itself running in the browser.

    python examples/denoiser_page.py

Opens the model that StackedDenoisingAutoEncoder.py saved, and writes denoiser.html: one file that
opens from disk in any browser, without a server and without the network. It holds the layers of the
model, with weights in half precision. `can_run` says which layers the page can run. The page has a
slider for the level of noise, which suits a model that was trained on all levels, with
`--noise 0.1 0.9`: one that knows a single level leaves much of the noise above it.
"""

import base64

import common

parser = common.Parser(__doc__)
parser.add_model_dir("models/denoiser", "model.keras")
parser.add_images_dir()
if __name__ == "__main__":
    options = parser.parse_args()  # before the slow imports: --help and mistakes answer at once
with common.quiet_imports():
    import numpy as np

DIGITS = 40  # test digits to choose from
IMAGE = (1, 28, 28, 1)


def is_functional(model):
    """Return whether a model is a functional one with one input and one output."""
    return type(model).__name__ == "Functional" and len(model.inputs) == len(model.outputs) == 1


def keeps_the_shape(model):
    """Return whether a model turns digits into images of the same shape."""
    taken = model.input_shape
    try:
        return len(taken) == 4 and taken[3] == 1 and model.compute_output_shape(IMAGE) == IMAGE
    except ValueError:  # the model takes another size, or an Add gets two sizes
        return False


def can_run(layer, kind, config):
    """Return whether the page can run a layer of a class `kind`."""
    if config.get("activation", "linear") not in ("linear", "relu", "sigmoid"):
        return False
    if kind == "Add":
        return len({tensor.shape for tensor in layer.input}) == 1  # no broadcasting
    if kind == "Concatenate":
        return config["axis"] in (-1, 3)
    if kind == "Rescaling":
        return np.isscalar(config["scale"]) and np.isscalar(config["offset"])
    if kind == "ReLU":
        return (config["max_value"], config["negative_slope"], config["threshold"]) == (None, 0, 0)
    if kind not in ("Conv2D", "Conv2DTranspose"):
        return kind == "Activation"
    if config["padding"] != "same" or config["data_format"] != "channels_last":
        return False
    pairs = (layer.kernel_size, layer.strides, layer.dilation_rate)
    if any(height != width for height, width in pairs):
        return False
    if kind == "Conv2D":
        return config["groups"] == 1
    return layer.dilation_rate == (1, 1) and config["output_padding"] is None


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


def base64_of(array, dtype):
    """Return the bytes of an array of a type, as text."""
    return base64.b64encode(array.astype(dtype).tobytes()).decode()


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
            common.fail(f"the page cannot run {name}; accepted: layers that are used once")
        arguments = calls[0]["args"][0]
        tensors = arguments if isinstance(arguments, list) else [arguments]
        inputs = [numbers[tensor["config"]["keras_history"][0]] for tensor in tensors]
        if is_functional(known[name]):
            add_layers(layers, known[name], inputs[0])
        elif can_run(known[name], kind, config):
            layers.append(describe(known[name], kind, config, inputs))
        else:
            common.fail(f"the page cannot run {name} ({kind}); see can_run in denoiser_page.py")
        numbers[name] = len(layers)


def main(options):
    path = options.model_dir / "model.keras"
    model = common.load_model(path)
    if not is_functional(model):
        common.fail(f"{path}: accepted: a functional model with one input and one output")
    if not keeps_the_shape(model):
        common.fail(f"{path} does not turn images of shape {IMAGE[1:]} into images of that shape")
    layers = []
    add_layers(layers, model, source=0)
    arrays = common.read_npz(common.MNIST)
    digits, labels = arrays["x_test"][:DIGITS], arrays["y_test"][:DIGITS]
    data = {"side": IMAGE[1], "layers": layers, "labels": labels.tolist()}
    data["digits"] = base64_of(digits, np.uint8)
    common.save_page(options.images_dir / "denoiser.html", "denoiser_page.html", data)


if __name__ == "__main__":
    main(options)
