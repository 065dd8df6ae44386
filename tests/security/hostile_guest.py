#!/usr/bin/python3
"""Stands in for guestd in the sandboxes of these tests: runs what it is sent, as root, and answers with the output."""

import subprocess
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT = 49983
DEADLINE_S = 60


class Shell(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        script = self.rfile.read(int(self.headers["Content-Length"])).decode()
        try:
            done = subprocess.run(
                ["/bin/bash", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=DEADLINE_S
            )
            body = done.stdout
        except subprocess.TimeoutExpired as error:
            body = (error.stdout or b"") + b"(cut off)"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


if __name__ == "__main__":
    ThreadingHTTPServer(("0.0.0.0", PORT), Shell).serve_forever()
