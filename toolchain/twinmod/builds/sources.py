# SPDX-License-Identifier: GPL-2.0-only
"""What a module is made of: the files of its folder, and what they say that make will build.

Source: Documentation/kbuild/modules.rst and makefiles.rst, Linux 7.3.
"""

import fnmatch
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

from twinmod.base import files as base_files
from twinmod.base import nearest
from twinmod.errors import ConfigError
from twinmod.kernels.model import KernelTree
from twinmod.project import names
from twinmod.project.model import Language, ModuleSpec

#: (relative path, content) of files.
Files = tuple[tuple[str, bytes], ...]

#: What kbuild compiles, and what the kernel's checks look at.
COMPILED_SUFFIXES = (".c", ".rs", ".S")
SOURCE_SUFFIXES = (".c", ".h", ".rs", ".S")

#: Left by kbuild, Python and editors where a person works; all else may be part of a build.
LEFT = (
    *base_files.KBUILD,
    *(
        ".*.cmd",
        ".*.d",
        ".tmp_*",
        ".twinmod.*",
        "built-in.a",
        "__pycache__",
        "*~",
        ".#*",
        "#*#",
        ".*.sw?",
    ),
)

#: A file that one of them may include.
_INCLUDED = ("*Makefile*", "*Kbuild*", "*.mk", "*.mak")

_KCONFIG = re.compile(r"^[ \t]*(?:menu)?config[ \t]+(\w+)", re.MULTILINE)


# -- the files --------------------------------------------------------------------------------


def list_sources(folder: Path, skipped: Path | None = None) -> tuple[Path, ...]:
    """Return the files below a folder, sorted, without what builds, editors and git left.

    Args:
        folder: A link to a folder is followed, unless it leads to a folder that it is in.
        skipped: A folder whose files are not among them.
    """
    found: list[Path] = []

    def look_into(inner: Path, above: frozenset[Path]) -> None:
        real = inner.resolve()
        if real in above or inner == skipped:
            return
        for path in sorted(inner.iterdir()):
            if any(fnmatch.fnmatchcase(path.name, pattern) for pattern in LEFT):
                continue
            if path.is_dir():
                if not path.name.startswith(".") and path.name != "CVS":
                    look_into(path, above | {real})
            elif path.is_file():
                found.append(path)

    look_into(folder, frozenset())
    return tuple(sorted(found, key=lambda path: str(path.relative_to(folder))))


def read_folder(folder: Path, skipped: Path | None = None) -> Files:
    """Return (relative path, content) of a folder's files; see list_sources.

    Raises:
        ConfigError: One cannot be read.
    """
    try:
        found = [(str(path.relative_to(folder)), path) for path in list_sources(folder, skipped)]
        for name, _ in found:
            _require_name(name, folder)
        return tuple((name, path.read_bytes()) for name, path in found)
    except OSError as error:
        raise ConfigError(
            f"a source cannot be read: {error.strerror}", facts=(("file", str(error.filename)),)
        ) from error


def read_tree(module: ModuleSpec, tree: KernelTree) -> Files:
    """Return the files of a folder of the kernel's own source.

    Raises:
        ConfigError: The kernel has no such folder, or builds nothing of that name there.
    """
    folder = tree.source_dir / module.tree
    inside = not PurePosixPath(module.tree).is_absolute() and ".." not in Path(module.tree).parts
    if not inside or not folder.is_dir():
        raise ConfigError(
            f"the source of kernel {tree.release} has no folder {module.tree}",
            facts=(("module", name_of(module)),),
            hint=_suggest_folder(tree.source_dir, module.tree) if inside else "",
        )
    found = read_folder(folder)
    if not find_kbuild(found):
        raise ConfigError(
            f"{module.tree} of kernel {tree.release} has no Makefile that names an object",
            facts=(("module", name_of(module)),),
        )
    if not module.name:
        raise ConfigError(
            f"{module.tree} of kernel {tree.release} needs the name of the module to build",
            facts=(("modules", ", ".join(sorted(_list_modules(found))) or "none"),),
        )
    return found


