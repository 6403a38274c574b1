# SPDX-License-Identifier: GPL-2.0-only
"""Kernels that take signed modules alone: which they are, and what is signed for them."""

from dataclasses import replace
from pathlib import Path

import pytest

from twinmod.base import process
from twinmod.base.process import Command
from twinmod.builds import signing
from twinmod.builds.product import NeededModule, Product
from twinmod.builds.signing import Keys
from twinmod.errors import ConfigError
from twinmod.kernels import kconfig
from twinmod.kernels.model import KernelTree, Origin

SIGNED = {"CONFIG_MODULE_SIG": "y", "CONFIG_MODULE_SIG_HASH": "sha512"}

LOCKABLE = SIGNED | {"CONFIG_SECURITY_LOCKDOWN_LSM": "y", "CONFIG_LSM": "landlock,lockdown,yama"}


# -- which they are ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "parameters", "reason"),
    [
        (SIGNED, (), ""),
        (SIGNED | {"CONFIG_MODULE_SIG_FORCE": "y"}, (), "CONFIG_MODULE_SIG_FORCE"),
        (SIGNED | {"CONFIG_MODULE_SIG_FORCE": "n"}, (), ""),
        (SIGNED, ("module.sig_enforce=1",), "module.sig_enforce=1"),
        (SIGNED, ("quiet module.sig-enforce",), "module.sig-enforce"),
        (SIGNED, ("module.sig_enforce=y",), "module.sig_enforce=y"),
        (SIGNED, ("module.sig_enforce=on",), "module.sig_enforce=on"),
        (SIGNED, ("module.sig_enforce=0",), ""),
        (SIGNED, ("module.sig_enforce=off",), ""),
        (SIGNED, ("module.sig_enforce=1", "module.sig_enforce=0"), "module.sig_enforce=1"),
        (SIGNED, ("x.module.sig_enforce=1",), ""),
        ({}, ("module.sig_enforce=1",), ""),
        (
            SIGNED | {"CONFIG_CMDLINE_BOOL": "y", "CONFIG_CMDLINE": "a module.sig_enforce=1"},
            (),
            "module.sig_enforce=1",
        ),
        (SIGNED | {"CONFIG_CMDLINE": "module.sig_enforce=1"}, (), ""),
        (LOCKABLE, (), ""),
        (LOCKABLE, ("lockdown=integrity",), "lockdown=integrity"),
        (LOCKABLE, ("lockdown=confidentiality",), "lockdown=confidentiality"),
        (LOCKABLE, ("lockdown=none",), ""),
        (SIGNED, ("lockdown=integrity",), ""),
        (LOCKABLE | {"CONFIG_LSM": "yama"}, ("lockdown=integrity",), ""),
        (LOCKABLE, ("lockdown=integrity", "lsm=yama"), ""),
        (
            LOCKABLE | {"CONFIG_LSM": "yama", "CONFIG_SECURITY_LOCKDOWN_LSM_EARLY": "y"},
            ("lockdown=integrity",),
            "lockdown=integrity",
        ),
        # As [tool.twinmod] has the options of a kernel that is to be built: no defaults.
        ({"CONFIG_SECURITY_LOCKDOWN_LSM": "y"}, ("lockdown=integrity",), "lockdown=integrity"),
        *(
            (
                LOCKABLE | {f"CONFIG_LOCK_DOWN_KERNEL_FORCE_{level}": "y"},
                (),
                f"CONFIG_LOCK_DOWN_KERNEL_FORCE_{level}",
            )
            for level in ("INTEGRITY", "CONFIDENTIALITY")
        ),
    ],
)
def test_a_kernel_takes_signed_modules_alone_for_a_reason(
    config: dict[str, str], parameters: tuple[str, ...], reason: str
) -> None:
    assert kconfig.find_enforcement(config, parameters) == reason


