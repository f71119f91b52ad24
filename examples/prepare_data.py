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
    python examples/prepare_data.py clean --noisy degraded --output pairs.npz --crop 48
"""

import argparse
import gzip
import hashlib
import math
import re
import shutil
import sys
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import h5py
import numpy as np
import pictures
import scipy.io
from pictures import fail

PARTS = {"train": "train", "training": "train", "test": "test", "testing": "test"}  # of names
PARTS |= dict.fromkeys(("val", "valid", "validation", "dev"), "val")
PART_WORDS = {"set", "images", "data", "dataset", *PARTS}  # of the name of a part's folder
LABELS = {"y", "label", "labels", "target", "targets", "class", "classes"}
IDS = {"", "id", "ids", "index", "name", "names"}
USUAL = {"x", "image", "images", "data", "pixels"}  # names of arrays of images
MASKS = {"mask", "masks", "gt", "truth", "groundtruth", "segmentation", "segmentations"}
ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
PICKLES = (".pkl", ".pickle", ".pt", ".pth")
TABLES = (".csv", ".tsv", ".txt")
IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
NUMBER = re.compile(r"[-+]?([\d.]+(e[-+]?\d+)?|nan|inf)")
CHANNELS = (1, 3, 4)
GRAY = "are grayscale"
SMALLEST, LARGEST = 8, 256  # sides of the images that both scripts take
FEWEST = 20  # images in x_train that both scripts take
HELD_OUT = 10  # one picture or folder of so many, or such a share of the area, for val and test


@dataclass(eq=False)
class Source:
    """A picture file or an image of an array, its place in the data, and what look() finds."""

    name: str
    part: str | None  # train, val or test
    label: object
    contents: dict  # {"": clean picture, "_noisy": noisy one}
    sizes: list = field(default_factory=list)  # (height, width) of its pages
    values: list = field(default_factory=list)  # summaries of them, with the suffix
    notes: list = field(default_factory=list)
    digest: bytes = b""

    def __str__(self):
        return self.name


@dataclass
class Area:
    """A page of a source, or a part of it."""

    source: Source
    page: int
    part: str
    top: int
    left: int
    height: int
    width: int


def parse_options(arguments=None):
    """Return the options of the command line; mistakes end the script."""
    description, command, *_ = __doc__.split("\n\n")
    epilog = f"example: {command.strip()}"
    parser = argparse.ArgumentParser(description=description, epilog=epilog, allow_abbrev=False)
    parser.error = fail
    add = parser.add_argument
    add("what", type=Path, nargs="+", metavar="WHAT", help="folders, archives or files")
    add("--output", type=Path, required=True, metavar="FILE", help=".npz file to write")
    add("--force", action="store_true", help="overwrite existing files")
    either = parser.add_mutually_exclusive_group().add_argument
    either("--size", type=int, metavar="N", help="resize to N x N pixels, 8 to 256")
    either("--crop", type=int, metavar="N", help="random crops of N x N pixels, 8 to 256")
    text = "how --size keeps proportions (default: pad, with the colour of the border)"
    add("--fit", choices=("pad", "crop", "stretch"), default="pad", help=text)
    add("--count", type=int, default=10000, metavar="N", help="crops in x_train (default: 10000)")
    add("--noisy", type=Path, metavar="WHAT", help="noisy pictures, named as the clean ones")
    add("--gray", "--grey", action="store_true", help="grayscale instead of RGB")
    add("--range", type=float, nargs=2, metavar=("LOW", "HIGH"), help="values of black and white")
    add("--shape", type=int, nargs="+", metavar="N", help="sides and channels of an image")
    add("--transpose", action="store_true", help="swap height and width, as EMNIST needs")
    add("--array", metavar="NAME", help="array of images to use, where a file has several")
    text = "put all images of a folder into one part, such as frames of one video"
    add("--keep-folders-together", action="store_true", help=text)
    add("--drop-copies", action="store_true", help="use one of each set of equal images")
    add("--skip-unreadable", action="store_true", help="leave out files that cannot be read")
    add("--seed", type=int, default=0, metavar="N", help="random seed (default: 0)")
    options = parser.parse_args(arguments)
    sides = (SMALLEST, LARGEST)
    limits = {"size": sides, "crop": sides, "count": (1, 10**7), "seed": (0, 2**31 - 1)}
    for name, (low, high) in limits.items():
        value = vars(options)[name]
        if value is not None and not low <= value <= high:
            fail(f"--{name} must be {low:,} to {high:,}, found {value:,}")
    if options.range and options.range[0] >= options.range[1]:
        fail(f"--range must be a lower and a higher number, found {options.range}")
    for path in [*options.what, options.noisy or Path()]:
        if not path.exists():
            fail(f"{path} does not exist")
    options.copies = options.output.with_name(f"{options.output.stem}-copies.txt")
    for path in (options.output, options.copies):
        if path.exists() and not options.force:
            fail(f"{path} exists; --force overwrites it")
    return options


# ---- Files and names -----------------------------------------------------------------------------


def find_files(paths, scratch):
    """Return {name: file} of folders, archives and files; archives are unpacked in `scratch`."""
    found = {}
    for number, path in enumerate(paths):
        is_archive = path.name.lower().endswith(ARCHIVES)
        folder = unpack(path, scratch / str(number)) if is_archive else path
        files = pictures.find_files(folder) if folder.is_dir() else [path]
        for file in files:
            name = file.name
            if folder.is_dir():
                prefix = f"{path.name.split('.')[0]}/" if len(paths) > 1 else ""
                name = prefix + file.relative_to(folder).as_posix()
            name = name.encode("utf-8", "backslashreplace").decode()  # of old zip files
            if name in found:
                fail(f"names must differ, found {found[name]} and {file}")
            found[name] = file
    return found


def unpack(path, folder):
    """Unpack an archive, without paths that leave the folder; return it or the only one in it."""
    is_zip = path.name.lower().endswith(".zip")
    settings = {"format": "zip"} if is_zip else {"filter": "data"}
    folder.mkdir(parents=True)
    try:
        shutil.unpack_archive(path, folder, **settings)
    except Exception as error:  # zipfile, tarfile and zlib report a damaged file in many ways
        fail(f"{path} cannot be unpacked: {error}")
    inside = [each for each in folder.iterdir() if not each.name.startswith((".", "__MACOSX"))]
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else folder


def words_of(name):
    """Return the words at the end of a path in lower case: "X_trainImages": x, train, images."""
    name = name.rpartition("/")[2].replace("t10k", "test")
    name = re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower()
    name = re.sub(r"\b([xy])(?=train|test|val)", r"\1 ", name)
    return set(re.findall("[a-z]+", name))


def part_of(name):
    """Return the part of the data that a name or else one of its folders is named as, or None."""
    for each in (name, *map(str, Path(name).parents)):
        for word in words_of(each) & PARTS.keys():
            return PARTS[word]
    return None


# ---- Files of arrays -----------------------------------------------------------------------------


def read_file(path, shape):
    """Return {name: array} of a file; nothing of other kinds of files."""
    with path.open("rb") as file:
        opener = gzip.open if file.read(2) == b"\x1f\x8b" else open
    with opener(path, "rb") as file:
        start = file.read(2**16)
        file.seek(0)
        if path.suffix in PICKLES or re.match(rb"\x80[\2-\5]", start):
            raise ValueError("it must be no pickle, because opening one can run code")
        numbers = [len(re.findall(rb"[\d.]+", line)) for line in start.splitlines()[:2]]
        if start.startswith((b"\x93NUMPY", b"PK")):
            value = np.load(file, allow_pickle=False)
        elif h5py.is_hdf5(path):
            value = h5py.File(path)
        elif start.startswith(b"MATLAB"):
            value = scipy.io.loadmat(file, simplify_cells=True)
        elif start.startswith(b"\0\0") and start[2] in IDX_TYPES:
            value = read_idx(file.read())
        elif b"\0" not in start and max(numbers, default=0) >= SMALLEST**2:
            value = read_table(file.read().decode("utf-8-sig"), shape)
        else:
            value = {}
        return arrays_in("", value)


def arrays_in(name, value):
    """Return {name: array} of an array, or of a group or structure of arrays."""
    if isinstance(value, Mapping):
        found = {}
        for key, inside in value.items():
            if not key.startswith(("#", "__")):  # of MATLAB
                found |= arrays_in(f"{name}/{key}", inside)
        return found
    array = np.asarray(value)
    is_hdf5 = isinstance(value, h5py.Dataset)
    if array.dtype == object:
        cells = np.ravel(array).tolist()
        if is_hdf5 and h5py.check_ref_dtype(value.dtype):
            cells = [value.file[cell][()] for cell in cells]
        array = stack(name, cells)
    if is_hdf5 and value.file.userblock_size:  # MATLAB 7.3 reverses the axes
        array = array.T
    return {name: array} if array.ndim and array.dtype.kind in "buifSU" else {}


def stack(name, cells):
    """Return MATLAB's cells as one array."""
    shapes = sorted({np.shape(cell) for cell in cells})
    if len(shapes) < 2:
        return np.array(cells)
    if min(map(math.prod, shapes)) >= SMALLEST**2:
        must = f"{name.strip('/')} must have cells of one size"
        raise ValueError(f"{must}, found {shapes[0]} and {shapes[-1]}")
    return np.empty(0, dtype=object)  # no images


