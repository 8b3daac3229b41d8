"""Brings a folder to a bucket or back, with boto3: a client that is not ours.

usage: objects.py put FOLDER BUCKET PREFIX | get BUCKET PREFIX FOLDER | list BUCKET PREFIX | remove BUCKET PREFIX
       | uploads BUCKET
Endpoint and credentials come from the environment.
"""
import pathlib
import sys

import boto3

s3 = boto3.client("s3")


def keys(bucket, prefix):
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


what, *arguments = sys.argv[1:]
if what == "put":
    folder, bucket, prefix = arguments
    for path in sorted(pathlib.Path(folder).rglob("*")):
        if path.is_file():
            s3.upload_file(str(path), bucket, f"{prefix}/{path.relative_to(folder)}")
elif what == "get":
    bucket, prefix, folder = arguments
    for key in keys(bucket, prefix):
        target = pathlib.Path(folder) / key
        target.parent.mkdir(parents=True, exist_ok=True)
        s3.download_file(bucket, key, str(target))
elif what == "list":
    print("\n".join(keys(*arguments)))
elif what == "remove":
    for key in keys(*arguments):
        s3.delete_object(Bucket=arguments[0], Key=key)
elif what == "uploads":
    print("\n".join(upload["Key"] for upload in s3.list_multipart_uploads(Bucket=arguments[0]).get("Uploads", [])))
else:
    raise SystemExit(__doc__)
