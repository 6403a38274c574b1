# SPDX-License-Identifier: GPL-2.0-only
"""Signatures by a person's keys: of modules, as the kernel checks them, and of a release's sums."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import assert_never

from twinmod.base import commands, files, process, sandbox
from twinmod.base.process import Command
from twinmod.base.sandbox import Bind, Chroot, Enter
from twinmod.builds.build import SIGNED
from twinmod.builds.product import Product
from twinmod.errors import ConfigError, MissingToolError
from twinmod.kernels import kconfig
from twinmod.kernels.model import KernelTree, Origin

TIMEOUT_S = 60.0

#: What ssh-keygen(1) calls the purpose of a signature.
NAMESPACE = "twinmod-release"

#: Where a kernel's build left the certificate that it trusts.
KERNEL_CERTIFICATE = Path("certs/signing_key.x509")

#: The end of a signed module: MODULE_SIGNATURE_MARKER of include/linux/module_signature.h.
SIGNATURE_MARKER = b"~Module signature appended~\n"

#: What a person can do who lacks the key of a kernel: of a distribution's, and of their own.
STOCK_HINT = (
    "only its distribution has the key of a stock kernel: name one with `source` and `options`, or "
    "with `tree`, in [tool.twinmod]"
)
OWN_HINT = "keep the file of the key beside the build, and build the kernel with it"

_KEY, _CERTIFICATE, _PASSPHRASE = (
    sandbox.INSIDE / "keys" / name for name in ("key", "certificate", "passphrase")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """What a person signs with; nothing is signed by what is None."""

    # PEM; and its certificate, PEM or DER.
    module_key: Path | None = None
    module_certificate: Path | None = None
    # As ssh-keygen(1) makes them.
    ssh_key: Path | None = None
    # A file with one line, for keys that have one.
    passphrase: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files that are named."""
        named = (self.module_key, self.module_certificate, self.ssh_key, self.passphrase)
        return tuple(path for path in named if path is not None)


def require_files(keys: Keys) -> None:
    """Refuse keys that are not there or not whole.

    Raises:
        ConfigError: A file cannot be read, or a key has no certificate.
    """
    for path in keys.paths:
        if not path.is_file():
            raise ConfigError("there is no such key", facts=(("file", str(path)),))
    if (keys.module_key is None) != (keys.module_certificate is None):
        raise ConfigError(
            "modules are signed with a key and its certificate, and one of them is not named",
            hint=commands.render("release", "--sign-key", "KEY", "--sign-cert", "CERTIFICATE"),
        )


def require_keys(keys: Keys, root: Chroot) -> None:
    """Refuse keys that do not open or do not fit, before anything is built.

    Args:
        keys: All that are used.
        root: Has openssl.

    Raises:
        ConfigError: The passphrase is wrong, or the certificate is of another key.
        MissingToolError: This host has no ssh-keygen.
    """
    require_files(keys)
    if keys.module_key is not None and keys.module_certificate is not None:
        _require_pair(keys, root)
    if keys.ssh_key is not None:
        if process.find_program("ssh-keygen") is None:
            raise MissingToolError(
                "ssh-keygen is missing, and signs the sums", hint="apt install openssh-client"
            )
        with _open_passphrase(keys) as environment:
            _require_success(("ssh-keygen", "-y", "-f", str(keys.ssh_key)), environment, keys)


def _require_pair(keys: Keys, root: Chroot) -> None:
    """Compare a key's public half with that in its certificate."""
    assert keys.module_key is not None
    given = ("-passin", f"file:{_PASSPHRASE}") if keys.passphrase else ("-passin", "pass:")
    opened = _run_openssl(keys, root, ("pkey", "-in", str(_KEY), *given, "-pubout"))
    if opened is None:
        raise _refuse_key(keys.module_key, keys.passphrase)
    certified = _run_openssl(keys, root, ("x509", "-in", str(_CERTIFICATE), "-noout", "-pubkey"))
    if certified != opened:
        raise ConfigError(
            "the certificate is not that of the key" if certified else "this is no certificate",
            facts=(("key", str(keys.module_key)), ("certificate", str(keys.module_certificate))),
        )


def _run_openssl(keys: Keys, root: Chroot, arguments: tuple[str, ...]) -> str | None:
    command = sandbox.plan_command(
        root,
        ("openssl", *arguments),
        Enter(binds=_find_binds(keys)),
        purpose="openssl",
        timeout_s=TIMEOUT_S,
    )
    status, output = process.run_unchecked(command)
    return output if status == 0 else None


