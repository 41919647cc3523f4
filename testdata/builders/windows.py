"""Which windows (`-s`, `-l`) of an image are recorded besides the whole of it.

They are picked once, from what the installed qemu-img says about the image, and kept in
the manifest: every recorder and every test uses the same ones.
"""

import json
import os
import subprocess
import zlib


def pick(image, folder):
    """A list of window arguments; empty if qemu-img cannot map the image."""
    extents = _map(image, folder)
    if not extents:
        return []
    end = extents[-1]["start"] + extents[-1]["length"]
    if end == 0:
        return [["-s", "0", "-l", "4096"], ["-s", "512"]]
    borders = [e["start"] for e in extents[1:]]
    if not borders:
        middle = end // 2 + 1
        return [_w(middle), _w(end - 1, 4096), _w(end, 512), _w(0, 0)]

    # A different border for each image, so that all kinds of neighbours come up.
    luck = zlib.crc32(image.id.encode())
    some = borders[luck % len(borders)]
    after = ([b for b in borders if b > some] + [end])[0]
    windows = [
        _w(some, min(after - some, 4096)),       # begins on a border
        _w(some - 1, 2),                         # across it
        _w(some + 1, min(after - some, 70001)),  # just behind it, unaligned, into the next
        _w(some - 1, after - some + 2),          # one whole extent and its neighbours
        _w(max(0, end - 513)),                   # the end, without -l
    ]
    if luck % 3 == 0:
        windows.append(_w(end + 1, 512))         # behind the end
    elif luck % 3 == 1:
        windows.append(_w(some, 0))              # empty
    else:
        windows.append(_w(borders[-1], 2 ** 60))  # far too long
    return _unique(windows)


def _w(start, length=None):
    window = ["-s", str(start)]
    return window if length is None else window + ["-l", str(length)]


def _unique(windows):
    seen = []
    for window in windows:
        if window not in seen:
            seen.append(window)
    return seen


def _map(image, folder):
    extra = (image.variants or [[]])[0]
    target = (image.qemu or {}).get("args", [image.name])
    try:
        done = subprocess.run(["qemu-img", "map", "--output=json", *extra, *target],
                              cwd=folder, capture_output=True, timeout=10,
                              env=dict(os.environ, LC_ALL="C"))
    except subprocess.TimeoutExpired:
        return None
    return json.loads(done.stdout) if done.returncode == 0 else None
