"""Read picture files: for prepare_data.py, and for the examples that take picture files.

Pillow reads most kinds. Further packages read others where they are installed: tifffile (TIFF),
pillow-heif (HEIC), pydicom (DICOM) and pypdfium2 (PDF).
"""

import collections
import contextlib
import importlib
import json
import logging
import unicodedata
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import common
import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

# Suffixes of pictures; files without a suffix are tried as well.
FORMATS = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".tif", ".tiff", ".webp")
FORMATS += (".pbm", ".pgm", ".ppm", ".pnm", ".pfm", ".jp2", ".j2k", ".jpx", ".tga", ".avif")
FORMATS += (".heic", ".heif", ".dcm", ".dicom", ".pdf")
LARGEST = 1_000_000_000  # pixels of a picture: 3 GB in RGB; Pillow's own limit is 179 million
Image.MAX_IMAGE_PIXELS = None  # LARGEST is checked instead
ANIMATED = ("GIF", "PNG", "WEBP", "AVIF")  # each frame is a picture; MPO has extras of one picture
SLIDE_EXTRAS = ("Thumbnail", "Label", "Macro")  # series of a TIFF file from a slide scanner
PDF_DPI = 150  # a page of A4 has 1240 x 1754 pixels then
DARK = 64  # images whose maximum is lower are hardly of the range 0 to 255
SLACK = 0.1  # floats may exceed a range by this share of it, as after resizing
WORKERS = 2  # pictures in memory at the same time; one of 12 megapixels takes up to 150 MB
for module in ("tifffile", "pydicom"):
    logging.getLogger(module).disabled = True  # what cannot be read is an exception
HTML = (b"<!doctype html", b"<html")


@dataclass
class Page:
    """One picture of a file: a Pillow image of bytes, or an array (height, width[, channels])."""

    picture: Image.Image | np.ndarray
    info: dict = field(default_factory=dict)  # dpi and icc_profile, where the file has them
    notes: list = field(default_factory=list)  # what had to be changed to read it

    @property
    def kind(self):
        if isinstance(self.picture, Image.Image):
            return "bytes"
        return "floats" if self.picture.dtype.kind == "f" else "integers"

    @property
    def shape(self):
        """Height and width when upright, and channels, 1 or 3."""
        if self.kind != "bytes":
            return *self.picture.shape[:2], 3 if self.picture.ndim == 3 else 1
        width, height = self.picture.size
        if self.picture.getexif().get(ExifTags.Base.Orientation, 1) >= 5:  # rotated by 90 degrees
            width, height = height, width
        return height, width, 1 if self.picture.mode in ("1", "L", "LA", "La") else 3


# ---- Files to pages ------------------------------------------------------------------------------


def read_pages(path):
    """Yield the pages of a picture file, the frames of an animation, or an array; none of None.

    Raises an exception that says what is wrong with the file.
    """
    if path is None:
        return
    if isinstance(path, np.ndarray):
        yield Page(Image.fromarray(path))
        return
    with path.open("rb") as file:
        start = file.read(132)
    if start[128:] == b"DICM" or path.suffix.lower() in (".dcm", ".dicom"):
        yield from dicom_pages(path)
    elif start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        yield from tiff_pages(path)
    elif start.startswith(b"%PDF"):
        yield from pdf_pages(path)
    elif path.suffix == ".npy":
        yield Page(checked(np.load(path, allow_pickle=False)))
    else:
        yield from pillow_pages(path, start)


def pillow_pages(path, start):
    """Yield the pages of a file that Pillow reads; `start` is its first bytes."""
    if start[4:8] == b"ftyp" and start[8:12] not in (b"avif", b"avis"):
        need("pillow_heif", "HEIC", "pillow-heif").register_heif_opener()
    try:
        picture = Image.open(path)
    except UnidentifiedImageError:
        raise ValueError(what_is_wrong(start)) from None
    need_pixels(*picture.size)
    frames = getattr(picture, "n_frames", 1) if picture.format in ANIMATED else 1
    for index in range(frames):
        picture.seek(index)
        info = {key: picture.info[key] for key in ("dpi", "icc_profile") if key in picture.info}
        if picture.mode[0] in "IF":  # more than 8 bits
            yield Page(checked(np.asarray(ImageOps.exif_transpose(picture))), info)
        else:
            yield Page(picture.copy() if frames > 1 else picture, info)


