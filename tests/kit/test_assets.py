"""The embedded models and those of the hub: what is opened, and what is refused."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

from common.cards import Card
from labs.kit import assets
from tests.conftest import Clone

import pytest

HUB_ID = 'model: str | None = option("a hub id")'
MODEL = '''
@lab.experiment
def opens(run: Run):
    """A model is opened."""
    run.say(assets.pretrained(run.options.model, run.online))
'''


def test_a_hub_id_without_online_is_a_card(clone: Clone) -> None:
    ended = clone.labs(clone.kit_lab(MODEL, options=HUB_ID), "--model", "owner/model")
    assert ended.code == 2, ended
    assert "what: There is no folder owner/model, and the hub is off." in ended.err
    assert "--online" in ended.err


def test_a_missing_folder_of_a_model_is_not_taken_for_a_hub_id() -> None:
    with pytest.raises(Card) as caught:
        assets.pretrained("outputs/none")
    assert caught.value.code == 2
    assert caught.value.what == "There is no folder outputs/none."
    assert "--online" not in caught.value.why + caught.value.fix


def test_without_a_network_the_card_names_the_embedded_model(clone: Clone) -> None:
    words = (clone.kit_lab(MODEL, options=HUB_ID), "--model", "owner/model", "--online")
    cache = {"HF_HOME": str(clone.path / "cache"), "HF_ENDPOINT": "http://127.0.0.1:9"}
    ended = clone.labs(*words, **cache, HF_HUB_OFFLINE=None)
    assert ended.code == 3, ended
    assert "what: owner/model can't be downloaded from the hub." in ended.err
    assert "SmolLM2" in ended.err
    assert "Traceback" not in ended.out + ended.err


class Hub(BaseHTTPRequestHandler):
    """The part of a hub that a download needs: one model with a pickle and custom code."""

    files: ClassVar[dict[str, bytes]] = {
        "config.json": b'{"model_type": "odd", "auto_map": {"AutoConfig": "code.Config"}}',
        "pytorch_model.bin": b"a pickle",
        "code.py": b"raise SystemExit('the code of a model was run')",
    }
    requested: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.requested.append(self.path)
        name = self.path.rpartition("/")[2]
        about: Any = {"id": "owner/model", "sha": "0" * 40}
        if "/tree/" in self.path:
            about = [{"type": "file", "path": one, "oid": one, "size": 1} for one in self.files]
        body = self.files.get(name, json.dumps(about).encode())
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{name}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Hub.requested.clear()
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_no_pickle_and_no_code_is_downloaded(clone: Clone, hub: str) -> None:
    words = (clone.kit_lab(MODEL, options=HUB_ID), "--model", "owner/model", "--online")
    cache = {"HF_HOME": str(clone.path / "cache"), "HF_ENDPOINT": hub}
    ended = clone.labs(*words, **cache, HF_HUB_OFFLINE=None)
    assert ended.code == 2, ended
    assert "no *.safetensors" in ended.err
    fetched = {Path(one).name for one in Hub.requested if "/resolve/" in one}
    assert fetched == {"config.json"}


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"config.json": '{"model_type": "llama"}', "pytorch_model.bin": ""}, "no *.safetensors"),
        ({"config.json": '{"model_type": "odd"}', "model.safetensors": ""}, "no model type 'odd'"),
        ({"model.safetensors": ""}, "has no config.json with a model type"),
    ],
)
def test_a_folder_with_more_than_data_is_refused(
    tmp_path: Path, files: dict[str, str], why: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(Card) as caught:
        assets.pretrained(str(tmp_path))
    assert caught.value.code == 2
    assert why in caught.value.why


def test_a_folder_with_a_safe_model_is_opened(labs_home: Path) -> None:
    folder = str(labs_home / "assets" / "smollm2")
    assert assets.pretrained(folder) == folder


def test_missing_models_are_a_card(clone: Clone) -> None:
    ended = clone.labs(clone.kit_lab(MODEL, options=HUB_ID), LABS_HOME=None)
    assert "The labs' models are missing." in ended.out + ended.err, ended


CHECKED = MODEL.replace("@lab", "lab.before_run(assets.check_model)\n\n@lab")


def test_a_lab_can_check_its_model_before_it_starts(clone: Clone) -> None:
    ended = clone.labs(
        clone.kit_lab(CHECKED, options=HUB_ID), "--model", "owner/model", "--processes", "2"
    )
    assert ended.code == 2, ended
    assert ended.err.count("what: There is no folder owner/model, and the hub is off.") == 1
    assert not clone.outputs.exists()
