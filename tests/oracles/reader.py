"""Reads what is published in a bucket again and again, with boto3, until its standard input ends: whatever a manifest
lists must be there, with its size and SHA-256. Prints how often it looked, and how many manifests it saw last.

usage: reader.py BUCKET PREFIX
Endpoint and credentials come from the environment.
"""
import hashlib
import json
import select
import sys

import boto3

s3 = boto3.client("s3")


def read(bucket, key):
    return s3.get_object(Bucket=bucket, Key=key)["Body"].read()


def look(bucket, prefix):
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
    manifests = [key for key in keys if key.endswith(".manifest.json")]
    for key in manifests:
        for listed in json.loads(read(bucket, key))["objects"]:
            name = key.removesuffix(".manifest.json") + "/" + listed["path"]
            content = read(bucket, name)
            assert len(content) == listed["size"], (name, len(content), listed)
            assert "sha256:" + hashlib.sha256(content).hexdigest() == listed["sha256"], name
    return len(manifests)


looks = 0
while not select.select([sys.stdin], [], [], 0.1)[0]:
    seen = look(*sys.argv[1:])
    looks += 1
print(looks, look(*sys.argv[1:]))
