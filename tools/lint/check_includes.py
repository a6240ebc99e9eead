#!/usr/bin/env python3
"""Checks that each room includes only the rooms it may, and that the public headers stay free of backends and build flags.

The allowed edges are read from the temper_room lines of the top CMakeLists.txt, which the build enforces too (by include
paths); this check also sees files that no target compiles and names the offending line.

Exit status 1 if anything is wrong. Files beyond 600 lines are reported, and beyond 800 refused.
"""

import pathlib
import re
import sys

LONG_FILE, TOO_LONG_FILE = 600, 800
SOURCES = {".h", ".cpp", ".cu", ".cuh"}
ROOT = pathlib.Path(__file__).resolve().parents[2]
INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]')
CONDITIONAL = re.compile(r"^\s*#\s*(if|ifdef|ifndef|elif)\b")
BACKEND = re.compile(r"\b(dnnl\w*|cuda\w*|cudnn\w*|cublas\w*|omp\.h)\b", re.IGNORECASE)


def read_rooms(cmake_text):
    """{room: (directory, rooms it needs)} from the temper_room(...) calls."""
    rooms = {}
    for call in re.findall(r"^temper_room\(([^)]*)\)", cmake_text, re.MULTILINE):
        words = call.split()
        arguments, keyword = {}, None
        for word in words[1:]:
            if word in ("DIRECTORY", "NEEDS", "LINKS", "PRIVATE_LINKS"):
                keyword = word
            else:
                arguments.setdefault(keyword, []).append(word)
        rooms[words[0]] = (arguments.get("DIRECTORY", [words[0]])[0], arguments.get("NEEDS", []))
    return rooms


def closure(rooms, room):
    """The room and everything it may reach."""
    reached = {room}
    for needed in rooms[room][1]:
        reached |= closure(rooms, needed)
    return reached


def room_of(rooms, path):
    """The room whose directory is the longest prefix of the path "dir/.../file", or None."""
    best = None
    for room, (directory, _) in rooms.items():
        if path.startswith(directory + "/") and (best is None or len(directory) > len(rooms[best][0])):
            best = room
    return best


def numbered_includes(text):
    for number, line in enumerate(text.splitlines(), 1):
        match = INCLUDE.match(line)
        if match:
            yield number, match.group(1) == '"', match.group(2)


def check_room_file(rooms, path, errors):
    relative = path.relative_to(ROOT / "src").as_posix()
    room = room_of(rooms, relative)
    if room is None:
        errors.append(f"src/{relative}: in no room of CMakeLists.txt")
        return
    allowed = closure(rooms, room)
    for number, quoted, include in numbered_includes(path.read_text(encoding="utf-8")):
        where = f"src/{relative}:{number}"
        if include.startswith("temper/"):
            if room != "api":
                errors.append(f"{where}: room {room} may not include the public API ({include})")
            continue
        target = room_of(rooms, include)
        if target is not None and target not in allowed:
            errors.append(f"{where}: room {room} may not include room {target} ({include})")
        elif target is None and quoted:
            errors.append(f"{where}: \"{include}\" names no room; write \"room/file.h\", or <…> for a library")


def check_public_header(rooms, path, errors):
    text = path.read_text(encoding="utf-8")
    for number, line in enumerate(text.splitlines(), 1):
        where = f"{path.relative_to(ROOT)}:{number}"
        if CONDITIONAL.match(line):
            errors.append(f"{where}: the public API has no conditional compilation")
        if BACKEND.search(line.split("//")[0]):
            errors.append(f"{where}: the public API names no backend type")
    for number, quoted, include in numbered_includes(text):
        if room_of(rooms, include) not in (None, "base", "recipe"):
            errors.append(f"{path.relative_to(ROOT)}:{number}: the public API may not include {include}")


def check_shell_file(rooms, path, errors):
    """cli/ sees the public API, the recipe and base, and its own files."""
    for number, quoted, include in numbered_includes(path.read_text(encoding="utf-8")):
        if quoted and room_of(rooms, include) not in (None, "base", "recipe"):
            errors.append(f"{path.relative_to(ROOT)}:{number}: cli may not include {include}; use temper/*.h")


def sources_under(*folders):
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in SOURCES and path.is_file():
                yield path


def main():
    rooms = read_rooms((ROOT / "CMakeLists.txt").read_text(encoding="utf-8"))
    errors, long_files = [], []
    for path in sources_under("src"):
        check_room_file(rooms, path, errors)
    for path in sources_under("include/temper"):
        check_public_header(rooms, path, errors)
    for path in sources_under("cli"):
        check_shell_file(rooms, path, errors)
    for path in sources_under("src", "include", "cli", "tests", "bench"):
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > TOO_LONG_FILE:
            errors.append(f"{path.relative_to(ROOT)}: {lines} lines; split it (at most {TOO_LONG_FILE})")
        elif lines > LONG_FILE:
            long_files.append(f"{path.relative_to(ROOT)}: {lines} lines, more than {LONG_FILE}: worth splitting")
    for line in long_files:
        print(f"note: {line}")
    for line in errors:
        print(f"error: {line}")
    print(f"include check: {len(rooms)} rooms, {len(errors)} errors")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