def tiff_pages(path):
    """Yield the pages of a TIFF file without thumbnails; channels that are pages become one."""
    with need("tifffile", "TIFF", "tifffile imagecodecs").TiffFile(path) as file:
        for series in file.series:
            page = series.keyframe
            if page.is_reduced or series.name in SLIDE_EXTRAS:
                continue
            need_pixels(page.imagewidth, page.imagelength)
            info = {"dpi": page.get_resolution("inch")} if 282 in page.tags else {}
            if 34675 in page.tags:
                info["icc_profile"] = page.tags[34675].value
            for values in planes(file, series):
                yield tiff_page(values, page, info)


def planes(file, series):
    """Yield the arrays (height, width[, channels]) of a series of TIFF pages."""
    at = series.axes.find("C")
    if at >= 0 and series.shape[at] in (3, 4):  # channels as pages
        values = np.moveaxis(series.asarray(), at, -1)
        yield from values.reshape(-1, *values.shape[-3:])
        return
    shape = series.keyframe.shape
    if len(series.pages) * np.prod(shape) == np.prod(series.shape):
        several = (page.asarray() for page in series.pages)
    else:  # ImageJ keeps large stacks as one page
        several = series.asarray().reshape(-1, *shape)
    for values in several:
        yield np.moveaxis(values, 0, -1) if series.axes.endswith("SYX") else values


def tiff_page(values, page, info):
    """Return a page of a TIFF file, with 0 as black, of values as its tags say."""
    meaning = need("tifffile", "TIFF").PHOTOMETRIC(page.photometric).name
    notes = []
    if meaning not in ("MINISBLACK", "MINISWHITE", "RGB", "PALETTE", "SEPARATED", "YCBCR"):
        raise ValueError(f"must be grayscale, RGB, a palette or CMYK, found {meaning}")
    if page.bitspersample < 8 and meaning != "PALETTE":
        values = np.uint8(values) * np.uint8(255 // (2**page.bitspersample - 1))
    if meaning == "MINISWHITE" and values.dtype.kind == "u":
        values = (255 if values.dtype == np.uint8 else 2**page.bitspersample - 1) - values
    if meaning == "PALETTE":
        values = np.moveaxis(np.uint8(page.colormap >> 8)[:, values], 0, -1)
    orientation = page.tags.valueof(274, default=1)
    if orientation > 1:
        notes.append("rotated as their EXIF data say")
        values = upright(values, orientation)
    if meaning == "SEPARATED" and values.dtype == np.uint8 and values.shape[-1] == 4:
        return Page(Image.fromarray(values, "CMYK"), info, notes)
    if values.ndim == 3 and values.shape[-1] == 2:
        values = values[..., 0]
        notes.append("second channel left out")
    values = checked(values)
    return Page(Image.fromarray(values) if values.dtype == np.uint8 else values, info, notes)


def upright(values, orientation):
    """Return pixels (height, width, ...) rotated and flipped as the Exif orientation, 1 to 8."""
    if orientation >= 5:
        values = values.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    return np.ascontiguousarray(values)


def dicom_pages(path):
    """Yield the frames of a DICOM file, with its own scale (for CT: Hounsfield units)."""
    pixels = need("pydicom.pixels", "DICOM", "pydicom")
    data = need("pydicom", "DICOM").dcmread(path, force=True)
    scaled = pixels.apply_rescale(pixels.pixel_array(data), data)
    if scaled.dtype.kind == "f" and (scaled == np.rint(scaled)).all():
        scaled = scaled.astype(np.int32)
    if data.PhotometricInterpretation == "MONOCHROME1":  # the minimum is white
        scaled = scaled.max() + scaled.min() - scaled
    count = int(data.get("NumberOfFrames", 1) or 1)
    for values in scaled if count > 1 else [scaled]:
        values = checked(values)
        yield Page(Image.fromarray(values) if values.dtype == np.uint8 else values)


def pdf_pages(path):
    """Yield the pages of a PDF file, drawn at PDF_DPI."""
    document = need("pypdfium2", "PDF").PdfDocument(path)
    for page in document:
        info = {"dpi": (PDF_DPI, PDF_DPI)}
        yield Page(page.render(scale=PDF_DPI / 72).to_pil(), info, [f"drawn at {PDF_DPI} dpi"])


def need(module, kind, package=None):
    """Return an optional module; raise a ValueError with the name of its package."""
    try:
        return importlib.import_module(module)
    except ImportError:
        text = f"is {kind}, which needs: pip install {package or module}"
        raise ValueError(text) from None


def need_pixels(width, height):
    """Raise a ValueError if a picture is larger than memory should hold."""
    if width * height > LARGEST:
        raise ValueError(f"must have at most {LARGEST:,} pixels, found {width:,} x {height:,}")


def checked(values):
    """Return finite values (height, width[, 3 or 4]) without axes of length 1."""
    values = np.squeeze(values)
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] not in (3, 4)):
        raise ValueError(f"must be (height, width) with 1, 3 or 4 channels, found {values.shape}")
    if values.dtype.kind not in "buif" or not np.isfinite(values).all():
        raise ValueError("must have finite numbers, found others")
    return np.uint8(values) * 255 if values.dtype == bool else values


