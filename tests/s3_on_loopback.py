"""An S3 server on loopback behind a proxy that fails a share of the requests, for tests and benchmarks."""

import http.client
import http.server
import json
import logging
import random
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import botocore.session
from moto.server import ThreadedMotoServer

SECRET = "PLANTEDsecretPLANTED"
KEY = "AKIAPLANTEDKEY"
BUCKET = "archive"

FAULTS = ("500", "503", "reset", "truncate", "delay")


class Proxy(http.server.BaseHTTPRequestHandler):
    """Passes requests on; fails as `Behaviour` says."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def handle_any(self):
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length) if length else b""
        behaviour = self.server.behaviour
        fault = behaviour.next_fault(self.command, self.path)
        if fault == "delay":
            time.sleep(0.2)
        if fault == "reset":
            self.close_connection = True
            self.connection.close()
        elif fault in behaviour.CODES:
            self.answer(*behaviour.CODES[fault])
        else:
            self.forward(body, cut=fault == "truncate")

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any

    def answer(self, status, code):
        text = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        if status == 301:
            self.send_header("x-amz-bucket-region", "eu-west-1")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def forward(self, body, *, cut):
        upstream = http.client.HTTPConnection(*self.server.upstream)
        upstream.request(self.command, self.path, body, dict(self.headers.items()))
        answer = upstream.getresponse()
        data = answer.read()
        upstream.close()
        length = answer.getheader("content-length") if self.command == "HEAD" else None
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "content-length", "connection", "date", "server"):
                self.send_header(name, value)
        self.send_header("content-length", length or str(len(data)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if cut and len(data) > 1:
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
            self.connection.close()
        else:
            self.wfile.write(data)


class Behaviour:
    """Which requests fail, and how many there were."""

    CODES = {  # noqa: RUF012
        "500": (500, "InternalError"),
        "503": (503, "SlowDown"),
        "403": (403, "AccessDenied"),
        "expired": (400, "ExpiredToken"),
        "skew": (403, "RequestTimeTooSkewed"),
        "elsewhere": (301, "PermanentRedirect"),
        "region": (400, "AuthorizationHeaderMalformed"),
    }

    def __init__(self):
        self.lock = threading.Lock()
        self.reset()

    def reset(self, share=0.0, always=None, seed=0):
        """``share`` of the requests fails in turn in all ways, or ``always`` the same."""
        self.share, self.always, self.random = share, always, random.Random(seed)
        self.requests, self.faults, self.signed = [], [], 0

    def next_fault(self, method, path):
        with self.lock:
            self.requests.append((method, path))
            fault = self.always
            if fault is None and self.random.random() < self.share:
                fault = FAULTS[len(self.faults) % len(FAULTS)]
            if fault:
                self.faults.append(fault)
            return fault


class ProxyServer(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 128


def make_bucket(endpoint):
    """A bucket that everybody may read and list."""
    session = botocore.session.Session()
    session.set_credentials(KEY, SECRET)
    client = session.create_client("s3", region_name="us-east-1", endpoint_url=endpoint)
    client.create_bucket(Bucket=BUCKET)
    allowed = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": ["s3:GetObject", "s3:ListBucket"],
        "Resource": [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"],
    }
    client.put_bucket_policy(
        Bucket=BUCKET, Policy=json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    )


@contextmanager
def s3_on_loopback() -> Iterator[ProxyServer]:
    """Start both; ``server_port`` is where clients go, ``behaviour`` says what fails."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    proxy = ProxyServer(("127.0.0.1", 0), Proxy)
    proxy.upstream, proxy.behaviour = moto.get_host_and_port(), Behaviour()
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    make_bucket("http://{}:{}".format(*proxy.upstream))
    try:
        yield proxy
    finally:
        proxy.shutdown()
        moto.stop()


def environment(server: ProxyServer) -> dict[str, str]:
    """Variables of a user of that server, who has nothing else set."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/no/such/config",
        "AWS_SHARED_CREDENTIALS_FILE": "/no/such/credentials",
    }
