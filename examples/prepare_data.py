# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = [
#     "numpy>=2,<3", "pillow>=11", "tqdm>=4.66,<5", "h5py>=3.12,<4", "scipy>=1.14,<2",
#     "tifffile>=2025.1.10", "imagecodecs>=2025.3.30",
# ]
# ///
"""Convert images of many kinds to an .npz file, on which both scripts can train with --data.

    python examples/prepare_data.py photos --output new.npz --size 64

Reads folders, zip and tar files of pictures (PNG, JPEG, TIFF, ...), and images in IDX, CSV, NumPy,
HDF5 and MATLAB files. Folders named train, val and test become parts of the data, other folders
labels. Writes uint8 arrays x_train, x_val and x_test, the labels y_*, and the names of pictures
names_*, and says in a line how each thing was read.

Training on large pictures needs random crops; pairs for the denoiser need a folder of noisy ones:

    python examples/prepare_data.py photos --output crops.npz --crop 32 --count 50000
    python examples/prepare_data.py clean --noisy dirty --output pairs.npz --crop 48
"""

import bz2
import csv
import gzip
import hashlib
import io
import lzma
import math
import re
import shutil
import tarfile
import tempfile
import zipfile
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import common

parser = common.Parser(__doc__)
text = "folder, archive or file; several of them become one data set"
parser.add_argument("what", type=common.existing, nargs="+", metavar="WHAT", help=text)
parser.add_output("FILE", ".npz file to write")
side = common.integer(8, 256)
size = parser.add_mutually_exclusive_group()
size.add_argument("--size", type=side, metavar="N", help="resize to N x N pixels, 8 to 256")
size.add_argument("--crop", type=side, metavar="N", help="random crops of N x N, 8 to 256")
text = "how --size keeps proportions: pad with the colour of the border (default), crop or stretch"
parser.add_argument("--fit", choices=("pad", "crop", "stretch"), default="pad", help=text)
parser.add_integer("--count", 1, 10**7, 10000, "number of crops in x_train")
text = "noisy images, with the names and sizes of the clean ones in WHAT"
parser.add_argument("--noisy", type=common.existing, metavar="WHAT", help=text)
parser.add_argument("--gray", "--grey", action="store_true", help="grayscale instead of RGB")
parser.add_range()
text = "height and width, and channels before or after them, of images that are flat or ambiguous"
parser.add_argument("--shape", type=int, nargs="+", metavar="N", help=text)
text = "array of images to use, where a file has several"
parser.add_argument("--array", metavar="NAME", help=text)
text = "put all images of a folder or of a file into one part, such as frames of one video"
parser.add_argument("--keep-folders-together", action="store_true", help=text)
text = "use one of each set of equal images"
parser.add_argument("--drop-copies", action="store_true", help=text)
parser.add_skip_unreadable()
parser.add_integer("--seed", 0, 2**31 - 1, 0, "seed of the order, the split and the crops")


def copies_path(output):
    """Return the path of the list of copies alongside an output file."""
    return output.with_name(f"{output.stem}-copies.txt")


if __name__ == "__main__":
    options = parser.parse_args()  # before the slow imports: --help and mistakes answer at once
    common.refuse_to_overwrite([options.output, copies_path(options.output)], options)
with common.quiet_imports():
    import h5py
    import numpy as np
    import pictures
    import scipy.io

PARTS = {"train": "train", "training": "train", "test": "test", "testing": "test"}  # words in names
PARTS |= dict.fromkeys(("val", "valid", "validation", "dev"), "val")
PART_WORDS = {"set", "images", "img", "data", "dataset", "seg"}  # may stand alongside
LABELS = {"y", "label", "labels", "target", "targets", "class", "classes", "emotion"}
IDS = {"id", "ids", "index", "image", "name", "names", "unnamed"}
IMAGES = {"x", "image", "images", "img", "imgs", "data", "pixels"}
NOISY = {"noisy", "dirty", "input", "inputs", "corrupted", "degraded"}
CLEAN = {"clean", "cleaned", "target", "targets"}
MASKS = {"mask", "masks", "gt", "segmentation", "segmentations", "annotations"}
GROUND_TRUTH = re.compile("ground.?truth", re.IGNORECASE)
ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
TABLES = (".csv", ".tsv", ".txt", ".data")
PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".joblib")
COMPRESSED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
LARGEST_FILE = 2**34  # bytes of one file after decompression: guards against archive bombs
FEWEST = 20  # images that both scripts train on
HELD_OUT = 10  # one image or folder of so many, or such a share of the area, for val and for test
SIDES = range(8, 257)  # of the images that both scripts take
CLEARER = 1.5  # the differences along an axis must be so many times others to tell how it is meant


@dataclass
class Source:
    """A picture file or an image of an array, its place in the data, and its noisy partner."""

    name: str
    part: str | None  # train, val or test
    label: object
    clean: Path | np.ndarray
    noisy: Path | np.ndarray | None = None

    @property
    def is_array(self):
        return isinstance(self.clean, np.ndarray)


@dataclass
class Area:
    """A page of a source or a part of it, with the windows to cut from it."""

    source: Source
    page: int
    part: str
    top: int
    left: int
    height: int
    width: int
    channels: int
    windows: list = field(default_factory=list)  # (row in the array, top, left)

    @property
    def name(self):
        name = self.source.name.encode("utf-8", "backslashreplace").decode()
        return f"{name}#{self.page + 1}" if self.page else name


def words_of(name):
    """Return the words of a name in lower case: "X_trainImages" has x, train and images."""
    name = re.sub(r"([a-z])([A-Z])", r"\1 \2", str(name).replace("t10k", "test"))
    name = re.sub(r"\b([xy])(?=train|test|val)", r"\1 ", name.lower())
    return [word for word in re.split(r"[^a-z]+", name) if word]