def _find_binds(keys: Keys) -> tuple[Bind, ...]:
    pairs = (
        (keys.module_key, _KEY),
        (keys.module_certificate, _CERTIFICATE),
        (keys.passphrase, _PASSPHRASE),
    )
    return tuple(
        Bind(source_path=path.resolve(), target_path=inside) for path, inside in pairs if path
    )


def _refuse_key(path: Path, passphrase: Path | None) -> ConfigError:
    what = (
        "its passphrase is not in the file" if passphrase else "it needs a passphrase, or is none"
    )
    return ConfigError(
        f"the key does not open: {what}",
        facts=(("key", str(path)), *((("passphrase", str(passphrase)),) if passphrase else ())),
        hint=_plan_passphrase_hint(passphrase),
    )


@contextmanager
def _open_passphrase(keys: Keys) -> Iterator[tuple[tuple[str, str], ...]]:
    """Give the environment in which ssh-keygen gets its passphrase and asks no terminal."""
    with tempfile.TemporaryDirectory(prefix="twinmod-") as name:
        program_path = Path(name) / "ask"
        program_path.write_text('#!/bin/sh\n[ -z "$TWINMOD_FILE" ] || cat "$TWINMOD_FILE"\n')
        program_path.chmod(0o700)
        given = str(keys.passphrase.resolve()) if keys.passphrase else ""
        yield (
            ("SSH_ASKPASS", str(program_path)),
            ("SSH_ASKPASS_REQUIRE", "force"),
            ("DISPLAY", ":"),
            ("TWINMOD_FILE", given),
        )


def _require_success(
    argv: tuple[str, ...], environment: tuple[tuple[str, str], ...], keys: Keys
) -> None:
    command = Command(argv=argv, purpose="ssh-keygen", timeout_s=TIMEOUT_S, environment=environment)
    status, output = process.run_unchecked(command)
    if status != 0:
        raise ConfigError(
            "the key does not open, or does not sign",
            facts=(("key", str(keys.ssh_key)), ("ssh-keygen", process.render_tail(output, 1))),
            hint=_plan_passphrase_hint(keys.passphrase),
        )


def _plan_passphrase_hint(given: Path | None) -> str:
    return "" if given else commands.render("release", "--passphrase-file", "FILE")


def sign_module(keys: Keys, tree: KernelTree, module: Path, target_dir: Path) -> Path:
    """Sign a module as the kernel checks it, by the kernel's own program and with its hash.

    Args:
        keys: With a key for modules; see require_keys.
        tree: The kernel that the module is for.
        module: It; it stays as it is.
        target_dir: Gets the signed one.

    Returns:
        The signed module.

    Raises:
        ConfigError: The kernel checks no signature.

    Source: Documentation/admin-guide/module-signing.rst, Linux 7.3.
    """
    inside = sandbox.INSIDE / "signed"
    script = (
        f'[ ! -e {_PASSPHRASE} ] || export KBUILD_SIGN_PIN="$(cat {_PASSPHRASE})"; '
        f"exec {sandbox.BUILD}/scripts/sign-file {read_hash(tree)} {_KEY} {_CERTIFICATE} "
        f"{sandbox.INSIDE}/module.ko {inside}/{module.name}"
    )
    command = sandbox.plan_command(
        tree.compilers,
        ("sh", "-c", script),
        Enter(
            binds=(
                *_find_binds(keys),
                Bind(source_path=tree.build_dir, target_path=sandbox.BUILD),
                Bind(source_path=module, target_path=sandbox.INSIDE / "module.ko"),
                Bind(source_path=target_dir, target_path=inside, writable=True),
            )
        ),
        purpose=f"{module.name} was not signed",
        timeout_s=TIMEOUT_S,
    )
    process.run(command)
    return target_dir / module.name


# -- kernels that take signed modules alone ---------------------------------------------------


def read_options(tree: KernelTree) -> dict[str, str]:
    """Return the options that a kernel was built with."""
    return kconfig.parse_options((tree.build_dir / ".config").read_text())


def read_hash(tree: KernelTree) -> str:
    """Return the hash that a kernel's modules are signed with, as its programs call it.

    Raises:
        ConfigError: It checks no signature.
    """
    config = read_options(tree)
    found = config.get("CONFIG_MODULE_SIG_HASH", "")
    if config.get("CONFIG_MODULE_SIG") != "y" or not found:
        raise ConfigError(
            f"modules for kernel {tree.release} cannot be signed: it checks no signature "
            "(CONFIG_MODULE_SIG is not set)",
            hint="leave the key out, or name another kernel",
        )
    return found


def find_enforcement(tree: KernelTree) -> str:
    """Return what makes a kernel take signed modules alone, "" when nothing does."""
    return kconfig.find_enforcement(read_options(tree), tree.parameters)


