"""What the examples share: options, errors, imports, models, and files to read and to write.

Only the standard library is imported at the top, so that --help and mistakes answer at once.
"""

import argparse
import collections
import contextlib
import faulthandler
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent.parent  # folder of the two scripts
MNIST = SCRIPTS / "data" / "mnist.npz"
SHOW_ALL = "TF_CPP_MIN_LOG_LEVEL" in os.environ  # the user wants to see what TensorFlow prints
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")  # warnings and errors
os.environ["KERAS_BACKEND"] = "tensorflow"

# ---- Options and errors --------------------------------------------------------------------------


def fail(message):
    """End the script with one line about a user error."""
    print("error:", " ".join(str(message).split()), file=sys.stderr)
    sys.exit(2)


class Parser(argparse.ArgumentParser):
    """A parser whose help is from a docstring: its first paragraph, and the command after it."""

    def __init__(self, docstring):
        description, command, *_ = docstring.split("\n\n")
        example = f"example: {command.strip()}"
        super().__init__(description=description, epilog=example, allow_abbrev=False)
        self.models = ()

    def error(self, message):
        fail(f"{message}; see --help")

    def add_model_dir(self, default, *models):
        """Add --model-dir, a folder that must have the files `models`, if there are any."""
        self.models = models
        text = f"folder of {', '.join(models) or 'the models'} (default: {default})"
        self.add_argument("--model-dir", type=Path, default=Path(default), metavar="DIR", help=text)

    def add_images_dir(self, default="images, or --model-dir if that is given"):
        """Add --images-dir, for pictures and pages with names of their own."""
        text = f"folder of the output (default: {default})"
        self.add_argument("--images-dir", type=Path, metavar="DIR", help=text)

    def add_data(self):
        """Add --data, an .npz file of images."""
        text = ".npz file of digits (default: data/mnist.npz)"
        self.add_argument("--data", type=existing, default=MNIST, metavar="FILE", help=text)

    def add_integer(self, name, low, high, default, text):
        """Add an option that is an integer from `low` to `high`."""
        text = f"{text}, {low:,} to {high:,} (default: {default:,})"
        self.add_argument(name, type=integer(low, high), default=default, metavar="N", help=text)

    def add_output(self, metavar, text):
        """Add --output, a file or folder of the user's choice, and --force."""
        self.add_argument("--output", type=Path, required=True, metavar=metavar, help=text)
        self.add_argument("--force", action="store_true", help="overwrite existing files")

    def add_range(self):
        """Add --range, how to read pictures."""
        text = "values that become black and white (default: the output says what was used)"
        self.add_argument("--range", type=float, nargs=2, metavar=("LOW", "HIGH"), help=text)

    def add_skip_unreadable(self):
        """Add --skip-unreadable; without it, a damaged picture ends the script."""
        text = "go on without pictures that cannot be read"
        self.add_argument("--skip-unreadable", action="store_true", help=text)

    def parse_args(self, arguments=None):
        """Return the options; a wrong one or a missing model ends the script.

        The default of --images-dir keeps the pictures of the default models from being replaced.
        """
        if isinstance(sys.stdout, io.TextIOWrapper):  # names of files may not be UTF-8
            sys.stdout.reconfigure(errors="backslashreplace")
        options = super().parse_args(arguments)
        low, high = vars(options).get("range") or (0, 1)
        if not low < high:
            fail(f"--range {low:g} {high:g}: accepted: a lower and a higher number")
        model_dir = vars(options).get("model_dir")
        need_models(model_dir, self.models)
        if vars(options).get("images_dir", "no such option") is None:
            by_default = model_dir == self.get_default("model_dir")
            options.images_dir = Path("images") if by_default else model_dir
        return options


def integer(low, high):
    """Return a function that reads an option: an integer from `low` to `high`."""

    def read(text):
        if not text.isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text}: accepted: {low:,} to {high:,}")
        return int(text)

    return read


def existing(text):
    """Read an option: a file or folder that exists."""
    if not os.path.exists(text):
        raise argparse.ArgumentTypeError(f"{text} does not exist")
    return Path(text)


def need_models(folder, names):
    """End the script if a folder does not have one of the files."""
    for name in names:
        if not (folder / name).is_file():
            fail(f"{folder / name} does not exist; train the model first, or give another folder")


def refuse_to_overwrite(paths, options):
    """End the script if one of the files exists, unless --force is given."""
    for path in paths:
        if path.exists() and not options.force:
            fail(f"{path} exists; --force overwrites it")