def read_idx(content):
    """Return the array of an IDX file."""
    shape = np.frombuffer(content, ">u4", count=content[3], offset=4)
    values = np.frombuffer(content, IDX_TYPES[content[2]], offset=4 + shape.nbytes)
    return values.reshape(shape)


def read_table(text, shape):
    """Return {"data": rows of pixels, "column ...": their labels} of a text file."""
    lines = text.strip().splitlines()
    delimiter = next((each for each in ";\t|," if each in lines[-1]), None)  # None: spaces
    if re.search(r"\d,\d+ +\d+,\d", lines[-1]):  # decimal commas, and spaces between columns
        delimiter = None
    if delimiter != ",":
        lines = [line.replace(",", ".") for line in lines]  # decimal commas
    header = [each.strip(' "') for each in lines[0].lower().split(delimiter)]
    row = [each.strip(' "') for each in lines[-1].lower().split(delimiter)]
    columns = range(len(row))
    numbered = [*map(str, columns)]  # as pandas names columns, with an index or without
    texts = [at for at in columns if row[at] and not NUMBER.fullmatch(row[at])]
    first_texts = [at for at in columns if header[at] and not NUMBER.fullmatch(header[at])]
    has_header = first_texts != texts or header[1:] in (numbered[1:], numbered[:-1])
    names = header if has_header else [None] * len(row)
    labels = [at for at in columns if names[at] in LABELS] or texts
    pixels = [at for at in columns if at not in labels + texts and names[at] not in IDS]
    settings = {"delimiter": delimiter, "quotechar": '"', "comments": None, "ndmin": 2}
    settings["skiprows"] = int(has_header)
    if not labels and fits(len(pixels) - 1, shape) and not fits(len(pixels), shape):
        edge = np.loadtxt(lines, usecols=0, **settings)
        labels = columns[-1:] if len(np.unique(edge)) == 1 else [0]  # a pixel at the edge
        pixels = [at for at in pixels if at not in labels]
    arrays = {"data": np.loadtxt(lines, np.float32, usecols=pixels, **settings)}
    if labels:
        column = labels[0]
        name = f"column {column + 1} of {len(row)}"
        if has_header:
            name += f" ({header[column]})"
        kind = str if column in texts else np.float32
        arrays[name] = np.loadtxt(lines, kind, usecols=column, **settings)
    return arrays


