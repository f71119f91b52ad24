"""What the examples share: options, errors, imports, models, and files to read and to write.

Only the standard library is imported at the top, so that --help and mistakes answer at once.
"""

import argparse
import contextlib
import faulthandler
import io
import os
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
