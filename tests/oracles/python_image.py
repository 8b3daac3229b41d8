"""An image of the Python that runs this, with numpy: the context of `docker build`, on standard output.

    python_image.py BASE | docker build --tag REFERENCE -
"""

import importlib.util
import io
import sys
import sysconfig
import tarfile
from pathlib import Path

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


def main(base):
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
    numpy = Path(importlib.util.find_spec("numpy").origin).parent
    for folder in (numpy, numpy.with_name("numpy.libs")):
        if folder.is_dir():
            add(context, folder, f"python/lib/{PYTHON}/site-packages/{folder.name}")
    context.close()


main(*sys.argv[1:])