def part_of(words):
    """Return the part of the data that one of the words names, or None."""
    return next((PARTS[word] for word in words if word in PARTS), None)


# ---- Files ---------------------------------------------------------------------------------------


def find_files(paths, scratch):
    """Return {name: file} of folders, archives and files; archives are unpacked in `scratch`."""
    found = {}
    for number, path in enumerate(paths):
        if path.is_file() and not path.name.lower().endswith(ARCHIVES):
            found[path.name if len(paths) == 1 else path.as_posix()] = path
            continue
        folder = path if path.is_dir() else unpack(path, scratch / str(number))
        files = pictures.find_files(folder)
        inner = [file for file in files if file.name.lower().endswith(ARCHIVES)]
        if inner and len(inner) == sum(not file.name.startswith("README") for file in files):
            found |= find_files(inner, scratch / f"{number}-inner")
            continue
        prefix = "" if len(paths) == 1 else f"{path.name.split('.')[0]}/"
        found |= {prefix + file.relative_to(folder).as_posix(): file for file in files}
    return found


def unpack(path, folder):
    """Unpack an archive; return its folder, or the only one in it."""
    folder.mkdir(parents=True)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                members = archive.infolist()
                if any(".." in Path(member.filename).parts for member in members):
                    raise ValueError("must have no paths that leave its folder, found ..")
                need_room(folder, sum(member.file_size for member in members))
                archive.extractall(folder)
        else:
            with tarfile.open(path) as archive:
                need_room(folder, sum(member.size for member in archive))
                archive.extractall(folder, filter="data")  # refuses paths that leave the folder
    except Exception as error:  # zipfile, tarfile and zlib report a damaged file in many ways
        common.fail(f"{path} cannot be unpacked: {error}")
    inside = [each for each in folder.iterdir() if not each.name.startswith((".", "__MACOSX"))]
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else folder


def need_room(folder, size):
    """Raise a ValueError if the files of an archive are larger than the free disk."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise ValueError(f"must have at most {free:,} bytes, the free disk, found {size:,}")


def content_of(path, size=-1):
    """Return the first bytes of a file, or all of it, decompressed."""
    with path.open("rb") as file:
        start = file.read(6)
    opener = next((COMPRESSED[key] for key in COMPRESSED if start.startswith(key)), open)
    try:
        with opener(path, "rb") as file:
            content = file.read(size if size >= 0 else LARGEST_FILE + 1)
    except Exception as error:  # each module reports a damaged file in its own way
        common.fail(f"{path} cannot be read: {error}")
    if len(content) > LARGEST_FILE:
        common.fail(f"{path} must have at most {LARGEST_FILE:,} bytes unpacked, found more")
    return content


# ---- Files of arrays -----------------------------------------------------------------------------


def read_arrays(path, alone, shape):
    """Return {name: array} of a file, or None if it has no arrays; `alone` tries any text."""
    start = content_of(path, 132)
    suffix = path.with_suffix("").suffix if path.suffix in (".gz", ".bz2", ".xz") else path.suffix
    suffix = suffix.lower()
    if suffix in PICKLES or (start[:1] == b"\x80" and start[1:2] in b"\2\3\4\5"):
        if alone:
            common.fail(f"{path} must be no pickle, because opening one can run code")
        return None
    try:
        if start.startswith(b"\x93NUMPY"):
            return {"": np.load(io.BytesIO(content_of(path)), allow_pickle=False)}
        if start.startswith(b"PK") and suffix == ".npz":
            return read_npz(path)
        if start.startswith(b"\x89HDF"):
            return read_hdf5(path)
        if start.startswith(b"MATLAB 7.3"):
            return {name: array[()].T for name, array in read_hdf5(path).items()}
        if start.startswith(b"MATLAB") or suffix == ".mat":
            return read_matlab(path)
        if start[:2] == b"\0\0" and start[2:3] and start[2] in IDX_TYPES:
            return {"": read_idx(path)}
        is_text = b"\0" not in start and start.strip()
        if suffix in TABLES or (
            alone and is_text and not start.lstrip().lower().startswith(pictures.HTML)
        ):
            return read_table(path, shape)
    except Exception as error:  # the libraries report a damaged file in many ways
        common.fail(f"{path} cannot be read: {error}")
    return None


def read_npz(path):
    """Return {name: array} of an .npz file, without Python objects."""
    arrays = {}
    with np.load(path, allow_pickle=False) as archive:
        for name in archive.files:
            try:
                arrays[name] = archive[name]
            except ValueError as error:
                if "pickle" not in str(error).lower() and "object" not in str(error).lower():
                    raise
                print(f"{path}: left out {name}, Python objects: opening them can run code")
    return arrays


def read_hdf5(path):
    """Return {name: data set} of an HDF5 file with its groups, without references."""
    found = {}

    def add(name, item):
        if isinstance(item, h5py.Dataset) and not name.startswith("#"):
            found[name] = item

    h5py.File(path, "r").visititems(add)  # stays open: data sets are read when they are used
    return found


def read_matlab(path):
    """Return {name: array} of a MATLAB file before 7.3; fields of structures have dotted names."""
    found = {}
    waiting = {
        name: value
        for name, value in scipy.io.loadmat(path, simplify_cells=True).items()
        if not name.startswith("__")
    }
    while waiting:
        name, value = waiting.popitem()
        if isinstance(value, dict):
            waiting |= {f"{name}.{key}": inner for key, inner in value.items()}
        elif isinstance(value, np.ndarray):
            if value.dtype == object and len({np.shape(each) for each in value.flat}) == 1:
                value = np.stack([*value.flat])  # cells of images of one size
            found[name] = value
    return dict(sorted(found.items()))


def read_idx(path):
    """Return the array of an IDX file; EMNIST's are transposed."""
    content = content_of(path)
    start = 4 + 4 * content[3]
    shape = [int.from_bytes(content[at : at + 4]) for at in range(4, start, 4)]
    values = np.frombuffer(content[start:], IDX_TYPES[content[2]])
    if len(values) != math.prod(shape):
        raise ValueError(f"must have {shape} values, as it says, found {len(values):,}")
    values = values.reshape(shape)
    if path.name.startswith("emnist") and values.ndim == 3:
        print(f"{path.name}: EMNIST stores its images transposed; they are turned")
        values = values.transpose(0, 2, 1)
    return values