def what_is_wrong(start):
    """Return what a file is that Pillow does not know, by its first bytes."""
    if not start:
        return "is empty"
    if start.lstrip().lower().startswith(HTML):
        return "is an HTML page"
    return "is damaged, or of a kind that is not read"


# ---- Values to bytes -----------------------------------------------------------------------------


def guess_range(kind, low, high):
    """Return the values that become black and white, from the extremes of all images.

    `kind` is "bytes", "integers" or "floats". Rounding and resizing may exceed the usual ranges of
    floats a little; values beyond are clipped.
    """
    usual = {(0, 255): DARK}  # and the lowest maximum
    slack = 0
    if kind == "floats":
        usual = {(-1, 1) if low < -0.5 else (0, 1): DARK / 255, (0, 255): 128}
        slack = SLACK
    for (black, white), lowest in usual.items():
        beyond = slack * (white - black)
        if black - beyond <= low and lowest <= high <= white + beyond:
            return black, white
    if low >= 0 and 0 < high < 255:
        return 0, high
    return low, max(high, low + 1)  # constant images become black


def extremes(page):
    """Return the lowest and the highest value of a page; those of bytes are not looked up."""
    if page.kind == "bytes":
        return 0, 255
    return page.picture.min().item(), page.picture.max().item()


def to_bytes(values, limits):
    """Return values as uint8, with limits (low, high) as black and white; others are clipped."""
    low, high = limits
    if values.dtype == np.uint8 and (low, high) == (0, 255):
        return values
    share = values.astype(np.result_type(values.dtype, np.float32))
    share -= low
    share /= high - low
    np.clip(share, 0, 1, out=share)
    share *= 255
    return np.uint8(np.rint(share, out=share))