if "pictures" in sys.modules:  # until pictures.py has its own
    sys.modules["pictures"].fail = fail

# ---- Imports and models --------------------------------------------------------------------------


@contextlib.contextmanager
def quiet_imports():
    """Hide what native code prints as it starts; end the script if an import fails.

    Nothing is hidden if the user has set TF_CPP_MIN_LOG_LEVEL, nor a crash of native code.
    """
    screen = os.dup(2)
    if not SHOW_ALL:
        faulthandler.enable(screen)
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 2)
    try:
        yield
        if "tensorflow" in sys.modules:
            sys.modules["tensorflow"].config.list_physical_devices()  # starts the drivers
    except Exception as error:  # a package of another version can fail in many ways
        os.dup2(screen, 2)
        fail(f"{error}; pip install -r examples/requirements.txt")
    finally:
        os.dup2(screen, 2)
        faulthandler.enable(2)
        os.close(screen)


def load_model(path):
    """Return the model of a file; a damaged file ends the script."""
    with quiet_imports():
        import keras
    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:  # zipfile, h5py and Keras report a damaged file in many ways
        fail(f"{path} cannot be opened: {str(error)[:300]}")  # some texts hold the whole model


def load_grey_model(path):
    """Return the model of a file; one of colour images ends the script."""
    model = load_model(path)
    if model.input_shape[3] != 1:
        fail(f"{path}: accepted: a model of grey images")
    return model


def load_plane(folder):
    """Return the encoder and the decoder of a VAE of grey images with 2 latent dimensions."""
    encoder = load_model(folder / "encoder.keras")
    decoder = load_model(folder / "decoder.keras")
    if [*encoder.output_shape, decoder.input_shape] != 3 * [(None, 2)]:
        fail(f"{folder}: accepted: models with 2 latent dimensions")
    if encoder.input_shape[3] != 1:
        fail(f"{folder}: accepted: models of grey images")
    return encoder, decoder


def run_script(script, *words):
    """Run a script of this repository as a command, or end with its status."""
    command = [sys.executable, str(SCRIPTS / script), *map(str, words)]
    print("\n$ python", script, *command[2:], flush=True)
    environment = dict(os.environ)
    if not SHOW_ALL:
        environment.pop("TF_CPP_MIN_LOG_LEVEL", None)  # the scripts hide more than it does
    status = subprocess.run(command, env=environment).returncode
    if status:
        sys.exit(status)


def train_if_missing(path, script, options, *words):
    """Train a model by a script on the images of --data, unless the file of the model is there."""
    metrics = path.parent / "metrics.json"
    if not path.is_file():
        data = "mnist" if options.data.resolve() == MNIST else options.data
        run_script(script, *words, "--data", data, "--model-dir", path.parent)
    elif metrics.is_file():
        run = json.loads(metrics.read_text())
        text = f"{path.parent}: the existing model is used"
        print(f"{text}, trained on {run['data']} for {run['epochs']} epochs")


# ---- Files to read -------------------------------------------------------------------------------


def read_npz(path):
    """Return {name: array} of an .npz file; a damaged file ends the script."""
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    except Exception as error:  # zipfile, zlib and NumPy report a damaged file in many ways
        fail(f"{path} cannot be read: {error}")


def import_script():
    """Return VariationalAutoEncoder_tf2.py as a module: it reads data as in training."""
    sys.path.append(str(SCRIPTS))
    with quiet_imports():
        import VariationalAutoEncoder_tf2
    return VariationalAutoEncoder_tf2


def load_arrays(path):
    """Return {name: array} of an .npz or .npy file; a damaged one ends the script."""
    script = import_script()
    try:
        return script.load_arrays(str(path))
    except script.InputError as error:
        fail(error)


def image_parts(path):
    """Return which of x_train, x_val and x_test a file of images has."""
    arrays = load_arrays(path)
    parts = [part for part in ("train", "val", "test") if f"x_{part}" in arrays]
    if not parts:
        fail(f"{path} must have x_train, x_val or x_test, found none of them")
    return parts