def read_table(path, shape):
    """Return {"data": rows of pixels, "labels": their labels} of a text file."""
    lines = content_of(path).decode("utf-8-sig", "replace").strip().splitlines()
    if not lines:
        raise ValueError("it is empty")
    delimiter = next((each for each in ",;\t|" if each in lines[0]), None)  # or spaces
    first, row = (cells_of(line, delimiter) for line in (lines * 2)[:2])
    names = [set() for _ in row]
    if any(is_number(b) > is_number(a) for a, b in zip(first, row, strict=False)):
        names = [set(words_of(cell)) if cell.strip() else IDS for cell in first]
        lines = lines[1:]
    settings = {"delimiter": delimiter, "quotechar": '"', "comments": None, "ndmin": 2}
    lists = [at for at, cell in enumerate(row) if len(cell.split()) >= SIDES[0] ** 2]
    if lists:  # all pixels of an image in one cell
        rows = np.loadtxt(lines, object, usecols=lists[0], **settings)
        values = np.array([cell.split() for cell in rows[:, 0]], np.float32)
    texts = [at for at, cell in enumerate(row) if not is_number(cell) and at not in lists]
    named = [at for at, words in enumerate(names) if LABELS & words]
    if len(named) > 1:  # such as x0y0, x0y1, ...
        named = []
    if not lists:
        ids = [at for at, words in enumerate(names) if words & IDS and words <= IDS]
        left = {*texts, *named, *ids}
        columns = [at for at in range(len(row)) if at not in left]
        values = np.loadtxt(lines, np.float32, usecols=columns, **settings)
    if (values == np.rint(values)).all():
        values = values.astype(np.int32)
    if named or texts:
        labels = np.loadtxt(lines, str, usecols=(named or texts)[0], **settings)[:, 0]
        labels = labels.astype(float) if all(map(is_number, labels)) else labels
        return {"data": values, "labels": labels}
    return without_labels(values, path, shape)


def cells_of(line, delimiter):
    """Return the cells of a line of a table."""
    return next(csv.reader([line], delimiter=delimiter)) if delimiter else line.split()