def fits(count, shape):
    """Return whether so many values are an image of --shape, or else a square."""
    return count == (math.prod(shape) if shape else math.isqrt(count) ** 2)


# ---- Arrays to images ----------------------------------------------------------------------------


def guess_shapes(shape):
    """Return the shapes that the images in an array of a shape may have."""
    if len(shape) == 2:  # flat images are rows, or else columns
        squares = [2 * (math.isqrt(length),) for length in shape[::-1] if fits(length, None)]
        return squares[:1] + [shape] * (shape[0] == shape[1])
    if len(shape) == 3 and (shape[0] in CHANNELS or shape[2] in CHANNELS):
        return [shape]
    if len(shape) == 3:
        found = [each for each in (shape[1:], shape[:2]) if max(each) <= LARGEST]
        return [each for each in found if each[0] == each[1]][:1] or found
    if len(shape) == 4 and (shape[3] in CHANNELS or shape[1] in CHANNELS):
        return [shape[1:]]
    if len(shape) == 4 and shape[2] in CHANNELS:
        return [shape[:3]]
    return []


def as_images(name, array, shape):
    """Return images (n, height, width[, channels]) of an array, and say how its axes were read."""
    found = [tuple(shape)] if shape else guess_shapes(array.shape)
    if len(found) != 1:
        words = [" ".join(["--shape", *map(str, each)]) for each in found]
        must = " or ".join(words) or "--shape HEIGHT WIDTH"
        fail(f"{name} must have images as told by {must}, found {array.shape}")
    shape = found[0]
    if array.shape[-len(shape) :] == shape or array.shape[-1] == math.prod(shape):
        images = array.reshape(-1, *shape)
        axis = "first"
    elif array.shape[: len(shape)] == shape or array.shape[0] == math.prod(shape):
        images = np.moveaxis(array.reshape(*shape, -1), -1, 0)
        axis = "last"
    else:
        fail(f"{name} must have images of {shape}, found {array.shape}")
    if len(shape) == 3 and shape[0] in CHANNELS and shape[2] not in CHANNELS:
        images = np.moveaxis(images, 1, -1)
    if not np.isfinite(images).all():
        bad = sum(not np.isfinite(image).all() for image in images)
        fail(f"{name} must have finite numbers, found others in {bad:,} of {len(images):,} images")
    text = f"{len(images):,} images of {' x '.join(map(str, shape))} on the {axis} axis"
    if array.ndim == 2:
        text += ", their pixels row by row (--transpose: column by column)"
    print(f"{name}: {array.dtype} {array.shape}, {text}")
    return images