def _suggest_folder(source_dir: Path, name: str) -> str:
    """Return a hint that names folders like one that is not there."""
    parent = Path(name).parent
    while not (source_dir / parent).is_dir():
        parent = parent.parent
    wanted = "/".join(Path(name).parts[: len(parent.parts) + 1])
    folders = (path for path in (source_dir / parent).iterdir() if path.is_dir())
    return nearest.plan_hint(wanted, (str(path.relative_to(source_dir)) for path in folders))


def _require_name(name: str, folder: Path) -> None:
    """Refuse a file whose name no makefile and no record of ours can have."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ConfigError(
            "a source has a name that is not UTF-8",
            facts=(("folder", str(folder)), ("name", repr(os.fsencode(name)))),
            hint="rename the file",
        ) from None


def name_of(module: ModuleSpec) -> str:
    """Return what messages, a stage and make's folder call a module, whatever is known of it."""
    return module.name or module.label or module.stock or "module"


# -- what make will build ---------------------------------------------------------------------


def find_kbuild(files: Files) -> str:
    """Return the name of the file that tells kbuild what to build, "" where there is none.

    A Makefile that names no object only calls make again.
    """
    kbuild, makefile = names.BUILD_FILES
    found = dict(files)
    if kbuild in found:
        return kbuild
    if makefile not in found:
        return ""
    readable = (content.decode(errors="replace") for name, content in files if _is_included(name))
    return makefile if any(map(names.is_kbuild, readable)) else ""


def _is_included(name: str) -> bool:
    return "/" not in name and any(fnmatch.fnmatchcase(name, pattern) for pattern in _INCLUDED)


def _list_modules(files: Files) -> tuple[str, ...]:
    """Return the names of the modules that a folder's own Kbuild builds, as far as it says."""
    return names.parse_modules(_read_kbuild(files))


def _read_kbuild(files: Files) -> str:
    """Return the text of a folder's own Kbuild, "" where it has none."""
    return dict(files).get(find_kbuild(files), b"").decode(errors="replace")


def find_main(module: ModuleSpec, files: Files) -> str:
    """Return the stem of the one source of a folder without a Kbuild; "" where it is not there.

    It is the file that is called as the module; else the only one that can be compiled.
    """
    stems = [
        Path(name).stem
        for name, _ in files
        if "/" not in name and Path(name).suffix in COMPILED_SUFFIXES
    ]
    named = [stem for stem in stems if names.normalize(stem) == names.normalize(module.name)]
    if named:
        return named[0]
    return stems[0] if len(stems) == 1 else ""


def require_main(module: ModuleSpec, folder: Path, files: Files) -> None:
    """Refuse a folder without a Kbuild in which nobody knows what to build.

    Raises:
        ConfigError: The module's source is not there, or any of several may be it.
    """
    if find_main(module, files):
        return
    stems = [name for name, _ in files if Path(name).suffix in COMPILED_SUFFIXES]
    named = f"{module.name}.c or {module.name}.rs"
    missing = named if module.name else "its name" if stems else "a source"
    raise ConfigError(
        f"the source of module {name_of(module)} is missing"
        if module.name or not stems
        else f"module {name_of(module)} has several sources, and nothing says which it is",
        facts=(
            ("folder", str(folder)),
            ("missing", f"a Kbuild, or {missing}"),
            *((("found", ", ".join(stems)),) if stems else ()),
        ),
        hint="write a Kbuild with `obj-m` and the objects, or correct the module's table",
    )


def name_sources(module: ModuleSpec, files: Files) -> ModuleSpec:
    """Return a module with its name, where its files say it before make has run."""
    # Make's target may have a name of its own.
    if module.tree:
        return module
    kbuild = _read_kbuild(files)
    plain = names.parse_modules(kbuild) if kbuild else (find_main(module, files),)
    found = plain[0] if len(plain) == 1 else ""
    return replace(module, name=names.normalize(module.name or found))


