"""The part of the hub's HTTP interface that push and pull call, on this machine, with repositories in memory.

Everything on the side of the client is huggingface_hub itself: it hashes, uploads large files by Git LFS, commits,
resolves revisions, downloads and renames. The server says which files are large as the hub does, by their suffix.
"""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".pt2", ".onnx", ".bin")
TOKEN = "hf_of_the_tests"


class Hub:
    """Repositories by name: a list of commits, each file name -> bytes; what was asked for, and faults to inject."""

    def __init__(self):
        self.repos, self.private, self.objects, self.asked = {}, {}, {}, []
        self.refuse = None  # (part of a path, status, message)
        self.damage = None  # name of a file of which a byte is changed on the way
        self.endpoint = ""

    def commit(self, repo, files):
        """Add a commit to a repository."""
        commits = self.repos.setdefault(repo, [])
        commits.append({**(commits[-1] if commits else {}), **files})

    def sha(self, repo, number=-1):
        """Name of a commit."""
        commits = self.repos[repo]
        number = number % len(commits)
        return hashlib.sha1(f"{repo} {number}".encode()).hexdigest()

    def at(self, repo, revision):
        """Files at a revision; None: there is no such revision."""
        for number, files in enumerate(self.repos[repo]):
            if self.sha(repo, number) == revision:
                return self.sha(repo, number), files
        return (self.sha(repo), self.repos[repo][-1]) if revision in (None, "main") else None


class Handler(BaseHTTPRequestHandler):
    """Answers requests."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Nothing is printed."""

    def answer(self, status, body=b"", headers=()):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refused(self, status, code, message):
        self.answer(status, {"error": message}, {"X-Error-Code": code, "X-Error-Message": message})

    def handle_request(self):
        hub = self.server.hub
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        hub.asked.append((self.command, path, self.headers.get("Authorization")))
        if hub.refuse is not None and hub.refuse[0] in path:
            return self.refused(hub.refuse[1], "", hub.refuse[2])
        if self.command == "PUT" and path.startswith("/objects/"):
            hub.objects[path.rpartition("/")[2]] = body
            return self.answer(200)
        if self.command == "POST":
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                return self.refused(401, "", "Invalid username or password.")
            return self.post(hub, path, body)
        return self.get(hub, path)

    do_GET = do_HEAD = do_POST = do_PUT = handle_request

    def post(self, hub, path, body):
        given = json.loads(body) if body[:1] == b"{" and b"\n" not in body.strip() else None
        if path == "/api/repos/create":
            repo = f"{given['organization']}/{given['name']}"
            if repo in hub.repos:
                return self.answer(409, {"url": f"{hub.endpoint}/{repo}", "error": "it exists"})
            hub.commit(repo, {".gitattributes": b""})
            hub.private[repo] = given.get("visibility", "private" if given.get("private") else None)
            return self.answer(200, {"url": f"{hub.endpoint}/{repo}"})
        if path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        if path.endswith("/info/lfs/objects/batch"):
            found = [
                {**each, "actions": {"upload": {"href": f"{hub.endpoint}/objects/{each['oid']}"}}}
                for each in given["objects"]
            ]
            return self.answer(200, {"transfer": "basic", "objects": found})
        if "/preupload/" in path:
            modes = [
                {
                    "path": each["path"],
                    "uploadMode": "lfs" if each["path"].endswith(LARGE) else "regular",
                    "shouldIgnore": False,
                }
                for each in given["files"]
            ]
            return self.answer(200, {"files": modes})
        if "/commit/" in path:
            return self.committed(hub, path.split("/api/models/")[1].split("/commit/")[0], body)
        return self.refused(404, "", f"no such call: {path}")

    def committed(self, hub, repo, body):
        files = {}
        for line in map(json.loads, body.decode().splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                found = hub.objects[value["oid"]]
                assert hashlib.sha256(found).hexdigest() == value["oid"] and len(found) == value["size"]
                files[value["path"]] = found
        hub.commit(repo, files)
        sha = hub.sha(repo)
        self.answer(200, {"commitUrl": f"{hub.endpoint}/{repo}/commit/{sha}", "commitOid": sha, "success": True})

    def get(self, hub, path):
        if path.startswith("/api/models/"):
            repo, _, revision = path.removeprefix("/api/models/").partition("/revision/")
            name = None
        else:
            repo, _, rest = path.strip("/").partition("/resolve/")
            revision, _, name = rest.partition("/")
        if repo not in hub.repos:
            return self.refused(404, "RepoNotFound", "Repository not found")
        found = hub.at(repo, revision or None)
        if found is None:
            return self.refused(404, "RevisionNotFound", "Invalid rev id")
        sha, files = found
        if name is None:
            siblings = [{"rfilename": each} for each in files]
            return self.answer(200, {"id": repo, "sha": sha, "siblings": siblings, "tags": [], "private": False})
        if name not in files:
            return self.refused(404, "EntryNotFound", "Entry not found")
        content = files[name]
        tag = hashlib.sha256(content).hexdigest()
        if hub.damage == name:
            content = content[:-1] + bytes([content[-1] ^ 1])
        return self.answer(200, content, {"ETag": f'"{tag}"', "X-Repo-Commit": sha})


def use(monkeypatch, endpoint, folder):
    """Let huggingface_hub call an address, as HF_ENDPOINT does when it is imported; it caches in a folder."""
    constants = import_module("huggingface_hub.constants")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    changes = {
        "ENDPOINT": endpoint,
        "HUGGINGFACE_CO_URL_TEMPLATE": endpoint + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(folder),
        "HF_HUB_DISABLE_XET": True,
    }
    for name, value in changes.items():
        monkeypatch.setattr(constants, name, value)


@contextmanager
def serving():
    """A hub that answers on this machine, at its `endpoint`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub = server.hub = Hub()
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