def choose(arrays, wanted):
    """Return {part: {role: name}} of arrays, by their names; `wanted` is --array."""
    candidates = {}
    for name, array in arrays.items():
        words = words_of(name)
        is_flat = array.size == max(array.shape, default=0)
        role = "labels" if words & LABELS or is_flat else "images"
        is_wanted = wanted in (None, name, name.rpartition("/")[2]) or role == "labels"
        if is_wanted and array.size > 1 and not words & (IDS | (set() if wanted else MASKS)):
            candidates.setdefault(part_of(name), {}).setdefault(role, []).append(name)
    candidates = {part: roles for part, roles in candidates.items() if "images" in roles}
    if len(candidates) > 1:
        candidates.pop(None, None)
    chosen = {}
    for part, roles in candidates.items():
        chosen[part] = {role: the_only_one(role, names, arrays) for role, names in roles.items()}
    return chosen


def the_only_one(role, names, arrays):
    """Return the name of an array; end the script if others have other values."""
    first, *others = [name for name in names if words_of(name) & (USUAL | LABELS)] or names
    for other in others:
        if not np.array_equal(np.ravel(arrays[first]), np.ravel(arrays[other])):
            found = ", ".join(f"{name} {arrays[name].shape}" for name in names[:10])
            fail(f"{role} must be one array, which --array NAME says, found {found}")
    return first


def array_sources(files, options):
    """Return a Source for each image in files of arrays."""

    def read(name):
        return read_file(files[name], options.shape)

    arrays = {}
    for name, found in pictures.for_each_picture([*files], read, options, "file").items():
        stem = name.removesuffix(".gz").removesuffix(files[name].suffix)
        arrays |= {stem + key: array for key, array in found.items()}
    chosen = choose(arrays, options.array)
    if not chosen:
        found = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        hint = f"{found}; --array NAME uses one" if arrays else "none"
        tables = [name for name in files if name.endswith(TABLES)]
        if tables and not arrays:
            hint = f"none; a row of {tables[0]} must have {SMALLEST**2} pixels or more"
        fail(f"there must be pictures or arrays of images, found {hint}")
    sources = []
    used = set()
    for part, roles in chosen.items():
        name = roles["images"]
        images = as_images(name, arrays[name], options.shape)
        if options.transpose:
            images = images.swapaxes(1, 2)
        used.add(name)
        labels = np.ravel(arrays.get(roles.get("labels"), []))
        if len(labels) == len(images):
            print(f"labels are in {roles['labels']}")
            used.add(roles["labels"])
        else:
            labels = np.full(len(images), None)
        if labels.dtype.kind == "f" and (labels == np.rint(labels)).all():
            labels = labels.astype(int)
        place = part if len(chosen) > 1 else None  # a test file alone is as good as any
        for index, image in enumerate(images):
            sources.append(Source(f"{name}[{index}]", place, labels[index], {"": image}))
    if arrays.keys() - used:
        print(f"left out: {', '.join(sorted(arrays.keys() - used))}")
    return sources