# -- what is signed ---------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path, tree: KernelTree) -> KernelTree:
    """A person's own tree, built with O=, that enforces signatures; its 9p.ko is not signed."""
    source, build = tmp_path / "linux", tmp_path / "build"
    (source / "certs").mkdir(parents=True)
    (build / "certs").mkdir(parents=True)
    for name in ("certs/signing_key.pem", "certs/signing_key.x509"):
        (build / name).write_text(name)
    (build / "9p.ko").write_bytes(b"9p")
    (build / "overlay.ko").write_bytes(b"overlay" + signing.SIGNATURE_MARKER)
    found = replace(
        tree,
        origin=Origin.TREE,
        source_dir=source,
        build_dir=build,
        vm_module_paths=(build / "9p.ko", build / "overlay.ko"),
    )
    configure(found, CONFIG_MODULE_SIG_FORCE="y")
    return found


def configure(tree: KernelTree, **changed: str) -> None:
    config = SIGNED | {"CONFIG_MODULE_SIG_KEY": '"certs/signing_key.pem"'} | changed
    text = "".join(f"{name}={value}\n" for name, value in config.items() if value)
    (tree.build_dir / ".config").write_text(text)


@pytest.fixture
def signed(monkeypatch: pytest.MonkeyPatch) -> list[Command]:
    """The commands that signed; each leaves what its module is, with a signature."""
    commands: list[Command] = []

    def run(command: Command) -> str:
        commands.append(command)
        module, target = (
            find_source(command, f"/twinmod/{name}") for name in ("module.ko", "signed")
        )
        name = command.argv[-1].rpartition("/")[2]
        (target / name).write_bytes(module.read_bytes() + signing.SIGNATURE_MARKER)
        return ""

    monkeypatch.setattr(process, "run", run)
    return commands


def find_source(command: Command, inside: str) -> Path:
    """Return what of the host a command sees at a place."""
    return Path(command.argv[command.argv.index(inside) - 1])


def test_the_vms_own_modules_are_signed_beside_the_tree_and_a_signed_one_stays(
    own: KernelTree, signed: list[Command], tmp_path: Path
) -> None:
    before = {path: path.read_bytes() for path in own.build_dir.rglob("*") if path.is_file()}
    found = signing.sign_vm_modules(own, tmp_path / "out/vm")
    assert found.vm_module_paths == (tmp_path / "out/vm/9p.ko", own.build_dir / "overlay.ko")
    assert found.vm_module_paths[0].read_bytes() == b"9p" + signing.SIGNATURE_MARKER
    assert len(signed) == 1
    assert before == {p: p.read_bytes() for p in own.build_dir.rglob("*") if p.is_file()}


def test_a_kernel_that_takes_any_module_has_none_signed(
    own: KernelTree, signed: list[Command], product: Product, tmp_path: Path
) -> None:
    configure(own)
    assert signing.sign_vm_modules(own, tmp_path / "out/vm") is own
    assert signing.sign_product(own, product) is product
    assert not signed


def test_what_a_module_needs_is_signed_with_it_unless_its_distribution_did(
    own: KernelTree, signed: list[Command], product: Product, tmp_path: Path
) -> None:
    paths = {name: tmp_path / f"{name}.ko" for name in ("m", "core", "mc")}
    for name, path in paths.items():
        path.write_bytes(name.encode() + (signing.SIGNATURE_MARKER if name == "mc" else b""))
    needed = tuple(NeededModule(name=name, path=paths[name]) for name in ("core", "mc"))
    found = signing.sign_product(own, replace(product, path=paths["m"], needed=needed))
    assert found.path == tmp_path / "signed/m.ko"
    assert [one.path for one in found.needed] == [tmp_path / "signed/core.ko", paths["mc"]]
    assert found.needed[0].path.read_bytes() == b"core" + signing.SIGNATURE_MARKER
    assert len(signed) == 2
    # It needs no key where all is signed.
    stock = replace(own, origin=Origin.STOCK, build_dir=tmp_path / "stock")
    stock.build_dir.mkdir()
    configure(stock, CONFIG_MODULE_SIG_FORCE="y")
    whole = replace(product, path=paths["mc"], needed=needed[1:])
    assert signing.sign_product(stock, whole).path == paths["mc"]


def test_a_distributions_modules_are_signed_already_and_need_no_key(
    own: KernelTree, signed: list[Command], tmp_path: Path
) -> None:
    stock = replace(own, origin=Origin.STOCK, vm_module_paths=own.vm_module_paths[1:])
    configure(stock, CONFIG_MODULE_SIG_KEY='"output/signing_key.pem"', CONFIG_MODULE_SIG_FORCE="y")
    assert signing.sign_vm_modules(stock, tmp_path / "out/vm") is stock
    assert not signed


