"""The run-length code of Label Studio's brush, which is that of the JavaScript package @thi.ng/rle-pack.

The bits of the bytes, most significant first, are a header and runs:

=======================  ===============================================================================================
bits                     meaning
=======================  ===============================================================================================
32                       number of values; here four for each pixel (red, green, blue, alpha), row by row
5                        bits of a value, minus 1
4 x 4                    the four widths that the length of a run may have, in bits, minus 1
1, 2, width              of each run: whether one value is repeated; which width; the length minus 1
=======================  ===============================================================================================

The value of a repeated run follows once, those of another run one by one. The mask is where alpha is not 0.
"""

from __future__ import annotations

import numpy as np

from bcnet.data.coco_json import short
from bcnet.data.findings import AnnotationError

_CHANNELS = 4
_HEADER_BITS = 32 + 5 + 4 * 4


def decode_brush(code: object, height: int, width: int) -> np.ndarray:
    """The mask of a brush: uint8 [H, W].

    Args:
        code: list of bytes.
        height, width: of the image, in pixels.

    Raises:
        AnnotationError: it is no list of bytes, it ends early, or it has another number of values.
    """
    return _alpha(_bits(code), height * width * _CHANNELS).reshape(height, width)


def encode_brush(mask: np.ndarray) -> list[int]:
    """The code of a mask [H, W], as the converter of Label Studio writes it: 8 bits a value, alpha 255."""
    values = np.repeat((np.asarray(mask).ravel() > 0).astype(np.uint8) * 255, _CHANNELS)
    edges = np.flatnonzero(np.diff(values)) + 1
    starts = np.concatenate([[0], edges])
    lengths = np.diff(np.concatenate([starts, [len(values)]]))
    widths = (3, 4, 8, 16)
    bits = f"{len(values):032b}{8 - 1:05b}" + "".join(f"{width - 1:04b}" for width in widths)
    pieces = [bits]
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        while length > 0:
            part = min(length, 1 << widths[-1])
            choice = next(i for i, width in enumerate(widths) if part <= 1 << width)
            pieces.append(f"1{choice:02b}{part - 1:0{widths[choice]}b}{values[start]:08b}")
            length -= part
    text = "".join(pieces)
    text += "0" * (-len(text) % 8)
    return [int(text[i : i + 8], 2) for i in range(0, len(text), 8)]


def _bits(code: object) -> str:
    if not isinstance(code, list) or not all(type(byte) is int and 0 <= byte < 256 for byte in code):
        raise AnnotationError(f"rle must be a list of bytes, got {short(code)}", "malformed rle")
    return "".join(f"{byte:08b}" for byte in code)


def _alpha(bits: str, expected: int) -> np.ndarray:
    """Where the alpha channel of a code with so many values is not 0: uint8 [expected / 4]."""
    if len(bits) < _HEADER_BITS:
        raise AnnotationError(f"rle has {len(bits) // 8} bytes, fewer than its header", "rle that ends early")
    count = int(bits[:32], 2)
    if count != expected:
        raise AnnotationError(
            f"rle has {count} values, the image has {expected // _CHANNELS} pixels of {_CHANNELS} channels",
            "rle of another size than the image",
        )
    word = int(bits[32:37], 2) + 1
    widths = [int(bits[37 + 4 * i : 41 + 4 * i], 2) + 1 for i in range(4)]
    alpha = np.zeros(count // _CHANNELS, dtype=np.uint8)
    place, done = _HEADER_BITS, 0
    try:
        while done < count:
            repeated = bits[place] == "1"
            width = widths[int(bits[place + 1 : place + 3], 2)]
            place += 3
            length = min(int(bits[place : place + width], 2) + 1, count - done)
            place += width
            # Pixel p has its alpha at 4 p + 3, so that the first one from value n on is n // 4.
            if repeated:
                alpha[done // _CHANNELS : (done + length) // _CHANNELS] = _word(bits, place, word) > 0
                place += word
            else:
                for index in range(-(done + 1) % _CHANNELS, length, _CHANNELS):
                    alpha[(done + index) // _CHANNELS] = _word(bits, place + index * word, word) > 0
                place += length * word
                _word(bits, place - word, word)  # the last one is there
            done += length
    except (IndexError, ValueError) as error:
        raise AnnotationError(f"rle ends after {done} of {count} values", "rle that ends early") from error
    return alpha


def _word(bits: str, place: int, word: int) -> int:
    if place + word > len(bits):
        raise IndexError("the bits end")
    return int(bits[place : place + word], 2)
