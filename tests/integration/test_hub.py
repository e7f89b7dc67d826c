"""A hub id becomes a model: the hub's own library against a small hub on loopback."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from node.hosting.hub import wanted_files
from protocols.errors import ModelFileError
from tests.fuzz import model_files

COMMIT = "c0ffee" * 6 + "c0ff"
API = "/api/models/owner/tiny"
FETCH = """
import sys
from pathlib import Path
from node.hosting.fetch import resolve
from node.hosting.read import read_model
from protocols.errors import UserError
try:
    path = resolve(sys.argv[1], Path(sys.argv[2]))
    print(path, read_model(path).config.layers)
except UserError as error:
    print("refused:", error)
"""


def repository() -> dict[str, bytes]:
    return {
        "config.json": model_files.config_json(),
        "model.safetensors": model_files.safetensors_bytes(),
        "tokenizer.json": model_files.tokenizer_json(),
        "consolidated.safetensors": b"the same once more",
        "onnx/model.safetensors": b"another form",
        "pytorch_model.bin": b"never",
        "README.md": b"about",
    }


@contextmanager
def hub(files: Mapping[str, bytes]) -> Iterator[tuple[str, list[str]]]:
    """Its address, and the paths of the files that were asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def log_message(self, *_args: object) -> None:
            pass

        def _answer(self, *, with_body: bool) -> None:
            path = self.path.partition("?")[0]
            if path in {f"{API}/revision/main", f"{API}/revision/{COMMIT}"}:
                siblings = [{"rfilename": name, "size": len(data)} for name, data in files.items()]
                told = {"id": "owner/tiny", "sha": COMMIT, "siblings": siblings}
                self._send(json.dumps(told).encode(), with_body=with_body)
                return
            if path == f"{API}/tree/{COMMIT}":
                tree = [
                    {"type": "file", "path": name, "size": len(data), "oid": COMMIT}
                    for name, data in files.items()
                ]
                self._send(json.dumps(tree).encode(), with_body=with_body)
                return
            name = path.removeprefix(f"/owner/tiny/resolve/{COMMIT}/")
            if name in files:
                asked.append(name)
                self._send(files[name], with_body=with_body)
            else:
                self.send_response(404)
                self.send_header("X-Error-Code", "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()

        def _send(self, body: bytes, *, with_body: bool) -> None:
            self.send_response(200)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hash(body) & 0xFFFFFFFF:x}"')
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if with_body:
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def fetch(address: str, name: str, home: Path) -> str:
    """In a process of its own: the hub's library reads its settings when it is imported."""
    environment = {"HF_ENDPOINT": address, "PATH": "/usr/bin:/bin", "HOME": str(home)}
    environment |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", FETCH, name, str(home / "models")],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    return done.stdout.strip()


@pytest.mark.integration
@pytest.mark.slow
def test_a_hub_id_is_fetched_once_and_read(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "hub" / "owner--tiny"
    with hub(repository()) as (address, asked):
        assert fetch(address, "owner/tiny", tmp_path) == f"{folder} 1"
        assert set(asked) == {"config.json", "model.safetensors", "tokenizer.json"}
        assert {path.name for path in folder.iterdir() if path.is_file()} == set(asked)
    assert fetch("http://127.0.0.1:9", "owner/tiny", tmp_path) == f"{folder} 1"


@pytest.mark.integration
@pytest.mark.slow
def test_a_model_that_the_hub_does_not_have_or_that_we_cannot_read_leaves_nothing(
    tmp_path: Path,
) -> None:
    damaged = repository() | {"config.json": b'{"model_type": "mamba"}'}
    with hub(damaged) as (address, asked):
        assert "has no model 'owner/none'" in fetch(address, "owner/none", tmp_path)
        assert "type 'mamba'" in fetch(address, "owner/tiny", tmp_path)
        assert set(asked) == {"config.json"}
    assert not list((tmp_path / "models").glob("hub/*"))


def test_a_repository_of_pickles_is_refused() -> None:
    with pytest.raises(ModelFileError, match="pickled"):
        wanted_files("owner/old", ["config.json", "pytorch_model.bin", "sub/model.safetensors"])
