"""A token server for a registry: gives tokens that are good for a chosen time.

python token_server.py <folder> <true lifetime in seconds> <lifetime it claims>

It makes its key and certificate in the folder, and writes a line for each request to `requests`.
Tokens go to the user `user` with the password `pass`, or with the identity token `identity`;
nobody else may do more than pull from repositories whose names begin with `public/`.
"""

import base64
import datetime
import json
import os
import sys
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

folder, lifetime, claimed = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
# The registry takes a token for this long after its end, in case clocks differ.
LEEWAY = 60

key = ec.generate_private_key(ec.SECP256R1())
name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mlwm-test")])
now = datetime.datetime.now(datetime.timezone.utc)
certificate = (
    x509.CertificateBuilder()
    .subject_name(name)
    .issuer_name(name)
    .public_key(key.public_key())
    .serial_number(1)
    .not_valid_before(now - datetime.timedelta(days=1))
    .not_valid_after(now + datetime.timedelta(days=1))
    .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    .sign(key, hashes.SHA256())
)
with open(os.path.join(folder, "bundle.new"), "wb") as file:
    file.write(certificate.public_bytes(serialization.Encoding.PEM))
os.rename(os.path.join(folder, "bundle.new"), os.path.join(folder, "bundle.pem"))


def text(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(access):
    der = certificate.public_bytes(serialization.Encoding.DER)
    header = {"typ": "JWT", "alg": "ES256", "x5c": [base64.b64encode(der).decode()]}
    issued = time.time()
    claims = {
        "iss": "mlwm-test",
        "sub": "user",
        "aud": "registry",
        "exp": int(issued + lifetime - LEEWAY),
        "nbf": int(issued - 600),
        "iat": int(issued),
        "jti": os.urandom(8).hex(),
        "access": access,
    }
    parts = [text(json.dumps(part).encode()) for part in (header, claims)]
    signature = key.sign(".".join(parts).encode(), ec.ECDSA(hashes.SHA256()))
    r, s = decode_dss_signature(signature)
    parts.append(text(r.to_bytes(32, "big") + s.to_bytes(32, "big")))
    return ".".join(parts)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        query = urllib.parse.parse_qs(urllib.parse.urlparse(self.path).query)
        login = self.headers.get("Authorization", "")
        expected = "Basic " + base64.b64encode(b"user:pass").decode()
        self.answer(query.get("scope", []), bool(login), login == expected)

    def do_POST(self):
        form = self.rfile.read(int(self.headers["Content-Length"])).decode()
        form = urllib.parse.parse_qs(form)
        right = form.get("refresh_token") == ["identity"]
        right = right and form.get("grant_type") == ["refresh_token"]
        self.answer(" ".join(form.get("scope", [])).split(), True, right)

    def answer(self, scopes, named, right):
        with open(os.path.join(folder, "requests"), "a") as file:
            file.write(f"{self.command} {' '.join(scopes)} {'user' if right else 'nobody'}\n")
        if named and not right:
            return self.reply(401, {"details": "incorrect username or password"})
        access = []
        for scope in scopes:
            kind, resource, actions = scope.split(":", 2)
            actions = actions.split(",")
            if not right:
                public = resource.startswith("public/")
                actions = [a for a in actions if a == "pull" and public]
            access.append({"type": kind, "name": resource, "actions": actions})
        self.reply(200, {"token": token(access), "expires_in": claimed})

    def reply(self, status, body):
        body = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(f"listening on 127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