def is_number(cell):
    """Return whether a cell of a table is a number."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def without_labels(table, path, shape):
    """Return a table without the first or last column if the others alone are an image."""
    count = table.shape[1]
    if flat_shape(count, shape) or not flat_shape(count - 1, shape):
        return {"data": table}
    different = [len(np.unique(table[:, at])) for at in (0, -1)]
    is_last = different[0] == 1 or (different[1] > 1 and 2 * different[1] < different[0])
    print(f"{path.name}: the {'last' if is_last else 'first'} of {count} columns is the label")
    if is_last:
        return {"data": table[:, :-1], "labels": table[:, -1]}
    return {"data": table[:, 1:], "labels": table[:, 0]}


# ---- Arrays to images ----------------------------------------------------------------------------


def flat_shape(count, shape):
    """Return height, width and channels of so many values in a row, or None; `shape` is --shape."""
    if shape:
        return (*shape, 1)[:3] if math.prod(shape) == count else None
    for channels in (1, 3):
        side = math.isqrt(count // channels)
        if side in SIDES and side * side * channels == count:
            return side, side, channels
    return None


def difference(array, axis):
    """Return the mean absolute difference between neighbours along an axis."""
    first = np.unique(np.linspace(0, array.shape[axis] - 2, 50).astype(int))
    step = np.float32(np.take(array, first + 1, axis)) - np.float32(np.take(array, first, axis))
    return np.abs(step).mean()


def as_images(name, array, shape):
    """Return images (n, height, width[, channels]) of an array, and say how its axes were read."""
    array = np.asarray(array)
    if array.ndim > 3 and array.shape[0] == 1:
        array = array[0]
    readers = {2: flat_images, 3: stacked_images, 4: images_with_channels}
    if array.ndim not in readers:
        common.fail(f"{name} must have 2 to 4 axes, found {array.shape}")
    images, how = readers[array.ndim](name, array, shape)
    if images.shape[3:] not in ((), (1,), (3,), (4,)):
        common.fail(f"{name} must have 1, 3 or 4 channels, found {images.shape[3]}")
    print(f"{name}: {array.dtype} {array.shape}, {how}")
    return images


def flat_images(name, array, shape):
    """Return images of which each is a row or, if only that fits, a column of the array."""
    count, length = array.shape
    if shape and tuple(shape[:2]) == array.shape:
        return array[np.newaxis], "one image"
    if not shape and count == length and difference(array, 0) < CLEARER * difference(array, 1):
        fail = f"must be told by --shape {count} {length}, if it is one image, or of its rows"
        common.fail(f"{name} {fail}, found {array.shape}")
    found = flat_shape(length, shape)
    if not found and flat_shape(array.shape[0], shape):
        array = array.T
        found = flat_shape(array.shape[1], shape)
    if not found:
        found = f"{count:,} rows of {length:,} values"
        common.fail(f"{name} must be squares, or as --shape HEIGHT WIDTH says, found {found}")
    if shape and len(shape) == 3 and shape[0] in (1, 3):
        return array.reshape(-1, *shape).transpose(0, 2, 3, 1), f"flat images, {shape}"
    height, width, channels = found
    images = array.reshape(-1, height, width, channels)
    how = f"flat images of {height} x {width}"
    if channels == 3 and not shape:
        planes = array.reshape(-1, channels, height, width).transpose(0, 2, 3, 1)
        along, across = difference(images, 2), difference(planes, 2)
        if max(along, across) < CLEARER * min(along, across):
            fail = f"must be told by --shape 3 {height} {width} or --shape {height} {width} 3"
            common.fail(f"{name} {fail}, found rows of {array.shape[1]:,} values")
        order = "channel by channel" if across < along else "pixel by pixel"
        return (planes if across < along else images), f"{how} in RGB, {order}"
    return images, how


def stacked_images(name, array, shape):
    """Return images stacked on the first or on the last axis."""
    first, middle, last = array.shape
    on_first = (array, f"{first:,} images on the first axis")
    on_last = (np.moveaxis(array, -1, 0), f"{last:,} images on the last axis")
    if shape and tuple(shape[:2]) in ((middle, last), (first, middle)):
        return on_first if (middle, last) == tuple(shape[:2]) else on_last
    if last in (1, 3, 4):
        return array[np.newaxis], "one image with channels on the last axis"
    if first in (1, 3, 4):
        return np.moveaxis(array, 0, -1)[np.newaxis], "one image with channels on the first axis"
    if middle == last != first or first > SIDES[-1] or last < SIDES[0]:
        return on_first
    if last > SIDES[-1] or first < SIDES[0]:
        return on_last
    steps = [difference(array, axis) for axis in (0, 1, 2)]
    if steps[0] > CLEARER * max(steps[1:]):  # images differ more than neighbouring pixels
        return on_first
    if first == middle != last or steps[2] > CLEARER * max(steps[:2]):
        return on_last
    if first == middle == last:
        return on_first
    fail = f"must be told by --shape {middle} {last} or --shape {first} {middle}"
    return common.fail(f"{name} {fail}, found {array.shape}")


def images_with_channels(name, array, shape):
    """Return images whose channels are the last, the second or, before the images, the third axis.

    Without such an axis, the first two are images: sequences of them.
    """
    if array.shape[3] in (1, 3, 4):
        return array, "channels on the last axis"
    if array.shape[1] in (1, 3, 4):
        return np.moveaxis(array, 1, -1), "channels on the second axis"
    if array.shape[2] in (1, 3, 4):
        return np.moveaxis(array, -1, 0), "images on the last axis, channels on the third"
    if array.shape[2] == array.shape[3]:
        return array.reshape(-1, *array.shape[2:]), "sequences of images on the first two axes"
    return common.fail(f"{name} must have 1, 3 or 4 channels, found {array.shape}")


def last_words(name):
    """Return the words of a name without its folders and groups."""
    return set(words_of(name.rpartition("/")[2]))


def part_of_array(name):
    """Return the part of the data that an array, or else its file, is named as, or None."""
    return part_of(words_of(name.rpartition("/")[2])) or part_of(words_of(name))


def is_labels(name, array):
    """Return whether an array has one value for each image, or is named as labels."""
    has_one_axis = max(array.shape, default=0) == math.prod(array.shape)
    return has_one_axis or (array.ndim == 2 and bool(LABELS & last_words(name)))


def choose_images(arrays, wanted):
    """Return {(part, "" or "_noisy"): name} of arrays of images, chosen by their names."""
    groups = {}
    for name, array in arrays.items():
        is_wanted = wanted in (None, name, name.rpartition("/")[2])
        is_large = math.prod(array.shape) >= SIDES[0] ** 2
        if not is_wanted or array.dtype.kind not in "buif" or array.ndim < 2 or not is_large:
            continue
        if not is_labels(name, array):
            suffix = "_noisy" if NOISY & set(words_of(name)) else ""
            groups.setdefault((part_of_array(name), suffix), []).append(name)
    if not groups:
        found = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        common.fail(f"arrays must be images, or one of them be named by --array, found {found}")
    if any(part for part, _ in groups):
        groups = {key: names for key, names in groups.items() if key[0]}
    if all(suffix for _, suffix in groups):
        groups = {(part, ""): names for (part, _), names in groups.items()}
    return {key: the_only_one(names, arrays) for key, names in groups.items()}


def the_only_one(names, arrays):
    """Return which of several arrays has the images, or end the script with their names."""
    images = [name for name in names if not (MASKS | LABELS) & last_words(name)] or names
    images = [name for name in images if IMAGES & last_words(name)] or images
    images = [name for name in images if arrays[name].ndim > 2] or images
    first, *others = images
    if not all(np.array_equal(arrays[first], arrays[each]) for each in others):
        found = ", ".join(f"{name} {arrays[name].shape}" for name in images[:10])
        common.fail(f"images must be one array, which --array NAME says, found {found}")
    return first


def choose_labels(arrays, part, count):
    """Return the name of the labels of so many images of a part of the data, or None."""
    fitting = []
    for name, array in arrays.items():
        is_of_part = count in array.shape and part_of_array(name) == part
        if is_of_part and is_labels(name, array) and not IDS & last_words(name):
            fitting.append(name)
    named = [name for name in fitting if LABELS & last_words(name)]
    return named[0] if named else fitting[0] if len(fitting) == 1 else None


def label_values(name, arrays, count):
    """Return a label for each of so many images; None for each if they have no labels."""
    if name is None:
        return [None] * count
    values = np.squeeze(np.asarray(arrays[name]))
    if values.dtype.kind == "f" and (values == np.rint(values)).all():
        values = values.astype(int)
    if values.dtype.kind == "O":  # text in HDF5
        values = np.array([str(each, "utf-8") for each in values])
    if values.ndim == 2 and values.shape[0] == count and (values.sum(axis=1) == 1).all():
        print(f"{name}: the class of each image is the column with 1")
        values = values.argmax(axis=1)
    if values.shape != (count,):
        print(f"{name}: not used, {values.shape} is not one label for each image")
        return [None] * count
    return values


def read_all(files, options):
    """Return {name: array} of all files of arrays."""
    arrays = {}
    skipped = []
    for name, path in files.items():
        found = read_arrays(path, len(files) == 1, options.shape)
        if found is None:
            skipped.append(path)
            continue
        stem = name.removesuffix(".gz").removesuffix(path.suffix)
        arrays |= {f"{stem}/{key}".rstrip("/"): array for key, array in found.items()}
    if not arrays:
        found = ", ".join(sorted({path.suffix or path.name for path in skipped})) or "nothing"
        common.fail(f"{options.what[0]} must have pictures or arrays of images, found {found}")
    pictures.say_skipped(options.what[0], skipped)
    return arrays


def array_sources(files, noisy_files, options):
    """Return a Source for each image in files of arrays, and {kind: (low, high)} of the values."""
    arrays = read_all(files, options)
    chosen = choose_images(arrays, options.array)
    if noisy_files:
        noisy = read_all(noisy_files, options)
        for (part, _), name in choose_images(noisy, options.array).items():
            arrays[f"--noisy {name}"] = noisy[name]
            chosen[part, "_noisy"] = f"--noisy {name}"
    images = {key: as_images(name, arrays[name], options.shape) for key, name in chosen.items()}
    kind, limits = array_range(images, options)
    sources = []
    used = set(chosen.values())
    parts = {part: None for part, _ in chosen}
    is_train = len(parts) == 1 or "train" in parts
    if not is_train or any((part, "") not in chosen for part in parts):
        found = ", ".join(chosen.values())
        common.fail(f"images must include some to train on, and clean ones, found {found}")
    for part in parts:
        place = part if len(parts) > 1 else None  # a test file alone is as good as any
        clean = bytes_of_images(images[part, ""], limits)
        noisy = [None] * len(clean)
        if (part, "_noisy") in images:
            noisy = bytes_of_images(images[part, "_noisy"], limits)
        if len(noisy) != len(clean):
            common.fail(f"noisy images must be as many as clean ones, found {len(noisy):,}")
        name = choose_labels(arrays, part, len(clean))
        labels = label_values(name, arrays, len(clean))
        used.add(name)
        for index, row in enumerate(zip(labels, clean, noisy, strict=True)):
            sources.append(Source(f"{chosen[part, '']}[{index}]", place, *row))
    if arrays.keys() - used:
        print(f"left out: {', '.join(sorted(arrays.keys() - used))}")
    return sources, {kind: limits}


def array_range(images, options):
    """Return the kind of the values of images, and those that become black and white."""
    clean = [values for (_, suffix), values in images.items() if not suffix]
    low = min(values.min().item() for values in clean)
    high = max(values.max().item() for values in clean)
    if not all(np.isfinite(values.sum(dtype=float)) for values in images.values()):
        common.fail("images must have finite values, found others")
    kind = "floats" if clean[0].dtype.kind == "f" else "integers"
    limits = tuple(options.range or pictures.guess_range(kind, low, high))
    if limits != (0, 255):
        print(pictures.say_range(f"{kind} from {low:.6g} to {high:.6g}", limits))
    return kind, limits


def bytes_of_images(images, limits):
    """Return images as uint8 (n, height, width, 1 or 3), with a fourth channel as transparency."""
    images = images[..., np.newaxis] if images.ndim == 3 else images
    result = np.empty((*images.shape[:3], 3 if images.shape[3] == 4 else images.shape[3]), np.uint8)
    for start in range(0, len(images), 1000):
        some = pictures.to_bytes(images[start : start + 1000], limits)
        if some.shape[3] == 4:
            share = some[..., 3:] / np.float32(255)
            some = np.rint(some[..., :3] * share + 255 * (1 - share))
        result[start : start + 1000] = some
    if images.shape[3] == 4:
        print("the fourth channel is read as transparency, put on white")
    return result if result.shape[3] == 3 else result[..., 0]


# ---- Pictures: parts, labels and partners --------------------------------------------------------


def part_and_label(name):
    """Return the part that folders of a name are named as, if any, and the other folders."""
    part = None
    others = []
    for folder in name.split("/")[:-1]:
        words = set(words_of(folder))
        if words & PARTS.keys() and words <= PARTS.keys() | PART_WORDS:  # training_set
            part = part_of(words)
        else:
            others.append(folder)
    return part, "/".join(others) or "."


def need_no_pairs(names):
    """End the script if folders have the names of noisy and of clean pictures."""
    folders = {parent for name in names for parent in Path(name).parents if parent.name}
    for clean in sorted(folders):
        words = words_of(clean.name)
        others = [word for word in words if word not in CLEAN]
        for dirty in sorted(folders):
            found = words_of(dirty.name)
            is_noisy = NOISY & set(found) or found == others
            if others != words and is_noisy and dirty.parent == clean.parent:
                text = f"must be WHAT {clean} --noisy {dirty}, found both in WHAT"
                common.fail(f"clean and noisy pictures {text}; classes must have other names")


def without_masks(names):
    """Return the names of pictures without masks of others, which are counted."""
    may_be = {name for name in names if MASKS & set(words_of(GROUND_TRUTH.sub("mask", name)))}
    stems = {Path(name).stem for name in names if name not in may_be}
    shorter = {name: re.sub(r"[ _-][a-zA-Z]+$", "", Path(name).stem) for name in may_be}
    masks = {name for name in may_be if stems & {Path(name).stem, shorter[name]}}
    if masks:
        print(f"left out {len(masks):,} masks of other pictures, such as {min(masks)}")
    return [name for name in names if name not in masks]


def find_partners(clean, noisy):
    """Return {clean name: noisy name}; suffixes and the way to write accents may differ."""
    partners = {name: name for name in set(clean) & set(noisy)}
    noisy_stems = by_stem(set(noisy) - set(partners.values()))
    for stem, names in by_stem(set(clean) - partners.keys()).items():
        found = noisy_stems.get(stem, [])
        if found and len(names) + len(found) > 2:
            common.fail(f"a picture must have one partner, found {', '.join(names + found)}")
        if found:
            partners[names[0]] = found[0]
    alone = sorted((set(clean) - partners.keys()) | (set(noisy) - set(partners.values())))
    if not partners:
        common.fail(f"noisy pictures must have the names of clean ones, found {alone[0]}")
    if alone:
        names = ", ".join(alone[:10])
        print(f"skipped {len(alone):,} pictures without a partner of the same name: {names}")
    return partners


def by_stem(names):
    """Return {name without suffix: names}."""
    found = {}
    for name in sorted(names):
        stem = pictures.same_name(name.removesuffix(Path(name).suffix))
        found.setdefault(stem, []).append(name)
    return found


def picture_files(files):
    """Return the pictures among {name: file}, or else .npy files if there are many."""
    found = {name: path for name, path in files.items() if pictures.is_picture(path)}
    arrays = {name: path for name, path in files.items() if path.suffix == ".npy"}
    return arrays if not found and len(arrays) >= FEWEST else found


def picture_sources(files, noisy_files, options):
    """Return a Source for each picture file, with its partner if there are noisy ones."""
    names = without_masks([*files])
    partners = find_partners(names, [*noisy_files]) if noisy_files else {}
    if not noisy_files:
        need_no_pairs(names)
    sources = []
    for name in names:
        part, label = part_and_label(name)
        if not noisy_files:
            sources.append(Source(name, part, label, files[name]))
        elif name in partners:
            sources.append(Source(name, part, label, files[name], noisy_files[partners[name]]))
    counts = Counter(source.part for source in sources)
    if (None in counts or "train" not in counts) and set(counts) != {None}:
        found = ", ".join(f"{count:,} in {part or 'others'}" for part, count in counts.items())
        common.fail(f"folders must be train, val and test, or others alone, found {found}")
    return sources


def without_copies(sources, options):
    """Return the sources, one of each set of equal ones if asked to, and [(copy, first)]."""
    sizes = Counter(map(size_of, sources))
    first = {}
    copies = []
    for source in sorted(sources, key=is_held_out):  # so those in train stay
        if sizes[size_of(source)] == 1:
            continue
        digest = digest_of(source.clean), digest_of(source.noisy)
        if digest in first:
            copies.append((source.name, first[digest]))
        first.setdefault(digest, source.name)
    if copies:
        done = "left out" if options.drop_copies else "kept; --drop-copies leaves them out"
        print(f"{len(copies):,} of {len(sources):,} images are copies of others: {done}")
    if options.drop_copies:
        names = {name for name, _ in copies}
        sources = [source for source in sources if source.name not in names]
    return sources, copies


def is_held_out(source):
    """Return whether a source is for val or test."""
    return source.part in ("val", "test")


def size_of(source):
    """Return the size of a source in bytes."""
    return source.clean.nbytes if source.is_array else source.clean.stat().st_size


def digest_of(content):
    """Return the SHA-256 digest of a file or of an array; None of nothing."""
    if content is None:
        return None
    if isinstance(content, np.ndarray):
        return hashlib.sha256(np.ascontiguousarray(content)).digest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


# ---- Pictures: ranges, parts of the data and windows ---------------------------------------------


def look(source):
    """Return [(kind, minimum, maximum, shape)] of the pages of a source, and of its partner."""
    facts = ([], [])
    for content, found in zip((source.clean, source.noisy), facts, strict=True):
        for page in pictures.read_pages(content):
            found.append((page.kind, *pictures.extremes(page), page.shape))
    clean, noisy = [[shape[:2] for *_, shape in found] for found in facts]
    if noisy and clean != noisy:
        raise ValueError(f"must have the size of its partner, {noisy[0]}, found {clean[0]}")
    return facts


def picture_ranges(facts, options):
    """Return {kind: (low, high)} of pictures, by the extremes of the clean ones if possible."""
    pages = {}
    for side in (1, 0):  # noisy, then clean
        for kind in {kind for each in facts for kind, *_ in each[side]}:
            pages[kind] = [page for each in facts for page in each[side] if page[0] == kind]
    ranges = {"bytes": (0, 255)}
    for kind, some in pages.items():
        extremes = min(low for _, low, *_ in some), max(high for _, _, high, _ in some)
        ranges[kind] = tuple(options.range or pictures.guess_range(kind, *extremes))
        if ranges[kind] != (0, 255):
            print(pictures.say_range(f"{len(some):,} pictures of {kind}", ranges[kind]))
    return ranges


def random(options):
    """Return a generator of random numbers, which begins anew."""
    return np.random.default_rng(options.seed)


def set_apart(areas, options):
    """Return areas of which some are for val and test, if --crop or --keep-... asks for it."""
    missing = sorted({"test", "val"} - {area.part for area in areas})
    if not missing or not (options.crop or options.keep_folders_together):
        return areas
    train = [area for area in areas if area.part == "train"]
    folders = {Path(area.source.name).parent for area in train}
    by_folder = options.keep_folders_together and len(folders) > len(missing)
    groups = {}
    for area in train:
        name = Path(area.source.name)
        groups.setdefault(name.parent if by_folder else name, []).append(area)
    if options.keep_folders_together and len(groups) <= len(missing):
        text = f"must have {len(missing) + 1} folders or more, found {len(groups)}"
        common.fail(f"--keep-folders-together {text}")
    if not options.keep_folders_together and len(groups) < HELD_OUT:
        return cut_in_strips(areas, missing, options.crop)
    waiting = [[*groups.values()][at] for at in random(options).permutation(len(groups))]
    for part in missing:
        held = 0
        while held < max(1, len(train) // HELD_OUT) and len(waiting) > 1:
            group = waiting.pop(0)
            held += len(group)
            for area in group:
                area.part = part
    if options.keep_folders_together:
        print(f"each of {len(groups):,} {'folders' if by_folder else 'files'} is in one part only")
    return areas


def cut_in_strips(areas, missing, crop):
    """Return strips of few pictures for train, val and test, none overlapping.

    They lie along the longer side. A picture that is too small for three strips stays whole.
    """
    longest = max(max(area.height, area.width) for area in areas)
    if len(missing) < 2 or longest < 3 * crop:
        text = f"{HELD_OUT} pictures to train on, or sides of {3 * crop} and no other parts"
        common.fail(f"for --crop {crop} there must be {text}, found {len(areas)} and {longest}")
    strips = []
    for area in areas:
        length = max(area.height, area.width)
        strip = max(crop, length // HELD_OUT)
        cuts = [("train", 0, length - 2 * strip)]
        cuts += [("val", length - 2 * strip, strip), ("test", length - strip, strip)]
        if length < 3 * crop:
            strips.append(area)
        elif area.height > area.width:
            strips += [replace(area, part=part, top=at, height=n) for part, at, n in cuts]
        else:
            strips += [replace(area, part=part, left=at, width=n) for part, at, n in cuts]
    return [replace(strip, windows=[]) for strip in strips]


def large_enough(areas, crop):
    """Return the pictures that have room for a crop."""
    small = [area.name for area in areas if min(area.height, area.width) < crop]
    text = f"{len(small):,} of {len(areas):,} pictures are smaller than --crop {crop}"
    if len(small) == len(areas):
        common.fail(f"{text}; it must be a smaller number")
    if small:
        print(f"skipped: {text}: {', '.join(small[:10])}")
    return [area for area in areas if min(area.height, area.width) >= crop]


def plan_crops(areas, options):
    """Draw the places of the crops; return {part: areas of the crops, in order}.

    Large areas get more: each place in a picture is as likely as any other.
    """
    draw = random(options)
    planned = {}
    for part in sorted({area.part for area in areas}):
        some = [area for area in areas if area.part == part]
        rows = np.array([area.height - options.crop + 1 for area in some])
        columns = np.array([area.width - options.crop + 1 for area in some])
        places = rows * columns
        count = options.count if part == "train" else max(1, options.count // HELD_OUT)
        chosen = draw.choice(len(some), count, p=places / places.sum())
        planned[part] = [some[index] for index in chosen]
        for row, index in enumerate(chosen):
            area = some[index]
            top = area.top + draw.integers(rows[index])
            left = area.left + draw.integers(columns[index])
            area.windows.append((row, top, left))
    return planned


def plan_whole(areas, options):
    """Give each whole picture a row, in random order; return {part: areas, in order}."""
    sizes = sorted({(area.height, area.width) for area in areas})
    if not options.size and (len(sizes) > 1 or not {*sizes[0]} <= {*SIDES}):
        found = f"{len(sizes)} sizes from {sizes[0]} to {sizes[-1]}" if sizes[1:] else sizes[0]
        text = "pictures must be of one size with sides of 8 to 256, or have --size or --crop"
        common.fail(f"{text}, found {found}")
    oblong = sum(area.height != area.width for area in areas)
    if options.size and oblong:
        done = {"pad": "padded with the colour of their border", "crop": "cropped"}
        text = f"{oblong:,} of {len(areas):,} pictures are not square"
        print(f"{text}: {done.get(options.fit, 'stretched')} (--fit {options.fit})")
    order = range(len(areas))
    if not areas[0].source.is_array:
        order = random(options).permutation(len(areas))
    planned = {}
    for index in order:
        rows = planned.setdefault(areas[index].part, [])
        areas[index].windows.append((len(rows), 0, 0))
        rows.append(areas[index])
    return planned


# ---- Pictures to arrays --------------------------------------------------------------------------


def arrays_of(sources, options):
    """Return {name: array} of sources, and {kind: (low, high)} of the values of pictures."""
    looked, failures = tried(sources, look)
    areas = []
    for source, facts in looked:
        for page, (*_, shape) in enumerate(facts[0]):
            areas.append(Area(source, page, source.part or "train", 0, 0, *shape))
    count = len(areas)
    if not areas:
        pictures.report_failures(failures, len(sources), options)
    if count > len(looked):
        print(f"files: {len(looked):,}; pages and frames, each of which is an image: {count:,}")
    ranges = {"bytes": (0, 255)}
    if not sources[0].is_array:
        ranges = picture_ranges([facts for _, facts in looked], options)
    channels = channels_of(areas, options)
    if options.crop:
        areas = set_apart(large_enough(areas, options.crop), options)
        planned = plan_crops(areas, options)
    else:
        areas = set_apart(areas, options)
        planned = plan_whole(areas, options)
    side = options.crop or options.size
    shape = (side, side) if side else (areas[0].height, areas[0].width)
    arrays = {}
    filled = {}
    for part in sorted(planned, key=["train", "val", "test"].index):
        rows = len(planned[part])
        filled[part] = np.zeros(rows, bool)
        arrays[f"x_{part}"] = np.empty((rows, *shape, channels), np.uint8)
        if sources[0].noisy is not None:
            arrays[f"x_{part}_noisy"] = np.empty((rows, *shape, channels), np.uint8)
        add_names(arrays, part, planned[part])
    plan = {}
    for area in areas:
        plan.setdefault(area.source.name, []).append(area)

    def fill(source):
        """Put the windows planned for a source in the arrays; return notes on what was changed."""
        notes = []
        for suffix, content in (("_noisy", source.noisy), ("", source.clean)):
            for number, page in enumerate(pictures.read_pages(content)):
                image = pictures.as_image(page, ranges)
                notes += page.notes
                for area in plan[source.name]:
                    if area.page == number:
                        cut_windows(image, area, arrays[f"x_{area.part}{suffix}"], options)
        for area in plan[source.name]:
            filled[area.part][[row for row, *_ in area.windows]] = True
        return notes

    used = {area.source.name for area in areas if area.windows}
    notes, more = tried([source for source, _ in looked if source.name in used], fill)
    pictures.report_failures(failures | more, len(sources), options)
    for note, times in Counter(note for _, found in notes for note in found).items():
        print(f"{times:,} of {count:,} pictures {note}")
    for part, rows in filled.items():  # without those of pictures that could not be read
        for name in [name for name in arrays if name.split("_")[1] == part]:
            arrays[name] = arrays[name][rows]
    return arrays, ranges


def cut_windows(image, area, images, options):
    """Put the windows of an area of a Pillow image in rows of an array of images."""
    for row, top, left in area.windows:
        window = image
        if options.crop:
            window = image.crop((left, top, left + options.crop, top + options.crop))
        if options.size:
            window = pictures.resize(window, options.size, options.size, options.fit)
        window = window.convert("L" if images.shape[3] == 1 else "RGB")
        images[row] = np.atleast_3d(np.asarray(window))


def tried(sources, work):
    """Return [(source, work(source))] of the sources that can be read, and {name: error}."""
    results = [*zip(sources, pictures.try_each(sources, work), strict=True)]
    failures = {source.name: error for source, (_, error) in results if error}
    return [(source, result) for source, (result, error) in results if not error], failures


def channels_of(areas, options):
    """Return 1 or 3, the channels of the arrays of pictures, and say so if they are mixed."""
    gray = sum(area.channels == 1 for area in areas)
    if options.gray or gray == len(areas):
        return 1
    if gray:
        print(f"{gray:,} pictures are grayscale and {len(areas) - gray:,} are RGB: RGB is used")
    return 3


def add_names(arrays, part, areas):
    """Add the labels and the names of the pictures of a part of the data to the arrays."""
    labels = [area.source.label for area in areas]
    if None not in labels and set(labels) != {"."}:
        arrays[f"y_{part}"] = np.array(labels)
    if not areas[0].source.is_array:
        arrays[f"names_{part}"] = np.array([area.name for area in areas])


# ---- All together --------------------------------------------------------------------------------


def finish(arrays, ranges, options):
    """Stretch a narrow range of bytes, drop equal channels, and add pixel_range to the arrays."""
    images = [name for name in arrays if name.startswith("x_")]
    limits = next((each for kind, each in ranges.items() if kind != "bytes"), (0, 255))
    if set(ranges) == {"bytes"} and options.range:
        limits = tuple(options.range)
    elif set(ranges) == {"bytes"}:
        highest = max(int(arrays[name].max()) for name in images if not name.endswith("_noisy"))
        limits = pictures.guess_range("bytes", 0, highest)
        if limits != (0, 255):
            print(pictures.say_range(f"bytes of at most {highest}", limits))
        for name in images:
            arrays[name] = pictures.to_bytes(arrays[name], limits)
    if limits != (0, 255):
        arrays["pixel_range"] = np.array(limits, np.float64)
    if arrays[images[0]].shape[3] == 1:
        return
    if all((image == image[..., :1]).all() for name in images for image in arrays[name]):
        print("all images are grayscale, though stored as RGB: one channel is kept")
        for name in images:
            arrays[name] = arrays[name][..., :1]


def convert(options, scratch):
    """Return {name: array} of what the user brings, and [(copy, first)]."""
    if options.shape and len(options.shape) not in (2, 3):
        common.fail(f"--shape must be 2 or 3 numbers, found {len(options.shape)}")
    files = find_files(options.what, scratch / "clean")
    noisy_files = find_files([options.noisy], scratch / "noisy") if options.noisy else {}
    found = picture_files(files)
    if found:
        pictures.say_skipped(options.what[0], [files[name] for name in files.keys() - found])
        sources = picture_sources(found, picture_files(noisy_files), options)
    else:
        sources, array_ranges = array_sources(files, noisy_files, options)
    sources, copies = without_copies(sources, options)
    arrays, ranges = arrays_of(sources, options)
    finish(arrays, ranges if found else array_ranges, options)
    return arrays, copies


def main(options):
    with tempfile.TemporaryDirectory() as folder:
        try:
            arrays, copies = convert(options, Path(folder))
        except MemoryError as error:
            common.fail(f"--size, --crop or --count must fit in memory, found {error}")
    for name in [name for name in arrays if name.startswith("x_")]:
        print(f"{name}: {len(arrays[name]):,} images, {arrays[name].shape[1:]}")
    if len(arrays["x_train"]) < FEWEST:
        print(f"the scripts train on {FEWEST} images or more")
    with common.new_file(options.output) as unfinished, unfinished.open("wb") as file:
        np.savez_compressed(file, **arrays)
    if copies:
        text = "".join(f"{copy}\t{first}\n" for copy, first in copies)
        with common.new_file(copies_path(options.output)) as unfinished:
            unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")


if __name__ == "__main__":
    main(options)
