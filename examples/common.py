"""What the examples share: options, errors, imports, models, and files to read and to write.

Only the standard library is imported at the top, so that --help and mistakes answer at once.
"""

import argparse
import contextlib
import faulthandler
import io
import json
import os
import sys
import tempfile
from pathlib import Path

MNIST = Path(__file__).resolve().parent.parent / "data" / "mnist.npz"
FORMATS = (".png", ".jpg", ".jpeg", ".bmp", ".gif")  # of pictures to read
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
        """Add --model-dir, a folder that must have the files `models`."""
        self.models = models
        text = f"folder of {', '.join(models)} (default: {default})"
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

    def parse_args(self, arguments=None):
        """Return the options; a wrong one or a missing model ends the script.

        The default of --images-dir keeps the pictures of the default models from being replaced.
        """
        options = super().parse_args(arguments)
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


def load_plane(folder):
    """Return the encoder and the decoder of a VAE of grey images with 2 latent dimensions."""
    encoder = load_model(folder / "encoder.keras")
    decoder = load_model(folder / "decoder.keras")
    if [*encoder.output_shape, decoder.input_shape] != 3 * [(None, 2)]:
        fail(f"{folder}: accepted: models with 2 latent dimensions")
    if encoder.input_shape[3] != 1:
        fail(f"{folder}: accepted: models of grey images")
    return encoder, decoder


# ---- Files to read -------------------------------------------------------------------------------


def read_npz(path):
    """Return {name: array} of an .npz file; a damaged file ends the script."""
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    except Exception as error:  # zipfile, zlib and NumPy report a damaged file in many ways
        fail(f"{path} cannot be read: {error}")


def read_images(path, part, shape):
    """Return images x_`part` of an .npz file and their labels (n,), zeros if it has none.

    The images are float32 in [0, 1], (n, *shape), where `shape` is (height, width, channels).
    """
    import numpy as np

    arrays = read_npz(path)
    if f"x_{part}" not in arrays:
        fail(f"{path} has no array x_{part}")
    images = arrays[f"x_{part}"]
    labels = arrays.get(f"y_{part}", np.zeros(len(images), np.uint8)).ravel()
    shapes = [shape, shape[:2]] if shape[2] == 1 else [shape]
    is_bytes = images.dtype == np.uint8
    in_range = images.dtype.kind == "f" and ((images >= 0) & (images <= 1)).all()
    if images.size == 0 or images.shape[1:] not in shapes or not (is_bytes or in_range):
        found = f"{path}: x_{part} is {images.dtype} {images.shape}"
        fail(f"{found}; accepted: uint8, or floats from 0 to 1, each image {shape}")
    if len(labels) != len(images):
        fail(f"{path}: {len(labels)} labels y_{part}; accepted: {len(images)}, one for each image")
    return images.reshape(-1, *shape).astype(np.float32) / (255 if is_bytes else 1), labels


def need_digits(path, labels, count):
    """End the script if a class from 0 to 9 has fewer than `count` of the labels of a file."""
    for digit in range(10):
        if (labels == digit).sum() < count:
            fail(f"{path}: accepted: {count} or more labels of each class from 0 to 9")


def find_pictures(folder):
    """Return the picture files of a folder and its subfolders; hidden files are skipped."""
    files = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in FORMATS]
    return [path for path in files if not path.name.startswith(".")]


def read_picture(path):
    """Return a picture file as a Pillow image, grey or RGB; a damaged file ends the script."""
    with quiet_imports():
        import numpy as np
        from PIL import Image, ImageOps
    try:
        picture = ImageOps.exif_transpose(Image.open(path))  # upright
        if picture.mode.startswith("I"):  # 16 bits; convert() would keep only the lower 8
            picture = Image.fromarray(np.uint8(np.asarray(picture) // 256))
        if picture.has_transparency_data:
            picture = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
        return picture.convert("L" if picture.mode in ("1", "L") else "RGB")
    except Exception as error:  # Pillow reports a damaged file in many ways
        fail(f"{path} cannot be read: {error}; remove it or repair it")


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
    """Draw rows of grey images in [0, 1], (rows, columns, height, width), with their names.

    Each image gets a white edge of one pixel. Return its height and width with the edge.
    """
    import numpy as np

    tiles = np.pad(rows, [(0, 0), (0, 0), (1, 1), (1, 1)], constant_values=1)
    count, columns, height, width = tiles.shape
    image_grid = tiles.swapaxes(1, 2).reshape(count * height, columns * width)
    axes.imshow(image_grid, cmap="gray", vmin=0, vmax=1)
    axes.set(xticks=[], yticks=(np.arange(count) + 0.5) * height, yticklabels=names)
    axes.tick_params(length=0)
    return height, width