def find_target(module: ModuleSpec, files: Files) -> str:
    """Return make's target for one module of a folder of the kernel's source.

    Raises:
        ConfigError: Its makefile names no such object, and includes no other.
    """
    text = _read_kbuild(files)
    words = names.parse_modules(text)
    stem = next((w for w in words if names.normalize(w) == names.normalize(module.name)), "")
    if not stem and not re.search(r"^[ \t]*-?include\b", text, re.MULTILINE):
        raise ConfigError(
            f"{module.tree} builds no module {module.name}",
            facts=(("modules", ", ".join(sorted(set(words))) or "none"),),
            hint=nearest.plan_hint(module.name, words),
        )
    return f"{stem or module.name}.ko"


def find_language(module: ModuleSpec, files: Files) -> Language | None:
    """Return the language of a module that has one source, or sources of one language alone."""
    stems = [
        Path(name)
        for name, _ in files
        if Path(name).suffix in COMPILED_SUFFIXES and (find_kbuild(files) or "/" not in name)
    ]
    if not find_kbuild(files):
        stems = [path for path in stems if path.stem == find_main(module, files)]
    suffixes = {path.suffix for path in stems}
    if ".rs" not in suffixes:
        return Language.C if suffixes else None
    return Language.RUST if suffixes == {".rs"} else None


def needs_rust(module: ModuleSpec, files: Files) -> bool:
    """Tell whether a kernel without Rust can have no such module.

    Of a project's folder with both languages only its Kbuild knows. A folder of the kernel's source
    has modules of both: one in Rust is called like its source, or has no C beside it.
    """
    found = find_language(module, files)
    if found is not None:
        return found == Language.RUST
    stems = (Path(name).stem for name, _ in files if name.endswith(".rs"))
    return bool(module.tree) and names.normalize(module.name) in map(names.normalize, stems)


# -- its configuration ------------------------------------------------------------------------


def plan_variables(module: ModuleSpec) -> tuple[str, ...]:
    """Return a module's configuration as make's variables."""
    return tuple(f"CONFIG_{text}" for text in module.config)


def require_options(module: ModuleSpec, tree: KernelTree, files: Files) -> None:
    """Refuse an option that nothing asks for.

    Raises:
        ConfigError: No Kconfig has it, and no makefile of the person's own.
    """
    wanted = [text.partition("=")[0] for text in module.config]
    own = b"\n".join(content for name, content in files if _is_included(Path(name).name))
    mentioned = {n for n in wanted if module.sources and f"CONFIG_{n}".encode() in own}
    unknown = [name for name in wanted if name not in mentioned | _read_options(tree)]
    if not unknown:
        return
    known = _read_kconfigs(tree.source_dir) | _find_options(files)
    lacking = [name for name in unknown if name not in known]
    if lacking:
        raise ConfigError(
            f"module {name_of(module)} sets CONFIG_{lacking[0]}, which kernel {tree.release} "
            "does not know: no Kconfig has it",
            hint=nearest.plan_hint(lacking[0], sorted(known)),
        )


def _read_options(tree: KernelTree) -> frozenset[str]:
    """Return the options that a kernel's configuration names, set or not."""
    text = (tree.build_dir / ".config").read_text(errors="replace")
    return frozenset(re.findall(r"^(?:# )?CONFIG_(\w+)[= ]", text, re.MULTILINE))


def _find_options(files: Files) -> frozenset[str]:
    """Return the options that a folder's own Kconfig files declare."""
    own: Mapping[str, bytes] = {n: c for n, c in files if Path(n).name.startswith("Kconfig")}
    return frozenset(o for c in own.values() for o in _KCONFIG.findall(c.decode(errors="replace")))


def _read_kconfigs(source_dir: Path) -> frozenset[str]:
    """Return the options that any Kconfig of a kernel's source declares."""
    paths = source_dir.rglob("Kconfig*")
    texts = (path.read_text(errors="replace") for path in paths if path.is_file())
    return frozenset(option for text in texts for option in _KCONFIG.findall(text))
