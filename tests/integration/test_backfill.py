"""`sluice backfill` on a real bucket: each image is judged once, also when the run goes on where it stopped."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from tests.unit.intake.pictures import png
from worker.cli.main import app

pytestmark = pytest.mark.integration


@pytest.fixture
def full_bucket(s3_server: Any, bucket: str) -> Any:
    client = s3_server.client()
    keys = [f"old/{number:02d}.png" for number in range(24)] + ["old/broken.jpg", "old/readme.txt", "new/1.png"]
    for number, key in enumerate(keys):
        client.put_object(Bucket=bucket, Key=key, Body=b"none" if "broken" in key else png(red=number * 9))
    yield bucket
    for key in keys:
        client.delete_object(Bucket=bucket, Key=key)


def test_each_image_below_the_prefix_is_judged_once_and_a_run_goes_on_where_it_stopped(
    s3_server: Any, full_bucket: str, tmp_path: Path
) -> None:
    config = tmp_path / "sluice.yaml"
    config.write_text(
        f"s3: {{endpoint_url: '{s3_server.endpoint}', region: {s3_server.region}, addressing_style: path}}\n"
        "intake: {commit_interval_seconds: 0.1}\n"
    )
    environment = {"AWS_ACCESS_KEY_ID": s3_server.access_key, "AWS_SECRET_ACCESS_KEY": s3_server.secret_key}
    output = tmp_path / "verdicts"
    arguments = ["backfill", f"s3://{full_bucket}/old/", "--output", str(output), "--config", str(config)]
    whole = CliRunner().invoke(app, arguments, env=environment)
    assert whole.exit_code == 0, whole.output
    assert "25 images judged, 1 of them could not be" in whole.stdout

    rows = [row for part in sorted(output.glob("*.parquet")) for row in pq.read_table(part).to_pylist()]
    assert [row["key"] for row in rows] == sorted(row["key"] for row in rows)
    assert len({row["key"] for row in rows}) == len(rows) == 25
    (broken,) = (row for row in rows if row["failure"] is not None)
    assert (broken["key"], broken["action"]) == ("old/broken.jpg", "review")
    assert all(1 <= row["quality"] <= 5 for row in rows if row is not broken)

    state = output / "state-0000-of-0001.json"
    stopped = json.loads(state.read_text()) | {"judged": 10, "failed": 0, "after_key": rows[9]["key"], "is_over": False}
    state.write_text(json.dumps(stopped))
    again = CliRunner().invoke(app, arguments, env=environment)
    assert (again.exit_code, again.stdout) == (0, whole.stdout), again.output
    gone_on = pq.read_table(output / "part-0000-of-0001-000000000010.parquet")["key"].to_pylist()
    assert gone_on[0] == rows[10]["key"], "the listing goes on behind the last key"
    assert json.loads(state.read_text())["is_over"]
    nowhere = [*arguments[:1], f"s3://{full_bucket}-none/", "--output", str(tmp_path / "other"), *arguments[4:]]
    refused = CliRunner().invoke(app, nowhere, env=environment)
    assert refused.exit_code != 0
    assert "cannot be listed" in refused.stderr
