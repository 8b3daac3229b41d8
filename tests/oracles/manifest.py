"""Checks a published output against its manifest, object by object, with Python's own hashes.

usage: manifest.py OUTPUT MANIFEST
"""
import hashlib
import json
import pathlib
import sys

output, manifest = pathlib.Path(sys.argv[1]), json.loads(pathlib.Path(sys.argv[2]).read_text())
there = {str(p.relative_to(output)): p for p in output.rglob("*") if p.is_file()}
recorded = {o["path"]: o for o in manifest["objects"]}
assert sorted(there) == sorted(recorded), set(there) ^ set(recorded)
assert [o["path"] for o in manifest["objects"]] == sorted(recorded, key=lambda p: p.encode())
for path, record in recorded.items():
    data = there[path].read_bytes()
    assert len(data) == record["size"], path
    assert "sha256:" + hashlib.sha256(data).hexdigest() == record["sha256"], path
for key in ("version", "task", "analysis_time", "configuration", "image", "inputs", "run"):
    assert key in manifest, key
print(len(recorded), "objects are as the manifest says")
