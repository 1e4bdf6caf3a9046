"""compare_tree.py ENDPOINT BUCKET PREFIX DIR: whether the bucket holds exactly the files of DIR below PREFIX.

Reads with boto3, credentials from the environment. Prints "N objects, all equal", or what differs."""
import os
import sys

import boto3
from botocore.config import Config

endpoint, bucket, prefix, root = sys.argv[1:]
s3 = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", config=Config(s3={"addressing_style": "path"}))

files = {}
for folder, _, names in os.walk(root):
    for name in names:
        path = os.path.join(folder, name)
        files[os.path.relpath(path, root)] = path

objects = {}
for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
    for found in page.get("Contents", []):
        objects[found["Key"][len(prefix):]] = found["Size"]

wrong = [f"missing {key}" for key in files.keys() - objects.keys()]
wrong += [f"left over {key}" for key in objects.keys() - files.keys()]
for key in files.keys() & objects.keys():
    with open(files[key], "rb") as file:
        if s3.get_object(Bucket=bucket, Key=prefix + key)["Body"].read() != file.read():
            wrong.append(f"different {key}")

print("\n".join(sorted(wrong)) or f"{len(objects)} objects, all equal")
sys.exit(bool(wrong))