def as_image(page, ranges):
    """Return a page as an upright Pillow image, grayscale or RGB; transparency is put on white.

    `ranges` is {kind: (low, high)}. What had to be changed is added to the notes of the page.
    """
    if page.kind != "bytes":
        values = page.picture
        if values.ndim == 3 and values.shape[2] == 4:
            page.notes.append("fourth channel left out")
            values = values[..., :3]
        return Image.fromarray(to_bytes(values, ranges[page.kind]))
    picture = page.picture
    if picture.getexif().get(ExifTags.Base.Orientation, 1) > 1:
        page.notes.append("rotated as their EXIF data say")
        picture = ImageOps.exif_transpose(picture)
    mode = "L" if picture.mode in ("1", "L", "LA", "La") else "RGB"
    if picture.mode == "CMYK":
        page.notes.append("converted from CMYK")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        if picture.getchannel("A").getextrema()[0] < 255:
            page.notes.append("with transparency, put on white")
            white = Image.new("RGB", picture.size, "white")
            white.paste(picture, mask=picture.getchannel("A"))
            picture = white
    if picture.mode != mode:
        picture = picture.convert(mode)
    if ranges["bytes"] != (0, 255):
        picture = Image.fromarray(to_bytes(np.asarray(picture), ranges["bytes"]))
    return picture