def read_images(path, part, shape):
    """Return images x_`part` of a file, and their labels (n,), zeros if it has none.

    The images are float32 in [0, 1], (n, *shape), where `shape` is (height, width, channels).
    """
    import numpy as np

    arrays = load_arrays(path)
    if f"x_{part}" not in arrays:
        fail(f"{path} must have x_{part}, found {', '.join(arrays) or 'no images'}")
    images = arrays[f"x_{part}"]
    script = import_script()
    if not script.are_images(images):
        found = f"{images.dtype} {images.shape}"
        fail(f"{path}: x_{part} must be {script.IMAGES}; found {found}; {script.ADVICE}")
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.shape[1:] != tuple(shape):
        fail(f"{path}: x_{part} must have images {tuple(shape)}, found {images.shape[1:]}")
    if images.dtype != np.uint8:
        images = np.rint(images * np.float32(255))  # 8 bits, as in training
    labels = np.ravel(arrays.get(f"y_{part}", np.zeros(len(images), np.uint8)))
    if len(labels) != len(images):
        text = f"{path}: y_{part} must have a label for each image"
        fail(f"{text}, found {len(labels)} for {len(images)}")
    return np.float32(images) / 255, labels


def image_names(path, part, count):
    """Return the names of images x_`part` of a file, or x_train[0], x_train[1], ... without any."""
    import numpy as np

    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            if f"names_{part}" in archive.files:
                return archive[f"names_{part}"].tolist()
    return [f"x_{part}[{index}]" for index in range(count)]


def read_images_to_show(path, shape):
    """Return images x_test of a file, or x_train if it has no other, as read_images does."""
    if "test" in image_parts(path):
        return read_images(path, "test", shape)
    print(f"{path} has no x_test; images of x_train are shown")
    return read_images(path, "train", shape)


def digit_labels(path, labels, count):
    """Return the labels (n,) of a file as integers from 0 to 9; text of such numbers will do.

    Ends the script if a class has fewer than `count` of them, or if there are other labels.
    """
    names = [str(label) for label in labels]
    digits = [name.removesuffix(".0") for name in names]
    known = collections.Counter(digits)
    if sorted(known) != [*"0123456789"] or min(known.values()) < count:
        found = ", ".join(sorted(set(names))[:12])
        accepted = f"{count} or more labels of each class from 0 to 9, and no others"
        fail(f"{path}: accepted: {accepted}; found: {found}")
    return labels.astype(float).astype(int)


# ---- Files to write ------------------------------------------------------------------------------


@contextlib.contextmanager
def new_file(path):
    """Give a temporary path to write to; in the end, the whole file is moved to `path`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
            unfinished = Path(folder) / path.name
            yield unfinished
            os.replace(unfinished, path)
    except OSError as error:
        fail(f"{path} cannot be written: {error}")
    print(f"wrote {path}")


def save_page(path, template, data):
    """Write a web page: a template of this folder with JSON in place of "@DATA@"."""
    html = (Path(__file__).parent / template).read_text(encoding="utf-8")
    text = json.dumps(data).replace("<", "\\u003c")  # or a label could end the script element
    with new_file(path) as unfinished:
        unfinished.write_text(html.replace('"@DATA@"', text), encoding="utf-8")


def frame_of(figure, dpi):
    """Return a matplotlib figure as an RGB picture, a frame of an animation."""
    with quiet_imports():
        from PIL import Image
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=dpi)
    return Image.open(buffer).convert("RGB")


def save_animation(path, frames, durations):
    """Write RGB pictures of greys and the colours of tab10 as a GIF; durations are in ms.

    With one palette and no dithering, frames differ little and compress well.
    """
    import numpy as np
    from matplotlib import colormaps
    from PIL import Image

    levels = [*range(0, 252, 4), 255]  # Pillow rounds down to multiples of 4, so without 252
    greys = np.repeat(levels, 3).reshape(-1, 3)
    colours = 255 * np.array(colormaps["tab10"].colors)
    paler = [255 - share * (255 - colours) for share in (2 / 3, 1 / 3)]  # at the edges of points
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.uint8(np.rint(np.vstack([greys, colours, *paler]))).tobytes())
    first, *others = [frame.quantize(palette=palette, dither=0) for frame in frames]
    with new_file(path) as unfinished:
        first.save(unfinished, save_all=True, append_images=others, duration=durations, loop=0)


def draw_image_rows(axes, rows, names):
    """Draw rows of images in [0, 1], (rows, columns, height, width, channels), with names.

    Each image gets a white edge of one pixel. Return its height and width with the edge.
    """
    import numpy as np

    tiles = np.pad(rows, [(0, 0), (0, 0), (1, 1), (1, 1), (0, 0)], constant_values=1)
    count, columns, height, width, channels = tiles.shape
    image_grid = tiles.swapaxes(1, 2).reshape(count * height, columns * width, channels)
    axes.imshow(image_grid, cmap="gray", vmin=0, vmax=1)
    axes.set(xticks=[], yticks=(np.arange(count) + 0.5) * height, yticklabels=names)
    axes.tick_params(length=0)
    return height, width
