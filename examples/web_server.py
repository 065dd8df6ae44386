"""A web server inside a sandbox, with a public address that lives as long as the sandbox.

eval "$(.venv/bin/warren env)" && .venv/bin/python examples/web_server.py
"""

from e2b import Sandbox

MINUTES = 5

sandbox = Sandbox.create(timeout=MINUTES * 60)
sandbox.files.write("site/index.html", "<h1>Hello from inside</h1>")
sandbox.commands.run("python3 -m http.server 8000 --directory site", background=True, timeout=0)
print(f"https://{sandbox.get_host(8000)}/ for {MINUTES} minutes; end it with: warren sandbox kill {sandbox.sandbox_id}")