def resize(picture, height, width, fit):
    """Return a Pillow image of a size; `fit` is "pad", "crop" or "stretch".

    Proportions are kept but for "stretch". The padding has the median colour of the border.
    """
    if fit == "stretch":
        return picture.resize((width, height))
    if fit == "crop":
        return ImageOps.fit(picture, (width, height))
    picture = ImageOps.contain(picture, (width, height))
    if picture.size == (width, height):
        return picture
    pixels = np.atleast_3d(np.asarray(picture))
    border = [pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]
    colour = np.median(np.concatenate(border), axis=0).astype(int).tolist()
    padded = Image.new(picture.mode, (width, height), tuple(colour))
    padded.paste(picture, ((width - picture.width) // 2, (height - picture.height) // 2))
    return padded


# ---- Many files ----------------------------------------------------------------------------------


def find_files(folder):
    """Return the files of a folder and its subfolders in order, without hidden ones."""
    files = []
    links = 0
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        is_hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
        links += path.is_symlink() and not path.is_file()
        if path.is_file() and not is_hidden and path.name != "DICOMDIR":
            files.append(path)
    if links:
        print(f"{folder}: skipped {links:,} links to folders or to nothing")
    return files


def is_picture(path):
    """Return whether a file is one by its suffix or, if it has none, by its first bytes."""
    suffix = path.suffix.lower()
    if suffix in FORMATS:
        return True
    if suffix and not suffix[1:].isdecimal():  # numbers are parts of names: 1.2.840.1
        return False
    with path.open("rb") as file:
        start = file.read(132)
    if start[128:] == b"DICM" or start.startswith(b"%PDF"):
        return True
    try:
        with Image.open(path):
            return True
    except Exception:  # Pillow reports other content in many ways
        return False


def find_pictures(folder, output=None):
    """Return the pictures of a folder, without those in a subfolder `output`."""
    files = find_files(folder)
    if output and folder.resolve() in output.resolve().parents:
        inside = folder / output.resolve().relative_to(folder.resolve())
        files = [file for file in files if inside not in file.parents]
    found = [file for file in files if is_picture(file)]
    say_skipped(folder, set(files) - set(found))
    return found


def say_skipped(folder, paths):
    """Say how many files were skipped, by suffix."""
    if paths:
        suffixes = collections.Counter(path.suffix.lower() or "without suffix" for path in paths)
        counts = ", ".join(f"{count:,} {suffix}" for suffix, count in suffixes.most_common())
        print(f"{folder}: skipped {counts}")


def same_name(name):
    """Return a name with composed accents: macOS writes them in two characters."""
    return unicodedata.normalize("NFC", name)


def with_progress_bar(found, count):
    """Return an iterator that shows its progress on a terminal, where tqdm is installed."""
    with contextlib.suppress(ImportError):
        from tqdm import tqdm

        return tqdm(found, total=count, unit="picture", disable=None)
    return found


def try_each(sources, work):
    """Call work(source) on several sources at a time; return (result, error) of each, in order."""

    def attempt(source):
        try:
            return work(source), None
        except Exception as error:  # Pillow and others report a damaged file in many ways
            return None, error

    with ThreadPoolExecutor(WORKERS) as pool, warnings.catch_warnings(action="ignore"):
        found = pool.map(attempt, sources)
        return [*with_progress_bar(found, len(sources))]


def report_failures(failures, count, options):
    """End the script with the names of files that cannot be read, or skip them if asked to.

    `failures` is {path: error}, `count` the number of all files.
    """
    if not failures:
        return
    reasons = {path: " ".join(str(error).split())[:200] for path, error in failures.items()}
    names = "; ".join(f"{path}: {reason}" for path, reason in [*reasons.items()][:10])
    text = f"{len(failures):,} of {count:,} pictures cannot be read ({names})"
    if not vars(options).get("skip_unreadable") or len(failures) == count:
        skip = "" if "skip_unreadable" not in options else "; --skip-unreadable leaves them out"
        common.fail(f"{text}{skip if len(failures) < count else ''}")
    print(f"skipped: {text}")


def for_each_picture(paths, work, options):
    """Return {path: work(path)} of the pictures that can be read."""
    found = try_each(paths, work)
    failures = {path: error for path, (_, error) in zip(paths, found, strict=True) if error}
    report_failures(failures, len(paths), options)
    return {path: result for path, (result, error) in zip(paths, found, strict=True) if not error}


# ---- For a trained model -------------------------------------------------------------------------


def model_range(folder):
    """Return the range of the values that a model was trained on, (low, high), or None."""
    path = folder / "metrics.json"
    found = json.loads(path.read_text()).get("pixel_range") if path.is_file() else None
    return tuple(found) if found else None


def value_ranges(paths, options, known=None):
    """Return {kind: (low, high)}, the values that become black and white in the first pages.

    They are those of --range, or `known` ones of a model, or else by the extremes of all pictures.
    """

    def look(path):
        pages = read_pages(path)
        page = next(pages)
        return page.kind, *extremes(page), next(pages, None) is not None

    found = for_each_picture(paths, look, options).values()
    several = sum(has_more for *_, has_more in found)
    if several:
        print(f"{several:,} files have several pages or frames; the first of each is used")
    ranges = {"bytes": (0, 255)}
    for kind in sorted({kind for kind, *_ in found}):
        low = min(low for each, low, *_ in found if each == kind)
        high = max(high for each, _, high, _ in found if each == kind)
        if options.range:
            ranges[kind] = tuple(options.range)
        elif kind != "bytes":
            ranges[kind] = known or guess_range(kind, low, high)
    for kind, limits in ranges.items():
        if limits != (0, 255):
            print(say_range(f"pictures of {kind}", limits))
    return ranges


def say_range(what, limits):
    """Return a line on the values that become black and white."""
    return f"{what}: {limits[0]:.6g} is used as black, {limits[1]:.6g} as white"


def read_picture(path, ranges):
    """Return the first page of a picture file as an upright Pillow image, grayscale or RGB."""
    return as_image(next(read_pages(path)), ranges)


def read_resized_pictures(paths, shape, model_dir, options):
    """Return {path: float32 image (*shape) in [0, 1]} of picture files, padded to the shape."""
    height, width, channels = shape
    ranges = value_ranges(paths, options, model_range(model_dir))

    def read(path):
        picture = read_picture(path, ranges).convert("L" if channels == 1 else "RGB")
        return np.asarray(resize(picture, height, width, "pad")).reshape(shape)

    images = for_each_picture(paths, read, options)
    need_brightness(max(image.max() for image in images.values()))
    return {path: np.float32(image) / 255 for path, image in images.items()}


def need_brightness(brightest):
    """End the script if pictures of bytes have only 0 and 1; tell the user if they are dark."""
    if brightest == 1:
        common.fail("pictures must have values up to 255, or --range 0 1, found 0 and 1 only")
    if brightest < DARK:
        print(f"dark pictures: their maximum is {brightest} of 255; see --range")
