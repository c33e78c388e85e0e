"""What tests of the desk's HTTP API import: its address, a clock to move, and somebody who is not signed in."""

from fastapi import FastAPI
from fastapi.testclient import TestClient

ORIGIN = "http://127.0.0.1:8420"
PASSWORD = "correct horse battery"


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def browser(app: FastAPI) -> TestClient:
    return TestClient(app, base_url=ORIGIN, follow_redirects=False, raise_server_exceptions=False)