@pytest.mark.parametrize("reason", ["CONFIG_MODULE_SIG_FORCE", "module.sig_enforce=1"])
def test_a_module_under_test_is_signed_for_whatever_reason(
    own: KernelTree, signed: list[Command], product: Product, reason: str, tmp_path: Path
) -> None:
    if "=" in reason:
        configure(own)
        own = replace(own, parameters=("quiet", reason))
    (tmp_path / "mdriver_c.ko").write_bytes(b"module")
    found = signing.sign_product(own, replace(product, path=tmp_path / "mdriver_c.ko"))
    assert found.path == tmp_path / "signed/mdriver_c.ko"
    assert found.size_bytes == len(b"module" + signing.SIGNATURE_MARKER)
    assert len(signed) == 1


# -- how it is signed -------------------------------------------------------------------------


@pytest.mark.parametrize("hash_name", ["sha256", "sha512", "sha3-512"])
def test_the_hash_is_that_of_the_kernels_configuration(
    own: KernelTree, signed: list[Command], hash_name: str, tmp_path: Path
) -> None:
    configure(own, CONFIG_MODULE_SIG_HASH=f'"{hash_name}"')
    keys = Keys(module_key=tmp_path / "key", module_certificate=tmp_path / "certificate")
    signing.sign_module(keys, own, own.vm_module_paths[0], tmp_path)
    assert f"/scripts/sign-file {hash_name} " in signed[0].argv[-1]


@pytest.mark.parametrize("lacking", ["CONFIG_MODULE_SIG", "CONFIG_MODULE_SIG_HASH"])
def test_a_kernel_that_checks_no_signature_gets_none(
    own: KernelTree, signed: list[Command], lacking: str, tmp_path: Path
) -> None:
    configure(own, **{lacking: ""})
    with pytest.raises(ConfigError, match="checks no signature"):
        signing.sign_module(Keys(), own, own.vm_module_paths[0], tmp_path)
    assert not signed


@pytest.mark.parametrize("folder", ["build", "linux"])
def test_a_key_lies_below_the_build_or_the_sources(folder: str, own: KernelTree) -> None:
    path = own.build_dir.parent / folder / "certs/mine.pem"
    path.write_text("key")
    configure(own, CONFIG_MODULE_SIG_KEY='"certs/mine.pem"')
    assert signing.find_keys(own) == Keys(
        module_key=path, module_certificate=own.build_dir / "certs/signing_key.x509"
    )


def test_a_key_can_lie_anywhere(own: KernelTree, tmp_path: Path) -> None:
    (tmp_path / "mine.pem").write_text("key")
    configure(own, CONFIG_MODULE_SIG_KEY=f'"{tmp_path}/mine.pem"')
    assert signing.find_keys(own).module_key == tmp_path / "mine.pem"


@pytest.mark.parametrize(
    ("origin", "key", "certificate", "hint"),
    [
        ("tree", '"certs/none.pem"', "certs/signing_key.x509", "keep the file of the key"),
        ("tree", '"pkcs11:token=mine"', "certs/signing_key.x509", "keep the file of the key"),
        ("tree", "", "certs/signing_key.x509", "keep the file of the key"),
        ("tree", '"certs/signing_key.pem"', "", "keep the file of the key"),
        ("stock", '"output/signing_key.pem"', "", "only its distribution has the key"),
    ],
)
def test_without_the_key_that_it_trusts_a_kernel_is_refused_with_the_reason(
    origin: str, key: str, certificate: str, hint: str, own: KernelTree
) -> None:
    configure(own, CONFIG_MODULE_SIG_KEY=key, CONFIG_MODULE_SIG_FORCE="y")
    if not certificate:
        (own.build_dir / "certs/signing_key.x509").unlink()
    with pytest.raises(ConfigError, match="takes signed modules alone") as caught:
        signing.find_keys(replace(own, origin=Origin(origin)))
    assert ("enforced by", "CONFIG_MODULE_SIG_FORCE") in caught.value.facts
    assert ("CONFIG_MODULE_SIG_KEY", key.strip('"')) in caught.value.facts
    assert caught.value.hint.startswith(hint)