def find_keys(tree: KernelTree) -> Keys:
    """Return the key that a kernel's own build signs modules with, and its certificate.

    Raises:
        ConfigError: They are not there, so that no module can be signed for it.

    Source: scripts/Makefile.modinst, Linux 6.12 and 7.3: a relative path is below the build's
        folder, or that of the sources.
    """
    name = read_options(tree).get("CONFIG_MODULE_SIG_KEY", "")
    certificate = tree.build_dir / KERNEL_CERTIFICATE
    paths = [folder / name for folder in (tree.build_dir, tree.source_dir) if name]
    key = next((path for path in paths if path.is_file()), None)
    if key is None or not certificate.is_file():
        raise ConfigError(
            f"kernel {tree.release} takes signed modules alone, and the key that it trusts is not "
            "here",
            facts=(
                ("enforced by", find_enforcement(tree)),
                ("CONFIG_MODULE_SIG_KEY", name),
                ("certificate", str(certificate)),
            ),
            hint=_plan_hint(tree.origin),
        )
    return Keys(module_key=key, module_certificate=certificate)


def _plan_hint(origin: Origin) -> str:
    match origin:
        case Origin.STOCK:
            return STOCK_HINT
        case Origin.BUILT | Origin.TREE:
            return OWN_HINT
        case _:
            assert_never(origin)


def sign_product(tree: KernelTree, product: Product) -> Product:
    """Return a module as a kernel takes it, signed where it takes no other; the file given stays.

    Raises:
        ConfigError: The key that the kernel trusts is not there.
    """
    if not find_enforcement(tree):
        return product
    target_dir = product.path.parent / SIGNED

    def sign(path: Path) -> Path:
        # A distribution's are signed already.
        if is_signed(path):
            return path
        target_dir.mkdir(exist_ok=True)
        return sign_module(find_keys(tree), tree, path, target_dir)

    path = sign(product.path)
    needed = tuple(replace(one, path=sign(one.path)) for one in product.needed)
    return replace(
        product,
        path=path,
        size_bytes=path.stat().st_size,
        sha256=files.read_digest(path),
        needed=needed,
    )


def sign_vm_modules(tree: KernelTree, target_dir: Path) -> KernelTree:
    """Return a kernel of which the VM's own modules are signed, where it takes no others.

    make signs modules when it installs them, and nobody has installed those of a person's own tree.
    That tree is never written to. A distribution's are signed.

    Args:
        tree: The kernel.
        target_dir: Gets the signed modules.

    Raises:
        ConfigError: The key that the kernel trusts is not there.
    """
    paths = tree.vm_module_paths
    if not find_enforcement(tree) or all(is_signed(path) for path in paths):
        return tree
    keys = find_keys(tree)
    target_dir.mkdir(parents=True, exist_ok=True)
    return replace(
        tree,
        vm_module_paths=tuple(
            path if is_signed(path) else sign_module(keys, tree, path, target_dir) for path in paths
        ),
    )


def is_signed(path: Path) -> bool:
    """Tell whether a module's file has a signature, by whomever."""
    return path.read_bytes().endswith(SIGNATURE_MARKER)


# -- a release's sums -------------------------------------------------------------------------


def sign_file(keys: Keys, path: Path) -> Path:
    """Sign a file with an SSH key; return the signature, which lies beside it.

    Raises:
        ConfigError: The key does not sign.
    """
    assert keys.ssh_key is not None
    with _open_passphrase(keys) as environment:
        argv = ("ssh-keygen", "-Y", "sign", "-n", NAMESPACE, "-f", str(keys.ssh_key), str(path))
        _require_success(argv, environment, keys)
    return path.with_name(f"{path.name}.sig")


def find_signer(path: Path, signature: Path, allowed: Path) -> str:
    """Return who signed a file, "" when nobody did that a person allows.

    Args:
        path: The file.
        signature: Of it.
        allowed: Signers, as ssh-keygen(1) has them: "NAME KEY" a line.
    """
    script = 'ssh-keygen -Y "$@" < "$0"'

    def ask(*arguments: str) -> tuple[int, str]:
        argv = ("sh", "-c", script, str(path), *arguments)
        return process.run_unchecked(Command(argv=argv, purpose="ssh-keygen", timeout_s=TIMEOUT_S))

    given = ("-s", str(signature), "-f", str(allowed))
    status, output = ask("find-principals", *given)
    if status != 0 or not output.strip():
        return ""
    name = output.strip().splitlines()[0]
    status, _ = ask("verify", "-n", NAMESPACE, "-I", name, *given)
    return name if status == 0 else ""
