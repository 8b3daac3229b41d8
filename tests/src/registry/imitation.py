"""A registry in memory that treats uploads as the specification allows and real ones do.

python imitation.py <options as JSON>

Options, all of which may be absent:
  keep        what stays of a chunk that came only in part: "all" (default), "half" or "nothing"
  least       OCI-Chunk-Min-Length
  most        answers 413 to longer requests
  patches     how many PATCH requests an upload may have; more are answered by 405
  forget      after this many chunks, the first upload is forgotten once
  storage     blobs are redirected to another server
  no_ranges   answers with whole blobs
  corrupt     flips a bit of the first blob that is completed
`GET /counts` tells what happened.
"""

import hashlib
import json
import re
import sys
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

options = json.loads(sys.argv[1])
lock = threading.Lock()
blobs, manifests, uploads = {}, {}, {}
counts = {"posts": 0, "patches": 0, "kept": 0, "forgotten": 0, "leaked": 0, "statuses": 0}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def reply(self, status, headers=(), body=b""):
        self.send_response(status)
        for key, value in dict(headers).items():
            self.send_header(key, str(value))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status, code):
        self.close_connection = True
        body = {"errors": [{"code": code, "message": "SECRET in a message"}]}
        self.reply(status, {"Connection": "close"}, json.dumps(body).encode())

    def body(self):
        """Whether everything came, and what came."""
        left, parts = int(self.headers.get("Content-Length", 0)), []
        try:
            while left and (part := self.rfile.read1(min(left, 1 << 16))):
                parts.append(part)
                left -= len(part)
        except OSError:
            pass
        return not left, b"".join(parts)

    def handle_one(self):
        url = urlparse(self.path)
        query = {key: value[0] for key, value in parse_qs(url.query).items()}
        if url.path == "/counts":
            return self.reply(200, {}, json.dumps(counts).encode())
        if match := re.fullmatch(r"/v2/(.+)/blobs/uploads/", url.path):
            return self.start(match[1])
        if match := re.fullmatch(r"/v2/(.+)/blobs/uploads/(.+)", url.path):
            return self.upload(match[1], match[2], query)
        if match := re.fullmatch(r"/v2/(.+)/blobs/(.+)", url.path):
            return self.blob(match[2])
        if match := re.fullmatch(r"/v2/(.+)/manifests/(.+)", url.path):
            return self.manifest(match[1], match[2])
        self.refuse(404, "UNSUPPORTED")

    def start(self, name):
        counts["posts"] += 1
        self.body()
        session = uuid.uuid4().hex
        uploads[session] = {"data": bytearray(), "patches": 0}
        headers = {"Location": f"/v2/{name}/blobs/uploads/{session}?_state=SECRET-{session}"}
        if "least" in options:
            headers["OCI-Chunk-Min-Length"] = options["least"]
        self.reply(202, headers)

    def upload(self, name, session, query):
        if session not in uploads or query.get("_state") != f"SECRET-{session}":
            return self.refuse(404, "BLOB_UPLOAD_UNKNOWN")
        upload = uploads[session]
        data = upload["data"]
        where = {"Location": self.path, "Range": f"0-{max(len(data) - 1, 0)}"}
        if self.command == "GET":
            counts["statuses"] += 1
            return self.reply(204, where)
        length = int(self.headers.get("Content-Length", 0))
        if length > options.get("most", length):
            return self.refuse(413, "SIZE_INVALID")
        if self.command == "PATCH":
            counts["patches"] += 1
            upload["patches"] += 1
            if upload["patches"] > options.get("patches", 1 << 30):
                return self.refuse(405, "UNSUPPORTED")
            if "Content-Range" in self.headers:
                if int(self.headers["Content-Range"].split("-")[0]) != len(data):
                    return self.refuse(416, "BLOB_UPLOAD_INVALID")
            if length < options.get("least", 0):
                upload["short"] = True
            whole, part = self.body()
            if not whole:
                kept = {"all": len(part), "half": len(part) // 2, "nothing": 0}
                part = part[: kept[options.get("keep", "all")]]
            data += part
            counts["kept"] += len(part)
            if upload["patches"] == options.get("forget") and not counts["forgotten"]:
                counts["forgotten"] += 1
                del uploads[session]
            where["Range"] = f"0-{len(data) - 1}"
            return self.reply(202, where)
        if self.command == "PUT":
            whole, part = self.body()
            if not whole:
                return
            content = bytes(data) + part
            if options.pop("corrupt", False):
                content = bytes([content[0] ^ 1]) + content[1:]
            digest = "sha256:" + hashlib.sha256(content).hexdigest()
            del uploads[session]
            if digest != query["digest"]:
                return self.refuse(400, "DIGEST_INVALID")
            blobs[digest] = content
            return self.reply(201, {"Docker-Content-Digest": digest})
        self.refuse(405, "UNSUPPORTED")

    def blob(self, digest):
        if self.server.is_storage and self.headers.get("Authorization"):
            counts["leaked"] += 1
        if digest not in blobs:
            return self.refuse(404, "BLOB_UNKNOWN")
        if "storage" in options and not self.server.is_storage and self.command == "GET":
            other = f"http://127.0.0.1:{storage.server_port}{self.path}?X-Signature=SECRET"
            return self.reply(307, {"Location": other})
        content = blobs[digest]
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not wanted or options.get("no_ranges"):
            return self.reply(200, {}, content)
        if wanted[1]:
            start, end = int(wanted[1]), int(wanted[2] or len(content) - 1)
        else:
            start, end = max(len(content) - int(wanted[2]), 0), len(content) - 1
        if start >= len(content):
            return self.refuse(416, "SIZE_INVALID")
        part = content[start : end + 1]
        span = f"bytes {start}-{start + len(part) - 1}/{len(content)}"
        self.reply(206, {"Content-Range": span}, part)

    def manifest(self, name, reference):
        if self.command == "PUT":
            _, content = self.body()
            digest = "sha256:" + hashlib.sha256(content).hexdigest()
            kind = self.headers["Content-Type"]
            manifests[name, reference] = manifests[name, digest] = (kind, content)
            return self.reply(201, {"Docker-Content-Digest": digest})
        if (name, reference) not in manifests:
            return self.refuse(404, "MANIFEST_UNKNOWN")
        kind, content = manifests[name, reference]
        if options.get("corrupt_manifest"):
            content = content + b" "
        self.reply(200, {"Content-Type": kind}, content)

    do_GET = do_HEAD = do_POST = do_PATCH = do_PUT = do_DELETE = handle_one

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    is_storage = False
    request_queue_size = 64

    def handle_error(self, *_):
        pass


if "storage" in options:
    storage = Server(("127.0.0.1", 0), Handler)
    storage.is_storage = True
    threading.Thread(target=storage.serve_forever, daemon=True).start()
server = Server(("127.0.0.1", 0), Handler)
print(f"listening on 127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
