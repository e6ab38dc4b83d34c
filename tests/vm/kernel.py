"""A Debian kernel as QEMU starts it: unpacked, with an initramfs of busybox and virtio, modules on a disk."""

from __future__ import annotations

import lzma
import re
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

from tests.vm.host import VmError, make_image, need, say, sh

# The initramfs loads these and what they depend on; udev loads the rest that a test needs.
BOOT_MODULES = (
    *("virtio_pci", "virtio_blk", "ext4", "virtio_console", "virtio_net", "virtio_rng"),
    *("9pnet_virtio", "9p", "crc32c_generic"),
)
# What is kept of a kernel's modules; the others (GPU, sound, ...) would only cost time and disk.
KEPT_MODULES = re.compile(
    r"kernel/(block|crypto|fs|lib|mm|net)/"
    r"|kernel/drivers/(block|char/hw_random|char/virtio|md|virtio|net/[^/]*\.ko|net/bonding"
    r"|net/ethernet/intel/(e1000e|igb)|sched)"
)
XZ, ZSTD = b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"


def init_script() -> str:
    """What the initramfs runs as pid 1."""
    return Path(__file__).with_name("inside").joinpath("init.sh").read_text()


def build_kernel(cache: Path, series: str, folder: Path) -> None:
    """The newest kernel of a series ("6.1") that apt has -> folder with vmlinux, initrd, modules.ext4."""
    need("apt-get", "dpkg-deb", "depmod", "mke2fs")
    package = _newest(series)
    version = package.removeprefix("linux-image-")
    say(f"fetching kernel {version} ...")
    with tempfile.TemporaryDirectory(dir=cache, prefix="build-") as work:
        unpacked, modules, out = (Path(work, name) for name in ("package", "modules", "out"))
        out.mkdir()
        sh("apt-get", "-o", "APT::Sandbox::User=root", "download", package, cwd=Path(work))
        sh("dpkg-deb", "-x", next(Path(work).glob("*.deb")), unpacked)
        kept = modules / "lib/modules" / version
        _keep_modules(unpacked / "lib/modules" / version, kept)
        sh("depmod", "-b", modules, version)
        (out / "initrd").write_bytes(cpio(_initramfs(kept, cache / "busybox")))
        boot_image = next((unpacked / "boot").glob("vmlinuz-*")).read_bytes()
        (out / "vmlinux").write_bytes(elf_of(boot_image))
        make_image(kept.parent, out / "modules.ext4", 16)
        out.rename(folder)


def _newest(series: str) -> str:
    pattern = rf"^linux-image-{re.escape(series)}\.[0-9][0-9.]*([-+](deb)?[0-9]+)+-amd64$"
    names = [line.split()[0] for line in sh("apt-cache", "search", "--names-only", pattern).splitlines()]
    if not names:
        raise VmError(f"no linux-image-{series}.*-amd64 in the apt sources. Run 'apt-get update'")
    return max(names, key=lambda name: [int(digits) for digits in re.findall(r"\d+", name)])


def _keep_modules(source: Path, kept: Path) -> None:
    """Copy what is kept, uncompressed: that is cheaper here than in the emulated machine."""
    for file in source.rglob("*"):
        name = str(file.relative_to(source))
        if not (name.startswith("modules.") or (".ko" in name and KEPT_MODULES.match(name))):
            continue
        (kept / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".xz"):
            (kept / name[:-3]).write_bytes(lzma.decompress(file.read_bytes()))
        else:
            shutil.copy(file, kept / name)


def load_order(modules_dep: str, wanted: tuple[str, ...]) -> list[str]:
    """The files to insmod, dependencies first; modules that are built in have none."""
    files: dict[str, list[str]] = {}
    for line in modules_dep.splitlines():
        module, _, needs = line.partition(":")
        files[Path(module).stem.replace("-", "_")] = [*reversed(needs.split()), module]
    return list(dict.fromkeys(file for name in wanted for file in files.get(name, [])))


def _initramfs(modules: Path, busybox: Path) -> dict[str, tuple[int, bytes]]:
    order = load_order((modules / "modules.dep").read_text(), BOOT_MODULES)
    names = [f"m/{Path(file).name}" for file in order]
    files = dict.fromkeys(("bin", "dev", "proc", "root", "m"), (0o40755, b""))
    files["bin/busybox"] = (0o100755, busybox.read_bytes())
    files["init"] = (0o100755, init_script().encode())
    files["order"] = (0o100644, "\n".join(names).encode())
    files |= {
        name: (0o100644, (modules / file).read_bytes()) for name, file in zip(names, order, strict=True)
    }
    return files


def cpio(files: dict[str, tuple[int, bytes]]) -> bytes:
    """{name: (mode, content)} as an initramfs (Documentation/driver-api/early-userspace/buffer-format)."""
    out = bytearray()
    for inode, (name, (mode, content)) in enumerate([*files.items(), ("TRAILER!!!", (0, b""))], 1):
        fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        out += b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        out += bytes(-len(out) % 4) + content
        out += bytes(-len(out) % 4)
    return bytes(out)


def elf_of(image: bytes) -> bytes:
    """The ELF kernel inside a bzImage (Documentation/x86/boot), which QEMU can start by PVH.

    Unpacking it in the guest takes 2 s at each boot. An image that is packed otherwise is used as it is.
    """
    start = (image[0x1F1] + 1) * 512 + struct.unpack_from("<I", image, 0x248)[0]
    payload = image[start : start + struct.unpack_from("<I", image, 0x24C)[0] - 4]
    if payload.startswith(XZ):
        return lzma.decompress(payload)
    if payload.startswith(ZSTD) and shutil.which("zstd"):
        return subprocess.run(["zstd", "-dc"], input=payload, capture_output=True, check=True).stdout
    return image