# ---- Pictures: parts, labels and partners --------------------------------------------------------


def part_and_label(name):
    """Return the part that folders of a name are named as, if any, and the other folders."""
    part = None
    others = []
    for folder in name.split("/")[:-1]:
        words = words_of(folder)
        if words & PARTS.keys() and words <= PART_WORDS:  # training_set
            part = part_of(folder)
        else:
            others.append(folder)
    return part, "/".join(others) or None


def without_masks(names):
    """Return the names of pictures without masks of others, which are counted."""
    may_be = {name for name in names if MASKS & set(re.findall("[a-z]+", name.lower()))}
    stems = {Path(name).stem for name in names if name not in may_be}
    shorter = {name: re.sub("[ _-][a-zA-Z]+$", "", Path(name).stem) for name in may_be}
    masks = {name for name in may_be if stems & {Path(name).stem, shorter[name]}}
    if masks:
        print(f"left out {len(masks):,} masks of other pictures, such as {min(masks)}")
    return [name for name in names if name not in masks]


def by_stem(names):
    """Return {name without suffix: name}; the suffix stays where names differ only in it."""
    composed = {name: unicodedata.normalize("NFC", name) for name in names}  # macOS splits accents
    stems = {name: text.removesuffix(Path(text).suffix) for name, text in composed.items()}
    counts = Counter(stems.values())
    return {stem if counts[stem] == 1 else composed[name]: name for name, stem in stems.items()}


def picture_sources(files, noisy_files, options):
    """Return a Source for each picture file, with its partner if there are noisy ones."""
    clean = by_stem(without_masks(files))
    noisy = by_stem(noisy_files)
    both = clean | noisy
    alone = sorted(both[stem] for stem in clean.keys() ^ noisy.keys())
    if options.noisy and alone:
        text = f"{len(alone):,} pictures without a partner of the same name"
        print(f"skipped {text}: {', '.join(alone[:10])}")
    sources = []
    for stem, name in clean.items():
        part, label = part_and_label(name)
        contents = {"": files[name]}
        if stem in noisy:
            contents["_noisy"] = noisy_files[noisy[stem]]
        if stem in noisy or not options.noisy:
            sources.append(Source(name, part, label, contents))
    return sources


def find_sources(options, scratch):
    """Return a Source for each picture file, or else for each image in files of arrays."""
    files = find_files(options.what, scratch / "clean")
    noisy_files = find_files([options.noisy] if options.noisy else [], scratch / "noisy")
    found = {name: path for name, path in files.items() if pictures.is_picture(path)}
    noisy = {name: path for name, path in noisy_files.items() if pictures.is_picture(path)}
    if found or options.noisy:
        pictures.say_skipped(options.what[0], [files[name] for name in files.keys() - found])
        sources = picture_sources(found, noisy, options)
    else:
        sources = array_sources(files, options)
    if not sources:
        fail("clean and noisy pictures must have the same names, found other names")
    counts = Counter(source.part for source in sources)
    if set(counts) != {None} and (None in counts or "train" not in counts):
        found = ", ".join(f"{count:,} in {part or 'others'}" for part, count in counts.items())
        fail(f"images must be in train, val and test, or in none of them, found {found}")
    labels = sorted({str(source.label) for source in sources})
    if len(labels) > 1:
        print(f"{len(labels):,} labels: {', '.join(labels[:10])}")
    return sources


# ---- Sources to areas ----------------------------------------------------------------------------


def look(source):
    """Find the sizes, the extremes and the digest of the pixels of a source."""
    digest = hashlib.blake2b()
    for suffix, content in source.contents.items():
        sizes = []
        for pixels in pictures.read_pages(content, source.notes):
            sizes.append(pixels.shape[:2])
            source.values.append((suffix, *pictures.summary(pixels)))
            if pixels.ndim == 2 or (pixels == pixels[..., :1]).all():
                source.notes.append(GRAY)
            digest.update(repr(pixels.shape).encode())
            digest.update(np.ascontiguousarray(pixels))
        if suffix and sizes != source.sizes:
            raise ValueError(f"must have the sizes of its partner, {sizes}, found {source.sizes}")
        source.sizes = sizes
    source.digest = digest.digest()


