"""What every answer carries, and what is refused before anybody looks at it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from worker.review.http.page import FILES
from worker.review.http.security import MAX_BODY_BYTES


@pytest.mark.parametrize("path", ["/", "/js/main.js", "/v1/session", "/nowhere", "/v1/openapi.json"])
def test_every_answer_forbids_foreign_scripts_frames_and_guessing(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


def test_answers_of_the_api_are_not_stored(client: TestClient) -> None:
    assert client.get("/v1/session").headers["cache-control"] == "no-store"


def test_a_foreign_host_name_gets_no_answer(client: TestClient) -> None:
    assert client.get("/", headers={"host": "rebound.example"}).status_code == 400


def test_a_body_that_is_too_long_is_refused_with_and_without_a_length(client: TestClient) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(MAX_BODY_BYTES // 65536 + 1):
            yield b" " * 65536

    for content in (b" " * (MAX_BODY_BYTES + 1), pieces()):
        answer = client.post("/v1/sign-in", content=content, headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()["type"]) == (413, "urn:sluice:problem:body-too-large")


def test_an_address_that_is_too_long_is_refused(client: TestClient) -> None:
    assert client.get(f"/v1/items?text={'a' * 9000}").status_code == 414


def test_an_unknown_path_is_a_problem(client: TestClient) -> None:
    answer = client.get("/v1/nowhere")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


@pytest.mark.parametrize("path", ["/../app.py", "/..%2f..%2fhttp/app.py", "/js/../../http/app.py", "/.git/config"])
def test_nothing_beside_the_page_can_be_read(client: TestClient, path: str) -> None:
    assert client.get(path).status_code in {400, 404}


def test_a_fault_of_ours_tells_no_details(
    client: TestClient, sign_in: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch, desk: object
) -> None:
    def fail() -> None:
        raise RuntimeError("password=hunter2")

    monkeypatch.setattr(desk, "queues", fail)
    answer = sign_in().get("/v1/queues")
    assert (answer.status_code, answer.json()["type"]) == (500, "urn:sluice:problem:internal-error")
    assert "hunter2" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"


def page_files() -> list[Path]:
    return [path for path in FILES.rglob("*") if path.suffix in {".html", ".js", ".css"} and "vendor" not in path.parts]


def test_the_page_loads_nothing_from_elsewhere_and_runs_nothing_inline() -> None:
    assert len(page_files()) > 15
    for path in page_files():
        text = path.read_text()
        for word in ("https://", "http://", "innerHTML", "insertAdjacentHTML", "eval(", "document.write"):
            found = text.replace("http://www.w3.org/2000/svg", "")
            assert word not in found, f"{path.name}: {word}"


def test_what_is_vendored_lies_beside_its_licence() -> None:
    folders = [path for path in (FILES / "vendor").iterdir() if path.is_dir()]
    assert folders
    for folder in folders:
        assert (folder / "LICENSE").read_text().strip()
