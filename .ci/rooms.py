#!/usr/bin/env python3
"""Checks the walls of src: which file uses which, by their `use` lines and paths in code.

Fails with the files of each circle, with each arrow that points up (FLOORS below), and with each folder that
holds more than 16 files. Tests inside files do not count. Fails, too, with unsafe code outside its two places, and with
each module that could forbid it and does not.
"""
import re, sys
from pathlib import Path

SRC = Path(__file__).resolve().parent.parent / "src"
MOST_IN_A_FOLDER = 16
# The two places of unsafe code. All else forbids it, which no attribute further down can allow again.
UNSAFE = ("capi.rs", "capi/", "state/catalog/file.rs")
# Files with a module that cannot forbid it, because one of the two places is in it. `inside` has tests only.
ABOVE_UNSAFE = {"lib.rs": {"capi", "state", "inside"}, "state.rs": {"catalog"}, "state/catalog.rs": {"file"}}
# From the ground up: what stands on one floor may use its own floor and those before it.
FLOORS = [
    "text clock error key",
    "observe tree",
    "engine",
    "request_context",
    "retry",
    "backend",
    "state",
    "rescan",
    "settings json",
    "capi",
]
FLOOR = {room: n for n, rooms in enumerate(FLOORS) for room in rooms.split()}


def modules(root):
    """Every file by its module path."""
    found = {}
    for file in sorted(root.rglob("*.rs")):
        parts = file.relative_to(root).with_suffix("").parts
        if parts[0] in ("bin", "lib", "guide"):
            continue
        found["::".join(parts)] = file
    return found


def code_of(file):
    text = file.read_text()
    text = re.split(r"\n#\[cfg\(test\)\]\nmod tests", text)[0]
    return re.sub(r"//[^\n]*", "", text)


def leaves(tree, prefix=()):
    """`a::{b, c::{d, e}}` as paths."""
    tree = tree.strip()
    head, brace, rest = tree.partition("{")
    if not brace:
        yield prefix + tuple(p for p in head.split(" as ")[0].strip().split("::") if p)
        return
    inner, depth, start = rest.rsplit("}", 1)[0], 0, 0
    base = prefix + tuple(p for p in head.strip().split("::") if p)
    for at, char in enumerate(inner + ","):
        depth += (char == "{") - (char == "}")
        if char == "," and depth == 0:
            if inner[start:at].strip():
                yield from leaves(inner[start:at], base)
            start = at + 1


def uses_of(module, code, known):
    here = module.split("::")
    paths = []
    for match in re.finditer(r"\b(?:pub(?:\([^)]*\))? )?use ([^;]+);", code):
        paths += leaves(match.group(1))
    rest = re.sub(r"\buse [^;]+;", "", code)
    paths += [tuple(m.group(0).split("::")) for m in re.finditer(r"\b(?:crate|super)(?:::\w+)+", rest)]
    for path in paths:
        if not path or path[0] not in ("crate", "super", "self") and path[0] not in children(module, known):
            continue
        at = list(here)
        names = list(path)
        if names[0] == "crate":
            at, names = [], names[1:]
        while names and names[0] in ("super", "self"):
            if names[0] == "super":
                at = at[:-1]
            names = names[1:]
        target = None
        for count in range(len(names), -1, -1):
            full = "::".join(at + names[:count])
            if full in known:
                target = full
                break
        # A file and those in its own folder are one room.
        if target and not is_above(target, module) and not is_above(module, target):
            yield target


def is_above(one, other):
    return (other + "::").startswith(one + "::")


def children(module, known):
    prefix = module + "::"
    return {name[len(prefix):].split("::")[0] for name in known if name.startswith(prefix)}


def circles(graph):
    """Tarjan's strongly connected components of more than one file."""
    index, low, stack, on, out, count = {}, {}, [], set(), [], [0]

    def visit(v):
        index[v] = low[v] = count[0]
        count[0] += 1
        stack.append(v)
        on.add(v)
        for w in graph[v]:
            if w not in index:
                visit(w)
                low[v] = min(low[v], low[w])
            elif w in on:
                low[v] = min(low[v], index[w])
        if low[v] == index[v]:
            group = []
            while True:
                w = stack.pop()
                on.discard(w)
                group.append(w)
                if w == v:
                    break
            if len(group) > 1:
                out.append(sorted(group))

    sys.setrecursionlimit(10_000)
    for v in graph:
        if v not in index:
            visit(v)
    return out


def careless(root):
    """Unsafe code out of its places, and modules that do not forbid it."""
    for file in sorted(root.rglob("*.rs")):
        name, code = str(file.relative_to(root)), code_of(file)
        if not name.startswith(UNSAFE) and re.search(r"\bunsafe\b|allow\(\s*unsafe_code", code):
            yield f"unsafe code in {name}"
        for attributes, module in re.findall(r"((?:#\[[^\]]*\]\s*)*)(?:pub(?:\(crate\))? )?mod (\w+);", code):
            above = ABOVE_UNSAFE.get(name)
            if above and module not in above and "#[forbid(unsafe_code)]" not in attributes:
                yield f"{name}: the module {module} does not forbid unsafe code"
    if "#![forbid(unsafe_code)]" not in (root / "bin/brigade/main.rs").read_text():
        yield "the command does not forbid unsafe code"


def main():
    known = modules(SRC)
    graph = {name: sorted(set(uses_of(name, code_of(file), known))) for name, file in known.items()}
    wrong = list(careless(SRC))
    for group in circles(graph):
        wrong.append("a circle of files:\n" + "\n".join(
            f"  {v} uses {', '.join(w for w in graph[v] if w in group)}" for v in group))
    for name, targets in graph.items():
        room = name.split("::")[0]
        if room not in FLOOR:
            wrong.append(f"{name}: its room has no floor in {Path(__file__).name}")
            continue
        for target in targets:
            if FLOOR.get(target.split("::")[0], 99) > FLOOR[room]:
                wrong.append(f"an arrow up: {name} uses {target}")
    for folder in [SRC, *(p for p in SRC.rglob("*") if p.is_dir())]:
        count = sum(1 for p in folder.iterdir() if p.is_file())
        if count > MOST_IN_A_FOLDER:
            wrong.append(f"{folder.relative_to(SRC.parent)} holds {count} files, more than {MOST_IN_A_FOLDER}")
    print("\n".join(wrong) or f"{len(known)} files, no circle, no arrow up, no folder over {MOST_IN_A_FOLDER} files")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
