"""An image of the Python that runs this, with some of its packages and what these need: the context of `docker build`,
on standard output.

    python_image.py BASE PACKAGE... | docker build --tag REFERENCE -
"""

import importlib.metadata
import io
import sys
import sysconfig
import tarfile
from pathlib import Path

from packaging.requirements import Requirement

PYTHON = f"python{sys.version_info[0]}.{sys.version_info[1]}"
LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "__pycache__", "idlelib", "ensurepip"}


def add(archive, path, name):
    above = len(Path(name).parts)

    def plain(member):
        parts = Path(member.name).parts[above:]
        if LEFT_OUT & set(parts) or any(part.startswith("config-") for part in parts):
            return None
        member.uid = member.gid = member.mtime = 0
        member.uname = member.gname = ""
        return member

    archive.add(path, name, filter=plain)


def installed(packages):
    """Files and folders beside each other that belong to packages and all that these need."""
    waiting, seen, found = list(packages), set(), set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        package = importlib.metadata.distribution(name)
        tops = {file.parts[0] for file in package.files} - {"..", "__pycache__"}
        found |= {Path(package.locate_file(top)) for top in tops}
        needed = [Requirement(text) for text in package.requires or []]
        waiting += [one.name for one in needed if not one.marker or one.marker.evaluate({"extra": ""})]
    return sorted(found)


def main(base, *packages):
    prefix = Path(sys.base_prefix)
    context = tarfile.open(fileobj=sys.stdout.buffer, mode="w|", dereference=True)
    text = f"FROM {base}\nCOPY python /opt/python\nENV PATH=/opt/python/bin:/usr/bin:/bin LD_LIBRARY_PATH=/opt/python/lib\n"
    member = tarfile.TarInfo("Dockerfile")
    member.size = len(text)
    context.addfile(member, io.BytesIO(text.encode()))
    add(context, prefix / "bin" / PYTHON, "python/bin/python3")
    add(context, sysconfig.get_path("stdlib"), f"python/lib/{PYTHON}")
    library = Path(sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("INSTSONAME"))
    if library.suffix != ".a" and library.is_file():
        add(context, library, f"python/lib/{library.name}")
    for path in installed(packages):
        add(context, path, f"python/lib/{PYTHON}/site-packages/{path.name}")
    context.close()


main(*sys.argv[1:])
