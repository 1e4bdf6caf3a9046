"""publish_tree.py ENDPOINT BUCKET PREFIX DIR: uploads the files of DIR below PREFIX with boto3, as its upload_file does:
above 8 MiB as multipart uploads in parts of 8 MiB. Credentials from the environment. Prints "N uploaded"."""
import os
import sys

import boto3
from botocore.config import Config

endpoint, bucket, prefix, root = sys.argv[1:]
s3 = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", config=Config(s3={"addressing_style": "path"}))

count = 0
for folder, _, names in os.walk(root):
    for name in names:
        path = os.path.join(folder, name)
        s3.upload_file(path, bucket, prefix + os.path.relpath(path, root))
        count += 1
print(f"{count} uploaded")