def find_copies(sources, options):
    """Return {copy: first} of equal sources, and say how many there are."""
    train = [source for source in sources if source.part not in ("val", "test")]
    others = [source for source in sources if source.part in ("val", "test")]
    first = {}
    copies = {}
    for source in train + others:  # so that of copies, those in train come first
        if source.digest in first:
            copies[source] = first[source.digest]
        first.setdefault(source.digest, source)
    if copies:
        done = "left out" if options.drop_copies else "kept; --drop-copies leaves them out"
        print(f"{len(copies):,} of {len(sources):,} images are copies of others: {done}")
    return copies


def set_apart(areas, options):
    """Return areas of which some are for val and test, if --crop or --keep-... asks for it."""
    missing = sorted({"test", "val"} - {area.part for area in areas})
    if not missing or not (options.crop or options.keep_folders_together):
        return areas
    train = [area for area in areas if area.part == "train"]
    groups = {}
    for area in train:
        name = Path(area.source.name)
        groups.setdefault(name.parent if options.keep_folders_together else name, []).append(area)
    if options.keep_folders_together and len(groups) <= len(missing):
        must = f"--keep-folders-together must have {len(missing) + 1} folders or more"
        fail(f"{must}, found {len(groups)}")
    if not options.keep_folders_together and len(groups) < HELD_OUT:
        return cut_in_strips(areas, missing, options.crop)
    order = np.random.default_rng(options.seed).permutation(len(groups))
    waiting = [[*groups.values()][at] for at in order]
    for part in missing:
        held = 0
        while held < max(1, len(train) // HELD_OUT) and len(waiting) > 1:
            group = waiting.pop(0)
            held += len(group)
            for area in group:
                area.part = part
    if options.keep_folders_together and len({area.source.label for area in train}) > 1:
        print("--keep-folders-together: each label is in one part only, as folders are labels")
    return areas


def cut_in_strips(areas, missing, crop):
    """Return strips of few pictures for train, val and test, none overlapping.

    They lie along the longer side. A picture that is too small for three strips stays whole.
    """
    longest = max(max(area.height, area.width) for area in areas)
    if len(missing) < 2 or longest < 3 * crop:
        text = f"{HELD_OUT} pictures to train on, or sides of {3 * crop} and no other parts"
        fail(f"for --crop {crop} there must be {text}, found {len(areas)} and {longest}")
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
    return strips


# ---- Areas to arrays -----------------------------------------------------------------------------


def plan_crops(areas, options):
    """Return areas of random crops.

    Large areas get more: each place in a picture is as likely as any other.
    """
    draw = np.random.default_rng(options.seed)
    crops = []
    for part in sorted({area.part for area in areas}):
        some = [area for area in areas if area.part == part]
        rows = np.array([area.height - options.crop + 1 for area in some])
        columns = np.array([area.width - options.crop + 1 for area in some])
        places = rows * columns
        count = options.count if part == "train" else max(1, options.count // HELD_OUT)
        for index in draw.choice(len(some), count, p=places / places.sum()):
            area = some[index]
            top = area.top + draw.integers(rows[index])
            left = area.left + draw.integers(columns[index])
            crops.append(replace(area, top=top, left=left))
    return crops


def plan_whole(areas, options):
    """Return areas of whole images, pictures in random order; without --size, all of one size."""
    sizes = sorted({(area.height, area.width) for area in areas})
    is_one_size = len(sizes) == 1 and min(sizes[0]) >= SMALLEST and max(sizes[0]) <= LARGEST
    if not options.size and not is_one_size:
        text = "pictures must be of one size with sides of 8 to 256, or have --size or --crop"
        fail(f"{text}, found {len(sizes)} from {sizes[0]} to {sizes[-1]}")
    oblong = sum(area.height != area.width for area in areas)
    if options.size and oblong:
        print(f"{oblong:,} of {len(areas):,} pictures are not square: --fit {options.fit}")
    if isinstance(areas[0].source.contents[""], Path):
        order = np.random.default_rng(options.seed).permutation(len(areas))
        areas = [areas[index] for index in order]
    return areas


def fill(planned, ranges, mode, options):
    """Return {name: array} of planned areas, with their labels and names; the mode is L or RGB."""
    arrays = {}
    windows = {}  # of the pages of sources
    side = options.crop or options.size
    for part in ("train", "val", "test"):
        areas = [area for area in planned if area.part == part]
        if not areas:
            continue
        source = areas[0].source
        size = (side, side) if side else source.sizes[0]
        for suffix in source.contents:
            arrays[f"x_{part}{suffix}"] = np.empty((len(areas), *size, len(mode)), np.uint8)
        labels = [area.source.label for area in areas]
        if None not in labels:
            arrays[f"y_{part}"] = np.array(labels)
        if isinstance(source.contents[""], Path):
            names = [f"{area.source}#{area.page + 1}".removesuffix("#1") for area in areas]
            arrays[f"names_{part}"] = np.array(names)
        for row, area in enumerate(areas):
            windows.setdefault((area.source, area.page), []).append((row, area))

    def fill_from(source):
        """Put the windows planned for a source in the arrays."""
        for suffix, content in source.contents.items():
            for page, pixels in enumerate(pictures.read_pages(content, [])):
                image = pictures.as_image(pixels, ranges)
                for row, area in windows.get((source, page), []):
                    window = image
                    if options.crop:
                        box = (area.left, area.top, area.left + side, area.top + side)
                        window = image.crop(box)
                    if options.size:
                        window = pictures.resize(image, side, side, options.fit)
                    arrays[f"x_{area.part}{suffix}"][row] = np.atleast_3d(window.convert(mode))

    sources = dict.fromkeys(area.source for area in planned)
    pictures.for_each_picture([*sources], fill_from, options)
    return arrays


def convert(options, scratch):
    """Return {name: array} of what the user brings, and {copy: first} of equal images."""
    sources = [*pictures.for_each_picture(find_sources(options, scratch), look, options)]
    copies = find_copies(sources, options)
    if options.drop_copies:
        sources = [source for source in sources if source not in copies]
    areas = []
    for source in sources:
        for page, size in enumerate(source.sizes):
            areas.append(Area(source, page, source.part or "train", 0, 0, *size))
    notes = Counter(note for source in sources for note in source.notes)
    for note, count in notes.items():
        print(f"{count:,} pictures {note}")
    if len(areas) > len(sources):
        print(f"{len(sources):,} files: {len(areas):,} pages or frames, each of which is an image")
    values = [each for source in sources for each in source.values]
    clean = {kind for suffix, kind, *_ in values if not suffix}
    used = [each for suffix, *each in values if not suffix or each[0] not in clean]
    ranges = pictures.ranges_of(used, options)
    if options.crop:
        large = [area for area in areas if min(area.height, area.width) >= options.crop]
        if len(large) < len(areas):
            count = f"{len(areas) - len(large):,} of {len(areas):,}"
            print(f"skipped: {count} pictures are smaller than --crop {options.crop}")
        if not large:
            fail(f"--crop must be at most the size of the pictures, found {options.crop}")
        planned = plan_crops(set_apart(large, options), options)
    else:
        planned = plan_whole(set_apart(areas, options), options)
    is_gray = options.gray or notes[GRAY] == len(values)
    arrays = fill(planned, ranges, "L" if is_gray else "RGB", options)
    limits = next(ranges[kind] for kind in ("floats", "integers", "bytes") if kind in ranges)
    if limits != (0, 255):
        arrays["pixel_range"] = np.array(limits, np.float64)
    return arrays, copies


def main(options):
    try:
        with tempfile.TemporaryDirectory() as scratch:
            arrays, copies = convert(options, Path(scratch))
        options.output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=options.output.parent, prefix=".") as folder:
            unfinished = Path(folder, "new.npz")
            np.savez_compressed(unfinished, **arrays)
            unfinished.replace(options.output)
        if copies:
            lines = [f"{copy}\t{first}\n" for copy, first in copies.items()]
            text = "".join(lines)
            options.copies.write_text(text, encoding="utf-8", errors="backslashreplace")
    except (OSError, MemoryError) as error:
        fail(f"{options.output} cannot be written: {error}")
    for name in [name for name in arrays if name.startswith("x_")]:
        print(f"{name}: {len(arrays[name]):,} images, {arrays[name].shape[1:]}")
    if len(arrays["x_train"]) < FEWEST:
        print(f"the scripts need {FEWEST} or more images in x_train")
    print(f"wrote {options.output}")


if __name__ == "__main__":
    if hasattr(sys.stdout, "reconfigure"):  # not in a notebook
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may not be UTF-8
    main(parse_options())
